# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Every topic of a camera, in one table, with the types by name.

``python -m nightseg_ros.node.publishers`` prints the README's table.

One camera's output topics: who subscribes, and what they get.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float32, String

from nightseg_ros.node.diagnostics import frame_status
from nightseg_ros.node.messages import (
    ImageMessage,
    jpeg_message,
    label_info,
    label_info_json,
    png_message,
    vision_msgs,
)
from nightseg_ros.perception.result import Result, Want
from nightseg_ros.runtime.pixels import fit
from nightseg_ros.taxonomy import Taxonomy


@dataclass(frozen=True, kw_only=True, slots=True)
class Topic:
    """One topic under ``<camera>/nightseg/``."""

    name: str
    kind: str
    """Package and type."""
    text: str
    latched: bool = False
    """Whether late subscribers get the last message (transient local)."""


#: In the order of publishing: what a planner waits for comes first.
TOPICS: tuple[Topic, ...] = (
    Topic(name='labels', kind='sensor_msgs/Image',
          text='mono8: the id of each pixel, 255 unlabelled'),
    Topic(name='labels/compressed', kind='sensor_msgs/CompressedImage',
          text='the same as PNG, `mono8; png compressed mono8`'),
    Topic(name='confidence', kind='sensor_msgs/Image',
          text='mono8: softmax of the winning class, 0 to 255'),
    Topic(name='camera_info', kind='sensor_msgs/CameraInfo',
          text="the input's, scaled with the labels"),
    Topic(name='color', kind='sensor_msgs/Image',
          text='rgb8: the labels in the colours of their classes'),
    Topic(name='overlay', kind='sensor_msgs/Image', text='rgb8: the colours over the picture'),
    Topic(name='overlay/compressed', kind='sensor_msgs/CompressedImage',
          text='the same as JPEG, `rgb8; jpeg compressed bgr8`'),
    Topic(name='translated', kind='sensor_msgs/Image',
          text='rgb8: what the route translate makes of the night'),
    Topic(name='illumination', kind='std_msgs/Float32',
          text='0 (dark) to 1 (daylight), for plotting'),
    Topic(name='status', kind='diagnostic_msgs/DiagnosticArray',
          text='of each frame: score, state, route, reason, reliability, latency by stage, age'),
    Topic(name='label_info', kind='vision_msgs/LabelInfo', latched=True,
          text='names of the ids, where vision_msgs is installed'),
    Topic(name='label_info_json', kind='std_msgs/String', latched=True,
          text='names and colours of the ids as JSON'),
)  # fmt: skip


def markdown() -> str:
    """Return the README's table."""
    rows = ['| Topic under `<camera>/nightseg/` | Type | Content |', '|---|---|---|']
    for topic in TOPICS:
        latched = ' (transient local)' if topic.latched else ''
        rows.append(f'| `{topic.name}` | {topic.kind} | {topic.text}{latched} |')
    return '\n'.join(rows) + '\n'


Plane = npt.NDArray[np.uint8]

PLANES = ('labels', 'confidence')
PICTURES = ('color', 'overlay', 'translated')
_KINDS: dict[str, Any] = {
    'sensor_msgs/Image': Image,
    'sensor_msgs/CompressedImage': CompressedImage,
    'sensor_msgs/CameraInfo': CameraInfo,
    'std_msgs/Float32': Float32,
    'diagnostic_msgs/DiagnosticArray': DiagnosticArray,
    'std_msgs/String': String,
}


def _qos(durability: DurabilityPolicy) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=durability,
    )


class Outputs:
    """The publishers of one camera, from configure to cleanup."""

    def __init__(self, node: Any, prefix: str, taxonomy: Taxonomy) -> None:
        """Create them under ``prefix``; they are silent until the node is active."""
        self._node = node
        self._taxonomy = taxonomy
        self._publishers = {
            topic.name: node.create_lifecycle_publisher(
                _KINDS[topic.kind],
                f'{prefix}/{topic.name}',
                _qos(DurabilityPolicy.VOLATILE),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
                # each handler would be waited on in every spin of the executor
                event_callbacks=PublisherEventCallbacks(use_default_callbacks=False),
            )
            for topic in TOPICS
            if not topic.latched
        }
        self._vision = vision_msgs()
        kinds = dict(_KINDS)
        if self._vision is not None:
            kinds['vision_msgs/LabelInfo'] = self._vision.LabelInfo
        self._latched = {
            topic.name: node.create_lifecycle_publisher(
                kinds[topic.kind],
                f'{prefix}/{topic.name}',
                _qos(DurabilityPolicy.TRANSIENT_LOCAL),
                event_callbacks=PublisherEventCallbacks(use_default_callbacks=False),
            )
            for topic in TOPICS
            if topic.latched and topic.kind in kinds
        }
        self._messages = {
            **{topic: ImageMessage('mono8') for topic in PLANES},
            **{topic: ImageMessage('rgb8') for topic in PICTURES},
        }

    def announce(self) -> None:
        """Publish what the ids mean, for early and late subscribers alike."""
        self._latched['label_info_json'].publish(label_info_json(self._taxonomy))
        if self._vision is not None:
            stamp = self._node.get_clock().now().to_msg()
            self._latched['label_info'].publish(label_info(self._taxonomy, self._vision, stamp))

    def wanted(self) -> set[str]:
        """Return the topics that have subscribers."""
        return {
            topic
            for topic, publisher in self._publishers.items()
            if publisher.get_subscription_count()
        }

    def publish(
        self,
        header: Any,
        result: Result,
        wanted: set[str],
        *,
        labels_at: tuple[int, int],
        info: CameraInfo | None,
        jpeg_quality: int,
    ) -> dict[str, float]:
        """
        Publish everything wanted but the status, under the input's ``header``.

        ``labels_at`` is the height and width that labels and confidence get, ``info`` their
        calibration if there is one, ``jpeg_quality`` 1 to 100. Return the topics published and
        when each was handed over (``time.monotonic``).
        """
        done = {}
        for topic in self._publishers:
            if topic not in wanted:
                continue
            message = self._message(topic, header, result, labels_at, info, jpeg_quality)
            if message is not None:
                self._publishers[topic].publish(message)
                done[topic] = time.monotonic()
        return done

    def _message(
        self,
        topic: str,
        header: Any,
        result: Result,
        labels_at: tuple[int, int],
        info: CameraInfo | None,
        jpeg_quality: int,
    ) -> Any | None:
        """Return what ``topic`` gets of this frame, None for nothing."""
        if topic == 'camera_info':
            return info
        if topic == 'illumination':
            score = result.illumination.score
            return Float32(data=score) if math.isfinite(score) else None
        if topic == 'status':
            return None
        picture, _, compressed = topic.partition('/')
        pixels = getattr(result, picture)
        if pixels is None:
            return None
        if picture in PLANES:
            pixels = sampled(pixels, labels_at)
        if not compressed:
            return self._messages[picture].fill(header, pixels)
        if picture in PLANES:
            return png_message(header, pixels)
        return jpeg_message(header, pixels, jpeg_quality)

    def publish_status(
        self, header: Any, camera: str, result: Result, ms: dict[str, float], age_s: float | None
    ) -> None:
        """Publish what became of the frame."""
        self._publishers['status'].publish(frame_status(header, camera, result, ms, age_s))

    def destroy(self) -> None:
        """Take the topics out of the graph."""
        for publisher in [*self._publishers.values(), *self._latched.values()]:
            self._node.destroy_lifecycle_publisher(publisher)


def want_of(wanted: set[str]) -> Want:
    """Return the pictures that the topics need."""
    return Want(
        labels=bool(wanted & {'labels', 'labels/compressed'}),
        confidence='confidence' in wanted,
        color='color' in wanted,
        overlay=bool(wanted & {'overlay', 'overlay/compressed'}),
        translated='translated' in wanted,
    )


def refuse_unfit(result: Result) -> None:
    """Raise ``ValueError`` where a picture is not what its message would promise."""
    size = result.frame.image.shape[:2]
    for topic in (*PLANES, *PICTURES):
        picture = getattr(result, topic)
        if picture is None:
            continue
        shape = size if topic in PLANES else (*size, 3)
        if picture.shape != shape or picture.dtype != np.uint8:
            raise ValueError(
                f'{topic} is {picture.dtype} {picture.shape}, the frame needs uint8 {shape}'
            )


def label_size(image: tuple[int, int], size: str, long_side: int) -> tuple[int, int]:
    """Return height and width of the labels of an image: its own, or the network's."""
    return image if size == 'camera' else fit(*image, long_side).labels


def sampled(plane: Plane, size: tuple[int, int]) -> Plane:
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


if __name__ == '__main__':
    sys.stdout.write(markdown())
