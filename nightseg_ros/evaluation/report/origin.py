# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Sections of a report that say where its numbers come from, and what the words mean."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from nightseg_ros.evaluation.report.data import (
    Evaluation,
    configuration_name,
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
    count,
    moment,
    number,
    plural,
    trimmed,
)

#: Sources listed by name.
MOST_SOURCES = 60

_TERMS = (
    ('mIoU', 'Mean intersection over union over the classes that the labels hold.'),
    ('mIoU9', 'The same without fence and bicyclist, which have too few pixels at night.'),
    ('pixel accuracy', 'Share of the labelled pixels that are right.'),
    ('interval', 'Percentile bootstrap: the scores of many draws, with replacement, of frames or '
     'of blocks of neighbouring frames. It says how much depends on the choice of frames.'),
    ('difference', 'Score minus that of the first configuration, over the same draws. An interval '
     'that holds zero shows no clear difference.'),
    ('light score', '0 is dark, 1 is daylight; the router makes day, dusk and night of it.'),
    ('route', 'day: the segmenter for daylight. night: the one trained on synthetic night. '
     'translate: night is turned into day first. auto: what the router decides.'),
    ('not labelled', 'Pixels without a label are in no score.'),
)  # fmt: skip


def origin_section(evaluation: Evaluation) -> Section:
    """Name data, weights, command, machine and versions of the evaluation."""
    blocks: list[Block] = []
    command = find(evaluation.metrics, 'command')
    rows = [
        ('evaluated', _date(find(evaluation.metrics, 'created')) or ABSENT, False),
        ('nightseg', _flat(find(evaluation.metrics, 'nightseg')) or ABSENT, False),
        ('command', _command(command), True),
        ('took', f'{number(real(evaluation.metrics, "wall_s"), 1)} s', False),
        ('bootstrap', _flat(find(evaluation.metrics, 'bootstrap')) or ABSENT, False),
    ]
    machine = find(evaluation.metrics, 'machine')
    if isinstance(machine, Mapping):
        rows += [(str(name), _flat(value), False) for name, value in machine.items()]
    elif machine:
        rows.append(('machine', _flat(machine), False))
    blocks.append(
        Table(
            caption='This evaluation',
            columns=('fact', 'value'),
            rows=tuple((Cell(text=name), Cell(text=text, code=c)) for name, text, c in rows),
            text_columns=2,
        )
    )
    blocks += [table for table in (_weights(evaluation), _sources(evaluation)) if table]
    blocks += _configurations(evaluation)
    return Section(name='origin', title='Origin', blocks=tuple(blocks))


def terms_section() -> Section:
    """Say what the words mean."""
    table = Table(
        caption='Words of this report',
        columns=('word', 'meaning'),
        rows=tuple((Cell(text=word), Cell(text=meaning)) for word, meaning in _TERMS),
        text_columns=2,
    )
    return Section(name='terms', title='Terms', blocks=(table,))


def facts(evaluation: Evaluation) -> Iterator[str]:
    """Yield what stands under the title: data, weights, program, day and machine."""
    for scored in evaluation.sets:
        frames = max((run.frames for run in scored.runs), default=0)
        labelled = max((run.labelled for run in scored.runs), default=0)
        kind = 'drive' if scored.drive else 'pictures'
        text = (
            f'Data: {scored.name}, {kind}, {plural(frames, "frame")}, {count(labelled)} labelled'
        )
        dates = _dates(items(scored.data, 'sources')) if scored.drive else ''
        yield f'{text}, {dates}' if dates else text
    weights = {
        f'{find(entry, "file") or role} {str(find(entry, "sha256") or "")[:12]}': None
        for _, pipeline in _pipelines(evaluation)
        for role, entry in members(pipeline, 'weights').items()
    }
    if weights:
        yield f'Weights: {", ".join(weights)}'
    version = _flat(find(evaluation.metrics, 'nightseg'))
    runtime = ' on '.join(
        str(value)
        for value in (
            find(evaluation.metrics, 'pipeline', 'backend'),
            find(evaluation.metrics, 'pipeline', 'device'),
        )
        if value
    )
    day = _date(find(evaluation.metrics, 'created'))
    parts = (f'nightseg {version}' if version else '', runtime, f'evaluated {day}' if day else '')
    text = ', '.join(part for part in parts if part)
    if text:
        yield text


def _configurations(evaluation: Evaluation) -> Iterator[Block]:
    """Yield the settings in which configurations differ, and all of them folded."""
    entries = items(evaluation.metrics, 'configurations')
    settings = [dict(_settings(find(entry, 'options'))) for entry in entries]
    names = [configuration_name(evaluation.metrics, entry) for entry in entries]
    keys = list(dict.fromkeys(key for found in settings for key in found))
    differing = [key for key in keys if len({found.get(key, '') for found in settings}) > 1]
    for caption, chosen in (('Settings that differ', differing), ('All settings', keys)):
        if not chosen:
            continue
        rows = (
            (
                Cell(text=key),
                *(Cell(text=found.get(key) or ABSENT, code=True) for found in settings),
            )
            for key in chosen
        )
        table = Table(
            caption=caption,
            columns=('setting', *names),
            rows=tuple(rows),
            text_columns=1 + len(names),
        )
        if caption == 'All settings':
            yield Fold(title='Settings of the pipeline', blocks=(table,))
        else:
            yield table


def _settings(options: Any, prefix: str = '') -> Iterator[tuple[str, str]]:
    """Yield nested settings under dotted names, as --compare and the node's parameters have."""
    for name, value in members(options).items():
        if isinstance(value, Mapping):
            yield from _settings(value, f'{prefix}{name}.')
        else:
            yield prefix + name, _flat(value)


def _weights(evaluation: Evaluation) -> Table | None:
    rows: dict[tuple[str, ...], tuple[Cell, ...]] = {}
    for name, pipeline in _pipelines(evaluation):
        about = ', '.join(
            f'{key} {find(pipeline, key)}'
            for key in ('backend', 'device', 'long_side')
            if find(pipeline, key) is not None
        )
        for role, entry in members(pipeline, 'weights').items():
            values = tuple(str(find(entry, key) or '') for key in ('file', 'sha256', 'license'))
            key = (role, *values, about)
            cells = (
                Cell(text=name),
                Cell(text=role),
                Cell(text=values[0], code=True),
                Cell(text=values[1], code=True),
                Cell(text=values[2]),
                Cell(text=about),
            )
            if key in rows:
                cells = (Cell(text=f'{rows[key][0].text}, {name}'), *cells[1:])
            rows[key] = cells
    if not rows:
        return None
    table = Table(
        caption='Weights',
        columns=('configuration', 'part', 'file', 'SHA-256', 'licence', 'run by'),
        rows=tuple(rows.values()),
        text_columns=6,
    )
    return trimmed(table, 0)


def _sources(evaluation: Evaluation) -> Table | None:
    rows = []
    for scored in evaluation.sets:
        for source in items(scored.data, 'sources'):
            rows.append(
                (
                    Cell(text=scored.name),
                    Cell(text=str(find(source, 'path') or find(source, 'name') or ''), code=True),
                    Cell(text=str(find(source, 'topic') or ''), code=True),
                    Cell(text=str(find(source, 'kind') or '')),
                    Cell(text=_dates([source]) if scored.drive else ''),
                    Cell(text=count(whole(source, 'frames'))),
                    Cell(text=count(whole(source, 'labelled'))),
                )
            )
    if not rows:
        return None
    more = len(rows) - MOST_SOURCES
    table = Table(
        caption='Data',
        columns=('set', 'path', 'topic', 'kind', 'recorded', 'frames', 'labelled'),
        rows=tuple(rows[:MOST_SOURCES]),
        text_columns=5,
        note=f'{more} more in metrics.json.' if more > 0 else '',
    )
    empty = [i for i in (2, 3, 4) if not any(row[i].text for row in table.rows)]
    return trimmed(table, 0, *empty)


def _pipelines(evaluation: Evaluation) -> Iterator[tuple[str, Any]]:
    configurations = items(evaluation.metrics, 'configurations')
    for entry in configurations:
        yield configuration_name(evaluation.metrics, entry), find(entry, 'pipeline')
    if not configurations:
        yield configuration_name(evaluation.metrics), find(evaluation.metrics, 'pipeline')


def _dates(sources: Sequence[Any]) -> str:
    """Return from when to when the frames were taken, as their stamps say."""
    stamps = [
        int(stamp)
        for source in sources
        for key in ('first_stamp', 'last_stamp')
        if isinstance(stamp := find(source, key), int)
    ]
    if not stamps:
        return ''
    first, last = moment(min(stamps), 0), moment(max(stamps), 0)
    if first[:10] == last[:10] and len(first) > 12:
        # one day need not be named twice
        last = last[11:]
        first = first.removesuffix(' UTC')
    return f'{first} to {last}'


def _date(text: Any) -> str:
    """Return an ISO time as people write it; what is none stays as it is."""
    try:
        date = datetime.fromisoformat(str(text).replace('Z', '+00:00'))
    except ValueError:
        return str(text or '')
    zone = ' UTC' if date.utcoffset() == timedelta(0) else f' {date:%z}'.rstrip()
    return f'{date:%Y-%m-%d %H:%M}{zone}'


def _command(command: Any) -> str:
    if isinstance(command, str):
        return command
    if isinstance(command, Sequence):
        return shlex.join(str(word) for word in command)
    return ABSENT


def _flat(value: Any) -> str:
    """Return nested JSON as a line of words."""
    if isinstance(value, Mapping):
        return ', '.join(f'{name} {_flat(item)}' for name, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ', '.join(_flat(item) for item in value)
    if isinstance(value, float) and not math.isfinite(value):
        return ABSENT
    return '' if value is None else str(value)
