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
import sys
from typing import Any

from nightseg_ros.clouds.geometry import CloudError
from nightseg_ros.clouds.point_cloud import read_cloud
from nightseg_ros.node.subscription import Subscription
from nightseg_ros.perception.frame import BitDepth, FrameError
from nightseg_ros.perception.result import NAMESPACE
import numpy as np
from sensor_msgs.msg import CompressedImage, Image, PointCloud2

#: Messages that may wait while one is written.
DEPTH = 10


class RerunLog:
    """Subscribes to what is recorded, and writes it as it comes."""

    def __init__(self, path: Path, node: Any, encode: Any) -> None:
        """``encode`` makes a JPEG of an image, its longest side and the camera's bit depth."""
        self._rerun: Any = importlib.import_module('rerun')
        self._node, self._encode = node, encode
        self._recording = self._rerun.RecordingStream('nightseg')
        self._recording.save(path)
        self._subscriptions: dict[str, Subscription] = {}
        self._refused: set[str] = set()
        self._depths: dict[str, BitDepth] = {}

    def look(self, topics: Mapping[str, Sequence[str]], images: Mapping[str, str]) -> None:
        """Follow new topics; ``images`` are those of the cameras by the cameras' names."""
        wanted: dict[str, Any] = {}
        for camera, image in images.items():
            wanted[image] = partial(self._image, camera), CompressedImage, Image
            wanted[f'{camera}/{NAMESPACE}/labels'] = partial(self._labels, camera), Image
        for topic in topics:
            if topic.endswith(end := f'/{NAMESPACE}/points'):
                wanted[topic] = partial(self._cloud, topic.removesuffix(end)), PointCloud2
        for topic in (topics.keys() & wanted.keys()) - self._subscriptions.keys():
            take, *kinds = wanted[topic]
            known = [k for k in kinds if f'sensor_msgs/msg/{k.__name__}' in topics[topic]]
            if known:
                # best effort: the node waits for no recording
                self._subscriptions[topic] = Subscription(
                    self._node, known[0], topic, take, 'best_effort', DEPTH
                )
            elif topic not in self._refused:
                self._refused.add(topic)
                found = ', '.join(topics[topic])
                print(f'view: {topic} is {found}, which is not recorded', file=sys.stderr)

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
        """Write what waits, and say what is missing."""
        for topic, subscription in sorted(self._subscriptions.items()):
            if missed := subscription.missed:
                text = f'{missed} messages were published and are not recorded'
                print(f'view: {topic}: {text}', file=sys.stderr)
        self._recording.flush()
        self._recording.disconnect()

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
