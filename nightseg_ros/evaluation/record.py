# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What is kept of each frame: one line of JSON and one row of whole numbers per configuration.

Every score is a function of these, so that an interrupted run goes on from them, and what several
processes counted is put together by laying their records end to end.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from nightseg_ros.evaluation import metrics as calibration
from nightseg_ros.evaluation import metrics as flicker
from nightseg_ros.evaluation.metrics import Counts
from nightseg_ros.taxonomy import Taxonomy

LINES = 'frames.jsonl'
ROWS = 'counts.i64'
_ITEM = 8


class RecordError(RuntimeError):
    """Records that somebody else is writing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowLayout:
    """Where a frame's counts lie in its row of int64."""

    classes: int

    @property
    def size(self) -> int:
        """Numbers in a row."""
        return self._confusion + calibration.BINS * calibration.COLUMNS + flicker.FLICKER_COLUMNS

    @property
    def _confusion(self) -> int:
        return self.classes * (self.classes + 1)

    def confusion(self, rows: Counts) -> Counts:
        """Return the view [..., classes, classes + 1] of rows [..., size]."""
        part = rows[..., : self._confusion]
        return part.reshape(*rows.shape[:-1], self.classes, self.classes + 1)

    def calibration(self, rows: Counts) -> Counts:
        """Return the view [..., BINS, 3] of rows [..., size]."""
        part = rows[..., self._confusion : self.size - flicker.FLICKER_COLUMNS]
        return part.reshape(*rows.shape[:-1], calibration.BINS, calibration.COLUMNS)

    def flicker(self, rows: Counts) -> Counts:
        """Return the view [..., 5] of rows [..., size]."""
        return rows[..., self.size - flicker.FLICKER_COLUMNS :]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What a resumed run has to know of a frame on record, a value a configuration."""

    stamps: list[int]
    scores: list[float | None]
    routes: list[str]
    mious: list[float | None]
    readable: bool

    @classmethod
    def of(cls, lines: Sequence[dict[str, Any]]) -> Kept:
        """Take a frame's lines."""
        return cls(
            stamps=[line['stamp'] for line in lines],
            scores=[line['score'] for line in lines],
            routes=[line['route'] for line in lines],
            mious=[line['miou'] for line in lines],
            readable=lines[0]['size'] is not None,
        )


class RecordWriter:
    """
    Appends frames to a folder's records; what an earlier process left there is kept.

    A frame that was only half written when that process was killed is cut off.
    """

    def __init__(self, folder: Path, runs: int, taxonomy: Taxonomy) -> None:
        """Open or begin the records of ``runs`` configurations."""
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / 'lock').open('w')
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise RecordError(f"another process is writing to '{folder}'; wait for it") from error
        self.runs, self.taxonomy = runs, taxonomy
        self.layout = RowLayout(classes=len(taxonomy))
        self._width = runs * self.layout.size * _ITEM
        #: The whole frames that were on disk when it was opened.
        self.kept: list[Kept] = []
        self._recover(folder)
        self._lines = (folder / LINES).open('a', encoding='utf-8', errors='backslashreplace')
        self._rows = (folder / ROWS).open('ab')

    def append(self, lines: Sequence[dict[str, Any]], rows: Counts) -> None:
        """Add a frame: a line a configuration, and int64 [runs, size]."""
        if len(lines) != self.runs or rows.nbytes != self._width:
            raise ValueError(f'{len(lines)} lines and {rows.nbytes} bytes are no whole frame')
        self._rows.write(rows.tobytes())
        self._lines.write(''.join(json.dumps(line, ensure_ascii=False) + '\n' for line in lines))

    def flush(self) -> None:
        """Hand everything to the system, so that a killed process loses none of it."""
        self._rows.flush()
        self._lines.flush()

    def close(self) -> None:
        """Close the files."""
        self._rows.close()
        self._lines.close()
        self._lock.close()

    def __enter__(self) -> RecordWriter:
        """Use it in a ``with`` block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files; after an error as well, for the next attempt."""
        self.close()

    def _recover(self, folder: Path) -> None:
        lines, rows = folder / LINES, folder / ROWS
        if not lines.exists() or not rows.exists():
            lines.unlink(missing_ok=True)
            rows.unlink(missing_ok=True)
            return
        most = rows.stat().st_size // self._width
        end = 0
        with lines.open('rb') as file:
            while len(self.kept) < most:
                chunk = [file.readline() for _ in range(self.runs)]
                if not chunk[-1].endswith(b'\n'):
                    break
                try:
                    self.kept.append(Kept.of([json.loads(line) for line in chunk]))
                except ValueError:
                    break
                end = file.tell()
        with lines.open('rb+') as file:
            file.truncate(end)
        with rows.open('rb+') as file:
            file.truncate(len(self.kept) * self._width)


def frames_on_record(folder: Path, runs: int, taxonomy: Taxonomy) -> int:
    """Count the frames that a folder holds, or will hold in a moment."""
    path = folder / ROWS
    width = runs * RowLayout(classes=len(taxonomy)).size * _ITEM
    return path.stat().st_size // width if path.exists() else 0


class Records:
    """The finished records of one part, read piece by piece."""

    def __init__(self, folder: Path, runs: int, taxonomy: Taxonomy) -> None:
        """Map the counts; nothing is read yet."""
        self.folder = folder
        self._runs = runs
        path = folder / ROWS
        frames = frames_on_record(folder, runs, taxonomy)
        shape = (frames, runs, RowLayout(classes=len(taxonomy)).size)
        #: int64 [frames, runs, size]
        self.rows: Counts = (
            np.memmap(path, np.int64, 'r', shape=shape) if frames else np.zeros(shape, np.int64)
        )

    def __len__(self) -> int:
        """Count the frames."""
        return len(self.rows)

    def lines(self) -> Iterator[list[dict[str, Any]]]:
        """Yield each frame's lines, one a configuration."""
        with (self.folder / LINES).open(encoding='utf-8') as file:
            for _ in range(len(self)):
                yield [json.loads(file.readline()) for _ in range(self._runs)]
