# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
A camera and a planner in one process: sends frames to nodes and notes when their labels come.

``python -m nightseg_ros.node.bench_probe ORDERS`` follows a JSON file (``benchmark/orders.py``).
One process has one clock, so that a latency between processes needs no synchronised ones.
"""

from __future__ import annotations

import array
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from nightseg_ros.benchmark.orders import Orders, Paced, Turns
from nightseg_ros.benchmark.process_use import process_use
from nightseg_ros.dds import profile_environment
from nightseg_ros.perception.result import NAMESPACE
from nightseg_ros.shared_memory import remove_orphans

#: Seconds for a subscription to be matched, and for a contender's threads to fall asleep.
SETTLE_S, PAUSE_S = 0.5, 0.03
#: Seconds between two frames that ask for the first answer.
KNOCK_S = 0.1

Sent = dict[str, Any]
"""Of one frame: camera, stamp, sent and arrived (ns of the steady clock), ms by stage."""


class Probe:
    """Publishes frames, and keeps what came back of each."""

    def __init__(self, orders: Orders) -> None:
        """Create a publisher a camera."""
        self.orders = orders
        self.node: Any = rclpy.create_node('bench_probe')
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.frames = np.load(orders.frames, mmap_mode='r')
        self.messages = [_message(frame) for frame in self.frames]
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.publishers = {
            camera: self.node.create_publisher(Image, f'{camera}/image_raw', qos)
            for camera in orders.cameras
        }
        self.subscriptions: list[Any] = []
        self.waiting: dict[tuple[str, int], Sent] = {}
        self.kept: dict[tuple[str, int], Sent] = {}
        self.newest: dict[str, int] = {}
        self.count = 0
        self.last_ns = 0

    def run(self) -> dict[str, Any]:
        """Follow the orders and return what was measured."""
        found: dict[str, Any] = {'first': self._first(), 'phases': {}}
        phases: list[Turns | Paced] = [*self.orders.turns, *self.orders.paced]
        for phase in phases:
            cameras = (
                phase.cameras
                if isinstance(phase, Paced)
                else tuple({name for names in phase.contenders.values() for name in names})
            )
            self._listen(cameras, phase.topics)
            self._spin(SETTLE_S)
            before, began = self._use(), time.monotonic()
            rounds = self._pace(phase) if isinstance(phase, Paced) else self._take_turns(phase)
            seconds, after = time.monotonic() - began, self._use()
            # a status comes after its labels
            self._spin(0.2)
            found['phases'][phase.name] = {
                'seconds': seconds,
                'rounds': rounds,
                'frames': [*self.kept.values(), *self.waiting.values()],
                'use': {
                    name: {**after[name], 'cpu': (after[name]['cpu_s'] - use['cpu_s']) / seconds}
                    for name, use in before.items()
                },
            }
            self.kept, self.waiting = {}, {}
        return found

    # -- phases -------------------------------------------------------------------------------

    def _first(self) -> dict[str, int]:
        """Knock until every camera has answered; return when (ns of the steady clock)."""
        self._listen(self.orders.cameras, ('labels',))
        end = time.monotonic() + self.orders.patience
        missing, found = set(self.orders.cameras), {}
        while missing:
            if time.monotonic() > end:
                raise RuntimeError(
                    f'no labels of {sorted(missing)} within {self.orders.patience:g} s'
                )
            for camera in sorted(missing):
                if self.publishers[camera].get_subscription_count():
                    self._send(camera)
            self._spin(KNOCK_S)
            for (camera, _), sent in self.kept.items():
                if camera in missing:
                    missing.discard(camera)
                    found[camera] = sent['arrived']
        self._spin(SETTLE_S)
        self.kept, self.waiting = {}, {}
        return found

    def _take_turns(self, phase: Turns) -> list[dict[str, float]]:
        """Return the seconds of each contender's turn, round by round."""
        rounds = []
        names = list(phase.contenders)
        for number in range(phase.rounds):
            # whoever follows the slowest shall not always be the same
            shift = number % len(names)
            seconds = {}
            for name in names[shift:] + names[:shift]:
                began = time.monotonic()
                self._turn(phase.contenders[name], phase.frames, phase.window)
                seconds[name] = time.monotonic() - began
                self._spin(PAUSE_S)
            rounds.append(seconds)
        return rounds

    def _turn(self, cameras: Sequence[str], frames: int, window: int) -> None:
        """Send each camera frames, ``window`` at once, until so many are answered."""
        left = dict.fromkeys(cameras, frames)
        patience = self.orders.patience / 10
        end = time.monotonic() + patience
        while any(left.values()) or self.waiting:
            for camera in cameras:
                flying = sum(1 for name, _ in self.waiting if name == camera)
                while left[camera] and flying < window:
                    self._send(camera)
                    left[camera] -= 1
                    flying += 1
                    end = time.monotonic() + patience
            if time.monotonic() > end:
                raise RuntimeError(f'no labels for {list(self.waiting)} within {patience:g} s')
            self.executor.spin_once(timeout_sec=0.1)
            # every contender answers as many frames, also one that takes the latest only
            for camera in self._overtaken():
                left[camera] += 1

    def _pace(self, phase: Paced) -> list[dict[str, float]]:
        """Send frames at the phase's rate; late ones are sent at once."""
        due = time.monotonic()
        end = due + phase.seconds
        while due < end:
            while (left := due - time.monotonic()) > 0:
                self.executor.spin_once(timeout_sec=left)
            for camera in phase.cameras:
                self._send(camera)
            due += 1 / phase.rate
        self._spin(0.5)
        return []

    # -- messages -----------------------------------------------------------------------------

    def _send(self, camera: str) -> None:
        message = self.messages[self.count % len(self.messages)]
        self.count += 1
        # two frames never share a stamp
        stamp = self.last_ns = max(time.time_ns(), self.last_ns + 1)
        message.header.stamp = Time(sec=stamp // 10**9, nanosec=stamp % 10**9)
        sent = {'camera': camera, 'stamp': stamp, 'sent': time.monotonic_ns()}
        self.waiting[camera, stamp] = sent
        self.publishers[camera].publish(message)

    def _listen(self, cameras: Sequence[str], topics: Sequence[str]) -> None:
        for subscription in self.subscriptions:
            self.node.destroy_subscription(subscription)
        self.subscriptions = [
            self.node.create_subscription(
                _kind(topic), f'{camera}/{NAMESPACE}/{topic}', self._receiver(camera, topic),
                QoSProfile(depth=10),
            )
            for camera in cameras
            for topic in topics
        ]  # fmt: skip

    def _receiver(self, camera: str, topic: str) -> Any:
        def labels(message: Any) -> None:
            now = time.monotonic_ns()
            sent = self.waiting.pop((camera, _nanoseconds(message.header.stamp)), None)
            if sent is not None:
                sent['arrived'] = now
                self.newest[camera] = sent['stamp']
                self.kept[camera, sent['stamp']] = sent

        def status(message: Any) -> None:
            sent = self.kept.get((camera, _nanoseconds(message.header.stamp)))
            if sent is not None:
                sent['ms'] = _latencies(message)

        def picture(message: Any) -> None:
            """Take it, as a viewer would."""

        return {'labels': labels, 'status': status}.get(topic, picture)

    def _overtaken(self) -> list[str]:
        """Give up frames that a later one of their camera has overtaken; return their cameras."""
        lost = [
            (camera, stamp) for camera, stamp in self.waiting if stamp < self.newest.get(camera, 0)
        ]
        for key in lost:
            self.kept[key] = self.waiting.pop(key)
        return [camera for camera, _ in lost]

    def _spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)

    def _use(self) -> Mapping[str, dict[str, float]]:
        return {name: asdict(process_use(pid)) for name, pid in self.orders.pids.items()}


def _message(frame: Any) -> Image:
    message = Image(encoding='rgb8')
    message.height, message.width = frame.shape[:2]
    message.step = 3 * message.width
    message.data = array.array('B', frame.tobytes())
    message.header.frame_id = 'camera'
    return message


def _kind(topic: str) -> Any:
    if topic == 'status':
        return DiagnosticArray
    return CompressedImage if topic.endswith('/compressed') else Image


def _latencies(message: Any) -> dict[str, float]:
    lead = 'latency_ms.'
    return {
        pair.key[len(lead) :]: float(pair.value)
        for pair in message.status[0].values
        if pair.key.startswith(lead)
    }


def _nanoseconds(stamp: Any) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def main() -> int:
    """Follow the orders of a file; exit code 1 where a node did not answer."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    orders = Orders.read(Path(sys.argv[1]))
    os.environ.update(profile_environment())
    remove_orphans()
    rclpy.init(args=[])
    probe = Probe(orders)
    try:
        found = probe.run()
    except (RuntimeError, OSError) as error:
        print(f'bench_probe: {error}', file=sys.stderr)
        return 1
    finally:
        probe.node.destroy_node()
        rclpy.try_shutdown()
    Path(orders.result).write_text(json.dumps(found), encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
