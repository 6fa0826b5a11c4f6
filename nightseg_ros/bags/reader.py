# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What the file of a bag holds, in the order in which a reader comes across it.

What can go wrong with a bag.

Unpack what bags are packed with, as far as it goes.

Sizes are limited: a few damaged bytes can claim to be gigabytes.

Read an MCAP file from front to back, past whatever is damaged, in memory that does not grow.

The layout is that of the specification (https://mcap.dev/spec): records of an opcode, a length and
content, most of them packed into chunks. A chunk that fails its checksum gives nothing, since
nobody knows which of its bytes are wrong; one that the file ends in gives the messages that are
whole.

Read the pages of a damaged rosbag2 database one by one, past whatever SQLite stops at.

The layout is that of https://sqlite.org/fileformat2.html. The rows of ``topics`` and ``messages``
are found by their shape in the leaves of whatever table they lie in, so that neither the first
page nor the inner ones are needed; what a killed recorder left in the write-ahead log counts.
SQLite keeps no checksums: a page whose bytes are wrong but well-formed is not noticed here.

Read a ROS 1 bag from front to back without its index, past whatever is damaged.

The layout is that of http://wiki.ros.org/Bags/Format/2.0: records of a header of named fields and
content, most of them packed into chunks. A bag that was never closed (``.bag.active``) has no
index at all. The format keeps no checksums.

One file of a bag: by its index while that can be trusted, by scanning where it is damaged.

``rosbags`` reads databases and ROS 1 bags that are whole. Where it stops, the scanner of the
format goes on with what was recorded after that, so that every message that can be read is given
once. MCAP is always scanned: the index that ``rosbags`` keeps of it grows with the file.

The folder of a bag: which files belong to it, and what its metadata.yaml promises.

Read the image topics of ROS 2 (MCAP, sqlite3) and ROS 1 bags as frames, without ROS.

What a bag holds, and what of it can be read.
"""

from __future__ import annotations

import bz2
import heapq
import importlib
import re
import shutil
import struct
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinitionFormat,
    Qos,
    QosDurability,
)
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag2 import Reader as Ros2Reader
from rosbags.rosbag2.metadata import parse_qos
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.msg import normalize_msgtype
from rosbags.typesys.store import Typestore

from nightseg_ros.config import load_yaml
from nightseg_ros.files import uri_path
from nightseg_ros.perception.frame import Frame, FrameError, decode_file, decode_raw


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """A topic as one file of a bag describes it."""

    topic: str
    type: str
    """Such as ``sensor_msgs/msg/Image``, also for ROS 1."""
    definition: str = ''
    """Text of the message definition, '' where the file has none."""
    format: Literal['', 'msg', 'idl'] = ''
    """Language of the definition."""
    digest: str = ''
    """Hash of the type (RIHS01), '' where the file has none."""
    qos: tuple[Qos, ...] = ()
    """What the publishers offered when it was recorded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One message as it lies in the file."""

    channel: Channel
    received_ns: int
    """When it was recorded."""
    data: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """A part of a file that gives nothing, in words that begin with the file's name."""

    text: str


@lru_cache(maxsize=64)
def offered_qos(text: str) -> tuple[Qos, ...]:
    """Return what publishers offered, from the YAML that a file keeps of it; () if damaged."""
    try:
        return tuple(parse_qos(text))
    # YAML of any shape may stand here, and no message is lost with it
    except Exception:
        return ()


class BagError(ValueError):
    """A bag that cannot be read or written; the message names the file, the topic and the fix."""


class BagLoss(FrameError):
    """What a damaged bag did not give: the one last item of its frames, for any number of them."""


#: Bytes of the largest message or chunk that is unpacked.
MAX_BYTES = 2**28
_STEP = 2**16
#: Bytes of the disk that unpacking a file leaves free.
_RESERVE = 2**29
ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'

# both come with rosbags
_zstd: Any = importlib.import_module(
    'compression.zstd' if sys.version_info >= (3, 14) else 'backports.zstd'
)
_lz4: Any = importlib.import_module('lz4.frame')

_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    'zstd': _zstd.ZstdDecompressor,
    'lz4': _lz4.LZ4FrameDecompressor,
    'bz2': bz2.BZ2Decompressor,
}
#: Names of compressions, '' and 'none' being none at all.
COMPRESSIONS = ('', 'none', *_DECOMPRESSORS)


def unpack(data: bytes, compression: str, size: int) -> tuple[bytes, bool]:
    """
    Return at most ``size`` unpacked bytes, and whether they are all that was packed.

    Damaged or cut data gives what lies before the damage. ``ValueError`` for a compression that
    is not known here and for a size above ``MAX_BYTES``.
    """
    if size > MAX_BYTES:
        raise ValueError(f'{size} bytes are claimed; {MAX_BYTES} are the most')
    if compression in ('', 'none'):
        return data[:size], len(data) == size
    if compression not in _DECOMPRESSORS:
        raise ValueError(f"compression '{compression}' is not known")
    decompressor = _DECOMPRESSORS[compression]()
    parts: list[bytes] = []
    done = at = 0
    while done < size and not decompressor.eof:
        fed = data[at : at + _STEP] if decompressor.needs_input else b''
        at += len(fed)
        if decompressor.needs_input and not fed:
            break
        try:
            part = decompressor.decompress(fed, size - done)
        except Exception:
            # each library has errors of its own for the one thing: no more can be read
            return b''.join(parts), False
        parts.append(part)
        done += len(part)
    return b''.join(parts), done == size


def unpack_message(data: bytes) -> bytes:
    """
    Return a message that was packed on its own (compression mode 'message'), others untouched.

    Serialised messages (CDR) begin with a zero, so they are not mistaken for packed ones.
    """
    if not data.startswith(ZSTD_MAGIC):
        return data
    try:
        size = _zstd.get_frame_info(data).decompressed_size
    except Exception:
        return data
    unpacked, whole = unpack(data, 'zstd', MAX_BYTES if size is None else min(size, MAX_BYTES))
    return unpacked if whole or size is None else data


def unpack_file(source: Path, target: Path) -> str:
    """
    Unpack a zstd file; return '' or, where it breaks off, why. What lies before is kept.

    It stops before the disk is full: a file of kilobytes can stand for one of terabytes.
    """
    with _zstd.open(source, 'rb') as packed, target.open('wb') as unpacked:
        while True:
            try:
                # read() would lose the bytes before the damage
                part = packed.read1(_STEP)
            except EOFError:
                return 'the compressed file ends too early'
            except _zstd.ZstdError as error:
                return f'the compressed file is damaged: {error}'
            if not part:
                return ''
            if shutil.disk_usage(target.parent).free < _RESERVE:
                return f'the disk has no room for it, after {unpacked.tell()} unpacked bytes'
            unpacked.write(part)


_MAGIC = b'\x89MCAP0\r\n'
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _INDEX = 0x02, 0x03, 0x04, 0x05, 0x06, 0x07
_STATISTICS = 0x0B
#: Those of the specification, and those that it leaves to others.
_OPCODES = frozenset((*range(0x01, 0x10), *range(0x80, 0x100)))
_HEAD = struct.Struct('<BQ')
_MESSAGE_HEAD = struct.Struct('<HIQQ')
_CHUNK_HEAD = struct.Struct('<QQQI')
_STEP_MCAP_SCAN = 2**20
#: Nanoseconds between publishing and recording that nobody believes: 10 days.
_LEAP = 10 * 86400 * 10**9
_FORMATS: dict[str, Literal['msg', 'idl']] = {'ros2msg': 'msg', 'ros2idl': 'idl', 'omgidl': 'idl'}


def scan_mcap(path: Path, topics: Collection[str] | None = None) -> Iterator[Record | Damage]:
    """
    Yield what can be read of some topics, or of all with None, in the file's order.

    Chunks that have none of them by the indexes behind them are skipped. ``OSError`` where the
    file cannot be opened.
    """
    with path.open('rb') as file:
        yield from _Scan(file, path.name, topics).run()


def count_mcap(path: Path) -> dict[Channel, int] | None:
    """Return the messages by topic as the end of the file counts them, None without such."""
    with path.open('rb') as file:
        scan = _Scan(file, path.name, None)
        counts = scan.read_summary()
        if counts is None or counts.keys() - scan.channels.keys():
            return None
        result: Counter[Channel] = Counter()
        for number, channel in scan.channels.items():
            result[channel] += counts.get(number, 0)
        return dict(result)


class _Scan:
    """One pass over one file."""

    def __init__(self, file: BinaryIO, name: str, topics: Collection[str] | None) -> None:
        self.file, self.name, self.topics = file, name, topics
        self.size = file.seek(0, 2)
        self.schemas: dict[int, tuple[str, str, str]] = {}
        self.channels: dict[int, Channel] = {}
        self.nameless = 0

    def run(self) -> Iterator[Record | Damage]:
        if not self.size:
            yield self._damage('is empty (0 bytes)')
            return
        self.read_summary()
        self.file.seek(0)
        if self.file.read(len(_MAGIC)) != _MAGIC:
            yield self._damage('does not begin as an MCAP file')
        yield from self._records(len(_MAGIC))
        if self.nameless:
            yield self._damage(
                f'holds {self.nameless} messages of topics whose description is lost'
            )

    def _records(self, at: int) -> Iterator[Record | Damage]:
        """Walk the records of the file from byte ``at`` on."""
        while True:
            head = self._read(at, _HEAD.size)
            if len(head) < _HEAD.size:
                if head != _MAGIC:
                    yield self._damage(f'ends at byte {self.size}: it was not finished')
                return
            opcode, length = _HEAD.unpack(head)
            begin = at + _HEAD.size
            end = begin + length
            if opcode == _CHUNK and self._is_chunk(begin, length):
                if end > self.size or self._is_wanted(end):
                    yield from self._chunk(at, begin, length)
                if end > self.size:
                    return
            elif opcode in _OPCODES and opcode != _CHUNK and end <= self.size:
                # what is not needed here may be as long as it likes
                if opcode in (_SCHEMA, _CHANNEL, _MESSAGE):
                    yield from self._record(opcode, self._read(begin, length), at)
            else:
                found = self._resync(at + 1)
                if found is not None:
                    yield self._damage(f'is damaged from byte {at} to {found}')
                    end = found
                elif opcode in _OPCODES and length <= MAX_BYTES:
                    yield self._damage(f'ends inside a record at byte {at}')
                    return
                else:
                    yield self._damage(f'is damaged from byte {at} to its end')
                    return
            at = end

    def _chunk(self, at: int, begin: int, length: int) -> Iterator[Record | Damage]:
        content = self._read(begin, length)
        _, _, size, checksum = _CHUNK_HEAD.unpack_from(content)
        (named,) = struct.unpack_from('<I', content, 28)
        compression = content[32 : 32 + named].decode('ascii')
        data = content[40 + named :]
        try:
            unpacked, whole = unpack(data, compression, size)
        except ValueError as error:
            yield self._damage(f'has a chunk at byte {at} that cannot be unpacked: {error}')
            return
        cut = begin + length > self.size
        if whole and checksum and zlib.crc32(unpacked) != checksum:
            yield self._damage(f'has a chunk at byte {at} that fails its checksum')
            return
        lost = yield from self._inner(unpacked, at)
        if cut:
            yield self._damage(f'ends inside a chunk at byte {at} ({len(content)} of {length})')
        elif not whole or lost:
            missing = size - len(unpacked) + lost
            yield self._damage(f'has a chunk at byte {at} that lacks {missing} of {size} bytes')

    def _inner(self, data: bytes, chunk_at: int) -> Generator[Record | Damage, None, int]:
        """Walk the records of an unpacked chunk; return how many of its bytes are no whole one."""

        def read(at: int, length: int) -> bytes:
            return data[at : at + length]

        at = lost = 0
        while at + _HEAD.size <= len(data):
            opcode, length = _HEAD.unpack_from(data, at)
            begin = at + _HEAD.size
            if opcode in _OPCODES and begin + length <= len(data):
                if opcode in (_SCHEMA, _CHANNEL, _MESSAGE):
                    yield from self._record(opcode, read(begin, length), chunk_at)
                at = begin + length
                continue
            trusted = partial(self._is_message, read, len(data))
            found = _find(data[at + 1 :], _MESSAGE, at + 1, trusted)
            if found is None:
                break
            lost += found - at
            at = found
        return lost + len(data) - at

    def _record(self, opcode: int, content: bytes, at: int) -> Iterator[Record | Damage]:
        try:
            if opcode == _SCHEMA:
                self._schema(content)
            elif opcode == _CHANNEL:
                self._channel(content)
            else:
                number, _, logged, _ = _MESSAGE_HEAD.unpack_from(content)
                channel = self.channels.get(number)
                if channel is None:
                    self.nameless += 1
                    return
                if self.topics is None or channel.topic in self.topics:
                    data = content[_MESSAGE_HEAD.size :]
                    yield Record(channel=channel, received_ns=logged, data=data)
        except (struct.error, UnicodeDecodeError, IndexError):
            yield self._damage(f'has a record near byte {at} that makes no sense')

    def _schema(self, content: bytes) -> None:
        fields = _Fields(content)
        number = fields.uint16()
        self.schemas[number] = (fields.text(), fields.text(), fields.text())

    def _channel(self, content: bytes) -> None:
        fields = _Fields(content)
        number, schema = fields.uint16(), fields.uint16()
        topic, _, metadata = fields.text(), fields.text(), _Fields(fields.bytes())
        kind, encoding, definition = self.schemas.get(schema, ('', '', ''))
        offered = ''
        while metadata.left:
            key, value = metadata.text(), metadata.text()
            if key == 'offered_qos_profiles':
                offered = value
        self.channels[number] = Channel(
            topic=topic, type=kind, definition=definition, format=_FORMATS.get(encoding, ''),
            qos=offered_qos(offered),
        )  # fmt: skip

    def _is_wanted(self, at: int) -> bool:
        """Tell by the indexes behind a chunk, from byte ``at`` on, whether it has to be read."""
        if self.topics is None:
            return True
        skippable = False
        while True:
            head = self._read(at, _HEAD.size + 2)
            if len(head) < _HEAD.size + 2 or head[0] != _INDEX:
                # without any index nobody knows
                return not skippable
            _, length, number = struct.unpack('<BQH', head)
            channel = self.channels.get(number)
            if channel is None or channel.topic in self.topics:
                return True
            skippable = True
            at += _HEAD.size + length

    def read_summary(self) -> dict[int, int] | None:
        """
        Learn the topics from the end of the file, where they stand once more.

        Return the messages by number of the channel, None where they are not counted there.
        """
        counts = None
        tail = _HEAD.size + 20 + len(_MAGIC)
        if self.size < tail + len(_MAGIC):
            return None
        self.file.seek(self.size - tail)
        footer = self.file.read(tail)
        if not footer.endswith(_MAGIC) or _HEAD.unpack_from(footer) != (_FOOTER, 20):
            return None
        (at,) = struct.unpack_from('<Q', footer, _HEAD.size)
        while at and at + _HEAD.size <= self.size - tail:
            self.file.seek(at)
            opcode, length = _HEAD.unpack(self.file.read(_HEAD.size))
            if at + _HEAD.size + length > self.size or length > MAX_BYTES:
                return None
            if opcode in (_SCHEMA, _CHANNEL):
                for _ in self._record(opcode, self.file.read(length), at):
                    return None
            elif opcode == _STATISTICS and length >= 46:
                content = self.file.read(length)
                (size,) = struct.unpack_from('<I', content, 42)
                if size == length - 46 and size % 10 == 0:
                    counts = dict(struct.iter_unpack('<HQ', content[46:]))
            at += _HEAD.size + length
        return counts

    def _is_chunk(self, begin: int, length: int) -> bool:
        """Tell a chunk by its sizes, which have to agree, from bytes that look like one."""
        head = self._read(begin, 48)
        if len(head) < 40 or not 40 <= length <= MAX_BYTES:
            return False
        _, _, size, _ = _CHUNK_HEAD.unpack_from(head)
        (named,) = struct.unpack_from('<I', head, 28)
        if named > 4 or len(head) < 40 + named or size > MAX_BYTES:
            return False
        if head[32 : 32 + named].decode('latin-1') not in COMPRESSIONS:
            return False
        (packed,) = struct.unpack_from('<Q', head, 32 + named)
        return bool(packed == length - 40 - named)

    def _is_message(
        self, read: Callable[[int, int], bytes], size: int, begin: int, length: int
    ) -> bool:
        """Tell a message of a known topic, its two times close together, from other bytes."""
        if not _MESSAGE_HEAD.size <= length <= MAX_BYTES or begin + length > size:
            return False
        number, _, logged, published = _MESSAGE_HEAD.unpack(read(begin, _MESSAGE_HEAD.size))
        after = read(begin + length, 1)
        return (
            number in self.channels
            and logged > 0
            and abs(published - logged) < _LEAP
            and (not after or after[0] in _OPCODES)
        )

    def _resync(self, at: int) -> int | None:
        """Return where the next chunk or message that can be trusted begins."""
        is_message = partial(self._is_message, self._read, self.size)
        while at < self.size:
            # the blocks overlap, so that no head is cut in two
            block = self._read(at, _STEP_MCAP_SCAN + _HEAD.size)
            found = [
                place
                for opcode, trusted in ((_CHUNK, self._is_chunk), (_MESSAGE, is_message))
                if (place := _find(block, opcode, at, trusted)) is not None
            ]
            if found:
                return min(found)
            at += _STEP_MCAP_SCAN
        return None

    def _read(self, at: int, length: int) -> bytes:
        # lengths of 64 bits add up to places that no file can be asked for
        self.file.seek(min(at, self.size))
        return self.file.read(min(length, MAX_BYTES))

    def _damage(self, text: str) -> Damage:
        return Damage(text=f'{self.name} {text}')


def _find(block: bytes, opcode: int, at: int, trusted: Callable[[int, int], bool]) -> int | None:
    """Return where a trusted record begins whose head is in ``block``, which begins at ``at``."""
    place = block.find(opcode)
    while 0 <= place <= len(block) - _HEAD.size:
        _, length = _HEAD.unpack_from(block, place)
        # one byte in 256 is such an opcode, and hardly any of them has a length behind it
        if length <= MAX_BYTES and trusted(at + place + _HEAD.size, length):
            return at + place
        place = block.find(opcode, place + 1)
    return None


class _Fields:
    """Little-endian fields, one after the other; ``struct.error`` where there are no more."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    @property
    def left(self) -> bool:
        return self._at < len(self._content)

    def uint16(self) -> int:
        (value,) = struct.unpack_from('<H', self._content, self._at)
        self._at += 2
        return int(value)

    def bytes(self) -> bytes:
        (length,) = struct.unpack_from('<I', self._content, self._at)
        begin = self._at + 4
        if begin + length > len(self._content):
            raise struct.error('a field is longer than its record')
        self._at = begin + length
        return self._content[begin : self._at]

    def text(self) -> str:
        return self.bytes().decode()


_MAGIC_SQLITE_SCAN = b'SQLite format 3\0'
_TABLE_LEAF = 0x0D
_WAL_MAGICS = (0x377F0682, 0x377F0683)
#: Pages that are read at once.
_RUN = 256
Value = int | float | str | bytes | None


def scan_sqlite(path: Path) -> Iterator[Record | Damage]:
    """Yield what can be read, in the order of the pages; ``OSError`` where it cannot be opened."""
    with path.open('rb') as file:
        size = file.seek(0, 2)
        if not size:
            yield Damage(text=f'{path.name} is empty (0 bytes)')
            return
        pages = _Pages(file, Path(f'{path}-wal'))
        try:
            yield from _scan(pages, path.name)
        finally:
            pages.close()


def is_cut(path: Path) -> bool:
    """Tell whether a database is shorter than its first page says."""
    with path.open('rb') as file:
        pages = _Pages(file, Path(f'{path}-wal'))
        pages.close()
    return pages.named and pages.file_count < pages.claimed


def _scan(pages: _Pages, name: str) -> Iterator[Record | Damage]:
    if not pages.named:
        yield Damage(text=f'{name} does not begin as a database')
    elif pages.file_count < pages.claimed:
        yield Damage(text=f'{name} ends at byte {pages.size} of {pages.claimed * pages.page_size}')
    channels = {
        number: channel
        for row in pages.rows(blobs=False)
        if (found := _topic(row)) is not None
        for number, channel in [found]
    }
    lost = nameless = 0
    for row in pages.rows(blobs=True):
        if row is None:
            lost += 1
        elif len(row) == 5 and isinstance(row[4], bytes):
            channel = channels.get(row[2]) if isinstance(row[2], int) else None
            if channel is None or not isinstance(row[3], int):
                nameless += 1
                continue
            yield Record(channel=channel, received_ns=row[3], data=row[4])
    if lost:
        yield Damage(text=f'{name} has {lost} rows that are not whole')
    if nameless:
        yield Damage(text=f'{name} holds {nameless} messages of topics whose name is lost')


def _topic(row: tuple[Value, ...] | None) -> tuple[int, Channel] | None:
    """Return the number and description that a row of ``topics`` holds, None for other rows."""
    # (row id, id, name, type, serialisation, offered qos, type hash), the last two since Foxy
    if row is None or len(row) < 5 or row[4] != 'cdr':
        return None
    number, topic, kind = row[0], row[2], row[3]
    if not (isinstance(number, int) and isinstance(topic, str) and isinstance(kind, str)):
        return None
    qos = offered_qos(str(row[5])) if len(row) > 5 and row[5] else ()
    digest = str(row[6]) if len(row) > 6 else ''
    return number, Channel(topic=topic, type=kind, digest=digest, qos=qos)


class _Pages:
    """The pages of a database with those of its write-ahead log laid over them."""

    def __init__(self, file: BinaryIO, wal: Path) -> None:
        self.file = file
        self.size = file.seek(0, 2)
        file.seek(0)
        head = file.read(100)
        self.named = head.startswith(_MAGIC_SQLITE_SCAN)
        page_size, reserved, self.claimed = 4096, 0, 0
        if self.named and len(head) == 100:
            (given,) = struct.unpack_from('>H', head, 16)
            given = 65536 if given == 1 else given
            if 512 <= given <= 65536 and given & (given - 1) == 0:
                page_size, reserved = given, head[20]
            (self.claimed,) = struct.unpack_from('>I', head, 28)
        self.page_size = page_size
        self.usable = page_size - reserved
        self.file_count = self.size // page_size
        self._wal: BinaryIO | None = None
        self._logged: dict[int, int] = {}
        if wal.is_file() and wal.stat().st_size > 32:
            self._wal = wal.open('rb')
            self._logged = _committed(self._wal, page_size)
        self.count = max(self.file_count, *self._logged, 0)
        #: A bit for each page that holds the rest of a row, in this pass.
        self._used = bytearray()

    def close(self) -> None:
        if self._wal is not None:
            self._wal.close()

    def read(self, number: int) -> bytes:
        """Return page ``number`` (the first is 1), b'' where there is none."""
        if self._wal is not None and number in self._logged:
            self._wal.seek(self._logged[number])
            return self._wal.read(self.page_size)
        if not 1 <= number <= self.file_count:
            return b''
        self.file.seek((number - 1) * self.page_size)
        return self.file.read(self.page_size)

    def rows(self, *, blobs: bool) -> Iterator[tuple[Value, ...] | None]:
        """
        Yield (row id, column, column, …) of each row of each table, None for one not whole.

        Without ``blobs`` rows that reach beyond their own page are left out.
        """
        self._used = bytearray(self.count // 8 + 1)
        for first in range(1, self.count + 1, _RUN):
            self.file.seek((first - 1) * self.page_size)
            run = self.file.read(_RUN * self.page_size)
            for place in range(_RUN):
                number = first + place
                if number > self.count:
                    return
                begin = place * self.page_size
                if number in self._logged:
                    page = self.read(number)
                elif run[begin : begin + 1] == bytes((_TABLE_LEAF,)) or number == 1:
                    page = run[begin : begin + self.page_size]
                else:
                    continue
                if len(page) == self.page_size:
                    yield from self._leaf(page, 100 if number == 1 else 0, blobs)

    def _leaf(self, page: bytes, head: int, blobs: bool) -> Iterator[tuple[Value, ...] | None]:
        if page[head] != _TABLE_LEAF:
            return
        (cells,) = struct.unpack_from('>H', page, head + 3)
        for index in range(min(cells, self.page_size // 4)):
            at = head + 8 + 2 * index
            if at + 2 > self.page_size:
                return
            (place,) = struct.unpack_from('>H', page, at)
            try:
                row = self._cell(page, place, blobs)
            except (IndexError, struct.error, ValueError):
                yield None
            else:
                if row is not None:
                    yield row

    def _cell(self, page: bytes, at: int, blobs: bool) -> tuple[Value, ...] | None:
        length, at = _varint(page, at)
        row_id, at = _varint(page, at)
        if length > MAX_BYTES:
            raise ValueError('the row is longer than any message')
        largest = self.usable - 35
        local = length
        if length > largest:
            if not blobs:
                return None
            least = (self.usable - 12) * 32 // 255 - 23
            local = least + (length - least) % (self.usable - 4)
            local = local if local <= largest else least
        payload = page[at : at + local]
        if len(payload) < local:
            raise ValueError('the row reaches over the end of its page')
        if local < length:
            (following,) = struct.unpack_from('>I', page, at + local)
            payload += self._overflow(following, length - local)
        return (row_id, *_columns(payload))

    def _overflow(self, number: int, length: int) -> bytes:
        """Follow the chain of pages that holds the rest of a row."""
        parts = []
        while length > 0:
            page = self.read(number)
            if len(page) < self.usable:
                raise ValueError('the chain of pages is broken')
            byte, bit = number // 8, 1 << number % 8
            if self._used[byte] & bit:
                # a chain that bites its tail would stand for any number of bytes
                raise ValueError('two rows share a page')
            self._used[byte] |= bit
            (number,) = struct.unpack_from('>I', page)
            part = page[4 : min(self.usable, 4 + length)]
            parts.append(part)
            length -= len(part)
        return b''.join(parts)


def _committed(wal: BinaryIO, page_size: int) -> dict[int, int]:
    """Return where each page of the last complete transactions lies in a write-ahead log."""
    size = wal.seek(0, 2)
    wal.seek(0)
    magic, _, logged_size, _, salt = struct.unpack('>IIII8s', wal.read(24))
    if magic not in _WAL_MAGICS or logged_size not in (page_size, 1 if page_size == 65536 else 0):
        return {}
    committed: dict[int, int] = {}
    pending: dict[int, int] = {}
    for at in range(32, size - page_size - 23, 24 + page_size):
        wal.seek(at)
        number, after, frame_salt = struct.unpack('>II8s', wal.read(16))
        if frame_salt != salt or not number:
            break
        pending[number] = at + 24
        if after:
            committed.update(pending)
            pending.clear()
    return committed


def _columns(payload: bytes) -> Iterator[Value]:
    """Yield the columns of a row; ``IndexError`` or ``ValueError`` where it is no row."""
    head, at = _varint(payload, 0)
    place = head
    if head > len(payload):
        raise ValueError('the head of the row is longer than the row')
    while at < head:
        kind, at = _varint(payload, at)
        if kind in (0, 8, 9):
            yield (None, 0, 1)[(0, 8, 9).index(kind)]
            continue
        if 1 <= kind <= 7:
            length = (1, 2, 3, 4, 6, 8, 8)[kind - 1]
        elif kind >= 12:
            length = (kind - 12) // 2
        else:
            raise ValueError(f'there is no type {kind}')
        value = payload[place : place + length]
        if len(value) < length:
            raise ValueError('the row ends too early')
        place += length
        if kind == 7:
            yield float(struct.unpack('>d', value)[0])
        elif kind < 7:
            yield int.from_bytes(value, 'big', signed=True)
        elif kind % 2:
            yield value.decode(errors='replace')
        else:
            yield value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return SQLite's variable-length integer at ``at`` and where it ends."""
    value = 0
    for index in range(9):
        byte = data[at + index]
        if index == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    raise AssertionError('the ninth byte ends it')


_MAGIC_ROS1_SCAN = b'#ROSBAG V2.0\n'
_MESSAGE_ROS1_SCAN, _CHUNK_ROS1_SCAN, _CONNECTION = 2, 5, 7
_OPCODES_ROS1_SCAN = range(2, 8)
#: Every header field of the format is shorter; definitions stand in the content.
_MAX_HEADER = 2**16
_STEP_ROS1_SCAN = 2**20
#: The first field of a chunk's header.
_CHUNK_MARK = b'compression='
Header = dict[str, bytes]


def scan_ros1(path: Path) -> Iterator[Record | Damage]:
    """Yield what can be read, in the file's order; ``OSError`` where it cannot be opened."""
    with path.open('rb') as file:
        yield from _Scan_ros1_scan(file, path.name).run()


class _Scan_ros1_scan:
    """One pass over one file."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file, self.name = file, name
        self.size = file.seek(0, 2)
        self.channels: dict[int, Channel] = {}
        self.nameless = 0

    def run(self) -> Iterator[Record | Damage]:
        if not self.size:
            yield self._damage('is empty (0 bytes)')
            return
        self.file.seek(0)
        if self.file.read(len(_MAGIC_ROS1_SCAN)) != _MAGIC_ROS1_SCAN:
            yield self._damage('does not begin as a ROS 1 bag')
        self._read_index()
        yield from self._records(len(_MAGIC_ROS1_SCAN))
        if self.nameless:
            yield self._damage(
                f'holds {self.nameless} messages of topics whose description is lost'
            )

    def _read_index(self) -> None:
        """Learn the topics from the end of the file, where they stand once more."""
        found = self._header(len(_MAGIC_ROS1_SCAN))
        at = int.from_bytes(found[0].get('index_pos', b''), 'little') if found else 0
        while 0 < at < self.size:
            found = self._header(at)
            if found is None or found[0]['op'][0] != _CONNECTION:
                return
            header, begin, length = found
            for _ in self._record(header, self._read(begin, length), at):
                return
            at = begin + length

    def _records(self, at: int) -> Iterator[Record | Damage]:
        indexed = False
        while at < self.size:
            found = self._header(at)
            if found is None:
                following = self._resync(at + 1)
                if following is None:
                    yield self._damage(f'ends or is damaged from byte {at} on')
                    return
                yield self._damage(f'is damaged from byte {at} to {following}')
                at = following
                continue
            header, begin, length = found
            opcode = header['op'][0]
            if opcode == _CHUNK_ROS1_SCAN:
                yield from self._chunk(header, at, begin, length)
            elif begin + length > self.size:
                yield self._damage(f'ends inside a record at byte {at}')
                return
            elif opcode in (_MESSAGE_ROS1_SCAN, _CONNECTION):
                # the index at the end of the file begins with the connections
                yield from self._record(header, self._read(begin, length), at)
            indexed = indexed or opcode == 6
            at = begin + length
        if not indexed:
            yield self._damage(f'ends at byte {self.size} without an index: it was not finished')

    def _chunk(
        self, header: Header, at: int, begin: int, length: int
    ) -> Iterator[Record | Damage]:
        packed = self._read(begin, length)
        size = _number(header.get('size', b''))
        try:
            unpacked, whole = unpack(packed, header.get('compression', b'').decode(), size)
        except ValueError as error:
            yield self._damage(f'has a chunk at byte {at} that cannot be unpacked: {error}')
            return
        place = lost = 0
        while place < len(unpacked):
            inner = _parse(unpacked, place)
            if inner is None or inner[1] + inner[2] > len(unpacked):
                following = _next_message(unpacked, place + 1)
                if following is None:
                    break
                lost += following - place
                place = following
                continue
            fields, data_at, data_length = inner
            if fields['op'][0] in (_MESSAGE_ROS1_SCAN, _CONNECTION):
                yield from self._record(fields, unpacked[data_at : data_at + data_length], at)
            place = data_at + data_length
        lost += len(unpacked) - place
        if begin + length > self.size:
            yield self._damage(f'ends inside a chunk at byte {at} ({len(packed)} of {length})')
        elif not whole or lost:
            missing = size - len(unpacked) + lost
            yield self._damage(f'has a chunk at byte {at} that lacks {missing} of {size} bytes')

    def _record(self, header: Header, content: bytes, at: int) -> Iterator[Record | Damage]:
        number = _number(header.get('conn', b''))
        if header['op'][0] == _CONNECTION:
            fields = _fields(content)
            if fields is None or 'type' not in fields:
                yield self._damage(f'has a topic near byte {at} that makes no sense')
                return
            self.channels[number] = Channel(
                topic=_topic_ros1_scan(header.get('topic', b'').decode(errors='replace')),
                type=_type(fields['type'].decode(errors='replace')),
                definition=fields.get('message_definition', b'').decode(errors='replace'),
                format='msg',
            )
            return
        time = header.get('time', b'')
        channel = self.channels.get(number)
        if channel is None or len(time) != 8:
            self.nameless += 1
            return
        seconds, nanoseconds = struct.unpack('<II', time)
        yield Record(
            channel=channel, received_ns=seconds * 1_000_000_000 + nanoseconds, data=content
        )

    def _header(self, at: int) -> tuple[Header, int, int] | None:
        """Return a record's header, where its content begins and how long it is."""
        (length,) = struct.unpack('<I', self._read(at, 4).ljust(4, b'\xff'))
        return _parse(self._read(at, min(length, _MAX_HEADER) + 8), 0, at)

    def _resync(self, at: int) -> int | None:
        """Return where the next chunk begins, or the next message of a chunk without a header."""
        while at < self.size:
            # the blocks overlap, so that no header is cut in two
            block = self._read(at, _STEP_ROS1_SCAN + 64)
            found = [_next_message(block, 0)]
            place = block.find(_CHUNK_MARK)
            while place >= 0:
                # two lengths stand before it: of the header and of the field
                header = self._header(at + place - 8) if place >= 8 else None
                if header is not None and header[0]['op'][0] == _CHUNK_ROS1_SCAN:
                    found.append(place - 8)
                    break
                place = block.find(_CHUNK_MARK, place + 1)
            places = [place for place in found if place is not None]
            if places:
                return at + min(places)
            at += _STEP_ROS1_SCAN
        return None

    def _read(self, at: int, length: int) -> bytes:
        self.file.seek(at)
        return self.file.read(min(length, MAX_BYTES))

    def _damage(self, text: str) -> Damage:
        return Damage(text=f'{self.name} {text}')


def _parse(data: bytes, at: int, base: int = 0) -> tuple[Header, int, int] | None:
    """Return header, begin and length of the content of the record at ``at``, None for none."""
    if at + 4 > len(data):
        return None
    (length,) = struct.unpack_from('<I', data, at)
    begin = at + 4 + length
    if length > _MAX_HEADER or begin + 4 > len(data):
        return None
    fields = _fields(data[at + 4 : begin])
    if (
        fields is None
        or len(fields.get('op', b'')) != 1
        or fields['op'][0] not in _OPCODES_ROS1_SCAN
    ):
        return None
    (content,) = struct.unpack_from('<I', data, begin)
    return fields, base + begin + 4, content


def _next_message(data: bytes, at: int) -> int | None:
    """Return where the next message in an unpacked chunk begins."""
    mark = b'\x04\0\0\0op=' + bytes((_MESSAGE_ROS1_SCAN,))
    place = data.find(mark, at)
    while place >= 0:
        # op may be any of the header's three fields, which take 42 bytes in all
        for start in range(max(at, place - 42), place - 3):
            found = _parse(data, start)
            if found is not None and {'conn', 'time'} <= found[0].keys():
                return start
        place = data.find(mark, place + 1)
    return None


def _fields(data: bytes) -> Header | None:
    """Return the named fields of a header, None where it is none."""
    result: Header = {}
    at = 0
    while at < len(data):
        if at + 4 > len(data):
            return None
        (length,) = struct.unpack_from('<I', data, at)
        at += 4
        name, equals, value = data[at : at + length].partition(b'=')
        if not equals or at + length > len(data):
            return None
        result[name.decode(errors='replace')] = value
        at += length
    return result


def _number(value: bytes) -> int:
    return int.from_bytes(value, 'little') if len(value) == 4 else -1


def _type(name: str) -> str:
    try:
        return str(normalize_msgtype(name))
    # a damaged name is no reason to stop
    except Exception:
        return name


def _topic_ros1_scan(name: str) -> str:
    """Return the topic without empty parts, as rosbags names it."""
    return '/' * name.startswith('/') + '/'.join(part for part in name.split('/') if part)


_MCAP = '.mcap'
#: Scanner by the suffix of the file.
_SCANNERS: dict[str, Callable[[Path], Iterator[Record | Damage]]] = {
    _MCAP: scan_mcap, '.db3': scan_sqlite, '.bag': scan_ros1, '.active': scan_ros1,
}  # fmt: skip
ROS1_SUFFIXES = ('.bag', '.active')
_PACKED = '.zstd'
_BYTES = (bytes, bytearray, memoryview)
_FORMATS_STORAGE: dict[MessageDefinitionFormat, Literal['', 'msg', 'idl']] = {
    MessageDefinitionFormat.NONE: '',
    MessageDefinitionFormat.MSG: 'msg',
    MessageDefinitionFormat.IDL: 'idl',
}


class _DatabaseReader(Sqlite3Reader):
    """A database by its path, which the class beneath puts into a URI as it is."""

    def __init__(self, path: Path) -> None:
        super().__init__(uri_path(path))


class _Reader(Ros2Reader):
    STORAGE_PLUGINS = {**Ros2Reader.STORAGE_PLUGINS, '.db3': _DatabaseReader}


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What one file holds by its index, or where that is lost by counting."""

    counts: dict[Channel, int]
    damage: tuple[Damage, ...] = ()


class StorageFile:
    """A file of a bag; nothing is open between two calls."""

    def __init__(self, path: Path) -> None:
        """``path`` ends in .mcap, .db3 or .bag, maybe with .zstd behind it."""
        self.path = path
        self.packed = path.suffix == _PACKED
        self.suffix = Path(path.stem).suffix if self.packed else path.suffix.lower()

    @staticmethod
    def fits(path: Path) -> bool:
        """Tell by its name whether a path may be such a file."""
        name = Path(path.stem) if path.suffix == _PACKED else path
        return name.suffix.lower() in _SCANNERS

    def contents(self) -> Contents:
        """Return the topics and the number of their messages; a damaged file is read whole."""
        with self._unpacked() as (path, reason):
            if self.suffix == _MCAP and not reason:
                counted = count_mcap(path)
                if counted is not None:
                    return Contents(counts=counted)
            try:
                with self._index(path) as reader:
                    counts: Counter[Channel] = Counter()
                    for connection in reader.connections:
                        counts[_channel(connection)] += connection.msgcount
                if not reason:
                    return Contents(counts=dict(counts))
            # a damaged file makes the parsers beneath fail in many ways (struct, sqlite, yaml, …)
            except Exception as error:
                reason = reason or f'{error}' or type(error).__name__
            found: Counter[Channel] = Counter()
            damage = []
            for item in _SCANNERS[self.suffix](path):
                if isinstance(item, Damage):
                    damage.append(item)
                else:
                    found[item.channel] += 1
            # it is none of the formats here where not even the scanner finds anything wrong
            if not found and not damage:
                damage = [Damage(text=f'{self.path.name} cannot be read: {reason}')]
            return Contents(counts=dict(found), damage=tuple(damage))

    def records(self, topics: Collection[str] | None = None) -> Iterator[Record | Damage]:
        """
        Yield the messages of some topics, or of all with None, and what could not be read.

        They come in the order of recording while the index holds, in the file's order after that.
        """
        with self._unpacked() as (path, reason):
            if self.suffix == _MCAP:
                yield from scan_mcap(path, topics)
                if reason:
                    yield Damage(text=f'{self.path.name}: {reason}')
                return
            last = -1
            given: Counter[str] = Counter()
            try:
                with self._index(path) as reader:
                    wanted = {
                        connection.id: _channel(connection)
                        for connection in reader.connections
                        if topics is None or connection.topic in topics
                    }
                    connections = [c for c in reader.connections if c.id in wanted]
                    # an empty list would mean every topic to the reader
                    for connection, received, data in (
                        reader.messages(connections) if connections else ()
                    ):
                        # a column of SQLite may hold anything
                        if not (isinstance(received, int) and isinstance(data, _BYTES)):
                            raise ValueError(f'a message of {connection.topic} is no message')
                        if received != last:
                            last = received
                            given.clear()
                        given[connection.topic] += 1
                        yield Record(
                            channel=wanted[connection.id], received_ns=received, data=bytes(data)
                        )
                if not reason:
                    return
            # see contents()
            except Exception as error:
                reason = reason or f'{error}' or type(error).__name__
            quiet = True
            for item in _SCANNERS[self.suffix](path):
                if isinstance(item, Damage):
                    quiet = False
                    yield item
                elif topics is None or item.channel.topic in topics:
                    # what came before the index failed must not come twice
                    if item.received_ns < last:
                        continue
                    if item.received_ns == last and given[item.channel.topic] > 0:
                        given[item.channel.topic] -= 1
                        continue
                    yield item
            if self.packed or quiet:
                yield Damage(text=f'{self.path.name}: {reason}')

    @contextmanager
    def _unpacked(self) -> Iterator[tuple[Path, str]]:
        """Yield the file as it can be read, and why a packed one breaks off."""
        if not self.packed:
            yield self.path, ''
            return
        with tempfile.TemporaryDirectory(prefix='nightseg-') as folder:
            path = Path(folder) / self.path.stem
            yield path, unpack_file(self.path, path)

    def _index(self, path: Path) -> Ros1Reader | Ros2Reader:
        if self.suffix in ROS1_SUFFIXES:
            return Ros1Reader(path)
        if Path(f'{path}-wal').is_file() and Path(f'{path}-wal').stat().st_size:
            # the reader beneath would not see what is in there
            raise ValueError('the recorder was killed: a write-ahead log lies beside it')
        if self.suffix == _MCAP:
            raise ValueError('the file has no summary at its end')
        if self.suffix == '.db3' and is_cut(path):
            # SQLite takes the pages behind the end for zeros
            raise ValueError('the database ends too early')
        return _Reader(path)


def _channel(connection: Connection) -> Channel:
    """Return a topic as the index has it; ``ValueError`` where SQLite's columns hold no text."""
    if not (isinstance(connection.topic, str) and isinstance(connection.msgtype, str)):
        raise ValueError(f'a topic is called {connection.topic!r}, of type {connection.msgtype!r}')
    return Channel(
        topic=connection.topic,
        type=connection.msgtype,
        definition=connection.msgdef.data,
        format=_FORMATS_STORAGE[connection.msgdef.format],
        digest=connection.digest,
        qos=tuple(connection.ext.offered_qos_profiles)
        if isinstance(connection.ext, ConnectionExtRosbag2)
        else (),
    )


METADATA = 'metadata.yaml'


@dataclass(frozen=True, kw_only=True, slots=True)
class BagFolder:
    """The files of a bag in the order of recording."""

    files: tuple[StorageFile, ...]
    promised: dict[Channel, int] | None = None
    """Messages by topic as metadata.yaml counts them, None without a readable one."""
    damage: tuple[Damage, ...] = ()

    @property
    def is_ros2(self) -> bool:
        """Whether the messages are serialised as ROS 2 does (CDR)."""
        return not any(file.suffix in ROS1_SUFFIXES for file in self.files)


def is_bag(path: Path) -> bool:
    """Tell a bag by its name: .mcap, .db3, .bag, or a folder with metadata.yaml or such files."""
    if path.is_dir():
        return (path / METADATA).is_file() or bool(_storages(path))
    return StorageFile.fits(path)


def open_folder(path: Path) -> BagFolder:
    """Look at a bag's folder or single file; ``BagError`` where there is none."""
    if not path.exists():
        raise BagError(f"bag '{path}' does not exist")
    if not path.is_dir():
        if not StorageFile.fits(path):
            raise BagError(f"'{path}' is no bag: its name ends in none of .mcap, .db3, .bag")
        return BagFolder(files=(StorageFile(path),))
    found = _storages(path)
    if not (path / METADATA).is_file():
        if not found:
            raise BagError(f"'{path}' is no bag: it holds no {METADATA}, *.mcap or *.db3")
        return BagFolder(files=tuple(map(StorageFile, found)))
    try:
        names, promised = _read(path / METADATA)
    # YAML of any shape may stand there
    except Exception as error:
        if not found:
            raise BagError(f"'{path / METADATA}' cannot be read, and no file beside it") from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        damage = Damage(text=f'{METADATA} cannot be read ({reason}); the files are read without')
        return BagFolder(files=tuple(map(StorageFile, found)), damage=(damage,))
    files, missing = [], []
    for name in names:
        file = _lying(path, name)
        if file is None:
            missing.append(Damage(text=f'{name} is missing'))
        else:
            files.append(StorageFile(file))
    return BagFolder(files=tuple(files), promised=promised, damage=tuple(missing))


def _read(file: Path) -> tuple[list[str], dict[Channel, int]]:
    text = file.read_text(encoding='utf-8')
    content: dict[str, Any] = load_yaml(text, aliases=True)
    information = content['rosbag2_bagfile_information']
    counts: dict[Channel, int] = {}
    for entry in information['topics_with_message_count']:
        topic = entry['topic_metadata']
        channel = Channel(
            topic=str(topic['name']), type=str(topic['type']),
            qos=tuple(parse_qos(topic.get('offered_qos_profiles') or [])),
        )  # fmt: skip
        counts[channel] = counts.get(channel, 0) + int(entry['message_count'])
    # older versions wrote the bag's folder before the name
    names = [Path(name).name for name in information['relative_file_paths']]
    return names, counts


def _lying(folder: Path, name: str) -> Path | None:
    """Return a file by its name, also where somebody has unpacked or packed it since."""
    for candidate in (name, name.removesuffix('.zstd'), f'{name}.zstd'):
        path = folder / candidate
        if StorageFile.fits(path) and path.is_file():
            return path
    return None


def _storages(folder: Path) -> list[Path]:
    """Return the files of a ROS 2 bag by their numbers: drive_2 comes before drive_10."""
    files = {
        path.name: path
        for path in folder.iterdir()
        if StorageFile.fits(path)
        and StorageFile(path).suffix not in ROS1_SUFFIXES
        and path.is_file()
    }
    # a packed file beside its unpacked twin would be read twice
    names = [
        name
        for name in files
        if not name.endswith('.zstd') or name.removesuffix('.zstd') not in files
    ]
    return [files[name] for name in sorted(names, key=_natural)]


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    parts = re.split(r'(\d+)', name)
    return tuple((int(part), '') if part.isdigit() else (-1, part) for part in parts)


IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
#: Messages of a topic that are held back to put neighbours in the order of their stamps.
REORDER = 8
_SECOND = 1_000_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Topic:
    """A topic of a bag."""

    name: str
    type: str
    count: int
    """Messages that were recorded, as far as the bag still knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message as it lies in the bag."""

    stamp_ns: int
    """The header's stamp; where the header cannot be read, the time of recording."""
    received_ns: int
    """When it was recorded."""
    type: str
    data: bytes


class BagReader:
    """
    A bag, looked at: its topics, and their messages and frames in the order of the header stamps.

    Two neighbours that were recorded in the wrong order are put right; a message that comes more
    than ``REORDER`` messages of its topic late stays where it was recorded. Memory does not grow
    with the bag. A damaged bag gives every message that can be read; ``losses`` says what it did
    not give, as soon as the messages have been read.
    """

    def __init__(self, path: str | Path) -> None:
        """
        Look at the bag; ``BagError`` where it is none, or nothing of it can be read.

        A damaged file without a metadata.yaml is read once as a whole to learn its topics.
        """
        self.path = Path(path)
        self._folder = open_folder(self.path)
        #: An ordered set: several passes meet the same damage.
        self._damage: dict[Damage, None] = dict.fromkeys(self._folder.damage)
        self._given: Counter[str] = Counter()
        counts = self._folder.promised
        if counts is None:
            counts = self._counted()
        self._channels = tuple(counts)
        self._topics = _topics(counts)
        if not self._topics and self._damage:
            raise BagError(f"bag '{self.path}' cannot be read: {'; '.join(self.losses())}")
        self._types = _types(self.is_ros2)

    def __enter__(self) -> BagReader:
        """Use it in a ``with`` block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the bag."""
        self.close()

    def close(self) -> None:
        """Let go of the bag; files are open only while their messages are being read."""

    @property
    def topics(self) -> list[Topic]:
        """Every topic, by name."""
        return list(self._topics)

    @property
    def image_topics(self) -> list[Topic]:
        """The topics of images, by name."""
        return [topic for topic in self._topics if topic.type in IMAGE_TYPES]

    @property
    def camera_topics(self) -> list[Topic]:
        """
        The topics of camera images, by name.

        They are those of images without predictions (``…/nightseg/…``) and labels (``label…``); of
        an image that was recorded raw and compressed, the raw one.
        """
        found = [
            topic
            for topic in self.image_topics
            if '/nightseg/' not in topic.name
            and not topic.name.removesuffix('/compressed').rpartition('/')[2].startswith('label')
        ]
        names = {topic.name for topic in found}
        return [
            topic
            for topic in found
            if not topic.name.endswith('/compressed')
            or topic.name.removesuffix('/compressed') not in names
        ]

    @property
    def latched_topics(self) -> set[str]:
        """Names of the topics whose publishers kept the last message for late subscribers."""
        return {
            channel.topic
            for channel in self._channels
            if any(qos.durability is QosDurability.TRANSIENT_LOCAL for qos in channel.qos)
        }

    def image_topic(self, name: str | None = None) -> Topic:
        """
        Return the image topic ``name``, or without a name the only camera's.

        ``BagError`` lists what the bag holds where the answer is not plain.
        """
        if name is not None:
            wanted = '/' + name.strip('/')
            for topic in self.image_topics:
                if '/' + topic.name.strip('/') == wanted:
                    return topic
            raise BagError(
                f"bag '{self.path}' has no image topic '{name}'; it holds {self._listed()}"
            )
        cameras = self.camera_topics
        raw = [topic for topic in cameras if topic.name.rpartition('/')[2].startswith('image')]
        choice = cameras if len(cameras) == 1 else raw
        if len(choice) != 1:
            problem = 'several image topics' if cameras else 'no image topic'
            raise BagError(
                f"bag '{self.path}' has {problem}; name one with --topic. It holds "
                f'{self._listed()}'
            )
        return choice[0]

    def messages(self, topic: Topic) -> Iterator[Message]:
        """Yield the messages of one topic in the order of their stamps."""
        held: list[tuple[int, int, Message]] = []
        self._given[topic.name] = 0
        for number, record in enumerate(self._records((topic.name,))):
            data = unpack_message(record.data)
            stamp = self._stamp(record.channel.type, data, record.received_ns)
            message = Message(
                stamp_ns=stamp, received_ns=record.received_ns, type=record.channel.type, data=data
            )
            self._given[topic.name] += 1
            heapq.heappush(held, (stamp, number, message))
            if len(held) > REORDER:
                yield heapq.heappop(held)[2]
        while held:
            yield heapq.heappop(held)[2]

    def merged(self, topics: Iterable[Topic]) -> Iterator[tuple[Topic, Message]]:
        """
        Yield the messages of several topics in the order of their stamps, then of the topics.

        Each topic is read on its own, so that any distance between them in the file is fine.
        """
        # of equal stamps the one of the earlier stream comes first
        streams = [self._stream(topic) for topic in topics]
        yield from heapq.merge(*streams, key=lambda pair: pair[1].stamp_ns)

    def records(self, leave_out: Collection[str] = ()) -> Iterator[Record]:
        """Yield every message of every topic but some, as and in the order they were recorded."""
        names = {topic.name for topic in self._topics} - set(leave_out)
        for record in self._records(names):
            data = unpack_message(record.data)
            yield Record(channel=record.channel, received_ns=record.received_ns, data=data)

    def frames(self, topic: Topic, camera: str | None = None) -> Iterator[Frame | FrameError]:
        """
        Yield each image of a topic as a frame, or as the error that says why it is none.

        The last item of a damaged bag is a ``BagLoss``.
        """
        name = camera or camera_of(topic.name)
        for message in self.messages(topic):
            yield self.frame(message, name)
        loss = self.loss([topic])
        if loss is not None:
            yield loss

    def loss(self, topics: Iterable[Topic]) -> BagLoss | None:
        """Return what topics that have been read to their end did not give, None for nothing."""
        promised = given = 0
        for topic in topics:
            promised += topic.count
            given += self._given[topic.name]
        if given >= promised and (self._folder.promised is not None or not self._damage):
            return None
        if given >= promised:
            return BagLoss(f"bag '{self.path}': {given} messages read; {'; '.join(self.losses())}")
        about = 'about ' if self._damage else ''
        reason = '; '.join(self.losses()) or 'the rest is not where the bag says'
        return BagLoss(f"bag '{self.path}': {given} of {about}{promised} messages read; {reason}")

    def losses(self) -> list[str]:
        """Return what could not be read so far, in words."""
        return [damage.text for damage in self._damage]

    @property
    def is_ros2(self) -> bool:
        """Whether the messages are serialised as ROS 2 does (CDR)."""
        return self._folder.is_ros2

    def read(self, message: Message) -> Any:
        """Return a message's content as attributes; ``BagError`` where it is damaged."""
        try:
            if self.is_ros2:
                return self._types.deserialize_cdr(message.data, message.type)
            return self._types.deserialize_ros1(message.data, message.type)
        # damaged bytes make the parser beneath fail in many ways
        except Exception as error:
            raise BagError(
                f'a {message.type} cannot be read: {error or type(error).__name__}'
            ) from error

    def decode(self, message: Message, camera: str = 'camera') -> Frame:
        """Return an image message as a frame; ``FrameError`` says why it is none."""
        try:
            content = self.read(message)
        except BagError as error:
            raise FrameError(str(error)) from error
        if message.type == IMAGE_TYPES[0]:
            image, order = decode_raw(
                content.data, encoding=content.encoding, width=content.width,
                height=content.height, step=content.step, is_bigendian=bool(content.is_bigendian),
            )  # fmt: skip
        else:
            image, order = decode_file(bytes(content.data), str(content.format))
        return Frame(
            image=image, order=order, stamp_ns=message.stamp_ns, camera=camera,
            frame_id=str(content.header.frame_id),
        )  # fmt: skip

    def frame(self, message: Message, camera: str = 'camera') -> Frame | FrameError:
        """Return an image message as a frame, or as the error that says why it is none."""
        try:
            return self.decode(message, camera)
        except FrameError as error:
            return error

    def _stream(self, topic: Topic) -> Iterator[tuple[Topic, Message]]:
        for message in self.messages(topic):
            yield topic, message

    def _records(self, topics: Collection[str]) -> Iterator[Record]:
        for file in self._folder.files:
            for item in file.records(topics):
                if isinstance(item, Damage):
                    self._damage[item] = None
                else:
                    yield item

    def _counted(self) -> dict[Channel, int]:
        counts: Counter[Channel] = Counter()
        for file in self._folder.files:
            contents = file.contents()
            counts.update(contents.counts)
            self._damage.update(dict.fromkeys(contents.damage))
        return counts

    def _stamp(self, kind: str, data: bytes, received_ns: int) -> int:
        """Read the header's stamp, which comes first in a stamped message."""
        if not _has_header(self.is_ros2, kind):
            return received_ns
        # ROS 1: uint32 seq before it; CDR: 4 bytes of encapsulation, the second tells the endian
        big = self.is_ros2 and len(data) > 1 and data[1] == 0
        if len(data) < 12:
            return received_ns
        seconds, nanoseconds = struct.unpack_from('>iI' if big else '<iI', data, 4)
        if nanoseconds >= _SECOND or (seconds == 0 and nanoseconds == 0 and received_ns):
            # a driver that leaves its stamps empty; the time of recording is all there is
            return received_ns
        return int(seconds) * _SECOND + int(nanoseconds)

    def _listed(self) -> str:
        topics = [f'{topic.name} ({topic.type}, {topic.count})' for topic in self.topics]
        return ', '.join(topics) or 'no topic'


def camera_of(topic: str) -> str:
    """Return the camera's name of an image topic: what stands before its last part."""
    parts = topic.strip('/').split('/')
    if parts[-1] == 'compressed':
        parts.pop()
    return '/'.join(parts[:-1]) or 'camera'


@lru_cache
def _types(is_ros2: bool) -> Typestore:
    """Return the types of a ROS version; the ones used here are the same in all its releases."""
    return get_typestore(Stores.ROS2_JAZZY if is_ros2 else Stores.ROS1_NOETIC)


@lru_cache
def _has_header(is_ros2: bool, kind: str) -> bool:
    """Tell whether a message begins with a std_msgs/Header; types that are not known have none."""
    _, fields = _types(is_ros2).fielddefs.get(kind, ([], []))
    return bool(fields) and fields[0][1][1] == 'std_msgs/msg/Header'


def _topics(counts: dict[Channel, int]) -> list[Topic]:
    types: dict[str, set[str]] = {}
    sums: Counter[str] = Counter()
    for channel, count in counts.items():
        types.setdefault(channel.topic, set()).add(channel.type)
        sums[channel.topic] += count
    return [
        Topic(
            name=name,
            type=next(iter(types[name])) if len(types[name]) == 1 else 'several types',
            count=sums[name],
        )
        for name in sorted(types)
    ]


__all__ = [
    'IMAGE_TYPES', 'REORDER', 'BagError', 'BagReader', 'Message', 'Topic', 'camera_of', 'is_bag',
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedTopic:
    """A topic and its messages."""

    name: str
    type: str
    recorded: int
    """Messages that the bag says it holds."""
    read: int = 0
    undecodable: int = 0
    """Images among those read that are none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedBag:
    """The topics by name, and in words what is lost."""

    topics: tuple[CheckedTopic, ...]
    losses: tuple[str, ...]


def check_bag(path: Path, *, thorough: bool) -> CheckedBag:
    """Look at a bag; ``thorough`` reads every message. ``BagError`` where nothing can be read."""
    topics = []
    losses: dict[str, None] = {}
    with BagReader(path) as bag:
        for topic in bag.topics:
            read = undecodable = 0
            for message in bag.messages(topic) if thorough else ():
                read += 1
                if topic.type in IMAGE_TYPES:
                    undecodable += isinstance(bag.frame(message), FrameError)
            topics.append(
                CheckedTopic(
                    name=topic.name, type=topic.type, recorded=topic.count, read=read,
                    undecodable=undecodable,
                )
            )  # fmt: skip
            if thorough and read < topic.count:
                losses[f"'{topic.name}': {read} of {topic.count} messages read"] = None
            if undecodable:
                losses[f"'{topic.name}': {undecodable} images cannot be decoded"] = None
        losses.update(dict.fromkeys(bag.losses()))
    return CheckedBag(topics=tuple(topics), losses=tuple(losses))
