# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Read a ROS 1 bag from front to back without its index, past whatever is damaged.

The layout is that of http://wiki.ros.org/Bags/Format/2.0: records of a header of named fields and
content, most of them packed into chunks. A bag that was never closed (``.bag.active``) has no
index at all. The format keeps no checksums.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rosbags.typesys.msg import normalize_msgtype

from nightseg_ros.bags.compression import MAX_BYTES, unpack
from nightseg_ros.bags.records import Channel, Damage, Record

_MAGIC = b'#ROSBAG V2.0\n'
_MESSAGE, _CHUNK, _CONNECTION = 2, 5, 7
_OPCODES = range(2, 8)
#: Every header field of the format is shorter; definitions stand in the content.
_MAX_HEADER = 2**16
_STEP = 2**20
#: The first field of a chunk's header.
_CHUNK_MARK = b'compression='
Header = dict[str, bytes]


def scan_ros1(path: Path) -> Iterator[Record | Damage]:
    """Yield what can be read, in the file's order; ``OSError`` where it cannot be opened."""
    with path.open('rb') as file:
        yield from _Scan(file, path.name).run()


class _Scan:
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
        if self.file.read(len(_MAGIC)) != _MAGIC:
            yield self._damage('does not begin as a ROS 1 bag')
        self._read_index()
        yield from self._records(len(_MAGIC))
        if self.nameless:
            yield self._damage(
                f'holds {self.nameless} messages of topics whose description is lost'
            )

    def _read_index(self) -> None:
        """Learn the topics from the end of the file, where they stand once more."""
        found = self._header(len(_MAGIC))
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
            if opcode == _CHUNK:
                yield from self._chunk(header, at, begin, length)
            elif begin + length > self.size:
                yield self._damage(f'ends inside a record at byte {at}')
                return
            elif opcode in (_MESSAGE, _CONNECTION):
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
            if fields['op'][0] in (_MESSAGE, _CONNECTION):
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
                topic=_topic(header.get('topic', b'').decode(errors='replace')),
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
            block = self._read(at, _STEP + 64)
            found = [_next_message(block, 0)]
            place = block.find(_CHUNK_MARK)
            while place >= 0:
                # two lengths stand before it: of the header and of the field
                header = self._header(at + place - 8) if place >= 8 else None
                if header is not None and header[0]['op'][0] == _CHUNK:
                    found.append(place - 8)
                    break
                place = block.find(_CHUNK_MARK, place + 1)
            places = [place for place in found if place is not None]
            if places:
                return at + min(places)
            at += _STEP
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
    if fields is None or len(fields.get('op', b'')) != 1 or fields['op'][0] not in _OPCODES:
        return None
    (content,) = struct.unpack_from('<I', data, begin)
    return fields, base + begin + 4, content


def _next_message(data: bytes, at: int) -> int | None:
    """Return where the next message in an unpacked chunk begins."""
    mark = b'\x04\0\0\0op=' + bytes((_MESSAGE,))
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


def _topic(name: str) -> str:
    """Return the topic without empty parts, as rosbags names it."""
    return '/' * name.startswith('/') + '/'.join(part for part in name.split('/') if part)
