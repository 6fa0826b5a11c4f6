# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The records of a set as columns: little memory for many frames, and sums over any of them.

How the router did over a drive: switches, time in a wrong state, and how late it followed.

Milliseconds by stage, and frames a second.

The scores of a finished evaluation, as docs/metrics.md describes them.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nightseg_ros.evaluation.measure import DONE
from nightseg_ros.evaluation.metrics import (
    Counts,
    Floats,
    SegmentationScores,
    Unit,
    calibration,
    difference,
    flicker,
    rounded,
    selective,
)
from nightseg_ros.evaluation.metrics import number as to_number
from nightseg_ros.evaluation.part import Pictures, Recording
from nightseg_ros.evaluation.plan import Plan
from nightseg_ros.evaluation.record import Records, RowLayout

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


#: A longer pause between two frames is no time that a state was held.
PAUSE_S = 10.0


def routing(table: Table, sources: list[str], sequence: Mask) -> dict[str, Any]:
    """
    Return what docs/metrics.md lists under 'Routing'.

    ``sources`` name the parts, ``sequence`` tells of each row whether its neighbours follow it in
    time: only those have durations, switches and delays.
    """
    seconds = durations(table, sequence)
    known = table.readable & (table.light.codes != _code(table.light.names, ''))
    wrong = known & ~agreement(table)
    changes = _changes(table, sources, sequence)
    delays = [change['delay_s'] for change in changes if change['delay_s'] is not None]
    switches = sum(
        int((np.diff(table.route.codes[_drive(table, rows, sequence)]) != 0).sum())
        for rows in stretches(table.part)
    )
    minutes = float(seconds.sum()) / 60
    drive = bool(sequence.any())
    return {
        'switches': switches if drive else None,
        'minutes': round(minutes, 3) if drive else None,
        'switches_per_minute': round(switches / minutes, 3) if minutes else None,
        'seconds_by_state': _by_word(table.state.names, table.state.codes, seconds),
        'seconds_by_route': _by_word(table.route.names, table.route.codes, seconds),
        'by_light': {
            light: table.state.counts(known & table.light.equal(light))
            for light in sorted(filter(None, table.light.names))
        },
        'wrong_state_share': round(float(wrong.sum() / known.sum()), 4) if known.any() else None,
        'wrong_state_s': (
            round(float(seconds[wrong].sum()), 3) if drive and known.any() else None
        ),
        'changes': changes,
        'delay_s': {
            'p50': round(float(np.median(delays)), 3) if delays else None,
            'max': round(max(delays), 3) if delays else None,
            'missed': len(changes) - len(delays),
        },
    }


def durations(table: Table, sequence: Mask) -> npt.NDArray[np.float64]:
    """Return the seconds that each frame stands for: up to the next one of its drive."""
    seconds = np.zeros(len(table))
    for rows in stretches(table.part):
        drive = _drive(table, rows, sequence)
        steps = np.diff(table.stamp[drive]) / 1e9
        if not len(steps):
            continue
        steps[(steps < 0) | (steps > PAUSE_S)] = 0
        passed = steps[steps > 0]
        # the last frame stands for as long as any
        last = float(np.median(passed)) if len(passed) else 0.0
        seconds[drive] = [*steps, last]
    return seconds


def agreement(table: Table) -> Mask:
    """Tell where the state is that of the true light; glare is right at dusk and by night."""
    right = np.zeros(len(table), np.bool_)
    for light in filter(None, table.light.names):
        lit = table.light.equal(light)
        for state in filter(None, table.state.names):
            if state == light or (state == 'glare' and light in ('dusk', 'night')):
                right |= lit & table.state.equal(state)
    return right


def _changes(table: Table, sources: list[str], sequence: Mask) -> list[dict[str, Any]]:
    """Find every change of the true light, and when the state first agreed with it."""
    right = agreement(table)
    names = table.light.names
    found = []
    for rows in stretches(table.part):
        drive = _drive(table, rows, sequence)
        lights = table.light.codes[drive]
        edges = [
            int(edge) + 1
            for edge in np.flatnonzero(np.diff(lights))
            if names[lights[edge]] and names[lights[edge + 1]]
        ]
        for edge, end in zip(edges, [*edges[1:], len(drive)]):
            after = np.flatnonzero(right[drive[edge:end]])
            stamp = int(table.stamp[drive[edge]])
            followed = int(table.stamp[drive[edge + after[0]]]) if len(after) else None
            found.append(
                {
                    'source': sources[table.part[drive[edge]]],
                    'stamp': stamp,
                    'from': names[lights[edge - 1]],
                    'to': names[lights[edge]],
                    'delay_s': None if followed is None else round((followed - stamp) / 1e9, 3),
                }
            )
    return found


def _drive(table: Table, rows: slice, sequence: Mask) -> npt.NDArray[np.int64]:
    """Return the rows of a drive that hold a decision."""
    found = np.flatnonzero((table.readable & sequence)[rows]) + rows.start
    return np.asarray(found, np.int64)


def _by_word(
    names: list[str], codes: npt.NDArray[np.int32], seconds: npt.NDArray[np.float64]
) -> dict[str, float]:
    sums = np.bincount(codes, seconds, len(names)) if len(codes) else np.zeros(len(names))
    return {
        name: round(float(value), 3) for name, value in sorted(zip(names, sums)) if name and value
    }


def _code(names: list[str], name: str) -> int:
    return names.index(name) if name in names else -1


#: The stages of ``Pipeline.process``: what a camera's frame waits for.
PIPELINE = ('estimate', 'shrink', 'network', 'post', 'render')


def timing(table: Table) -> dict[str, Any]:
    """
    Return ``frames_per_second``, ``seconds`` and by stage the mean and percentiles in ms.

    Stages run side by side, so that the wall time of a frame is less than their sum. 'pipeline'
    is the sum of those that a live frame waits for.
    """
    masked = table.masked
    stages = {stage: table.ms[stage][masked] for stage in STAGES}
    stages['pipeline'] = np.nansum([stages[stage] for stage in PIPELINE], axis=0)
    seconds = float(np.nansum(table.ms['wall'])) / 1e3
    frames = int(table.readable.sum())
    return {
        'frames_per_second': round(frames / seconds, 2) if frames and seconds else None,
        'seconds': round(seconds, 3),
        'ms': {
            stage: {
                'mean': round(float(known.mean()), 3),
                **{
                    f'p{share}': round(float(np.percentile(known, share)), 3)
                    for share in (50, 95, 99)
                },
                'max': round(float(known.max()), 3),
            }
            for stage, values in stages.items()
            if len(known := values[~np.isnan(values)])
        },
    }


VERSION = 2
#: Scores that configurations are compared by.
COMPARED = ('miou', 'miou9', 'pixel_acc', 'mean_of_sources_miou9')


class SetResult:
    """One set's scores in every configuration."""

    def __init__(
        self,
        name: str,
        plan: Plan,
        records: Sequence[Records],
        scores: SegmentationScores,
    ) -> None:
        """Read the records of the set's parts, which are in the order of the plan."""
        self._name, self._plan, self._records = name, plan, records
        self._scores, self._config = scores, scores.config
        self._layout = RowLayout(classes=len(scores.taxonomy))
        self._parts = [plan.parts[number] for number in plan.sets()[name]]
        self._notes = [
            json.loads((record.folder / DONE).read_text(encoding='utf-8')) for record in records
        ]
        self.tables = read_tables(records, len(plan.configurations))
        first = self.tables[0]
        drives = np.array([note['sequence'] for note in self._notes], np.bool_)
        self.sequence: Mask = drives[first.part]
        """Of each frame, whether its neighbours follow it in time."""
        self.unit: Unit = (
            self._config.unit
            if self._config.unit != 'auto'
            else 'blocks'
            if drives.all()
            else 'frames'
        )
        self._units, self._unit_count = self._cut(first)
        #: By configuration and score, its values in every draw.
        self._values: list[dict[str, Floats]] = []
        self._drawn = 0
        self.runs = {
            plan.run_name(name, number): self._run(number, table)
            for number, table in enumerate(self.tables)
        }

    def describe(self) -> dict[str, Any]:
        """Return the entry of ``sets``."""
        return {
            'kind': 'dataset' if isinstance(self._parts[0], Pictures) else 'recordings',
            'unit': self.unit,
            'units': self._drawn,
            'sources': self._sources(),
        }

    def compare(self) -> list[dict[str, Any]]:
        """Return each configuration against the first one."""
        names = list(self.runs)
        scores = [self._headline(name) for name in names]
        return [
            {
                'set': self._name,
                'run': name,
                'reference': names[0],
                **{
                    key: rounded(
                        difference(
                            score[key],
                            scores[0][key],
                            values[key],
                            self._values[0][key],
                            self._drawn,
                            self._config,
                        )  # fmt: skip
                    )
                    for key in COMPARED
                    if score[key] is not None
                },
            }
            for name, score, values in zip(names[1:], scores[1:], self._values[1:])
        ]

    def _headline(self, name: str) -> dict[str, Any]:
        run = self.runs[name]
        return {**run['all'], 'mean_of_sources_miou9': run['mean_of_sources_miou9']}

    def _run(self, number: int, table: Table) -> dict[str, Any]:
        labelled = table.labelled > 0
        units = self._unit_rows(number, labelled)
        every, values = self._scores.entry(units)
        self._drawn = len(units)
        self._values.append(values)
        splits = {
            f'by_{name}': self._split(number, table, getattr(table, name), labelled)
            for name in ('state', 'route', 'source', 'light')
        }
        mean, mean_ci = self._mean_of_sources(number, table, labelled)
        frames = int(table.masked.sum())
        return {
            'set': self._name,
            'configuration': self._plan.configurations[number].name,
            'frames': frames,
            'failed': len(table) - frames,
            'labelled': int(labelled.sum()),
            'all': {'frames': int(labelled.sum()), **every},
            **splits,
            'mean_of_sources_miou9': mean,
            'mean_of_sources_miou9_ci': mean_ci,
            'routes': table.route.counts(table.masked),
            'states': table.state.counts(table.readable),
            'calibration': self._calibration(number, table, labelled),
            'reliability': self._reliability(table),
            'flicker': self._flicker(number, table),
            'routing': routing(table, [_source(part) for part in self._parts], self.sequence),
            'labels_sha256': table.labels_sha256,
            'timing': timing(table),
        }

    def _split(
        self, number: int, table: Table, words: Words, labelled: Mask
    ) -> dict[str, dict[str, Any]]:
        entries = {}
        for name in sorted(filter(None, words.names)):
            where = labelled & words.equal(name)
            if where.any():
                entry, _ = self._scores.entry(self._unit_rows(number, where))
                entries[name] = {'frames': int(where.sum()), **entry}
        return entries

    def _unit_rows(self, number: int, where: Mask) -> Counts:
        """Return int64 [units, classes, classes + 1] of the units that have frames in there."""
        present, groups = np.unique(self._units[where], return_inverse=True)
        dense = np.zeros(len(where), np.int64)
        dense[where] = groups
        rows = total(self._records, number, dense, len(present), where)
        return self._layout.confusion(rows)

    def _mean_of_sources(
        self, number: int, table: Table, labelled: Mask
    ) -> tuple[float | None, list[float] | None]:
        """Return the mean of the sources' mIoU9 and its interval."""
        masks = [labelled & table.source.equal(name) for name in table.source.names]
        sources = [self._unit_rows(number, where) for where in masks if where.any()]
        score, values, units = self._scores.mean_of_sources(sources, self.unit)
        self._values[number]['mean_of_sources_miou9'] = values
        return to_number(score), self._scores.interval(values, units)

    def _calibration(self, number: int, table: Table, labelled: Mask) -> dict[str, Any]:
        codes, names = table.state.codes.astype(np.int64), table.state.names
        rows = total(self._records, number, codes, len(names), labelled)
        counts = self._layout.calibration(rows)
        return {
            'all': calibration(counts.sum(0)),
            'by_state': {
                name: found
                for name, part in sorted(zip(names, counts), key=lambda pair: pair[0])
                if (found := calibration(part)) is not None
            },
        }

    def _reliability(self, table: Table) -> dict[str, Any] | None:
        known = np.isfinite(table.reliability)
        scored = known & np.isfinite(table.pixel_acc)
        found = selective(
            table.reliability[scored], table.pixel_acc[scored], self._units[scored], self._config
        )
        if not known.any():
            return None
        mean, least = table.reliability[known].mean(), table.reliability[known].min()
        return rounded({'mean': float(mean), 'least': float(least), **found})  # type: ignore[no-any-return]

    def _flicker(self, number: int, table: Table) -> dict[str, Any]:
        codes, names = table.state.codes.astype(np.int64), table.state.names
        rows = total(self._records, number, codes, len(names), table.masked & self.sequence)
        counts = self._layout.flicker(rows)
        return {
            'all': flicker(counts.sum(0)),
            'by_state': {
                name: found
                for name, part in sorted(zip(names, counts), key=lambda pair: pair[0])
                if (found := flicker(part)) is not None
            },
        }

    def _cut(self, table: Table) -> tuple[npt.NDArray[np.int64], int]:
        """Return the bootstrap unit of every frame, and their number."""
        count = len(table)
        if self.unit == 'frames':
            return np.arange(count), count
        if self.unit == 'sources':
            return table.source.codes.astype(np.int64), len(table.source.names)
        units = np.zeros(count, np.int64)
        following = 0
        for rows in stretches(table.part):
            if not self.sequence[rows.start]:
                own = np.arange(rows.stop - rows.start)
            else:
                readable = table.readable[rows]
                stamps = table.stamp[rows]
                start = stamps[readable].min() if readable.any() else 0
                own = np.maximum(stamps - start, 0) // round(self._config.block_s * 1e9)
            units[rows] = own + following
            following = int(units[rows].max()) + 1
        return units, following

    def _sources(self) -> list[dict[str, Any]]:
        table = self.tables[0]
        entries: list[dict[str, Any]] = []
        for number, (part, note) in enumerate(zip(self._parts, self._notes)):
            where = table.part == number
            readable = where & table.readable
            entry = {
                'name': _source(part),
                'path': str(part.path) if isinstance(part, Recording) else part.spec,
                'topic': note.get('topic'),
                'kind': note.get('kind'),
                'frames': int(readable.sum()),
                'failed': int(where.sum() - readable.sum()),
                'labelled': int((where & (table.labelled > 0)).sum()),
                'labels_unused': note['labels_unused'],
                'first_stamp': int(table.stamp[readable].min()) if readable.any() else None,
                'last_stamp': int(table.stamp[readable].max()) if readable.any() else None,
                'losses': note['losses'],
            }
            if isinstance(part, Pictures) and entries:
                # a data set is cut into parts for the workers' sake only
                for key in ('frames', 'failed', 'labelled'):
                    entries[0][key] += entry[key]
            else:
                entries.append(entry)
        return entries


def read_set(
    name: str, plan: Plan, folders: Sequence[Path], scores: SegmentationScores
) -> SetResult:
    """Score a set from the records in the plan's folders."""
    runs = len(plan.configurations)
    records = [Records(folders[number], runs, scores.taxonomy) for number in plan.sets()[name]]
    return SetResult(name, plan, records, scores)


def _source(part: Pictures | Recording) -> str:
    return part.source if isinstance(part, Recording) else part.set
