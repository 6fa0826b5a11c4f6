# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Which segments in /dev/shm belong to processes that this test run has started."""

from collections.abc import MutableMapping
from pathlib import Path
import threading
import uuid

from nightseg_ros.shared_memory import FOLDER, held_locks

#: Its value names the run, in the environment of every process that the run starts.
VARIABLE = 'NIGHTSEG_TEST_RUN'
#: Seconds between two looks.
PERIOD = 0.5


class SegmentWatch:
    """A thread that notes the segments of all processes whose environment names this run."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Name the run in ``environ`` and begin to look."""
        environ[VARIABLE] = uuid.uuid4().hex
        self._mark = f'{VARIABLE}={environ[VARIABLE]}'.encode()
        self._seen: set[str] = set()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name='segment watch', daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._closed.set()
        self._thread.join()

    def begin(self) -> None:
        """Forget what was seen."""
        self._seen = set()

    def left(self) -> set[str]:
        """Return the segments that have been seen and exist, but that no process of ours owns."""
        held = self._held()
        return {name for name in self._seen - held if (FOLDER / name).exists()}

    def _run(self) -> None:
        while not self._closed.wait(PERIOD):
            self._seen |= self._held()

    def _held(self) -> set[str]:
        """Return the segments that processes of ours own; ports go from owner to owner."""
        names = set()
        for process in Path('/proc').glob('[1-9]*'):
            if self._is_ours(process):
                names |= {lock.name[:-3] for lock, _ in held_locks(process.name)}
        return {name for name in names if '_port' not in name}

    def _is_ours(self, process: Path) -> bool:
        try:
            return self._mark in (process / 'environ').read_bytes().split(b'\0')
        except OSError:
            return False
