# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Damaged bags: what can be read comes as it was, and what is lost is said."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from bag_samples import COUNT, KINDS, START, STEP, TOPIC, expected, picture, write_bag
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.writer import CompressionType, Writer

from nightseg_ros.bags.reader import BagError, BagLoss, BagReader, inspect_bag
from nightseg_ros.bags.storage import _zstd
from nightseg_ros.bags.writer import BagWriter
from nightseg_ros.data.source import open_source
from nightseg_ros.perception.frame import Frame, FrameError


def read(path: Path) -> tuple[list[Frame], list[FrameError]]:
    with BagReader(path) as bag:
        items = list(bag.frames(bag.image_topic(TOPIC)))
    frames = [item for item in items if isinstance(item, Frame)]
    return frames, [item for item in items if isinstance(item, FrameError)]


def check(frames: list[Frame]) -> list[int]:
    """Return the places of frames that are what was written, in order and each once."""
    known = expected()
    for frame in frames:
        np.testing.assert_array_equal(frame.image, known[frame.stamp_ns])
        assert frame.frame_id == 'optical'
    places = [(frame.stamp_ns - START) // STEP for frame in frames]
    assert places == sorted(set(places))
    return places


def bag_of(storage: Path) -> Path:
    """Return the bag that a storage file belongs to."""
    return storage if storage.suffix == '.bag' else storage.parent


def chunks(content: bytes) -> list[int]:
    """Return where the chunks of an MCAP file begin."""
    at, found = 8, []
    while content[at : at + 1] not in (b'', b'\x02', b'\x89'):
        opcode, length = struct.unpack_from('<BQ', content, at)
        if opcode == 6:
            found.append(at)
        at += 9 + length
    return found


# -- files that end too early ----------------------------------------------------------------


@pytest.mark.parametrize(
    ('kind', 'metadata'),
    [
        *((kind, True) for kind in KINDS),
        # ROS 1 bags have no metadata.yaml
        *((kind, False) for kind in KINDS if not kind.startswith('ros1')),
    ],
)
def test_a_file_cut_anywhere_gives_what_lies_before(
    tmp_path: Path, kind: str, metadata: bool
) -> None:
    storage = write_bag(tmp_path, kind)
    content = storage.read_bytes()
    bag = bag_of(storage)
    assert check(read(bag)[0]) == list(range(COUNT)) and not read(bag)[1]
    if not metadata:
        (bag / 'metadata.yaml').unlink()
        assert check(read(bag)[0]) == list(range(COUNT)) and not read(bag)[1]
    found = []
    for cut in range(0, len(content), len(content) // 24):
        storage.write_bytes(content[:cut])
        try:
            frames, errors = read(bag)
        except BagError as error:
            assert storage.name.removesuffix('.zstd') in str(error)
            found.append(0)
            continue
        places = check(frames)
        assert places == list(range(len(places))), 'the beginning, without a gap'
        if len(places) < COUNT or not metadata:
            [loss] = errors
            assert isinstance(loss, BagLoss) and f'{len(places)} ' in str(loss)
        found.append(len(places))
    assert found == sorted(found)
    # what is packed as a whole gives hardly anything before its end, and ROS 1 needs its index
    if not kind.endswith('file') and not kind.startswith('ros1'):
        assert len(set(found)) > 4 and found[-1] >= COUNT - 3


def test_a_loss_names_counts_and_place_and_comes_last(tmp_path: Path) -> None:
    storage = write_bag(tmp_path, 'mcap')
    content = storage.read_bytes()
    storage.write_bytes(content[: int(0.6 * len(content))])
    *frames, (_, loss) = open_source(storage.parent)
    assert all(isinstance(item, Frame) for _, item in frames) and isinstance(loss, BagLoss)
    assert f'{len(frames)} of about {COUNT} messages read' in str(loss)
    assert f'{storage.name} ends inside a chunk at byte ' in str(loss)


def test_a_packed_file_that_is_cut_gives_its_first_chunks(tmp_path: Path) -> None:
    with BagWriter(tmp_path / 'plain') as bag:
        for index in range(12):
            frame = Frame(image=picture(index, 240, 360), stamp_ns=START + index * STEP)
            bag.write_frame(TOPIC, frame)
    content = _zstd.compress((tmp_path / 'plain' / 'plain.mcap').read_bytes())
    (tmp_path / 'plain.mcap.zstd').write_bytes(content[: len(content) // 2])
    frames, [loss] = read(tmp_path / 'plain.mcap.zstd')
    # a chunk is of 1 MiB
    assert len(frames) == 5
    np.testing.assert_array_equal(frames[-1].image, picture(4, 240, 360))
    assert 'the compressed file ends too early' in str(loss)


# -- files with a hole, or with wrong bytes --------------------------------------------------


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: write_bag(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


@pytest.mark.parametrize('kind', KINDS)
@settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(data=st.data())
def test_wrong_bytes_are_never_more_than_a_loss(
    whole: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, kind: str,
    data: st.DataObject,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp('damaged')
    source = bag_of(whole[kind])
    copy = folder / source.name
    shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy)
    storage = copy if copy.is_file() else copy / whole[kind].name
    content = bytearray(storage.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    length = data.draw(st.sampled_from([1, 8, 300, 5000]))
    what = data.draw(st.sampled_from(['zeros', 'noise', 'hole', 'twice']))
    piece = content[at : at + length]
    noise = np.random.default_rng(at).integers(0, 256, len(piece), np.uint8).tobytes()
    content[at : at + length] = {
        'zeros': bytes(len(piece)), 'noise': noise, 'hole': b'', 'twice': piece + piece,
    }[what]  # fmt: skip
    storage.write_bytes(content)
    if copy.is_dir() and data.draw(st.booleans()):
        (copy / 'metadata.yaml').unlink()
    try:
        frames, _ = read(copy)
    except BagError as error:
        assert source.name in str(error)
        return
    # wrong pixels cannot be told where a format has no checksums, wrong sizes can
    assert {frame.image.shape for frame in frames} <= {(24, 36, 3)}
    assert len(frames) <= COUNT + 2
    shutil.rmtree(folder)


@pytest.mark.parametrize(('kind', 'behind'), [('mcap', 6), ('ros1', 0), ('sqlite3', 6)])
def test_a_hole_costs_its_frame_or_what_lies_behind_it(
    tmp_path: Path, kind: str, behind: int
) -> None:
    storage = write_bag(tmp_path, kind)
    content = bytearray(storage.read_bytes())
    # the first pixels of frame 5, and its heads before them
    middle = content.find(picture(5).tobytes()[:100])
    content[middle - 60 : middle + 60] = bytes(120)
    storage.write_bytes(content)
    frames, errors = read(bag_of(storage))
    places = check(frames)
    assert places[:4] == [0, 1, 2, 3] and len([p for p in places if p > 5]) == behind
    assert errors, 'a frame is missing, and nobody says so'


@pytest.mark.parametrize('compression', CompressionType)
def test_a_chunk_that_fails_its_checksum_gives_nothing(
    tmp_path: Path, compression: CompressionType
) -> None:
    # rosbags writes no checksums, ROS 2 does
    file = tmp_path / 'checked.mcap'
    writer = Writer(str(file), chunk_size=4000, compression=compression)
    writer.start()
    for record in BagReader(write_bag(tmp_path, 'mcap')).records():
        schema = writer.register_schema(record.channel.type, 'ros2msg', b'')
        channel = writer.register_channel(record.channel.topic, 'cdr', schema)
        writer.add_message(channel, record.received_ns, record.data, record.received_ns)
    writer.finish()
    assert check(read(file)[0]) == list(range(COUNT))
    content = bytearray(file.read_bytes())
    # frames 4 and 5 share the chunk
    content[chunks(bytes(content))[2] + 3000] ^= 1
    file.write_bytes(content)
    frames, [loss] = read(file)
    assert check(frames) == [0, 1, 2, 3, *range(6, COUNT)]
    assert f'10 of about {COUNT} messages read' in str(loss) and 'in the chunk' in str(loss)


@pytest.mark.parametrize(
    ('column', 'value'),
    [('timestamp', b'late'), ('timestamp', 1.5e300), ('data', 2**40), ('data', b'\0\1\0')],
)
def test_a_row_of_other_types_is_lost_alone(tmp_path: Path, column: str, value: object) -> None:
    """Found by fuzzing: SQLite keeps whatever is written into a column."""
    storage = write_bag(tmp_path, 'sqlite3')
    with contextlib.closing(sqlite3.connect(storage)) as database:
        database.execute(f'UPDATE messages SET {column} = ? WHERE id = 3', (value,))
        database.commit()
    frames, errors = read(storage.parent)
    assert check(frames) == [0, 1, *range(3, COUNT)]
    assert errors


@pytest.mark.parametrize(('column', 'value'), [('name', None), ('type', b'image')])
def test_a_topic_without_a_name_is_told(tmp_path: Path, column: str, value: object) -> None:
    """Found by fuzzing: as above, in the table of topics."""
    storage = write_bag(tmp_path, 'sqlite3')
    with contextlib.closing(sqlite3.connect(storage)) as database:
        database.execute('CREATE TABLE other AS SELECT * FROM topics')
        database.execute('DROP TABLE topics')
        database.execute('ALTER TABLE other RENAME TO topics')
        database.execute(f'UPDATE topics SET {column} = ?', (value,))
        database.commit()
    (storage.parent / 'metadata.yaml').unlink()
    with pytest.raises(BagError, match=storage.parent.name):
        read(storage.parent)


def test_an_index_of_any_length_ends_at_the_end_of_the_file(tmp_path: Path) -> None:
    """Found by fuzzing: two lengths of 64 bits led to where no file can be read."""
    storage = write_bag(tmp_path, 'mcap')
    content = bytearray(storage.read_bytes())
    (_, length) = struct.unpack_from('<BQ', content, chunks(bytes(content))[0])
    index = chunks(bytes(content))[0] + 9 + length
    assert content[index] == 7
    struct.pack_into('<Q', content, index + 1, 2**64 - 1)
    storage.write_bytes(content)
    frames, [loss] = read(storage.parent)
    assert check(frames) == [0, 1] and 'or is damaged there' in str(loss)


@pytest.mark.parametrize('hole', [None, 6])
def test_an_mcap_without_chunks_or_index_is_read(tmp_path: Path, hole: int | None) -> None:
    storage = write_bag(tmp_path, 'mcap')
    content = storage.read_bytes()
    # what `ros2 bag record --storage-preset-profile fastwrite` leaves after a kill
    bare = bytearray(content[: 8 + 9 + struct.unpack_from('<Q', content, 9)[0]])
    for at in chunks(content):
        (size,) = struct.unpack_from('<Q', content, at + 9 + 16)
        bare += content[at + 49 : at + 49 + size]
    if hole is not None:
        # the head of the record stands before the message's own
        at = bare.find(picture(hole).tobytes()) - 83
        bare[at : at + 40] = bytes(40)
    (tmp_path / 'bare.mcap').write_bytes(bare)
    frames, [loss] = read(tmp_path / 'bare.mcap')
    assert check(frames) == list(range(COUNT if hole is None else hole))
    assert ('is damaged from byte' if hole else 'it was not finished') in str(loss)


def spoil_page(content: bytearray) -> None:
    page = content.find(picture(5).tobytes()[-50:]) // 4096 * 4096
    content[page : page + 4096] = b'\x0d\xff\xff\xff' * 1024


def spoil_first_page(content: bytearray) -> None:
    content[:4096] = bytes(4096)


@pytest.mark.parametrize(('spoil', 'least'), [(spoil_page, 2), (spoil_first_page, 0)])
def test_a_database_gives_what_lies_before_a_damaged_page(
    tmp_path: Path, spoil: Callable[[bytearray], None], least: int
) -> None:
    storage = write_bag(tmp_path, 'sqlite3')
    content = bytearray(storage.read_bytes())
    spoil(content)
    storage.write_bytes(content)
    frames, [loss] = read(storage.parent)
    places = check(frames)
    assert places == list(range(len(places))) and least <= len(places) < 6
    assert f'{len(places)} of about {COUNT} messages read' in str(loss)


def test_what_a_killed_recorder_left_in_the_log_of_its_database_is_said(tmp_path: Path) -> None:
    storage = write_bag(tmp_path, 'sqlite3', range(8))
    database = sqlite3.connect(storage)
    database.execute('PRAGMA journal_mode=WAL')
    database.execute('INSERT INTO messages (topic_id, timestamp, data) SELECT topic_id, timestamp '
                     '+ 1, data FROM messages')  # fmt: skip
    database.commit()
    killed = tmp_path / 'killed'
    killed.mkdir()
    # an open database is what a kill leaves behind
    for name in (storage.name, f'{storage.name}-wal'):
        shutil.copy(storage.parent / name, killed / name)
    database.close()
    [(_, count, _)], [error] = inspect_bag(killed, thorough=True)
    assert count == 8
    assert 'drive.db3-wal is not read; `sqlite3 drive.db3 "PRAGMA wal_ch' in error


def test_a_ros1_bag_that_was_never_closed_is_refused(tmp_path: Path) -> None:
    content = write_bag(tmp_path, 'ros1').read_bytes()
    active = tmp_path / 'drive.bag.active'
    # it ends where the index of the chunk would begin, with the length of a header
    active.write_bytes(content[: content.rfind(b'\x2f\0\0\0', 0, content.find(b'op=\x04'))])
    with pytest.raises(
        BagError, match=r'no index that can be read .*; `rosbag reindex drive\.bag'
    ):
        read(active)


# -- folders ---------------------------------------------------------------------------------


def split(folder: Path, kind: str) -> Path:
    """Write a bag of three files of four frames each, in the way of ros2 bag record."""
    bag = folder / 'split'
    bag.mkdir()
    names = []
    for number in range(3):
        part = write_bag(folder, kind, range(4 * number, 4 * number + 4), name=f'part{number}')
        # ten before two would be the order of the letters
        name = f'split_{(1, 2, 10)[number]}{"".join(part.suffixes)}'
        part.rename(bag / name)
        names.append(name)
        metadata = yaml.safe_load((part.parent / 'metadata.yaml').read_text())
    information = metadata['rosbag2_bagfile_information']
    information['relative_file_paths'] = names
    information['message_count'] = COUNT
    information['topics_with_message_count'][0]['message_count'] = COUNT
    (bag / 'metadata.yaml').write_text(yaml.safe_dump(metadata))
    return bag


@pytest.mark.parametrize('kind', ['mcap', 'mcap-file', 'sqlite3-messages', 'sqlite3-file'])
@pytest.mark.parametrize('metadata', [True, False], ids=['metadata', 'bare'])
def test_split_bags_are_one(tmp_path: Path, kind: str, metadata: bool) -> None:
    bag = split(tmp_path, kind)
    if not metadata:
        (bag / 'metadata.yaml').unlink()
    frames, errors = read(bag)
    assert check(frames) == list(range(COUNT)) and not errors
    assert open_source(bag).count == COUNT


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [(Path.unlink, 'is missing'), (lambda path: path.write_bytes(b''), 'is empty (0 bytes)')],
)
def test_a_missing_or_empty_file_of_a_split_bag_is_named(
    tmp_path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    bag = split(tmp_path, 'mcap')
    spoil(bag / 'split_2.mcap')
    frames, [loss] = read(bag)
    assert check(frames) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert f'split_2.mcap {words}' in str(loss) and f'8 of about {COUNT}' in str(loss)


@pytest.mark.parametrize('text', ['', 'a: [1', 'rosbag2_bagfile_information: 3'])
def test_a_torn_metadata_file_is_done_without(tmp_path: Path, text: str) -> None:
    bag = write_bag(tmp_path, 'mcap').parent
    (bag / 'metadata.yaml').write_text(text)
    frames, errors = read(bag)
    assert check(frames) == list(range(COUNT))
    assert 'metadata.yaml cannot be read' in str(errors)


def test_a_bag_that_promises_more_than_it_holds_says_so(tmp_path: Path) -> None:
    bag = write_bag(tmp_path, 'mcap').parent
    text = (bag / 'metadata.yaml').read_text()
    (bag / 'metadata.yaml').write_text(
        text.replace(f'message_count: {COUNT}', 'message_count: 99')
    )
    frames, [loss] = read(bag)
    assert check(frames) == list(range(COUNT))
    assert f'{COUNT} of 99 messages read' in str(loss)


# -- what is told ----------------------------------------------------------------------------


def test_a_check_counts_what_is_read_and_what_is_none(tmp_path: Path) -> None:
    with BagWriter(tmp_path / 'bag') as bag:
        for index, encoding in enumerate(['rgb8', 'bgr8', 'mono8', 'yuv999']):
            image = picture(index)
            pixels = image[..., 0] if encoding == 'mono8' else image
            bag.write_image(TOPIC, pixels, encoding, stamp_ns=START + index * STEP)
    [(topic, count, undecodable)], errors = inspect_bag(tmp_path / 'bag', thorough=True)
    assert (topic.count, count, undecodable) == (4, 4, 1)
    assert errors == [f"'{TOPIC}': 1 images cannot be decoded"]
    assert not inspect_bag(tmp_path / 'bag', thorough=False)[1]
    # mixed encodings are read one by one
    frames, [error] = read(tmp_path / 'bag')
    assert [frame.order for frame in frames] == ['rgb', 'bgr', 'rgb']
    assert 'yuv999' in str(error)
