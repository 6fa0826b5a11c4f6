# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The lifecycle node ``semantic_cloud``: masks and clouds in, labelled clouds out.

Sensors and cameras subscribe and keep their health; places of frames come from parameters first,
then from tf2 where it is installed. ``clouds.painter`` does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
import importlib
import math
import time
import traceback
from typing import Any

from nightseg_ros.clouds.geometry import CloudError, FrameTree, Matrix
from nightseg_ros.clouds.painter import CloudPainter, SensorCloud
from nightseg_ros.clouds.point_cloud import read_transform
from nightseg_ros.config import ConfigError
from nightseg_ros.node.diagnostics import CLOUD_DROPS, Health, HealthProblem, Warnings
from nightseg_ros.node.lifecycle import ManagedNode
from nightseg_ros.node.main import serve
from nightseg_ros.node.messages import cloud_message, message_class
from nightseg_ros.node.parameters import CloudSettings, Sensor
from nightseg_ros.node.subscription import OrderedSubscription, Subscription
from nightseg_ros.perception.result import NAMESPACE
import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import String


class SensorFeed:
    """Everything that belongs to one sensor, from configure to cleanup."""

    def __init__(self, node: SemanticCloud, sensor: Sensor) -> None:
        """Create the output topic."""
        self.sensor, self._node = sensor, node
        self.health = self._new_health()
        self._publisher = node.create_lifecycle_publisher(
            PointCloud2,
            f'{sensor.output}/points',
            QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            event_callbacks=PublisherEventCallbacks(use_default_callbacks=False),
        )

    def _new_health(self) -> Health:
        warnings = Warnings(self._node.get_logger(), self.sensor.name)
        return Health(time.monotonic(), drops=CLOUD_DROPS, noun='cloud', warnings=warnings)

    def subscribe(self) -> None:
        """Subscribe."""
        self.health = self._new_health()
        clouds = OrderedSubscription(
            self._node, PointCloud2 if self.sensor.kind == 'cloud' else Image, self.sensor.topic,
            self._receive, self._node.settings.qos_reliability, self.health, self._node.start_over,
        )  # fmt: skip
        self._node.sources.append((self.sensor.name, self.health, clouds))

    def publish(self, cloud: SensorCloud, paint_ms: float) -> None:
        """Hand a labelled cloud to whoever subscribes."""
        self._publisher.publish(cloud_message(cloud))
        now = time.monotonic()
        for camera, (reason, text) in cloud.misses.items():
            self.health.miss(now, f'{camera}.{reason}', text)
        if cloud.early:
            text = 'too many clouds wait for masks or poses: labelled with those that are there'
            self.health.miss(now, 'early', text)
        points, health = len(cloud.cloud), self.health
        share = cloud.labelled / max(points, 1)
        health.counts['served'] += 1
        health.served.append(now)
        health.durations['latency_ms'].append((now - cloud.received) * 1e3)
        health.durations['paint_ms'].append(paint_ms)
        health.note = f'{points} points, {share:.0%} labelled'
        health.shown = {
            'points': points, 'labelled': share, 'hidden': cloud.hidden,
            **{f'mask_later_by_s.{camera}': gap for camera, gap in cloud.gaps_s.items()},
        }  # fmt: skip
        if share > 0:
            health.last_useful = now
        elif (
            cloud.gaps_s and not cloud.hidden and cloud.misses.keys() <= cloud.gaps_s.keys()
            and np.isfinite(cloud.cloud.xyz()).all(axis=0).any()
        ):  # fmt: skip
            text = f'no point got a label, though {", ".join(cloud.gaps_s)} had masks: check the '
            text += 'frames and their transforms'
            health.warn(now, 'unseen', text, log=text)

    def _receive(self, message: Any, stamp: int, now: float) -> None:
        painter, name = self._node.painter, self.sensor.name
        if not stamp:
            text = 'the clouds carry no stamp (0): the driver should set header.stamp'
            self.health.drop(now, 'unstamped', text)
            return
        if not self._publisher.get_subscription_count():
            self.health.drop(now, 'unwanted')
            return
        try:
            if self.sensor.kind == 'cloud':
                painter.take_cloud(name, message, now)
            else:
                painter.take_depth(name, message, now)
        except CloudError as error:
            what = 'cloud' if self.sensor.kind == 'cloud' else 'depth image'
            self.health.drop(now, 'malformed', f'a {what} cannot be used: {error}')
        self._node.serve()


class CameraFeed:
    """Labels, confidence, calibration and colours of one camera, while the node is active."""

    def __init__(self, node: SemanticCloud, name: str, info_topic: str) -> None:
        """Subscribe."""
        self.name, self._node = name, node
        self.masks = 0
        painter, prefix = node.painter, f'{name}/{NAMESPACE}'
        watched = {'labels': painter.take_labels}
        if painter.config.confidence:
            watched['confidence'] = painter.take_confidence
        self._last = dict.fromkeys(watched, time.monotonic())
        topics: list[tuple[Any, str, str, Callable[[Any], None]]] = [
            *(
                (Image, f'{prefix}/{kind}', node.settings.qos_reliability,
                 partial(self._take, kind, take))
                for kind, take in watched.items()
            ),
            (CameraInfo, info_topic, 'auto', partial(painter.take_info, name)),
            (String, f'{prefix}/label_info_json', 'auto', partial(painter.take_legend, name)),
        ]  # fmt: skip
        self._subscriptions = [
            Subscription(node, kind, topic, self._used(topic, take), policy)
            for kind, topic, policy, take in topics
        ]

    @property
    def missed(self) -> int:
        """Return how many masks and confidences were published and never came."""
        return sum(found.missed for found in self._subscriptions[: len(self._last)])

    def problems(self, now: float, silent_after: float) -> list[HealthProblem]:
        """Return what is wrong with this camera's masks: without confidence each cloud waits."""
        for (kind, last), subscription in zip(self._last.items(), self._subscriptions):
            if now - last > silent_after:
                source = subscription.source()
                who = 'nobody publishes' if not source.publishers else 'nothing comes on'
                noun = 'mask' if kind == 'labels' else kind
                text = f'{self.name}: no {noun} for {now - last:.1f} s: {who} {source.topic}'
                return [HealthProblem('ERROR' if kind == 'labels' else 'WARN', text)]
        return []

    def _used(self, topic: str, take: Callable[[Any], None]) -> Callable[[Any], None]:
        return partial(self._node.use, f'{self.name}: {topic.rpartition("/")[2]}', take)

    def _take(self, kind: str, take: Callable[[str, Any], None], message: Any) -> None:
        take(self.name, message)
        self._last[kind] = time.monotonic()
        self.masks += kind == 'labels'


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


#: Seconds between two checks of clouds that may have waited long enough.
CHECK_PERIOD = 0.02


class SemanticCloud(ManagedNode):
    """
    Paints the clouds of its sensors with the labels of its cameras.

    Parameters are read by configure; subscriptions and the publishers' activity live from
    activate to deactivate; cleanup frees everything. All work is done in the executor's thread:
    labelling a cloud takes less time than receiving it.
    """

    def __init__(self, **options: Any) -> None:
        """Declare the parameters; with ``autostart`` the first spin configures and activates."""
        self.painter: Any = None
        """The ``CloudPainter`` from configure to cleanup."""
        self._places: Places | None = None
        self._cameras: list[CameraFeed] = []
        self._sensors: dict[str, SensorFeed] = {}
        self._timer: Any = None
        super().__init__('semantic_cloud', CloudSettings, **options)
        self._inputs = self._new_inputs()

    def _new_inputs(self) -> Health:
        """Return the health of masks, calibrations and poses, whose faults lose no cloud."""
        health = Health(time.monotonic(), drops={}, warnings=Warnings(self.get_logger()))
        health.last_useful = math.inf
        return health

    # -- lifecycle ----------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Create the output topics."""
        settings: CloudSettings = self.settings
        self.refuse_same_topics('cameras', settings.paint.cameras)
        self.refuse_same_topics('sensors', (f'{s.output}/points' for s in settings.point_sources))
        kind = settings.odometry_type
        if settings.odometry and message_class(kind) is None:
            package = kind.partition('/')[0]
            raise ConfigError(f"'odometry_type' is {kind}, but {package} is not installed")
        self._places = Places(self, settings.transforms, settings.use_tf)
        self.painter = CloudPainter(settings.paint, self._places.lookup)
        for sensor in settings.point_sources:
            self._sensors[sensor.name] = SensorFeed(self, sensor)

    def _begin(self) -> str:
        """Subscribe."""
        settings: CloudSettings = self.settings
        self.painter.clear()
        self._inputs = self._new_inputs()
        for name, topic in zip(settings.paint.cameras, settings.calibration_topics):
            self._cameras.append(CameraFeed(self, name, topic))
        for feed in self._sensors.values():
            feed.subscribe()
        if settings.odometry:
            Subscription(
                self, message_class(settings.odometry_type), settings.odometry,
                partial(self.use, 'poses', self.painter.take_pose), 'best_effort', depth=50,
            )  # fmt: skip
        group = MutuallyExclusiveCallbackGroup()
        self._timer = self.create_timer(CHECK_PERIOD, self.serve, group, clock=self._steady)
        topics = ', '.join(self.resolve_topic_name(s.topic) for s in settings.point_sources)
        return f'points on {topics}'

    def stop(self, timeout: float) -> bool:
        """Unsubscribe."""
        if self._timer is not None:
            self.destroy_timer(self._timer)
        self._timer = None
        self.unsubscribe()
        self._cameras = []
        return True

    def _release(self) -> None:
        """Forget the sensors, and stop listening to tf."""
        if self._places is not None:
            self._places.close()
        self._sensors = {}
        self._places = self.painter = None

    # -- work ---------------------------------------------------------------------------------

    def use(self, what: str, take: Callable[[Any], None], message: Any) -> None:
        """Let ``take`` have a message; nothing that is received may end the node."""
        try:
            take(message)
        except Exception as error:
            kind = '' if isinstance(error, CloudError) else f'{type(error).__name__}: '
            text = f'{what} cannot be used: {kind}{error}'
            self._inputs.miss(time.monotonic(), what, text)
        self.serve()

    def serve(self, *, everything: bool = False) -> None:
        """Label and publish what need not wait any longer."""
        if self._timer is None:
            return
        for cloud in self.painter.due(time.monotonic(), everything=everything):
            feed, begun = self._sensors[cloud.sensor], time.monotonic()
            try:
                labelled = self.painter.label(cloud)
                feed.publish(labelled, (time.monotonic() - begun) * 1e3)
            except Exception as error:
                self.get_logger().debug(traceback.format_exc())
                text = f'a cloud is not labelled: {type(error).__name__}: {error}'
                feed.health.drop(time.monotonic(), 'failed', text)

    def start_over(self) -> None:
        """Forget everything that has a stamp, because stamps jumped back."""
        assert self._places is not None
        self.serve(everything=True)
        self.painter.clear()
        self._places.clear()

    def apply_settings(self) -> None:
        """Hide by the new limits."""
        if self.painter is not None:
            self.painter.config = self.settings.paint

    # -- diagnostics --------------------------------------------------------------------------

    def _problems(self, now: float) -> list[HealthProblem]:
        found, settings = super()._problems(now), self.settings
        if settings is not None:
            for camera in self._cameras:
                found += camera.problems(now, settings.silent_after)
        return found + self._inputs.faults(now)

    def _description(self) -> tuple[Mapping[str, Any], Mapping[str, object]]:
        values = {}
        for camera in self._cameras:
            values[f'masks.{camera.name}'] = camera.masks
            values[f'not_received.{camera.name}'] = camera.missed
        counts = self._inputs.counts.copy()
        for camera in self._cameras:
            lead = f'missed.{camera.name}: '
            bad = (count for what, count in counts.items() if what.startswith(lead))
            values[f'bad_masks.{camera.name}'] = sum(bad)
        if (settings := self.settings) is not None and settings.odometry:
            values['bad_poses'] = counts['missed.poses']
        return {}, values


def main() -> None:
    """Run semantic_cloud until SIGINT, SIGTERM or SIGHUP."""
    serve('semantic_cloud', SemanticCloud)


if __name__ == '__main__':
    main()
