# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""One LiDAR or depth camera: its subscription, its output and its health."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.event_handler import PublisherEventCallbacks
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image, PointCloud2

from nightseg_ros.clouds.depth import metres
from nightseg_ros.clouds.errors import CloudError
from nightseg_ros.clouds.messages import stamp_of
from nightseg_ros.clouds.painter import CloudPainter, LabelledCloud
from nightseg_ros.node.clouds.health import CloudHealth
from nightseg_ros.node.clouds.point_cloud2 import cloud_message, read_message
from nightseg_ros.node.clouds.settings import CloudSettings, Sensor
from nightseg_ros.node.following import Following
from nightseg_ros.node.health import Throttle
from nightseg_ros.node.intake import Intake


class SensorFeed:
    """Everything that belongs to one sensor, from configure to cleanup."""

    def __init__(
        self, node: Any, sensor: Sensor, settings: CloudSettings, painter: CloudPainter,
        serve: Callable[[], None], restart: Callable[[], None],
    ) -> None:  # fmt: skip
        """
        Create the output topic.

        ``serve`` is called when a cloud has come, ``restart`` when its stamps jump back.
        """
        self.sensor = sensor
        self.settings = settings
        self.health = CloudHealth(time.monotonic())
        self.following: Following | None = None
        self._node, self._painter, self._serve = node, painter, serve
        self._restart = restart
        self._intake = Intake()
        self._throttle = Throttle()
        self._publisher = node.create_lifecycle_publisher(
            PointCloud2,
            f'{sensor.output}/points',
            QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            event_callbacks=PublisherEventCallbacks(use_default_callbacks=False),
        )

    def open(self) -> None:
        """Subscribe."""
        self.health = CloudHealth(time.monotonic())
        self._intake = Intake()
        self.following = Following(
            self._node, PointCloud2 if self.sensor.kind == 'cloud' else Image, self.sensor.topic,
            self._receive, self.settings.qos_reliability,
        )  # fmt: skip

    def close(self) -> None:
        """Take the subscription out of the graph."""
        if self.following is not None:
            self.following.close()
        self.following = None

    def destroy(self) -> None:
        """Take the output out of the graph."""
        self._node.destroy_lifecycle_publisher(self._publisher)

    def publish(self, labelled: LabelledCloud, paint_ms: float) -> None:
        """Hand a labelled cloud to whoever subscribes."""
        self._publisher.publish(cloud_message(labelled))
        self.health.serve(time.monotonic(), labelled, paint_ms)
        for camera, (reason, text) in labelled.misses.items():
            self.say(f'{camera}.{reason}', text)

    def lose(self, reason: str, text: str) -> None:
        """Count and say that a cloud is lost, ``reason`` being a key of ``health.DROPS``."""
        self.health.drop(time.monotonic(), reason, text)
        self.say(reason, text)

    def say(self, key: str, text: str) -> None:
        """Log what recurs, once and then now and again."""
        held = self._throttle.admit(key, time.monotonic())
        if held is not None:
            more = f' ({held} more like it since the last word)' if held else ''
            self._node.get_logger().warning(f'{self.sensor.name}: {text}{more}')

    def _receive(self, message: Any) -> None:
        now = time.monotonic()
        self.health.receive(now)
        stamp = stamp_of(message)
        if not stamp:
            text = 'the clouds carry no stamp (0): the driver should set header.stamp'
            self.lose('unstamped', text)
            return
        verdict = self._intake.check(stamp, now, self.settings.max_rate)
        if verdict.jump_s:
            self.health.jumps += 1
            self.say('jump', f'stamps jumped back by {verdict.jump_s:.1f} s; starting over')
            self._restart()
        if verdict.drop:
            self.health.drop(now, verdict.drop)
            return
        if not self._publisher.get_subscription_count():
            self.health.drop(now, 'unwanted')
            return
        try:
            if self._take(message, stamp, now):
                self.health.drop(now, 'superseded')
        except CloudError as error:
            what = 'cloud' if self.sensor.kind == 'cloud' else 'depth image'
            self.lose('malformed', f'a {what} cannot be used: {error}')
        self._serve()

    def _take(self, message: Any, stamp: int, now: float) -> bool:
        name, frame_id = self.sensor.name, message.header.frame_id
        if self.sensor.kind == 'cloud':
            return self._painter.add_cloud(name, stamp, frame_id, read_message(message), now)
        return self._painter.add_depth(name, stamp, frame_id, metres(message), now)
