# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg paint`` and the rendered LiDAR: labels on the points of a bag."""

from pathlib import Path
from typing import Any

from clouds import measure_drive, MOUNTS
from nightseg_ros.bags.reader import BagReader
from nightseg_ros.bags.writer import BagWriter
from nightseg_ros.cli.main import main
from nightseg_ros.clouds.geometry import as_text, from_pose, inverse
from nightseg_ros.clouds.painter import Occlusion
from nightseg_ros.clouds.point_cloud import read_cloud
from nightseg_ros.perception.result import legend
from nightseg_ros.simulation.drive import calibration, Drive, places, scan, START_NS, write_drive
from nightseg_ros.taxonomy import CAMVID11, CITYSCAPES19
import numpy as np
import pytest

SIZE = (320, 180)


@pytest.fixture(scope='module')
def drive():
    return Drive(seed=3, seconds=4, fps=2, size=SIZE)


@pytest.fixture(scope='module')
def bag(drive, tmp_path_factory):
    """Return a bag of two cameras with their true labels, and a LiDAR."""
    path = tmp_path_factory.mktemp('bags') / 'drive'
    with BagWriter(path) as writer:
        writer.write_transforms('/tf_static', places(MOUNTS), stamp_ns=START_NS)
        for camera in MOUNTS:
            topic = f'/{camera}/nightseg/label_info_json'
            writer.write_value(topic, legend(CAMVID11), START_NS)
        for index in range(4):
            stamp = drive.stamp_ns(index)
            cloud = scan(drive, index, lines=32)
            writer.write_cloud('/lidar/points', cloud, stamp_ns=stamp, frame_id='lidar')
            for camera, mount in MOUNTS.items():
                if camera == 'right' and index == 3:
                    continue
                frame = drive.frame(index, mount)
                place = {'stamp_ns': stamp, 'frame_id': camera}
                info = calibration(frame.camera)
                writer.write_calibration(f'/{camera}/camera_info', info, **place)
                writer.write_labels(f'/{camera}/nightseg/labels', frame.labels,
                                    received_ns=stamp + 50_000_000, **place)  # fmt: skip
                if camera == 'camera':
                    writer.write_image('/depth/image_raw', frame.depth, '32FC1', **place)
    return path


def clouds(path: Path, topic: str) -> list[Any]:
    with BagReader(path) as reader:
        (found,) = [t for t in reader.topics if t.name == topic]
        messages = [reader.read(message) for message in reader.messages(found)]
    return [(message, read_cloud(message)) for message in messages]


def test_a_bag_is_painted(bag, tmp_path, capsys):
    out = tmp_path / 'painted'
    assert main(['paint', str(bag), '--out', str(out)]) == 0
    said = capsys.readouterr().out
    assert '4 clouds of' in said and 'right: no_mask: 1 of 4 clouds' in said
    before, after = clouds(bag, '/lidar/points'), clouds(out, '/lidar/nightseg/points')
    assert len(after) == 4
    for (old, given), (new, painted) in zip(before, after):
        assert new.header == old.header
        for name in ('x', 'y', 'z', 'ring', 'truth'):
            np.testing.assert_array_equal(painted.records[name], given.records[name])
        labels, truth = painted.records['label'][0], painted.records['truth'][0]
        known = labels != 255
        assert known.mean() > 0.7
        assert (labels[known] == truth[known]).mean() > 0.95
    with BagReader(bag) as one, BagReader(out) as other:
        kept = {topic.name: topic.count for topic in other.topics}
        assert kept == {t.name: t.count for t in one.topics} | {'/lidar/nightseg/points': 4}
    # painted once more, the clouds that were painted are made anew
    again = tmp_path / 'again'
    assert main(['paint', str(out), '--out', str(again)]) == 0
    for (_, one_), (_, other_) in zip(after, clouds(again, '/lidar/nightseg/points'), strict=True):
        np.testing.assert_array_equal(one_.data, other_.data)


def test_a_depth_image_becomes_a_labelled_cloud(bag, drive, tmp_path):
    out = tmp_path / 'painted'
    depth = ['--depth', 'camera=/depth/image_raw', '--sensors', *['/lidar/points'] * 2]
    assert main(['paint', str(bag), '--out', str(out), *depth]) == 0
    assert clouds(out, '/lidar/nightseg/points'), 'a sensor that is named twice is one'
    found = clouds(out, '/camera/nightseg/points')
    assert len(found) == 4
    for index, (message, cloud) in enumerate(found):
        frame = drive.frame(index)
        assert (message.height, message.width) == (180, 320)
        near = np.isfinite(frame.depth)
        right = cloud.records['label'] == frame.labels
        assert right[near].mean() > 0.99
        assert (cloud.records['label'][~near] == 255).all()


def test_each_sensor_has_a_topic_of_its_own(bag, drive, tmp_path, capsys):
    cloud = scan(drive, 0, lines=8)
    names = ('/velodyne', '/ouster', '/camera/points')
    with BagReader(bag) as reader, BagWriter(tmp_path / 'more') as writer:
        for record in reader.records():
            writer.write(record)
        for name in names:
            writer.write_cloud(name, cloud, stamp_ns=drive.stamp_ns(0), frame_id='lidar')
    out = tmp_path / 'painted'
    assert main(['paint', str(tmp_path / 'more'), '--out', str(out)]) == 0
    for name in ('/velodyne', '/ouster', '/camera'):
        assert len(clouds(out, f'{name}/nightseg/points')) == 1
    twice = ['--depth', 'camera=/depth/image_raw', '--out', str(tmp_path / 'twice')]
    assert main(['paint', str(tmp_path / 'more'), *twice]) == 2
    assert "two sensors would share '/camera/nightseg/points'" in capsys.readouterr().err


def test_a_given_transform_wins_and_a_broken_one_costs_no_other(bag, tmp_path, capsys):
    (_, _, lidar), *cameras = places(MOUNTS)
    camera_from_base = inverse(cameras[0][2])
    broken = np.diag([1.0, 1.0, 1.0, np.nan])
    broken[:, 3] = np.nan
    recorded = [
        ('base_link', 'gps', broken), *cameras,
        # a metre from where it is
        ('base_link', 'lidar', from_pose((1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)) @ lidar),
    ]  # fmt: skip
    with BagReader(bag) as reader, BagWriter(tmp_path / 'moved') as writer:
        writer.write_transforms('/tf_static', recorded, stamp_ns=START_NS)
        for record in reader.records(leave_out={'/tf_static'}):
            writer.write(record)
    given = as_text('camera', 'lidar', np.asarray(camera_from_base @ lidar))
    painted = []
    for source, *flags in ((bag,), (tmp_path / 'moved', '--transforms', given)):
        out = tmp_path / str(len(painted))
        assert main(['paint', str(source), '--out', str(out), *flags]) == len(painted)
        painted.append([cloud.records for _, cloud in clouds(out, '/lidar/nightseg/points')])
    assert '/tf_static, at ' in capsys.readouterr().err
    for before, after in zip(*painted, strict=True):
        assert (before['label'] == after['label']).mean() > 0.999


def test_cameras_of_two_taxonomies_are_not_mixed(bag, tmp_path, capsys):
    topic = '/right/nightseg/label_info_json'
    with BagReader(bag) as reader, BagWriter(tmp_path / 'mixed') as writer:
        writer.write_value(topic, legend(CITYSCAPES19), START_NS)
        for record in reader.records(leave_out={topic}):
            writer.write(record)
    assert main(['paint', str(tmp_path / 'mixed'), '--out', str(tmp_path / 'painted')]) == 0
    assert 'right: other_classes: 4 of 4 clouds' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (['--sensors', '/roof/points'], "has no topic '/roof/points'"),
        (['--odometry', 'odom'], "has no topic 'odom'"),
        (['--odometry', '/lidar/points'], 'wanted: nav_msgs/msg/Odometry or '),
        (['--sensors', '/depth/image_raw'], 'wanted: sensor_msgs/msg/PointCloud2'),
        (['--depth', 'camera=/lidar/points'], 'wanted: sensor_msgs/msg/Image'),
        (['--depth', 'roof=/depth/image_raw'], "'roof' has none"),
        (['--depth', 'front'], '--depth takes CAMERA=TOPIC'),
        (['--transforms', 'a b c'], "transform 'a b c' must be PARENT CHILD"),
    ],
)
def test_what_cannot_be_painted_is_said(bag, tmp_path, capsys, arguments, words):
    assert main(['paint', str(bag), '--out', str(tmp_path / 'out'), *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_bag_without_labels_or_places_says_so(drive, tmp_path, capsys):
    bare = tmp_path / 'bare'
    write_drive(bare, Drive(size=SIZE, fps=2, seconds=1), lidar_every=1, processes=2)
    with BagReader(bare) as reader:
        assert {t.name: t.count for t in reader.topics} == {
            '/camera/camera_info': 2, '/camera/image_raw': 2, '/camera/labels_truth': 2,
            '/lidar/points': 2, '/tf_static': 1,
        }  # fmt: skip
    assert main(['paint', str(bare), '--out', str(tmp_path / 'out')]) == 2
    assert 'holds no labels (<camera>/nightseg/labels): put them in' in capsys.readouterr().err

    frame, cloud, broken = drive.frame(0), *(scan(drive, 0, lines=8) for _ in range(2))
    object.__setattr__(broken, 'width', 10**6)
    place = {'stamp_ns': START_NS, 'frame_id': 'front'}
    with BagWriter(tmp_path / 'lost') as writer:
        writer.write_labels('/front/nightseg/labels', frame.labels, **place)
        writer.write_calibration('/front/camera_info', calibration(frame.camera), **place)
        writer.write_cloud('/lidar/points', cloud, stamp_ns=START_NS, frame_id='lidar')
        writer.write_cloud('/lidar/points', broken, stamp_ns=START_NS + 1, frame_id='lidar')
    assert main(['paint', str(tmp_path / 'lost'), '--out', str(tmp_path / 'painted')]) == 1
    said = capsys.readouterr()
    assert 'front: no_transform: 1 of 1 clouds' in said.out and 'its points take' in said.err
    ((_, painted),) = clouds(tmp_path / 'painted', '/lidar/nightseg/points')
    assert (painted.records['label'] == 255).all()


def test_what_a_camera_sees_gets_the_label_of_its_pixel():
    """``bench/clouds.py`` does the same on more frames."""
    n = measure_drive(Drive(seed=0, seconds=45, fps=10), 150, Occlusion())
    assert n['seen'] > 100_000
    assert n['right'] >= 0.99 * n['seen']
    assert n['leaked'] <= 0.2 * n['hidden']
    assert n['true'] >= 0.97 * n['labelled']
