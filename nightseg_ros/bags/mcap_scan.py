# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Read an MCAP file from front to back, past whatever is damaged, in memory that does not grow.

The layout is that of the specification (https://mcap.dev/spec): records of an opcode, a length and
content, most of them packed into chunks. A chunk that fails its checksum gives nothing, since
nobody knows which of its bytes are wrong; one that the file ends in gives the messages that are
whole.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

from nightseg_ros.bags.compression import COMPRESSIONS, MAX_BYTES, unpack
from nightseg_ros.bags.records import Channel, Damage, Record, offered_qos

_MAGIC = b'\x89MCAP0\r\n'
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _INDEX = 0x02, 0x03, 0x04, 0x05, 0x06, 0x07
_STATISTICS = 0x0B
#: Those of the specification, and those that it leaves to others.
_OPCODES = frozenset((*range(0x01, 0x10), *range(0x80, 0x100)))
_HEAD = struct.Struct('<BQ')
_MESSAGE_HEAD = struct.Struct('<HIQQ')
_CHUNK_HEAD = struct.Struct('<QQQI')
_STEP = 2**20
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
            block = self._read(at, _STEP + _HEAD.size)
            found = [
                place
                for opcode, trusted in ((_CHUNK, self._is_chunk), (_MESSAGE, is_message))
                if (place := _find(block, opcode, at, trusted)) is not None
            ]
            if found:
                return min(found)
            at += _STEP
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
