# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The topics of a camera: what they are, who subscribes, and what they get of each frame."""

from __future__ import annotations

import array
import math
import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float32, String

from nightseg_ros.node.messages import (
    frame_status,
    jpeg_message,
    label_info,
    png_message,
    vision_msgs,
)
from nightseg_ros.perception.result import Result, Want, legend
from nightseg_ros.taxonomy import Taxonomy


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputTopic:
    """One topic under ``<camera>/nightseg/``."""

    name: str
    kind: str
    """Package and type."""
    text: str
    latched: bool = False
    """Whether late subscribers get the last message (transient local)."""


#: In the order of publishing: what a planner waits for comes first.
TOPICS: tuple[OutputTopic, ...] = (
    OutputTopic(name='labels', kind='sensor_msgs/Image',
                text='mono8: the id of each pixel, 255 unlabelled'),
    OutputTopic(name='labels/compressed', kind='sensor_msgs/CompressedImage',
                text='the same as PNG, `mono8; png compressed mono8`'),
    OutputTopic(name='confidence', kind='sensor_msgs/Image',
                text='mono8: softmax of the winning class, 0 to 255'),
    OutputTopic(name='camera_info', kind='sensor_msgs/CameraInfo',
                text="the input's, scaled with the labels"),
    OutputTopic(name='color', kind='sensor_msgs/Image',
                text='rgb8: the labels in the colours of their classes'),
    OutputTopic(name='overlay', kind='sensor_msgs/Image',
                text='rgb8: the colours over the picture'),
    OutputTopic(name='overlay/compressed', kind='sensor_msgs/CompressedImage',
                text='the same as JPEG, `rgb8; jpeg compressed bgr8`'),
    OutputTopic(name='translated', kind='sensor_msgs/Image',
                text='rgb8: what the route translate makes of the night'),
    OutputTopic(name='illumination', kind='std_msgs/Float32',
                text='0 (dark) to 1 (daylight), for plotting'),
    OutputTopic(name='status', kind='diagnostic_msgs/DiagnosticArray',
                text='of each frame: score, state, route, reason, reliability, latency by stage, '
                     'age'),
    OutputTopic(name='label_info', kind='vision_msgs/LabelInfo', latched=True,
                text='names of the ids, where vision_msgs is installed'),
    OutputTopic(name='label_info_json', kind='std_msgs/String', latched=True,
                text='names and colours of the ids as JSON'),
)  # fmt: skip


Pixels = npt.NDArray[np.uint8]

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


def _qos(latched: bool) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=(DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE),
    )


class ImageMessage:
    """
    One outgoing message, used for every frame.

    Assigning an array to ``msg.data`` takes 70 to 265 ms for a 1080p image; a message that is kept
    and written into through ``np.frombuffer`` takes less than half a millisecond.
    """

    def __init__(self, encoding: Literal['mono8', 'rgb8']) -> None:
        """``mono8`` takes [H, W], ``rgb8`` takes [H, W, 3]."""
        self._message = Image(encoding=encoding)
        self._pixels: Pixels = np.empty(0, np.uint8)

    def fill(self, header: Any, pixels: Pixels) -> Image:
        """Copy ``pixels`` in and return the message; it holds until the next call."""
        message = self._message
        if self._pixels.shape != pixels.shape:
            # an array cannot be resized while numpy looks into it, so that it is a new one
            message.data = array.array('B', bytes(pixels.size))
            self._pixels = np.frombuffer(message.data, np.uint8).reshape(pixels.shape)
            message.height, message.width = pixels.shape[:2]
            message.step = pixels.size // pixels.shape[0]
        np.copyto(self._pixels, pixels)
        message.header = header
        return message


class Outputs:
    """The publishers of one camera, from configure to cleanup."""

    def __init__(self, node: Any, prefix: str, taxonomy: Taxonomy) -> None:
        """Create them under ``prefix``; they are silent until the node is active."""
        self._node = node
        self._taxonomy = taxonomy
        self._vision = vision_msgs()
        kinds = dict(_KINDS)
        if self._vision is not None:
            kinds['vision_msgs/LabelInfo'] = self._vision.LabelInfo
        self._publishers: dict[str, Any] = {}
        self._latched: dict[str, Any] = {}
        for topic in TOPICS:
            if topic.kind not in kinds:
                continue
            # a user's override must not take the legend from late subscribers
            overrides = None if topic.latched else QoSOverridingOptions.with_default_policies()
            (self._latched if topic.latched else self._publishers)[topic.name] = (
                node.create_lifecycle_publisher(
                    kinds[topic.kind], f'{prefix}/{topic.name}', _qos(topic.latched),
                    qos_overriding_options=overrides,
                    # each handler would be waited on in every spin of the executor
                    event_callbacks=PublisherEventCallbacks(use_default_callbacks=False),
                )
            )  # fmt: skip
        self._messages = {
            **{topic: ImageMessage('mono8') for topic in PLANES},
            **{topic: ImageMessage('rgb8') for topic in PICTURES},
        }

    def announce(self) -> None:
        """Publish what the ids mean, for early and late subscribers alike."""
        self._latched['label_info_json'].publish(String(data=legend(self._taxonomy)))
        if self._vision is not None:
            stamp = self._node.get_clock().now().to_msg()
            self._latched['label_info'].publish(label_info(self._taxonomy, self._vision, stamp))

    def wanted(self) -> tuple[set[str], Want]:
        """Return the topics that have subscribers, and the pictures that they need."""
        topics = {
            topic
            for topic, publisher in self._publishers.items()
            if publisher.get_subscription_count()
        }
        want = Want(
            labels=bool(topics & {'labels', 'labels/compressed'}),
            confidence='confidence' in topics,
            color='color' in topics,
            overlay=bool(topics & {'overlay', 'overlay/compressed'}),
            translated='translated' in topics,
        )
        return topics, want

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
        for topic, publisher in self._publishers.items():
            if topic not in wanted:
                continue
            message: Any = None
            picture, _, compressed = topic.partition('/')
            if topic == 'camera_info':
                message = info
            elif topic == 'illumination':
                score = result.illumination.score
                message = Float32(data=score) if math.isfinite(score) else None
            elif topic != 'status' and (pixels := getattr(result, picture)) is not None:
                if picture in PLANES:
                    pixels = sampled(pixels, labels_at)
                if not compressed:
                    message = self._messages[picture].fill(header, pixels)
                elif picture in PLANES:
                    message = png_message(header, pixels)
                else:
                    message = jpeg_message(header, pixels, jpeg_quality)
            if message is not None:
                publisher.publish(message)
                done[topic] = time.monotonic()
        return done

    def publish_status(
        self, header: Any, camera: str, result: Result, ms: dict[str, float], age_s: float | None
    ) -> None:
        """Publish what became of the frame."""
        self._publishers['status'].publish(frame_status(header, camera, result, ms, age_s))

    def destroy(self) -> None:
        """Take the topics out of the graph."""
        for publisher in [*self._publishers.values(), *self._latched.values()]:
            self._node.destroy_lifecycle_publisher(publisher)


def pictures_of(result: Result) -> list[str]:
    """
    Return the pictures that were computed.

    ``ValueError`` is raised where one is not what its message would promise.
    """
    size = result.frame.image.shape[:2]
    computed = []
    for topic in (*PLANES, *PICTURES):
        picture = getattr(result, topic)
        if picture is None:
            continue
        shape = size if topic in PLANES else (*size, 3)
        if picture.shape != shape or picture.dtype != np.uint8:
            raise ValueError(
                f'{topic} is {picture.dtype} {picture.shape}, the frame needs uint8 {shape}'
            )
        computed.append(topic)
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
