# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The labels of several cameras on the points of one cloud."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightseg_ros.clouds.camera_model import CameraModel
from nightseg_ros.clouds.occlusion import Occlusion
from nightseg_ros.clouds.transform import Matrix
from nightseg_ros.taxonomy import UNLABELLED

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class View:
    """What one camera has to say about a cloud."""

    model: CameraModel
    """Of the labels' size."""
    camera_from_cloud: Matrix
    labels: Bytes
    """[H, W]."""
    confidence: Bytes | None = None
    """[H, W]; without it the camera's labels have confidence 0."""
    sees_all: bool = False
    """The cloud was measured from this camera's own place: nothing in it is hidden."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Painted:
    """The labels of N points, in the order of the cloud."""

    labels: Bytes
    """[N]; 255 where no camera sees the point, or it sees nothing labelled there."""
    confidence: Bytes
    """[N], 0 to 255; 0 where the label is 255."""
    in_image: tuple[int, ...]
    """Of each view: points that fall into its image."""
    hidden: tuple[int, ...]
    """Of each view: those of them that lie behind nearer ones."""


def paint(points: npt.NDArray[np.float32], views: Sequence[View], occlusion: Occlusion) -> Painted:
    """
    Label float32 [3, N] points; where several cameras see one, the most confident label wins.

    Of equal confidence the earlier view wins. NaN points get no label.
    """
    count = points.shape[1]
    labels = np.full(count, UNLABELLED, np.uint8)
    best = np.zeros(count, np.uint8)
    in_image, hidden = [], []
    for view in views:
        rotation = view.camera_from_cloud[:3, :3].astype(np.float32)
        moved = rotation @ points
        moved += view.camera_from_cloud[:3, 3:].astype(np.float32)
        index, u, v, inverse = view.model.project(moved)
        in_image.append(len(index))
        if not view.sees_all:
            shown = occlusion.visible(u, v, inverse, view.labels.shape, view.model.fx)
            index, u, v = index[shown], u[shown], v[shown]
        hidden.append(in_image[-1] - len(index))
        half = np.float32(0.5)
        pixel = (v + half).astype(np.int32) * view.labels.shape[1] + (u + half).astype(np.int32)
        seen = view.labels.reshape(-1)[pixel]
        sure = (
            np.zeros_like(seen) if view.confidence is None else view.confidence.reshape(-1)[pixel]
        )
        free = labels[index] == UNLABELLED
        wins = (seen != UNLABELLED) & (free | (sure > best[index]))
        index = index[wins]
        labels[index], best[index] = seen[wins], sure[wins]
    return Painted(labels=labels, confidence=best, in_image=tuple(in_image), hidden=tuple(hidden))
