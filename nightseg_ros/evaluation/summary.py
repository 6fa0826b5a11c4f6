# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The scores of finished shards, as docs/metrics.md describes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
import hashlib
from typing import Any

from nightseg_ros.evaluation import metrics
from nightseg_ros.evaluation.inference import FinishedShard
from nightseg_ros.evaluation.metrics import Counts, Floats, number, SegmentationScores
from nightseg_ros.evaluation.sources import Shard
from nightseg_ros.evaluation.variants import Variants
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
#: Strings; '' stands for none.
Words = npt.NDArray[np.str_]
#: Scores that configurations are compared by.
COMPARED = ('miou', 'miou9', 'pixel_acc', 'mean_of_sources_miou9')
#: The stages of ``Pipeline.process``: what a camera's frame waits for.
PIPELINE = ('estimate', 'shrink', 'network', 'post', 'render')


class FrameTable:
    """One run's frames as columns, in the order of shards and stamps."""

    def __init__(
        self, lines: Sequence[dict[str, Any]], shard: npt.NDArray[np.int64], sequence: Mask
    ) -> None:
        """Take lines of frames.jsonl, of each its shard's number, and if that is a sequence."""
        self.lines, self.shard, self.sequence = lines, shard, sequence
        self.stamp = np.array([line['stamp'] or 0 for line in lines], np.int64)
        self.labelled = np.array([line['labelled'] > 0 for line in lines], np.bool_)
        #: The frame could be decoded, and has a mask.
        self.readable = np.array([line['size'] is not None for line in lines], np.bool_)
        self.masked = np.array([line['labels_sha256'] is not None for line in lines], np.bool_)
        #: NaN where there is none.
        self.pixel_acc = np.array([line['pixel_acc'] for line in lines], np.float64)
        self.reliability = np.array([line['reliability'] for line in lines], np.float64)
        self.words: dict[str, Words] = {
            key: np.array([line[key] or '' for line in lines], np.str_)
            for key in ('state', 'route', 'source', 'light')
        }

    def drives(self) -> Iterator[npt.NDArray[np.int64]]:
        """Yield the rows of each sequence that hold a decision."""
        for shard in np.unique(self.shard):
            yield np.flatnonzero((self.shard == shard) & self.readable & self.sequence)


class SetScores:
    """One set's scores in every configuration."""

    def __init__(
        self, name: str, parts: Sequence[tuple[Shard, FinishedShard]], variants: Variants,
        scores: SegmentationScores,
    ) -> None:  # fmt: skip
        self._name, self._members = name, list(variants.configurations)
        self._shards, self._finished = zip(*parts)
        self._scores, self._config = scores, scores.config
        #: Of each frame its lines, one a configuration.
        self.lines = [line for shard in self._finished for line in shard.lines()]
        #: int64 [frames, runs, ...]
        self._counts = {
            kind: np.concatenate([shard.counts(kind) for shard in self._finished])
            for kind in ('confusion', 'calibration', 'flicker')
        }
        sizes = [shard.note['frames'] for shard in self._finished]
        drives = np.array([shard.sequence for shard in self._shards], np.bool_)
        place = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
        self._tables = [
            FrameTable([lines[run] for lines in self.lines], place, drives[place])
            for run in range(len(self._members))
        ]
        self._unit: str = self._config.unit
        if self._unit == 'auto':
            self._unit = 'blocks' if drives.any() else 'frames'
        self._units = self._bootstrap_units(self._tables[0])
        #: By configuration and score, its values in every draw.
        self._values: list[dict[str, Floats]] = []
        self._drawn = self._mean_drawn = 0
        self.runs = {run: self._run(i) for i, run in enumerate(variants.run_names(name))}

    def describe(self) -> dict[str, Any]:
        table = self._tables[0]
        sources: list[dict[str, Any]] = []
        for name in dict.fromkeys(shard.source for shard in self._shards):
            # a data set is cut into shards for the workers' sake only
            places = [i for i, shard in enumerate(self._shards) if shard.source == name]
            shard, note = self._shards[places[0]], self._finished[places[0]].note
            frames = shard.frames
            where = np.isin(table.shard, places)
            read = where & table.readable
            # pictures by themselves have no time
            stamps = table.stamp[read & table.sequence]
            sources.append({
                'name': name,
                'path': shard.path,
                'topic': None if frames is None else frames.topic,
                'kind': 'dataset' if frames is None else frames.kind,
                'frames': int(read.sum()),
                'failed': int((where & ~read).sum()),
                'labelled': int((where & table.labelled).sum()),
                'labels_unused': note['labels_unused'],
                'first_stamp': int(stamps.min()) if len(stamps) else None,
                'last_stamp': int(stamps.max()) if len(stamps) else None,
                'losses': note['losses'],
            })  # fmt: skip
        return {
            'kind': 'recordings' if self._shards[0].frames else 'dataset',
            'unit': self._unit,
            'units': self._drawn,
            'sources': sources,
        }

    def compare(self) -> list[dict[str, Any]]:
        reference, *others = self.runs
        first, *scores = ({**run['all'], **run} for run in self.runs.values())
        paired, *drawn = self._values
        found = []
        for name, score, values in zip(others, scores, drawn):
            item: dict[str, Any] = {'set': self._name, 'run': name, 'reference': reference}
            for key in COMPARED:
                units = self._mean_drawn if key == 'mean_of_sources_miou9' else self._drawn
                if score[key] is not None:
                    item[key] = metrics.difference(
                        score[key], first[key], values[key], paired[key], units, self._config
                    )
            found.append(item)
        return found

    def _run(self, run: int) -> dict[str, Any]:
        table = self._tables[run]
        labelled, words = table.labelled, table.words

        def units(where: Mask) -> Counts:
            """Sum the confusion of the frames in there by unit, of units that have any."""
            present, dense = np.unique(self._units[where], return_inverse=True)
            rows = self._counts['confusion'][:, run]
            sums = np.zeros((len(present), *rows.shape[1:]), np.int64)
            np.add.at(sums, dense, rows[where])
            return sums

        def entry(where: Mask) -> dict[str, Any]:
            return {'frames': int(where.sum()), **self._scores.entry(units(where))[0]}

        def by_state(
            kind: str, score: Callable[[Counts], dict[str, Any] | None], where: Mask
        ) -> dict[str, Any]:
            """Return a score of the summed counts of a kind, of all frames and by state."""
            rows, states = self._counts[kind][:, run], words['state']
            found = {word: score(rows[where & (states == word)].sum(0)) for word in _tally(states)}
            known = {word: value for word, value in found.items() if value is not None}
            return {'all': score(rows[where].sum(0)), 'by_state': known}

        every, values = self._scores.entry(units(labelled))
        # in the order in which they come: each has its own draws
        masks = [labelled & (words['source'] == name) for name in dict.fromkeys(words['source'])]
        rows = [units(mask) for mask in masks if mask.any()]
        mean, means, self._mean_drawn = self._scores.mean_of_sources(rows, self._unit)
        self._drawn = len(np.unique(self._units[labelled]))
        self._values.append({**values, 'mean_of_sources_miou9': means})
        frames = int(table.masked.sum())
        digests = ''.join(line['labels_sha256'] or '' for line in table.lines)
        return {
            'set': self._name,
            'configuration': self._members[run],
            'frames': frames,
            'failed': len(table.lines) - frames,
            'labelled': int(labelled.sum()),
            'all': {'frames': int(labelled.sum()), **every},
            **{
                f'by_{key}': {
                    word: entry(labelled & (column == word)) for word in _tally(column[labelled])
                }
                for key, column in words.items()
            },
            'mean_of_sources_miou9': number(mean),
            'mean_of_sources_miou9_ci': metrics.interval(means, self._mean_drawn, self._config),
            'routes': _tally(words['route'][table.masked]),
            'states': _tally(words['state'][table.readable]),
            'calibration': by_state('calibration', metrics.calibration, labelled),
            'reliability': self._reliability(table),
            'flicker': by_state('flicker', metrics.flicker, table.masked & table.sequence),
            'routing': routing(table, [shard.source for shard in self._shards]),
            'labels_sha256': hashlib.sha256(bytes.fromhex(digests)).hexdigest(),
            'timing': timing(table),
        }

    def _reliability(self, table: FrameTable) -> dict[str, Any] | None:
        known = np.isfinite(table.reliability)
        if not known.any():
            return None
        scored = known & np.isfinite(table.pixel_acc)
        return {
            'mean': number(table.reliability[known].mean()),
            'least': number(table.reliability[known].min()),
            **metrics.selective(
                table.reliability[scored], table.pixel_acc[scored], self._units[scored],
                self._config,
            ),
        }  # fmt: skip

    def _bootstrap_units(self, table: FrameTable) -> npt.NDArray[np.int64]:
        if self._unit == 'frames':
            return np.arange(len(table.lines))
        if self._unit == 'sources':
            # numbered in the order in which they come
            numbers = {name: i for i, name in enumerate(dict.fromkeys(table.words['source']))}
            return np.array([numbers[name] for name in table.words['source']], np.int64)
        units = np.zeros(len(table.lines), np.int64)
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


def _tally(words: Words) -> dict[str, int]:
    """Count each word but '', in the words' order."""
    return dict(sorted(Counter(word for word in words.tolist() if word).items()))


def routing(table: FrameTable, sources: Sequence[str]) -> dict[str, Any]:
    """Return docs/metrics.md's 'Routing'; ``sources`` name the shards, drives alone have times."""
    state, route, light = (table.words[key] for key in ('state', 'route', 'light'))
    seconds = durations(table)
    known = table.readable & (light != '')
    # glare is right at dusk and by night
    right = (light == state) | (np.isin(light, ('dusk', 'night')) & (state == 'glare'))
    wrong = known & ~right
    changes = list(_changes(table, right, sources))
    delays = [change['delay_s'] for change in changes if change['delay_s'] is not None]
    switches = sum(int((route[d][1:] != route[d][:-1]).sum()) for d in table.drives())
    minutes = float(seconds.sum()) / 60
    drive = bool(table.sequence.any())
    return {
        'switches': switches if drive else None,
        'minutes': round(minutes, 3) if drive else None,
        'switches_per_minute': round(switches / minutes, 3) if minutes else None,
        'seconds_by_state': _seconds(state, seconds),
        'seconds_by_route': _seconds(route, seconds),
        'by_light': {word: _tally(state[known & (light == word)]) for word in _tally(light)},
        'wrong_state_share': number(wrong.sum() / known.sum()) if known.any() else None,
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
    seconds = np.zeros(len(table.lines))
    for drive in table.drives():
        steps = np.diff(table.stamp[drive]) / 1e9
        if not len(steps):
            continue
        steps[(steps < 0) | (steps > metrics.PAUSE_S)] = 0
        passed = steps[steps > 0]
        # the last frame stands for as long as any
        seconds[drive] = [*steps, float(np.median(passed)) if len(passed) else 0.0]
    return seconds


def _changes(table: FrameTable, right: Mask, sources: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield every change of the true light, and when the state first agreed with it."""
    for drive in table.drives():
        lights, stamps = table.words['light'][drive].tolist(), table.stamp[drive].tolist()
        pairs = enumerate(zip(lights, lights[1:]), 1)
        edges = [edge for edge, (old, new) in pairs if old and new and old != new]
        for edge, end in zip(edges, [*edges[1:], len(drive)]):
            after = np.flatnonzero(right[drive[edge:end]])
            waited = stamps[edge + after[0]] - stamps[edge] if len(after) else None
            yield {
                'source': sources[table.shard[drive[edge]]],
                'stamp': stamps[edge],
                'from': lights[edge - 1],
                'to': lights[edge],
                'delay_s': None if waited is None else round(waited / 1e9, 3),
            }


def _seconds(words: Words, seconds: Floats) -> dict[str, float]:
    sums = {word: float(seconds[words == word].sum()) for word in _tally(words)}
    return {word: round(value, 3) for word, value in sums.items() if value}


def timing(table: FrameTable) -> dict[str, Any]:
    """
    Return ``frames_per_second``, ``seconds`` and by stage the mean and percentiles in ms.

    Stages run side by side, so that the wall time of a frame is less than their sum. 'pipeline'
    is the sum of those that a live frame waits for.
    """
    masked = [line['ms'] for line, mask in zip(table.lines, table.masked) if mask]
    stages = {
        stage: [ms[stage] for ms in masked if stage in ms]
        for stage in ('decode', *PIPELINE, 'metrics', 'wall')
    }
    stages['pipeline'] = [sum(ms.get(stage, 0) for stage in PIPELINE) for ms in masked]
    seconds = sum(line['ms'].get('wall', 0) for line in table.lines) / 1e3
    frames = int(table.readable.sum())
    shares = ('p50', 'p95', 'p99', 'max')
    return {
        'frames_per_second': round(frames / seconds, 2) if frames and seconds else None,
        'seconds': round(seconds, 3),
        'ms': {
            stage: {
                'mean': round(float(np.mean(values)), 3),
                **dict(zip(shares, np.percentile(values, (50, 95, 99, 100)).round(3).tolist())),
            }
            for stage, values in stages.items()
            if values
        },
    }
