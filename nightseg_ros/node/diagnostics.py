# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What happened to each camera and sensor, what is wrong now, and how /diagnostics says it."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from nightseg_ros.perception.result import in_words

#: Every way a received frame can end without a mask.
FRAME_DROPS = {
    'superseded': 'a newer frame came before its turn',
    'max_rate': 'more frames than max_rate',
    'too_old': 'older than max_age',
    'out_of_order': 'stamped before the frame before it',
    'duplicate_stamp': 'stamped as the frame before it',
    'undecodable': 'could not be decoded',
    'failed': 'could not be segmented',
    'withheld': 'the mask was unfit to be published',
}
#: Every way a received cloud can end without labels.
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
#: Drops that are no fault: the node is busy, or told to drop.
NO_FAULT = ('superseded', 'max_rate', 'unwanted')
#: Faults that lose nothing new.
HARMLESS = ('out_of_order', 'duplicate_stamp')

#: Seconds after its last fault after which a camera counts as recovered.
RECOVERY = 2.0
#: Seconds over which rates are measured.
WINDOW = 5.0

Level = Literal['OK', 'WARN', 'ERROR']
LEVELS: tuple[Level, ...] = ('OK', 'WARN', 'ERROR')
#: ROS levels are bytes; ours have names.
ROS_LEVELS: dict[Level, bytes] = {
    'OK': DiagnosticStatus.OK,
    'WARN': DiagnosticStatus.WARN,
    'ERROR': DiagnosticStatus.ERROR,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthProblem:
    """Something a person should look at."""

    level: Level
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Who publishes a topic, as ROS knows it."""

    topic: str
    publishers: int = 0
    reliable: int = 0
    """How many of them publish reliably."""
    subscribed_reliable: bool = False

    @property
    def incompatible(self) -> bool:
        """Whether a publisher promises less than the subscription demands: nothing arrives."""
        return self.subscribed_reliable and self.reliable < self.publishers


def worst(problems: Iterable[HealthProblem]) -> Level:
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


class Warnings:
    """Logs a recurring warning once, then at most every ``period`` seconds."""

    def __init__(self, logger: Any, name: str = '', period: float = 10.0) -> None:
        """Log to ``logger``, each line beginning with ``name``."""
        self._logger, self._period = logger, period
        self._lead = f'{name}: ' if name else ''
        self._logged: dict[str, tuple[float, int]] = {}

    def log(self, key: str, text: str, now: float | None = None) -> None:
        """Log ``text`` unless one of that ``key`` was logged a moment ago."""
        now = time.monotonic() if now is None else now
        when, held = self._logged.get(key, (-float('inf'), 0))
        if now - when < self._period:
            self._logged[key] = (when, held + 1)
            return
        self._logged[key] = (now, 0)
        more = f' ({held} more of this kind since the last line)' if held else ''
        self._logger.warning(f'{self._lead}{text}{more}')


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message that was received; times are seconds of ``time.monotonic``."""

    when: float
    stamped: bool = True
    drop: str = ''
    """Why it is not taken, a key of the drops."""
    jump_s: float = 0.0
    """Seconds that the stamps went back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """A message whose result was published."""

    when: float
    durations: Mapping[str, float]
    """Milliseconds by their keys in /diagnostics."""
    note: str
    """The result in a few words."""
    counts: Sequence[str] = ()
    """Further counters to raise."""
    shown: Mapping[str, object] = field(default_factory=dict)
    """Further values of /diagnostics, until the next one."""
    warnings: Mapping[str, str] = field(default_factory=dict)
    """Further warnings by a key of their own."""
    useful: bool = True
    """Whether it makes a fault of other messages a smaller problem."""


class Health:
    """
    Counters, rates, latencies and problems of one camera or sensor.

    The threads that receive and publish only append to ``arrivals`` and ``served``; whoever asks
    counts them. Every time is passed in, in seconds of one steady clock. Safe to use from several
    threads.
    """

    def __init__(
        self,
        started: float,
        *,
        drops: Mapping[str, str] = FRAME_DROPS,
        noun: str = 'frame',
        warnings: Warnings | None = None,
    ) -> None:
        """
        Start watching at ``started``.

        ``drops`` is every way that a message can end, ``noun`` what one is called, and
        ``warnings`` logs what is wrong.
        """
        self.arrivals: deque[Arrival] = deque()
        self.served: deque[Served] = deque()
        self._lock = threading.Lock()
        self._started, self._drops, self._warnings = started, drops, warnings
        self.noun = noun
        self.unreadable = 'undecodable' if 'undecodable' in drops else 'malformed'
        """The reason of a drop for messages that cannot be used."""
        self.counts: Counter[str] = Counter()
        """By their keys in /diagnostics, such as received, dropped.REASON, computed.TOPIC."""
        for key in ('received', 'served', *(f'dropped.{reason}' for reason in drops)):
            self.counts[key] = 0
        self.counts['time_jumps'] = 0
        self.shown: dict[str, object] = {}
        """Further values of /diagnostics, of the latest message."""
        self.note = ''
        self.info_problem = ''
        """What is wrong with the calibration."""
        self._unstamped = False
        self._input, self._output = Rate(), Rate()
        self._durations: dict[str, deque[float]] = {}
        self._last_received: float | None = None
        self._last_useful = -float('inf')
        self._events: dict[str, tuple[float, str]] = {}
        """When each warning came up last, and its text."""
        self._faults: dict[str, tuple[float, str]] = {}
        """The same of lost messages, by the key of their count."""

    def drop(self, now: float, reason: str, text: str = '') -> None:
        """Count a message that ends here, ``reason`` being a key of the drops; log ``text``."""
        with self._lock:
            self._drop(now, reason, text)
        self._log(reason, text)

    def miss(self, now: float, key: str, text: str) -> None:
        """Count that a part of a message's result is missing, and log why."""
        with self._lock:
            self.counts[f'missed.{key}'] += 1
            self._faults[f'missed.{key}'] = (now, text)
        self._log(key, text)

    def warn(self, now: float, key: str, text: str, *, log: str = '') -> None:
        """Show a warning for ``RECOVERY`` seconds; log ``log``."""
        with self._lock:
            self._events[key] = (now, text)
        self._log(key, log)

    def values(self, now: float) -> dict[str, object]:
        """Return rates, counters, p50, p95 and p99 of the last 512 durations, and ``shown``."""
        with self._lock:
            self._count()
            found: dict[str, object] = {
                'input_hz': self._input.per_second(now),
                'output_hz': self._output.per_second(now),
                **self.counts,
                **self.shown,
            }
            for key, values in self._durations.items():
                for share, ms in zip((50, 95, 99), np.percentile(values, (50, 95, 99))):
                    found[f'{key}.p{share}'] = float(ms)
        return found

    def problems(self, now: float, source: Source, silent_after: float) -> list[HealthProblem]:
        """Return what is wrong at ``now``, the worst first."""
        with self._lock:
            self._count()
            found = [*self._silence(now, source, silent_after), *self._recent_faults(now)]
            texts = [text for when, text in self._events.values() if now - when < RECOVERY]
            if self._unstamped:
                texts.append(
                    'the images carry no stamp (0): the driver should set header.stamp; '
                    'the router uses their arrival times'
                )
            if self.info_problem:
                texts.append(self.info_problem)
        found += [HealthProblem(level='WARN', text=text) for text in texts]
        return sorted(found, key=lambda problem: -LEVELS.index(problem.level))

    def _count(self) -> None:
        """Take over what has been appended."""
        while self.arrivals:
            arrival = self.arrivals.popleft()
            self.counts['received'] += 1
            self._last_received = arrival.when
            # who does not drop such messages warns of them
            self._unstamped = not arrival.stamped and 'unstamped' not in self._drops
            self._input.add(arrival.when)
            if arrival.drop:
                self._drop(arrival.when, arrival.drop)
            if arrival.jump_s:
                self.counts['time_jumps'] += 1
                text = f'stamps jumped back by {arrival.jump_s:.1f} s; starting over'
                self._events['jump'] = (arrival.when, text)
                self._log('jump', text)
        while self.served:
            served = self.served.popleft()
            self.counts['served'] += 1
            self.counts.update(served.counts)
            self.note = served.note
            self.shown.update(served.shown)
            if served.useful:
                self._last_useful = served.when
            self._output.add(served.when)
            self._events.update({k: (served.when, text) for k, text in served.warnings.items()})
            for key, ms in served.durations.items():
                self._durations.setdefault(key, deque(maxlen=512)).append(ms)

    def _drop(self, now: float, reason: str, text: str = '') -> None:
        key = f'dropped.{reason}'
        self.counts[key] += 1
        if reason not in NO_FAULT:
            self._faults[key] = (now, text or f'{self.noun} dropped: {self._drops[reason]}')

    def _log(self, key: str, text: str) -> None:
        if text and self._warnings is not None:
            self._warnings.log(key, text)

    def _silence(self, now: float, source: Source, silent_after: float) -> list[HealthProblem]:
        since = self._started if self._last_received is None else self._last_received
        silent = now - since
        if silent <= silent_after:
            return []
        lead = f'no {self.noun} for {silent:.1f} s'
        if not source.publishers:
            text = f'{lead}: nobody publishes {source.topic}'
        elif source.incompatible:
            text = (
                f'{lead}: {source.topic} is published best_effort, but this node asks for '
                'reliable, so that nothing arrives; set qos_reliability to auto or best_effort'
            )
        elif self._last_received is None:
            text = (
                f'no {self.noun} ever came, though {source.topic} has a publisher '
                f'({"reliable" if source.reliable else "best_effort"}): does the driver run? '
                "Large images are lost without the DDS profile in the publisher's process: start "
                'it with FASTRTPS_DEFAULT_PROFILES_FILE (Kilted: FASTDDS_DEFAULT_PROFILES_FILE) '
                'set to config/fastdds_large_images.xml, and check its QoS'
            )
        else:
            sender, what = ('camera', 'images') if self.noun == 'frame' else ('sensor', 'clouds')
            text = (
                f'{lead}, though {source.topic} still has a publisher: '
                f'the {sender} has stopped, or its large {what} get lost without the DDS profile '
                "in the publisher's process"
            )
        return [HealthProblem(level='ERROR', text=text)]

    def _recent_faults(self, now: float) -> list[HealthProblem]:
        found = []
        for key, (when, text) in self._faults.items():
            if now - when >= RECOVERY:
                continue
            # a camera that is served all the same is a smaller problem than one that is not
            useful = now - self._last_useful < RECOVERY
            reason = key.removeprefix('dropped.')
            level: Level = 'WARN' if useful or reason in HARMLESS else 'ERROR'
            what = f'{self.counts[key]} {reason}' if reason in self._drops else self.counts[key]
            found.append(HealthProblem(level=level, text=f'{text} ({what} so far)'))
        return found


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


def source_status(
    node_name: str, name: str, health: Health, source: Source, now: float, silent_after: float
) -> DiagnosticStatus:
    """Return the status of one camera or sensor at ``now``."""
    problems = health.problems(now, source, silent_after)
    values = {
        **health.values(now),
        'now': health.note or f'no {health.noun} yet',
        'topic': source.topic,
        'publishers': source.publishers,
        'subscribed': 'reliable' if source.subscribed_reliable else 'best_effort',
    }
    message = '; '.join(problem.text for problem in problems) or health.note or 'waiting'
    return diagnostic_status(
        f'{node_name}: {name}', source.topic, worst(problems), message, values
    )


def node_status(
    node_name: str,
    state: str,
    problems: Sequence[HealthProblem],
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
    """Return the process's resident memory in MB (10^6 bytes), 0 where the system hides it."""
    try:
        pages = int(Path('/proc/self/statm').read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6
