# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The section of a report on how steady the labels are."""

from __future__ import annotations

from nightseg_ros.evaluation.report.data import Evaluation, find, members, real, whole
from nightseg_ros.evaluation.report.document import Cell, Section, Table, count, share, trimmed


def flicker_section(evaluation: Evaluation) -> Section | None:
    """How much the labels change between neighbouring frames."""
    rows = []
    for scored, run in evaluation.runs:
        entries = {'all': find(run.data, 'flicker', 'all')}
        states = members(run.data, 'flicker', 'by_state')
        if len(states) > 1:
            entries.update(sorted(states.items()))
        for name, entry in entries.items():
            if whole(entry, 'pairs'):
                rows.append(
                    (
                        Cell(text=scored.name),
                        Cell(text=run.label),
                        Cell(text=name),
                        Cell(text=count(real(entry, 'pairs'))),
                        Cell(text=share(real(entry, 'plain'), 2)),
                        Cell(text=share(real(entry, 'warped'), 2)),
                    )
                )
    if not rows:
        return None
    table = Table(
        caption='Pixels whose label changes from one frame to the next',
        columns=('set', 'configuration', 'frames of', 'pairs', 'as seen', 'motion compensated'),
        rows=tuple(rows),
        text_columns=3,
        note='Needs no labels. Motion compensated: the earlier labels are moved along the optical '
        'flow first, so that what is left is flicker and what moving objects uncover.',
    )
    return Section(name='flicker', title='Flicker', blocks=(trimmed(table, 0, 2),))
