# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The part of a camera's picture that shows the own vehicle.

One camera: its subscription, its latest frame, its outputs and its health.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from nightseg_ros.config import ConfigError
from nightseg_ros.files import user_path
from nightseg_ros.node.diagnostics import CameraHealth, Source, Throttle
from nightseg_ros.node.messages import decode, scaled_info
from nightseg_ros.node.parameters import CameraNames, Settings
from nightseg_ros.node.publishers import (
    PICTURES,
    PLANES,
    Outputs,
    label_size,
    refuse_unfit,
    want_of,
)
from nightseg_ros.node.subscription import Following, Intake
from nightseg_ros.node.worker import Waiting, Worker
from nightseg_ros.perception.frame import Frame, FrameError
from nightseg_ros.perception.pipeline import Pipeline
from nightseg_ros.perception.result import Result, Want
from nightseg_ros.taxonomy import UNLABELLED

Plane = npt.NDArray[np.uint8]


class EgoMask:
    """A static mask; its pixels are published as unlabelled."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Read an image file, non-zero on the vehicle; ``ConfigError`` where it is none."""
        file = user_path(path)
        picture = None
        if file.is_file() and file.stat().st_size:
            # OpenCV does not open every name that there is
            picture = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_GRAYSCALE)
        if picture is None:
            raise ConfigError(f"'ego_masks': {file} is no image that can be read")
        self._mask = np.where(np.asarray(picture) != 0, UNLABELLED, 0).astype(np.uint8)
        self._fitted = self._mask

    def at(self, height: int, width: int) -> Plane:
        """Return uint8 [height, width]: 255 on the vehicle, 0 elsewhere."""
        if self._fitted.shape != (height, width):
            self._fitted = np.asarray(
                cv2.resize(self._mask, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8
            )
        return self._fitted

    def cover(self, result: Result) -> Result:
        """Return the result with the vehicle unlabelled, uncertain and uncoloured."""
        if result.labels is None:
            return result
        mask = self.at(*result.labels.shape)
        there = mask != 0
        changes: dict[str, Any] = {'labels': result.labels | mask}
        if result.confidence is not None:
            changes['confidence'] = result.confidence & ~mask
        if result.color is not None:
            changes['color'] = result.color & ~mask[:, :, None]
        if result.overlay is not None:
            image = result.frame.image
            overlay = result.overlay.copy()
            overlay[there] = image[there] if result.frame.order == 'rgb' else image[there][:, ::-1]
            changes['overlay'] = overlay
        return replace(result, **changes)


#: Seconds from a frame's stamp to its arrival above which the stamp is of another day.
LONGEST_WAY = 10.0
_INFO_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class Camera:
    """
    Everything that belongs to one camera, from configure to cleanup.

    ``open`` to ``close`` is the active time. The executor's thread receives, the worker's thread
    decodes and publishes.
    """

    def __init__(
        self, node: Any, names: CameraNames, settings: Settings, pipeline: Pipeline
    ) -> None:
        """Create the output topics; ``ConfigError`` where the ego mask cannot be read."""
        self.name = names.name
        self.names = names
        self.settings = settings
        self.health = CameraHealth(time.monotonic())
        self._node = node
        self._long_side = pipeline.long_side
        self._judged_routes = pipeline.judged_routes
        self._ego = EgoMask(names.ego_mask) if names.ego_mask else None
        self.outputs = Outputs(node, names.output, pipeline.taxonomy)
        self._intake = Intake()
        self._throttle = Throttle()
        self._worker: Worker | None = None
        self._following: Following | None = None
        self._info_subscription: Any = None
        self._info: Any = None
        self._size: tuple[int, int] | None = None
        self._wanted: set[str] = set()

    # -- the executor's thread ----------------------------------------------------------------

    def open(self, worker: Worker) -> None:
        """Subscribe, and hand frames to ``worker`` from now on."""
        self._worker = worker
        self.health = CameraHealth(time.monotonic())
        self._intake = Intake()
        self._size = self._info = None
        self._info_subscription = self._node.create_subscription(
            CameraInfo, self.names.info_topic, self._keep_info, _INFO_QOS,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )  # fmt: skip
        self._following = Following(
            self._node,
            CompressedImage if self.settings.transport == 'compressed' else Image,
            self.names.image_topic,
            self._receive,
            self.settings.qos_reliability,
        )

    def close(self) -> None:
        """Take the subscriptions out of the graph."""
        if self._following is not None:
            self._following.close()
        if self._info_subscription is not None:
            self._node.destroy_subscription(self._info_subscription)
        self._following = self._info_subscription = self._worker = None

    def source(self) -> Source:
        """Return who publishes the images now."""
        if self._following is None:
            return Source(topic=self._node.resolve_topic_name(self.names.image_topic))
        return self._following.source()

    def match(self) -> None:
        """Subscribe anew where the publishers' reliability asks for the other one."""
        if self._following is not None:
            self._following.match()

    def _keep_info(self, info: Any) -> None:
        self._info = info

    def _receive(self, message: Any) -> None:
        now = time.monotonic()
        if self._worker is None:
            return
        stamp_ns = _nanoseconds(message.header.stamp)
        self.health.receive(now, unstamped=not stamp_ns)
        verdict = self._intake.check(stamp_ns, now, self.settings.max_rate)
        if verdict.jump_s:
            self.health.jump(now)
            self._say('jump', f'stamps jumped back by {verdict.jump_s:.1f} s; starting over')
        if verdict.drop:
            self.health.drop(now, verdict.drop)
            return
        waiting = Waiting(self, message, now)
        age = self._age(message.header.stamp)
        # a bag's stamps are years old, and say nothing of the way that a frame came
        if age is not None and 0 <= age < LONGEST_WAY:
            waiting.ms['receive'] = age * 1e3
        if self._worker.mailbox.put(self.name, waiting) is not None:
            self.health.drop(now, 'superseded')

    # -- the worker's thread ------------------------------------------------------------------

    def open_frame(self, waiting: Waiting) -> Frame | None:
        """See ``Client``."""
        header = waiting.message.header
        age = self._age(header.stamp)
        limit = self.settings.max_age
        if limit and age is not None and age > limit:
            text = f'frames are too late: {age:.1f} s old, max_age is {limit:g} s'
            self._lose('too_old', text)
            return None
        try:
            image, order = decode(waiting.message)
        except FrameError as error:
            self._lose('undecodable', f'a frame could not be read: {error}')
            return None
        size = (image.shape[0], image.shape[1])
        if self._size not in (None, size):
            self.health.change_size(time.monotonic())
            assert self._size is not None
            self._say(
                'size',
                f'images changed from {self._size[1]}×{self._size[0]} to {size[1]}×{size[0]}',
            )
        self._size = size
        return Frame(
            image=image,
            order=order,
            # a router needs a clock that runs, also where the camera has none
            stamp_ns=_nanoseconds(header.stamp) or int(waiting.received * 1e9),
            camera=self.name,
            frame_id=header.frame_id,
        )

    def wanted(self) -> Want:
        """See ``Client``."""
        self._wanted = self.outputs.wanted()
        return want_of(self._wanted)

    def publish(self, result: Result, waiting: Waiting) -> None:
        """See ``Client``."""
        header = waiting.message.header
        refuse_unfit(result)
        image = (result.frame.image.shape[0], result.frame.image.shape[1])
        begun = time.monotonic()
        pictures = (*PLANES, *PICTURES)
        computed = [topic for topic in pictures if getattr(result, topic) is not None]
        if self._ego is not None:
            result = self._ego.cover(result)
        labels_at = label_size(image, self.settings.label_size, self._long_side)
        published = self.outputs.publish(
            header,
            result,
            self._wanted,
            labels_at=labels_at,
            info=self._calibration(header, image, labels_at),
            jpeg_quality=self.settings.jpeg_quality,
        )
        done = time.monotonic()
        ms = waiting.ms | result.ms
        ms['publish'] = (done - begun) * 1e3
        ms['total'] = (min(published.values(), default=done) - waiting.received) * 1e3
        if 'status' in self._wanted:
            age = self._age(header.stamp)
            self.outputs.publish_status(header, self.name, result, ms, age)
            published['status'] = time.monotonic()
        light, decision = result.illumination, result.decision
        self.health.note = f'route {decision.route}, {decision.state}, score {light.score:.3f}'
        judged = decision.route in self._judged_routes
        least = self.settings.min_reliability if judged else 0.0
        self.health.trust(done, result.reliability, least)
        self.health.serve(done, ms['total'], computed=computed, published=list(published))
        if decision.switched:
            self._node.get_logger().info(
                f'{self.name}: route {decision.route} now: {decision.reason}'
            )

    def fail(self, reason: str, error: Exception) -> None:
        """See ``Client``."""
        lead = {'failed': 'a frame could not be segmented'}.get(reason, 'a mask is withheld')
        self._lose(reason, f'{lead}: {type(error).__name__}: {error}')

    def _calibration(
        self, header: Any, image: tuple[int, int], labels: tuple[int, int]
    ) -> CameraInfo | None:
        """Return the labels' calibration where somebody wants it and there is one."""
        self.health.info_problem = ''
        if 'camera_info' not in self._wanted:
            return None
        if self._info is None:
            self.health.info_problem = f'no calibration came on {self.names.info_topic}'
            return None
        try:
            return scaled_info(self._info, image, labels, header)
        except ValueError as error:
            self.health.info_problem = str(error)
            return None

    def _age(self, stamp: Any) -> float | None:
        """Return the seconds since ``stamp`` by the node's clock, None for no stamp."""
        stamp_ns = _nanoseconds(stamp)
        now_ns = int(self._node.get_clock().now().nanoseconds)
        return (now_ns - stamp_ns) / 1e9 if stamp_ns else None

    def _lose(self, reason: str, text: str) -> None:
        self.health.drop(time.monotonic(), reason, text)
        self._say(reason, text)

    def _say(self, key: str, text: str) -> None:
        held = self._throttle.admit(key, time.monotonic())
        if held is not None:
            more = f' ({held} more like it since the last word)' if held else ''
            self._node.get_logger().warning(f'{self.name}: {text}{more}')


def _nanoseconds(stamp: Any) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
