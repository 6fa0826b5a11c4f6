# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What became of a frame, and what its ids mean, in words: for topics, live and in bags."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nightseg_ros.perception.result import Result
from nightseg_ros.taxonomy import UNLABELLED, Taxonomy

#: Milliseconds from a frame's arrival to its first output above which its status is a warning.
SLOW_MS = 1200.0


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameReport:
    """The status of one frame, as ``diagnostic_msgs/DiagnosticStatus`` holds it."""

    name: str
    camera: str
    level: Literal['OK', 'WARN']
    message: str
    values: dict[str, str]
    """Numbers have three decimals."""


def report(
    camera: str, result: Result, latency_ms: Mapping[str, float], age_s: float | None
) -> FrameReport:
    """
    Return what became of a frame.

    ``latency_ms`` by stage, in milliseconds, empty offline, where it would tell nothing of a
    vehicle; ``age_s`` from the stamp to the publishing of the labels, None where nobody knows.
    """
    light, decision = result.illumination, result.decision
    scored = math.isfinite(light.score)
    values: dict[str, object] = {
        'score': light.score if scored else 'unknown',
        'state': decision.state,
        'seen': light.state,
        'route': decision.route,
        'switched': decision.switched,
        'reason': decision.reason,
        'reliability': 'not computed' if result.reliability is None else result.reliability,
        'age_s': 'unknown' if age_s is None else age_s,
        **{f'latency_ms.{stage}': value for stage, value in latency_ms.items()},
    }
    message = f'{decision.state}: route {decision.route}' if scored else 'the light is unknown'
    total = latency_ms.get('total', 0.0)
    if total > SLOW_MS:
        message += f'; slow: {total:.0f} ms'
    return FrameReport(
        name=f'nightseg: {camera}',
        camera=camera,
        level='OK' if scored and total <= SLOW_MS else 'WARN',
        message=message,
        values={key: in_words(value) for key, value in values.items()},
    )


def legend(taxonomy: Taxonomy) -> str:
    """Return the classes with ids and colours as JSON, as Nav2 and people can read it."""
    classes = [
        {'id': index, 'name': name, 'color': list(color)}
        for index, (name, color) in enumerate(zip(taxonomy.classes, taxonomy.colors))
    ]
    content = {'taxonomy': taxonomy.name, 'unlabelled': UNLABELLED, 'classes': classes}
    return json.dumps(content)


def in_words(value: object) -> str:
    """Return a value of a status as text."""
    if isinstance(value, bool):
        return 'true' if value else 'false'
    return f'{value:.3f}' if isinstance(value, float) else str(value)
