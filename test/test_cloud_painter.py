# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Clouds and masks by their stamps: who waits for whom, and what is missing then."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cloud_samples import calibration, cloud, looking

from nightseg_ros.clouds.geometry import CloudError, FrameTree, from_angles
from nightseg_ros.clouds.painter import (
    MISSES,
    CloudPainter,
    LabelledCloud,
    MaskTrack,
    Occlusion,
    PaintConfig,
)
from nightseg_ros.evaluation.live import AHEAD, top_view
from nightseg_ros.taxonomy import CAMVID11

MS = 1_000_000
SIZE = (360, 640)
#: One point ahead, one to the left, one behind.
POINTS = [(10.0, 0.0, 0.0), (0.0, 10.0, 0.0), (-10.0, 0.0, 0.0)]


def tree() -> FrameTree:
    frames = FrameTree()
    frames.add('base_link', 'lidar', from_angles((0, 0, 0), (0, 0, 0)))
    frames.add('base_link', 'front', looking(0.0))
    frames.add('base_link', 'left', looking(np.pi / 2))
    return frames


def painter(*, calibrated: bool = True, **changes: Any) -> CloudPainter:
    config = PaintConfig(
        **{'cameras': ('front', 'left'), 'confidence': False, 'occlusion': Occlusion(cell=0)}
        | changes
    )
    found = CloudPainter(config, tree().lookup)
    if calibrated:
        for camera in config.cameras:
            found.calibrate(camera, calibration())
    return found


def mask(label: int) -> Any:
    return np.full(SIZE, label, np.uint8)


def add(to: CloudPainter, stamp_ms: float, now: float = 0.0, frame: str = 'lidar') -> bool:
    return to.add_cloud('lidar', round(stamp_ms * MS), frame, cloud(POINTS), now)


def labels(done: LabelledCloud) -> list[int]:
    return [int(label) for label in done.cloud.records['label'].ravel()]


def test_a_cloud_waits_until_every_camera_has_a_mask_as_new_as_itself() -> None:
    p = painter()
    assert not add(p, 100)
    p.masks('front').add_labels(90 * MS, 'front', mask(1))
    assert not list(p.due(0.01))
    p.masks('front').add_labels(120 * MS, 'front', mask(2))
    assert not list(p.due(0.02)), 'the left camera may still bring a nearer one'
    p.masks('left').add_labels(100 * MS, 'left', mask(3))
    (done,) = p.due(0.03)
    # 90 ms is nearer to 100 ms than 120 ms is
    assert labels(done) == [1, 3, 255]
    assert done.gaps_s == pytest.approx({'front': -0.01, 'left': 0.0})
    assert (done.stamp_ns, done.frame_id, done.misses) == (100 * MS, 'lidar', {})
    assert not list(p.due(1.0))


def test_a_late_mask_costs_its_camera_this_cloud_and_no_other() -> None:
    p = painter(max_wait=0.3)
    add(p, 100, now=5.0)
    p.masks('front').add_labels(100 * MS, 'front', mask(1))
    assert not list(p.due(5.29))
    (done,) = p.due(5.31)
    assert labels(done) == [1, 255, 255]
    assert done.misses == {'left': ('no_mask', 'left: no mask within 0.1 s of the cloud')}
    p.masks('left').add_labels(100 * MS, 'left', mask(3))
    assert not list(p.due(9.0))
    add(p, 150, now=9.0)
    p.masks('front').add_labels(150 * MS, 'front', mask(1))
    (done,) = p.due(9.31)
    assert labels(done) == [1, 3, 255], 'it is within the limit of the next one'


def test_masks_beyond_the_limit_are_none() -> None:
    p = painter(pair_limit=0.02)
    add(p, 100)
    p.masks('front').add_labels(121 * MS, 'front', mask(1))
    p.masks('left').add_labels(120 * MS, 'left', mask(3))
    (done,) = p.due(0.0)
    assert labels(done) == [255, 3, 255]
    assert done.misses['front'][0] == 'no_mask'


def test_a_mask_waits_for_its_confidence() -> None:
    p = painter(confidence=True, cameras=('front',))
    add(p, 100)
    p.masks('front').add_labels(100 * MS, 'front', mask(1))
    assert not list(p.due(0.01))
    p.masks('front').add_confidence(100 * MS, mask(200))
    (done,) = p.due(0.02)
    assert done.cloud.records['confidence'].tolist() == [[200, 0, 0]]
    add(p, 200, now=1.0)
    p.masks('front').add_labels(200 * MS, 'front', mask(1))
    (done,) = p.due(1.3)
    assert (labels(done), done.painted.confidence.max()) == ([1, 255, 255], 0)


def test_what_is_missing_is_named() -> None:
    p = painter(calibrated=False)
    for camera in ('front', 'left'):
        p.masks(camera).add_labels(100 * MS, camera, mask(1))
    p.calibrate('left', calibration(focal=0.0))
    add(p, 100)
    (done,) = p.due(0.0)
    assert labels(done) == [255] * 3
    assert {camera: reason for camera, (reason, _) in done.misses.items()} == {
        'front': 'no_info', 'left': 'bad_info',
    }  # fmt: skip
    assert 'left: camera_info has focal lengths 0 and 0' in done.misses['left'][1]
    p = painter()
    for camera in ('front', 'left'):
        p.masks(camera).add_labels(100 * MS, camera, mask(1))
    add(p, 100, frame='nowhere')
    (done,) = p.due(0.0)
    assert {reason for reason, _ in done.misses.values()} == {'no_transform'}
    assert "no transform from 'nowhere' to 'front'" in done.misses['front'][1]
    assert {'no_mask', 'no_info', 'bad_info', 'no_transform', 'no_pose'} == set(MISSES)


def test_motion_between_mask_and_cloud_is_made_good() -> None:
    p = painter(ego_motion=True, cameras=('front',))
    # half of the picture: what lies to the left of the axis is 4, to the right 5
    halves = mask(5)
    halves[:, :320] = 4
    p.masks('front').add_labels(100 * MS, 'front', halves)
    add(p, 180)
    (done,) = p.due(9.0)
    assert done.misses['front'][0] == 'no_pose'
    # in these 80 ms the vehicle turns by 0.1 to the left: what was ahead is to the right now
    p.poses.add(100 * MS, from_angles((5, 5, 0), (0, 0, 1.0)))
    p.poses.add(180 * MS, from_angles((5, 5, 0), (0, 0, 1.1)))
    right = cloud([(10 * np.cos(a), 10 * np.sin(a), 0) for a in (-0.15, -0.05, 0.05)])
    p.add_cloud('lidar', 180 * MS, 'lidar', right, 0.0)
    (done,) = p.due(9.0)
    assert labels(done) == [5, 4, 4]
    still = painter(cameras=('front',))
    still.masks('front').add_labels(100 * MS, 'front', halves)
    still.add_cloud('lidar', 180 * MS, 'lidar', right, 0.0)
    (done,) = still.due(9.0)
    assert labels(done) == [5, 5, 4], 'without compensation the middle one is wrong'


def test_a_depth_image_is_labelled_by_its_own_camera_and_the_others() -> None:
    p = painter()
    with pytest.raises(CloudError, match='front: no camera_info came'):
        painter(calibrated=False).add_depth('front', 0, 'front', np.ones(SIZE, np.float32), 0.0)
    p.masks('front').add_labels(100 * MS, 'front', mask(7))
    p.masks('left').add_labels(100 * MS, 'left', mask(3))
    depth = np.full(SIZE, 5.0, np.float32)
    depth[:10] = np.nan
    p.add_depth('front', 100 * MS, 'front', depth, 0.0)
    (done,) = p.due(0.0)
    assert (done.sensor, done.frame_id) == ('front', 'front')
    found = done.cloud.records['label']
    assert found.shape == SIZE
    assert (found[10:] == 7).all() and (found[:10] == 255).all()


def test_clouds_do_not_queue_up() -> None:
    p = painter()
    given = [add(p, 100 + i) for i in range(6)]
    assert given == [False] * 4 + [True] * 2
    assert [done.stamp_ns // MS for done in p.due(0.0, all_of_them=True)] == [102, 103, 104, 105]


def test_stamps_that_start_over_start_the_masks_over() -> None:
    track = MaskTrack(keep_ns=500 * MS, confidence=False)
    for stamp in range(1000, 3000, 100):
        track.add_labels(stamp * MS, 'front', mask(1))
    assert track.nearest(1000 * MS, 100 * MS) is None, 'old masks are let go'
    assert track.reaches(2900 * MS)
    track.add_labels(200 * MS, 'front', mask(2))
    assert not track.reaches(300 * MS)
    assert track.nearest(2900 * MS, 100 * MS) is None
    found = track.nearest(210 * MS, 100 * MS)
    assert found is not None and found[0] == 200 * MS


def test_the_view_from_above_has_the_colours_of_the_labels_at_their_places() -> None:
    palette = CAMVID11.palette()
    points = [(20.0, 0.0, 0.0), (20.0, 8.0, 0.0), (20.0, 8.0, 1.0), (30.0, -8.0, 0.0),
              (10.0, 5.0, 9.0), (math.nan, 0.0, 0.0)]  # fmt: skip
    labels = np.array([3, 3, 8, 255, 1, 1], np.uint8)
    seen = cloud(points).with_labels(labels, np.zeros(6, np.uint8), palette)
    picture = top_view(seen, palette, 440)
    scale = 440 / (AHEAD + 4)

    def at(x: float, y: float) -> list[int]:
        row, column = 440 - (3 + x) * scale, picture.shape[1] / 2 - y * scale
        return picture[round(row), round(column)].tolist()

    def shown(label: int) -> list[int]:
        color = palette[label].astype(int)
        return (color + (255 - color) // 4).tolist()

    assert at(20, 0) == shown(3)
    assert at(20, 8) == shown(8), 'the higher one hides the lower'
    grey = at(30, -8)
    assert grey[0] > 40 and max(grey) - min(grey) < 10
    assert max(at(10, 5)) < 60, 'what hangs over the road is left out'


def test_clear_keeps_the_calibration_only() -> None:
    p = painter(cameras=('front',))
    p.masks('front').add_labels(100 * MS, 'front', mask(1))
    add(p, 100)
    p.clear()
    assert not list(p.due(9.0))
    add(p, 100)
    (done,) = p.due(9.0)
    assert done.misses['front'][0] == 'no_mask'
    p.masks('front').add_labels(200 * MS, 'front', mask(1))
    add(p, 200)
    (done,) = p.due(9.0)
    assert not done.misses
