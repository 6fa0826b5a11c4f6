# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The scores of a finished evaluation, as docs/metrics.md describes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nightseg_ros.evaluation.bootstrap import Floats, Unit, difference
from nightseg_ros.evaluation.calibration import calibration
from nightseg_ros.evaluation.confusion import Counts
from nightseg_ros.evaluation.flicker import flicker
from nightseg_ros.evaluation.measure import DONE
from nightseg_ros.evaluation.part import Pictures, Recording
from nightseg_ros.evaluation.plan import Plan
from nightseg_ros.evaluation.record import Records, RowLayout
from nightseg_ros.evaluation.routing import routing
from nightseg_ros.evaluation.segmentation import SegmentationScores, rounded
from nightseg_ros.evaluation.segmentation import number as to_number
from nightseg_ros.evaluation.selective import selective
from nightseg_ros.evaluation.table import Mask, Table, Words, read_tables, stretches, total
from nightseg_ros.evaluation.timing import timing

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
