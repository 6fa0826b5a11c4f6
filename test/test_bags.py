# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Bags: what is written is read back, in order, and nothing looks complete that is not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import bag_samples
import cv2
import numpy as np
import pytest
import tiny_weights
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from nightseg_ros.bags.reader import (
    REORDER,
    BagError,
    BagLoss,
    BagReader,
    camera_of,
    is_bag,
)
from nightseg_ros.bags.storage import Channel, Message
from nightseg_ros.bags.writer import BagWriter, reliable_qos
from nightseg_ros.cli.main import main
from nightseg_ros.data.convert import (
    DEFAULT_OUTPUTS,
    KINDS,
    make_bag,
    write_predictions,
)
from nightseg_ros.data.source import STAMP_OFFSET, open_source
from nightseg_ros.perception.frame import Frame, FrameError
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig
from nightseg_ros.perception.result import Want, output_prefixes

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


@pytest.mark.parametrize(
    'order', [[1, 0, 2, 5, 3, 4, *range(6, 20)], [*range(1, 3 * REORDER), 0]],
    ids=['neighbours', 'very late'],
)  # fmt: skip
def test_neighbours_are_put_into_the_order_of_their_stamps_and_none_is_lost(
    tmp_path: Path, order: list[int]
) -> None:
    ordered = frames(len(order))
    with BagWriter(tmp_path / 'bag') as bag:
        for place, index in enumerate(order):
            bag.write_frame(TOPIC, ordered[index], received_ns=START + place * STEP)
    stamps = [frame.stamp_ns for frame in read(tmp_path / 'bag') if isinstance(frame, Frame)]
    assert sorted(stamps) == [frame.stamp_ns for frame in ordered]
    assert (stamps == sorted(stamps)) == (order[-1] != 0)


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
        bag.write_compressed('/front/depth/compressedDepth', b'', '32FC1', stamp_ns=START)
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
    assert not is_bag(tmp_path / 'drive.partial')
    with pytest.raises(BagError, match='interrupted write'):
        BagWriter(path)
    write(path, frames(2), force=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ['drive']


def test_what_a_failed_recording_kept_can_be_read(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match='disk'),
        BagWriter(tmp_path / 'drive', keep=True) as bag,
    ):
        for frame in large(4):
            bag.write_frame(TOPIC, frame)
        raise RuntimeError('disk')
    assert [entry.name for entry in tmp_path.iterdir()] == ['drive.partial']
    items = read(tmp_path / 'drive.partial' / 'drive')
    assert [type(item) for item in items] == [Frame] * 4 + [BagLoss]


def large(count: int) -> list[Frame]:
    """Return frames that fill a chunk each."""
    return [
        Frame(image=picture(i, 600, 800), stamp_ns=START + i * STEP, frame_id='f')
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ('name', 'words'),
    [('empty.mcap', 'empty.mcap is empty'), ('empty.db3', r'empty \(0'),
     ('empty.bag', r'empty \(0'), ('nowhere', 'does not exist'), ('.', r'metadata\.yaml')],
)  # fmt: skip
def test_what_is_no_bag_is_named(tmp_path: Path, name: str, words: str) -> None:
    if name.startswith('empty'):
        (tmp_path / name).touch()
    with pytest.raises(BagError, match=words):
        BagReader(tmp_path / name)


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


# -- several cameras -------------------------------------------------------------------------


def write_cameras(path: Path) -> Path:
    """Write two cameras, one wholly after the other, with topics that are no camera."""
    with BagWriter(path) as bag:
        for place, topic in enumerate(['/left/image_raw', '/right/image_raw']):
            for index in range(12):
                stamp = START + index * STEP + place * STEP // 2
                frame = Frame(image=picture(20 * place + index), stamp_ns=stamp)
                bag.write_frame(topic, frame, received_ns=START + (12 * place + index) * STEP)
        bag.write_labels('/left/labels_truth', picture(0)[..., 0], stamp_ns=START)
        bag.write_labels('/left/nightseg/labels', picture(0)[..., 0], stamp_ns=START)
        content = cv2.imencode('.png', picture(0))[1].tobytes()
        bag.write_compressed('/left/image_raw/compressed', content, 'png', stamp_ns=START)
        bag.write_value('/weather', 'rain', START)
    return path


def test_cameras_are_merged_by_stamp_whatever_their_distance_in_the_file(tmp_path: Path) -> None:
    path = write_cameras(tmp_path / 'two')
    with BagReader(path) as bag:
        assert [t.name for t in bag.camera_topics] == ['/left/image_raw', '/right/image_raw']
    source = open_source(path, every_camera=True)
    items = list(source)
    assert source.count == len(items) == 24
    stamps = [frame.stamp_ns for _, frame in items if isinstance(frame, Frame)]
    assert stamps == sorted(stamps) and len(stamps) == 24
    assert [stem for stem, _ in items[:4]] == [
        'left_000000', 'right_000000', 'left_000001', 'right_000001',
    ]  # fmt: skip
    assert {frame.camera for _, frame in items if isinstance(frame, Frame)} == {'left', 'right'}
    with pytest.raises(BagError, match='--topic'):
        open_source(path)


def test_cameras_that_share_no_chunk_are_read_alone(tmp_path: Path) -> None:
    with BagWriter(tmp_path / 'bag') as bag:
        for index, frame in enumerate(large(6)):
            bag.write_frame(f'/{("left", "right")[index % 2]}/image_raw', frame)
    for camera, first in (('left', 0), ('right', 1)):
        found = read(tmp_path / 'bag', f'/{camera}/image_raw')
        assert [frame.stamp_ns for frame in found if isinstance(frame, Frame)] == [
            START + index * STEP for index in range(first, 6, 2)
        ]


def test_a_message_without_a_header_has_the_time_of_its_recording(tmp_path: Path) -> None:
    with BagWriter(tmp_path / 'bag') as bag:
        # a text that could be taken for a stamp
        bag.write_value('/weather', '0123456', START)
    with BagReader(tmp_path / 'bag') as reader:
        [topic] = reader.topics
        assert [message.stamp_ns for message in reader.messages(topic)] == [START]


# -- made bags -------------------------------------------------------------------------------


def pictures(folder: Path, count: int = 4) -> Path:
    folder.mkdir()
    for index in range(count):
        assert cv2.imwrite(str(folder / f'p{index}.png'), picture(index))
    return folder


@pytest.mark.parametrize('format', ['raw', 'png'])
@pytest.mark.parametrize('compress', [True, False])
def test_a_folder_becomes_a_bag(tmp_path: Path, format: str, compress: bool) -> None:
    folder = pictures(tmp_path / 'in')
    (folder / 'p2.png').write_bytes(b'torn')
    (tmp_path / 'labels').mkdir()
    cv2.imwrite(str(tmp_path / 'labels' / 'p1.png'), picture(7)[..., 0])
    made = make_bag(
        open_source(folder, rate=5), tmp_path / 'bag', format=format, compress=compress,
        labels=tmp_path / 'labels', topic='/roof/image_raw', frame_id='roof',
    )  # fmt: skip
    assert (made.frames, made.labelled, len(made.problems)) == (3, 1, 1)
    found = read(tmp_path / 'bag')
    assert [frame.stamp_ns - STAMP_OFFSET for frame in found if isinstance(frame, Frame)] == [
        0, 200_000_000, 600_000_000,
    ]  # fmt: skip
    for frame, index in zip(found, (0, 1, 3)):
        assert isinstance(frame, Frame)
        assert (frame.image == picture(index)).all()
        assert (frame.frame_id, frame.camera) == ('roof', 'roof')
    [truth] = read(tmp_path / 'bag', '/roof/labels_truth')
    assert isinstance(truth, Frame)
    assert (truth.image[..., 0] == picture(7)[..., 0]).all()
    assert truth.stamp_ns == found[1].stamp_ns


def test_a_file_of_stamps_is_taken_to_the_nanosecond(tmp_path: Path) -> None:
    folder = pictures(tmp_path / 'in')
    names = ['p3.png', 'p0.png', 'gone.png']
    lines = [f'1700000000.12345678{i} rgb/{name}' for i, name in enumerate(names)]
    (tmp_path / 'stamps.txt').write_text('# time name\n' + '\n'.join(lines) + '\n')
    source = open_source(folder, stamps=tmp_path / 'stamps.txt')
    made = make_bag(source, tmp_path / 'bag')
    assert (made.frames, len(made.problems)) == (2, 1) and 'gone.png' in made.problems[0]
    found = read(tmp_path / 'bag')
    assert [(f.stamp_ns, (f.image == picture(i)).all()) for f, i in zip(found, (3, 0))] == [
        (1_700_000_000_123_456_780, True), (1_700_000_000_123_456_781, True),
    ]  # fmt: skip


def test_bag_make_and_info_are_verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = pictures(tmp_path / 'in')
    assert main(['bag', 'make', str(folder), '--out', str(tmp_path / 'bag')]) == 0
    assert '4 frames' in capsys.readouterr().out
    assert main(['bag', 'make', str(tmp_path / 'bag'), '--out', str(tmp_path / 'b')]) == 2
    assert main(['bag', 'info', str(tmp_path / 'bag'), '--check']) == 0
    assert '/camera/image_raw' in capsys.readouterr().out
    storage = tmp_path / 'bag' / 'bag.mcap'
    storage.write_bytes(storage.read_bytes()[:-200])
    assert main(['bag', 'info', str(tmp_path / 'bag'), '--check']) == 1
    assert 'bag.mcap ends' in capsys.readouterr().err


# -- predictions -----------------------------------------------------------------------------


@pytest.fixture(scope='module')
def config(tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    files = tiny_weights.write_all(tmp_path_factory.mktemp('weights'))
    names = {key.removeprefix('weights.'): str(path) for key, path in files.items()}
    return PipelineConfig(weights=WeightsConfig(**names), backend='torch', device='cpu', threads=1)


def drive(path: Path, count: int = 6) -> Path:
    """Write a camera that drives into a tunnel, with topics that are copied or replaced."""
    with BagWriter(path) as bag:
        for index in range(count):
            image = np.full((48, 80, 3), 150, np.uint8) + picture(index, 48, 80) // 20
            if index >= count // 2:
                image[24:] = 0
            stamp = START + index * 10 * STEP
            bag.write_frame(TOPIC, Frame(image=image, stamp_ns=stamp, frame_id='optical'))
        bag.write_labels('/front/nightseg/labels', picture(0)[..., 0], stamp_ns=START)
        bag.write_value('/weather', 'rain', START + 3)
    return path


def test_predictions_are_the_pipelines_own_under_the_nodes_topics(
    tmp_path: Path, config: PipelineConfig
) -> None:
    source = drive(tmp_path / 'drive')
    done = write_predictions(source, tmp_path / 'copy', Pipeline.load(config))
    assert (done.frames, sum(done.routes.values()), done.problems) == (6, 6, [])
    assert done.left_out == ["'/front/nightseg/labels' is predicted anew"]
    pipeline = Pipeline.load(config)
    with BagReader(tmp_path / 'copy') as bag:
        names = {topic.name: topic for topic in bag.topics}
        assert names.keys() == {
            TOPIC, '/weather', *(f'/front/nightseg/{output}' for output in DEFAULT_OUTPUTS),
        }  # fmt: skip
        assert bag.latched_topics == {'/front/nightseg/label_info_json'}
        frames = list(bag.frames(names[TOPIC]))
        assert [f.stamp_ns for f in frames] == [f.stamp_ns for f in read(source, TOPIC)]
        routes = []
        for frame, labels, overlay, status in zip(
            frames,
            bag.frames(names['/front/nightseg/labels']),
            bag.frames(names['/front/nightseg/overlay']),
            bag.messages(names['/front/nightseg/status']),
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


def test_predictions_twice_are_the_same_bytes(tmp_path: Path, config: PipelineConfig) -> None:
    source = drive(tmp_path / 'drive')
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
        write_predictions(source, tmp_path / name / 'copy', Pipeline.load(config))
    one, two = (tmp_path / name / 'copy' / 'copy.mcap' for name in ('one', 'two'))
    assert one.read_bytes() == two.read_bytes()


def test_predictions_of_a_damaged_bag_say_what_is_missing(
    tmp_path: Path, config: PipelineConfig
) -> None:
    with BagWriter(tmp_path / 'drive') as bag:
        for frame in large(3):
            bag.write_frame(TOPIC, frame)
    storage = tmp_path / 'drive' / 'drive.mcap'
    storage.write_bytes(storage.read_bytes()[: int(0.8 * storage.stat().st_size)])
    done = write_predictions(
        tmp_path / 'drive', tmp_path / 'copy', Pipeline.load(config), outputs=['labels', 'status']
    )
    assert done.frames == 2
    [problem] = done.problems
    assert '2 of about 3 messages read' in problem
    with pytest.raises(BagError, match='exists'):
        write_predictions(tmp_path / 'drive', tmp_path / 'copy', Pipeline.load(config))


def test_predictions_of_a_ros1_bag_become_a_ros2_bag(
    tmp_path: Path, config: PipelineConfig
) -> None:
    source = bag_samples.write_bag(tmp_path, 'ros1')
    done = write_predictions(source, tmp_path / 'copy', Pipeline.load(config), outputs=['labels'])
    assert done.frames == bag_samples.COUNT and not done.problems
    found = read(tmp_path / 'copy', bag_samples.TOPIC)
    assert [frame.stamp_ns for frame in found] == list(bag_samples.expected())
    for frame in found:
        np.testing.assert_array_equal(frame.image, bag_samples.expected()[frame.stamp_ns])
        assert frame.frame_id == 'optical'


def test_predictions_are_topics_of_the_node() -> None:
    topics = pytest.importorskip('nightseg_ros.node.camera').TOPICS
    kinds = {topic.name: topic.kind.replace('/', '/msg/') for topic in topics}
    assert {name: kinds[name] for name in KINDS} == KINDS
    assert {t.name for t in topics if t.latched} & KINDS.keys() == {'label_info_json'}


@pytest.mark.parametrize(
    ('topics', 'wanted'),
    [
        (['/front/image_raw'], ['/front/nightseg']),
        (['/front/image_raw/compressed'], ['/front/nightseg']),
        (['/s/left', '/s/right', '/image'], ['/s/left/nightseg', '/s/right/nightseg',
                                             '/image/nightseg']),
    ],
)  # fmt: skip
def test_results_lie_beside_their_image(topics: list[str], wanted: list[str]) -> None:
    assert output_prefixes(topics) == wanted


# -- copies ----------------------------------------------------------------------------------

#: As an older release of ROS 2 had it.
MARKER = 'int32 id\nstring text\n'
OWN = (
    Channel(topic='/map', type='std_msgs/msg/String', qos=(reliable_qos(latched=True),)),
    Channel(topic='/old', type='visualization_msgs/msg/Marker', definition=MARKER),
    Channel(topic='/known', type='odd_msgs/msg/Known', definition='uint8 x', digest='RIHS01_ab'),
    Channel(topic='/odd', type='odd_msgs/msg/Thing', encoding='protobuf'),
)


def test_a_copy_describes_nothing_anew_and_drops_nothing(
    tmp_path: Path, config: PipelineConfig
) -> None:
    with BagWriter(tmp_path / 'more', storage='sqlite3') as bag:
        bag.write_frame(TOPIC, Frame(image=picture(0, 48, 80), stamp_ns=START))
        for channel in OWN:
            bag.add_topic(channel)
            bag.write(Message(channel=channel, received_ns=START, data=b'\0\1\0\0'))
    done = write_predictions(
        tmp_path / 'more', tmp_path / 'copy', Pipeline.load(config), outputs=['labels']
    )
    assert not done.left_out
    with BagReader(tmp_path / 'copy') as reader:
        found = {record.channel.topic: record.channel for record in reader.records()}
    for channel in OWN:
        copied = found[channel.topic]
        assert copied == replace(channel, digest='', definition=copied.definition)
        assert copied.definition == channel.definition or channel.topic == '/map'
    metadata = (tmp_path / 'copy' / 'metadata.yaml').read_text()
    hashes = re.findall(r'type_description_hash:\s+(\S+)', metadata)
    assert {'RIHS01_ab', 'RIHS01_' + 64 * '0'} < set(hashes)


def test_messages_of_another_encoding_are_named(tmp_path: Path) -> None:
    with BagWriter(tmp_path / 'bag') as bag:
        channel = Channel(topic=TOPIC, type='sensor_msgs/msg/Image', encoding='json')
        bag.write(Message(channel=channel, received_ns=START, data=b'{}'))
    [error] = read(tmp_path / 'bag')
    assert "is serialised as 'json'; only 'cdr' is read" in str(error)
