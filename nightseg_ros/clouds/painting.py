# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The labels of several cameras on the points of one cloud."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightseg_ros.clouds.camera_model import CameraModel
from nightseg_ros.clouds.occlusion import Occlusion
from nightseg_ros.clouds.transform import Matrix
from nightseg_ros.taxonomy import UNLABELLED

Bytes = npt.NDArray[np.uint8]

#: Two cameras at a time: numpy lets go of the interpreter's lock for arrays of this size.
_THREADS = ThreadPoolExecutor(2, 'nightseg clouds')


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
    for sight in _THREADS.map(lambda view: _look(view, points, occlusion), views):
        in_image.append(sight.in_image)
        hidden.append(sight.in_image - len(sight.index))
        index, seen, sure = sight.index, sight.labels, sight.confidence
        wins = sure > best[index]
        wins |= labels[index] == UNLABELLED
        wins &= seen != UNLABELLED
        index = index[wins]
        labels[index], best[index] = seen[wins], sure[wins]
    return Painted(labels=labels, confidence=best, in_image=tuple(in_image), hidden=tuple(hidden))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Sight:
    """What one camera sees: which points [M], their labels and confidence [M]."""

    index: npt.NDArray[np.int64]
    labels: Bytes
    confidence: Bytes
    in_image: int


def _look(view: View, points: npt.NDArray[np.float32], occlusion: Occlusion) -> _Sight:
    place = view.camera_from_cloud.astype(np.float32)
    moved = place[:3, :3] @ points
    moved += place[:3, 3:]
    index, u, v, inverse = view.model.project(moved)
    in_image = len(index)
    if not view.sees_all:
        shown = occlusion.visible(u, v, inverse, view.labels.shape, view.model.fx)
        index, u, v = index[shown], u[shown], v[shown]
    half = np.float32(0.5)
    pixel = (v + half).astype(np.int32) * view.labels.shape[1] + (u + half).astype(np.int32)
    labels = view.labels.reshape(-1)[pixel]
    sure = np.zeros_like(labels)
    if view.confidence is not None:
        sure = view.confidence.reshape(-1)[pixel]
    return _Sight(index=index, labels=labels, confidence=sure, in_image=in_image)
