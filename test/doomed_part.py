# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A recording whose process is killed in the middle of it, the first time."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightseg_ros.evaluation.part import Item, Reader, Recording


@dataclass(frozen=True, kw_only=True, slots=True)
class Doomed(Recording):
    """Kills the process that reads it after ``after`` frames, unless ``mark`` exists."""

    mark: Path
    after: int

    def open(self) -> Reader:
        return _Doomed(Recording.open(self), self)


class _Doomed:
    def __init__(self, reader: Reader, part: Doomed) -> None:
        self._reader, self._part = reader, part
        self.sequence = reader.sequence

    def __iter__(self) -> Iterator[Item]:
        for index, item in enumerate(self._reader):
            if index == self._part.after and not self._part.mark.exists():
                self._part.mark.write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
            yield item

    def summary(self) -> dict[str, Any]:
        return self._reader.summary()

    def close(self) -> None:
        self._reader.close()
