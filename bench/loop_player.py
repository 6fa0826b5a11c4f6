# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A camera: a bag that is played in a loop by a process of its own."""

from __future__ import annotations

import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path

from nightseg_ros.cli.processes import Child


class LoopPlayer:
    """Plays a bag into ``<camera>/image_raw`` for ever, and tells which frame was sent when."""

    def __init__(self, camera: str, bag: Path, folder: Path) -> None:
        """Prepare; ``start`` starts the process, whose files go into ``folder``."""
        self.camera = camera
        self._bag, self._folder = bag, folder
        self._starts = 0
        self._child: Child | None = None
        self._stack = ExitStack()
        self._read = 0

    def start(self) -> None:
        """Start the process."""
        self._starts += 1
        self._read = 0
        self._child = self._stack.enter_context(
            Child(
                'nightseg_ros.node.replay',
                [
                    str(self._bag), '--loop', '--remap-to', f'{self.camera}/image_raw',
                    '--log', str(self._log),
                ],
                log=self._folder / f'{self.camera}.log',
                environ=dict(os.environ),
            )
        )  # fmt: skip

    def stop(self) -> None:
        """End the process."""
        self._stack.close()
        self._log.unlink(missing_ok=True)
        self._child = None

    def freeze(self) -> None:
        """Let it fall silent while it still stands in the graph."""
        assert self._child is not None
        self._child.check()
        self._child.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on; what it missed comes at once."""
        assert self._child is not None
        self._child.signal(signal.SIGCONT)

    def sent(self) -> list[tuple[int, float]]:
        """Return stamp (ns) and steady time (s) of what was sent since the last call."""
        if self._child is None or not self._log.exists():
            return []
        self._child.check()
        with self._log.open('rb') as file:
            file.seek(self._read)
            content = file.read()
        whole = content[: content.rfind(b'\n') + 1]
        self._read += len(whole)
        events = [json.loads(line) for line in whole.splitlines()]
        return [(event['stamp'], event['sent'] / 1e9) for event in events]

    @property
    def _log(self) -> Path:
        return self._folder / f'{self.camera}-{self._starts}.jsonl'
