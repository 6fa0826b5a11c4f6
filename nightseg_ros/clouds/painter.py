# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Masks, calibrations, poses and clouds in, labelled clouds out: what node and command line share.

A cloud waits for masks near its stamp; points that nearer ones hide get no label; where several
cameras see a point, the more confident label wins. Nothing here reads a clock: stamps come with
the messages, and ``now`` from outside.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nightseg_ros.clouds.camera_model import Calibration, CameraModel
from nightseg_ros.clouds.geometry import CloudError, Lookup, Matrix, PoseTrack
from nightseg_ros.clouds.point_cloud import Cloud, depth_cloud
from nightseg_ros.taxonomy import CAMVID11, UNLABELLED

Bytes = npt.NDArray[np.uint8]


@dataclass(kw_only=True, slots=True, eq=False)
class Mask:
    """Labels and confidence of one frame, as far as they have come."""

    frame_id: str = ''
    labels: Bytes | None = None
    """[H, W]."""
    confidence: Bytes | None = None
    """[H, W]."""


class MaskTrack:
    """The latest masks of one camera."""

    def __init__(self, *, keep_ns: int, confidence: bool) -> None:
        """Keep masks for ``keep_ns``; with ``confidence`` a mask waits for its own."""
        self._keep_ns = keep_ns
        self._confidence = confidence
        self._masks: dict[int, Mask] = {}
        self._newest = 0
        self._complete = 0

    def add_labels(self, stamp_ns: int, frame_id: str, labels: Bytes) -> None:
        """Take uint8 [H, W] labels of a frame."""
        mask = self._of(stamp_ns)
        mask.labels, mask.frame_id = labels, frame_id
        self._finish(stamp_ns, mask)

    def add_confidence(self, stamp_ns: int, confidence: Bytes) -> None:
        """Take uint8 [H, W] confidence of a frame."""
        mask = self._of(stamp_ns)
        mask.confidence = confidence
        self._finish(stamp_ns, mask)

    def reaches(self, stamp_ns: int) -> bool:
        """Tell whether no later mask can be nearer to this stamp than the best one there is."""
        return self._complete >= stamp_ns

    def nearest(self, stamp_ns: int, limit_ns: int) -> tuple[int, Mask] | None:
        """Return stamp and mask nearest to a stamp, None where there is none within the limit."""
        found = min(
            (stamp for stamp, mask in self._masks.items() if mask.labels is not None),
            key=lambda stamp: abs(stamp - stamp_ns), default=None,
        )  # fmt: skip
        if found is None or abs(found - stamp_ns) > limit_ns:
            return None
        return found, self._masks[found]

    def _of(self, stamp_ns: int) -> Mask:
        if stamp_ns < self._newest - self._keep_ns:
            # a bag that loops: what was kept lies in its future
            self._masks.clear()
            self._newest = self._complete = 0
        if stamp_ns > self._newest:
            self._newest = stamp_ns
            oldest = stamp_ns - self._keep_ns
            self._masks = {stamp: m for stamp, m in self._masks.items() if stamp >= oldest}
        return self._masks.setdefault(stamp_ns, Mask())

    def _finish(self, stamp_ns: int, mask: Mask) -> None:
        if mask.labels is not None and (mask.confidence is not None or not self._confidence):
            self._complete = max(self._complete, stamp_ns)


Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Occlusion:
    """
    A z-buffer of square cells, in inverse depth.

    Along the image of a plane that passes the camera at a distance h, 1/z changes by at most
    1/(f h) a pixel. A point is hidden where 1/z falls short of its cell's nearest by more than a
    cell of such a plane explains: so the ground never hides itself, near or far.
    """

    cell: float = 4.0
    """Side of a cell in pixels, about the distance of two points; 0 hides nothing."""
    clearance: float = 0.75
    """h, in metres: surfaces that pass the camera closer may hide parts of themselves."""

    def __post_init__(self) -> None:
        """Refuse what is no size."""
        if not (self.cell >= 0 and self.clearance > 0):
            raise ValueError(
                f"'cell' must not be negative and 'clearance' above 0; got {self.cell} and "
                f'{self.clearance}'
            )

    def visible(
        self, u: Floats, v: Floats, inverse: Floats, size: tuple[int, int], focal: float
    ) -> npt.NDArray[np.bool_]:
        """
        Return bool [M] of points at pixels u, v with inverse depth 1/z, all float32 [M].

        ``size`` is (height, width) of the image, ``focal`` its focal length in pixels.
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


#: Why a camera has nothing to say about a cloud.
MISSES = {
    'no_mask': 'no mask within pair_limit of the cloud',
    'no_info': 'no camera_info came',
    'bad_info': 'camera_info cannot be used',
    'no_transform': 'the place of camera and sensor to each other is not known',
    'no_pose': 'the motion between mask and cloud is not known',
}
#: Clouds of one sensor that wait for their masks; the oldest gives way.
MOST_WAITING = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class PaintConfig:
    """How clouds are labelled; times in seconds."""

    cameras: tuple[str, ...]
    """Of equal confidence the earlier one wins."""
    pair_limit: float = 0.1
    """A mask and a cloud whose stamps differ by more do not belong together."""
    max_wait: float = 0.3
    """How long a cloud waits for masks as new as itself."""
    confidence: bool = True
    """Whether a mask waits for its confidence."""
    rectified: bool = False
    """The masks are of rectified images: P counts and no distortion."""
    occlusion: Occlusion = field(default_factory=Occlusion)
    ego_motion: bool = False
    """Move the points by what the base moved between cloud and mask."""
    base_frame: str = 'base_link'
    """What the poses are those of."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelledCloud:
    """One cloud with its labels, and what is missing in it."""

    sensor: str
    stamp_ns: int
    frame_id: str
    received: float
    """``now`` when it came."""
    cloud: Cloud
    painted: Painted
    cameras: tuple[str, ...]
    """Those that painted, in the order of ``painted.in_image``."""
    gaps_s: dict[str, float]
    """Of each of them: the mask's stamp minus the cloud's."""
    misses: dict[str, tuple[str, str]]
    """Of each of the others: a key of ``MISSES``, and a sentence."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Waiting:
    sensor: str
    stamp_ns: int
    frame_id: str
    received: float
    cloud: Cloud
    own_camera: str


class CloudPainter:
    """Pairs clouds with the masks of all cameras and labels them."""

    def __init__(self, config: PaintConfig, lookup: Lookup) -> None:
        """Know nothing yet; ``lookup`` is asked for every cloud."""
        self.config = config
        self.palette = CAMVID11.palette()
        """uint8 [256, 3]: colours of the labels."""
        self.last_sensor = ''
        """Whose cloud was labelled last, or could not be."""
        self._lookup = lookup
        self._calibrations: dict[str, Calibration] = {}
        self.clear()

    def clear(self) -> None:
        """Forget clouds, masks and poses, as when stamps start over."""
        config = self.config
        keep = round((config.max_wait + config.pair_limit + 0.1) * 1e9)
        self.poses = PoseTrack()
        self._tracks = {
            name: MaskTrack(keep_ns=keep, confidence=config.confidence) for name in config.cameras
        }
        self._waiting: deque[_Waiting] = deque()

    def calibrate(self, camera: str, calibration: Calibration) -> None:
        """Take a camera's calibration; the latest counts."""
        self._calibrations[camera] = calibration

    def masks(self, camera: str) -> MaskTrack:
        """Return where a camera's labels and confidence go."""
        return self._tracks[camera]

    def add_cloud(
        self, sensor: str, stamp_ns: int, frame_id: str, cloud: Cloud, now: float,
        own_camera: str = '',
    ) -> bool:  # fmt: skip
        """
        Let a cloud wait for its masks; return whether an older one of its sensor had to give way.

        ``own_camera`` is the camera whose depth image the cloud was made of.
        """
        self._waiting.append(_Waiting(
            sensor=sensor, stamp_ns=stamp_ns, frame_id=frame_id, received=now, cloud=cloud,
            own_camera=own_camera,
        ))  # fmt: skip
        mine = [waiting for waiting in self._waiting if waiting.sensor == sensor]
        if len(mine) <= MOST_WAITING:
            return False
        self._waiting.remove(mine[0])
        return True

    def add_depth(
        self, camera: str, stamp_ns: int, frame_id: str, depth: npt.NDArray[np.float32],
        now: float,
    ) -> bool:  # fmt: skip
        """
        Take float32 [H, W] metres that are registered to a camera's image, as a cloud of its own.

        ``CloudError`` where the camera is not calibrated. Returns what ``add_cloud`` does.
        """
        if camera not in self._calibrations:
            raise CloudError(f'{camera}: no camera_info came, without which a depth is no point')
        height, width = depth.shape
        model = CameraModel.of(
            self._calibrations[camera], (height, width), rectified=self.config.rectified
        )
        cloud = depth_cloud(depth, model)
        return self.add_cloud(camera, stamp_ns, frame_id, cloud, now, own_camera=camera)

    def due(self, now: float, *, all_of_them: bool = False) -> Iterator[LabelledCloud]:
        """Yield the clouds that need not or may not wait any longer, in the order they came."""
        for waiting in list(self._waiting):
            ready = all(track.reaches(waiting.stamp_ns) for track in self._tracks.values())
            if ready or all_of_them or now - waiting.received >= self.config.max_wait:
                self._waiting.remove(waiting)
                self.last_sensor = waiting.sensor
                yield self._paint(waiting)

    def _paint(self, waiting: _Waiting) -> LabelledCloud:
        views: list[View] = []
        gaps: dict[str, float] = {}
        misses: dict[str, tuple[str, str]] = {}
        for camera in self.config.cameras:
            try:
                view, gaps[camera] = self._view(camera, waiting)
                views.append(view)
            except _MissError as miss:
                misses[camera] = (miss.reason, str(miss))
        painted = paint(waiting.cloud.xyz(), views, self.config.occlusion)
        cloud = waiting.cloud.with_labels(painted.labels, painted.confidence, self.palette)
        return LabelledCloud(
            sensor=waiting.sensor, stamp_ns=waiting.stamp_ns, frame_id=waiting.frame_id,
            received=waiting.received, cloud=cloud, painted=painted, cameras=tuple(gaps),
            gaps_s=gaps, misses=misses,
        )  # fmt: skip

    def _view(self, camera: str, waiting: _Waiting) -> tuple[View, float]:
        """Return what a camera sees of a cloud, and by how many seconds its mask is later."""
        limit = self.config.pair_limit
        found = self._tracks[camera].nearest(waiting.stamp_ns, round(limit * 1e9))
        if found is None:
            raise _MissError('no_mask', f'{camera}: no mask within {limit:g} s of the cloud')
        stamp, mask = found
        assert mask.labels is not None
        calibration = self._calibrations.get(camera)
        if calibration is None:
            raise _MissError('no_info', f'{camera}: no camera_info came')
        try:
            model = CameraModel.of(
                calibration, (mask.labels.shape[0], mask.labels.shape[1]),
                rectified=self.config.rectified,
            )  # fmt: skip
        except CloudError as error:
            raise _MissError('bad_info', f'{camera}: {error}') from error
        confidence = mask.confidence
        if confidence is not None and confidence.shape != mask.labels.shape:
            confidence = None
        view = View(
            model=model, camera_from_cloud=self._place(camera, waiting, stamp, mask.frame_id),
            labels=mask.labels, confidence=confidence, sees_all=waiting.own_camera == camera,
        )  # fmt: skip
        return view, (stamp - waiting.stamp_ns) / 1e9

    def _place(self, camera: str, waiting: _Waiting, mask_ns: int, camera_frame: str) -> Matrix:
        """Return camera_from_cloud, the camera being where it was at its mask."""
        base, stamp = self.config.base_frame, waiting.stamp_ns
        try:
            if not self.config.ego_motion or mask_ns == stamp:
                if camera_frame == waiting.frame_id:
                    return np.eye(4)
                return self._lookup(camera_frame, waiting.frame_id, stamp)
            camera_from_base = self._lookup(camera_frame, base, mask_ns)
            base_from_cloud = self._lookup(base, waiting.frame_id, stamp)
        except CloudError as error:
            raise _MissError('no_transform', f'{camera}: {error}') from error
        try:
            moved = self.poses.moved(stamp, mask_ns)
        except CloudError as error:
            raise _MissError('no_pose', f'{camera}: {error}') from error
        return np.asarray(camera_from_base @ moved @ base_from_cloud)


class _MissError(Exception):
    """A camera that has nothing to say about a cloud."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
