# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
``bench.json`` as tables for people.

``python -m nightseg_ros.benchmark.document BENCH_JSON DOCUMENT`` puts them into a document,
between ``<!-- NAME -->`` and ``<!-- /NAME -->`` of ``goals`` and ``stages``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def markdown(bench: Mapping[str, Any]) -> str:
    """Return every table of a benchmark."""
    return f'# nightseg bench\n\n{_goals(bench)}\n\n{_stages(bench)}\n'


def fill(document: str, bench: Mapping[str, Any]) -> str:
    """Return the document with the tables of a benchmark between its marks."""
    texts = {'goals': _goals(bench), 'stages': _stages(bench)}
    return re.sub(
        r'<!-- (goals|stages) -->.*?<!-- /\1 -->',
        lambda found: f'<!-- {found[1]} -->\n{texts[found[1]]}\n<!-- /{found[1]} -->',
        document,
        flags=re.S,
    )


def _goals(bench: Mapping[str, Any]) -> str:
    machine, settings = bench['machine'], bench['settings']
    shorter = ' --short' if settings['short'] else ''
    return '\n\n'.join([
        f'`nightseg bench{shorter}`, {bench["created"][:10]}: {machine["processor"]}, '
        f'{machine["cores"]} cores ({", ".join(machine["instructions"])}), load '
        f'{machine["load_at_start"]} at the start, backend {settings["backend"]}.',
        goals(bench['goals']),
        _table(
            ('Ratio', 'Median', '10–90 % of the rounds', 'Rounds'),
            (
                (f'`{name}`', _short(r['value']), f'{_short(r["low"])}–{_short(r["high"])}',
                 str(r['rounds']))
                for name, r in bench['ratios'].items()
            ),
        ),
    ])  # fmt: skip


def _stages(bench: Mapping[str, Any]) -> str:
    parts = list(_sessions(bench['sessions']))
    if bench['pipelines']:
        parts += [
            '### Pipeline without ROS, milliseconds of a batch (stages: of a frame, p50)',
            _pipelines(bench['pipelines']),
        ]
    if bench['roofline']:
        parts += ['### Roofline', _roofline(bench['roofline'])]
    return '\n\n'.join(parts)


def goals(judged: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of goals."""
    words = {True: 'yes', False: '**no**', None: 'not measured'}
    return _table(
        ('Figure', 'Meaning', 'Goal', 'Measured', 'Met'),
        (
            (f'`{g["name"]}`', g['text'], f'{"≤" if g["side"] == "at most" else "≥"} {g["goal"]}',
             '–' if g['measured'] is None else _short(g['measured']), words[g['met']])
            for g in judged
        ),
    )  # fmt: skip


def _sessions(sessions: Mapping[str, Any]) -> Iterable[str]:
    for name, session in sessions.items():
        phases = session['phases']
        yield f'### {name.replace("_", " ")}, {session["size"][0]}×{session["size"][1]}'
        rows = []
        for phase, found in phases.items():
            latency = found['end_to_end_ms']
            use = ', '.join(
                f'{who} {u["cpu"]:.2f} CPU, {u["resident_mb"]:.0f} MB'
                for who, u in found['use'].items()
            )
            rows.append((
                phase, f'{found["answered"]} of {found["sent"]}',
                *(_short(latency[p]) for p in ('p50', 'p95', 'p99')), use,
            ))  # fmt: skip
        yield _table(('Phase', 'Answered', 'p50 ms', 'p95', 'p99', 'Takes'), rows)
        turns = [
            (phase, who, *(_short(ms[p]) for p in ('p50', 'p95', 'p99')))
            for phase, found in phases.items()
            for who, ms in found['turn_ms'].items()
            if len(found['turn_ms']) > 1
        ]
        if turns:
            yield _table(('Turns', 'Contender', 'p50 ms', 'p95', 'p99'), turns)
        stages = next(iter(phases.values()))['stages_ms']
        if stages:
            yield _table(
                ('Stage', 'p50 ms', 'p95', 'p99'),
                (
                    (stage, *(_short(ms[p]) for p in ('p50', 'p95', 'p99')))
                    for stage, ms in stages.items()
                ),
            )


def _pipelines(pipelines: Sequence[Mapping[str, Any]]) -> str:
    stages = ('estimate', 'shrink', 'network', 'post', 'render')
    return _table(
        ('Backend', 'Size', 'Route', 'Cameras', 'Drawn', 'p50', 'p95', 'p99', *stages),
        (
            (
                p['backend'] + (f' ({p["ran_on"]})' if p['ran_on'] != p['backend'] else ''),
                f'{p["size"][0]}×{p["size"][1]}', p['route'], str(p['cameras']),
                'all' if p['draw'] else 'labels',
                *(_short(p['batch_ms'][name]) for name in ('p50', 'p95', 'p99')),
                *(_short(p['stages_ms'][stage]['p50']) for stage in stages),
            )
            for p in pipelines
        ),
    )  # fmt: skip


def _roofline(roof: Mapping[str, Any]) -> str:
    peaks = roof['machine']
    rows = (
        (name, str(w['gmac']), str(w['megabytes']), str(w['compute_ms']), str(w['memory_ms']),
         str(w['network_ms']), f'{100 * w["share"]:.0f} %')
        for name, w in roof['networks'].items()
    )  # fmt: skip
    return (
        f'Large convolution {peaks["gmac_per_s"]} GMAC/s in float32, large copy '
        f'{peaks["gigabytes_per_s"]} GB/s.\n\n'
    ) + _table(
        ('Network', 'GMAC', 'MB', 'ms by arithmetic', 'ms by memory', 'ms measured', 'Share'), rows
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ['| ' + ' | '.join(head) + ' |', '|' + '---|' * len(head)]
    return '\n'.join([*lines, *('| ' + ' | '.join(row) + ' |' for row in rows)])


def _short(value: float | None) -> str:
    if value is None:
        return '–'
    return f'{value:.3g}' if abs(value) < 100 else f'{value:.0f}'


if __name__ == '__main__':
    given, target = (Path(argument) for argument in sys.argv[1:])
    filled = fill(
        target.read_text(encoding='utf-8'), json.loads(given.read_text(encoding='utf-8'))
    )
    target.write_text(filled, encoding='utf-8')
