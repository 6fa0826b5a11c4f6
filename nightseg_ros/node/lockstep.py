# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Wait for the labels of an image before the next one is sent."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

#: Seconds after which an image is sent again: it may have been sent while its reader was about to
#: subscribe anew. A reader that has it already drops the repeated stamp.
RESEND_S = 2.0


class Lockstep:
    """Listens to the labels of some image topics and tells when those of a stamp have come."""

    def __init__(self, node: Any, labels: Mapping[str, str], patience: float) -> None:
        """``labels`` is the topic of the labels by image topic, ``patience`` is in seconds."""
        self.patience = patience
        self.labels = dict(labels)
        self._node = node
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        self._seen: dict[str, int] = {}
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        for topic, answer in self.labels.items():
            node.create_subscription(Image, answer, self._keeper(topic), qos, raw=True)

    def ready(self) -> bool:
        """Tell whether somebody publishes every topic of labels."""
        return all(self._node.count_publishers(answer) for answer in self.labels.values())

    def wait(self, topic: str, stamp_ns: int, send: Callable[[], None]) -> bool:
        """
        Send an image and return whether its labels came in time.

        Labels of a stamp of 0 cannot be told apart, and such an image is sent once.
        """
        self._seen.pop(topic, None)
        send()
        now = time.monotonic()
        end, again = now + self.patience, now + RESEND_S
        while self._seen.get(topic) != stamp_ns:
            if not self._node.context.ok() or now > end:
                return False
            if now > again and stamp_ns:
                send()
                again = now + RESEND_S
            self._executor.spin_once(timeout_sec=0.1)
            now = time.monotonic()
        return True

    def _keeper(self, topic: str) -> Callable[[bytes], None]:
        def keep(data: bytes) -> None:
            self._seen[topic] = header_stamp(data)

        return keep


def header_stamp(data: bytes) -> int:
    """Return the header's stamp in ns of a serialised (CDR) stamped message."""
    seconds, nanoseconds = struct.unpack_from('<iI' if data[1] else '>iI', data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
