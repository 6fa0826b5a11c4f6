# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What semantic_cloud reads of one camera."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from nightseg_ros.clouds.errors import CloudError
from nightseg_ros.clouds.messages import read_calibration, read_palette, stamp_of
from nightseg_ros.clouds.painter import CloudPainter
from nightseg_ros.clouds.plane import read_plane
from nightseg_ros.node.following import Following
from nightseg_ros.node.health import RECOVERY, Problem, Throttle
from nightseg_ros.perception.naming import NAMESPACE

_ENCODINGS = ('mono8', '8UC1')


class CameraFeed:
    """Labels, confidence, calibration and colours of one camera, while the node is active."""

    def __init__(
        self, node: Any, name: str, info_topic: str, reliability: str, painter: CloudPainter,
        serve: Callable[[], None],
    ) -> None:  # fmt: skip
        """Subscribe; ``serve`` is called when a mask has come."""
        self.name = name
        self.masks = self.bad = 0
        self._node, self._painter, self._serve = node, painter, serve
        self._throttle = Throttle()
        self._last = self._started = time.monotonic()
        self._fault: tuple[float, str] = (-1e9, '')
        prefix = f'{name}/{NAMESPACE}'
        self.labels = Following(node, Image, f'{prefix}/labels', self._labels, reliability)
        self._following = [self.labels]
        if painter.config.confidence:
            self._following.append(
                Following(node, Image, f'{prefix}/confidence', self._confidence, reliability)
            )
        latched = QoSProfile(
            depth=1, reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )  # fmt: skip
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        legends = f'{prefix}/label_info_json'
        # the node's own group would never forget them
        group = MutuallyExclusiveCallbackGroup()
        self._subscriptions = [
            node.create_subscription(
                CameraInfo, info_topic, self._info, best_effort, callback_group=group
            ),
            node.create_subscription(String, legends, self._legend, latched, callback_group=group),
        ]

    def close(self) -> None:
        """Take the subscriptions out of the graph."""
        for following in self._following:
            following.close()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def match(self) -> None:
        """Follow the publishers' reliability."""
        for following in self._following:
            following.match()

    def problems(self, now: float, silent_after: float) -> list[Problem]:
        """Return what is wrong with this camera's masks."""
        found = []
        if now - self._last > silent_after:
            source = self.labels.source()
            who = 'nobody publishes' if not source.publishers else 'nothing comes on'
            text = f'{self.name}: no mask for {now - self._last:.1f} s: {who} {source.topic}'
            found.append(Problem(level='ERROR', text=text))
        if now - self._fault[0] < RECOVERY:
            found.append(Problem(level='WARN', text=f'{self._fault[1]} ({self.bad} so far)'))
        return found

    def _labels(self, message: Any) -> None:
        def take() -> None:
            plane = read_plane(message, _ENCODINGS)
            frame_id = message.header.frame_id
            self._painter.masks(self.name).add_labels(stamp_of(message), frame_id, plane)
            self._last = time.monotonic()
            self.masks += 1

        self._try('labels', take)

    def _confidence(self, message: Any) -> None:
        def take() -> None:
            plane = read_plane(message, _ENCODINGS)
            self._painter.masks(self.name).add_confidence(stamp_of(message), plane)

        self._try('confidence', take)

    def _info(self, message: Any) -> None:
        self._painter.calibrate(self.name, read_calibration(message))

    def _legend(self, message: Any) -> None:
        def take() -> None:
            self._painter.palette = read_palette(message.data)

        self._try('label_info_json', take)

    def _try(self, what: str, take: Callable[[], None]) -> None:
        try:
            take()
        except CloudError as error:
            self.bad += 1
            text = f'{self.name}: {what} cannot be used: {error}'
            self._fault = (time.monotonic(), text)
            if self._throttle.admit(what, time.monotonic()) is not None:
                self._node.get_logger().warning(text)
        self._serve()
