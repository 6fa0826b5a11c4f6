# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Offline data: data sets, samples, augmentation, synthetic night; here the settings of `paint`.

Its help shows these, and is quick only as long as nothing here imports numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from nightseg_ros.config import ConfigError, Limited, Limits, NotNegative


@dataclass(frozen=True, kw_only=True, slots=True)
class PaintSettings(Limited):
    """What of a bag is painted, and how."""

    sensors: tuple[str, ...] = ()
    """Topics of clouds; without them all of the bag."""
    depth: tuple[str, ...] = ()
    """Registered depth images as CAMERA=TOPIC."""
    transforms: tuple[str, ...] = ()
    """Places beside /tf_static: "PARENT CHILD X Y Z ROLL PITCH YAW" or "… QX QY QZ QW"."""
    odometry: str = ''
    """Topic of poses (Odometry, PoseStamped), to make good the motion between mask and cloud."""
    base_frame: str = 'base_link'
    """What the poses are those of."""
    pair_limit: NotNegative = 0.1
    """Seconds by which the stamps of mask and cloud may differ."""
    rectified: bool = False
    """The labels are of rectified images."""
    occlusion_cell: Annotated[float, Limits(0, 200)] = 4.0
    """Side of a cell of the z-buffer in pixels of the labels; 0 hides nothing."""
    occlusion_clearance: Annotated[float, Limits(0.01, 100)] = 0.75
    """Surfaces that pass a camera closer than this (m) may hide parts of themselves."""

    def depth_topics(self) -> dict[str, str]:
        """Return the topics of registered depth images by camera; ``ConfigError``."""
        pairs = [text.partition('=') for text in self.depth]
        if not all(camera and topic for camera, _, topic in pairs):
            raise ConfigError(f'--depth takes CAMERA=TOPIC, got {" ".join(self.depth)}')
        return {camera.strip('/'): topic for camera, _, topic in pairs}
