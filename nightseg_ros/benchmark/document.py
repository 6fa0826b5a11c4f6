# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``bench.json`` as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def markdown(bench: Mapping[str, Any]) -> str:
    """Return every table of a finished benchmark."""
    machine = bench['machine']
    parts = [
        '# nightseg bench',
        f'{machine["processor"]}, {machine["cores"]} cores '
        f'({", ".join(machine["instructions"])}), load {machine["load_at_start"]} at the start; '
        f'backend {bench["settings"]["backend"]}.',
        '## Goals',
        goals(bench['goals']),
        '## Ratios',
        _table(
            ('Ratio', 'Median', '10–90 % of the rounds', 'Rounds'),
            (
                (f'`{name}`', _short(r['value']), f'{_short(r["low"])}–{_short(r["high"])}',
                 str(r['rounds']))
                for name, r in bench['ratios'].items()
            ),
        ),
        *_sessions(bench['sessions']),
        '## Pipeline without ROS, milliseconds of a batch',
        _pipelines(bench['pipelines']),
    ]  # fmt: skip
    roof = bench.get('roofline')
    if roof:
        parts += ['## Roofline', _roofline(roof)]
    return '\n\n'.join(parts) + '\n'


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
        yield f'## {name.replace("_", " ")}, {session["size"][0]}×{session["size"][1]}'
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
