# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Geometry, bytes and labels of clouds, without ROS."""

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

from cloud_samples import calibration, cloud, image, looking
import cv2
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from nightseg_ros.clouds.camera_model import CameraModel, NEAR, pixel_rays
from nightseg_ros.clouds.geometry import (
    BODY_FROM_OPTICAL,
    CloudError,
    FrameTree,
    from_angles,
    from_pose,
    interpolated,
    inverse,
    PoseTrack,
    quaternion,
)
from nightseg_ros.clouds.painter import Occlusion, paint, View
from nightseg_ros.clouds.point_cloud import (
    DATATYPES,
    depth_cloud,
    DEPTH_ENCODINGS,
    Field,
    read_cloud,
    read_depth,
    read_plane,
)
from nightseg_ros.taxonomy import CAMVID11
import numpy as np
import pytest

SIZE = (360, 640)
UNHIDDEN = Occlusion(cell=0.0)
PALETTE = CAMVID11.palette()

small = st.floats(-0.02, 0.02)
pinholes = st.one_of(
    st.tuples(st.floats(-0.45, 0.4), st.floats(-0.2, 0.3), small, small, st.floats(-0.1, 0.1)).map(
        lambda d: ('plumb_bob', d)
    ),
    st.tuples(
        st.floats(-0.4, 1.0), st.floats(-0.1, 0.3), small, small, st.floats(0, 0.05),
        st.floats(0, 1.0), st.floats(0, 0.3), st.floats(0, 0.05),
    ).map(lambda d: ('rational_polynomial', d)),
)  # fmt: skip
fisheyes = st.tuples(*[st.floats(-0.05, 0.05)] * 4).map(lambda d: ('equidistant', d))


def by_opencv(model: str, d: tuple[float, ...], points: Any) -> Any:
    """Return where OpenCV's own function puts [N, 3] points, [N, 2]."""
    k = np.array(calibration().k).reshape(3, 3)
    zero = np.zeros(3)
    if model == 'equidistant':
        return cv2.fisheye.projectPoints(points[:, None], zero, zero, k, np.array(d))[0][:, 0]
    return cv2.projectPoints(points, zero, zero, k, np.array(d) if d else None)[0][:, 0]


def radial(model: str, d: tuple[float, ...], r: Any) -> Any:
    """Return the distance from the centre of rays at tangent ``r``, without tangential terms."""
    if model == 'equidistant':
        a = np.arctan(r)
        return a * (1 + d[0] * a**2 + d[1] * a**4 + d[2] * a**6 + d[3] * a**8)
    k1, k2, _, _, k3, k4, k5, k6 = (*d, *[0.0] * 8)[:8]
    s = r * r
    return r * (1 + k1 * s + k2 * s**2 + k3 * s**3) / (1 + k4 * s + k5 * s**2 + k6 * s**3)


def fold(model: str, d: tuple[float, ...]) -> float:
    """Return the tangent at which the radial function first falls, by looking at every one."""
    r = np.tan(np.linspace(0, math.radians(89.8), 200_001))
    falls = np.flatnonzero(np.diff(radial(model, d, r)) <= 0)
    return float(r[falls[0]]) if len(falls) else math.inf


# -- projection ------------------------------------------------------------------------------


@settings(max_examples=60)
@given(lens=st.one_of(st.just(('plumb_bob', ())), pinholes, fisheyes), seed=st.integers(0, 999))
@example(lens=('rational_polynomial', (0, 0, 0, 0, 2e-78, 1.0, 0.25, 0)), seed=0)
@example(lens=('rational_polynomial', (0.1, 0, 0, 0, -1e-17, 1.0, 0.25, 1e-14)), seed=0)
@example(lens=('plumb_bob', (-0.3, 1e-16, 0, 0, 1e-200)), seed=0)
@example(lens=('equidistant', (0.01, -0.02, 1e-18, 1e-300)), seed=0)
def test_projection_is_opencvs(lens, seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform((-6, -4, -2), (6, 4, 8), (400, 3))
    model = CameraModel(calibration(*lens), SIZE)
    index, u, v, near = model.project(points.T.astype(np.float32))
    assert (points[index, 2] > NEAR * 0.99).all(), 'a point behind the camera is in the image'
    distance = np.linalg.norm(points, axis=1) if model.distorts else points[:, 2]
    np.testing.assert_allclose(near, 1 / distance[index], rtol=1e-5)
    wanted = by_opencv(*lens, points)
    np.testing.assert_allclose(np.stack([u, v], 1), wanted[index], atol=0.02)

    r = np.hypot(points[:, 0], points[:, 1]) / points[:, 2]
    margin = 0.1
    x, y = wanted.T
    inside = (np.abs(x - 319.5) < 320 - margin) & (np.abs(y - 179.5) < 180 - margin)
    once = (points[:, 2] > NEAR) & (r < 0.999 * fold(*lens))
    # where the tangential terms push as hard as the radial ones, no model is meant to hold
    p = sum(map(abs, lens[1][2:4])) if lens[0] != 'equidistant' and lens[1] else 0
    once &= 3 * p * r < 0.15
    missing = set(np.flatnonzero(inside & once)) - set(index.tolist())
    assert not missing, points[sorted(missing)]


@pytest.mark.parametrize(
    'lens', [('plumb_bob', (-0.4, 0.05, 0, 0, 0)), ('equidistant', (0.0, 0.0, 0.0, -0.1)),
             ('rational_polynomial', (0.1, -0.3, 0, 0, 0, 0, 0, 0))],
)  # fmt: skip
def test_what_lies_beyond_the_fold_of_the_lens_is_not_seen(lens):
    """The projection of OpenCV draws such points back into the image."""
    limit = fold(*lens)
    assert limit < 8
    r = np.linspace(limit * 1.01, limit * 3, 300)
    points = np.stack([r, 0.1 * r, np.ones_like(r)], 1)
    wanted = by_opencv(*lens, points)
    folded = (np.abs(wanted[:, 0] - 319.5) < 320) & (np.abs(wanted[:, 1] - 179.5) < 180)
    assert folded.any(), 'this lens proves nothing'
    index, *_ = CameraModel(calibration(*lens), SIZE).project(points.T.astype(np.float32))
    assert not len(index)


@settings(max_examples=30)
@given(lens=st.one_of(pinholes, fisheyes))
def test_the_ray_of_a_pixel_falls_on_that_pixel(lens):
    given_ = calibration(*lens, width=64, height=36, focal=50)
    model = CameraModel(given_, (36, 64))
    rays = pixel_rays(model)
    known = ~np.isnan(rays[0])
    assert known[15:20, 28:36].all(), 'the middle of the image has rays'
    rows, columns = np.nonzero(known)
    points = np.stack([rays[0][known], rays[1][known], np.ones(known.sum(), np.float32)]) * 7
    index, u, v, _ = model.project(points)
    assert len(index) >= 0.99 * known.sum()
    np.testing.assert_allclose(u, columns[index], atol=0.15)
    np.testing.assert_allclose(v, rows[index], atol=0.15)


def test_no_nan_and_no_infinity_is_seen():
    model = CameraModel(calibration(), SIZE)
    bad = [math.nan, math.inf, -math.inf]
    points = [(a, 0, 5) for a in bad] + [(0, a, 5) for a in bad] + [(0, 0, a) for a in bad[:1]]
    index, *_ = model.project(np.array([*points, (0, 0, 5)], np.float32).T)
    assert index.tolist() == [len(points)]


@given(width=st.sampled_from([320, 640, 213]), u=st.floats(5, 630), v=st.floats(5, 350))
def test_smaller_labels_show_the_same_places(width, u, v):
    size = (round(360 * width / 640), width)
    whole = CameraModel(calibration(), SIZE)
    ray = ((u - whole.cx) / whole.fx * 4, (v - whole.cy) / whole.fy * 4, 4.0)
    _, (a,), (b,), _ = CameraModel(calibration(), size).project(np.array([ray], np.float32).T)
    assert a == pytest.approx((u + 0.5) * size[1] / 640 - 0.5, abs=0.01)
    assert b == pytest.approx((v + 0.5) * size[0] / 360 - 0.5, abs=0.01)


def test_region_binning_and_rectification_count():
    region = calibration(roi=(100, 60, 320, 180), binning=(2, 2))
    model = CameraModel(region, (90, 160))
    whole = CameraModel(calibration(), SIZE)
    assert (model.fx, model.fy) == (whole.fx / 2, whole.fy / 2)
    assert model.cx == pytest.approx((whole.cx - 100 + 0.5) / 2 - 0.5)
    assert model.cy == pytest.approx((whole.cy - 60 + 0.5) / 2 - 0.5)
    bent = calibration('plumb_bob', (-0.3, 0.1, 0, 0, 0),
                       p=(300, 0, 310, 0, 0, 301, 170, 0, 0, 0, 1, 0))  # fmt: skip
    flat = CameraModel(bent, SIZE, rectified=True)
    assert (flat.fx, flat.fy, flat.cx, flat.cy, flat.distorts) == (300, 301, 310, 170, False)
    second = dataclasses.replace(bent, p=(300, 0, 310, -36, 0, 301, 170, 0, 0, 0, 1, 0))
    with pytest.raises(CloudError, match='the fourth column -36, 0, which is that of the second'):
        CameraModel(second, SIZE, rectified=True)
    assert CameraModel(second, SIZE).distorts


@pytest.mark.parametrize(
    ('given_', 'words'),
    [
        (calibration(focal=0.0), 'focal lengths 0 and 0: the camera is not calibrated'),
        (calibration(focal=math.nan), 'not finite'),
        (calibration(focal=1e308), r'beyond 1e\+09'),
        (calibration(focal=1e-308), 'not calibrated'),
        (calibration('plumb_bob', (1e308,) * 5), r'beyond 1e\+09'),
        (calibration('equidistant', (-1e308,) * 4), r'beyond 1e\+09'),
        (calibration('kannala_brandt', (0.1,) * 4), "'kannala_brandt' is not known; known ones"),
        (calibration('', (0.1,) * 5), "distortion model '' has 5 coefficients"),
        (calibration('plumb_bob', (0.1,) * 3), "'plumb_bob' has 3 coefficients; wanted: 0 or 4"),
        (calibration('equidistant', ()), "'equidistant' has 0 coefficients; wanted: 4"),
        (calibration(width=0, height=0), 'for 0×0 pixels'),
        (calibration(width=640, height=640), 'the labels have 640×360: they are of another shape'),
        (calibration(width=640, height=384), 'the labels have 640×360: they are of another shape'),
        (calibration(width=640, height=356), 'the labels have 640×360: they are of another shape'),
        (dataclasses.replace(calibration(), k=()), '0 numbers where 9 are wanted'),
    ],
)
def test_calibrations_that_cannot_be_used_say_why(given_, words):
    with pytest.raises(CloudError, match=words):
        CameraModel(given_, SIZE)


# -- transforms and motion -------------------------------------------------------------------

turns = st.tuples(*[st.floats(-3.1, 3.1)] * 3)
places = st.tuples(*[st.floats(-50, 50)] * 3)


@given(place=places, turn=turns)
def test_poses_survive_their_quaternion_and_their_inverse(place, turn):
    matrix = from_angles(place, turn)
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)
    np.testing.assert_allclose(from_pose(place, quaternion(matrix)), matrix, atol=1e-9)
    np.testing.assert_allclose(inverse(matrix) @ matrix, np.eye(4), atol=1e-9)


def test_angles_are_roll_pitch_yaw_and_optical_frames_look_ahead():
    ahead = from_angles((0, 0, 0), (0, 0, math.pi / 2)) @ [1, 0, 0, 1]
    np.testing.assert_allclose(ahead, [0, 1, 0, 1], atol=1e-12)
    down = from_angles((0, 0, 0), (0, math.pi / 2, 0)) @ [1, 0, 0, 1]
    np.testing.assert_allclose(down, [0, 0, -1, 1], atol=1e-12)
    np.testing.assert_array_equal(BODY_FROM_OPTICAL @ [1, 2, 3, 1], [3, -1, -2, 1])


def test_frames_are_connected_over_others_and_either_way():
    tree = FrameTree()
    tree.add_text('base_link lidar 1 0 2 0 0 0 1')
    tree.add_text('base_link, camera, 2, 0, 1, 0, 0, 1.5707963')
    tree.add('camera', 'optical', BODY_FROM_OPTICAL)
    point = tree.lookup('optical', 'lidar') @ [4, 3, 0, 1]
    # in the base at 5 3 2; from the camera, which looks left, 3 ahead, 3 to the right, 1 up
    np.testing.assert_allclose(point, [3, -1, 3, 1], atol=1e-6)
    np.testing.assert_allclose(
        tree.lookup('lidar', 'optical') @ tree.lookup('optical', 'lidar'), np.eye(4), atol=1e-9
    )
    with pytest.raises(CloudError, match="'odom' to 'lidar' is known; known frames: base_link, c"):
        tree.lookup('lidar', 'odom')


@pytest.mark.parametrize(
    'text', ['a b 1 2 3', 'a b 1 2 3 0 0 0 0', 'a b 1 2 x 0 0 0', 'a', 'a b nan 0 0 0 0 0 1']
)
def test_transforms_that_are_none_are_quoted(text):
    with pytest.raises(CloudError, match='ROLL PITCH YAW, in metres and radians'):
        FrameTree().add_text(text)


@given(first=st.tuples(places, turns), second=st.tuples(places, turns), share=st.floats(0, 1))
def test_between_two_poses_the_way_is_straight_and_the_turn_even(first, second, share):
    a, b = from_angles(*first), from_angles(*second)
    between = interpolated(a, b, share)
    np.testing.assert_allclose(between[:3, 3], a[:3, 3] + share * (b[:3, 3] - a[:3, 3]), atol=1e-6)

    def angle(one: Any, other: Any) -> float:
        cosine = (np.trace(one[:3, :3].T @ other[:3, :3]) - 1) / 2
        return math.acos(min(1.0, max(-1.0, cosine)))

    assume(angle(a, b) < 3.1)
    assert angle(a, between) == pytest.approx(share * angle(a, b), abs=1e-4)


def test_a_track_knows_what_lies_between_its_poses_and_nothing_else():
    track = PoseTrack(4)
    with pytest.raises(CloudError, match='no pose for the stamp 5 ns; poses known: none'):
        track.at(5)
    # in any order
    for number in (0, 2, 1, 1, *range(9, 2, -1)):
        track.add(number * 100_000_000, from_angles((number, 0, 0), (0, 0, 0)))
    assert track.at(250_000_000)[0, 3] == pytest.approx(2.5)
    # what stands still ahead has come nearer by what was driven
    moved = track.moved(200_000_000, 450_000_000) @ [10, 0, 0, 1]
    np.testing.assert_allclose(moved, [7.5, 0, 0, 1])
    for stamp in (-1, 900_000_001):
        with pytest.raises(CloudError, match='no pose for the stamp'):
            track.at(stamp)
    track.add(2_000_000_000, np.eye(4))
    with pytest.raises(CloudError, match=r'no pose for 1\.1 s around'):
        track.at(1_500_000_000)
    # twice the same, and later both are forgotten
    for _ in range(2):
        track.add(900_000_000, np.eye(4))
    with pytest.raises(CloudError, match='no pose for the stamp'):
        track.at(500_000_000)
    track.add(9_000_000_000, np.eye(4))
    with pytest.raises(CloudError, match='poses known: 9000000000 to 9000000000'):
        track.at(900_000_000)


# -- bytes -----------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    big=st.booleans(), height=st.sampled_from([1, 3]), float_type=st.sampled_from([7, 8]),
    point_padding=st.integers(0, 7), row_padding=st.integers(0, 9),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_every_field_survives(big, height, float_type, point_padding, row_padding, seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-100, 100, (12, 3))
    extra = {f'f{kind}': (kind, rng.integers(0, 100, 12)) for kind in DATATYPES}
    before = cloud(
        points, extra=extra, big=big, height=height, float_type=float_type,
        point_padding=point_padding, row_padding=row_padding,
    )  # fmt: skip
    np.testing.assert_allclose(before.xyz().T, points, rtol=1e-6)
    labels = rng.integers(0, 12, 12, np.uint8)
    labels[0] = 255
    sure = rng.integers(0, 256, 12, np.uint8)
    after = before.with_labels(labels, sure, PALETTE)
    assert (after.height, after.width) == (before.height, before.width)
    assert (after.is_bigendian, after.is_dense) == (big, True)
    assert after.fields[:-3] == before.fields
    assert [field.name for field in after.fields[-3:]] == ['label', 'confidence', 'rgb']
    assert after.row_step == after.width * after.point_step
    for field in before.fields:
        np.testing.assert_array_equal(after.records[field.name], before.records[field.name])
    np.testing.assert_array_equal(after.records['label'].ravel(), labels)
    np.testing.assert_array_equal(after.records['confidence'].ravel(), sure)
    # the bytes of the float are 0, red, green, blue from the highest to the lowest
    raw = after.data.reshape(12, after.point_step)[:, -4:]
    rgb = raw[:, 1:] if big else raw[:, 2::-1]
    np.testing.assert_array_equal(rgb, PALETTE[labels])


def test_colours_that_came_along_give_way_to_the_classes():
    before = cloud(np.ones((2, 3)), extra={'rgb': (7, [0, 0]), 'label': (4, [7, 8])})
    after = before.with_labels(np.array([3, 5], np.uint8), np.zeros(2, np.uint8), PALETTE)
    assert [field.name for field in after.fields] == ['x', 'y', 'z', 'label', 'confidence', 'rgb']
    assert after.records['label'].tolist() == [[3, 5]]


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'fields': ()}, r'no field x, y, z; it has \[\]'),
        ({'fields': (Field(name='x', offset=0, datatype=9),)}, "'x' has datatype 9; 1 to 8"),
        ({'point_step': 8}, "field 'z' ends at byte 12 of points of 8 bytes"),
        ({'width': 50}, 'the cloud has 48 bytes, its points take 600'),
        ({'height': 2, 'width': 2, 'row_step': 12}, 'row_step is 12, 2 points take 24 bytes'),
        ({'fields': (Field(name='x', offset=0, datatype=7),) * 2}, 'two fields of the cloud'),
        ({'width': -4}, 'a cloud of -4×1 points'),
        ({'point_step': 2**32 - 1, 'width': 0}, 'points of 4294967295 bytes'),
        (
            {'fields': (Field(name='a', offset=0, datatype=8, count=2**32 - 1),)},
            "'a' ends at byte 34359738360",
        ),
    ],
)
def test_clouds_that_contradict_themselves_say_how(change, words):
    with pytest.raises(CloudError, match=words):
        dataclasses.replace(cloud(np.ones((4, 3))), **change)


def test_fields_without_a_name_or_a_count_are_taken():
    fields = [SimpleNamespace(name=n, offset=4 * i, datatype=7, count=c)
              for i, (n, c) in enumerate([('x', 1), ('y', 1), ('z', 0), ('', 2)])]  # fmt: skip
    found = read_cloud(SimpleNamespace(
        fields=fields, height=1, width=1, point_step=20, row_step=20, is_bigendian=False,
        is_dense=True, data=np.arange(5, dtype='<f4').view(np.uint8),
    ))  # fmt: skip
    assert found.xyz().ravel().tolist() == [0, 1, 2]
    assert found.records['unnamed_field_3'].tolist() == [[[3, 4]]]


# -- depth -----------------------------------------------------------------------------------


@pytest.mark.parametrize('encoding', DEPTH_ENCODINGS)
@pytest.mark.parametrize('big', [False, True])
def test_depth_becomes_points_in_metres(encoding, big):
    depth = np.full((36, 64), 4.0)
    depth[3, 5] = 7.5
    if encoding == '32FC1':
        stored = depth.astype(np.float32)
        stored[0, :4] = [0, math.nan, math.inf, -1]
    else:
        stored = (depth * 1000).astype(np.uint16)
        stored[0, :4] = 0
    found = read_depth(image(stored, encoding, padding=6, big=big))
    assert found.dtype == np.float32 and np.isnan(found[0, :4]).all()
    model = CameraModel(calibration(width=64, height=36, focal=50), (36, 64))
    points = depth_cloud(found, model)
    assert (points.height, points.width, points.is_dense) == (36, 64, False)
    place = points.records[3, 5]
    assert place['z'] == pytest.approx(7.5)
    assert place['x'] == pytest.approx((5 - model.cx) / model.fx * 7.5, rel=1e-5)
    assert place['y'] == pytest.approx((3 - model.cy) / model.fy * 7.5, rel=1e-5)
    assert np.isnan(points.records[0, 0]['x'])


def test_images_that_are_no_plane_say_why():
    good = image(np.ones((4, 6), np.uint8), 'mono8', padding=2)
    np.testing.assert_array_equal(read_plane(good, ('mono8',)), np.ones((4, 6)))
    for change, words in (
        ({'encoding': 'rgb8'}, "encoding is 'rgb8'; wanted: mono8"),
        ({'step': 5}, '6×4 pixels with rows of 5 bytes'),
        ({'data': good.data[:20]}, 'has 20 bytes, its pixels take 30'),
        ({'height': 0}, '6×0 pixels'),
    ):
        with pytest.raises(CloudError, match=words):
            read_plane(SimpleNamespace(**{**vars(good), **change}), ('mono8',))


# -- labels ----------------------------------------------------------------------------------


def by_hand(points: Any, views: list[View]) -> tuple[list[int], list[int]]:
    """Label point by point, without occlusion."""
    labels, sure = [], []
    for point in points:
        best = (255, 0, False)
        for view in views:
            x, y, z, _ = view.camera_from_cloud @ [*point, 1]
            if not z > NEAR:
                continue
            u, v = (round(float(c)) for c in (x / z * view.model.fx + view.model.cx,
                                              y / z * view.model.fy + view.model.cy))  # fmt: skip
            if not (0 <= u < view.model.width and 0 <= v < view.model.height):
                continue
            label = int(view.labels[v, u])
            score = 0 if view.confidence is None else int(view.confidence[v, u])
            if label != 255 and (not best[2] or score > best[1]):
                best = (label, score, True)
        labels.append(best[0])
        sure.append(best[1])
    return labels, sure


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), sure=st.lists(st.booleans(), min_size=1, max_size=3))
def test_the_more_confident_camera_wins(seed, sure):
    rng = np.random.default_rng(seed)
    views = []
    for known in sure:
        labels = rng.integers(0, 12, (36, 64), np.uint8)
        labels[labels == 11] = 255
        views.append(View(
            model=CameraModel(calibration(width=64, height=36, focal=40), (36, 64)),
            camera_from_cloud=inverse(looking(rng.uniform(-0.5, 0.5), *rng.uniform(-1, 1, 3))),
            labels=labels,
            # few values, so that some are equal
            confidence=rng.integers(0, 4, (36, 64), np.uint8) * 80 if known else None,
        ))  # fmt: skip
    points = rng.uniform((-5, -8, -3), (20, 8, 3), (200, 3))
    painted, confidence, hidden = paint(points.T.astype(np.float32), views, UNHIDDEN)
    labels, scores = by_hand(points, views)
    # a point on the border of two pixels may fall on either
    assert (painted == labels).mean() > 0.98
    assert (confidence == scores).mean() > 0.98
    assert (confidence[painted == 255] == 0).all() and not hidden


def test_points_far_from_the_origin_of_a_map_keep_their_places():
    rng = np.random.default_rng(0)
    points = rng.uniform((-5, -8, -3), (20, 8, 3), (400, 3))
    model = CameraModel(calibration(width=64, height=36, focal=40), (36, 64))
    mask, painted = rng.integers(0, 11, (36, 64), np.uint8), []
    for origin, kind in ((np.zeros(3), 7), (np.array([4e5, 5.3e6, 100]), 8)):
        place = inverse(looking(0.2, *origin))
        view = View(model=model, camera_from_cloud=place, labels=mask)
        given_ = cloud(points + origin, float_type=kind).xyz()
        painted.append(paint(given_, [view], UNHIDDEN)[0])
    assert (painted[0] != 255).sum() > 50
    assert (painted[0] == painted[1]).mean() > 0.99


@pytest.mark.parametrize(
    ('lens', 'size'),
    [
        (calibration(), SIZE),
        (calibration(binning=(1, 2)), (180, 640)),
        (calibration('equidistant', (0.0,) * 4, focal=220), SIZE),
        (calibration('equidistant', (0.05, -0.01, 0.002, -0.0003), focal=220), SIZE),
        (calibration('rational_polynomial', (0.3, 0.05, 0, 0, 0.01, 0.6, 0.15, 0.02), focal=300),
         SIZE),
    ],
)  # fmt: skip
@given(
    height=st.floats(1.0, 3.0), pitch=st.floats(-0.2, 0.2), cell=st.sampled_from([2.0, 8.0, 20.0])
)
@settings(max_examples=40)
def test_no_plane_hides_itself(lens, size, height, pitch, cell):
    rng = np.random.default_rng(0)
    # as near as the ground beside a fisheye
    ground = np.stack([80 ** rng.uniform(-0.2, 1, 4000), rng.uniform(-20, 20, 4000),
                       np.full(4000, -height)])  # fmt: skip
    place = inverse(from_angles((0, 0, 0), (0, pitch, 0)) @ BODY_FROM_OPTICAL)
    moved = (place[:3, :3] @ ground).astype(np.float32)
    labels = np.full(size, 3, np.uint8)
    view = View(model=CameraModel(lens, size), camera_from_cloud=np.eye(4), labels=labels)
    painted, _, hidden = paint(moved, [view], Occlusion(cell=cell, clearance=0.7))
    assert (painted == 3).sum() > 500 and not hidden


@given(
    seed=st.integers(0, 999), cell=st.sampled_from([2.0, 8.0]), width=st.integers(33, 40),
    clearance=st.sampled_from([0.25, 0.5]),
)  # fmt: skip
def test_a_cell_hides_what_lies_behind_its_nearest_and_no_other_does(seed, cell, width, clearance):
    rng = np.random.default_rng(seed)
    height, focal = 30, 16.0
    u, v = (rng.integers(0, side, 300) - np.float32(0.25) for side in (width, height))
    near = rng.integers(1, 9, 300).astype(np.float32)
    cells = [(int((y + 0.5) / cell), int((x + 0.5) / cell)) for x, y in zip(u, v)]
    nearest: dict[tuple[int, int], float] = {}
    for at, one in zip(cells, near):
        nearest[at] = max(one, nearest.get(at, 0))
    allowed = cell / focal / clearance
    wanted = [one >= nearest[at] - allowed for at, one in zip(cells, near)]
    occlusion = Occlusion(cell=cell, clearance=clearance)
    assert occlusion.visible(u, v, near, (height, width), focal).tolist() == wanted


@pytest.mark.parametrize(
    'lens', [calibration(), calibration('equidistant', (0.05, -0.01, 0.002, -0.0003))]
)
def test_what_stands_behind_a_wall_gets_no_label(lens):
    rng = np.random.default_rng(0)
    side = rng.uniform(-2, 2, (2, 30_000))
    wall = np.stack([side[0], side[1], np.full(30_000, 5.0)])
    behind = np.stack([side[0, :400] * 2, side[1, :400] * 2, np.full(400, 12.0)])
    aside = np.stack([np.full(50, 9.0), np.zeros(50), np.full(50, 14.0)])
    points = np.concatenate([wall, behind, aside], 1).astype(np.float32)
    view = View(model=CameraModel(lens, SIZE), camera_from_cloud=np.eye(4),
                labels=np.full(SIZE, 3, np.uint8))  # fmt: skip
    painted, _, hidden = paint(points, [view], Occlusion())
    assert (painted[:30_000] == 3).all() and hidden == (painted == 255).sum() > 100
    inside = np.abs(behind[1] / 12 * 400) < 150
    assert (painted[30_000:30_400][inside] == 255).mean() > 0.98
    assert (painted[30_400:] == 3).all()
    assert (paint(points, [view], UNHIDDEN)[0][30_000:30_400][inside] == 3).all()
    for wrong in ({'cell': -1.0}, {'cell': math.nan}, {'clearance': 0.0}):
        with pytest.raises(ValueError, match="'(cell|clearance)' must be"):
            Occlusion(**wrong)
