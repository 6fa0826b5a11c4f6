# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What became of one frame, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from nightseg_ros.node.health import Level
from nightseg_ros.perception.pipeline import Result

#: ROS levels are bytes; ours have names.
ROS_LEVELS: dict[Level, bytes] = {
    'OK': DiagnosticStatus.OK,
    'WARN': DiagnosticStatus.WARN,
    'ERROR': DiagnosticStatus.ERROR,
}


def diagnostic_status(
    name: str, hardware_id: str, level: Level, message: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    """Return one status; numbers are written with three decimals."""
    return DiagnosticStatus(
        name=name,
        hardware_id=hardware_id,
        level=ROS_LEVELS[level],
        message=message,
        values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()],
    )


def frame_status(
    header: Any, camera: str, result: Result, latency_ms: Mapping[str, float], age_s: float | None
) -> DiagnosticArray:
    """
    Return the status of one frame under its own header.

    ``latency_ms`` by stage, in milliseconds; ``age_s`` from the stamp to the publishing of the
    labels by the node's clock, None for a frame without a stamp.
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
        'reliability': _reliability(result),
        'age_s': 'unknown' if age_s is None else age_s,
        **{f'latency_ms.{stage}': value for stage, value in latency_ms.items()},
    }
    status = diagnostic_status(
        f'nightseg: {camera}',
        camera,
        'OK' if scored else 'WARN',
        f'{decision.state}: route {decision.route}' if scored else 'the light is unknown',
        values,
    )
    return DiagnosticArray(header=header, status=[status])


def _reliability(result: Result) -> object:
    """Return the mean confidence (0–1) of the labelled pixels, where it was computed."""
    if result.confidence is None:
        return 'not computed'
    return float(result.confidence.mean()) / 255


def _text(value: object) -> str:
    if isinstance(value, bool):
        return 'true' if value else 'false'
    return f'{value:.3f}' if isinstance(value, float) else str(value)
