# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Read the image topics of ROS 2 (MCAP, sqlite3) and ROS 1 bags as frames, without ROS."""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from nightseg_ros.bags.errors import BagError
from nightseg_ros.perception.frame import Frame, FrameError, decode_file, decode_raw

IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
STORAGE_SUFFIXES = ('.mcap', '.db3')
#: Messages of a topic that are held back to put neighbours in the order of their stamps.
REORDER = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Topic:
    """A topic of a bag."""

    name: str
    type: str
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message as it lies in the bag."""

    stamp_ns: int
    """The header's stamp; where the header cannot be read, the time of recording."""
    received_ns: int
    """When it was recorded."""
    type: str
    data: bytes


def is_bag(path: Path) -> bool:
    """Tell a bag by its name: .mcap, .db3, .bag, or a folder with metadata.yaml or such files."""
    if path.is_dir():
        return (path / 'metadata.yaml').is_file() or bool(_storages(path))
    return path.suffix.lower() in (*STORAGE_SUFFIXES, '.bag')


class BagReader:
    """
    A bag, opened: its topics, and their messages and frames in the order of the header stamps.

    Two neighbours that were recorded in the wrong order are put right; a message that comes more
    than ``REORDER`` messages of its topic late stays where it was recorded.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the bag; ``BagError`` says what is wrong with it and where."""
        self.path = Path(path)
        if not self.path.exists():
            raise BagError(f"bag '{self.path}' does not exist")
        paths = [self.path]
        if self.path.is_dir() and not (self.path / 'metadata.yaml').is_file():
            paths = _storages(self.path)
            if not paths:
                raise BagError(
                    f"'{self.path}' is no bag: it holds no metadata.yaml, *.mcap or *.db3"
                )
        try:
            self._reader = AnyReader(paths, default_typestore=get_typestore(Stores.ROS2_JAZZY))
            self._reader.open()
        # damaged files make the parsers beneath fail in many ways (struct, sqlite3, yaml, …)
        except Exception as error:
            raise BagError(f"bag '{self.path}' cannot be read: {_reason(error)}") from error

    def __enter__(self) -> BagReader:
        """Use it in a ``with`` block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files."""
        self.close()

    def close(self) -> None:
        """Close the files."""
        if self._reader.stack is not None:
            self._reader.close()

    @property
    def topics(self) -> list[Topic]:
        """Every topic, by name."""
        return [
            Topic(name=name, type=info.msgtype or 'several types', count=info.msgcount)
            for name, info in sorted(self._reader.topics.items())
        ]

    @property
    def image_topics(self) -> list[Topic]:
        """The topics of camera images, by name."""
        return [topic for topic in self.topics if topic.type in IMAGE_TYPES]

    def image_topic(self, name: str | None = None) -> Topic:
        """
        Return the image topic ``name``, or without a name the only one there is.

        Topics of predictions (``…/nightseg/…``) are not taken unless named. ``BagError`` lists
        what the bag holds where the answer is not plain.
        """
        images = self.image_topics
        if name is not None:
            wanted = '/' + name.strip('/')
            for topic in images:
                if '/' + topic.name.strip('/') == wanted:
                    return topic
            raise BagError(
                f"bag '{self.path}' has no image topic '{name}'; it holds {self._listed()}"
            )
        cameras = [topic for topic in images if '/nightseg/' not in topic.name]
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
        """
        Yield the messages of one topic in the order of their stamps.

        ``BagError`` where the file ends or breaks in the middle; what lies before is yielded.
        """
        connections = [c for c in self._reader.connections if c.topic == topic.name]
        held: list[tuple[int, int, Message]] = []
        failure: BagError | None = None
        iterator = self._raw(connections)
        number = 0
        while True:
            try:
                connection, received, data = next(iterator)
            except StopIteration:
                break
            except Exception as error:
                failure = BagError(
                    f"bag '{self.path}' breaks off after {number} of {topic.count} messages of "
                    f"'{topic.name}': {_reason(error)}"
                )
                failure.__cause__ = error
                break
            message = Message(
                stamp_ns=self._stamp(data, received), received_ns=received,
                type=connection.msgtype, data=bytes(data),
            )  # fmt: skip
            heapq.heappush(held, (message.stamp_ns, number, message))
            number += 1
            if len(held) > REORDER:
                yield heapq.heappop(held)[2]
        while held:
            yield heapq.heappop(held)[2]
        if failure is not None:
            raise failure

    def frames(self, topic: Topic, camera: str | None = None) -> Iterator[Frame | FrameError]:
        """
        Yield each image of a topic as a frame, or as the error that says why it is none.

        A bag that breaks off ends with such an error as well.
        """
        name = camera or camera_of(topic.name)
        try:
            for message in self.messages(topic):
                try:
                    yield self.decode(message, name)
                except FrameError as error:
                    yield error
        except BagError as error:
            yield FrameError(str(error))

    @property
    def is_ros2(self) -> bool:
        """Whether the messages are serialised as ROS 2 does (CDR)."""
        return self._reader.is2

    def read(self, message: Message) -> Any:
        """Return a message's content as attributes; ``BagError`` where it is damaged."""
        try:
            return self._reader.deserialize(message.data, message.type)
        except Exception as error:
            raise BagError(f'a {message.type} cannot be read: {_reason(error)}') from error

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
            image, order = decode_file(bytes(content.data))
        return Frame(
            image=image, order=order, stamp_ns=message.stamp_ns, camera=camera,
            frame_id=str(content.header.frame_id),
        )  # fmt: skip

    def _raw(self, connections: list[Connection]) -> Iterator[tuple[Connection, int, bytes]]:
        # an empty list would mean every topic to the reader
        return iter(self._reader.messages(connections) if connections else ())

    def _stamp(self, data: bytes, received_ns: int) -> int:
        """Read the header's stamp, which comes first in every stamped message."""
        # ROS 1: uint32 seq before it; CDR: 4 bytes of encapsulation, the second tells the endian
        big = self._reader.is2 and len(data) > 1 and data[1] == 0
        if len(data) < 12:
            return received_ns
        seconds, nanoseconds = struct.unpack_from('>iI' if big else '<iI', data, 4)
        if nanoseconds >= 1_000_000_000 or (seconds == 0 and nanoseconds == 0 and received_ns):
            # a driver that leaves its stamps empty; the time of recording is all there is
            return received_ns
        return int(seconds) * 1_000_000_000 + int(nanoseconds)

    def _listed(self) -> str:
        topics = [f'{topic.name} ({topic.type}, {topic.count})' for topic in self.topics]
        return ', '.join(topics) or 'no topic'


def camera_of(topic: str) -> str:
    """Return the camera's name of an image topic: what stands before its last part."""
    parts = topic.strip('/').split('/')
    if parts[-1] == 'compressed':
        parts.pop()
    return '/'.join(parts[:-1]) or 'camera'


def _storages(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix in STORAGE_SUFFIXES)


def _reason(error: BaseException) -> str:
    return f'{error}' or type(error).__name__
