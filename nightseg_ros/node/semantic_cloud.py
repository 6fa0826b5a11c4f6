# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The lifecycle node ``semantic_cloud``: masks and clouds in, labelled clouds out.

Sensors and cameras subscribe and keep their health; places of frames come from parameters first,
then from tf2 where it is installed. ``clouds.painter`` does the work.
"""

from __future__ import annotations

import dataclasses
import importlib
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import String

from nightseg_ros.clouds.geometry import CloudError, FrameTree, Matrix
from nightseg_ros.clouds.painter import CloudPainter, LabelledCloud
from nightseg_ros.clouds.point_cloud import (
    metres,
    read_calibration,
    read_palette,
    read_plane,
    read_pose,
    read_transform,
    stamp_of,
)
from nightseg_ros.config import ConfigError
from nightseg_ros.node.diagnostics import (
    CLOUD_DROPS,
    RECOVERY,
    Health,
    HealthProblem,
    Warnings,
)
from nightseg_ros.node.lifecycle import ManagedNode
from nightseg_ros.node.main import serve
from nightseg_ros.node.messages import cloud_message, read_message
from nightseg_ros.node.parameters import CloudSettings, Sensor
from nightseg_ros.node.subscription import OrderedSubscription, Subscription
from nightseg_ros.perception.result import NAMESPACE
from nightseg_ros.taxonomy import UNLABELLED


class SensorFeed:
    """Everything that belongs to one sensor, from configure to cleanup."""

    def __init__(
        self, node: Any, sensor: Sensor, painter: CloudPainter,
        serve: Callable[[], None], restart: Callable[[], None],
    ) -> None:  # fmt: skip
        """
        Create the output topic.

        ``serve`` is called when a cloud has come, ``restart`` when its stamps jump back.
        """
        self.sensor = sensor
        self.warnings = Warnings(node.get_logger(), sensor.name)
        self.health = self._new_health()
        self.clouds: OrderedSubscription | None = None
        self._node, self._painter, self._serve = node, painter, serve
        self._restart = restart
        self._publisher = node.create_lifecycle_publisher(
            PointCloud2,
            f'{sensor.output}/points',
            QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            event_callbacks=PublisherEventCallbacks(use_default_callbacks=False),
        )

    def _new_health(self) -> Health:
        return Health(time.monotonic(), drops=CLOUD_DROPS, noun='cloud', warnings=self.warnings)

    def open(self) -> None:
        """Subscribe."""
        self.health = self._new_health()
        self.clouds = OrderedSubscription(
            self._node, PointCloud2 if self.sensor.kind == 'cloud' else Image, self.sensor.topic,
            self._receive, self._node.settings.qos_reliability, self.health, self._restart,
        )  # fmt: skip

    def close(self) -> None:
        """Take the subscription out of the graph."""
        if self.clouds is not None:
            self.clouds.close()
        self.clouds = None

    def destroy(self) -> None:
        """Take the output out of the graph."""
        self._node.destroy_lifecycle_publisher(self._publisher)

    def publish(self, labelled: LabelledCloud, paint_ms: float) -> None:
        """Hand a labelled cloud to whoever subscribes."""
        self._publisher.publish(cloud_message(labelled))
        now = time.monotonic()
        for camera, (reason, text) in labelled.misses.items():
            self.health.miss(now, f'{camera}.{reason}', text)
        labels = labelled.painted.labels
        share = float((labels != UNLABELLED).mean()) if len(labels) else 0.0
        health = self.health
        health.counts['served'] += 1
        health.served.append(now)
        health.durations['latency_ms'].append((now - labelled.received) * 1e3)
        health.durations['paint_ms'].append(paint_ms)
        health.note = f'{len(labels)} points, {share:.0%} labelled'
        health.shown |= {
            'points': len(labels),
            'labelled': share,
            'hidden': sum(labelled.painted.hidden),
            **{f'mask_later_by_s.{camera}': gap for camera, gap in labelled.gaps_s.items()},
        }
        if share > 0:
            health.last_useful = now

    def _receive(self, message: Any, stamp: int, now: float) -> None:
        if not stamp:
            text = 'the clouds carry no stamp (0): the driver should set header.stamp'
            self.health.drop(now, 'unstamped', text)
            return
        if not self._publisher.get_subscription_count():
            self.health.drop(now, 'unwanted')
            return
        try:
            if self._take(message, stamp, now):
                self.health.drop(now, 'superseded')
        except CloudError as error:
            what = 'cloud' if self.sensor.kind == 'cloud' else 'depth image'
            self.health.drop(now, 'malformed', f'a {what} cannot be used: {error}')
        self._serve()

    def _take(self, message: Any, stamp: int, now: float) -> bool:
        name, frame_id = self.sensor.name, message.header.frame_id
        if self.sensor.kind == 'cloud':
            return self._painter.add_cloud(name, stamp, frame_id, read_message(message), now)
        return self._painter.add_depth(name, stamp, frame_id, metres(message), now)


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
        self._warnings = Warnings(node.get_logger(), name)
        self._last = self._started = time.monotonic()
        self._fault: tuple[float, str] = (-1e9, '')
        prefix = f'{name}/{NAMESPACE}'
        self.labels = Subscription(node, Image, f'{prefix}/labels', self._labels, reliability)
        self._planes = [self.labels]
        if painter.config.confidence:
            self._planes.append(
                Subscription(node, Image, f'{prefix}/confidence', self._confidence, reliability)
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
        for plane in self._planes:
            plane.close()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def match(self) -> None:
        """Follow the publishers' reliability."""
        for plane in self._planes:
            plane.match()

    def problems(self, now: float, silent_after: float) -> list[HealthProblem]:
        """Return what is wrong with this camera's masks."""
        found = []
        if now - self._last > silent_after:
            source = self.labels.source()
            who = 'nobody publishes' if not source.publishers else 'nothing comes on'
            text = f'{self.name}: no mask for {now - self._last:.1f} s: {who} {source.topic}'
            found.append(HealthProblem('ERROR', text))
        if now - self._fault[0] < RECOVERY:
            found.append(HealthProblem('WARN', f'{self._fault[1]} ({self.bad} so far)'))
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
            self._warnings.log(what, f'{what} cannot be used: {error}')
        self._serve()


class Places:
    """Answers ``lookup`` from configure to cleanup."""

    def __init__(self, node: Any, transforms: tuple[str, ...], use_tf: bool) -> None:
        """Take the static transforms, and listen to tf where it may be asked."""
        self._static = FrameTree()
        for text in transforms:
            self._static.add_text(text)
        self._tf2: Any = None
        self._buffer: Any = None
        self._listener: Any = None
        self.hint = 'give their places in the parameter transforms'
        if not use_tf:
            return
        try:
            self._tf2 = importlib.import_module('tf2_ros')
        except ImportError:
            self.hint = f'tf2_ros is not installed: {self.hint}'
            return
        self._buffer = self._tf2.Buffer()
        self._listener = self._tf2.TransformListener(self._buffer, node)
        self.hint = f'publish their places on /tf_static, or {self.hint}'

    def lookup(self, target: str, source: str, stamp_ns: int) -> Matrix:
        """Return target_from_source at a stamp; ``CloudError`` says what to do about it."""
        try:
            return self._static.lookup(target, source)
        except CloudError as error:
            if self._buffer is None:
                raise CloudError(f'{error}; {self.hint}') from error
        try:
            # tf2 refuses the slash that ROS 1 had before frames
            found = self._buffer.lookup_transform(
                target.strip('/'), source.strip('/'), Time(nanoseconds=stamp_ns)
            )
        except self._tf2.TransformException as error:
            raise CloudError(f"tf: '{source}' to '{target}': {error}; {self.hint}") from error
        return read_transform(found)

    def clear(self) -> None:
        """Forget what moves, as when stamps start over: tf2 takes nothing older than it has."""
        if self._buffer is not None:
            self._buffer.clear()

    def close(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.unregister()
        self._listener = self._buffer = None


#: Seconds between two looks at clouds that may have waited long enough.
LOOK_PERIOD = 0.02


class SemanticCloud(ManagedNode):
    """
    Paints the clouds of its sensors with the labels of its cameras.

    Parameters are read by configure; subscriptions and the publishers' activity live from
    activate to deactivate; cleanup frees everything. All work is done in the executor's thread:
    labelling a cloud takes less time than receiving it.
    """

    def __init__(self, **options: Any) -> None:
        """Declare the parameters; with ``autostart`` the first spin configures and activates."""
        self._painter: CloudPainter | None = None
        self._places: Places | None = None
        self._cameras: list[CameraFeed] = []
        self._sensors: dict[str, SensorFeed] = {}
        self._odometry: Any = None
        self._look_timer: Any = None
        super().__init__('semantic_cloud', CloudSettings, **options)
        self._warnings = Warnings(self.get_logger())

    # -- lifecycle ----------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Create the output topics."""
        settings: CloudSettings = self.settings
        if settings.odometry:
            _message_type(settings.odometry_type)
        self._places = Places(self, settings.transforms, settings.use_tf)
        self._painter = CloudPainter(settings.paint, self._places.lookup)
        for sensor in settings.point_sources:
            self._sensors[sensor.name] = SensorFeed(
                self, sensor, self._painter, self._serve, self._restart
            )

    def _begin(self) -> str:
        """Subscribe."""
        assert self._painter is not None
        settings: CloudSettings = self.settings
        self._painter.clear()
        for name, topic in zip(settings.paint.cameras, settings.calibration_topics):
            self._cameras.append(CameraFeed(
                self, name, topic, settings.qos_reliability, self._painter, self._serve
            ))  # fmt: skip
        for feed in self._sensors.values():
            feed.open()
        if settings.odometry:
            self._odometry = self.create_subscription(
                _message_type(settings.odometry_type), settings.odometry, self._pose,
                QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT),
                callback_group=MutuallyExclusiveCallbackGroup(),
            )  # fmt: skip
        self._look_timer = self.create_timer(
            LOOK_PERIOD, self._serve, MutuallyExclusiveCallbackGroup(), clock=self._steady
        )
        topics = ', '.join(self.resolve_topic_name(s.topic) for s in settings.point_sources)
        return f'points on {topics}'

    def _end(self, timeout: float) -> bool:
        """Unsubscribe."""
        if self._look_timer is not None:
            self.destroy_timer(self._look_timer)
        if self._odometry is not None:
            self.destroy_subscription(self._odometry)
        self._look_timer = self._odometry = None
        for camera in self._cameras:
            camera.close()
        self._cameras = []
        for feed in self._sensors.values():
            feed.close()
        return True

    def _release(self) -> None:
        """Free the output topics."""
        for feed in self._sensors.values():
            feed.destroy()
        if self._places is not None:
            self._places.close()
        self._sensors = {}
        self._places = self._painter = None

    # -- work ---------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Label and publish what need not wait any longer."""
        if self._painter is None or self._look_timer is None:
            return
        while True:
            begun = time.monotonic()
            try:
                labelled = next(self._painter.due(begun), None)
            except Exception as error:
                self.get_logger().debug(traceback.format_exc())
                text = f'a cloud is not labelled: {type(error).__name__}: {error}'
                health = self._sensors[self._painter.last_sensor].health
                health.drop(time.monotonic(), 'failed', text)
                continue
            if labelled is None:
                return
            took = (time.monotonic() - begun) * 1e3
            self._sensors[labelled.sensor].publish(labelled, took)

    def _restart(self) -> None:
        """Forget everything that has a stamp: stamps start over."""
        assert self._painter is not None and self._places is not None
        self._painter.clear()
        self._places.clear()

    def _pose(self, message: Any) -> None:
        assert self._painter is not None
        try:
            self._painter.poses.add(stamp_of(message), read_pose(message))
        except CloudError as error:
            self._warnings.log('pose', f'a pose cannot be used: {error}')

    def apply_settings(self) -> None:
        """Hide by the new limits."""
        if self._painter is not None and self.settings is not None:
            self._painter.config = dataclasses.replace(
                self._painter.config, occlusion=self.settings.paint.occlusion
            )

    # -- diagnostics --------------------------------------------------------------------------

    def _tick(self) -> None:
        for camera in self._cameras:
            camera.match()
        super()._tick()

    def _problems(self, now: float) -> list[HealthProblem]:
        found, settings = super()._problems(now), self.settings
        if settings is not None:
            for camera in self._cameras:
                found += camera.problems(now, settings.silent_after)
        return found

    def _description(self) -> tuple[Mapping[str, Any], Mapping[str, object]]:
        values = {f'masks.{camera.name}': camera.masks for camera in self._cameras}
        values |= {f'bad_masks.{camera.name}': camera.bad for camera in self._cameras}
        return {}, values

    def _sources(self) -> Sequence[tuple[str, Health, Subscription]]:
        feeds = self._sensors.values()
        return [(f.sensor.name, f.health, f.clouds) for f in feeds if f.clouds is not None]


def _message_type(kind: str) -> Any:
    """Return the class of ``package/Name``; ``ConfigError`` where it is not installed."""
    package, _, name = kind.partition('/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name)
    except ImportError as error:
        raise ConfigError(f"'odometry_type' is {kind}, but {package} is not installed") from error


def main() -> None:
    """Run semantic_cloud until SIGINT or SIGTERM."""

    def make() -> Any:
        from nightseg_ros.node.semantic_cloud import SemanticCloud

        return SemanticCloud()

    serve(make)


if __name__ == '__main__':
    main()
