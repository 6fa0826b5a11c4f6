# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node: masks and clouds in, labelled clouds out."""

from __future__ import annotations

import dataclasses
import importlib
import time
import traceback
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import QoSProfile, ReliabilityPolicy

from nightseg_ros.clouds.errors import CloudError
from nightseg_ros.clouds.messages import read_pose, stamp_of
from nightseg_ros.clouds.painter import CloudPainter
from nightseg_ros.config import ConfigError
from nightseg_ros.node.clouds.camera import CameraFeed
from nightseg_ros.node.clouds.parameters import PARAMETERS
from nightseg_ros.node.clouds.places import Places
from nightseg_ros.node.clouds.sensor import SensorFeed
from nightseg_ros.node.clouds.settings import CloudSettings
from nightseg_ros.node.diagnostics import node_status
from nightseg_ros.node.health import Throttle, worst
from nightseg_ros.node.managed import ManagedNode
from nightseg_ros.node.status import diagnostic_status

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
        self._settings: CloudSettings | None = None
        self._painter: CloudPainter | None = None
        self._places: Places | None = None
        self._cameras: list[CameraFeed] = []
        self._sensors: dict[str, SensorFeed] = {}
        self._odometry: Any = None
        self._look_timer: Any = None
        self._throttle = Throttle()
        super().__init__('semantic_cloud', PARAMETERS, CloudSettings.from_values, **options)
        self.declared.configured = lambda: self._painter is not None
        self.declared.apply_settings = self._apply_change

    # -- lifecycle ----------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Read the parameters, create the output topics."""
        self._settings = settings = self.declared.settings()
        if settings.odometry:
            _message_type(settings.odometry_type)
        self._places = Places(self, settings.transforms, settings.use_tf)
        self._painter = CloudPainter(settings.paint, self._places.lookup)
        for sensor in settings.sensors:
            self._sensors[sensor.name] = SensorFeed(
                self, sensor, settings, self._painter, self._serve, self._restart
            )

    def _begin(self) -> str:
        """Subscribe."""
        assert self._painter is not None and self._settings is not None
        settings = self._settings
        self._painter.clear()
        for name, topic in zip(settings.paint.cameras, settings.info_topics):
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
        topics = ', '.join(self.resolve_topic_name(s.topic) for s in settings.sensors)
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
        self._places = self._painter = self._settings = None

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
                self._sensors[self._painter.last_sensor].lose('failed', text)
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
            if self._throttle.admit('pose', time.monotonic()) is not None:
                self.get_logger().warning(f'a pose cannot be used: {error}')

    def _apply_change(self, settings: CloudSettings) -> None:
        self._settings = settings
        for feed in self._sensors.values():
            feed.settings = settings
        if self._painter is not None:
            self._painter.config = dataclasses.replace(
                self._painter.config, occlusion=settings.paint.occlusion
            )

    # -- diagnostics --------------------------------------------------------------------------

    def _tick(self) -> None:
        self._busy()
        for camera in self._cameras:
            camera.match()
        for feed in self._sensors.values():
            if feed.following is not None:
                feed.following.match()
        self._report()

    def _report(self) -> None:
        """Publish the state of the node and of its sensors."""
        now = time.monotonic()
        name = self.get_fully_qualified_name().strip('/')
        problems, statuses = self._common_problems(), []
        if self._settings is not None:
            silent = self._settings.silent_after
            for camera in self._cameras:
                problems += camera.problems(now, silent)
            for feed in self._sensors.values():
                if feed.following is None:
                    continue
                source = feed.following.source()
                wrong = feed.health.problems(now, source, silent)
                text = '; '.join(p.text for p in wrong) or feed.health.note or 'waiting'
                statuses.append(diagnostic_status(
                    f'{name}: {feed.sensor.name}', source.topic, worst(wrong), text,
                    feed.health.values(now),
                ))  # fmt: skip
        values = {f'masks.{camera.name}': camera.masks for camera in self._cameras}
        values |= {f'bad_masks.{camera.name}': camera.bad for camera in self._cameras}
        own = node_status(name, self._state_machine.current_state[1], problems, {}, values)
        self._publish_diagnostics([own, *statuses])


def _message_type(kind: str) -> Any:
    """Return the class of ``package/Name``; ``ConfigError`` where it is not installed."""
    package, _, name = kind.partition('/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name)
    except ImportError as error:
        raise ConfigError(f"'odometry_type' is {kind}, but {package} is not installed") from error
