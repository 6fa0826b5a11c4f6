# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The records of a set as columns: little memory for many frames, and sums over any of them."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nightseg_ros.evaluation.confusion import Counts
from nightseg_ros.evaluation.record import Records

Mask = npt.NDArray[np.bool_]
#: Frames whose counts are in memory at a time.
_CHUNK = 2048
STAGES = (
    'decode', 'estimate', 'shrink', 'network', 'post', 'render', 'metrics', 'wall',
)  # fmt: skip


@dataclass(kw_only=True)
class Words:
    """A column of few different words; '' stands for none."""

    codes: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    names: list[str] = field(default_factory=list)

    def equal(self, name: str) -> Mask:
        """Tell where the column holds a word."""
        return np.asarray(self.codes == self.names.index(name), np.bool_)

    def counts(self, where: Mask) -> dict[str, int]:
        """Count each word, without '', in the words' order."""
        numbers = np.bincount(self.codes[where], minlength=len(self.names))
        pairs = ((name, int(number)) for name, number in zip(self.names, numbers))
        return {name: number for name, number in sorted(pairs) if name and number}


@dataclass(kw_only=True)
class Table:
    """One run's frames, a row each, in the order of parts and stamps."""

    part: npt.NDArray[np.int32]
    stamp: npt.NDArray[np.int64]
    labelled: npt.NDArray[np.int64]
    """Labelled pixels."""
    miou: npt.NDArray[np.float64]
    """NaN without labels."""
    pixel_acc: npt.NDArray[np.float64]
    reliability: npt.NDArray[np.float64]
    """NaN without a mask."""
    readable: Mask
    """The frame could be decoded."""
    masked: Mask
    """The frame has a mask."""
    source: Words
    state: Words
    route: Words
    light: Words
    ms: dict[str, npt.NDArray[np.float64]]
    """By stage; NaN where it did not run."""
    labels_sha256: str
    """Over every frame's hash."""

    def __len__(self) -> int:
        """Count the frames."""
        return len(self.part)


def read_tables(records: Sequence[Records], runs: int) -> list[Table]:
    """Read the lines of all parts into a table a configuration."""
    columns = [_Columns() for _ in range(runs)]
    for part, record in enumerate(records):
        for lines in record.lines():
            for column, line in zip(columns, lines):
                column.add(part, line)
    return [column.table() for column in columns]


def total(
    records: Sequence[Records], run: int, groups: npt.NDArray[np.int64], count: int, where: Mask
) -> Counts:
    """Return int64 [count, size]: the rows of the frames in ``where``, summed by their group."""
    sums: Counts | None = None
    start = 0
    for record in records:
        stop = start + len(record)
        chosen = np.flatnonzero(where[start:stop])
        for low in range(0, len(chosen), _CHUNK):
            some = chosen[low : low + _CHUNK]
            rows = record.rows[some, run]
            if sums is None:
                sums = np.zeros((count, rows.shape[-1]), np.int64)
            np.add.at(sums, groups[start + some], rows)
        start = stop
    if sums is None:
        sums = np.zeros((count, records[0].rows.shape[-1]), np.int64)
    return sums


class _Columns:
    def __init__(self) -> None:
        self._part, self._stamp, self._labelled = array('i'), array('q'), array('q')
        self._scores = {name: array('d') for name in ('miou', 'pixel_acc', 'reliability')}
        self._readable, self._masked = array('b'), array('b')
        self._words = {name: _Coder() for name in ('source', 'state', 'route', 'light')}
        self._ms = {stage: array('d') for stage in STAGES}
        self._hash = hashlib.sha256()

    def add(self, part: int, line: dict[str, Any]) -> None:
        self._part.append(part)
        self._stamp.append(line['stamp'] or 0)
        self._labelled.append(line['labelled'])
        for name, column in self._scores.items():
            column.append(float('nan') if line[name] is None else line[name])
        self._readable.append(line['size'] is not None)
        self._masked.append(line['labels_sha256'] is not None)
        for name, coder in self._words.items():
            coder.add(line[name] or '')
        for stage, column in self._ms.items():
            column.append(line['ms'].get(stage, float('nan')))
        self._hash.update(bytes.fromhex(line['labels_sha256'] or ''))

    def table(self) -> Table:
        return Table(
            part=np.array(self._part, np.int32),
            stamp=np.array(self._stamp, np.int64),
            labelled=np.array(self._labelled, np.int64),
            miou=np.array(self._scores['miou'], np.float64),
            pixel_acc=np.array(self._scores['pixel_acc'], np.float64),
            reliability=np.array(self._scores['reliability'], np.float64),
            readable=np.array(self._readable, np.bool_),
            masked=np.array(self._masked, np.bool_),
            ms={stage: np.array(column, np.float64) for stage, column in self._ms.items()},
            labels_sha256=self._hash.hexdigest(),
            **{name: coder.words() for name, coder in self._words.items()},
        )


class _Coder:
    def __init__(self) -> None:
        self._codes = array('i')
        self._known: dict[str, int] = {}

    def add(self, word: str) -> None:
        self._codes.append(self._known.setdefault(word, len(self._known)))

    def words(self) -> Words:
        return Words(codes=np.array(self._codes, np.int32), names=list(self._known))


def stretches(part: npt.NDArray[np.int32]) -> Iterator[slice]:
    """Yield the rows of each part."""
    edges = np.flatnonzero(np.diff(part)) + 1
    for start, stop in zip([0, *edges], [*edges, len(part)]):
        if stop > start:
            yield slice(int(start), int(stop))
