# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What one sensor's clouds went through, and what is wrong with them now."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping

import numpy as np

from nightseg_ros.clouds.painter import LabelledCloud
from nightseg_ros.node.health import LEVELS, RECOVERY, Level, Problem, Rate, Source
from nightseg_ros.taxonomy import UNLABELLED

#: Every way a received cloud can end unlabelled.
DROPS = {
    'superseded': 'newer clouds came before its turn',
    'max_rate': 'more clouds than max_rate',
    'unwanted': 'nobody subscribes to the labelled points',
    'out_of_order': 'stamped before the cloud before it',
    'duplicate_stamp': 'stamped as the cloud before it',
    'unstamped': 'without a stamp, so that no mask can be found for it',
    'malformed': 'could not be read',
    'failed': 'could not be labelled',
}
#: Drops that mean that something is broken.
FAULTS = ('unstamped', 'malformed', 'failed', 'out_of_order', 'duplicate_stamp')


class CloudHealth:
    """
    Counters, rates, latencies and faults of one sensor; every time is passed in.

    Times are seconds of one steady clock.
    """

    def __init__(self, started: float) -> None:
        """Start watching at ``started``."""
        self.started = started
        self.received = self.served = self.jumps = 0
        self.drops: Counter[str] = Counter()
        self.misses: Counter[str] = Counter()
        """Clouds that a camera had nothing to say about, by ``CAMERA.REASON``."""
        self.note = ''
        self._in, self._out = Rate(), Rate()
        self._latency_ms: deque[float] = deque(maxlen=512)
        self._paint_ms: deque[float] = deque(maxlen=512)
        self._last_received: float | None = None
        self._gaps: dict[str, float] = {}
        self._share = 0.0
        self._points = self._hidden = 0
        self._faults: dict[str, tuple[float, str]] = {}

    def receive(self, now: float) -> None:
        """Count a message."""
        self.received += 1
        self._last_received = now
        self._in.add(now)

    def drop(self, now: float, reason: str, text: str = '') -> None:
        """Count a cloud that ends here, ``reason`` being a key of ``DROPS``."""
        self.drops[reason] += 1
        if reason in FAULTS:
            self._faults[reason] = (now, text or f'a cloud is {DROPS[reason]}')

    def serve(self, now: float, labelled: LabelledCloud, paint_ms: float) -> None:
        """Count a cloud that was published, and what was missing in it."""
        self.served += 1
        self._out.add(now)
        self._latency_ms.append((now - labelled.received) * 1e3)
        self._paint_ms.append(paint_ms)
        labels = labelled.painted.labels
        self._points = len(labels)
        self._hidden = sum(labelled.painted.hidden)
        self._share = float((labels != UNLABELLED).mean()) if len(labels) else 0.0
        self._gaps = labelled.gaps_s
        for camera, (reason, text) in labelled.misses.items():
            self.misses[f'{camera}.{reason}'] += 1
            self._faults[f'{camera}.{reason}'] = (now, text)
        self.note = f'{self._points} points, {self._share:.0%} labelled'

    def values(self, now: float) -> dict[str, object]:
        """Return the counters and figures for /diagnostics."""
        return {
            'input_hz': self._in.per_second(now),
            'output_hz': self._out.per_second(now),
            'received': self.received,
            'served': self.served,
            **{f'latency_ms.{n}': v for n, v in _percentiles(self._latency_ms).items()},
            **{f'paint_ms.{n}': v for n, v in _percentiles(self._paint_ms).items()},
            **{f'dropped.{reason}': self.drops[reason] for reason in DROPS},
            **{f'missed.{key}': count for key, count in sorted(self.misses.items())},
            **{f'mask_later_by_s.{camera}': gap for camera, gap in self._gaps.items()},
            'points': self._points,
            'labelled': self._share,
            'hidden': self._hidden,
            'time_jumps': self.jumps,
        }

    def problems(self, now: float, source: Source, silent_after: float) -> list[Problem]:
        """Return what is wrong at ``now``, the worst first."""
        found = []
        since = self.started if self._last_received is None else self._last_received
        if now - since > silent_after:
            lead = f'no cloud for {now - since:.1f} s'
            if not source.publishers:
                text = f'{lead}: nobody publishes {source.topic}'
            elif source.incompatible:
                text = (
                    f'{lead}: {source.topic} is published best_effort, but this node asks for '
                    'reliable; set qos_reliability to auto or best_effort'
                )
            else:
                text = f'{lead}, though {source.topic} has a publisher'
            found.append(Problem(level='ERROR', text=text))
        for key, (when, text) in self._faults.items():
            if now - when < RECOVERY:
                count = self.drops[key] or self.misses[key]
                harmless = key in ('out_of_order', 'duplicate_stamp')
                # a cloud without one camera's labels is less than none, but more than nothing
                partly = '.' in key and self._share > 0
                level: Level = 'WARN' if harmless or partly else 'ERROR'
                found.append(Problem(level=level, text=f'{text} ({count} so far)'))
        return sorted(found, key=lambda problem: -LEVELS.index(problem.level))


def _percentiles(values: deque[float]) -> Mapping[str, float]:
    if not values:
        return {}
    return dict(zip(('p50', 'p95', 'p99'), map(float, np.percentile(values, (50, 95, 99)))))
