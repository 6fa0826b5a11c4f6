# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What one camera went through, and what is wrong with it now."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

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
