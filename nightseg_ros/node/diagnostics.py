# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What ``/diagnostics`` says of each camera and of the node."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus

from nightseg_ros.node.health import DROPS, CameraHealth, Problem, Source, worst
from nightseg_ros.node.status import diagnostic_status


def camera_status(
    node_name: str, camera: str, health: CameraHealth, source: Source, now: float, silent: float
) -> DiagnosticStatus:
    """Return rates, latency, drops and problems of one camera at ``now``; see ``CameraHealth``."""
    problems = health.problems(now, source, silent)
    rate_in, rate_out = health.rates(now)
    values: dict[str, object] = {
        'input_hz': rate_in,
        'output_hz': rate_out,
        'received': health.received,
        'served': health.served,
        **{f'latency_ms.{name}': value for name, value in health.latency_ms().items()},
        **{f'dropped.{reason}': health.drops[reason] for reason in DROPS},
        'reliability': 'unknown' if health.reliability is None else health.reliability,
        'size_changes': health.size_changes,
        'time_jumps': health.jumps,
        **{f'computed.{topic}': count for topic, count in sorted(health.computed.items())},
        **{f'published.{topic}': count for topic, count in sorted(health.published.items())},
        'now': health.note or 'no frame yet',
        'topic': source.topic,
        'publishers': source.publishers,
        'subscribed': 'reliable' if source.subscribed_reliable else 'best_effort',
    }
    message = '; '.join(problem.text for problem in problems) or health.note or 'waiting'
    return diagnostic_status(
        f'{node_name}: {camera}', source.topic, worst(problems), message, values
    )


def node_status(
    node_name: str,
    state: str,
    problems: Sequence[Problem],
    description: Mapping[str, Any],
    values: Mapping[str, object],
) -> DiagnosticStatus:
    """Return the node's own status; ``description`` is ``Pipeline.describe()`` or empty."""
    shown: dict[str, object] = {'state': state, 'memory_mb': memory_mb(), **values}
    for key, value in description.items():
        if key != 'weights':
            shown[key] = value
    for name, weights in description.get('weights', {}).items():
        shown[f'weights.{name}'] = f'{weights["file"]} sha256 {weights["sha256"][:16]}'
        for key in ('temperature', 'reliability'):
            if key in weights:
                shown[f'{key}.{name}'] = weights[key]
        if weights['license']:
            shown[f'license.{name}'] = weights['license']
    running = f'{description["backend"]} on {description["device"]}' if description else ''
    message = '; '.join(problem.text for problem in problems) or ', '.join(
        filter(None, (state, running))
    )
    return diagnostic_status(f'{node_name}: node', node_name, worst(problems), message, shown)


def memory_mb() -> float:
    """Return the process's resident memory in MB (10^6 bytes), 0 where it is not told."""
    try:
        pages = int(Path('/proc/self/statm').read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6
