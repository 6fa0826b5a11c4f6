# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Damaged bags: what can be read comes as it was, and what is lost is said."""

import contextlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path
import re
import shutil
import sqlite3
import struct

from bag_samples import COUNT, frames_of, KINDS, picture, START, STEP, TOPIC, write_bag
from mcap.reader import make_reader
from mcap.records import Chunk, ChunkIndex, Statistics
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType, Writer
from nightseg_ros.bags.reader import BagError, BagReader, BagReadError, inspect_bag
from nightseg_ros.bags.storage import _zstd
from nightseg_ros.bags.writer import BagWriter
from nightseg_ros.cli.main import main
from nightseg_ros.data.source import open_source
from nightseg_ros.perception.frame import Frame, FrameError
import numpy as np
import pytest
import yaml


def read(path: Path) -> tuple[list[int], list[FrameError]]:
    """Return the places of the frames, all as written, in order and each once; and errors."""
    with BagReader(path) as bag:
        items = frames_of(bag)
    places = []
    for frame in items:
        if isinstance(frame, Frame):
            place, rest = divmod(frame.stamp_ns - START, STEP)
            np.testing.assert_array_equal(frame.image, picture(place))
            assert (rest, frame.frame_id) == (0, 'optical')
            places.append(place)
    assert places == sorted(set(places))
    return places, [item for item in items if isinstance(item, FrameError)]


def bag_of(storage: Path) -> Path:
    """Return the bag that a storage file belongs to."""
    return storage if storage.suffix == '.bag' else storage.parent


def chunks(content: bytes) -> list[ChunkIndex]:
    """Return where the chunks of an MCAP file lie."""
    return make_reader(BytesIO(content)).get_summary().chunk_indexes


# -- files that end too early ----------------------------------------------------------------


@pytest.mark.parametrize('kind', KINDS)
def test_a_file_cut_anywhere_gives_what_lies_before(tmp_path, kind):
    storage = write_bag(tmp_path, kind)
    bag, content = bag_of(storage), storage.read_bytes()
    assert read(bag) == (list(range(COUNT)), [])
    # ROS 1 bags have no metadata.yaml
    for metadata in (True, False) if bag.is_dir() else (False,):
        if bag.is_dir() and not metadata:
            (bag / 'metadata.yaml').unlink()
            storage.write_bytes(content)
            assert read(bag) == (list(range(COUNT)), [])
        found = []
        for cut in range(0, len(content), len(content) // 24):
            storage.write_bytes(content[:cut])
            try:
                places, errors = read(bag)
            except BagError as error:
                assert storage.name.removesuffix('.zstd') in str(error)
                found.append(0)
                continue
            assert places == list(range(len(places))), 'the beginning, without a gap'
            if len(places) < COUNT or not metadata:
                [unread] = errors
                assert isinstance(unread, BagReadError) and f'{len(places)} ' in str(unread)
            found.append(len(places))
        assert found == sorted(found)
        # what is packed as a whole gives hardly anything before its end; ROS 1 needs its index
        if not kind.endswith('file') and not kind.startswith('ros1'):
            assert len(set(found)) > 4 and found[-1] >= COUNT - 3


def test_a_packed_file_that_is_cut_gives_its_first_chunks(tmp_path):
    with BagWriter(tmp_path / 'plain') as bag:
        for index in range(12):
            frame = Frame(image=picture(index, 240, 360), stamp_ns=START + index * STEP)
            bag.write_frame(TOPIC, frame)
    content = _zstd.compress((tmp_path / 'plain' / 'plain.mcap').read_bytes())
    (tmp_path / 'plain.mcap.zstd').write_bytes(content[: len(content) // 2])
    with BagReader(tmp_path / 'plain.mcap.zstd') as reader:
        *frames, unread = frames_of(reader)
    # a chunk is of 1 MiB
    assert len(frames) == 5
    np.testing.assert_array_equal(frames[-1].image, picture(4, 240, 360))
    assert 'the compressed file ends too early' in str(unread)


# -- files with a hole, or with wrong bytes --------------------------------------------------


def hole(content: bytes) -> bytes:
    """Lose the first pixels of frame 5, and its heads before them."""
    middle = content.find(picture(5).tobytes()[:100])
    return content[: middle - 60] + bytes(120) + content[middle:][60:]


def long_index(content: bytes) -> bytes:
    """Found by fuzzing: two lengths of 64 bits led to where no file can be read."""
    first = chunks(content)[0]
    at = first.chunk_start_offset + first.chunk_length + 1
    assert content[at - 1] == 7
    return content[:at] + b'\xff' * 8 + content[at:][8:]


def without_chunks(content: bytes) -> bytes:
    """Leave what `ros2 bag record --storage-preset-profile fastwrite` leaves after a kill."""
    bare = content[: 8 + 9 + struct.unpack_from('<Q', content, 9)[0]]
    records = StreamReader(BytesIO(content), emit_chunks=True).records
    return bare + b''.join(record.data for record in records if isinstance(record, Chunk))


def without_chunks_and_a_head(content: bytes) -> bytes:
    # the head of a record stands before the message's own
    bare = without_chunks(content)
    at = bare.find(picture(6).tobytes()) - 83
    return bare[:at] + bytes(40) + bare[at:][40:]


def page_of(content: bytes, index: int) -> int:
    """Return where the page of a database begins in which a frame ends."""
    return content.find(picture(index).tobytes()[-50:]) // 4096 * 4096


def spoiled_page(content: bytes) -> bytes:
    page = page_of(content, 5)
    return content[:page] + b'\x0d\xff\xff\xff' * 1024 + content[page:][4096:]


@pytest.mark.parametrize(
    ('kind', 'spoil', 'wanted', 'words'),
    [
        ('mcap', lambda content: content[: len(content) * 3 // 5], range(6),
         f'6 of about {COUNT} messages read; drive.mcap ends inside a chunk at byte [0-9]+'),
        ('mcap', hole, [*range(5), *range(6, COUNT)], ''),
        ('mcap', long_index, range(2), 'or is damaged there'),
        ('mcap', without_chunks, range(COUNT), ''),
        ('mcap', without_chunks_and_a_head, range(6), 'is damaged from byte'),
        ('ros1', hole, range(5), ''),
        ('sqlite3', hole, [*range(5), *range(6, COUNT)], ''),
        ('sqlite3', spoiled_page, range(4), 'malformed'),
        # between two pages, and within one: SQLite fills that with zeros, as pixels may be
        ('sqlite3', lambda content: content[: page_of(content, 8) + 4096], range(9), 'ends at'),
        ('sqlite3', lambda content: content[: page_of(content, 8) + 4000], range(8), 'ends at'),
        ('sqlite3', lambda content: bytes(4096) + content[4096:], (), 'not a database'),
    ],
)  # fmt: skip
def test_damage_costs_what_it_touches_or_what_lies_behind_it(tmp_path, kind, spoil, wanted, words):
    storage = write_bag(tmp_path, kind)
    storage.write_bytes(spoil(storage.read_bytes()))
    places, errors = read(bag_of(storage))
    assert places == list(wanted)
    assert re.search(words, str(errors)), str(errors)
    assert errors or len(places) == COUNT, 'a frame is missing, and nobody says so'


def write_checked(folder: Path, compression: CompressionType = CompressionType.ZSTD) -> Path:
    """Write a file with checksums, as ROS 2 does and rosbags does not."""
    file = folder / 'checked.mcap'
    writer = Writer(str(file), chunk_size=4000, compression=compression)
    writer.start()
    for record in BagReader(write_bag(folder, 'mcap')).records():
        schema = writer.register_schema(record.channel.msgtype, 'ros2msg', b'')
        channel = writer.register_channel(record.channel.topic, 'cdr', schema)
        writer.add_message(channel, record.received_ns, record.data, record.received_ns)
    writer.finish()
    return file


def test_a_file_whose_messages_were_not_counted_by_channel_is_not_empty(tmp_path, monkeypatch):
    write = Statistics.write
    monkeypatch.setattr(
        Statistics, 'write', lambda s, out: write(replace(s, channel_message_counts={}), out)
    )
    [topic] = BagReader(write_checked(tmp_path)).topics
    assert topic.count == COUNT


@pytest.mark.parametrize('compression', CompressionType)
def test_a_chunk_that_fails_its_checksum_gives_nothing(tmp_path, compression):
    file = write_checked(tmp_path, compression)
    assert read(file)[0] == list(range(COUNT))
    content = bytearray(file.read_bytes())
    # frames 4 and 5 share the chunk
    content[chunks(bytes(content))[2].chunk_start_offset + 3000] ^= 1
    file.write_bytes(content)
    places, [unread] = read(file)
    assert places == [0, 1, 2, 3, *range(6, COUNT)]
    assert f'10 of about {COUNT} messages read' in str(unread) and 'in the chunk' in str(unread)


@pytest.mark.parametrize(
    ('statement', 'places'),
    [
        *((f'UPDATE messages SET {change} WHERE id = 3', [0, 1, *range(3, COUNT)])
          for change in ("timestamp = x'6c617465'", 'timestamp = 1.5e300',
                         f'data = {2**40}', "data = x'000100'")),
        ('UPDATE topics SET name = NULL', None), ("UPDATE topics SET type = x'696d'", None),
    ],
)  # fmt: skip
def test_a_row_of_other_types_is_lost_alone(tmp_path, statement, places):
    """Found by fuzzing: SQLite keeps whatever is written into a column."""
    storage = write_bag(tmp_path, 'sqlite3')
    with contextlib.closing(sqlite3.connect(storage)) as database:
        database.execute('CREATE TABLE other AS SELECT * FROM topics')
        database.execute('DROP TABLE topics')
        database.execute('ALTER TABLE other RENAME TO topics')
        database.execute(statement)
        database.commit()
    if places is None:
        (storage.parent / 'metadata.yaml').unlink()
        with pytest.raises(BagError, match=storage.parent.name):
            read(storage.parent)
    else:
        found, errors = read(storage.parent)
        assert found == places and errors


def test_what_a_killed_recorder_left_in_the_log_of_its_database_is_said(tmp_path):
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
    [(_, count, _)], [error] = inspect_bag(BagReader(killed), thorough=True)
    assert count == 8
    assert 'drive.db3-wal is not read; `sqlite3 drive.db3 "PRAGMA wal_ch' in error


def test_a_ros1_bag_that_was_never_closed_is_refused(tmp_path):
    content = write_bag(tmp_path, 'ros1').read_bytes()
    active = tmp_path / 'drive.bag.active'
    # it ends where the index of the chunk would begin, with the length of a header
    active.write_bytes(content[: content.rfind(b'\x2f\0\0\0', 0, content.find(b'op=\x04'))])
    words = r'no index that can be read .*; `rosbag reindex drive\.bag'
    with pytest.raises(BagError, match=words):
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
        names.append(f'split_{(1, 2, 10)[number]}{"".join(part.suffixes)}')
        part.rename(bag / names[-1])
        metadata = yaml.safe_load((part.parent / 'metadata.yaml').read_text())
    information = metadata['rosbag2_bagfile_information']
    information['relative_file_paths'] = names
    information['message_count'] = COUNT
    information['topics_with_message_count'][0]['message_count'] = COUNT
    (bag / 'metadata.yaml').write_text(yaml.safe_dump(metadata))
    return bag


@pytest.mark.parametrize('kind', ['mcap', 'mcap-file', 'sqlite3-messages', 'sqlite3-file'])
def test_split_bags_are_one(tmp_path, kind):
    bag = split(tmp_path, kind)
    metadata = bag / 'metadata.yaml'
    for after in ('counted', 'none counted', 'none'):
        assert read(bag) == (list(range(COUNT)), [])
        assert open_source(bag).count == COUNT
        if after == 'counted':
            metadata.write_text(metadata.read_text().replace(f'count: {COUNT}', 'count: 0'))
        else:
            metadata.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ('file', 'spoil', 'wanted', 'words'),
    [
        ('split_2.mcap', lambda content: None, [*range(4), *range(8, COUNT)], 'is missing'),
        ('split_2.mcap', lambda content: b'', [*range(4), *range(8, COUNT)], 'is empty (0 bytes)'),
        ('metadata.yaml', lambda content: content.replace(b'count: 12', b'count: 99'),
         range(COUNT), f'{COUNT} of 99 messages read'),
        *(('metadata.yaml', lambda content, torn=torn: torn, range(COUNT), 'cannot be read')
          for torn in (b'', b'a: [1', b'rosbag2_bagfile_information: 3')),
    ],
)  # fmt: skip
def test_a_folder_that_is_not_as_its_metadata_say_is_read_and_told(
    tmp_path, file, spoil, wanted, words
):
    bag = split(tmp_path, 'mcap')
    content = spoil((bag / file).read_bytes())
    if content is None:
        (bag / file).unlink()
    else:
        (bag / file).write_bytes(content)
    places, [unread] = read(bag)
    assert places == list(wanted) and words in str(unread)
    assert file in str(unread) or '99' in words
    # where the files are read without metadata.yaml, nothing is lost
    assert main(['bag', 'info', '--check', str(bag)]) == int(words != 'cannot be read')


def test_a_check_counts_what_is_read_and_what_is_none(tmp_path):
    with BagWriter(tmp_path / 'bag') as bag:
        for index, encoding in enumerate(['rgb8', 'bgr8', 'mono8', 'yuv999']):
            pixels = picture(index)[..., 0] if encoding == 'mono8' else picture(index)
            bag.write_image(TOPIC, pixels, encoding, stamp_ns=START + index * STEP)
    [(topic, count, undecodable)], errors = inspect_bag(BagReader(tmp_path / 'bag'), thorough=True)
    assert (topic.count, count, undecodable) == (4, 4, 1)
    assert errors == [f"'{TOPIC}': 1 images cannot be decoded"]
    assert not inspect_bag(BagReader(tmp_path / 'bag'), thorough=False)[1]
    # mixed encodings are read one by one
    with BagReader(tmp_path / 'bag') as reader:
        *frames, error = frames_of(reader)
    assert [frame.order for frame in frames] == ['rgb', 'bgr', 'rgb'] and 'yuv999' in str(error)
