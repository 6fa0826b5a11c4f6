# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Sections of a report that take a score apart: classes, light, route, source, confusion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nightseg_ros.evaluation.report.data import (
    Evaluation,
    Run,
    ScoredSet,
    ends,
    find,
    items,
    members,
    real,
    whole,
)
from nightseg_ros.evaluation.report.document import (
    ABSENT,
    Block,
    Cell,
    Fold,
    Section,
    Table,
    Text,
    bounded,
    count,
    hexadecimal,
    interval,
    number,
    plural,
    share,
)

#: Rows of a split by source; metrics.json holds the others.
MOST_ROWS = 40
_SPLITS = (
    ('by_state', 'state', 'by the state that the router saw'),
    ('by_light', 'true light', 'by the true light'),
    ('by_route', 'route', 'by the route taken'),
    ('by_source', 'source', 'by source'),
)


def classes_section(evaluation: Evaluation) -> Section | None:
    """IoU of each class, by configuration."""
    blocks: list[Block] = []
    for scored in evaluation.labelled:
        tables = tuple(_classes(evaluation, scored, run) for run in scored.runs)
        if len(scored.runs) > 1:
            blocks.append(_classes_side_by_side(evaluation, scored))
            blocks.append(
                Fold(title='Intervals and accuracy of each configuration', blocks=tables)
            )
        else:
            blocks += tables
    if not blocks:
        return None
    blocks.append(
        Text(
            tone='note',
            text='IoU: pixels that label and mask both call so, divided by those that either '
            'does. Accuracy: share of the labelled pixels of a class that the mask finds. '
            f'{ABSENT} stands for a class that neither holds; one that only masks hold has IoU 0 '
            'and does not count in the mean.',
        )
    )
    return Section(name='classes', title='Classes', blocks=tuple(blocks))


def splits_section(evaluation: Evaluation) -> Section | None:
    """Scores by state, light, route and source."""
    blocks: list[Block] = []
    for scored in evaluation.labelled:
        for key, head, words in _SPLITS:
            split = _split if len(scored.runs) == 1 else _split_side_by_side
            table = split(scored, key, head, f'{scored.name}, {words}')
            if table is not None:
                blocks.append(table)
    if not blocks:
        return None
    return Section(name='splits', title='By light, route and source', blocks=tuple(blocks))


def confusion_section(evaluation: Evaluation) -> Section | None:
    """Show what is taken for what: a heat map for each run."""
    blocks: list[Block] = []
    for scored in evaluation.labelled:
        for run in scored.runs:
            table = _confusion(evaluation, scored, run)
            if table is None:
                continue
            if run is scored.runs[0]:
                blocks.append(table)
            else:
                blocks.append(Fold(title=f'Confusion of {scored.named(run)}', blocks=(table,)))
    if not blocks:
        return None
    text = (
        'Each row shows, in percent, what the masks make of the labelled pixels of one class. '
        'Blue is right, orange is taken for another class.'
    )
    return Section(name='confusion', title='Confusion', blocks=(Text(text=text), *blocks))


def _classes_side_by_side(evaluation: Evaluation, scored: ScoredSet) -> Table:
    rows = []
    for name, color, part in _parts(evaluation, scored.runs[0]):
        values = [real(run.data, 'all', 'iou', name) for run in scored.runs]
        rows.append(
            (
                _class_name(name, color, part, values),
                Cell(text=share(part)),
                *(Cell(text=number(value), bar=value) for value in values),
            )
        )
    means = (
        Cell(text=number(real(run.data, 'all', 'miou'))) for run in scored.runs
    )  # fmt: skip
    rows.append((Cell(text='mIoU'), Cell(text=''), *means))
    return Table(
        caption=f'IoU on {scored.name}',
        columns=('class', 'labelled pixels', *(run.label for run in scored.runs)),
        rows=tuple(rows),
    )


def _classes(evaluation: Evaluation, scored: ScoredSet, run: Run) -> Table:
    entry = find(run.data, 'all')
    rows = []
    for name, color, part in _parts(evaluation, run):
        value = real(entry, 'iou', name)
        rows.append(
            (
                _class_name(name, color, part, [value]),
                Cell(text=share(part)),
                Cell(text=number(value), bar=value),
                Cell(text=interval(ends(entry, 'iou_ci', name)) or ABSENT),
                Cell(text=number(real(entry, 'acc', name))),
            )
        )
    means = (
        ('mean of the classes labelled', 'miou', 'mean_acc'),
        ('weighted by pixels', 'fw_iou', 'pixel_acc'),
    )
    for words, iou, accuracy in means:
        rows.append(
            (
                Cell(text=words),
                Cell(text=''),
                Cell(text=number(real(entry, iou))),
                Cell(text=interval(ends(entry, f'{iou}_ci'))),
                Cell(text=number(real(entry, accuracy))),
            )
        )
    return Table(
        caption=f'Classes of {scored.named(run)}',
        columns=('class', 'labelled pixels', 'IoU', 'interval', 'accuracy'),
        rows=tuple(rows),
    )


def _parts(
    evaluation: Evaluation, run: Run
) -> Iterator[tuple[str, tuple[int, int, int], float | None]]:
    """Yield each class with its colour and its share of the labelled pixels."""
    support = members(run.data, 'all', 'support')
    total = sum(whole(support, name) for name in support)
    for name, color in zip(evaluation.taxonomy.classes, evaluation.taxonomy.colors):
        yield name, color, whole(support, name) / total if total else None


def _class_name(
    name: str, color: tuple[int, int, int], part: float | None, values: list[float | None]
) -> Cell:
    guessed = part == 0 and any(value is not None for value in values)
    tag = 'only in masks' if guessed else ''
    return Cell(text=name, swatch=hexadecimal(color), tag=tag)


def _split(scored: ScoredSet, key: str, head: str, caption: str) -> Table | None:
    [run] = scored.runs
    names, note = _split_names(scored, key)
    if not names:
        return None
    rows = []
    for name in names:
        entry = find(run.data, key, name)
        rows.append(
            (
                Cell(text=name),
                Cell(text=count(real(entry, 'frames'))),
                _bounded(entry, 'miou', bar=True),
                _bounded(entry, 'miou9'),
                _bounded(entry, 'pixel_acc'),
            )
        )
    columns = (head, 'frames', 'mIoU', 'mIoU9', 'pixel accuracy')
    return Table(caption=caption, columns=columns, rows=tuple(rows), note=note)


def _split_side_by_side(scored: ScoredSet, key: str, head: str, caption: str) -> Table | None:
    runs = scored.runs
    if key == 'by_route':
        # a fixed route has nothing to split
        runs = tuple(run for run in runs if len(members(run.data, key)) > 1)
    names, note = _split_names(scored, key)
    if not names or not runs:
        return None
    rows = []
    for name in names:
        frames = {whole(run.data, key, name, 'frames') for run in runs}
        cells = []
        for run in runs:
            cell = _bounded(find(run.data, key, name), 'miou', bar=True)
            if len(frames) > 1 and cell.text != ABSENT:
                tag = plural(whole(run.data, key, name, 'frames'), 'frame')
                cell = Cell(text=cell.text, bar=cell.bar, tag=tag)
            cells.append(cell)
        shown = count(min(frames)) if len(frames) == 1 else 'differ'
        rows.append((Cell(text=name), Cell(text=shown), *cells))
    return Table(
        caption=f'{caption}: mIoU',
        columns=(head, 'frames', *(run.label for run in runs)),
        rows=tuple(rows),
        note=note,
    )


def _split_names(scored: ScoredSet, key: str) -> tuple[list[str], str]:
    """Return what a split names, and a remark where that is not all of it."""
    names = sorted({name for run in scored.runs for name in members(run.data, key)})
    if len(names) < 2 and key in ('by_source', 'by_route'):
        return [], ''
    if len(names) <= MOST_ROWS:
        return names, ''
    first = scored.runs[0]
    ranked = sorted(names, key=lambda name: real(first.data, key, name, 'miou') or 0.0)
    return ranked[:MOST_ROWS], f'The {MOST_ROWS} lowest of {len(names)}; metrics.json holds all.'


def _bounded(entry: Any, key: str, *, bar: bool = False) -> Cell:
    value = real(entry, key)
    return Cell(text=bounded(value, ends(entry, f'{key}_ci')), bar=value if bar else None)


def _confusion(evaluation: Evaluation, scored: ScoredSet, run: Run) -> Table | None:
    classes = evaluation.taxonomy.classes
    counts = np.zeros((len(classes), len(classes) + 1), np.float64)
    abstained = find(run.data, 'all', 'abstained')
    try:
        counts[:, :-1] = np.array(items(run.data, 'all', 'confusion'), np.float64)
        if isinstance(abstained, list):
            counts[:, -1] = abstained
        else:
            counts[:, -1] = [real(abstained, name) or 0.0 for name in classes]
    except (TypeError, ValueError):
        return None
    withheld = bool(counts[:, -1].any())
    heads = (*classes, 'no mask') if withheld else classes
    rows = []
    for index, (name, color) in enumerate(zip(classes, evaluation.taxonomy.colors)):
        total = float(counts[index].sum())
        row = [Cell(text=name, swatch=hexadecimal(color))]
        for other in range(len(heads)):
            part = float(counts[index, other]) / total if total else 0.0
            row.append(
                Cell(text=_percentage(part), heat=part, tone='hit' if other == index else 'miss')
            )
        row.append(Cell(text=count(total) if total else ABSENT))
        rows.append(tuple(row))
    return Table(
        caption=f'{scored.named(run)}: rows are the labels, columns the masks',
        columns=('labelled as', *heads, 'pixels'),
        rows=tuple(rows),
        matrix=True,
    )


def _percentage(part: float) -> str:
    """Return whole percents; nothing is empty, what rounds to nothing is '<1'."""
    if not part:
        return ''
    return '<1' if part < 0.005 else f'{100 * part:.0f}'
