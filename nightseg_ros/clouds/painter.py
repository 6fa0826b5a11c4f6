# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Masks, calibrations, poses and clouds in, labelled clouds out: what node and command line share.

A cloud waits for masks near its stamp; points that nearer ones hide get no label; where several
cameras see a point, the more confident label wins. Nothing here reads a clock: stamps come with
the messages, and ``now`` from outside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
import math
from typing import Any

from nightseg_ros.clouds.camera_model import Array, Calibration, camera_model, CameraModel, Floats
from nightseg_ros.clouds.geometry import CloudError, Lookup, Matrix, PoseTrack, Track
from nightseg_ros.clouds.point_cloud import (
    Bytes,
    Cloud,
    depth_cloud,
    read_calibration,
    read_cloud,
    read_depth,
    read_legend,
    read_plane,
    read_pose,
    stamp_of,
)
from nightseg_ros.config import Limited, live, setting
from nightseg_ros.taxonomy import CAMVID11, UNLABELLED
import numpy as np
import numpy.typing as npt

# -- points that are seen --------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Occlusion(Limited):
    """
    A z-buffer of square cells, in what ``CameraModel.project`` calls the inverse depth.

    Along the image of a plane that passes the camera at a distance h, it changes by at most
    1/(f h) a pixel. A point is hidden where it falls short of its cell's nearest by more than a
    cell of such a plane explains: so the ground never hides itself, near or far.
    """

    # fmt: off
    cell: float = live(
        4.0, 'side of a cell of the z-buffer in pixels, about the distance of two points in the '
        'image; 0 hides nothing', bounds=(0, 200))
    clearance: float = live(
        0.75, 'surfaces that pass the camera closer than this (m) may hide parts of themselves',
        bounds=(0.01, 100))
    # fmt: on

    def visible(
        self, u: Floats, v: Floats, inverse: Floats, size: tuple[int, int], focal: float
    ) -> npt.NDArray[np.bool_]:
        """
        Return bool [M] of points at pixels u, v with inverse depth, all float32 [M].

        ``size`` is (height, width) of the image, ``focal`` its shorter focal length in pixels.
        """
        if not self.cell:
            return np.ones(len(u), bool)
        columns = int(size[1] / self.cell) + 1
        scale = np.float32(1 / self.cell)
        cell = ((v + np.float32(0.5)) * scale).astype(np.intp) * columns
        cell += ((u + np.float32(0.5)) * scale).astype(np.intp)
        nearest = np.zeros((int(size[0] / self.cell) + 1) * columns, np.float32)
        np.maximum.at(nearest, cell, inverse)
        allowed = np.float32(self.cell / (focal * self.clearance))
        return np.asarray(inverse >= nearest.take(cell) - allowed)


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
    """The cloud was measured from this camera's own place: nothing in it is hidden, and what other
    cameras say of it counts less."""
    gap_s: float = 0.0
    """The mask's stamp minus the cloud's."""


#: The bits of a vote that say which label.
_LABEL = np.uint16(UNLABELLED)
#: Two cameras at a time: numpy lets go of the interpreter's lock for arrays of this size.
_THREADS = ThreadPoolExecutor(2, 'nightseg clouds')


def paint(points: Array, views: Sequence[View], occlusion: Occlusion) -> tuple[Bytes, Bytes, int]:
    """
    Return labels and confidence, uint8 [N], of [3, N] points, and how many are hidden.

    The label of a view that sees all counts. Else, where several cameras see a point, the most
    confident label wins, of equal ones that of the earlier view. Points that no camera sees, or
    that are NaN, get 255 with confidence 0.
    """
    best = np.zeros(points.shape[1], np.uint16)
    hidden = 0
    views = sorted(views, key=lambda view: view.sees_all)
    painted = _THREADS.map(partial(_vote, points, occlusion), views)
    for view, (index, votes, behind) in zip(views, painted):
        before = best.take(index)
        if view.sees_all:
            wins = votes > 0
        else:
            # a vote beats those of less confidence, whatever their labels, and none at all
            wins = votes > (before | _LABEL)
            wins |= before == 0
        best[index] = np.where(wins, votes, before)
        hidden += behind
    return (~best).astype(np.uint8), (best >> 8).astype(np.uint8), hidden


def _vote(
    points: Array, occlusion: Occlusion, view: View
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16], int]:
    """
    Return which points [M] fall into the image, their votes [M], and how many of them are hidden.

    The high byte of a vote is the confidence, the low one 255 less the label.
    """
    place = view.camera_from_cloud.astype(points.dtype)
    with np.errstate(over='ignore'):
        moved = place[:3, :3] @ points
        moved += place[:3, 3:]
        near = moved.astype(np.float32, copy=False)
    index, u, v, inverse = view.model.project(near)
    half = np.float32(0.5)
    pixel = (v + half).astype(np.int32) * view.labels.shape[1] + (u + half).astype(np.int32)
    # to go through both images once in order costs less than to look up points in them at
    # random: memory is read ahead
    sure = np.zeros_like(view.labels) if view.confidence is None else view.confidence
    image = sure.astype(np.uint16)
    image <<= 8
    image |= ~view.labels
    votes = image.take(pixel)
    # of what is labelled nowhere, the confidence says nothing
    votes *= (votes & _LABEL) != 0
    if view.sees_all:
        return index, votes, 0
    focal = min(view.model.fx, view.model.fy)
    shown = occlusion.visible(u, v, inverse, view.labels.shape, focal)
    votes *= shown
    return index, votes, len(index) - int(np.count_nonzero(shown))


# -- clouds that wait ------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class PaintConfig(Limited):
    """How clouds are labelled; times in seconds."""

    # fmt: off
    cameras: tuple[str, ...] = ()
    """Of equal confidence the earlier one wins."""
    confidence: bool = setting(
        True, 'read <camera>/nightseg/confidence as well; without it the order of the cameras '
        'decides')
    rectified: bool = setting(
        False, 'the labels are of rectified images: P of the calibration is used, without '
        'distortion')
    base_frame: str = setting('base_link', 'frame that the poses are those of')
    pair_limit: float = setting(
        0.1, 'seconds by which the stamps of a mask and a cloud may differ', bounds=(0, 10))
    max_wait: float = setting(
        0.3, 'seconds that a cloud waits for masks as new as itself', bounds=(0, 10))
    occlusion: Occlusion = field(default_factory=Occlusion)
    most_waiting: float = 16
    """As many clouds of one sensor wait at most, which bounds the memory."""
    ego_motion: bool = False
    """Move the points by what the base moved between cloud and mask."""
    # fmt: on


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SensorCloud:
    """One cloud of a sensor, and what became of it once it is labelled."""

    sensor: str
    stamp_ns: int
    frame_id: str
    received: float
    """``now`` when it came."""
    cloud: Cloud
    own_camera: str = ''
    """The camera whose depth image it was made of."""
    early: bool = False
    """Whether too many waited, so that it was not given ``max_wait``."""
    labelled: int = 0
    """Points with a label."""
    hidden: int = 0
    """Points of all images that lie behind nearer ones."""
    gaps_s: Mapping[str, float] = field(default_factory=dict)
    """Of each camera that painted: the mask's stamp minus the cloud's."""
    misses: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By camera: other_classes, no_mask, no_info, bad_info, no_transform or no_pose, or of one
    that painted no_confidence; a sentence."""


class CloudPainter:
    """
    Pairs clouds with the masks of all cameras and labels them.

    What takes messages raises ``CloudError`` for one that cannot be used.
    """

    def __init__(self, config: PaintConfig, lookup: Lookup) -> None:
        """Know nothing yet; ``lookup`` is asked for every cloud."""
        self.config, self._lookup = config, lookup
        self._legends: dict[str, tuple[list[str], Bytes]] = {'': ([], CAMVID11.palette())}
        """Names and colours of the ids by camera; those of '' hold until one came."""
        self._calibrations: dict[str, Calibration] = {}
        self.clear()

    def clear(self) -> None:
        """Forget clouds, masks and poses, as when stamps start over."""
        keep = self.config.max_wait + self.config.pair_limit + 0.1
        cameras = self.config.cameras
        self._labels = {camera: Track[tuple[str, Bytes]](keep) for camera in cameras}
        """frame_id and uint8 [H, W] of each frame."""
        self._confidence = {camera: Track[Bytes](keep) for camera in cameras}
        # poses come without delay, and masks may lag by seconds
        self._poses = PoseTrack(keep + 4)
        self._waiting: list[SensorCloud] = []

    def take_labels(self, camera: str, message: Any) -> None:
        """Take the labels of a frame, a mono8 image."""
        entry = str(message.header.frame_id), read_plane(message)
        self._labels[camera].add(stamp_of(message), entry)

    def take_confidence(self, camera: str, message: Any) -> None:
        """Take the confidence of a frame, a mono8 image."""
        self._confidence[camera].add(stamp_of(message), read_plane(message))

    def take_info(self, camera: str, message: Any) -> None:
        """Take a camera's CameraInfo; the latest counts."""
        self._calibrations[camera] = read_calibration(message)

    def take_legend(self, camera: str, message: Any) -> None:
        """Take what the labels of a camera mean from a ``label_info_json``."""
        self._legends[camera] = read_legend(message.data)

    def take_pose(self, message: Any) -> None:
        """Take an Odometry or PoseStamped of ``base_frame``."""
        base, child = self.config.base_frame, getattr(message, 'child_frame_id', '')
        if child.strip('/') not in ('', base.strip('/')):
            raise CloudError(
                f"they are those of '{child}', base_frame is '{base}': set base_frame to it"
            )
        self._poses.add(stamp_of(message), read_pose(message))

    def take_cloud(self, sensor: str, message: Any, now: float) -> None:
        """Let a PointCloud2 wait for its masks."""
        self._wait(message, sensor=sensor, received=now, cloud=read_cloud(message))

    def take_depth(self, camera: str, message: Any, now: float) -> None:
        """Let an image of distances, registered to that of ``camera``, wait as a cloud."""
        depth = read_depth(message)
        model = self._model(camera, depth.shape)
        self._wait(
            message, sensor=camera, received=now, cloud=depth_cloud(depth, model),
            own_camera=camera,
        )  # fmt: skip

    def due(self, now: float, *, everything: bool = False) -> list[SensorCloud]:
        """
        Take out the clouds that need not or may not wait any longer, in the order they came.

        None overtakes an earlier one of its sensor. Where more than ``most_waiting`` of one wait,
        the oldest are among them.
        """
        found: list[SensorCloud] = []
        still: list[SensorCloud] = []
        counts = Counter(cloud.sensor for cloud in self._waiting)
        for cloud in self._waiting:
            overdue = everything or now - cloud.received >= self.config.max_wait
            held = any(
                earlier.sensor == cloud.sensor and earlier.stamp_ns <= cloud.stamp_ns
                for earlier in still
            )
            if overdue or (not held and self._is_ready(cloud)):
                found.append(cloud)
            elif counts[cloud.sensor] > self.config.most_waiting:
                found.append(replace(cloud, early=True))
            else:
                still.append(cloud)
                continue
            counts[cloud.sensor] -= 1
        self._waiting = still
        return found

    def label(self, cloud: SensorCloud) -> SensorCloud:
        """Return a cloud that is due, labelled with what there is."""
        found = {camera: self._view(camera, cloud) for camera in self.config.cameras}
        views = {camera: view for camera, view in found.items() if isinstance(view, View)}
        misses = {camera: miss for camera, miss in found.items() if isinstance(miss, tuple)}
        for camera, view in views.items():
            if self.config.confidence and view.confidence is None:
                text = f'{camera}: no confidence of its mask came; every other label wins'
                misses[camera] = 'no_confidence', text
        labels, confidence, hidden = paint(
            cloud.cloud.xyz(), list(views.values()), self.config.occlusion
        )
        _, palette = self._legends[self._first_legend(cloud)]
        return replace(
            cloud, cloud=cloud.cloud.with_labels(labels, confidence, palette),
            labelled=int(np.count_nonzero(labels != UNLABELLED)), hidden=hidden,
            gaps_s={camera: view.gap_s for camera, view in views.items()},
            misses=misses,
        )  # fmt: skip

    def _wait(self, message: Any, **known: Any) -> None:
        stamp, frame_id = stamp_of(message), str(message.header.frame_id)
        self._waiting.append(SensorCloud(stamp_ns=stamp, frame_id=frame_id, **known))

    def _nearest(self, camera: str, stamp_ns: int) -> int | None:
        """Return the stamp of the nearest labels within the limit."""
        stamps = self._labels[camera].entries
        found = min(stamps, key=lambda stamp: abs(stamp - stamp_ns), default=None)
        limit_ns = round(self.config.pair_limit * 1e9)
        return None if found is None or abs(found - stamp_ns) > limit_ns else found

    def _is_ready(self, cloud: SensorCloud) -> bool:
        """Tell whether no later mask can be nearer, and the poses reach to all that is used."""
        needed: list[int] = []
        for camera in self.config.cameras:
            stamps = list(self._labels[camera].entries)
            if self.config.confidence:
                sure = self._confidence[camera].entries
                stamps = [stamp for stamp in stamps if stamp in sure]
            # the one that came last: a single stamp from the future tells nothing
            if not stamps or stamps[-1] < cloud.stamp_ns:
                return False
            nearest = self._nearest(camera, cloud.stamp_ns)
            if self.config.ego_motion and nearest not in (None, cloud.stamp_ns):
                needed += (nearest, cloud.stamp_ns)
        return not needed or max(self._poses.entries, default=-math.inf) >= max(needed)

    def _first_legend(self, cloud: SensorCloud) -> str:
        """Return the camera whose legend counts: its own, else the first whose legend came."""
        own = [cloud.own_camera] if cloud.own_camera else []
        return next(name for name in (*own, *self.config.cameras, '') if name in self._legends)

    def _model(self, camera: str, size: tuple[int, ...]) -> CameraModel:
        if camera not in self._calibrations:
            raise CloudError('no camera_info came')
        return camera_model(
            self._calibrations[camera], (size[0], size[1]), rectified=self.config.rectified
        )

    def _view(self, camera: str, cloud: SensorCloud) -> View | tuple[str, str]:
        """Return what a camera sees of a cloud, or why it sees nothing and a sentence."""
        config, stamp = self.config, cloud.stamp_ns
        first = self._first_legend(cloud)
        wanted, _ = self._legends[first]
        own, _ = self._legends.get(camera, self._legends[first])
        for number, (name, other) in enumerate(zip(own, wanted)):
            # names are not all there
            if name and other and name != other:
                text = f"{camera}: its class {number} is '{name}', that of {first} is '{other}': "
                return 'other_classes', f'{text}give them networks of the same classes'
        mask_ns = self._nearest(camera, stamp)
        if mask_ns is None:
            return 'no_mask', f'{camera}: no mask within {config.pair_limit:g} s of the cloud'
        frame_id, labels = self._labels[camera].entries[mask_ns]
        # without that of all cameras what has come of some decides by chance
        known = self._confidence[camera].entries if config.confidence else {}
        confidence = known.get(mask_ns)
        if confidence is not None and confidence.shape != labels.shape:
            confidence = None
        step = 'bad_info' if camera in self._calibrations else 'no_info'
        try:
            model = self._model(camera, labels.shape)
            step = 'no_transform'
            named = frame_id.strip('/') and cloud.frame_id.strip('/')
            if not named and cloud.own_camera != camera:
                raise CloudError('the masks or the clouds name no frame: frame_id is empty')
            if config.ego_motion and mask_ns != stamp:
                camera_from_base = self._lookup(frame_id, config.base_frame, mask_ns)
                base_from_cloud = self._lookup(config.base_frame, cloud.frame_id, stamp)
                step = 'no_pose'
                moved = self._poses.moved(stamp, mask_ns)
                place = np.asarray(camera_from_base @ moved @ base_from_cloud)
            elif frame_id == cloud.frame_id:
                place = np.eye(4)
            else:
                place = self._lookup(frame_id, cloud.frame_id, stamp)
        except CloudError as error:
            return step, f'{camera}: {error}'
        return View(
            model=model, camera_from_cloud=place, labels=labels, confidence=confidence,
            sees_all=cloud.own_camera == camera, gap_s=(mask_ns - stamp) / 1e9,
        )  # fmt: skip
