# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""How the router did over a drive: switches, time in a wrong state, and how late it followed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nightseg_ros.evaluation.table import Mask, Table, stretches

#: A longer pause between two frames is no time that a state was held.
PAUSE_S = 10.0


def routing(table: Table, sources: list[str], sequence: Mask) -> dict[str, Any]:
    """
    Return what docs/metrics.md lists under 'Routing'.

    ``sources`` name the parts, ``sequence`` tells of each row whether its neighbours follow it in
    time: only those have durations, switches and delays.
    """
    seconds = durations(table, sequence)
    known = table.readable & (table.light.codes != _code(table.light.names, ''))
    wrong = known & ~agreement(table)
    changes = _changes(table, sources, sequence)
    delays = [change['delay_s'] for change in changes if change['delay_s'] is not None]
    switches = sum(
        int((np.diff(table.route.codes[_drive(table, rows, sequence)]) != 0).sum())
        for rows in stretches(table.part)
    )
    minutes = float(seconds.sum()) / 60
    drive = bool(sequence.any())
    return {
        'switches': switches if drive else None,
        'minutes': round(minutes, 3) if drive else None,
        'switches_per_minute': round(switches / minutes, 3) if minutes else None,
        'seconds_by_state': _by_word(table.state.names, table.state.codes, seconds),
        'seconds_by_route': _by_word(table.route.names, table.route.codes, seconds),
        'by_light': {
            light: table.state.counts(known & table.light.equal(light))
            for light in sorted(filter(None, table.light.names))
        },
        'wrong_state_share': round(float(wrong.sum() / known.sum()), 4) if known.any() else None,
        'wrong_state_s': (
            round(float(seconds[wrong].sum()), 3) if drive and known.any() else None
        ),
        'changes': changes,
        'delay_s': {
            'p50': round(float(np.median(delays)), 3) if delays else None,
            'max': round(max(delays), 3) if delays else None,
            'missed': len(changes) - len(delays),
        },
    }


def durations(table: Table, sequence: Mask) -> npt.NDArray[np.float64]:
    """Return the seconds that each frame stands for: up to the next one of its drive."""
    seconds = np.zeros(len(table))
    for rows in stretches(table.part):
        drive = _drive(table, rows, sequence)
        steps = np.diff(table.stamp[drive]) / 1e9
        if not len(steps):
            continue
        steps[(steps < 0) | (steps > PAUSE_S)] = 0
        passed = steps[steps > 0]
        # the last frame stands for as long as any
        last = float(np.median(passed)) if len(passed) else 0.0
        seconds[drive] = [*steps, last]
    return seconds


def agreement(table: Table) -> Mask:
    """Tell where the state is that of the true light; glare is right at dusk and by night."""
    right = np.zeros(len(table), np.bool_)
    for light in filter(None, table.light.names):
        lit = table.light.equal(light)
        for state in filter(None, table.state.names):
            if state == light or (state == 'glare' and light in ('dusk', 'night')):
                right |= lit & table.state.equal(state)
    return right


def _changes(table: Table, sources: list[str], sequence: Mask) -> list[dict[str, Any]]:
    """Find every change of the true light, and when the state first agreed with it."""
    right = agreement(table)
    names = table.light.names
    found = []
    for rows in stretches(table.part):
        drive = _drive(table, rows, sequence)
        lights = table.light.codes[drive]
        edges = [
            int(edge) + 1
            for edge in np.flatnonzero(np.diff(lights))
            if names[lights[edge]] and names[lights[edge + 1]]
        ]
        for edge, end in zip(edges, [*edges[1:], len(drive)]):
            after = np.flatnonzero(right[drive[edge:end]])
            stamp = int(table.stamp[drive[edge]])
            followed = int(table.stamp[drive[edge + after[0]]]) if len(after) else None
            found.append(
                {
                    'source': sources[table.part[drive[edge]]],
                    'stamp': stamp,
                    'from': names[lights[edge - 1]],
                    'to': names[lights[edge]],
                    'delay_s': None if followed is None else round((followed - stamp) / 1e9, 3),
                }
            )
    return found


def _drive(table: Table, rows: slice, sequence: Mask) -> npt.NDArray[np.int64]:
    """Return the rows of a drive that hold a decision."""
    found = np.flatnonzero((table.readable & sequence)[rows]) + rows.start
    return np.asarray(found, np.int64)


def _by_word(
    names: list[str], codes: npt.NDArray[np.int32], seconds: npt.NDArray[np.float64]
) -> dict[str, float]:
    sums = np.bincount(codes, seconds, len(names)) if len(codes) else np.zeros(len(names))
    return {
        name: round(float(value), 3) for name, value in sorted(zip(names, sums)) if name and value
    }


def _code(names: list[str], name: str) -> int:
    return names.index(name) if name in names else -1
