# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What became of one frame, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from nightseg_ros.node.health import Level
from nightseg_ros.perception.frame_report import in_words, report
from nightseg_ros.perception.result import Result

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
        values=[KeyValue(key=key, value=in_words(value)) for key, value in values.items()],
    )


def frame_status(
    header: Any, camera: str, result: Result, latency_ms: Mapping[str, float], age_s: float | None
) -> DiagnosticArray:
    """Return the status of one frame under its own header; see ``perception.frame_report``."""
    found = report(camera, result, latency_ms, age_s)
    status = diagnostic_status(found.name, found.camera, found.level, found.message, found.values)
    return DiagnosticArray(header=header, status=[status])
