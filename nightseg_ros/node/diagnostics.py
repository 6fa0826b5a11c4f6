# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What one camera went through, and what is wrong with it now.

What became of one frame, in words.

What ``/diagnostics`` says of each camera and of the node.

What one sensor's clouds went through, and what is wrong with them now.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from nightseg_ros.clouds.painter import LabelledCloud
from nightseg_ros.perception.result import Result, in_words, report
from nightseg_ros.taxonomy import UNLABELLED

#: Every way a received frame can end without a mask.
DROPS = {
    'superseded': 'a newer frame came before its turn',
    'max_rate': 'more frames than max_rate',
    'too_old': 'older than max_age',
    'out_of_order': 'stamped before the frame before it',
    'duplicate_stamp': 'stamped as the frame before it',
    'undecodable': 'could not be decoded',
    'failed': 'could not be segmented',
    'withheld': 'the mask was unfit to be published',
}
#: Drops that mean that something is broken, and not only that the node is busy or told to.
FAULTS = ('undecodable', 'failed', 'withheld', 'too_old', 'out_of_order', 'duplicate_stamp')

#: Seconds after its last fault after which a camera counts as recovered.
RECOVERY = 2.0
#: Seconds over which rates are measured.
WINDOW = 5.0

Level = Literal['OK', 'WARN', 'ERROR']
LEVELS: tuple[Level, ...] = ('OK', 'WARN', 'ERROR')


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something a person should look at."""

    level: Level
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What ROS knows of who publishes a camera's images."""

    topic: str
    publishers: int = 0
    reliable: int = 0
    """How many of them publish reliably."""
    subscribed_reliable: bool = False

    @property
    def incompatible(self) -> bool:
        """Whether a publisher promises less than the subscription demands: nothing arrives."""
        return self.subscribed_reliable and self.reliable < self.publishers


def worst(problems: Iterable[Problem]) -> Level:
    """Return the highest level, 'OK' where there is no problem."""
    return max((problem.level for problem in problems), key=LEVELS.index, default='OK')


class Rate:
    """Events a second over the last ``WINDOW`` seconds."""

    def __init__(self) -> None:
        """Start empty."""
        # bounds the memory at 200 Hz and more
        self._times: deque[float] = deque(maxlen=2048)

    def add(self, now: float) -> None:
        """Count an event at ``now`` (seconds of a steady clock)."""
        self._times.append(now)

    def per_second(self, now: float) -> float:
        """Return the rate; from the second event on it is exact for a steady source."""
        while self._times and self._times[0] < now - WINDOW:
            self._times.popleft()
        if len(self._times) < 2:
            return len(self._times) / WINDOW
        last_gap = now - self._times[-1]
        between = self._times[-1] - self._times[0]
        period = between / (len(self._times) - 1)
        if last_gap > 2 * period:
            return len(self._times) / max(now - self._times[0], 1e-9)
        return 1 / max(period, 1e-9)


class CameraHealth:
    """
    Counters, rates, latencies and faults of one camera; every time is passed in.

    Times are seconds of one steady clock. Safe to call from several threads.
    """

    def __init__(self, started: float) -> None:
        """Start watching at ``started``."""
        self._lock = threading.Lock()
        self.started = started
        self.received = self.served = self.size_changes = self.jumps = 0
        self.drops: Counter[str] = Counter()
        self.computed: Counter[str] = Counter()
        self.published: Counter[str] = Counter()
        self.unstamped = False
        self.note = ''
        """What the latest status says beside the counters: route and score."""
        self.info_problem = ''
        self.reliability: float | None = None
        """That of the last frame which a network saw."""
        self._in, self._out = Rate(), Rate()
        self._latency_ms: deque[float] = deque(maxlen=512)
        self._last_received: float | None = None
        self._last_served: float | None = None
        self._last_jump: float | None = None
        self._last_size_change: float | None = None
        self._blind: tuple[float, float] | None = None
        self._faults: dict[str, tuple[float, str]] = {}

    def receive(self, now: float, *, unstamped: bool = False) -> None:
        """Count a message."""
        with self._lock:
            self.received += 1
            self.unstamped = unstamped
            self._last_received = now
            self._in.add(now)

    def drop(self, now: float, reason: str, text: str = '') -> None:
        """Count a frame that ends here, ``reason`` being a key of ``DROPS``."""
        with self._lock:
            self.drops[reason] += 1
            if reason in FAULTS:
                self._faults[reason] = (now, text or DROPS[reason])

    def jump(self, now: float) -> None:
        """Count stamps that started over."""
        with self._lock:
            self.jumps += 1
            self._last_jump = now

    def change_size(self, now: float) -> None:
        """Count a frame of another size than the one before it."""
        with self._lock:
            self.size_changes += 1
            self._last_size_change = now

    def serve(
        self, now: float, latency_ms: float, *, computed: Iterable[str], published: Iterable[str]
    ) -> None:
        """Count a frame that was served, and what was computed and published of it."""
        with self._lock:
            self.served += 1
            self._last_served = now
            self._out.add(now)
            self._latency_ms.append(latency_ms)
            self.computed.update(computed)
            self.published.update(published)

    def trust(self, now: float, reliability: float | None, least: float) -> None:
        """Take a frame's reliability, 0 to 1; below ``least`` the camera cannot see."""
        with self._lock:
            self.reliability = reliability
            if reliability is not None and not reliability >= least:
                self._blind = (now, reliability)

    def rates(self, now: float) -> tuple[float, float]:
        """Return received and served frames a second."""
        with self._lock:
            return self._in.per_second(now), self._out.per_second(now)

    def latency_ms(self) -> Mapping[str, float]:
        """Return p50, p95 and p99 of the last 512 frames, {} where there is none."""
        with self._lock:
            values = list(self._latency_ms)
        if not values:
            return {}
        return dict(zip(('p50', 'p95', 'p99'), map(float, np.percentile(values, (50, 95, 99)))))

    def problems(self, now: float, source: Source, silent_after: float) -> list[Problem]:
        """Return what is wrong at ``now``, the worst first."""
        with self._lock:
            found = [*self._silence(now, source, silent_after), *self._recent_faults(now)]
            if self._last_jump is not None and now - self._last_jump < RECOVERY:
                found.append(Problem(level='WARN', text='stamps jumped back; started over'))
            if self._last_size_change is not None and now - self._last_size_change < RECOVERY:
                found.append(Problem(level='WARN', text='the size of the images changed'))
            if self._blind is not None and now - self._blind[0] < RECOVERY:
                text = (
                    f'cannot see: reliability {self._blind[1]:.2f}; is the lens covered, blinded '
                    'or out of focus? The masks are published all the same'
                )
                found.append(Problem(level='WARN', text=text))
            if self.unstamped:
                found.append(
                    Problem(
                        level='WARN',
                        text='the images carry no stamp (0): the driver should set header.stamp; '
                        'the router goes by their arrival',
                    )
                )
            if self.info_problem:
                found.append(Problem(level='WARN', text=self.info_problem))
        return sorted(found, key=lambda problem: -LEVELS.index(problem.level))

    def _silence(self, now: float, source: Source, silent_after: float) -> list[Problem]:
        since = self.started if self._last_received is None else self._last_received
        silent = now - since
        if silent <= silent_after:
            return []
        lead = f'no frame for {silent:.1f} s'
        if not source.publishers:
            text = f'{lead}: nobody publishes {source.topic}'
        elif source.incompatible:
            text = (
                f'{lead}: {source.topic} is published best_effort, but this node asks for '
                'reliable, so that nothing arrives; set qos_reliability to auto or best_effort'
            )
        elif self._last_received is None:
            text = (
                f'no frame ever came, though {source.topic} has a publisher '
                f'({"reliable" if source.reliable else "best_effort"}): does the driver run? '
                "Large images are lost without the DDS profile in the publisher's process: start "
                'it with FASTRTPS_DEFAULT_PROFILES_FILE (Kilted: FASTDDS_DEFAULT_PROFILES_FILE) '
                'set to config/fastdds_large_images.xml, and check its QoS'
            )
        else:
            text = (
                f'{lead}, though {source.topic} still has a publisher: the camera has stopped, or '
                "its large images get lost without the DDS profile in the publisher's process"
            )
        return [Problem(level='ERROR', text=text)]

    def _recent_faults(self, now: float) -> list[Problem]:
        found = []
        for reason, (when, text) in self._faults.items():
            if now - when >= RECOVERY:
                continue
            # a camera that is served all the same is a smaller worry than one that is not
            served = self._last_served is not None and now - self._last_served < RECOVERY
            harmless = reason in ('out_of_order', 'duplicate_stamp')
            level: Level = 'WARN' if served or harmless else 'ERROR'
            found.append(
                Problem(level=level, text=f'{text} ({self.drops[reason]} {reason} so far)')
            )
        return found


class Throttle:
    """Lets a recurring message through once, then at most every ``period`` seconds."""

    def __init__(self, period: float = 10.0) -> None:
        """Start with every message unsaid."""
        self._period = period
        self._said: dict[str, tuple[float, int]] = {}

    def admit(self, key: str, now: float) -> int | None:
        """Return how many were held back since the last one, None to hold this one back."""
        when, held = self._said.get(key, (-float('inf'), 0))
        if now - when < self._period:
            self._said[key] = (when, held + 1)
            return None
        self._said[key] = (now, 0)
        return held


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


#: Every way a received cloud can end unlabelled.
CLOUD_DROPS = {
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
CLOUD_FAULTS = ('unstamped', 'malformed', 'failed', 'out_of_order', 'duplicate_stamp')


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
        if reason in CLOUD_FAULTS:
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
            **{f'dropped.{reason}': self.drops[reason] for reason in CLOUD_DROPS},
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
