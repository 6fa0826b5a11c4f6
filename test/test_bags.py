# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Bags: what is written is read back, in order, and nothing looks complete that is not."""

from contextlib import closing
from dataclasses import replace
from functools import partial
import gc
from pathlib import Path
import re
import sqlite3
import subprocess
import sys
from typing import Any

import bag_samples
from bag_samples import frames_of, picture, START, STEP, TOPIC
import cv2
from mcap.writer import Writer as McapWriter
from nightseg_ros.bags import storage
from nightseg_ros.bags.reader import BagError, BagReader, camera_of, inspect_bag, is_bag, REORDER
from nightseg_ros.bags.storage import _zstd, Channel, Message
from nightseg_ros.bags.writer import BagWriter, reliable_qos
from nightseg_ros.cli.main import main
from nightseg_ros.data.convert import DEFAULT_OUTPUTS, KINDS, make_bag, write_predictions
from nightseg_ros.data.sample import DataError
from nightseg_ros.data.source import camera_names, open_source, STAMP_OFFSET
from nightseg_ros.perception.frame import Frame, FrameError
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig
from nightseg_ros.perception.result import output_prefixes, Want
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader
from rosbags.typesys import get_typestore, Stores
from tiny_data import imwrite
import tiny_weights
from video_samples import number_of, packets


def frame_of(index: int, order: str = 'rgb', **size: int) -> Frame:
    image = picture(index, **size)
    return Frame(image=image, order=order, stamp_ns=START + index * STEP, frame_id='optical')


def write(path: Path, frames: list[Frame], **options: object) -> Path:
    with BagWriter(path, **options) as bag:
        for frame in frames:
            bag.write_frame(TOPIC, frame, received_ns=frame.stamp_ns + 5_000_000)
    return path


def read(path: Path, topic: str | None = None) -> list[Frame | FrameError]:
    with BagReader(path) as bag:
        return frames_of(bag, topic)


def stamps(items: list[Frame | FrameError]) -> list[int]:
    return [item.stamp_ns for item in items if isinstance(item, Frame)]


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_frames_come_back_as_they_were_written(tmp_path, storage):
    written = [frame_of(index, order) for index, order in enumerate(('rgb', 'bgr', 'rgb'))]
    found = read(write(tmp_path / 'drive', written, storage=storage))
    for before, after in zip(written, found, strict=True):
        assert (after.image == before.image).all() and after.camera == 'front'
        for name in ('order', 'stamp_ns', 'frame_id'):
            assert getattr(after, name) == getattr(before, name)


def test_masks_and_packed_pictures_keep_their_bytes_and_another_reader_agrees(tmp_path):
    labels = picture(2)[..., 0]
    content = cv2.imencode('.png', picture(1))[1].tobytes()
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write_labels('/front/nightseg/labels', labels, stamp_ns=START, frame_id='f')
        bag.write_compressed('/front/image_raw/compressed', content, 'png', stamp_ns=START)
        # a text that could be taken for a stamp
        bag.write_value('/weather', '0123456', START + 5)
    [mask] = read(tmp_path / 'bag', '/front/nightseg/labels')
    assert isinstance(mask, Frame) and (mask.image == labels[..., None]).all()
    [frame] = read(tmp_path / 'bag')
    assert isinstance(frame, Frame) and (frame.image == picture(1)).all()
    assert (frame.order, frame.camera) == ('bgr', 'front')
    with BagReader(tmp_path / 'bag') as reader:
        assert [record.stamp_ns - START for record in reader.records()] == [0, 0, 5]
    with Reader(tmp_path / 'bag') as other:
        connection, _, data = next(iter(other.messages()))
        message = get_typestore(Stores.ROS2_JAZZY).deserialize_cdr(data, connection.msgtype)
    assert (message.encoding, message.step, message.height) == ('mono8', 36, 24)


@pytest.mark.parametrize(
    'order', [[1, 0, 2, 5, 3, 4, *range(6, 20)], [*range(1, 3 * REORDER), 0]],
    ids=['neighbours', 'very late'],
)  # fmt: skip
def test_neighbours_are_put_into_the_order_of_their_stamps_and_none_is_lost(tmp_path, order):
    with BagWriter(tmp_path / 'bag') as bag:
        for place, index in enumerate(order):
            bag.write_frame(TOPIC, frame_of(index), received_ns=START + place * STEP)
    found = stamps(read(tmp_path / 'bag'))
    assert sorted(found) == [START + index * STEP for index in range(len(order))]
    assert (found == sorted(found)) == (order[-1] != 0)


def test_a_kill_leaves_nothing_that_looks_complete(tmp_path):
    path = tmp_path / 'drive'
    killed = BagWriter(path)
    killed.write_frame(TOPIC, frame_of(0))
    assert not is_bag(tmp_path / 'drive.partial')
    for force in (False, True):
        with pytest.raises(BagError, match='another process is at work on'):
            BagWriter(path, force=force)
    # the kernel lets go of what a killed process holds
    del killed
    gc.collect()
    with pytest.raises(BagError, match='interrupted write'):
        BagWriter(path)
    write(path, [frame_of(0)], force=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ['drive']


@pytest.mark.parametrize(('keep', 'count'), [(False, 1), (True, 0), (True, 1)])
def test_an_error_leaves_nothing_but_messages_that_are_to_be_kept(tmp_path, keep, count):
    with pytest.raises(OSError, match='disk'), BagWriter(tmp_path / 'drive', keep=keep) as bag:
        for number in range(count):
            bag.write_frame(TOPIC, frame_of(number))
        raise OSError('disk')
    assert len(list(tmp_path.iterdir())) == keep * count


@pytest.mark.parametrize(
    ('name', 'words'),
    [('empty.mcap', 'empty.mcap is empty'), ('empty.db3', r'empty \(0'),
     ('empty.bag', r'empty \(0'), ('nowhere', 'does not exist'), ('.', r'metadata\.yaml')],
)  # fmt: skip
def test_what_is_no_bag_is_named(tmp_path, name, words):
    if name.startswith('empty'):
        (tmp_path / name).touch()
    with pytest.raises(BagError, match=words):
        BagReader(tmp_path / name)


# -- cameras ---------------------------------------------------------------------------------


def test_cameras_and_results_are_named_after_what_stands_before_the_last_part():
    cameras = {
        '/front/image_raw': 'front', '/front/image_raw/compressed': 'front',
        '/car/left/image_rect': 'car/left', '/image_raw': 'camera',
        'image_raw/compressed': 'camera',
    }  # fmt: skip
    assert {topic: camera_of(topic) for topic in cameras} == cameras
    for topic in ('/front/image_raw', '/front/image_raw/compressed'):
        assert output_prefixes([topic]) == ['/front/nightseg']
    # of two in one place each has its own
    assert output_prefixes(['/s/left', '/s/right', '/image']) == [
        '/s/left/nightseg', '/s/right/nightseg', '/image/nightseg',
    ]  # fmt: skip
    assert camera_names(('/s/left', '/s/right/ffmpeg', '/image', '/image/compressed')) == {
        '/s/left': 's/left', '/s/right/ffmpeg': 's/right', '/image': 'image',
        '/image/compressed': 'image/compressed',
    }  # fmt: skip


def test_cameras_are_told_from_other_images_and_merged_by_time(tmp_path):
    path, cameras = tmp_path / 'bag', ('/left/image_raw', '/right/image_raw')
    with BagWriter(path) as writer:
        # one camera wholly after the other
        for place, camera in enumerate(cameras):
            for index in range(12):
                stamp = START + index * STEP + place * STEP // 2
                frame = Frame(image=picture(20 * place + index), stamp_ns=stamp)
                writer.write_frame(camera, frame)
        writer.write_labels('/left/labels_truth', picture(0)[..., 0], stamp_ns=START)
        writer.write_labels('/left/nightseg/labels', picture(0)[..., 0], stamp_ns=START)
        writer.write_compressed('/left/image_raw/compressed', b'', 'png', stamp_ns=START)
        writer.write_compressed('/left/depth/compressedDepth', b'', '32FC1', stamp_ns=START)
    with pytest.raises(BagError, match='--topic'):
        open_source(path)
    source = open_source(path, every_camera=True)
    assert (source.topic, source.topics) == (None, cameras)
    with BagReader(path) as bag:
        for asked in ('/rear/image_raw', 'image'):
            with pytest.raises(BagError, match=f"'{asked}'.*/left/image_raw"):
                bag.image_topic(asked)
        frames = [frame for *_, frame in bag.merged_frames(bag.camera_topics)]
    found = stamps(frames)
    assert found == sorted(found) and len(found) == source.count == 24
    names = [frame.camera for frame in frames if isinstance(frame, Frame)]
    assert names[:3] == ['left', 'right', 'left'] and {*names} == {'left', 'right'}


#: Topics of video, and what their messages have beside stamp, frame and data.
VIDEO = {
    'foxglove_msgs/msg/CompressedVideo': ('/front/image_raw/foxglove', {'format': 'h264'}),
    'sensor_msgs/msg/CompressedImage': ('/front/image_raw/compressed', {'format': 'h264'}),
    'ffmpeg_image_transport_msgs/msg/FFMPEGPacket': (
        '/front/image/ffmpeg',
        {'encoding': 'libx264', 'width': 64, 'height': 48, 'pts': 0, 'flags': 0,
         'is_bigendian': False},
    ),
}  # fmt: skip


@pytest.mark.parametrize('kind', VIDEO)
def test_video_is_decoded_from_its_first_key_frame_on(tmp_path, config, kind, caplog):
    """A recorder is started at any time: what comes before a key frame is no damage."""
    topic, fields = VIDEO[kind]
    # with pictures that refer to later ones, packets are not in the order of their stamps
    more = '' if 'foxglove' in kind else ':bframes=2:b-adapt=0'
    with BagWriter(tmp_path / 'bag') as bag:
        for place, (number, data) in enumerate(packets('libx264', 22, gop=6, more=more)[3:], 3):
            seconds, rest = divmod(START + number * STEP, 10**9)
            time: dict[str, Any] = {'sec': seconds, 'nanosec': rest}
            head: dict[str, Any] = {'timestamp': time, 'frame_id': 'optical'}
            if 'foxglove' not in kind:
                head = {'header': {'stamp': time, 'frame_id': 'optical'}}
            content = np.frombuffer(data, np.uint8)
            bag.write_fields(topic, kind, START + place * STEP, data=content, **head, **fields)
    source = open_source(tmp_path / 'bag')
    assert (source.topic, source.count) == (topic, 19)
    frames = [frame for _, frame in source]
    # the decoder keeps the last ones of pictures that refer to later ones
    assert stamps(frames) == [START + n * STEP for n in range(6, 6 + len(frames))]
    assert len(frames) == (14 if more else 16)
    for number, frame in enumerate(frames, 6):
        assert isinstance(frame, Frame) and frame.frame_id == 'optical' and frame.camera == 'front'
        assert number_of(frame.image) == number
    assert f'{19 - len(frames)} of 19 packets give no picture' in caplog.text
    assert main(['bag', 'info', str(tmp_path / 'bag'), '--check']) == 0
    pipeline = Pipeline.load(config)
    done = write_predictions(tmp_path / 'bag', tmp_path / 'copy', pipeline, outputs=())
    assert done.frames == len(frames) and not done.problems
    with BagReader(tmp_path / 'bag') as one, BagReader(tmp_path / 'copy') as other:
        assert [*one.records()] == [*other.records()]


def renamed(bag: Path) -> Path:
    (bag / 'bag.mcap').rename(bag / 'night drive.mcap')
    return bag


def packed(bag: Path) -> Path:
    """Pack the file as `zstd bag.mcap` does."""
    file = bag.parent / 'night.mcap.zst'
    file.write_bytes(_zstd.compress((bag / 'bag.mcap').read_bytes()))
    return file


def test_topics_that_are_read_at_once_share_one_unpacked_copy(tmp_path, monkeypatch):
    # more than lie in memory to be put in order
    file = packed(write(tmp_path / 'bag', [frame_of(index) for index in range(20)]))
    copies, unpack = [], storage.unpack_file

    def counted(source: Path, target: Path) -> str:
        copies.append(target)
        return unpack(source, target)

    with BagReader(file) as reader:
        topic = reader.image_topic()
        monkeypatch.setattr(storage, 'unpack_file', counted)
        assert len([*reader.merged_frames([topic, topic])]) == 40 and len(copies) == 1
    assert not copies[0].parent.exists()


def beside_finder(bag: Path) -> Path:
    """Leave what macOS puts beside a file on a foreign disk."""
    (bag / 'metadata.yaml').unlink()
    (bag / '._bag.mcap').write_bytes(b'\0\5\x16\7' + bytes(4000))
    return bag


def ros1(bag: Path) -> Path:
    return bag_samples.write_bag(bag.parent, 'ros1', range(3))


def of_ros1(bag: Path) -> Path:
    """Make what `mcap convert` makes of a ROS 1 bag."""
    with AnyReader([ros1(bag)]) as reader:
        file = bag.parent / 'ros1.mcap'
        writer = McapWriter(str(file))
        writer.start(profile='ros1')
        for connection, received, data in reader.messages():
            kind = connection.msgtype.replace('/msg/', '/')
            schema = writer.register_schema(kind, 'ros1msg', connection.msgdef.data.encode())
            channel = writer.register_channel(connection.topic, 'ros1', schema)
            writer.add_message(channel, received, bytes(data), received)
        writer.finish()
    return file


def beside_ros1(bag: Path) -> Path:
    """Add a topic of ROS 1."""
    old = Channel(topic='/old', msgtype='std_msgs/msg/String', encoding='ros1')
    with BagReader(bag) as reader, BagWriter(bag.parent / 'both') as writer:
        for record in reader.records():
            writer.write(record)
        writer.write(Message(channel=old, received_ns=START, data=b'\1\0\0\0a'))
    return bag.parent / 'both'


@pytest.mark.parametrize('change', [renamed, packed, beside_finder, ros1, of_ros1, beside_ros1])
def test_bags_as_people_have_them(tmp_path, config, change):
    bag = change(write(tmp_path / 'bag', [frame_of(index) for index in range(3)]))
    told = inspect_bag(BagReader(bag), thorough=True)[1]
    assert told == (
        ['bag.mcap is missing, night drive.mcap is read instead'] if change is renamed else []
    )
    done = write_predictions(bag, tmp_path / 'copy', Pipeline.load(config), outputs=['labels'])
    assert done.frames == 3 and not done.problems and not done.left_out
    for frames in (read(bag), read(tmp_path / 'copy', TOPIC)):
        assert stamps(frames) == [START + index * STEP for index in range(3)]
        for index, frame in enumerate(frames):
            assert isinstance(frame, Frame) and frame.frame_id == 'optical'
            np.testing.assert_array_equal(frame.image, picture(index))


def write_image(bag: BagWriter, encoding: str) -> str:
    """Write what is no picture of a camera; return its topic."""
    if encoding == 'zstd' or ';' in encoding:
        content = b'\x89PNG-' if 'png compressed' in encoding else b'\x28\xb5\x2f\xfd-'
        bag.write_compressed('/x/other', content, encoding, stamp_ns=START)
    elif encoding in ('', 'protobuf'):
        kind = 'sensor_msgs/msg/Image'
        channel = Channel(topic='/x/other', msgtype=kind, encoding=encoding or 'cdr')
        bag.add_topic(channel)
        if encoding:
            bag.write(Message(channel=channel, received_ns=START, data=b'{}'))
    else:
        depth = np.zeros((48, 80), np.uint16 if encoding == '16UC1' else np.float32)
        bag.write_image('/x/other', depth, encoding, stamp_ns=START)
    return '/x/other'


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize(
    ('encoding', 'reason'),
    [('16UC1', '16UC1'), ('32FC1', '32FC1'), ('zstd', "format 'zstd'"),
     ('16UC1; compressedDepth png', "format '16UC1; compressedDepth png'"),
     ('16UC1; png compressed ', "format '16UC1; png compressed '"),
     ('', 'without a message'), ('protobuf', "serialised as 'protobuf'")],
)  # fmt: skip
def test_what_is_no_camera_is_left_out_and_refused_by_name(
    tmp_path, config, encoding, reason, storage, capsys
):
    with BagWriter(tmp_path / 'bag', storage=storage) as bag:
        other = write_image(bag, encoding)
        bag.write_frame(TOPIC, frame_of(0, height=48, width=80))
    source = open_source(tmp_path / 'bag', every_camera=True)
    assert (source.topics, source.note) == ((TOPIC,), f'no cameras: {other} ({reason})')
    assert main(['bag', 'info', str(tmp_path / 'bag'), '--check']) == 0
    assert source.note in capsys.readouterr().out
    done = write_predictions(tmp_path / 'bag', tmp_path / 'out', Pipeline.load(config))
    assert (done.frames, done.problems, done.note) == (1, [], source.note)
    with BagReader(tmp_path / 'bag') as one, BagReader(tmp_path / 'out') as two:
        [before], [after] = ([t for t in bag.topics if t.name == other] for bag in (one, two))
        assert before == after
        assert after.kind.endswith(' as protobuf') == (encoding == 'protobuf')
    if encoding == 'protobuf':
        [error] = read(tmp_path / 'bag', other)
        assert "is serialised as 'protobuf'; only 'cdr' is read" in str(error)
    refusal = f"'{other}' is no camera: {reason}; cameras: {TOPIC}"
    with pytest.raises(BagError, match=re.escape(refusal)):
        open_source(tmp_path / 'bag', other)


def test_cameras_that_share_no_chunk_are_read_alone(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        for index in range(6):
            # it fills a chunk
            large = frame_of(index, height=600, width=800)
            bag.write_frame(f'/{("left", "right")[index % 2]}/image_raw', large)
    for first, camera in enumerate(('left', 'right')):
        found = stamps(read(tmp_path / 'bag', f'/{camera}/image_raw'))
        assert found == [START + index * STEP for index in range(first, 6, 2)]


# -- made bags -------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / 'in'
    for index in range(4):
        imwrite(folder / f'p{index}.png', picture(index))
    return folder


@pytest.mark.parametrize(
    ('encoding', 'compress', 'topic'),
    [('raw', True, '/roof/image_raw'), ('png', False, 'roof/image_raw/compressed')],
)
def test_a_folder_becomes_a_bag(tmp_path, pictures, encoding, compress, topic):
    (pictures / 'p2.png').write_bytes(b'torn')
    imwrite(tmp_path / 'labels' / 'p1.png', picture(7)[..., 0])
    made = make_bag(
        open_source(pictures, rate=5), tmp_path / 'bag', encoding=encoding, compress=compress,
        labels=tmp_path / 'labels', topic=topic, frame_id='roof',
    )  # fmt: skip
    assert (made.frames, made.labelled, len(made.problems)) == (3, 1, 1)
    found = read(tmp_path / 'bag')
    assert [s - STAMP_OFFSET for s in stamps(found)] == [0, 200_000_000, 600_000_000]
    for frame, index in zip(found, (0, 1, 3)):
        assert (frame.image == picture(index)).all()
        assert (frame.frame_id, frame.camera) == ('roof', 'roof')
    [truth] = read(tmp_path / 'bag', '/roof/labels_truth')
    assert (truth.image[..., 0] == picture(7)[..., 0]).all()
    assert truth.stamp_ns == stamps(found)[1]
    imwrite(tmp_path / 'labels' / 'p0.png', picture(7, 8, 8)[..., 0])
    with pytest.raises(DataError, match=r'p0\.png.*sizes must agree'):
        make_bag(open_source(pictures), tmp_path / 'other', labels=tmp_path / 'labels')


def test_a_file_of_stamps_is_taken_to_the_nanosecond(tmp_path, pictures):
    names = ['p3.png', 'p0.png', 'gone.png']
    lines = [f'1700000000.12345678{i} rgb/{name}' for i, name in enumerate(names)]
    (tmp_path / 'stamps.txt').write_text('# time name\n' + '\n'.join(lines) + '\n')
    made = make_bag(open_source(pictures, stamps=tmp_path / 'stamps.txt'), tmp_path / 'bag')
    assert (made.frames, len(made.problems)) == (2, 1) and 'gone.png' in made.problems[0]
    base = 1_700_000_000_123_456_780
    assert stamps(read(tmp_path / 'bag')) == [base, base + 1]


def test_bag_make_and_info_are_verbs(tmp_path, pictures, capsys):
    bag = str(tmp_path / 'bag')
    (pictures / 'IMG_1.HEIC').touch()
    assert main(['bag', 'make', str(pictures), '--out', bag]) == 0
    shown = capsys.readouterr()
    assert '4 frames' in shown.out and 'not read: files .HEIC' in shown.err
    assert main(['bag', 'info', bag, '--check']) == 0
    assert '/camera/image_raw' in capsys.readouterr().out
    storage = tmp_path / 'bag' / 'bag.mcap'
    storage.write_bytes(storage.read_bytes()[:-200])
    assert main(['bag', 'info', bag, '--check']) == 1
    assert 'bag.mcap ends' in capsys.readouterr().err


# -- predictions -----------------------------------------------------------------------------


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    weights = tiny_weights.weights_config(tmp_path_factory.mktemp('weights'))
    return PipelineConfig(weights=weights, backend='torch', device='cpu', threads=1)


def test_predictions_are_the_pipelines_own_under_the_nodes_topics(tmp_path, config):
    """A camera drives into a tunnel; other topics are copied, or replaced."""
    drive = tmp_path / 'drive'
    with BagWriter(drive) as bag:
        for index in range(6):
            image = np.full((48, 80, 3), 150, np.uint8) + picture(index, 48, 80) // 20
            if index >= 3:
                image[24:] = 0
            stamp = START + index * 10 * STEP
            bag.write_frame(TOPIC, Frame(image=image, stamp_ns=stamp, frame_id='optical'))
        bag.write_labels('/front/nightseg/labels', picture(0)[..., 0], stamp_ns=START)
        bag.write_value('/weather', 'rain', START + 3)
    for name, topics in (('copy', ()), ('again/copy', (TOPIC, TOPIC))):
        done = write_predictions(drive, tmp_path / name, Pipeline.load(config), topics=topics)
        assert (done.frames, sum(done.routes.values()), done.problems) == (6, 6, [])
        assert done.left_out == ["'/front/nightseg/labels' is predicted anew"]
    one, two = (tmp_path / name / 'copy.mcap' for name in ('copy', 'again/copy'))
    assert one.read_bytes() == two.read_bytes()
    pipeline = Pipeline.load(config)
    with BagReader(tmp_path / 'copy') as bag:
        names = {topic.name: topic for topic in bag.topics}
        assert names.keys() == {
            TOPIC, '/weather', *(f'/front/nightseg/{output}' for output in DEFAULT_OUTPUTS),
        }  # fmt: skip
        assert bag.latched_topics == {'/front/nightseg/label_info_json'}
        frames = frames_of(bag)
        assert stamps(frames) == stamps(read(drive, TOPIC))
        routes = []
        for frame, labels, overlay, status in zip(
            frames,
            frames_of(bag, '/front/nightseg/labels'),
            frames_of(bag, '/front/nightseg/overlay'),
            bag.messages(names['/front/nightseg/status']),
            strict=True,
        ):
            [wanted] = pipeline.process([frame], Want(overlay=True))
            assert (labels.stamp_ns, labels.frame_id) == (frame.stamp_ns, 'optical')
            np.testing.assert_array_equal(labels.image[..., 0], wanted.labels)
            np.testing.assert_array_equal(overlay.image, wanted.overlay)
            content = bag.read(status)
            assert content.status[0].name == 'nightseg: front'
            values = {item.key: item.value for item in content.status[0].values}
            assert values['route'] == wanted.decision.route
            assert content.header.frame_id == 'optical' and status.stamp_ns == frame.stamp_ns
            routes.append(values['route'])
        assert set(routes) == {'day', 'night'}


def test_what_would_not_fit_new_labels_is_not_copied_and_no_camera_is_predicted_twice(
    tmp_path, config
):
    ours = [f'/front/nightseg/{name}' for name in ('confidence', 'label_info', 'labels')]
    twin = f'{TOPIC}/compressed'
    with BagWriter(tmp_path / 'drive') as bag:
        bag.write_frame(TOPIC, frame_of(0, height=48, width=80))
        for topic in ours:
            bag.write_labels(topic, picture(0)[..., 0], stamp_ns=START)
        png = cv2.imencode('.png', picture(0))[1].tobytes()
        for topic in (twin, f'{ours[-1]}/compressed'):
            bag.write_compressed(topic, png, 'png', stamp_ns=START)
    run = partial(write_predictions, tmp_path / 'drive', tmp_path / 'copy', Pipeline.load(config))
    with pytest.raises(BagError, match=f"'{TOPIC}' and '{twin}' are of one camera"):
        run(topics=(TOPIC, twin))
    assert run(outputs=['labels']).left_out == [
        f"'{ours[0]}' is of an earlier prediction", f"'{ours[1]}' is of an earlier prediction",
        f"'{ours[2]}' is predicted anew", f"'{ours[2]}/compressed' is of an earlier prediction",
    ]  # fmt: skip
    with BagReader(tmp_path / 'copy') as bag:
        assert {topic.name for topic in bag.topics} == {TOPIC, twin, ours[2]}


def test_predictions_are_topics_of_the_node():
    topics = pytest.importorskip('nightseg_ros.node.camera').TOPICS
    kinds = {topic.name: topic.kind.replace('/', '/msg/') for topic in topics}
    assert {name: kinds[name] for name in KINDS} == KINDS
    assert {t.name for t in topics if t.latched} & KINDS.keys() == {'label_info_json'}


#: A type as two releases of ROS 2 had it, and one whose definition is no text.
OWN = (
    Channel(topic='/map', msgtype='std_msgs/msg/String', qos=(reliable_qos(latched=True),)),
    Channel(topic='/old', msgtype='visualization_msgs/msg/Marker',
            definition='int32 id\nstring text\n'),
    Channel(topic='/new', msgtype='visualization_msgs/msg/Marker', definition='int32 id\n'),
    Channel(topic='/known', msgtype='odd_msgs/msg/Known', definition='uint8 x',
            digest='RIHS01_ab'),
    Channel(topic='/odd', msgtype='odd.Thing', encoding='protobuf', language='protobuf',
            definition=b'\x0a\xff\xfe\x00odd'.decode(errors='surrogateescape')),
)  # fmt: skip


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_copy_describes_nothing_anew_and_drops_nothing(tmp_path, config, storage):
    with BagWriter(tmp_path / 'more', storage=storage) as bag:
        bag.write_frame(TOPIC, frame_of(0, height=48, width=80))
        for channel in OWN:
            bag.write(Message(channel=channel, received_ns=START, data=b'\0\1\0\0'))
    done = write_predictions(
        tmp_path / 'more', tmp_path / 'copy', Pipeline.load(config), outputs=['labels'],
        storage=storage,
    )  # fmt: skip
    assert not done.left_out
    with BagReader(tmp_path / 'copy') as reader:
        found = {record.channel.topic: record.channel for record in reader.records()}
    for channel in OWN:
        copied, definition = found[channel.topic], channel.definition
        assert copied == replace(channel, digest=copied.digest, definition=copied.definition)
        assert copied.digest == channel.digest or not channel.digest
        if storage == 'mcap':
            assert copied.language == (channel.language or 'ros2msg')
        else:
            # a database holds text, and one definition of a type
            definition = definition.encode(errors='surrogateescape').decode(errors='replace')
        unlike = ('/map',) if storage == 'mcap' else ('/map', '/new')
        assert copied.definition == definition or channel.topic in unlike
    metadata = (tmp_path / 'copy' / 'metadata.yaml').read_text()
    hashes = re.findall(r'type_description_hash:\s+(\S+)', metadata)
    assert {'RIHS01_ab', 'RIHS01_' + 64 * '0'} < set(hashes)


def test_a_copy_keeps_a_database_s_language_and_says_where_a_definition_changes(tmp_path, caplog):
    with BagWriter(tmp_path / 'idl', storage='sqlite3') as bag:
        bag.write(Message(channel=OWN[3], received_ns=START, data=b'\0\1\0\0'))
    [storage] = (tmp_path / 'idl').glob('*.db3')
    with closing(sqlite3.connect(storage)) as database:
        database.execute("UPDATE message_definitions SET encoding = 'ros2idl'")
        database.commit()
    with BagReader(tmp_path / 'idl') as reader, BagWriter(tmp_path / 'copy') as copy:
        for record in reader.records():
            copy.write(record)
            for change in ({'definition': 'uint8 y'}, {'encoding': 'protobuf'}):
                copy.write(replace(record, channel=replace(record.channel, **change)))
    assert caplog.messages == [
        "'/known': later files describe its odd_msgs/msg/Known otherwise; the copy has the first"
    ]
    with BagReader(tmp_path / 'copy') as reader:
        assert [record.channel.language for record in reader.records()] == ['ros2idl'] * 3


def test_what_a_copy_lacks_of_other_topics_is_said(tmp_path, config):
    with BagWriter(tmp_path / 'drive', storage='sqlite3') as bag:
        bag.write_frame(TOPIC, frame_of(0, height=48, width=80))
        for index in range(3):
            bag.write(Message(channel=OWN[0], received_ns=START + index, data=b'\0\1\0\0'))
    [storage] = (tmp_path / 'drive').glob('*.db3')
    with closing(sqlite3.connect(storage)) as database:
        database.execute("UPDATE messages SET timestamp = x'6c61' WHERE id = 3")
        database.commit()
    done = write_predictions(tmp_path / 'drive', tmp_path / 'copy', Pipeline.load(config))
    assert done.frames == 1 and len(done.problems) == 1, done.problems


def test_a_dark_picture_of_16_bits_stays_dark(tmp_path):
    with BagWriter(tmp_path / 'drive') as bag:
        for index, largest in enumerate((*[60_000] * 3, 3000)):
            values = np.full((4, 6), largest, np.uint16)
            bag.write_image(TOPIC, values, 'mono16', stamp_ns=START + index)
    frames = [frame for _, frame in open_source(tmp_path / 'drive')]
    assert [int(frame.image.max()) for frame in frames] == [*[60_000 >> 8] * 3, 3000 >> 8]


FULL = """
import resource, signal, sys
import numpy as np
from nightseg_ros.bags.writer import BagWriter
from nightseg_ros.perception.frame import Frame

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8_000_000, 8_000_000))
rng = np.random.default_rng(0)
with BagWriter(sys.argv[1], storage=sys.argv[2], keep=True) as bag:
    for index in range(200):
        image = rng.integers(0, 256, (100, 200, 3), dtype=np.uint8)
        bag.write_frame('/camera/image_raw', Frame(image=image, stamp_ns=index + 1))
"""


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_on_a_full_disk_all_but_the_last_megabytes_are_kept(tmp_path, storage):
    """60 kB a message on a disk of 8 MB; a limit gives the error of a full disk."""
    done = subprocess.run(
        [sys.executable, '-c', FULL, str(tmp_path / 'bag'), storage],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 'BagError: ' in done.stderr and 'cannot be written: ' in done.stderr
    assert not (tmp_path / 'bag').exists()
    assert len(stamps(read(tmp_path / 'bag.partial' / 'bag'))) > 90
