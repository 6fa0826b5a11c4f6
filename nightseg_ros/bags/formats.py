# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The messages of one file of a bag: MCAP, sqlite3 or ROS 1, whole or damaged.

A damaged chunk of an MCAP file is left out; behind a damaged record outside the chunks nothing is
read. A database and a ROS 1 bag are read until their first error. What could not be read is
yielded as text among the messages. Memory does not grow with the file, and sizes are limited: a
few damaged bytes can claim to be gigabytes.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sqlite3
import struct
from bz2 import BZ2Decompressor
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard
from mcap import records as mcap
from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.stream_reader import breakup_chunk
from rosbags.interfaces import Qos
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag1.reader import decompressors as ros1_decompressors
from rosbags.rosbag2.metadata import parse_qos

from nightseg_ros.files import uri_path

_lz4: Any = importlib.import_module('lz4.frame')

#: Bytes of the largest message or chunk that is unpacked.
MAX_BYTES = 2**28
ROS1_SUFFIXES = ('.bag', '.active')
_ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'
_STEP = 2**16


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """A topic as one file of a bag describes it."""

    topic: str
    type: str
    """Such as ``sensor_msgs/msg/Image``, also for ROS 1."""
    definition: str = ''
    """Text of the message definition, '' where the file has none."""
    digest: str = ''
    """Hash of the type (RIHS01), '' where the file has none."""
    encoding: str = 'cdr'
    """How the messages are serialised."""
    qos: tuple[Qos, ...] = ()
    """What the publishers offered when it was recorded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One message as it lies in the file."""

    channel: Channel
    received_ns: int
    """When it was recorded."""
    data: bytes


# -- compression -----------------------------------------------------------------------------


def unpack(data: bytes, compression: str, most: int) -> bytes:
    """Return what was packed; ``ValueError`` where it is damaged or more than ``most`` bytes."""
    if most > MAX_BYTES:
        raise ValueError(f'{most} bytes are claimed; {MAX_BYTES} are the most')
    if compression in ('', 'none'):
        return data
    if compression not in ('zstd', 'lz4', 'bz2'):
        raise ValueError(f"compression '{compression}' is not known")
    # each library has errors of its own for the one thing
    with contextlib.suppress(Exception):
        if compression == 'zstd':
            # a size that the frame names is taken at once
            if zstandard.frame_content_size(data) <= most:
                return zstandard.decompress(data, most)
        else:
            decompressor = (
                _lz4.LZ4FrameDecompressor() if compression == 'lz4' else BZ2Decompressor()
            )
            parts, left = [], most + 1
            for at in range(0, len(data), _STEP):
                if left and not decompressor.eof:
                    parts.append(decompressor.decompress(data[at : at + _STEP], left))
                    left -= len(parts[-1])
            if left and decompressor.eof:
                return b''.join(parts)
    raise ValueError(f'its {compression} data are damaged or more than {most} bytes')


def unpack_message(data: bytes) -> bytes:
    """
    Return a message that was packed on its own (compression mode 'message'), others untouched.

    Serialised messages (CDR) begin with a zero, so they are not mistaken for packed ones.
    """
    if data.startswith(_ZSTD_MAGIC):
        with contextlib.suppress(ValueError):
            return unpack(data, 'zstd', MAX_BYTES)
    return data


# -- MCAP (https://mcap.dev/spec) ------------------------------------------------------------

_MAGIC = b'\x89MCAP0\r\n'
_HEAD = struct.Struct('<BQ')
_FOOTER = 20
#: Those of the specification, and those that it leaves to others.
_OPCODES = frozenset((*Opcode, *range(0x80, 0x100)))
_DESCRIPTIONS = (Opcode.SCHEMA, Opcode.CHANNEL)


class _McapFile:
    """
    One pass over an MCAP file.

    The library's readers know no way past damage, read what nobody wants, and keep an index that
    grows with the file. Here the heads of the records are followed; the library parses the rest.
    """

    def __init__(self, file: BinaryIO, topics: Collection[str] | None = None) -> None:
        self._file, self._topics = file, topics
        self._size = file.seek(0, os.SEEK_END)
        self._schemas: dict[int, mcap.Schema] = {}
        self._channels: dict[int, Channel] = {}
        self._nameless = 0

    def counts(self) -> dict[Channel, int] | None:
        """
        Learn the topics from the end of the file, where they stand once more.

        Return the messages by topic, None where they are not counted there.
        """
        at = self._size - len(_MAGIC)
        footer = mcap.Footer.read(self._stream(at - _FOOTER, _FOOTER))
        if self._read(at, len(_MAGIC)) != _MAGIC or not footer.summary_start:
            return None
        counts = None
        for opcode, begin, length in self._heads(footer.summary_start):
            if opcode in _DESCRIPTIONS:
                list(self._records(begin, length))
            elif opcode == Opcode.STATISTICS:
                statistics = mcap.Statistics.read(self._stream(begin, length))
                counts = statistics.channel_message_counts
        if counts is None or counts.keys() - self._channels.keys():
            return None
        result: Counter[Channel] = Counter()
        for number, channel in self._channels.items():
            result[channel] += counts.get(number, 0)
        return result

    def messages(self) -> Iterator[Record | str]:
        """Yield the messages of the topics, and what is damaged."""
        # the description of a topic may be lost where it stands first
        with contextlib.suppress(Exception):
            self.counts()
        if self._read(0, len(_MAGIC)) != _MAGIC:
            yield 'does not begin as an MCAP file'
        try:
            for opcode, begin, length in self._heads(len(_MAGIC)):
                packed = opcode == Opcode.CHUNK
                if packed and not self._is_wanted(begin + length):
                    continue
                if packed or opcode == Opcode.MESSAGE or opcode in _DESCRIPTIONS:
                    yield from self._tried(begin, length, packed)
        except ValueError as error:
            yield str(error)
        if self._nameless:
            yield f'holds {self._nameless} messages of topics whose description is lost'

    def _tried(self, begin: int, length: int, packed: bool) -> Iterator[Record | str]:
        try:
            yield from self._records(begin, length, packed)
        # damaged bytes make the parsers beneath fail in many ways
        except Exception as error:
            yield f'is damaged in the chunk or record at byte {begin - _HEAD.size}: {error}'

    def _heads(self, at: int) -> Iterator[tuple[int, int, int]]:
        """Yield opcode, begin and length of the records up to the footer, else ``ValueError``."""
        while True:
            head = self._read(at, _HEAD.size)
            if len(head) < _HEAD.size:
                raise ValueError(f'ends at byte {self._size}: it was not finished')
            opcode, length = _HEAD.unpack(head)
            begin, end = at + _HEAD.size, at + _HEAD.size + length
            if opcode == Opcode.FOOTER and end + len(_MAGIC) == self._size:
                return
            if opcode not in _OPCODES or opcode == Opcode.FOOTER:
                raise ValueError(f'is damaged from byte {at} to its end')
            if end > self._size:
                name = 'a chunk' if opcode == Opcode.CHUNK else 'a record'
                raise ValueError(f'ends inside {name} at byte {at}, or is damaged there')
            yield opcode, begin, length
            at = end

    def _is_wanted(self, at: int) -> bool:
        """Tell by the indexes behind a chunk, from byte ``at`` on, whether it has to be read."""
        indexed = False
        while self._topics is not None:
            head = self._read(at, _HEAD.size + 2)
            if len(head) < _HEAD.size + 2 or head[0] != Opcode.MESSAGE_INDEX:
                # without any index nobody knows
                return not indexed
            _, length, number = struct.unpack('<BQH', head)
            channel = self._channels.get(number)
            if channel is None or channel.topic in self._topics:
                return True
            indexed = True
            at += _HEAD.size + length
        return True

    def _records(self, begin: int, length: int, packed: bool = False) -> Iterator[Record]:
        """Yield the messages of a chunk, or of one record outside of chunks."""
        if length > MAX_BYTES:
            raise ValueError(f'{length} bytes are claimed; {MAX_BYTES} are the most')
        if packed:
            chunk = mcap.Chunk.read(self._stream(begin, length))
            chunk.data = unpack(chunk.data, chunk.compression, chunk.uncompressed_size)
            if len(chunk.data) != chunk.uncompressed_size:
                raise ValueError(f'{len(chunk.data)} of {chunk.uncompressed_size} bytes are there')
            chunk.compression = ''
        else:
            chunk = mcap.Chunk('', self._read(begin - _HEAD.size, _HEAD.size + length), 0, 0, 0, 0)
        for record in breakup_chunk(chunk, validate_crc=True):
            if isinstance(record, mcap.Schema):
                self._schemas[record.id] = record
            elif isinstance(record, mcap.Channel):
                self._channels[record.id] = self._described(record)
            elif isinstance(record, mcap.Message):
                channel = self._channels.get(record.channel_id)
                if channel is None:
                    self._nameless += 1
                elif self._topics is None or channel.topic in self._topics:
                    yield Record(channel=channel, received_ns=record.log_time, data=record.data)

    def _described(self, channel: mcap.Channel) -> Channel:
        schema = self._schemas.get(channel.schema_id)
        return Channel(
            topic=channel.topic,
            type=schema.name if schema else '',
            definition=schema.data.decode(errors='replace') if schema else '',
            digest=channel.metadata.get('topic_type_hash', ''),
            encoding=channel.message_encoding,
            qos=offered_qos(channel.metadata.get('offered_qos_profiles', '')),
        )

    def _read(self, at: int, length: int) -> bytes:
        # lengths of 64 bits add up to places that no file can be asked for
        self._file.seek(max(0, min(at, self._size)))
        return self._file.read(length)

    def _stream(self, at: int, length: int) -> ReadDataStream:
        self._read(at, 0)
        return ReadDataStream(cast('BinaryIO', _Window(self._file, length)))


class _Window:
    """The next bytes of a file: who asks for more gets only those, and no memory for the rest."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file, self._left = file, length

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes."""
        content = self._file.read(min(size, self._left))
        self._left -= len(content)
        return content


def _read_mcap(path: Path, topics: Collection[str] | None) -> Iterator[Record | str]:
    with path.open('rb') as file:
        yield from _McapFile(file, topics).messages()


def _count_mcap(path: Path) -> dict[Channel, int] | None:
    with path.open('rb') as file:
        return _McapFile(file).counts()


@lru_cache(maxsize=64)
def offered_qos(text: str) -> tuple[Qos, ...]:
    """Return what publishers offered, from the YAML that a file keeps of it; () if damaged."""
    try:
        return tuple(parse_qos(text))
    # YAML of any shape may stand here, and no message is lost with it
    except Exception:
        return ()


# -- sqlite3 ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    database = sqlite3.connect(f'file:{uri_path(path)}?mode=ro&immutable=1', uri=True)
    try:
        database.text_factory = partial(str, encoding='utf-8', errors='replace')
        # otherwise a database that ends too early gives nothing at all
        database.execute('PRAGMA writable_schema = ON')
        yield database
    finally:
        database.close()


def _database_channels(database: sqlite3.Connection) -> dict[int, Channel]:
    """Return the topics by their id; the columns differ between releases of ROS 2."""
    found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    tables = {name for (name,) in found}
    if not {'topics', 'messages'} <= tables:
        raise ValueError('holds no table of topics, or none of messages')
    definitions: dict[Any, Any] = {}
    if 'message_definitions' in tables:
        definitions.update(
            database.execute(
                'SELECT topic_type, encoded_message_definition FROM message_definitions'
            )
        )
    rows = database.execute('SELECT * FROM topics')
    columns = [column[0] for column in rows.description]
    channels = {}
    for row in rows:
        entry = dict(zip(columns, row))
        topic, kind = entry['name'], entry['type']
        # a column of SQLite may hold anything
        if not (isinstance(topic, str) and isinstance(kind, str)):
            raise ValueError(f'has a topic called {topic!r:.100}, of type {kind!r:.100}')
        channels[entry['id']] = Channel(
            topic=topic, type=kind, definition=str(definitions.get(kind, '')),
            digest=str(entry.get('type_description_hash') or ''),
            encoding=str(entry.get('serialization_format') or 'cdr'),
            qos=offered_qos(str(entry.get('offered_qos_profiles') or '')),
        )  # fmt: skip
    return channels


def _read_sqlite(path: Path, topics: Collection[str] | None) -> Iterator[Record | str]:
    log = Path(f'{path}-wal')
    if log.is_file() and log.stat().st_size:
        yield (
            f'was not closed: what its recorder left in {log.name} is not read; '
            f'`sqlite3 {path.name} "PRAGMA wal_checkpoint"` moves it into the file'
        )
    size = path.stat().st_size
    claimed = _claimed_size(path)
    if size < claimed:
        yield f'ends at byte {size} of {claimed}'
    strange, left = 0, size
    held: Record | None = None
    with _database(path) as database:
        channels = {
            number: channel
            for number, channel in _database_channels(database).items()
            if topics is None or channel.topic in topics
        }
        marks = ', '.join('?' * len(channels))
        # SQLite moves pages of the index of times as it grows: a file that was cut may lack them
        order = 'timestamp' if size >= claimed else 'rowid'
        rows = database.execute(
            'SELECT topic_id, timestamp, CASE WHEN length(data) <= ? THEN data END '  # noqa: S608
            f'FROM messages WHERE topic_id IN ({marks}) ORDER BY {order}',
            (MAX_BYTES, *channels),
        )
        for number, received, data in rows:
            # see _database_channels()
            if not (isinstance(received, int) and isinstance(data, bytes)):
                strange += 1
                continue
            left -= len(data)
            if left < 0:
                # damaged rows that share their pages would stand for any number of bytes
                raise ValueError('is damaged: its rows hold more bytes than the file')
            record = Record(channel=channels[number], received_ns=received, data=data)
            if size >= claimed:
                yield record
                continue
            # SQLite fills the page in which a file ends with zeros: nobody trusts the last message
            if held is not None:
                yield held
            held = record
    if strange:
        yield f'has {strange} rows that hold no message'


def _claimed_size(path: Path) -> int:
    """Return how long a database is by its first page."""
    with path.open('rb') as file:
        head = file.read(32).ljust(32, b'\0')
    (page_size,) = struct.unpack_from('>H', head, 16)
    (pages,) = struct.unpack_from('>I', head, 28)
    return int(pages) * (2**16 if page_size == 1 else int(page_size))


def _count_sqlite(path: Path) -> dict[Channel, int]:
    with _database(path) as database:
        channels = _database_channels(database)
        counts = dict(
            database.execute('SELECT topic_id, COUNT(*) FROM messages GROUP BY topic_id')
        )
    result: Counter[Channel] = Counter()
    for number, channel in channels.items():
        result[channel] += counts.get(number, 0)
    return result


# -- ROS 1 -----------------------------------------------------------------------------------


def _read_ros1(path: Path, topics: Collection[str] | None) -> Iterator[Record | str]:
    with _ros1_reader(path) as reader:
        chosen = [c for c in reader.connections if topics is None or c.topic in topics]
        channels = {c.id: _ros1_channel(c) for c in chosen}
        # an empty list would mean every topic to the reader
        for connection, received, data in reader.messages(chosen) if chosen else ():
            yield Record(channel=channels[connection.id], received_ns=received, data=data)


def _count_ros1(path: Path) -> dict[Channel, int]:
    counts: Counter[Channel] = Counter()
    with _ros1_reader(path) as reader:
        for connection in reader.connections:
            counts[_ros1_channel(connection)] += connection.msgcount
    return counts


@contextlib.contextmanager
def _ros1_reader(path: Path) -> Iterator[Ros1Reader]:
    reader = Ros1Reader(path)
    try:
        reader.open()
    # damaged bytes make the parsers beneath fail in many ways
    except Exception as error:
        raise ValueError(
            f'has no index that can be read ({error}); `rosbag reindex {path.name}` makes one'
        ) from error
    names = {function: name for name, function in ros1_decompressors.items()}
    for at, chunk in reader.chunks.items():
        limited = partial(unpack, compression=names[chunk.decompressor], most=MAX_BYTES)
        reader.chunks[at] = chunk._replace(decompressor=limited)
    with contextlib.closing(reader):
        yield reader


def _ros1_channel(connection: Any) -> Channel:
    return Channel(
        topic=connection.topic, type=connection.msgtype, definition=connection.msgdef.data,
        digest=connection.digest, encoding='ros1',
    )  # fmt: skip


Read = Callable[[Path, Collection[str] | None], Iterator[Record | str]]
Counts = Callable[[Path], dict[Channel, int] | None]
FORMATS: dict[str, tuple[Read, Counts]] = {
    '.mcap': (_read_mcap, _count_mcap),
    '.db3': (_read_sqlite, _count_sqlite),
    **dict.fromkeys(ROS1_SUFFIXES, (_read_ros1, _count_ros1)),
}
