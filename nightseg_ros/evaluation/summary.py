# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The scores of finished shards, as docs/metrics.md describes them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nightseg_ros.evaluation.inference import FinishedShard
from nightseg_ros.evaluation.metrics import (
    Counts,
    Floats,
    SegmentationScores,
    Unit,
    calibration,
    difference,
    flicker,
    number,
    rounded,
    selective,
)
from nightseg_ros.evaluation.sources import ImageShard, Plan, SequenceShard

Mask = npt.NDArray[np.bool_]
#: Strings; '' stands for none.
Words = npt.NDArray[np.str_]
#: Scores that configurations are compared by.
COMPARED = ('miou', 'miou9', 'pixel_acc', 'mean_of_sources_miou9')
#: The stages of ``Pipeline.process``: what a camera's frame waits for.
PIPELINE = ('estimate', 'shrink', 'network', 'post', 'render')
STAGES = ('decode', *PIPELINE, 'metrics', 'wall')
#: A longer pause between two frames is no time that a state was held.
PAUSE_S = 10.0


@dataclass(frozen=True, kw_only=True)
class FrameTable:
    """One run's frames, a row each, in the order of shards and stamps."""

    shard: npt.NDArray[np.int64]
    """The number of its shard in the set."""
    sequence: Mask
    """Whether its neighbours follow it in time."""
    stamp: npt.NDArray[np.int64]
    labelled: npt.NDArray[np.int64]
    """Labelled pixels."""
    miou: Floats
    """NaN without labels."""
    pixel_acc: Floats
    reliability: Floats
    """NaN without a mask."""
    readable: Mask
    """The frame could be decoded."""
    masked: Mask
    """The frame has a mask."""
    source: Words
    state: Words
    route: Words
    light: Words
    ms: dict[str, Floats]
    """By stage; NaN where it did not run."""
    labels_sha256: str
    """Over every frame's hash."""

    def __len__(self) -> int:
        """Count the frames."""
        return len(self.shard)

    @classmethod
    def of(
        cls, lines: Sequence[dict[str, Any]], shard: npt.NDArray[np.int64], sequence: Mask
    ) -> FrameTable:
        """Take a run's lines, and of each its shard and whether that is a sequence."""

        def floats(values: Iterator[float | None]) -> Floats:
            return np.array([np.nan if v is None else v for v in values], np.float64)

        def words(key: str) -> Words:
            return np.array([line[key] or '' for line in lines], np.str_)

        digests = [line['labels_sha256'] or '' for line in lines]
        return cls(
            shard=shard,
            sequence=sequence,
            stamp=np.array([line['stamp'] or 0 for line in lines], np.int64),
            labelled=np.array([line['labelled'] for line in lines], np.int64),
            miou=floats(line['miou'] for line in lines),
            pixel_acc=floats(line['pixel_acc'] for line in lines),
            reliability=floats(line['reliability'] for line in lines),
            readable=np.array([line['size'] is not None for line in lines], np.bool_),
            masked=np.array([digest != '' for digest in digests], np.bool_),
            source=words('source'), state=words('state'), route=words('route'),
            light=words('light'),
            ms={stage: floats(line['ms'].get(stage) for line in lines) for stage in STAGES},
            labels_sha256=hashlib.sha256(bytes.fromhex(''.join(digests))).hexdigest(),
        )  # fmt: skip

    def drives(self) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the rows of each sequence that hold a decision."""
        for shard in np.unique(self.shard):
            yield np.flatnonzero((self.shard == shard) & self.readable & self.sequence)


class SetScores:
    """One set's scores in every configuration."""

    def __init__(
        self, name: str, plan: Plan, finished: Sequence[FinishedShard], scores: SegmentationScores
    ) -> None:
        """Read the finished shards of the set, which are in the order of the plan."""
        self._name, self._plan, self._finished = name, plan, finished
        self._scores, self._config = scores, scores.config
        self._shards = [plan.shards[number] for number in plan.sets()[name]]
        #: Of each frame its lines, one a configuration.
        self.lines = [line for shard in finished for line in shard.lines()]
        sizes = [shard.note['frames'] for shard in finished]
        drives = np.array([shard.note['sequence'] for shard in finished], np.bool_)
        self.tables = [
            FrameTable.of(
                [lines[run] for lines in self.lines],
                np.repeat(np.arange(len(sizes), dtype=np.int64), sizes), np.repeat(drives, sizes),
            )
            for run in range(len(plan.configurations))
        ]  # fmt: skip
        self.unit: Unit = (
            self._config.unit
            if self._config.unit != 'auto'
            else 'blocks'
            if drives.all()
            else 'frames'
        )
        self._units = self._cut(self.tables[0])
        #: int64 [frames, runs, ...]
        self._counts = {
            kind: np.concatenate([shard.counts(kind) for shard in finished])
            for kind in ('confusion', 'calibration', 'flicker')
        }
        #: By configuration and score, its values in every draw.
        self._values: list[dict[str, Floats]] = []
        self._drawn = 0
        self.runs = {
            run: self._run(place, table)
            for place, (run, table) in enumerate(zip(plan.run_names(name), self.tables))
        }

    def describe(self) -> dict[str, Any]:
        """Return the entry of ``sets``."""
        images = isinstance(self._shards[0], ImageShard)
        return {
            'kind': 'dataset' if images else 'recordings',
            'unit': self.unit,
            'units': self._drawn,
            'sources': self._sources(),
        }

    def compare(self) -> list[dict[str, Any]]:
        """Return each configuration against the first one."""
        names = list(self.runs)
        scores = [
            {**run['all'], 'mean_of_sources_miou9': run['mean_of_sources_miou9']}
            for run in self.runs.values()
        ]
        return [
            {
                'set': self._name,
                'run': name,
                'reference': names[0],
                **{
                    key: rounded(
                        difference(
                            score[key], scores[0][key], values[key], self._values[0][key],
                            self._drawn, self._config,
                        )
                    )
                    for key in COMPARED
                    if score[key] is not None
                },
            }
            for name, score, values in zip(names[1:], scores[1:], self._values[1:])
        ]  # fmt: skip

    def _run(self, run: int, table: FrameTable) -> dict[str, Any]:
        labelled = table.labelled > 0
        units = self._unit_rows(run, labelled)
        every, values = self._scores.entry(units)
        self._drawn = len(units)
        self._values.append(values)
        splits = {
            f'by_{key}': self._split(run, getattr(table, key), labelled)
            for key in ('state', 'route', 'source', 'light')
        }
        mean, mean_ci = self._mean_of_sources(run, table, labelled)
        frames = int(table.masked.sum())
        return {
            'set': self._name,
            'configuration': self._plan.configurations[run].name,
            'frames': frames,
            'failed': len(table) - frames,
            'labelled': int(labelled.sum()),
            'all': {'frames': int(labelled.sum()), **every},
            **splits,
            'mean_of_sources_miou9': mean,
            'mean_of_sources_miou9_ci': mean_ci,
            'routes': _tally(table.route[table.masked]),
            'states': _tally(table.state[table.readable]),
            'calibration': self._by_state('calibration', calibration, run, table.state, labelled),
            'reliability': self._reliability(table),
            'flicker': self._by_state(
                'flicker', flicker, run, table.state, table.masked & table.sequence
            ),
            'routing': routing(table, [shard.source for shard in self._shards]),
            'labels_sha256': table.labels_sha256,
            'timing': timing(table),
        }

    def _split(self, run: int, words: Words, labelled: Mask) -> dict[str, dict[str, Any]]:
        entries = {}
        for word in _tally(words[labelled]):
            where = labelled & (words == word)
            entry, _ = self._scores.entry(self._unit_rows(run, where))
            entries[word] = {'frames': int(where.sum()), **entry}
        return entries

    def _unit_rows(self, run: int, where: Mask) -> Counts:
        """Return int64 [units, classes, classes + 1] of the units that have frames in there."""
        return _sums(self._counts['confusion'][:, run], self._units, where)

    def _mean_of_sources(
        self, run: int, table: FrameTable, labelled: Mask
    ) -> tuple[float | None, list[float] | None]:
        """Return the mean of the sources' mIoU9 and its interval."""
        # in the order in which they come: each has its own draws
        names = dict.fromkeys(table.source.tolist())
        masks = [labelled & (table.source == name) for name in names]
        sources = [self._unit_rows(run, where) for where in masks if where.any()]
        score, values, units = self._scores.mean_of_sources(sources, self.unit)
        self._values[run]['mean_of_sources_miou9'] = values
        return number(score), self._scores.interval(values, units)

    def _by_state(
        self, kind: str, score: Callable[[Counts], Any], run: int, states: Words, where: Mask
    ) -> dict[str, Any]:
        """Return a score of the summed counts of a kind, of all frames and by state."""
        rows = self._counts[kind][:, run]
        by_state = {
            word: score(rows[where & (states == word)].sum(0)) for word in np.unique(states)
        }
        return {
            'all': score(rows[where].sum(0)),
            'by_state': {
                str(word): found for word, found in by_state.items() if found is not None
            },
        }

    def _reliability(self, table: FrameTable) -> dict[str, Any] | None:
        known = np.isfinite(table.reliability)
        if not known.any():
            return None
        scored = known & np.isfinite(table.pixel_acc)
        found = selective(
            table.reliability[scored], table.pixel_acc[scored], self._units[scored], self._config
        )
        mean, least = table.reliability[known].mean(), table.reliability[known].min()
        return rounded({'mean': float(mean), 'least': float(least), **found})  # type: ignore[no-any-return]

    def _cut(self, table: FrameTable) -> npt.NDArray[np.int64]:
        """Return the bootstrap unit of every frame."""
        if self.unit == 'frames':
            return np.arange(len(table))
        if self.unit == 'sources':
            _, first, codes = np.unique(table.source, return_index=True, return_inverse=True)
            # numbered in the order in which they come
            return np.asarray(np.argsort(np.argsort(first))[codes], np.int64)
        units = np.zeros(len(table), np.int64)
        following = 0
        for shard in np.unique(table.shard):
            rows = np.flatnonzero(table.shard == shard)
            own = np.arange(len(rows))
            if table.sequence[rows[0]]:
                readable = rows[table.readable[rows]]
                start = table.stamp[readable].min() if len(readable) else 0
                own = np.maximum(table.stamp[rows] - start, 0)
                own //= round(self._config.block_s * 1e9)
            units[rows] = own + following
            following = int(units[rows].max()) + 1
        return units

    def _sources(self) -> list[dict[str, Any]]:
        table = self.tables[0]
        entries: list[dict[str, Any]] = []
        for place, (shard, finished) in enumerate(zip(self._shards, self._finished)):
            where = table.shard == place
            readable = where & table.readable
            stamps = table.stamp[readable]
            entry = {
                'name': shard.source,
                'path': str(shard.path) if isinstance(shard, SequenceShard) else shard.spec,
                'topic': finished.note['topic'],
                'kind': finished.note['kind'],
                'frames': int(readable.sum()),
                'failed': int(where.sum() - readable.sum()),
                'labelled': int((where & (table.labelled > 0)).sum()),
                'labels_unused': finished.note['labels_unused'],
                'first_stamp': int(stamps.min()) if len(stamps) else None,
                'last_stamp': int(stamps.max()) if len(stamps) else None,
                'losses': finished.note['losses'],
            }
            if isinstance(shard, ImageShard) and entries:
                # a data set is cut into shards for the workers' sake only
                for key in ('frames', 'failed', 'labelled'):
                    entries[0][key] += entry[key]
            else:
                entries.append(entry)
        return entries


def _sums(rows: Counts, groups: npt.NDArray[np.int64], where: Mask) -> Counts:
    """Return the sums of the rows [frames, ...] in ``where`` by group, of groups that have any."""
    present, dense = np.unique(groups[where], return_inverse=True)
    sums = np.zeros((len(present), *rows.shape[1:]), np.int64)
    np.add.at(sums, dense, rows[where])
    return sums


def _tally(words: Words) -> dict[str, int]:
    """Count each word but '', in the words' order."""
    return dict(sorted(Counter(word for word in words.tolist() if word).items()))


def routing(table: FrameTable, sources: Sequence[str]) -> dict[str, Any]:
    """
    Return what docs/metrics.md lists under 'Routing': how the router did over the drives.

    ``sources`` name the shards. Only sequences have durations, switches and delays.
    """
    seconds = durations(table)
    known = table.readable & (table.light != '')
    wrong = known & ~agreement(table)
    changes = _changes(table, sources)
    delays = [change['delay_s'] for change in changes if change['delay_s'] is not None]
    switches = sum(
        int((table.route[drive][1:] != table.route[drive][:-1]).sum()) for drive in table.drives()
    )
    minutes = float(seconds.sum()) / 60
    drive = bool(table.sequence.any())
    return {
        'switches': switches if drive else None,
        'minutes': round(minutes, 3) if drive else None,
        'switches_per_minute': round(switches / minutes, 3) if minutes else None,
        'seconds_by_state': _by_word(table.state, seconds),
        'seconds_by_route': _by_word(table.route, seconds),
        'by_light': {
            light: _tally(table.state[known & (table.light == light)])
            for light in _tally(table.light)
        },
        'wrong_state_share': round(float(wrong.sum() / known.sum()), 4) if known.any() else None,
        'wrong_state_s': round(float(seconds[wrong].sum()), 3) if drive and known.any() else None,
        'changes': changes,
        'delay_s': {
            'p50': round(float(np.median(delays)), 3) if delays else None,
            'max': round(max(delays), 3) if delays else None,
            'missed': len(changes) - len(delays),
        },
    }


def durations(table: FrameTable) -> Floats:
    """Return the seconds that each frame stands for: up to the next one of its drive."""
    seconds = np.zeros(len(table))
    for drive in table.drives():
        steps = np.diff(table.stamp[drive]) / 1e9
        if not len(steps):
            continue
        steps[(steps < 0) | (steps > PAUSE_S)] = 0
        passed = steps[steps > 0]
        # the last frame stands for as long as any
        last = float(np.median(passed)) if len(passed) else 0.0
        seconds[drive] = [*steps, last]
    return seconds


def agreement(table: FrameTable) -> Mask:
    """Tell where the state is that of the true light; glare is right at dusk and by night."""
    dark = np.isin(table.light, ('dusk', 'night'))
    same = (table.light == table.state) & (table.light != '')
    return np.asarray(same | (dark & (table.state == 'glare')), np.bool_)


def _changes(table: FrameTable, sources: Sequence[str]) -> list[dict[str, Any]]:
    """Find every change of the true light, and when the state first agreed with it."""
    right = agreement(table)
    found = []
    for drive in table.drives():
        lights = table.light[drive].tolist()
        edges = [
            edge
            for edge in range(1, len(lights))
            if lights[edge - 1] and lights[edge] and lights[edge - 1] != lights[edge]
        ]
        for edge, end in zip(edges, [*edges[1:], len(drive)]):
            after = np.flatnonzero(right[drive[edge:end]])
            stamp = int(table.stamp[drive[edge]])
            followed = int(table.stamp[drive[edge + after[0]]]) if len(after) else None
            found.append(
                {
                    'source': sources[table.shard[drive[edge]]],
                    'stamp': stamp,
                    'from': lights[edge - 1],
                    'to': lights[edge],
                    'delay_s': None if followed is None else round((followed - stamp) / 1e9, 3),
                }
            )
    return found


def _by_word(words: Words, seconds: Floats) -> dict[str, float]:
    sums = {word: float(seconds[words == word].sum()) for word in _tally(words)}
    return {word: round(value, 3) for word, value in sums.items() if value}


def timing(table: FrameTable) -> dict[str, Any]:
    """
    Return ``frames_per_second``, ``seconds`` and by stage the mean and percentiles in ms.

    Stages run side by side, so that the wall time of a frame is less than their sum. 'pipeline'
    is the sum of those that a live frame waits for.
    """
    stages = {stage: table.ms[stage][table.masked] for stage in STAGES}
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
