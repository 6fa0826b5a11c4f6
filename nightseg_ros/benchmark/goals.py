# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What is to be reached, and whether it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """One figure and its limit."""

    name: str
    text: str
    limit: float
    side: Literal['at most', 'at least'] = 'at most'

    def met(self, measured: float) -> bool:
        """Tell whether ``measured`` keeps the limit."""
        return measured <= self.limit if self.side == 'at most' else measured >= self.limit


GOALS = (
    Goal(name='node_overhead', limit=0.15,
         text="what the node adds to its network's time, 720p (0.05 would be excellent)"),
    Goal(name='p99_over_p50', limit=1.5,
         text='end to end between processes, 720p, the worst of 10, 20 and 30 Hz'),
    Goal(name='avoidable_drops', limit=0,
         text='frames not served at rates that the node can keep up with'),
    Goal(name='sustained_hz', limit=30, side='at least',
         text='one 640×360 camera, everything included'),
    Goal(name='sustained_overlay_hz', limit=25, side='at least',
         text='the same with the overlay subscribed'),
    Goal(name='translate_over_day', limit=2,
         text='time of a frame by the route translate over that by the route day'),
    Goal(name='vs_plain_node', limit=5, side='at least',
         text='throughput over the usual node with the same network'),
    Goal(name='vs_ort_node', limit=1.5, side='at least',
         text='throughput over a decent onnxruntime node with the same graph'),
    Goal(name='vs_segformer', limit=8, side='at least',
         text='throughput over SegFormer-B0 by transformers'),
    Goal(name='eight_cameras_over_one', limit=7,
         text='time of a frame of each of eight cameras over one of one'),
    Goal(name='overlay_share', limit=0.10,
         text='drawing, in a frame of which everything is drawn and published'),
    Goal(name='memory_mb', limit=700, text='resident with all three networks'),
    Goal(name='memory_growth_mb', limit=5,
         text='of the resident memory from the first fifth of the soak to its end'),
    Goal(name='start_to_first_mask_s', limit=5,
         text="from the process's start to the first labels, graphs cached"),
)  # fmt: skip


def judged(figures: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return every goal with what was measured (None where it was not) and whether it is met."""
    return [
        {
            'name': goal.name,
            'text': goal.text,
            'side': goal.side,
            'goal': goal.limit,
            'measured': figures.get(goal.name),
            'met': goal.met(figures[goal.name]) if goal.name in figures else None,
        }
        for goal in GOALS
    ]
