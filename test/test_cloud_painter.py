# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Clouds, masks and poses by their stamps: who waits for whom, and what is missing then."""

from collections.abc import Iterator
import dataclasses
import json
import math
from types import SimpleNamespace
from typing import Any

from cloud_samples import (
    calibration,
    cloud,
    cloud_of,
    image,
    info_of,
    LENS,
    looking,
    POINTS,
    pose_of,
    SIZE,
)
from nightseg_ros.bags.writer import BagWriter
from nightseg_ros.cli.main import main
from nightseg_ros.clouds.geometry import CloudError, FrameTree, from_angles
from nightseg_ros.clouds.painter import CloudPainter, Occlusion, PaintConfig, SensorCloud
from nightseg_ros.evaluation.live import AHEAD, top_view
from nightseg_ros.perception.result import legend
from nightseg_ros.taxonomy import CAMVID11, CITYSCAPES19
import numpy as np
import pytest

MS = 1_000_000


class Car:
    """A painter of two cameras and a LiDAR; stamps are milliseconds."""

    def __init__(self, *, calibrated: bool = True, **changes: Any) -> None:
        config = {'cameras': ('front', 'left'), 'confidence': False}
        config |= {'occlusion': Occlusion(cell=0)} | changes
        tree = FrameTree()
        tree.add('base_link', 'lidar', np.eye(4))
        tree.add('base_link', 'front', looking(0.0))
        tree.add('base_link', 'left', looking(np.pi / 2))
        self.painter = CloudPainter(PaintConfig(**config), tree.lookup)
        for camera in self.painter.config.cameras if calibrated else ():
            self.painter.take_info(camera, info_of(LENS))

    def mask(self, stamp: float, **labels: Any) -> None:
        for camera, label in labels.items():
            pixels = np.full(SIZE, label, np.uint8)
            self.painter.take_labels(camera, image(pixels, 'mono8', round(stamp * MS), camera))

    def cloud(
        self, stamp: float, now: float = 0.0, frame: str = 'lidar', points: Any = POINTS
    ) -> None:
        self.painter.take_cloud('lidar', cloud_of(cloud(points), round(stamp * MS), frame), now)

    def pose(self, stamp: float, yaw: float = 0.0, x: float = 0.0) -> None:
        matrix = from_angles((x, 5, 0), (0, 0, yaw))
        self.painter.take_pose(pose_of(round(stamp * MS), matrix))

    def due(self, now: float = 9.0, **how: bool) -> list[SensorCloud]:
        return [self.painter.label(found) for found in self.painter.due(now, **how)]


def labels(done: SensorCloud) -> list[int]:
    return [int(label) for label in done.cloud.records['label'].ravel()]


def stamps(found: list[SensorCloud]) -> list[int]:
    return [done.stamp_ns // MS for done in found]


def test_a_cloud_waits_until_every_camera_has_a_mask_as_new_as_itself():
    car = Car(occlusion=Occlusion())
    # the last point is behind the first
    car.cloud(100, points=[*POINTS, (40.0, 0.0, 0.0)])
    car.mask(90, front=1)
    assert not car.due(0.01)
    car.mask(120, front=2)
    assert not car.due(0.02), 'the left camera may still bring a nearer one'
    car.mask(100, left=3)
    (done,) = car.due(0.03)
    # 90 ms is nearer to 100 ms than 120 ms is
    assert labels(done) == [1, 3, 255, 255]
    assert done.gaps_s == pytest.approx({'front': -0.01, 'left': 0.0})
    assert (done.stamp_ns, done.frame_id, done.misses) == (100 * MS, 'lidar', {})
    assert (done.labelled, done.hidden, done.early) == (2, 1, False)
    assert not car.due(1.0)


def test_a_late_mask_costs_its_camera_this_cloud_and_no_other():
    car = Car(max_wait=0.25)
    car.cloud(100, now=5.0)
    car.mask(100, front=1)
    assert not car.due(5.24)
    (done,) = car.due(5.25)
    assert labels(done) == [1, 255, 255]
    assert done.misses == {'left': ('no_mask', 'left: no mask within 0.1 s of the cloud')}
    car.mask(100, left=3)
    assert not car.due()
    car.cloud(150, now=9.0)
    car.mask(150, front=1)
    (done,) = car.due(9.25)
    assert labels(done) == [1, 3, 255], 'it is within the limit of the next one'
    car.cloud(400)
    car.mask(501, front=1)
    car.mask(500, left=3)
    (done,) = car.due(0.0)
    assert labels(done) == [255, 3, 255] and done.misses['front'][0] == 'no_mask'


def test_a_mask_waits_for_its_confidence():
    car = Car(confidence=True, cameras=('front',))
    car.cloud(100)
    car.mask(100, front=1)
    assert not car.due(0.01)
    sure = np.full(SIZE, 200, np.uint8)
    car.painter.take_confidence('front', image(sure, 'mono8', 100 * MS))
    (done,) = car.due(0.02)
    assert done.cloud.records['confidence'].tolist() == [[200, 0, 0]]
    car.cloud(200, now=1.0)
    car.mask(200, front=1)
    # of another size it says nothing
    car.painter.take_confidence('front', image(sure[:9], 'mono8', 200 * MS))
    (done,) = car.due(1.3)
    assert labels(done) == [1, 255, 255] and not done.cloud.records['confidence'].any()
    assert done.misses['front'][0] == 'no_confidence'


def test_paint_labels_every_cloud_of_a_bag_whose_masks_are_late(tmp_path, capsys):
    """At 100 Hz, more clouds wait than the node would let wait."""
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write_transforms('/tf_static', [('lidar', 'front', looking(0.0))], stamp_ns=1)
        lens = dataclasses.replace(LENS, p=(0.0,) * 12)
        bag.write_calibration('/front/camera_info', lens, stamp_ns=1, frame_id='front')
        mask = np.full(SIZE, 3, np.uint8)
        for tick in range(150):
            at = 10**18 + 10 * tick * MS
            if tick < 100:
                bag.write_cloud('/lidar/points', cloud(POINTS), stamp_ns=at, frame_id='lidar')
            if tick >= 50:
                place = {'stamp_ns': at - 500 * MS, 'frame_id': 'front', 'received_ns': at}
                bag.write_labels('/front/nightseg/labels', mask, **place)
    assert main(['paint', str(tmp_path / 'bag'), '--out', str(tmp_path / 'out')]) == 0
    said = capsys.readouterr().out
    assert '100 clouds of 300 points' in said and '33% of the points labelled' in said
    assert 'front' not in said, 'a mask was missed'


def test_of_too_many_clouds_the_oldest_is_labelled_with_what_there_is():
    car = Car(most_waiting=4)
    for stamp in range(100, 106):
        car.cloud(stamp)
    car.mask(90, front=1)
    car.painter.take_cloud('roof', cloud_of(cloud(POINTS), 90 * MS), 0.0)
    found = car.due(0.0)
    assert stamps(found) == [100, 101] and all(done.early for done in found)
    assert labels(found[0]) == [1, 255, 255]
    assert stamps(car.due(0.0, everything=True)) == [102, 103, 104, 105, 90]


@pytest.mark.parametrize('late', [0, 20, 80])
def test_clouds_wait_for_their_poses(late):
    """Odometry that comes ``late`` ms after its stamp, masks between the clouds."""
    car = Car(ego_motion=True, cameras=('front',))
    done = []
    for now in range(0, 1000, 10):
        if now >= late:
            car.pose(now - late, x=now / 100)
        if now % 50 == 0:
            car.cloud(now, now=now / 1e3)
        if now % 50 == 20 and now > 100:
            car.mask(now, front=1)
        done += car.due(now / 1e3)
    served = [one for one in done if one.stamp_ns > 100 * MS]
    assert len(served) >= 15
    assert not [one.misses for one in served if one.misses]


def test_no_cloud_overtakes_another_of_its_sensor():
    car = Car(ego_motion=True, cameras=('front',))
    for stamp in (150, 200):
        car.cloud(stamp)
    car.painter.take_cloud('roof', cloud_of(cloud(POINTS), 200 * MS), 0.0)
    car.mask(100, front=1)
    car.mask(200, front=1)
    # a cloud of the mask's stamp needs no pose
    assert [done.sensor for done in car.due(0.0)] == ['roof']
    for stamp in (100, 150, 200):
        car.pose(stamp)
    assert stamps(car.due(0.0)) == [150, 200]


def test_poses_of_one_stamp_and_late_ones_do_not_wipe_the_track():
    car = Car(ego_motion=True, cameras=('front',))
    car.mask(190, front=1)
    for stamp in (60, 140, 100, 180, 180, 140):
        car.pose(stamp)
    car.cloud(180)
    assert not car.due(0.0), 'where the mask was taken is not known'
    car.pose(190)
    (done,) = car.due(0.0)
    assert not done.misses


def test_motion_between_mask_and_cloud_is_made_good():
    # half of the picture: what lies to the left of the axis is 4, to the right 5
    halves = np.full(SIZE, 5, np.uint8)
    halves[:, :80] = 4
    right = [(10 * np.cos(a), 10 * np.sin(a), 0) for a in (-0.15, -0.05, 0.05)]
    for moving, wanted in ((True, [5, 4, 4]), (False, [5, 5, 4])):
        car = Car(ego_motion=moving, cameras=('front',))
        car.mask(100, front=halves)
        car.cloud(180)
        if moving:
            (done,) = car.due()
            assert done.misses['front'][0] == 'no_pose'
            # in these 80 ms the vehicle turns by 0.1 to the left: what was ahead is to the right
            car.pose(100, 1.0)
            car.pose(180, 1.1)
        car.cloud(180, points=right)
        assert labels(car.due()[-1]) == wanted


NAMELESS = 'the masks or the clouds name no frame: frame_id is empty'


@pytest.mark.parametrize(
    ('lens', 'mask', 'frame', 'reason', 'words'),
    [
        (None, 'front', 'lidar', 'no_info', 'no camera_info came'),
        (calibration(focal=0.0), 'front', 'lidar', 'bad_info', 'camera_info has focal lengths 0'),
        (LENS, 'front', 'nowhere', 'no_transform', "no transform from 'nowhere' to 'front'"),
        # clouds and masks without a frame are not taken for those of one frame
        (LENS, '', '', 'no_transform', NAMELESS),
        (LENS, '/', 'lidar', 'no_transform', NAMELESS),
        (LENS, 'front', '', 'no_transform', NAMELESS),
    ],
)
def test_what_is_missing_is_named(lens, mask, frame, reason, words):
    car = Car(calibrated=False, cameras=('front',))
    if lens is not None:
        car.painter.take_info('front', info_of(lens))
    car.painter.take_labels('front', image(np.full(SIZE, 1, np.uint8), 'mono8', 100 * MS, mask))
    car.cloud(100, frame=frame)
    (done,) = car.due(0.0)
    assert labels(done) == [255] * 3
    found, text = done.misses['front']
    assert found == reason and text.startswith(f'front: {words}')


def test_poses_of_another_frame_are_refused():
    car = Car(ego_motion=True)
    for child in ('', 'base_link', '/base_link'):
        message = pose_of(100 * MS, np.eye(4))
        message.child_frame_id = child
        car.painter.take_pose(message)
    message.child_frame_id = 'body'
    with pytest.raises(CloudError, match="those of 'body', base_frame is 'base_link'"):
        car.painter.take_pose(message)


def test_a_depth_image_is_labelled_by_its_own_camera_and_the_others():
    """Every pixel gets its own label: nothing of its own picture is hidden from a camera."""
    car = Car(occlusion=Occlusion())
    bent = calibration('plumb_bob', (-0.3, 0.1, 0.001, 0, 0), width=160, height=90, focal=100.0)
    car.painter.take_info('front', info_of(bent))
    # every second column far behind its neighbours, as at the edges of things
    depth = np.where(np.arange(160) % 2, 3.0, 30.0) * np.ones((90, 1), np.float32)
    depth[:10] = np.nan
    message = image(depth.astype(np.float32), '32FC1', 100 * MS, 'front')
    with pytest.raises(CloudError, match='no camera_info came'):
        Car(calibrated=False).painter.take_depth('front', message, 0.0)
    mask = np.random.default_rng(0).integers(0, 11, SIZE, np.uint8)
    car.mask(100, front=mask, left=3)
    car.painter.take_depth('front', message, 0.0)
    (done,) = car.due(0.0)
    assert (done.sensor, done.frame_id, done.hidden) == ('front', 'front', 0)
    found = done.cloud.records['label']
    assert (found[10:] == mask[10:]).mean() > 0.999 and (found[:10] == 255).all()


def test_a_depth_pixel_keeps_the_label_of_its_own_camera():
    """Who stands before the wall in the other's picture is not in this one."""
    car = Car(confidence=True, occlusion=Occlusion())
    wall = np.full(SIZE, 1, np.uint8)
    wall[:, :80] = 255
    # the other camera, which stands at the same place, is surer
    for camera, labels_, sure in (('left', 9, 250), ('front', wall, 180)):
        pixels, sure = (np.full(SIZE, value, np.uint8) for value in (labels_, sure))
        car.painter.take_labels(camera, image(pixels, 'mono8', 100 * MS, 'front'))
        car.painter.take_confidence(camera, image(sure, 'mono8', 100 * MS))
    depth = image(np.full(SIZE, 5, np.float32), '32FC1', 100 * MS, 'front')
    car.painter.take_depth('front', depth, 0.0)
    (done,) = car.due(0.0)
    found = done.cloud.records
    assert (found['label'][:, 80:] == 1).all() and (found['confidence'][:, 80:] == 180).all()
    assert (found['label'][:, :80] == 9).all(), 'it says nothing there'


def mutants(value: Any) -> Iterator[Any]:
    """Yield what a message, or a field of one, may hold instead."""
    if isinstance(value, SimpleNamespace) or dataclasses.is_dataclass(value):
        names = vars(value) if isinstance(value, SimpleNamespace) else value.__slots__
        known = {name: getattr(value, name) for name in names}
        for name in names:
            for other in mutants(known[name]):
                yield SimpleNamespace(**known | {name: other})
    elif isinstance(value, int):
        yield from (0, 1, 7, 2**31 - 1, 2**31, 2**32 - 1)
    elif isinstance(value, float):
        yield from (math.nan, math.inf, -1.0, 1e308, -1e308, 5e-324)
    elif isinstance(value, str):
        yield from ('', 'x', '{"classes": [{"id": 900, "color": [0, 0, 900]}]}', '[' * 100_000)
    elif value is not None:
        yield from (value[:0], value[: len(value) // 2])
        for place, inner in enumerate(value if isinstance(value, tuple) else ()):
            for other in mutants(inner):
                yield (*value[:place], other, *value[place:][1:])
        if isinstance(value, tuple) and value and isinstance(value[0], float):
            yield from ((other,) * len(value) for other in mutants(value[0]))


PIXELS = np.full(SIZE, 3, np.uint8)
SMALL = {'width': 160, 'height': 90}
MESSAGES = {
    'labels': image(PIXELS, 'mono8', 100 * MS, 'front'),
    'confidence': image(PIXELS, 'mono8', 100 * MS, 'front'),
    'info': info_of(calibration('plumb_bob', (-0.3, 0.1, 0.01, 0.0, 0.0), **SMALL)),
    'info fisheye': info_of(calibration('equidistant', (0.1, 0.1, 0.0, 0.0), **SMALL)),
    'legend': SimpleNamespace(data='{"classes": [{"id": 1, "color": [1, 2, 3]}]}'),
    'pose': pose_of(100 * MS, np.eye(4)),
    'cloud': cloud_of(cloud([*POINTS, POINTS[0]], height=2, extra={'v': (7, range(4))}), 130 * MS),
    'depth': image(PIXELS.astype(np.uint16) * 900, '16UC1', 130 * MS, 'front'),
}  # fmt: skip


@pytest.mark.filterwarnings('ignore::RuntimeWarning')
@pytest.mark.parametrize('kind', MESSAGES)
def test_whatever_a_message_holds_it_is_used_or_refused(kind):
    refused = 0
    for mutant in mutants(MESSAGES[kind]):
        car = Car(ego_motion=True, cameras=('front',))
        car.mask(100, front=1)
        car.pose(90)
        car.pose(170)
        for name, message in (('cloud', MESSAGES['cloud']), (kind.split()[0], mutant)):
            try:
                take = getattr(car.painter, f'take_{name}')
                if name in ('cloud', 'depth'):
                    take('front', message, 0.0)
                else:
                    take(*(() if name == 'pose' else ('front',)), message)
            except CloudError:
                refused += 1
        assert car.due(everything=True)
    assert refused or kind.startswith('info')


@pytest.mark.parametrize('label', [0, 13, 18, 19])
def test_points_have_the_colours_of_the_legend(label):
    car = Car(cameras=('front',))
    car.painter.take_legend('front', SimpleNamespace(data=legend(CITYSCAPES19)))
    car.mask(100, front=label)
    car.cloud(100)
    (done,) = car.due(0.0)
    red, green, blue = (*CITYSCAPES19.colors, (0, 0, 0))[label]
    found = done.cloud.records['rgb'].ravel().view('<u4')
    assert found.tolist() == [red << 16 | green << 8 | blue, 0, 0]


def test_a_camera_of_other_classes_than_the_first_is_not_mixed_in():
    car = Car()
    # the second comes first
    for camera, taxonomy in (('left', CAMVID11), ('front', CITYSCAPES19)):
        car.painter.take_legend(camera, SimpleNamespace(data=legend(taxonomy)))
        car.mask(100, **{camera: 3})
    car.cloud(100)
    (done,) = car.due(0.0)
    assert labels(done) == [3, 255, 255]
    red, green, blue = CITYSCAPES19.colors[3]
    found = done.cloud.records['rgb'].ravel().view('<u4')
    assert found[0] == red << 16 | green << 8 | blue
    reason, text = done.misses['left']
    assert reason == 'other_classes'
    assert text.startswith("left: its class 0 is 'sky', that of front is 'road': give")


@pytest.mark.parametrize('number', [-1, 256])
def test_legends_of_ids_that_no_class_can_have_are_refused(number):
    text = json.dumps({'classes': [{'id': number, 'name': 'road', 'color': [1, 2, 3]}]})
    with pytest.raises(CloudError, match=f'id {number} is not within 0 to 254'):
        Car().painter.take_legend('front', SimpleNamespace(data=text))


def test_stamps_that_start_over_start_the_masks_over():
    car = Car(cameras=('front',))
    car.mask(2900, front=1)
    car.mask(200, front=2)
    car.cloud(300)
    assert not car.due(0.0)
    car.cloud(2900)
    assert [labels(done)[0] for done in car.due()] == [2, 255]


def test_one_stamp_from_the_future_costs_no_more_than_itself():
    car = Car(cameras=('front',))
    for stamp in (100, 1050, 150):
        car.mask(stamp, front=1)
    car.cloud(150)
    (done,) = car.due(0.0)
    assert labels(done) == [1, 255, 255]


def test_a_mask_from_the_near_future_does_not_hurry_the_clouds_after_it():
    car = Car(cameras=('front',))
    for stamp in (100, 500, 150):
        car.mask(stamp, front=1)
    car.cloud(350)
    assert not car.due(0.0)
    car.mask(350, front=2)
    (done,) = car.due(0.0)
    assert labels(done) == [2, 255, 255]


@pytest.mark.parametrize(('newest', 'kept'), [(490, True), (530, False)])
def test_masks_are_kept_as_long_as_a_cloud_may_wait(newest, kept):
    car = Car(cameras=('front',))
    car.mask(10, front=1)
    car.mask(newest, front=2)
    car.cloud(100)
    (done,) = car.due()
    assert labels(done) == [1 if kept else 255, 255, 255]


def test_stamps_a_nanosecond_apart_do_not_fill_the_memory():
    car = Car(cameras=('front',))
    for number in range(1000):
        car.mask(number / MS, front=1)
    assert len(car.painter._labels['front'].entries) < 200


def test_clear_keeps_the_calibration_only():
    car = Car(cameras=('front',))
    car.mask(100, front=1)
    car.cloud(100)
    car.painter.clear()
    assert not car.due()
    car.cloud(100)
    (done,) = car.due()
    assert done.misses['front'][0] == 'no_mask'
    car.mask(200, front=1)
    car.cloud(200)
    (done,) = car.due()
    assert not done.misses


def test_the_view_from_above_has_the_colours_of_the_labels_at_their_places():
    palette = CAMVID11.palette()
    points = [(20.0, 0.0, 0.0), (20.0, 8.0, 0.0), (20.0, 8.0, 1.0), (10.0, 5.0, 9.0)]
    labels = np.array([3, 3, 8, 1], np.uint8)
    seen = cloud(points).with_labels(labels, np.zeros(4, np.uint8), palette)
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
    assert max(at(10, 5)) < 60, 'what hangs over the road is left out'
