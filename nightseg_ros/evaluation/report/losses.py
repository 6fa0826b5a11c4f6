# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The section of a report that says what could not be read."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from nightseg_ros.evaluation.report.data import Evaluation, find, items, whole
from nightseg_ros.evaluation.report.document import (
    Block,
    Cell,
    Section,
    Table,
    Text,
    count,
    plural,
    trimmed,
)

#: Losses listed one by one; metrics.json holds the others.
MOST_ROWS = 60


def losses_section(evaluation: Evaluation) -> Section | None:
    """List what could not be read, and labels that belong to no frame."""
    rows = []
    clean = read = 0
    for scored in evaluation.sets:
        for source in items(scored.data, 'sources'):
            losses = [str(loss) for loss in items(source, 'losses')]
            failed, unused = whole(source, 'failed'), whole(source, 'labels_unused')
            read += whole(source, 'frames')
            if unused:
                losses.append(f'{plural(unused, "label")} without a frame')
            if failed and not losses:
                losses.append(f'{plural(failed, "frame")} could not be decoded')
            if not losses:
                clean += 1
            for loss in losses:
                rows.append(
                    (
                        Cell(text=_source_name(source), code=True),
                        Cell(text=str(find(source, 'topic') or ''), code=True),
                        Cell(text=loss),
                        Cell(text=count(whole(source, 'frames'))),
                        Cell(text=count(failed)),
                    )
                )
    if not rows:
        if not clean:
            return None
        text = f'Nothing was lost: {plural(read, "frame")} of {plural(clean, "source")} were read.'
        return Section(name='losses', title='Losses', blocks=(Text(text=text),))
    more = len(rows) - MOST_ROWS
    table = Table(
        caption='What could not be read',
        columns=('source', 'topic', 'what', 'frames read', 'unreadable'),
        rows=tuple(rows[:MOST_ROWS]),
        text_columns=3,
        note=f'{more} more in metrics.json.' if more > 0 else '',
    )
    blocks: list[Block] = [trimmed(table, 1)]
    if clean:
        blocks.append(Text(text=f'{plural(clean, "other source")} lost nothing.'))
    return Section(name='losses', title='Losses', blocks=tuple(blocks))


def _source_name(source: Any) -> str:
    name = find(source, 'name') or PurePath(str(find(source, 'path') or '')).name
    return str(name)
