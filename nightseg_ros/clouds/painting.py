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
Votes = npt.NDArray[np.uint16]

#: The bits of a vote that say which label.
_LABEL = np.uint16(UNLABELLED)
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
    best = np.zeros(points.shape[1], np.uint16)
    in_image, hidden = [], []
    for sight in _THREADS.map(lambda view: _look(view, points, occlusion), views):
        in_image.append(len(sight.index))
        hidden.append(sight.hidden)
        before = best.take(sight.index)
        # a vote beats those of less confidence, whatever their labels, and none at all
        wins = sight.votes > (before | _LABEL)
        wins |= before == 0
        best[sight.index] = np.where(wins, sight.votes, before)
    return Painted(
        labels=(~best).astype(np.uint8), confidence=(best >> 8).astype(np.uint8),
        in_image=tuple(in_image), hidden=tuple(hidden),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Sight:
    """What one camera sees: which points [M] fall into its image, and its votes for them [M]."""

    index: npt.NDArray[np.int64]
    votes: Votes
    hidden: int


def _look(view: View, points: npt.NDArray[np.float32], occlusion: Occlusion) -> _Sight:
    place = view.camera_from_cloud.astype(np.float32)
    moved = place[:3, :3] @ points
    moved += place[:3, 3:]
    index, u, v, inverse = view.model.project(moved)
    half = np.float32(0.5)
    pixel = (v + half).astype(np.int32) * view.labels.shape[1] + (u + half).astype(np.int32)
    votes = _votes(view).take(pixel)
    # of what is labelled nowhere, the confidence says nothing
    votes *= (votes & _LABEL) != 0
    if view.sees_all:
        return _Sight(index=index, votes=votes, hidden=0)
    shown = occlusion.visible(u, v, inverse, view.labels.shape, view.model.fx)
    votes *= shown
    return _Sight(index=index, votes=votes, hidden=len(index) - int(np.count_nonzero(shown)))


def _votes(view: View) -> Votes:
    """
    Return [H, W] numbers of which the high byte is the confidence, the low one 255 less the label.

    To go through both images once in order costs less than to look up points in them at random:
    memory is read ahead.
    """
    if view.confidence is None:
        return np.asarray(~view.labels, np.uint16)
    votes = view.confidence.astype(np.uint16)
    votes <<= 8
    votes |= ~view.labels
    return votes
