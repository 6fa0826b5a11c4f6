# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Masks, calibrations, poses and clouds in, labelled clouds out: what node and command line share.

Nothing here reads a clock: stamps come with the messages, and ``now`` from outside.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nightseg_ros.clouds.camera_model import Calibration, CameraModel
from nightseg_ros.clouds.depth import depth_cloud
from nightseg_ros.clouds.ego_motion import PoseTrack
from nightseg_ros.clouds.errors import CloudError
from nightseg_ros.clouds.occlusion import Occlusion
from nightseg_ros.clouds.painting import Painted, View, paint
from nightseg_ros.clouds.pairing import MaskTrack
from nightseg_ros.clouds.point_cloud import Cloud
from nightseg_ros.clouds.transform import Lookup, Matrix
from nightseg_ros.taxonomy import CAMVID11

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
