# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The section of a report that says whether the confidence of a mask can be believed."""

from __future__ import annotations

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
)
from nightseg_ros.evaluation.report.document import (
    Block,
    Cell,
    Figure,
    Figures,
    Fold,
    Key,
    Keys,
    Section,
    Table,
    Text,
    bounded,
    number,
    trimmed,
)
from nightseg_ros.evaluation.report.figures import reliability

#: Mean confidence and accuracy further apart than this are remarked on.
FAR = 0.02


def calibration_section(evaluation: Evaluation) -> Section | None:
    """Draw reliability diagrams and list calibration errors, whole and by state."""
    blocks: list[Block] = []
    for scored in evaluation.labelled:
        rows: list[tuple[Cell, ...]] = []
        folds: list[Block] = []
        for run in scored.runs:
            drawn = []
            for name, entry in _entries(run):
                rows.append(_row(run, name, entry))
                if items(entry, 'bins'):
                    drawn.append(_diagram(name, entry))
            figures = Figures(figures=tuple(drawn))
            if drawn and run is scored.runs[0]:
                blocks += [Text(text=f'{scored.named(run)}:'), _keys(), figures]
            elif drawn:
                title = f'Reliability diagrams of {scored.named(run)}'
                folds.append(Fold(title=title, blocks=(figures,)))
        blocks += folds
        if len(scored.runs) > 1:
            blocks.append(_side_by_side(scored))
        if rows:
            table = Table(
                caption=f'Calibration on {scored.name}',
                columns=(
                    'configuration', 'frames of', 'calibration error', 'mean confidence',
                    'pixel accuracy',
                ),
                rows=tuple(rows),
                text_columns=2,
            )  # fmt: skip
            table = trimmed(table, 0)
            if len(scored.runs) > 1:
                title = 'Confidence and accuracy of each configuration'
                blocks.append(Fold(title=title, blocks=(table,)))
            else:
                blocks.append(table)
        blocks += _trust(scored)
    if not blocks:
        return None
    blocks.append(
        Text(
            tone='note',
            text='Calibration error (expected calibration error, Guo et al. 2017): the mean '
            'distance between the confidence of a label and how often such labels are right. '
            'Where the confidence is above the accuracy, the network trusts itself too much.',
        )
    )
    return Section(name='calibration', title='Calibration', blocks=tuple(blocks))


def _trust(scored: ScoredSet) -> list[Block]:
    """Return what the reliability of whole frames is worth, where there is one."""
    rows: list[tuple[Cell, ...]] = []
    for run in scored.runs:
        entry = find(run.data, 'reliability')
        if not entry:
            continue
        rows.append((
            Cell(text=run.label),
            *(Cell(text=number(real(entry, key))) for key in ('mean', 'least')),
            Cell(text=bounded(real(entry, 'spearman'), ends(entry, 'spearman_ci'))),
            *(Cell(text=number(real(entry, 'risk', kept))) for kept in ('0.5', '0.9', '1')),
        ))  # fmt: skip
    if not rows:
        return []
    table = Table(
        caption=f'Reliability of the frames of {scored.name}: its rank correlation with the share '
        'of right pixels, and the wrong pixels of the most reliable frames',
        columns=('configuration', 'mean', 'least', 'correlation', 'wrong in 50 %', 'in 90 %',
                 'in all'),
        rows=tuple(rows),
        text_columns=1,
    )  # fmt: skip
    return [table]


def _side_by_side(scored: ScoredSet) -> Table:
    entries = [dict(_entries(run)) for run in scored.runs]
    names = list(dict.fromkeys(name for found in entries for name in found))
    return Table(
        caption=f'Calibration error on {scored.name}',
        columns=('frames of', *(run.label for run in scored.runs)),
        rows=tuple(
            (
                Cell(text=name),
                *(Cell(text=number(real(found, name, 'ece'))) for found in entries),
            )
            for name in names
        ),
    )


def _entries(run: Run) -> list[tuple[str, Any]]:
    whole = find(run.data, 'calibration', 'all')
    states = members(run.data, 'calibration', 'by_state')
    found = [('all', whole)]
    # with one state only, its diagram is that of all
    if len(states) == 1:
        found = [(f'all ({next(iter(states))})', whole)]
    elif states:
        found += sorted(states.items())
    return [(name, entry) for name, entry in found if entry]


def _row(run: Run, name: str, entry: Any) -> tuple[Cell, ...]:
    trust, accuracy = real(entry, 'confidence'), real(entry, 'accuracy')
    tag = ''
    if trust is not None and accuracy is not None and abs(trust - accuracy) >= FAR:
        tag = 'too sure' if trust > accuracy else 'too modest'
    return (
        Cell(text=run.label),
        Cell(text=name),
        Cell(text=number(real(entry, 'ece'))),
        Cell(text=number(trust), tag=tag, tone='bad' if tag == 'too sure' else ''),
        Cell(text=number(accuracy)),
    )


def _diagram(name: str, entry: Any) -> Figure:
    bins = items(entry, 'bins')
    columns = [
        np.array([real(item, key) or 0.0 for item in bins], np.float64)
        for key in ('low', 'high', 'pixels', 'confidence', 'accuracy')
    ]
    caption = f'{name}: calibration error {number(real(entry, "ece"))}'
    title = (
        f'Reliability diagram of {caption}, mean confidence '
        f'{number(real(entry, "confidence"))}, accuracy {number(real(entry, "accuracy"))}'
    )
    return Figure(markup=reliability(title, *columns), caption=caption)


def _keys() -> Keys:
    return Keys(
        title='By confidence:',
        keys=(
            Key(name='share of labels that are right', tone='k-right'),
            Key(name='confidence above it', tone='k-over'),
            Key(name='confidence below it', tone='k-under'),
            Key(name='share of the pixels (bottom)', tone='k-share'),
        ),
    )
