# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Read the pages of a damaged rosbag2 database one by one, past whatever SQLite stops at.

The layout is that of https://sqlite.org/fileformat2.html. The rows of ``topics`` and ``messages``
are found by their shape in the leaves of whatever table they lie in, so that neither the first
page nor the inner ones are needed; what a killed recorder left in the write-ahead log counts.
SQLite keeps no checksums: a page whose bytes are wrong but well-formed is not noticed here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from nightseg_ros.bags.compression import MAX_BYTES
from nightseg_ros.bags.records import Channel, Damage, Record, offered_qos

_MAGIC = b'SQLite format 3\0'
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
        self.named = head.startswith(_MAGIC)
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
