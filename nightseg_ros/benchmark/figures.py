# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The figures with a unit that goals are set for, beside the ratios."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nightseg_ros.benchmark.phases import Raw, turns
from nightseg_ros.benchmark.ratios import Sessions


def figures(sessions: Sessions) -> dict[str, float]:
    """Return rates in Hz, memory in MB, seconds and counts, by the name of their goal."""
    found: dict[str, float] = {}
    one = sessions.get('one_camera')
    if one is not None:
        found['start_to_first_mask_s'] = round(
            (min(one['first'].values()) - one['started']['ours']) / 1e9, 2
        )
        found['avoidable_drops'] = avoidable_drops(one['phases'])
    sustained = _phases(sessions, 'sustained')
    for phase, name in (('labels', 'sustained_hz'), ('overlay', 'sustained_overlay_hz')):
        if phase in sustained:
            found[name] = round(rate(sustained[phase], 'ours'), 1)
    everything = _phases(sessions, 'all_networks')
    if everything:
        found['memory_mb'] = round(
            max(phase['use']['ours']['resident_mb'] for phase in everything.values()), 1
        )
    soak = list(_phases(sessions, 'soak').values())
    if len(soak) > 1:
        first, last = (phase['use']['ours']['resident_mb'] for phase in (soak[0], soak[-1]))
        found['memory_growth_mb'] = round(last - first, 1)
    return found


def rate(phase: Raw, contender: str) -> float:
    """Return frames a second of a contender that is always given the next one, the median turn."""
    answered = sum('arrived' in frame for frame in phase['frames'])
    a_turn = answered / max(len(phase['rounds']), 1)
    return float(a_turn / np.median(turns(phase, contender)))


def avoidable_drops(phases: Mapping[str, Any]) -> int:
    """
    Return how many paced frames got no labels, at rates below what the node can do.

    The node's own rate is that of the phase in which each frame waited for the one before it.
    """
    closed = phases.get('closed')
    possible = rate(closed, 'ours') if closed else float('inf')
    return sum(
        'arrived' not in frame
        for name, phase in phases.items()
        if name.endswith('_hz') and float(name.removesuffix('_hz')) < 0.9 * possible
        for frame in phase['frames']
    )


def _phases(sessions: Sessions, name: str) -> Mapping[str, Raw]:
    found: Mapping[str, Raw] = sessions.get(name, {}).get('phases', {})
    return found
