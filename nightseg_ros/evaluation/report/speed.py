# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The section of a report on time: frames per second, and milliseconds by stage."""

from __future__ import annotations

from nightseg_ros.evaluation.report.data import Evaluation, Run, ScoredSet, members, real
from nightseg_ros.evaluation.report.document import (
    ABSENT,
    Block,
    Cell,
    Fold,
    Section,
    Table,
    Text,
    count,
    number,
    trimmed,
)

_STAGES = (
    'decode', 'estimate', 'shrink', 'network', 'post', 'render', 'pipeline', 'metrics', 'wall',
)  # fmt: skip


def speed_section(evaluation: Evaluation) -> Section | None:
    """Frames per second, and milliseconds by stage."""
    rates = [
        (
            Cell(text=scored.name),
            Cell(text=run.label),
            Cell(text=count(run.frames)),
            Cell(text=number(real(run.data, 'timing', 'seconds'), 1)),
            Cell(text=number(real(run.data, 'timing', 'frames_per_second'), 1)),
        )
        for scored, run in evaluation.runs
        if real(run.data, 'timing', 'frames_per_second') is not None
    ]
    blocks: list[Block] = []
    if rates:
        table = Table(
            caption='Throughput of the evaluation',
            columns=('set', 'configuration', 'frames', 'seconds', 'frames per second'),
            rows=tuple(rates),
            text_columns=2,
        )
        blocks.append(trimmed(table, 0))
    for scored in evaluation.sets:
        tables = tuple(
            _stages(scored, run) for run in scored.runs if members(run.data, 'timing', 'ms')
        )
        if len(tables) > 1:
            blocks.append(_side_by_side(scored))
            blocks.append(Fold(title='Median, 99 % and longest times', blocks=tables))
        else:
            blocks += tables
    if not blocks:
        return None
    blocks.append(
        Text(
            tone='note',
            text='p95: 95 % of the frames took no longer. pipeline: estimate to render, what a '
            'frame of a camera waits for; it includes all that else ran on the machine, which is '
            'named under Origin. decode and metrics belong to the evaluation, and stages run side '
            'by side. Configurations of one evaluation share one pass and so its seconds: how '
            'fast a vehicle is has to be measured there.',
        )
    )
    streams = real(evaluation.metrics, 'streams')
    if streams is not None and streams > 1:
        text = (
            f'{count(streams)} frames were in the networks at a time, so that each took longer '
            "than in a node: --streams 1 measures a node's times."
        )
        blocks.append(Text(tone='note', text=text))
    return Section(name='speed', title='Speed', blocks=tuple(blocks))


def _stages(scored: ScoredSet, run: Run) -> Table:
    stages = members(run.data, 'timing', 'ms')
    most = max((real(entry, 'mean') or 0.0 for entry in stages.values()), default=0.0)
    rows = []
    for name in sorted(stages, key=_order):
        mean = real(stages[name], 'mean')
        rows.append(
            (
                Cell(text=name),
                Cell(text=number(mean, 1), bar=(mean or 0.0) / most if most else None),
                *(
                    Cell(text=number(real(stages[name], key), 1))
                    for key in ('p50', 'p95', 'p99', 'max')
                ),
            )
        )
    return Table(
        caption=f'{scored.named(run)}: milliseconds a frame, by stage',
        columns=('stage', 'mean', 'p50', 'p95', 'p99', 'max'),
        rows=tuple(rows),
    )


def _side_by_side(scored: ScoredSet) -> Table:
    names = {name for run in scored.runs for name in members(run.data, 'timing', 'ms')}
    most = max(
        (real(run.data, 'timing', 'ms', name, 'mean') or 0.0)
        for run in scored.runs
        for name in names
    )
    rows = []
    for name in sorted(names, key=_order):
        cells = []
        for run in scored.runs:
            mean = real(run.data, 'timing', 'ms', name, 'mean')
            late = real(run.data, 'timing', 'ms', name, 'p95')
            text = ABSENT if mean is None else f'{number(mean, 1)} ({number(late, 1)})'
            share = mean / most if mean is not None and most else None
            cells.append(Cell(text=text, bar=share))
        rows.append((Cell(text=name), *cells))
    return Table(
        caption=f'{scored.name}: milliseconds a frame, mean (p95)',
        columns=('stage', *(run.label for run in scored.runs)),
        rows=tuple(rows),
    )


def _order(name: str) -> tuple[int, str]:
    """Sort stages by their place in the pipeline, unknown ones last."""
    return (_STAGES.index(name) if name in _STAGES else len(_STAGES), name)
