# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What belongs to one camera from configure to cleanup: topics, calibration, ego mask, health."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from nightseg_ros.config import ConfigError
from nightseg_ros.files import user_path
from nightseg_ros.node.diagnostics import Health, Warnings
from nightseg_ros.node.messages import scaled_info
from nightseg_ros.node.publishers import Outputs
from nightseg_ros.node.subscription import OrderedSubscription
from nightseg_ros.perception.pipeline import Pipeline
from nightseg_ros.perception.result import Result
from nightseg_ros.taxonomy import UNLABELLED

if TYPE_CHECKING:
    from nightseg_ros.node.parameters import CameraNames

Plane = npt.NDArray[np.uint8]


class CameraTopics:
    """
    One camera's subscriptions and publishers.

    ``open`` to ``close`` is the active time. The executor's thread receives; ``size`` and
    ``outputs`` belong to the worker's thread meanwhile.
    """

    def __init__(self, node: Any, names: CameraNames, pipeline: Pipeline) -> None:
        """Create the output topics; ``ConfigError`` where the ego mask cannot be read."""
        self.names = names
        self.long_side = pipeline.long_side
        self.judged_routes = pipeline.judged_routes
        self.ego = EgoMask(names.ego_mask) if names.ego_mask else None
        self.outputs = Outputs(node, names.output, pipeline.taxonomy)
        self.warnings = Warnings(node.get_logger(), names.name)
        self.size: tuple[int, int] | None = None
        """Height and width of the last image."""
        self.images: OrderedSubscription | None = None
        self._node = node
        self._info: Any = None
        self._info_subscription: Any = None
        self.health = self._new_health()

    def _new_health(self) -> Health:
        health = Health(time.monotonic(), warnings=self.warnings)
        health.counts['size_changes'] = 0
        health.shown['reliability'] = 'unknown'
        return health

    def open(self, put: Callable[[CameraTopics, Any, int, float], None]) -> None:
        """Subscribe, and call ``put`` with this camera, each image, its stamp and its arrival."""
        self.health = self._new_health()
        self.size = self._info = None

        def keep_info(info: Any) -> None:
            self._info = info

        self._info_subscription = self._node.create_subscription(
            CameraInfo, self.names.info_topic, keep_info,
            QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
            callback_group=MutuallyExclusiveCallbackGroup(),
        )  # fmt: skip
        settings = self._node.settings
        self.images = OrderedSubscription(
            self._node,
            CompressedImage if settings.transport == 'compressed' else Image,
            self.names.image_topic,
            partial(put, self),
            settings.qos_reliability,
            self.health,
        )

    def close(self) -> None:
        """Take the subscriptions out of the graph."""
        if self.images is not None:
            self.images.close()
        if self._info_subscription is not None:
            self._node.destroy_subscription(self._info_subscription)
        self.images = self._info_subscription = None

    def calibration(
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
        self._mask = np.where(own, UNLABELLED, 0).astype(np.uint8)
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
