# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What happened to each camera and sensor, what is wrong now, and how /diagnostics says it."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
import os
from pathlib import Path
import threading
import time
from typing import Any, Literal, NamedTuple

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from nightseg_ros.perception.result import in_words, TRANSPORTS
import numpy as np

#: Every way a received frame can end without a mask.
FRAME_DROPS = {
    'superseded': 'a newer frame came before its turn',
    'max_rate': 'more frames than max_rate',
    'too_old': 'older than max_age',
    'out_of_order': 'stamped before the frame before it',
    'duplicate_stamp': 'stamped as the frame before it',
    'no_picture': 'a packet before the first key frame, or after a lost one',
    'undecodable': 'could not be decoded',
    'failed': 'could not be segmented',
    'withheld': 'the mask was unfit to be published',
}
#: Every way a received cloud can end without labels.
CLOUD_DROPS = {
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

#: Seconds after its last fault after which a camera counts as recovered.
RECOVERY = 2.0
#: Seconds over which rates are measured.
WINDOW = 5.0

Level = Literal['OK', 'WARN', 'ERROR']
LEVELS: tuple[Level, ...] = ('OK', 'WARN', 'ERROR')


class HealthProblem(NamedTuple):
    """Something a person should look at."""

    level: Level
    text: str


#: Characters of what is said of a message: the names in it may be of any length.
LONGEST = 1000
#: A silence of so many seconds is logged, and not in /diagnostics alone.
LOG_SILENCE_S = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Who publishes a topic, as ROS knows it."""

    topic: str
    publishers: int = 0
    reliable: int = 0
    """How many of them publish reliably."""
    subscribed_reliable: bool = False
    other_types: tuple[str, ...] = ()
    """What is published there besides the wanted type, such as 'sensor_msgs/CompressedImage'."""
    near: str = ''
    """Where nobody publishes it, the topics of nearly that name: "; did you mean 'X'?"."""


def rate(times: Iterable[float], now: float) -> float:
    """
    Return the events a second at ``now`` of those within ``WINDOW`` seconds before.

    From the second event on it is exact for a steady source.
    """
    recent = [when for when in times if when >= now - WINDOW]
    if len(recent) < 2:
        return len(recent) / WINDOW
    period = (recent[-1] - recent[0]) / (len(recent) - 1)
    if now - recent[-1] > 2 * period:
        return len(recent) / max(now - recent[0], 1e-9)
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


class Health:
    """
    Counters, rates, latencies and problems of one camera or sensor.

    Times are seconds of one steady clock (``time.monotonic`` in the node). The thread that
    receives and the one that serves write into the public fields, each into its own, without a
    lock; another thread may report meanwhile.
    """

    def __init__(
        self,
        started: float,
        drops: Mapping[str, str] = FRAME_DROPS,
        noun: str = 'frame',
        warnings: Warnings | None = None,
    ) -> None:
        """
        Start watching at ``started``.

        ``drops`` is every way that a message can end, ``noun`` what one is called, and
        ``warnings`` logs what is wrong.
        """
        self.noun = noun
        self.unreadable = 'undecodable' if 'undecodable' in drops else 'malformed'
        """The reason of a drop for messages that cannot be used."""
        self.counts: Counter[str] = Counter()
        """By their keys in /diagnostics, such as received, dropped.REASON, computed.TOPIC."""
        dropped = (f'dropped.{reason}' for reason in drops)
        for key in ('received', 'not_received', 'served', *dropped, 'time_jumps'):
            self.counts[key] = 0
        # 200 Hz for the window
        self.received: deque[float] = deque(maxlen=1024)
        """When the last messages came."""
        self.served: deque[float] = deque(maxlen=1024)
        """When the last results were published."""
        self.last_useful = -float('inf')
        """When a result was published that makes faults of others a smaller problem."""
        self.durations: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=512))
        """Milliseconds by their keys in /diagnostics."""
        self.shown: dict[str, object] = {}
        """Further values of /diagnostics, of the latest message."""
        self.note = ''
        """The latest result in a few words."""
        self.unstamped = False
        """Whether the latest message carried no stamp."""
        self.info_problem = ''
        """What is wrong with the calibration."""
        self.events: dict[str, tuple[float, str]] = {}
        """When each warning came up last, and its text."""
        self._faults: dict[str, tuple[float, str]] = {}
        """The same of lost messages, by the key of their count."""
        self._started, self._drops, self._warnings = started, drops, warnings
        self._logged_silence: float | None = None
        # several threads drop messages
        self._lock = threading.Lock()

    def drop(self, now: float, reason: str, text: str = '') -> None:
        """Count a message that ends here, ``reason`` being a key of the drops; log ``text``."""
        text = text[:LONGEST]
        what = text or f'{self.noun} dropped: {self._drops[reason]}'
        self._count(now, f'dropped.{reason}', '' if reason in NO_FAULT else what)
        self._log(reason, text)

    def miss(self, now: float, key: str, text: str) -> None:
        """Count that a part of a message's result is missing, and log why."""
        self._count(now, f'missed.{key}', text[:LONGEST])
        self._log(key, text[:LONGEST])

    def warn(self, now: float, key: str, text: str, *, log: str = '') -> None:
        """Show a warning for ``RECOVERY`` seconds; log ``log``."""
        self.events[key] = (now, text)
        self._log(key, log)

    def values(self, now: float) -> dict[str, object]:
        """Return rates, counters, p50, p95 and p99 of the last 512 durations, and ``shown``."""
        # a copy of plain values is made at once, whatever other threads do
        found: dict[str, object] = {
            'input_hz': rate(self.received.copy(), now),
            'output_hz': rate(self.served.copy(), now),
            **self.counts.copy(),
            **self.shown.copy(),
        }
        for key, kept in self.durations.copy().items():
            # the first is on its way in
            if not (values := kept.copy()):
                continue
            for share, ms in zip((50, 95, 99), np.percentile(values, (50, 95, 99))):
                found[f'{key}.p{share}'] = float(ms)
        return found

    def problems(self, now: float, source: Source, silent_after: float) -> list[HealthProblem]:
        """Return what is wrong at ``now``, the worst first."""
        found = [*self._silence(now, source, silent_after), *self.faults(now)]
        texts = [text for when, text in self.events.copy().values() if now - when < RECOVERY]
        # who drops such messages has said so
        if self.unstamped and 'unstamped' not in self._drops:
            texts.append(
                'the images carry no stamp (0): the driver should set header.stamp; '
                'the router uses their arrival times'
            )
        if self.info_problem:
            texts.append(self.info_problem)
        found += [HealthProblem('WARN', text) for text in texts]
        return sorted(found, key=lambda problem: -LEVELS.index(problem.level))

    def faults(self, now: float) -> list[HealthProblem]:
        """Return what was lost within the last ``RECOVERY`` seconds."""
        found = []
        for key, (when, text) in self._faults.copy().items():
            if now - when >= RECOVERY:
                continue
            # a camera that is served all the same is a smaller problem than one that is not
            useful = now - self.last_useful < RECOVERY
            reason = key.removeprefix('dropped.')
            level: Level = 'WARN' if useful else 'ERROR'
            what = f'{self.counts[key]} {reason}' if reason in self._drops else self.counts[key]
            found.append(HealthProblem(level, f'{text} ({what} so far)'))
        return found

    def _count(self, now: float, key: str, fault: str) -> None:
        with self._lock:
            self.counts[key] += 1
            if fault:
                self._faults[key] = (now, fault)

    def _log(self, key: str, text: str) -> None:
        if text and self._warnings is not None:
            self._warnings.log(key, text)

    def _silence(self, now: float, source: Source, silent_after: float) -> list[HealthProblem]:
        since = self.received[-1] if self.received else self._started
        silent = now - since
        if silent <= silent_after:
            return []
        lead = f'no {self.noun} for {silent:.1f} s'
        if source.other_types and not source.publishers:
            found = ', '.join(source.other_types)
            text = f'{lead}: {source.topic} is {found}, which is not what is subscribed to'
            for transport, kind in TRANSPORTS.items():
                if kind in source.other_types and self.noun == 'frame':
                    text += f"; set 'transport' to {transport}"
        elif not source.publishers:
            text = f'{lead}: nobody publishes {source.topic}{source.near}'
        elif source.subscribed_reliable and source.reliable < source.publishers:
            text = (
                f'{lead}: {source.topic} is published best_effort, but this node asks for '
                'reliable, so that nothing arrives; set qos_reliability to auto or best_effort'
            )
        elif not self.received:
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
        if silent > LOG_SILENCE_S and self._logged_silence != since:
            # once a silence, for those who look at a terminal
            self._logged_silence = since
            self._log('silence', text)
        return [HealthProblem('ERROR', text)]


def diagnostic_status(
    name: str, hardware_id: str, level: Level, message: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    """Return one status; numbers are written with three decimals."""
    found = [KeyValue(key=key, value=in_words(value)) for key, value in values.items()]
    # ROS has levels as bytes from 0
    number = bytes([LEVELS.index(level)])
    return DiagnosticStatus(
        name=name, hardware_id=hardware_id, level=number, message=message, values=found
    )


def summed_up(
    name: str, hardware_id: str, problems: Sequence[HealthProblem], well: str,
    values: Mapping[str, object],
) -> DiagnosticStatus:  # fmt: skip
    """Return a status that tells of the problems, or ``well`` where there is none."""
    level: Level = max((p.level for p in problems), key=LEVELS.index, default='OK')
    message = '; '.join(problem.text for problem in problems) or well
    return diagnostic_status(name, hardware_id, level, message, values)


def source_status(
    node_name: str, name: str, health: Health, source: Source, now: float, silent_after: float
) -> DiagnosticStatus:
    """Return the status of one camera or sensor at ``now``."""
    values = {
        **health.values(now),
        'now': health.note or f'no {health.noun} yet',
        'topic': source.topic,
        'publishers': source.publishers,
        'subscribed': 'reliable' if source.subscribed_reliable else 'best_effort',
    }
    problems = health.problems(now, source, silent_after)
    well = health.note or 'waiting'
    return summed_up(f'{node_name}: {name}', source.topic, problems, well, values)


def node_status(
    node_name: str, state: str, problems: Sequence[HealthProblem],
    description: Mapping[str, Any], values: Mapping[str, object],
) -> DiagnosticStatus:  # fmt: skip
    """Return the node's own status; ``description`` is ``Pipeline.describe()`` or empty."""
    shown: dict[str, object] = {'state': state, 'memory_mb': memory_mb(), **values}
    shown |= {key: value for key, value in description.items() if key != 'weights'}
    for name, weights in description.get('weights', {}).items():
        shown[f'weights.{name}'] = f'{weights["file"]} sha256 {weights["sha256"][:16]}'
        for key in ('temperature', 'reliability'):
            if key in weights:
                shown[f'{key}.{name}'] = weights[key]
        if weights['license']:
            shown[f'license.{name}'] = weights['license']
    running = f', {description["backend"]} on {description["device"]}' if description else ''
    return summed_up(f'{node_name}: node', node_name, problems, state + running, shown)


def memory_mb() -> float:
    """Return the process's resident memory in MB (10^6 bytes), 0 where the system hides it."""
    try:
        pages = int(Path('/proc/self/statm').read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6
