# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What belongs to one camera: its topics, its calibration, its ego mask, its health."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
import math
import os
import time
from typing import Any, Literal, NamedTuple, TYPE_CHECKING

import cv2
from nightseg_ros.config import ConfigError
from nightseg_ros.files import user_path
from nightseg_ros.node.diagnostics import Health, Warnings
from nightseg_ros.node.messages import (
    frame_status,
    ImageMessage,
    jpeg_message,
    label_info,
    message_class,
    png_message,
    scaled_info,
    VideoUnpacker,
)
from nightseg_ros.node.subscription import OrderedSubscription, Subscription
from nightseg_ros.perception.frame import BitDepth
from nightseg_ros.perception.result import legend, Result, TRANSPORTS, Want
from nightseg_ros.runtime.pixels import fit
from nightseg_ros.taxonomy import UNLABELLED
import numpy as np
import numpy.typing as npt
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Float32, String

if TYPE_CHECKING:
    from nightseg_ros.node.parameters import CameraNames, Settings
    from nightseg_ros.perception.pipeline import Pipeline

Pixels = npt.NDArray[np.uint8]


class OutputTopic(NamedTuple):
    """One topic under ``<camera>/nightseg/``."""

    name: str
    kind: str
    """Package and type."""
    text: str
    latched: bool = False
    """Whether late subscribers get the last message (transient local)."""


_IMAGE, _COMPRESSED = TRANSPORTS['raw'], TRANSPORTS['compressed']
#: In the order of publishing: what a planner waits for comes first.
TOPICS = (
    OutputTopic('labels', _IMAGE, 'mono8: the id of each pixel, 255 unlabelled'),
    OutputTopic('labels/compressed', _COMPRESSED,
                'the same as PNG, `mono8; png compressed mono8`'),
    OutputTopic('confidence', _IMAGE, 'mono8: softmax of the winning class, 0 to 255'),
    OutputTopic('camera_info', 'sensor_msgs/CameraInfo', "the input's, scaled with the labels"),
    OutputTopic('color', _IMAGE, 'rgb8: the labels in the colours of their classes'),
    OutputTopic('overlay', _IMAGE, 'rgb8: the colours over the picture'),
    OutputTopic('overlay/compressed', _COMPRESSED,
                'the same as JPEG, `rgb8; jpeg compressed bgr8`'),
    OutputTopic('translated', _IMAGE, 'rgb8: what the route translate makes of the night'),
    OutputTopic('illumination', 'std_msgs/Float32', '0 (dark) to 1 (daylight), for plotting'),
    OutputTopic('status', 'diagnostic_msgs/DiagnosticArray',
                'of each frame: score, state, route, reason, reliability, latency by stage, age'),
    OutputTopic('label_info', 'vision_msgs/LabelInfo',
                'names of the ids, where vision_msgs is installed', latched=True),
    OutputTopic('label_info_json', 'std_msgs/String', 'names and colours of the ids as JSON',
                latched=True),
)  # fmt: skip
#: Pictures of a result, and the encoding of their messages.
PICTURES: dict[str, Literal['mono8', 'rgb8']] = {
    'labels': 'mono8', 'confidence': 'mono8', 'color': 'rgb8', 'overlay': 'rgb8',
    'translated': 'rgb8',
}  # fmt: skip


class CameraTopics:
    """
    One camera's subscriptions and publishers, from configure to cleanup.

    From ``subscribe`` on the executor's thread receives; all that is published and ``size`` belong
    to the worker's thread.
    """

    def __init__(self, node: Any, names: CameraNames, pipeline: Pipeline) -> None:
        """Create the output topics; ``ConfigError`` where the ego mask cannot be read."""
        self.names = names
        self.routes_with_reliability = pipeline.routes_with_reliability
        self.size: tuple[int, int] | None = None
        """Height and width of the last image."""
        self._node, self._long_side, self._taxonomy = node, pipeline.long_side, pipeline.taxonomy
        self._ego = EgoMask(names.ego_mask) if names.ego_mask else None
        self._warnings = Warnings(node.get_logger(), names.name)
        self._info: Any = None
        kind = TRANSPORTS[node.settings.transport]
        self._kind = message_class(kind)
        if self._kind is None:
            raise ConfigError(
                f"'transport' is {node.settings.transport}, but {kind.partition('/')[0]} is not "
                'installed: install it, or source the workspace that has it'
            )
        self._messages = {name: ImageMessage(encoding) for name, encoding in PICTURES.items()}
        self._publishers: dict[str, Any] = {}
        for topic in TOPICS:
            message_type = message_class(topic.kind)
            if message_type is None:
                continue
            durability = 'TRANSIENT_LOCAL' if topic.latched else 'VOLATILE'
            self._publishers[topic.name] = node.create_lifecycle_publisher(
                message_type,
                f'{names.output}/{topic.name}',
                QoSProfile(
                    depth=1,
                    reliability=ReliabilityPolicy.RELIABLE,
                    durability=DurabilityPolicy[durability],
                ),
                # a user's override must not take the legend from late subscribers
                qos_overriding_options=None
                if topic.latched
                else QoSOverridingOptions.with_default_policies(),
                # each handler would be waited on in every spin of the executor
                event_callbacks=PublisherEventCallbacks(use_default_callbacks=False),
            )
        self._reset()

    def _reset(self) -> None:
        self.health = Health(time.monotonic(), warnings=self._warnings)
        self.health.counts['size_changes'] = 0
        self.health.shown['reliability'] = 'unknown'
        self.size = self._info = None
        self.encoding, self.bit_depth = '', BitDepth()

    def subscribe(self, put: Callable[[CameraTopics, Any, int, float], None]) -> None:
        """
        Publish what the ids mean, and subscribe.

        ``put`` is called with this camera, each image, its stamp and its arrival.
        """
        self._reset()
        self._publishers['label_info_json'].publish(String(data=legend(self._taxonomy)))
        if 'label_info' in self._publishers:
            stamp = self._node.get_clock().now().to_msg()
            self._publishers['label_info'].publish(label_info(self._taxonomy, stamp))

        def keep_info(info: Any) -> None:
            self._info = info

        Subscription(self._node, CameraInfo, self.names.info_topic, keep_info)
        settings = self._node.settings
        images = OrderedSubscription(
            self._node, self._kind, self.names.image_topic, partial(put, self),
            settings.qos_reliability, self.health, unpack=VideoUnpacker(),
            # of pictures the latest will do, but each packet of a video counts
            depth=1 if settings.transport == 'raw' else 30,
        )  # fmt: skip
        self._node.sources.append((self.names.name, self.health, images))

    # -- the worker's thread ------------------------------------------------------------------

    def wanted(self) -> tuple[set[str], Want]:
        """Return the topics that have subscribers, and the pictures that they need."""
        topics = {
            topic
            for topic, publisher in self._publishers.items()
            if publisher.get_subscription_count()
        }
        pictures = {topic.removesuffix('/compressed') for topic in topics}
        return topics, Want(**{picture: picture in pictures for picture in PICTURES})

    def publish(
        self, header: Any, result: Result, wanted: set[str], settings: Settings
    ) -> dict[str, float]:
        """
        Publish everything wanted but the status, under the input's ``header``.

        Return the topics published and when each was handed over (``time.monotonic``).
        ``ValueError`` is raised where a picture is not what its message would promise.
        """
        image = (result.frame.image.shape[0], result.frame.image.shape[1])
        for picture in check_pictures(result):
            self.health.counts[f'computed.{picture}'] += 1
        if self._ego is not None:
            result = self._ego.cover(result)
        labels = image
        if settings.label_size == 'network':
            # never more than the camera has seen
            labels = min(image, fit(*image, self._long_side).labels)
        done: dict[str, float] = {}
        for topic, publisher in self._publishers.items():
            if topic not in wanted:
                continue
            try:
                message = self._message(topic, header, result, image, labels, settings)
                if message is not None:
                    publisher.publish(message)
                    done[topic] = time.monotonic()
            except Exception as error:
                if not done.keys() & {'labels', 'labels/compressed'}:
                    raise
                # the mask is out, and the frame served
                text = f'{topic} was not published: {type(error).__name__}: {error}'
                self.health.warn(time.monotonic(), 'unpublished', text, log=text)
        if 'camera_info' not in wanted:
            self.health.info_problem = ''
        return done

    def _message(
        self, topic: str, header: Any, result: Result, image: tuple[int, int],
        labels: tuple[int, int], settings: Settings,
    ) -> Any:  # fmt: skip
        """Return the message of a topic, None where there is none; sizes are (height, width)."""
        name, _, compressed = topic.partition('/')
        pixels = getattr(result, name) if name in PICTURES else None
        if pixels is not None:
            if pixels.ndim == 2:
                pixels = sampled(pixels, labels)
            if not compressed:
                return self._messages[name].fill(header, pixels)
            if pixels.ndim == 2:
                return png_message(header, pixels)
            return jpeg_message(header, pixels, settings.jpeg_quality)
        if topic == 'camera_info':
            return self._calibration(header, image, labels)
        if topic == 'illumination' and math.isfinite(result.illumination.score):
            return Float32(data=result.illumination.score)
        return None

    def publish_status(
        self, header: Any, result: Result, ms: dict[str, float], age_s: float | None
    ) -> None:
        """Publish what became of the frame."""
        status = frame_status(header, self.names.name, result, ms, age_s)
        self._publishers['status'].publish(status)

    def _calibration(
        self, header: Any, image: tuple[int, int], labels: tuple[int, int]
    ) -> CameraInfo | None:
        """
        Return the calibration of the labels, None where there is none that fits.

        Both sizes are (height, width).
        """
        try:
            if self._info is None:
                raise ValueError(f'no calibration came on {self.names.info_topic}')
            info = scaled_info(self._info, image, labels, header)
        except ValueError as error:
            self.health.info_problem = str(error)
            return None
        self.health.info_problem = ''
        return info


def check_pictures(result: Result) -> list[str]:
    """Return the pictures that were computed; ``ValueError`` where one is no uint8 [H, W(, 3)]."""
    size = result.frame.image.shape[:2]
    computed = [name for name in PICTURES if getattr(result, name) is not None]
    for name in computed:
        picture = getattr(result, name)
        shape = size if PICTURES[name] == 'mono8' else (*size, 3)
        if picture.shape != shape or picture.dtype != np.uint8:
            raise ValueError(
                f'{name} is {picture.dtype} {picture.shape}, the frame needs uint8 {shape}'
            )
    return computed


def sampled(plane: Pixels, size: tuple[int, int]) -> Pixels:
    """
    Return uint8 [h, w] of uint8 [H, W], each pixel's centre looked up; ``size`` is (h, w).

    Where H ≥ h and W ≥ w, this undoes the pipeline's enlargement of the network's labels exactly.
    """
    if plane.shape == size:
        return plane
    rows, columns = (
        (2 * np.arange(count) + 1) * length // (2 * count)
        for length, count in zip(plane.shape, size)
    )
    return np.ascontiguousarray(plane[rows[:, None], columns])


class EgoMask:
    """Which part of a camera's image shows the own vehicle; it is published as unlabelled."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """
        Read an image file, non-zero on the vehicle.

        ``ConfigError`` is raised where it cannot be read, or shows no vehicle, or nothing else.
        """
        file = user_path(path)
        image = None
        if file.is_file() and file.stat().st_size:
            # OpenCV does not open every name that there is
            image = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise ConfigError(f"'ego_masks': {file} is no image that can be read")
        own = np.asarray(image) != 0
        if own.all() or not own.any():
            share = 'all' if own.all() else 'none'
            raise ConfigError(
                f"'ego_masks': {share} of {file} is non-zero; wanted are non-zero pixels where "
                'the own vehicle is seen, and 0 elsewhere'
            )
        self._mask = self._fitted = np.where(own, UNLABELLED, 0).astype(np.uint8)

    def at(self, height: int, width: int) -> Pixels:
        """Return uint8 [height, width]: 255 on the vehicle; ``ValueError`` for another shape."""
        if self._fitted.shape != (height, width):
            rows, columns = self._mask.shape
            across, down = width / columns, height / rows
            # but for roundings
            if abs(rows * width - columns * height) > rows + columns + height + width:
                if not 0.98 < across / down < 1.02:
                    raise ValueError(
                        f'the ego mask has {columns}×{rows} pixels, the image {width}×{height}: '
                        'they are of another shape'
                    )
                # a codec pads on the right and below
                across = down = 1.0 if 1.0 in (across, down) else min(across, down)
            seen = round(columns * across), round(rows * down)
            fitted = cv2.resize(self._mask, seen, interpolation=cv2.INTER_NEAREST)
            more = 0, max(height - seen[1], 0), 0, max(width - seen[0], 0)
            fitted = cv2.copyMakeBorder(fitted, *more, cv2.BORDER_REPLICATE)[:height, :width]
            self._fitted = np.ascontiguousarray(fitted, np.uint8)
        return self._fitted

    def cover(self, result: Result) -> Result:
        """Return the result with the vehicle unlabelled, uncertain and, in place, uncoloured."""
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
            own = result.frame.image[there]
            result.overlay[there] = own if result.frame.order == 'rgb' else own[:, ::-1]
        return replace(result, **changes)
