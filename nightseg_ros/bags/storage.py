# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The messages of one file of a bag: MCAP, sqlite3 or ROS 1, whole, damaged, or packed as a whole.

A damaged chunk of an MCAP file is left out; behind a damaged record outside the chunks nothing is
read. A database and a ROS 1 bag are read until their first error. What could not be read is
yielded as text among the messages. Memory does not grow with the file, and sizes are limited: a
few damaged bytes can claim to be gigabytes.
"""

from __future__ import annotations

import bz2
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
import contextlib
from dataclasses import dataclass, field
from functools import lru_cache, partial
import importlib
from io import BytesIO
import os
from pathlib import Path
import shutil
import sqlite3
import struct
import sys
import tempfile
from typing import Any, BinaryIO
import weakref

from mcap import records as mcap
from mcap.opcode import Opcode
from mcap.stream_reader import breakup_chunk, StreamReader
from nightseg_ros.files import uri_path
from rosbags.interfaces import Qos
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag1.reader import decompressors as ros1_decompressors
from rosbags.rosbag2.metadata import parse_qos
from rosbags.typesys import get_types_from_msg, get_typestore, Stores
from rosbags.typesys.store import Typestore
import zstandard

_lz4: Any = importlib.import_module('lz4.frame')
# comes with rosbags
_zstd: Any = importlib.import_module(
    'compression.zstd' if sys.version_info >= (3, 14) else 'backports.zstd'
)

#: Bytes of the largest message or chunk that is unpacked.
MAX_BYTES = 2**28
ROS1_SUFFIXES = ('.bag', '.active')
#: Packets of video (H.264, …), one a message; types that the library does not bring.
VIDEO_TYPES = {
    'foxglove_msgs/msg/CompressedVideo': (
        'builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n'
    ),
    'ffmpeg_image_transport_msgs/msg/FFMPEGPacket': (
        'std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\n'
        'uint8 flags\nbool is_bigendian\nuint8[] data\n'
    ),
}
#: Suffixes of a file that is packed as a whole: as ROS 2 writes it, and as the tool zstd does.
PACKED = ('.zstd', '.zst')
#: Bytes of the disk that unpacking a file leaves free.
_RESERVE = 2**29
_SECOND = 1_000_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """A topic as one file of a bag describes it."""

    topic: str
    msgtype: str
    """Such as ``sensor_msgs/msg/Image``, also for ROS 1."""
    definition: str = ''
    """The message definition, '' where the file has none; bytes that are no UTF-8, as protobuf's,
    are surrogates (PEP 383)."""
    language: str = field(default='', compare=False)
    """What the definition is written in, such as 'ros2msg', '' where the file does not tell."""
    digest: str = ''
    """Hash of the type (RIHS01), '' where the file has none."""
    encoding: str = 'cdr'
    """How the messages are serialised; 'ros1' in bags of ROS 1."""
    qos: tuple[Qos, ...] = ()
    """What the publishers offered when it was recorded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message as it was serialised."""

    channel: Channel
    received_ns: int
    """When it was recorded."""
    data: bytes

    @property
    def stamp_ns(self) -> int:
        """Return the header's stamp, or the time of recording where there is no possible one."""
        encoding, data = self.channel.encoding, self.data
        if len(data) < 12 or not _has_header(encoding, self.channel.msgtype):
            return self.received_ns
        # ROS 1: uint32 seq before it; CDR: 4 bytes of encapsulation, the second tells the endian
        big = encoding == 'cdr' and data[1] == 0
        seconds, nanoseconds = struct.unpack_from('>iI' if big else '<iI', data, 4)
        stamp_ns = int(seconds) * _SECOND + int(nanoseconds)
        possible = seconds >= 0 and nanoseconds < _SECOND
        return stamp_ns if possible and (stamp_ns or not self.received_ns) else self.received_ns


@lru_cache
def typestore(encoding: str = 'cdr') -> Typestore:
    """Return the types of ROS 1 or 2; the ones used here are the same in all its releases."""
    if encoding == 'ros1':
        return get_typestore(Stores.ROS1_NOETIC)
    types = get_typestore(Stores.ROS2_JAZZY)
    for kind, definition in VIDEO_TYPES.items():
        types.register(get_types_from_msg(definition, kind))
    return types


@lru_cache
def _has_header(encoding: str, kind: str) -> bool:
    """Tell whether a message begins with a stamp; types that are not known have none."""
    if encoding not in ('cdr', 'ros1'):
        return False
    _, fields = typestore(encoding).fielddefs.get(kind, ([], []))
    # the time of a Clock is none of its own
    first = fields[0] if fields else ('', (0, ''))
    return first[1][1] == 'std_msgs/msg/Header' or first[0] == 'timestamp'


# -- files -----------------------------------------------------------------------------------


def storage_kind(path: Path) -> str:
    """Return .mcap, .db3, .bag or .active, also of a packed file (.zstd); '' for other names."""
    suffix = Path(path.stem if path.suffix in PACKED else path.name).suffix.lower()
    return suffix if suffix in _FORMATS else ''


def read_file(path: Path, topics: Collection[str] | None = None) -> Iterator[Message | str]:
    """
    Yield the messages of some topics, or of all with None, and texts of what is not read.

    They come in the file's order (MCAP) or in the order of recording.
    """
    with _unpacked(path) as (file, reason):
        try:
            if not file.stat().st_size:
                raise ValueError('is empty (0 bytes)')
            for item in _FORMATS[storage_kind(path)][0](file, topics):
                yield f'{path.name} {item}' if isinstance(item, str) else item
        except ValueError as error:
            yield f'{path.name} {error}'
        # damaged bytes make the parsers beneath fail in many ways
        except Exception as error:
            yield f'{path.name} cannot be read any further: {str(error) or type(error).__name__}'
        if reason:
            yield f'{path.name}: {reason}'


def count_file(path: Path) -> tuple[dict[Channel, int], list[str]]:
    """
    Return the number of messages by topic, and what could not be read.

    The number is the one that the file keeps; a file without it is read as a whole.
    """
    # see read_file()
    with contextlib.suppress(Exception), _unpacked(path) as (file, reason):
        counts = None if reason else _FORMATS[storage_kind(path)][1](file)
        if counts is not None:
            return counts, []
    found: Counter[Channel] = Counter()
    errors = []
    for item in read_file(path):
        if isinstance(item, str):
            errors.append(item)
        else:
            found[item.channel] += 1
    return found, errors


class _Copy:
    """An unpacked file, as long as somebody reads it."""

    def __init__(self, path: Path) -> None:
        folder = tempfile.TemporaryDirectory(prefix='nightseg-')
        weakref.finalize(self, folder.cleanup)
        self.file = Path(folder.name) / path.stem
        self.reason = unpack_file(path, self.file)


_copies: weakref.WeakValueDictionary[Path, _Copy] = weakref.WeakValueDictionary()


@contextlib.contextmanager
def _unpacked(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield the file as it can be read, and why a packed one breaks off; readers share a copy."""
    if path.suffix not in PACKED:
        yield path, ''
        return
    key = path.resolve()
    copy = _copies.get(key) or _copies.setdefault(key, _Copy(path))
    yield copy.file, copy.reason


def unpack_file(source: Path, target: Path) -> str:
    """
    Unpack a zstd file; return '' or, where it breaks off, why. What lies before is kept.

    It stops before the disk is full: a file of kilobytes can stand for one of terabytes.
    """
    with _zstd.open(source, 'rb') as packed, target.open('wb') as unpacked:
        while True:
            try:
                # read() would lose the bytes before the damage
                part = packed.read1(2**16)
            except (EOFError, _zstd.ZstdError) as error:
                return f'the compressed file ends too early or is damaged: {error}'
            if not part:
                return ''
            if shutil.disk_usage(target.parent).free < _RESERVE:
                return f'the disk has no room for it, after {unpacked.tell()} unpacked bytes'
            unpacked.write(part)


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
            # at once, which is four times as fast, unless the frame names too large a size
            if zstandard.frame_content_size(data) <= most:
                return zstandard.decompress(data, most)
        else:
            with (_lz4 if compression == 'lz4' else bz2).open(BytesIO(data)) as file:
                content = bytes(file.read(most + 1))
            if len(content) <= most:
                return content
    raise ValueError(f'its {compression} data are damaged or more than {most} bytes')


def _unpacked_message(data: bytes) -> bytes:
    """
    Return a message that was packed on its own (compression mode 'message'), others untouched.

    Serialised messages (CDR) begin with a zero, so they are not mistaken for packed ones.
    """
    if data.startswith(b'\x28\xb5\x2f\xfd'):
        with contextlib.suppress(ValueError):
            return unpack(data, 'zstd', MAX_BYTES)
    return data


def _summed(channels: dict[int, Channel], counts: dict[int, int]) -> dict[Channel, int]:
    """Return messages by topic, of which a file may have several channels."""
    result: Counter[Channel] = Counter()
    for number, channel in channels.items():
        result[channel] += counts.get(number, 0)
    return result


@lru_cache(maxsize=64)
def _offered_qos(text: str) -> tuple[Qos, ...]:
    """Return what publishers offered, from the YAML that a file keeps of it; () if damaged."""
    try:
        return tuple(parse_qos(text))
    # YAML of any shape may stand here, and no message is lost with it
    except Exception:
        return ()


# -- MCAP (https://mcap.dev/spec) ------------------------------------------------------------

_MAGIC = b'\x89MCAP0\r\n'
_HEAD = struct.Struct('<BQ')
_FOOTER_BYTES = 20
#: Those of the specification, and those that it leaves to others.
_OPCODES = frozenset((*Opcode, *range(0x80, 0x100)))


class _McapFile:
    """
    One pass over an MCAP file.

    The heads of the records are followed here, which stops at damage and jumps over what nobody
    wants; the library parses the records.
    """

    def __init__(self, file: BinaryIO, topics: Collection[str] | None = None) -> None:
        self._file, self._topics = file, topics
        self._size = file.seek(0, os.SEEK_END)
        self._schemas: dict[int, mcap.Schema] = {}
        self._channels: dict[int, Channel] = {}
        self._counts: dict[int, int] | None = None
        #: The channels of each chunk by its place, as far as the end of the file tells.
        self._contents: dict[int, Collection[int]] = {}
        self._nameless = 0

    def counts(self) -> dict[Channel, int] | None:
        """
        Read the end of the file, where topics and chunks stand once more.

        Return the messages by topic, None where they are not counted there.
        """
        footer = self._record(self._size - len(_MAGIC) - _FOOTER_BYTES, _FOOTER_BYTES)
        if not isinstance(footer, mcap.Footer) or not footer.summary_start:
            return None
        for opcode, begin, length in self._heads(footer.summary_start):
            if opcode in (Opcode.SCHEMA, Opcode.CHANNEL, Opcode.CHUNK_INDEX, Opcode.STATISTICS):
                list(self._take(self._record(begin, length)))
        if self._counts is None or self._counts.keys() - self._channels.keys():
            return None
        return _summed(self._channels, self._counts)

    def messages(self) -> Iterator[Message | str]:
        """Yield the messages of the topics, and what is damaged."""
        # the description of a topic may be lost where it stands first
        with contextlib.suppress(Exception):
            self.counts()
        self._file.seek(0)
        if self._file.read(len(_MAGIC)) != _MAGIC:
            yield 'does not begin as an MCAP file'
        wanted = (Opcode.CHUNK, Opcode.MESSAGE, Opcode.SCHEMA, Opcode.CHANNEL)
        try:
            for opcode, begin, length in self._heads(len(_MAGIC)):
                if opcode in wanted and self._is_wanted(begin):
                    try:
                        yield from self._take(self._record(begin, length))
                    # damaged bytes make the parsers beneath fail in many ways
                    except Exception as error:
                        place = f'the chunk or record at byte {begin - _HEAD.size}'
                        yield f'is damaged in {place}: {str(error) or type(error).__name__}'
        except ValueError as error:
            yield str(error)
        if self._nameless:
            yield f'holds {self._nameless} messages of topics whose description is lost'

    def _heads(self, at: int) -> Iterator[tuple[int, int, int]]:
        """Yield opcode, begin and length of the records up to the footer, else ``ValueError``."""
        while True:
            # lengths of 64 bits add up to places that no file can be asked for
            self._file.seek(min(at, self._size))
            head = self._file.read(_HEAD.size)
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

    def _is_wanted(self, begin: int) -> bool:
        """Tell a record that may hold messages of the topics."""
        contents = self._contents.get(begin)
        if self._topics is None or not contents:
            return True
        channels = map(self._channels.get, contents)
        return any(channel is None or channel.topic in self._topics for channel in channels)

    def _record(self, begin: int, length: int) -> Any:
        """Return a record that lies within the file."""
        if length > MAX_BYTES:
            raise ValueError(f'{length} bytes are claimed; {MAX_BYTES} are the most')
        self._file.seek(max(0, begin - _HEAD.size))
        # a length in it that is damaged gets what there is
        content = BytesIO(self._file.read(_HEAD.size + length))
        return next(iter(StreamReader(content, skip_magic=True, emit_chunks=True).records))

    def _take(self, record: Any) -> Iterator[Message]:
        """Learn what a record describes; yield the messages of a chunk, or the one that it is."""
        if isinstance(record, mcap.Chunk):
            record.data = unpack(record.data, record.compression, record.uncompressed_size)
            length, record.compression = len(record.data), ''
            if length != record.uncompressed_size:
                raise ValueError(f'{length} of {record.uncompressed_size} bytes are there')
            for part in breakup_chunk(record, validate_crc=True):
                yield from self._take(part)
        elif isinstance(record, mcap.Message):
            channel = self._channels.get(record.channel_id)
            if channel is None:
                self._nameless += 1
            elif self._topics is None or channel.topic in self._topics:
                data = _unpacked_message(record.data)
                yield Message(channel=channel, received_ns=record.log_time, data=data)
        elif isinstance(record, mcap.Schema):
            self._schemas[record.id] = record
        elif isinstance(record, mcap.Channel):
            schema = self._schemas.get(record.schema_id)
            kind = schema.name if schema else ''
            if record.message_encoding == 'ros1' and '/msg/' not in kind:
                kind = kind.replace('/', '/msg/')
            self._channels[record.id] = Channel(
                topic=record.topic,
                msgtype=kind,
                definition=schema.data.decode(errors='surrogateescape') if schema else '',
                language=schema.encoding if schema else '',
                digest=record.metadata.get('topic_type_hash', ''),
                encoding=record.message_encoding,
                qos=_offered_qos(record.metadata.get('offered_qos_profiles', '')),
            )
        elif isinstance(record, mcap.ChunkIndex):
            place = record.chunk_start_offset + _HEAD.size
            self._contents[place] = record.message_index_offsets.keys()
        elif isinstance(record, mcap.Statistics) and (
            # a file of messages without any count was not counted by channel
            record.channel_message_counts or not record.message_count
        ):
            self._counts = record.channel_message_counts


def _read_mcap(path: Path, topics: Collection[str] | None) -> Iterator[Message | str]:
    with path.open('rb') as file:
        yield from _McapFile(file, topics).messages()


def _count_mcap(path: Path) -> dict[Channel, int] | None:
    with path.open('rb') as file:
        return _McapFile(file).counts()


# -- sqlite3 ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _database(path: Path) -> Iterator[tuple[sqlite3.Connection, dict[int, Channel]]]:
    """Open a database and yield it with its topics by their id."""
    uri = f'file:{uri_path(path)}?mode=ro&immutable=1'
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
        database.text_factory = partial(str, encoding='utf-8', errors='replace')
        # otherwise a database that ends too early gives nothing at all
        database.execute('PRAGMA writable_schema = ON')
        yield database, _database_channels(database)


def _database_channels(database: sqlite3.Connection) -> dict[int, Channel]:
    found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    tables = {name for (name,) in found}
    if not {'topics', 'messages'} <= tables:
        raise ValueError('holds no table of topics, or none of messages')
    definitions: dict[Any, tuple[Any, Any]] = {}
    if 'message_definitions' in tables:
        select = 'SELECT topic_type, encoding, encoded_message_definition FROM message_definitions'
        # without a text the encoding is 'unknown'
        definitions = {kind: rest for kind, *rest in database.execute(select) if rest[1]}
    rows = database.execute('SELECT * FROM topics')
    # they differ between releases of ROS 2
    columns = [column[0] for column in rows.description]
    channels = {}
    for row in rows:
        entry = dict(zip(columns, row))
        topic, kind = entry['name'], entry['type']
        # a column of SQLite may hold anything
        if not (isinstance(topic, str) and isinstance(kind, str)):
            raise ValueError(f'has a topic called {topic!r:.100}, of type {kind!r:.100}')
        language, definition = definitions.get(kind, ('', ''))
        channels[entry['id']] = Channel(
            topic=topic, msgtype=kind, definition=str(definition), language=str(language),
            digest=str(entry.get('type_description_hash') or ''),
            encoding=str(entry.get('serialization_format') or 'cdr'),
            qos=_offered_qos(str(entry.get('offered_qos_profiles') or '')),
        )  # fmt: skip
    return channels


def _read_sqlite(path: Path, topics: Collection[str] | None) -> Iterator[Message | str]:
    log = Path(f'{path}-wal')
    if log.is_file() and log.stat().st_size:
        yield (
            f'was not closed: what its recorder left in {log.name} is not read; '
            f'`sqlite3 {path.name} "PRAGMA wal_checkpoint"` moves it into the file'
        )
    size = left = path.stat().st_size
    with path.open('rb') as file:
        page, pages = struct.unpack('>16xH10xI', file.read(32).ljust(32, b'\0'))
    page = 2**16 if page == 1 else page
    cut = size < page * pages
    if cut:
        yield f'ends at byte {size} of {page * pages}'
    # SQLite fills the page in which a file ends with zeros: nobody trusts the last message then
    torn = cut and size % page != 0
    strange = 0
    waiting: deque[Message] = deque()
    with _database(path) as (database, channels):
        chosen = [n for n, c in channels.items() if topics is None or c.topic in topics]
        for number, received, data, _ in _database_rows(database, chosen, cut):
            # see _database_channels()
            if not (isinstance(received, int) and isinstance(data, bytes)):
                strange += 1
                continue
            left -= len(data)
            if left < 0:
                # damaged rows that share their pages would stand for any number of bytes
                raise ValueError('is damaged: its rows hold more bytes than the file')
            data = _unpacked_message(data)
            waiting.append(Message(channel=channels[number], received_ns=received, data=data))
            if len(waiting) > torn:
                yield waiting.popleft()
    if strange:
        yield f'has {strange} rows that hold no message'


def _database_rows(
    database: sqlite3.Connection, topics: list[int], cut: bool
) -> Iterator[tuple[Any, ...]]:
    """Yield topic, time, data and rowid of the messages; of a file that was cut in its order."""
    marks = ', '.join('?' * len(topics))
    columns = 'topic_id, timestamp, CASE WHEN length(data) <= ? THEN data END, rowid'
    select = f'SELECT {columns} FROM messages WHERE topic_id IN ({marks})'  # noqa: S608
    if not cut:
        yield from database.execute(f'{select} ORDER BY timestamp', (MAX_BYTES, *topics))
        return
    # SQLite moves pages of the index of times as it grows: a file that was cut may lack them.
    # Row by row, since Python's cursor looks ahead, and an error takes the row before it along.
    select += ' AND rowid > ? ORDER BY rowid LIMIT 1'
    row = (None, None, None, -1)
    while row := database.execute(select, (MAX_BYTES, *topics, row[-1])).fetchone():
        yield row


def _count_sqlite(path: Path) -> dict[Channel, int]:
    with _database(path) as (database, channels):
        select = 'SELECT topic_id, COUNT(*) FROM messages GROUP BY topic_id'
        return _summed(channels, dict(database.execute(select)))


# -- ROS 1 -----------------------------------------------------------------------------------


def _read_ros1(path: Path, topics: Collection[str] | None) -> Iterator[Message | str]:
    with _ros1_reader(path) as reader:
        chosen = [c for c in reader.connections if topics is None or c.topic in topics]
        channels = {c.id: _ros1_channel(c) for c in chosen}
        # an empty list would mean every topic to the reader
        for connection, received, data in reader.messages(chosen) if chosen else ():
            yield Message(channel=channels[connection.id], received_ns=received, data=data)


def _count_ros1(path: Path) -> dict[Channel, int]:
    with _ros1_reader(path) as reader:
        channels = {c.id: _ros1_channel(c) for c in reader.connections}
        return _summed(channels, {c.id: c.msgcount for c in reader.connections})


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
        topic=connection.topic, msgtype=connection.msgtype, definition=connection.msgdef.data,
        digest=connection.digest, encoding='ros1',
    )  # fmt: skip


_Read = Callable[[Path, Collection[str] | None], Iterator[Message | str]]
_Count = Callable[[Path], dict[Channel, int] | None]
_FORMATS: dict[str, tuple[_Read, _Count]] = {
    '.mcap': (_read_mcap, _count_mcap),
    '.db3': (_read_sqlite, _count_sqlite),
    **dict.fromkeys(ROS1_SUFFIXES, (_read_ros1, _count_ros1)),
}
