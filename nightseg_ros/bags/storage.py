# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
One file of a bag: by its index while that can be trusted, by scanning where it is damaged.

``rosbags`` reads databases and ROS 1 bags that are whole. Where it stops, the scanner of the
format goes on with what was recorded after that, so that every message that can be read is given
once. MCAP is always scanned: the index that ``rosbags`` keeps of it grows with the file.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinitionFormat
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag2 import Reader as Ros2Reader

from nightseg_ros.bags.compression import unpack_file
from nightseg_ros.bags.mcap_scan import count_mcap, scan_mcap
from nightseg_ros.bags.records import Channel, Damage, Record
from nightseg_ros.bags.ros1_scan import scan_ros1
from nightseg_ros.bags.sqlite_scan import is_cut, scan_sqlite

_MCAP = '.mcap'
#: Scanner by the suffix of the file.
_SCANNERS: dict[str, Callable[[Path], Iterator[Record | Damage]]] = {
    _MCAP: scan_mcap, '.db3': scan_sqlite, '.bag': scan_ros1, '.active': scan_ros1,
}  # fmt: skip
ROS1_SUFFIXES = ('.bag', '.active')
_PACKED = '.zstd'
_BYTES = (bytes, bytearray, memoryview)
_FORMATS: dict[MessageDefinitionFormat, Literal['', 'msg', 'idl']] = {
    MessageDefinitionFormat.NONE: '',
    MessageDefinitionFormat.MSG: 'msg',
    MessageDefinitionFormat.IDL: 'idl',
}


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
        return Ros2Reader(path)


def _channel(connection: Connection) -> Channel:
    """Return a topic as the index has it; ``ValueError`` where SQLite's columns hold no text."""
    if not (isinstance(connection.topic, str) and isinstance(connection.msgtype, str)):
        raise ValueError(f'a topic is called {connection.topic!r}, of type {connection.msgtype!r}')
    return Channel(
        topic=connection.topic,
        type=connection.msgtype,
        definition=connection.msgdef.data,
        format=_FORMATS[connection.msgdef.format],
        digest=connection.digest,
        qos=tuple(connection.ext.offered_qos_profiles)
        if isinstance(connection.ext, ConnectionExtRosbag2)
        else (),
    )
