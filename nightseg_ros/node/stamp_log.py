# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""JSON lines that say when, by the steady clock, a stamp passed; two make a latency."""

from __future__ import annotations

import json
from types import TracebackType


class StampLog:
    """Writes one line an event, at once, so that a killed process leaves what it knew."""

    def __init__(self, path: str | None) -> None:
        """Write to ``path``; without one nothing is written."""
        self._file = None
        if path:
            self._file = open(path, 'w', encoding='utf-8', buffering=1)  # noqa: SIM115

    def add(self, **event: int | str) -> None:
        """Write an event."""
        if self._file is not None:
            self._file.write(json.dumps(event) + '\n')

    def __enter__(self) -> StampLog:
        """Use it in a ``with`` block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
