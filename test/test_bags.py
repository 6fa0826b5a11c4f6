# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Bags: what is written is read back, in order, and nothing looks complete that is not."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Rosbag1Writer
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from nightseg_ros.bags.errors import BagError
from nightseg_ros.bags.reader import REORDER, BagReader, camera_of
from nightseg_ros.bags.writer import BagWriter
from nightseg_ros.perception.frame import Frame, FrameError

TOPIC = '/front/image_raw'
START = 1_700_000_000_123_456_789
STEP = 100_000_000


def picture(seed: int, height: int = 12, width: int = 18) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def frames(count: int, order: str = 'rgb') -> list[Frame]:
    return [
        Frame(image=picture(i), order=order, stamp_ns=START + i * STEP, frame_id='front_optical')
        for i in range(count)
    ]


def write(path: Path, items: list[Frame], **options: object) -> Path:
    with BagWriter(path, **options) as bag:
        for item in items:
            bag.write_frame(TOPIC, item, received_ns=item.stamp_ns + 5_000_000)
    return path


def read(path: Path, topic: str | None = None) -> list[Frame | FrameError]:
    with BagReader(path) as bag:
        return list(bag.frames(bag.image_topic(topic)))


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize('order', ['rgb', 'bgr'])
def test_frames_come_back_as_they_were_written(tmp_path: Path, storage: str, order: str) -> None:
    written = frames(5, order)
    found = read(write(tmp_path / 'drive', written, storage=storage))
    assert len(found) == 5
    for before, after in zip(written, found):
        assert isinstance(after, Frame)
        assert (after.image == before.image).all()
        assert (after.order, after.stamp_ns, after.frame_id, after.camera) == (
            order, before.stamp_ns, 'front_optical', 'front',
        )  # fmt: skip


def test_a_mask_keeps_its_ids_and_another_reader_agrees(tmp_path: Path) -> None:
    labels = np.arange(12 * 18, dtype=np.uint8).reshape(12, 18)
    with BagWriter(tmp_path / 'masks') as bag:
        bag.write_labels('/front/nightseg/labels', labels, stamp_ns=START, frame_id='f')
    [frame] = read(tmp_path / 'masks', '/front/nightseg/labels')
    assert isinstance(frame, Frame)
    assert (frame.image == labels[..., None]).all()
    with Reader(tmp_path / 'masks') as reader:
        [(connection, _, data)] = reader.messages()
        message = get_typestore(Stores.ROS2_JAZZY).deserialize_cdr(data, connection.msgtype)
    assert (message.encoding, message.step, message.height) == ('mono8', 18, 12)


def test_compressed_frames_are_decoded(tmp_path: Path) -> None:
    image = picture(1)
    content = cv2.imencode('.png', image)[1].tobytes()
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write_compressed('/front/image_raw/compressed', content, 'png', stamp_ns=START)
    [frame] = read(tmp_path / 'bag')
    assert isinstance(frame, Frame)
    assert (frame.order, frame.camera) == ('bgr', 'front')
    assert (frame.image == image).all()


def test_neighbours_are_put_into_the_order_of_their_stamps(tmp_path: Path) -> None:
    ordered = frames(20)
    with BagWriter(tmp_path / 'bag') as bag:
        for place, index in enumerate([1, 0, 2, 5, 3, 4, *range(6, 20)]):
            bag.write_frame(TOPIC, ordered[index], received_ns=START + place * STEP)
    stamps = [frame.stamp_ns for frame in read(tmp_path / 'bag') if isinstance(frame, Frame)]
    assert stamps == [frame.stamp_ns for frame in ordered]


def test_a_message_that_is_very_late_is_still_read(tmp_path: Path) -> None:
    ordered = frames(3 * REORDER)
    late = [*range(1, 3 * REORDER), 0]
    with BagWriter(tmp_path / 'bag') as bag:
        for place, index in enumerate(late):
            bag.write_frame(TOPIC, ordered[index], received_ns=START + place * STEP)
    stamps = [frame.stamp_ns for frame in read(tmp_path / 'bag') if isinstance(frame, Frame)]
    assert sorted(stamps) == [frame.stamp_ns for frame in ordered]


def test_ros1_bags_are_read(tmp_path: Path) -> None:
    types = get_typestore(Stores.ROS1_NOETIC)
    path = tmp_path / 'old.bag'
    image = picture(3)
    with Rosbag1Writer(path) as bag:
        connection = bag.add_connection(TOPIC, 'sensor_msgs/msg/Image', typestore=types)
        for index in range(2):
            stamp = START + index * STEP
            message = types.types['sensor_msgs/msg/Image'](
                header=types.types['std_msgs/msg/Header'](
                    seq=77,
                    stamp=types.types['builtin_interfaces/msg/Time'](
                        sec=stamp // 10**9, nanosec=stamp % 10**9
                    ),
                    frame_id='old',
                ),
                height=12, width=18, encoding='bgr8', is_bigendian=0, step=54,
                data=image.reshape(-1),
            )  # fmt: skip
            data = types.serialize_ros1(message, 'sensor_msgs/msg/Image')
            bag.write(connection, stamp + 9, data)
    found = read(path)
    assert [frame.stamp_ns for frame in found if isinstance(frame, Frame)] == [START, START + STEP]
    assert isinstance(found[0], Frame)
    assert (found[0].image == image).all() and found[0].frame_id == 'old'


def test_a_frame_that_cannot_be_decoded_is_an_error_among_the_others(tmp_path: Path) -> None:
    good = frames(3)
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write_frame(TOPIC, good[0])
        bag.write_image(TOPIC, picture(9), 'yuv999', stamp_ns=START + STEP)
        bag.write_frame(TOPIC, good[2])
    found = read(tmp_path / 'bag')
    assert [type(item) for item in found] == [Frame, FrameError, Frame]
    assert 'yuv999' in str(found[1])


@pytest.mark.parametrize('asked', ['/rear/image_raw', 'image'])
def test_a_missing_topic_lists_what_there_is(tmp_path: Path, asked: str) -> None:
    path = write(tmp_path / 'drive', frames(1))
    with BagReader(path) as bag, pytest.raises(BagError, match=TOPIC) as error:
        bag.image_topic(asked)
    assert asked in str(error.value)


def test_the_camera_is_found_among_predictions_and_two_cameras_are_ambiguous(
    tmp_path: Path,
) -> None:
    with BagWriter(tmp_path / 'one') as bag:
        bag.write_frame('/front/image_raw', frames(1)[0])
        bag.write_labels('/front/nightseg/labels', picture(1)[..., 0], stamp_ns=START)
        bag.write_labels('/front/labels_truth', picture(1)[..., 0], stamp_ns=START)
    with BagReader(tmp_path / 'one') as reader:
        assert reader.image_topic().name == '/front/image_raw'
    with BagWriter(tmp_path / 'two') as bag:
        bag.write_frame('/front/image_raw', frames(1)[0])
        bag.write_frame('/rear/image_raw', frames(1)[0])
    with BagReader(tmp_path / 'two') as reader, pytest.raises(BagError, match='--topic'):
        reader.image_topic()


def test_an_error_or_a_kill_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    path = tmp_path / 'drive'
    with pytest.raises(RuntimeError, match='disk'), BagWriter(path) as bag:
        bag.write_frame(TOPIC, frames(1)[0])
        raise RuntimeError('disk')
    assert list(tmp_path.iterdir()) == []
    killed = BagWriter(path)
    killed.write_frame(TOPIC, frames(1)[0])
    assert all(entry.name.startswith('.') for entry in tmp_path.iterdir())
    assert not path.exists()
    killed.abort()


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    path = write(tmp_path / 'drive', frames(2))
    with pytest.raises(BagError, match='--force'):
        BagWriter(path)
    assert len(read(path)) == 2
    write(path, frames(3), force=True)
    assert len(read(path)) == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ['drive']


def test_a_failed_replacement_keeps_the_old_bag(tmp_path: Path) -> None:
    path = write(tmp_path / 'drive', frames(2))
    with pytest.raises(RuntimeError), BagWriter(path, force=True) as bag:
        bag.write_frame(TOPIC, frames(1)[0])
        raise RuntimeError
    assert len(read(path)) == 2


def test_a_sqlite3_bag_without_metadata_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / 'drive', frames(4), storage='sqlite3')
    (path / 'metadata.yaml').unlink()
    assert len(read(path)) == 4
    assert len(read(path / 'drive.db3')) == 4


def test_a_truncated_mcap_says_so_or_gives_what_can_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / 'drive', frames(60))
    [storage] = path.glob('*.mcap')
    storage.write_bytes(storage.read_bytes()[: storage.stat().st_size // 2])
    with pytest.raises(BagError, match='drive'):
        BagReader(path)


@pytest.mark.parametrize('name', ['empty.mcap', 'empty.db3', 'empty.bag'])
def test_zero_bytes_are_an_error_with_a_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(BagError, match=name):
        read(tmp_path / name)


def test_a_database_that_breaks_in_the_middle_gives_the_frames_before(tmp_path: Path) -> None:
    path = write(tmp_path / 'drive', frames(4), storage='sqlite3')
    with sqlite3.connect(path / 'drive.db3') as database:
        # a message of three bytes, as after a power cut
        database.execute("UPDATE messages SET data = x'000100' WHERE id = 3")
    found = read(path)
    assert sum(isinstance(item, Frame) for item in found) == 3
    assert sum(isinstance(item, FrameError) for item in found) == 1


def test_a_missing_bag_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(BagError, match='does not exist'):
        BagReader(tmp_path / 'nowhere')
    with pytest.raises(BagError, match=r'metadata\.yaml'):
        BagReader(tmp_path)


@pytest.mark.parametrize(
    ('topic', 'camera'),
    [
        ('/front/image_raw', 'front'),
        ('/front/image_raw/compressed', 'front'),
        ('/car/left/image_rect', 'car/left'),
        ('/image_raw', 'camera'),
        ('image_raw/compressed', 'camera'),
    ],
)
def test_the_camera_is_what_stands_before_the_last_part(topic: str, camera: str) -> None:
    assert camera_of(topic) == camera
