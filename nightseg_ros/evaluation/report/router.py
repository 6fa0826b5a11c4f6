# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The section of a report on the router: what it chose, how often it switched, and how late."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from nightseg_ros.evaluation.report.data import (
    Evaluation,
    Run,
    ScoredSet,
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
    count,
    moment,
    number,
    share,
)

#: Changes of the light listed one by one.
MOST_ROWS = 60
_STATES = ('day', 'dusk', 'night', 'glare')


def router_section(evaluation: Evaluation) -> Section | None:
    """State and route over time, switches, and errors where the true light is known."""
    blocks: list[Block] = []
    for scored in evaluation.sets:
        runs = [run for run in scored.runs if find(run.data, 'routing')]
        if not runs:
            continue
        blocks.append(_measures(scored, runs))
        blocks += _lights(scored, runs)
        blocks += _changes(scored, runs)
    if not blocks:
        return None
    text = (
        'Whether a state is wrong, and how late it followed, can be told only where the true '
        'light is known (--light).'
    )
    return Section(name='router', title='Router', blocks=(*blocks, Text(tone='note', text=text)))


def _measures(scored: ScoredSet, runs: list[Run]) -> Table:
    drive = scored.drive
    measures: list[tuple[str, Callable[[Run], str]]] = [
        ('state', lambda run: _held(run, 'state', drive)),
        ('route', lambda run: _held(run, 'route', drive)),
    ]
    if drive:
        measures += [
            ('minutes', lambda run: number(real(run.data, 'routing', 'minutes'), 1)),
            ('switches of the route', lambda run: count(real(run.data, 'routing', 'switches'))),
            (
                'switches per minute',
                lambda run: number(real(run.data, 'routing', 'switches_per_minute'), 2),
            ),
        ]
    measures.append(
        (
            'frames in a wrong state',
            lambda run: share(real(run.data, 'routing', 'wrong_state_share')),
        )
    )
    if drive:
        measures += [
            (
                'seconds in a wrong state',
                lambda run: number(real(run.data, 'routing', 'wrong_state_s'), 1),
            ),
            (
                'seconds until the state followed, median',
                lambda run: number(real(run.data, 'routing', 'delay_s', 'p50'), 2),
            ),
            (
                'seconds until the state followed, longest',
                lambda run: number(real(run.data, 'routing', 'delay_s', 'max'), 2),
            ),
            (
                'changes of light never followed',
                lambda run: count(real(run.data, 'routing', 'delay_s', 'missed')),
            ),
        ]
    rows = [(words, [measure(run) for run in runs]) for words, measure in measures]
    return Table(
        caption=f'What the router did on {scored.name}',
        columns=('measure', *(run.label for run in runs)),
        text_columns=1 + len(runs),
        rows=tuple(
            (Cell(text=words), *(Cell(text=value) for value in values))
            for words, values in rows
            if set(values) != {ABSENT}
        ),
    )


def _held(run: Run, kind: str, drive: bool) -> str:
    """Return how much of the time, or of the frames, each state or route held."""
    held = members(run.data, 'routing', f'seconds_by_{kind}') if drive else {}
    if not any(real(held, name) for name in held):
        held = members(run.data, f'{kind}s')
    parts = {name: real(held, name) or 0.0 for name in held}
    total = sum(parts.values())
    ranked = sorted(parts.items(), key=lambda pair: -pair[1])
    words = [f'{name} {share(part / total, 0)}' for name, part in ranked if part > 0]
    return ', '.join(words) or ABSENT


def _lights(scored: ScoredSet, runs: list[Run]) -> Iterator[Block]:
    """Yield true light against state; once where all configurations saw the same."""
    told: list[Any] = []
    for run in runs:
        lights = members(run.data, 'routing', 'by_light')
        if not lights or lights in told:
            continue
        told.append(lights)
        rows = []
        for light in sorted(lights, key=_order):
            states = members(lights, light)
            total = sum(whole(states, name) for name in states)
            cells = []
            for state in _STATES:
                frames = whole(states, state)
                right = state == light or (state == 'glare' and light in ('dusk', 'night'))
                cells.append(
                    Cell(
                        text=count(frames) if frames else '',
                        heat=frames / total if total else 0.0,
                        tone='hit' if right else 'miss',
                    )
                )
            rows.append((Cell(text=light), *cells))
        yield Table(
            caption=f'{scored.name}: frames by true light and state',
            columns=('true light', *(f'seen as {state}' for state in _STATES)),
            rows=tuple(rows),
        )


def _changes(scored: ScoredSet, runs: list[Run]) -> Iterator[Block]:
    told: list[Any] = []
    for run in runs:
        changes = items(run.data, 'routing', 'changes')
        if not changes or changes in told:
            continue
        told.append(changes)
        rows = []
        for change in changes[:MOST_ROWS]:
            stamp = find(change, 'stamp')
            delay = real(change, 'delay_s')
            rows.append(
                (
                    Cell(text=str(find(change, 'source') or '')),
                    Cell(text=moment(stamp) if isinstance(stamp, int) else ABSENT),
                    Cell(text=f'{find(change, "from")} to {find(change, "to")}'),
                    Cell(text='never' if delay is None else number(delay, 2)),
                )
            )
        more = len(changes) - MOST_ROWS
        table = Table(
            caption=f'{scored.name}: changes of the true light',
            columns=('source', 'at', 'change', 'followed after, s'),
            rows=tuple(rows),
            text_columns=3,
            note=f'{more} more in metrics.json.' if more > 0 else '',
        )
        yield Fold(title='Each change of the true light', blocks=(table,))


def _order(light: str) -> tuple[int, str]:
    return (_STATES.index(light) if light in _STATES else len(_STATES), light)
