# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What a probe noted of a phase, in the numbers that ``bench.json`` holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nightseg_ros.benchmark.spread import percentiles

#: The stages of a frame within the node, in their order; before them it comes over from the
#: camera's process, and ``total`` is from there to the labels, before the other pictures.
PARTS = ('wait', 'decode', 'estimate', 'shrink', 'network', 'post', 'render', 'publish')
STAGES = ('receive', *PARTS, 'total')

Raw = Mapping[str, Any]
"""A phase as ``node/bench_probe.py`` writes it."""


def summary(phase: Raw) -> dict[str, Any]:
    """
    Return counts, latencies, turns and use of one phase.

    ``end_to_end_ms`` from the call that publishes an image to the callback that gets its labels,
    ``stages_ms`` from the node's status, ``turn_ms`` of each contender, ``cpu`` in processors.
    """
    frames = phase['frames']
    return {
        'sent': len(frames),
        'answered': sum('arrived' in frame for frame in frames),
        'seconds': round(phase['seconds'], 2),
        'end_to_end_ms': percentiles(end_to_end_ms(frames)),
        'stages_ms': stages_ms(frames),
        'turn_ms': {
            name: percentiles(1e3 * seconds for seconds in turns(phase, name))
            for name in (phase['rounds'][0] if phase['rounds'] else ())
        },
        'use': {
            name: {key: round(value, 3) for key, value in use.items()}
            for name, use in phase['use'].items()
        },
    }


def end_to_end_ms(frames: Sequence[Raw]) -> list[float]:
    """Return the latency of every frame that was answered."""
    return [(f['arrived'] - f['sent']) / 1e6 for f in frames if 'arrived' in f]


def stages_ms(frames: Sequence[Raw]) -> dict[str, dict[str, Any]]:
    """Return percentiles by stage, of the frames whose status came."""
    told = [frame['ms'] for frame in frames if 'ms' in frame]
    found = {
        stage: percentiles(ms[stage] for ms in told if stage in ms) for stage in STAGES
    }  # fmt: skip
    return {stage: values for stage, values in found.items() if values['count']}


def turns(phase: Raw, contender: str) -> list[float]:
    """Return the seconds of a contender's turns."""
    return [seconds[contender] for seconds in phase['rounds']]
