# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
A Rerun recording (.rrd) of what the view sees: images, masks, scores and labelled clouds.

Everything lies on one timeline, that of the stamps, so that scrubbing moves all of it together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
import importlib
import math
from pathlib import Path
from typing import Any

from nightseg_ros.clouds.geometry import CloudError
from nightseg_ros.clouds.point_cloud import read_cloud
from nightseg_ros.perception.frame import BitDepth, FrameError
from nightseg_ros.perception.result import NAMESPACE
import numpy as np
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image, PointCloud2

#: Messages that may wait while one is written.
QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)


class RerunLog:
    """Subscribes to what is recorded, and writes it as it comes."""

    def __init__(self, path: Path, node: Any, encode: Any) -> None:
        """``encode`` makes a JPEG of an image, its longest side and the camera's bit depth."""
        self._rerun: Any = importlib.import_module('rerun')
        self._node, self._encode = node, encode
        self._recording = self._rerun.RecordingStream('nightseg')
        self._recording.save(path)
        self._followed: set[str] = set()
        self._depths: dict[str, BitDepth] = {}

    def look(self, topics: Mapping[str, Sequence[str]], images: Mapping[str, str]) -> None:
        """Follow new topics; ``images`` are those of the cameras by the cameras' names."""
        for topic, kinds in topics.items():
            name = topic.removesuffix(f'/{NAMESPACE}/points')
            if topic.endswith(f'/{NAMESPACE}/points'):
                self._follow(PointCloud2, topic, partial(self._cloud, name))
            elif topic in images.values():
                camera = next(camera for camera, image in images.items() if image == topic)
                packed = 'sensor_msgs/msg/CompressedImage' in kinds
                kind = CompressedImage if packed else Image
                self._follow(kind, topic, partial(self._image, camera))
        for camera in images:
            topic = f'{camera}/{NAMESPACE}/labels'
            self._follow(Image, topic, partial(self._labels, camera))

    def legend(self, camera: str, legend: Any) -> None:
        """Write names and colours of a camera's ids."""
        classes = [(c['id'], c['name'], tuple(c['color'])) for c in legend['classes']]
        context = self._rerun.AnnotationContext(classes)
        self._recording.log(camera, context, static=True)

    def score(self, camera: str, stamp: Any, score: float | None) -> None:
        """Write the illumination of a frame."""
        if score is not None:
            self._write(f'{camera}/illumination', stamp, self._rerun.Scalars(score))

    def close(self) -> None:
        """Write what waits."""
        self._recording.flush()
        self._recording.disconnect()

    def _follow(self, kind: Any, topic: str, take: Any) -> None:
        if topic not in self._followed:
            self._followed.add(topic)
            self._node.create_subscription(kind, topic, take, QOS)

    def _write(self, path: str, stamp: Any, content: Any) -> None:
        when = np.datetime64(stamp.sec * 10**9 + stamp.nanosec, 'ns')
        self._recording.set_time('stamp', timestamp=when)
        self._recording.log(path, content)

    def _image(self, camera: str, message: Any) -> None:
        try:
            depth = self._depths.setdefault(camera, BitDepth())
            content = self._encode(message, math.inf, depth)
        except FrameError:
            return
        picture = self._rerun.EncodedImage(contents=content, media_type='image/jpeg')
        self._write(f'{camera}/image', message.header.stamp, picture)

    def _labels(self, camera: str, message: Any) -> None:
        ids = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
        mask = self._rerun.SegmentationImage(ids[:, : message.width], opacity=0.5)
        self._write(f'{camera}/image/labels', message.header.stamp, mask)

    def _cloud(self, sensor: str, message: Any) -> None:
        try:
            cloud = read_cloud(message)
            packed = np.ascontiguousarray(cloud.records['rgb']).reshape(-1)
            # the float's bytes are the colours
            colours = packed.view(packed.dtype.str.replace('f', 'u')).astype(np.uint32)
        except (CloudError, ValueError):
            return
        rgb = np.stack([colours >> 16 & 255, colours >> 8 & 255, colours & 255], -1)
        points = self._rerun.Points3D(cloud.xyz().T, colors=rgb.astype(np.uint8))
        self._write(f'{sensor}/points', message.header.stamp, points)
