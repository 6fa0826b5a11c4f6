# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Read the topics of ROS 2 (MCAP, sqlite3) and ROS 1 bags, images as frames, without ROS."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
import heapq
from itertools import chain, islice
from operator import itemgetter
import os
from pathlib import Path
from typing import Any

from nightseg_ros.bags.storage import (
    Channel,
    count_file,
    Message,
    PACKED,
    read_file,
    ROS1_SUFFIXES,
    storage_kind,
    typestore,
    VIDEO_TYPES,
)
from nightseg_ros.config import did_you_mean, load_yaml
from nightseg_ros.files import LOG, natural_order, read_text
from nightseg_ros.perception.frame import (
    BitDepth,
    decode_file,
    decode_raw,
    ENCODINGS,
    Frame,
    FrameError,
    is_depth,
    PICTURES,
    video_codec,
)
from nightseg_ros.perception.result import base_topic, is_output
from nightseg_ros.perception.video import PacketDecoder, SET_BACK_NS
from rosbags.interfaces import QosDurability
from rosbags.rosbag2.metadata import parse_qos

METADATA = 'metadata.yaml'
IMAGE_TYPES = ('sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage')
_IMAGES = (*IMAGE_TYPES, *VIDEO_TYPES)
#: Messages of a topic that are held back to put neighbours in the order of their stamps.
REORDER = 8
#: Messages of a topic that are looked at to tell whether it is a camera.
_LOOKED_AT = 3
#: How errors end that cost no message.
HARMLESS = ('is read instead', 'the files are read without')


class BagError(ValueError):
    """A bag that cannot be read or written; the message names the file, the topic and the fix."""


class BagReadError(FrameError):
    """What a damaged bag did not give: the one last item of its frames, for any number of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BagTopic:
    """A topic of a bag."""

    name: str
    msgtype: str
    count: int
    """Messages that were recorded, as far as the bag still knows."""
    encoding: str = 'cdr'
    """How they are serialised; 'ros1' in bags of ROS 1, others in MCAP files of other origin."""

    @property
    def kind(self) -> str:
        """Return the type, with how it is serialised where it is none of ROS."""
        own = self.encoding in ('', 'cdr', 'ros1')
        return self.msgtype if own else f'{self.msgtype} as {self.encoding}'

    def __str__(self) -> str:
        """Return it as lists of topics have it."""
        return f'{self.name} ({self.kind}, {self.count})'


def camera_of(topic: str) -> str:
    """Return the camera's name of an image topic: what stands before its last part."""
    return base_topic(topic).strip('/').rpartition('/')[0] or 'camera'


def is_video(message: Message, content: Any) -> bool:
    """Tell a packet of video; some drivers put H.264 into a CompressedImage."""
    kind = message.channel.msgtype
    return kind in VIDEO_TYPES or (kind == IMAGE_TYPES[1] and bool(video_codec(content.format)))


class BagReader:
    """
    A bag: its topics, and their messages and frames in the order of recording.

    Stamps are trusted only to put right two neighbours of a topic that were recorded in the wrong
    order; a message that comes more than ``REORDER`` messages of its topic late, or whose clock
    was set in between, stays where it was recorded. Memory does not grow with the bag. A damaged
    bag gives every message that can be read; ``read_errors`` says what it did not give, as soon as
    the messages have been read.
    """

    def __init__(self, path: str | Path) -> None:
        """
        Look at the bag; ``BagError`` where it is none, or nothing of it can be read.

        A damaged file without a metadata.yaml is read once as a whole to learn its topics.
        """
        self.path = Path(path)
        self._files, counts, errors = _open(self.path)
        #: An ordered set: several passes meet the same error.
        self._errors: dict[str, None] = dict.fromkeys(errors)
        self._given: Counter[str] = Counter()
        self._promised = counts is not None
        if counts is None:
            counts = Counter()
            for file in self._files:
                found, errors = count_file(file)
                counts.update(found)
                self._errors.update(dict.fromkeys(errors))
        #: Every topic, by name.
        self.topics = _topics(counts)
        if not self.topics and self._errors:
            raise BagError(f"bag '{self.path}' cannot be read: {'; '.join(self._errors)}")
        #: Names of the topics whose publishers kept the last message for late subscribers.
        self.latched_topics = {
            channel.topic
            for channel in counts
            if any(qos.durability is QosDurability.TRANSIENT_LOCAL for qos in channel.qos)
        }
        #: Whether it is of ROS 2; topics of ROS 1 may lie in it.
        self.is_ros2 = {channel.encoding for channel in counts} != {'ros1'}
        self._channels = tuple(counts)

    def __enter__(self) -> BagReader:
        """Use it in a ``with`` block; files are open only while their messages are being read."""
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the block."""

    @property
    def image_topics(self) -> list[BagTopic]:
        """Return the topics of images, by name."""
        return [topic for topic in self.topics if topic.msgtype in _IMAGES]

    @property
    def camera_topics(self) -> list[BagTopic]:
        """Return the topics of camera images, by name; ``other_images`` has the others."""
        return [topic for topic in self.image_topics if topic.name not in self.other_images]

    @cached_property
    def other_images(self) -> dict[str, str]:
        """
        Why image topics are not those of cameras, by name.

        They are predictions (``…/nightseg/…``), labels (``label…``), topics without a message or
        of what is no picture, such as depth, and the packed twins of raw images.
        """
        others: dict[str, str] = {}
        names = {topic.name for topic in self.image_topics}
        # a raw topic comes before its twins
        for topic in self.image_topics:
            raw = base_topic(topic.name)
            reason = (
                ('made by nightseg' if is_output(topic.name) else '')
                or ('labels' if raw.rpartition('/')[2].startswith('label') else '')
                or ('depth' if topic.name.endswith('/compressedDepth') else '')
                or self._no_camera(topic)
                or ('recorded raw as well' if raw in names - {topic.name} - others.keys() else '')
            )
            if reason:
                others[topic.name] = reason
        return others

    def _no_camera(self, topic: BagTopic) -> str:
        """Return what the first messages of a topic say that it is instead, '' for a camera."""
        if not topic.count and self._promised:
            return 'without a message'
        items = chain.from_iterable(read_file(file, (topic.name,)) for file in self._files)
        # damage is told by those who read the topic
        messages = (item for item in items if not isinstance(item, str))
        reasons = map(self._no_picture, islice(messages, _LOOKED_AT))
        first = next(reasons, '')
        return first if first and all(reasons) else ''

    def _no_picture(self, message: Message) -> str:
        """Return what an image message holds instead of a picture, '' for a (damaged) picture."""
        if message.channel.encoding not in ('cdr', 'ros1'):
            return f"serialised as '{message.channel.encoding}'"
        try:
            content = self.read(message)
        except BagError:
            return ''
        if message.channel.msgtype == IMAGE_TYPES[0]:
            return '' if content.encoding in ENCODINGS else str(content.encoding)
        if is_video(message, content):
            return ''
        begin = bytes(content.data[:8])
        good = not begin or (begin.startswith(PICTURES) and not is_depth(content.format))
        return '' if good else f"format '{content.format}'"

    def camera_topic(self, name: str | None = None) -> BagTopic:
        """
        Return the image topic ``name``, or without a name the only camera's.

        ``BagError`` says as well where it holds no pictures: depth, nothing, or masks.
        """
        topic = self.image_topic(name)
        masks = topic.name.endswith(('/nightseg/labels', '/nightseg/confidence'))
        reason = self._no_camera(topic) or ('a mask of nightseg' if masks else '')
        if reason:
            cameras = ', '.join(t.name for t in self.camera_topics if t is not topic) or 'none'
            raise BagError(
                f"bag '{self.path}': '{topic.name}' is no camera: {reason}; cameras: {cameras}"
            )
        return topic

    def image_topic(self, name: str | None = None) -> BagTopic:
        """
        Return the image topic ``name``, or without a name the only camera's.

        ``BagError`` lists what the bag holds where the answer is not plain.
        """
        if name is not None:
            wanted = name.strip('/')
            found = [topic for topic in self.image_topics if topic.name.strip('/') == wanted]
            problem = f"no image topic '{name}'"
        else:
            found = self.camera_topics
            problem = 'several image topics' if found else 'no image topic'
            problem += '; name one with --topic'
            if len(found) != 1:
                found = [t for t in found if t.name.rpartition('/')[2].startswith('image')]
        if len(found) != 1:
            listed = ', '.join(map(str, self.topics)) or 'no topic'
            others = '' if name is not None else self.others_text()
            others = f'; {others}' if others else ''
            near = did_you_mean(name or '', [topic.name for topic in self.image_topics])
            raise BagError(f"bag '{self.path}' has {problem}. It holds {listed}{others}{near}")
        return found[0]

    def others_text(self) -> str:
        """Return ``other_images`` in words, '' for none."""
        listed = ', '.join(f'{name} ({reason})' for name, reason in self.other_images.items())
        return listed and f'no cameras: {listed}'

    def messages(self, topic: BagTopic) -> Iterator[Message]:
        """Yield one topic's messages, neighbours in the order of their stamps; video as it is."""
        held: list[tuple[int, int, Message]] = []
        last_ns = most = 0
        self._given[topic.name] = 0
        for number, message in enumerate(self._read((topic.name,))):
            self._given[topic.name] += 1
            if not number:
                most = 0 if self._is_packet(message) else REORDER
            # stamps of before and after have no order
            set_back = message.stamp_ns < last_ns - SET_BACK_NS
            last_ns = message.stamp_ns
            while held and (set_back or len(held) > most):
                yield heapq.heappop(held)[2]
            heapq.heappush(held, (message.stamp_ns, number, message))
        while held:
            yield heapq.heappop(held)[2]

    def _is_packet(self, message: Message) -> bool:
        try:
            return is_video(message, self.read(message))
        except BagError:
            return message.channel.msgtype in VIDEO_TYPES

    def _timed(self, topic: BagTopic) -> Iterator[tuple[int, BagTopic, Message]]:
        """Yield a topic's messages and a time of recording that never goes far back."""
        last_ns = period_ns = set_back_ns = 0
        for message in self.messages(topic):
            step = message.received_ns - (last_ns or message.received_ns)
            if step < -SET_BACK_NS:
                set_back_ns += period_ns - step
            else:
                period_ns = step
            last_ns = message.received_ns
            yield last_ns + set_back_ns, topic, message

    def empty_channels(self, leave_out: Collection[str] = ()) -> list[Channel]:
        """Return the topics without a message but some, as their files describe them."""
        empty = {topic.name for topic in self.topics if not topic.count} - set(leave_out)
        channels = [*self._channels]
        for file in self._files if empty else ():
            channels += count_file(file)[0]
        return [*{item.topic: item for item in channels if item.topic in empty}.values()]

    def records(self, leave_out: Collection[str] = ()) -> Iterator[Message]:
        """Yield every message of every topic but some, as and in the order they were recorded."""
        yield from self._read({topic.name for topic in self.topics} - set(leave_out))

    def frames(self, topic: BagTopic) -> Iterator[Frame | FrameError]:
        """
        Yield each image of a topic as a frame, or as the error that says why it is none.

        The last item of a damaged bag is a ``BagReadError``.
        """
        for *_, frame in self.merged_frames([topic]):
            yield frame
        unread = self.read_error([topic])
        if unread is not None:
            yield unread

    def merged_frames(
        self, topics: Iterable[BagTopic], camera: Callable[[str], str] = camera_of
    ) -> Iterator[tuple[BagTopic, Message, Frame | FrameError]]:
        """
        Yield the images of several topics as frames or errors, by the time of recording.

        Stamps of different clocks have no order. ``camera`` names the camera of a topic. Packets
        of video that give no picture are left out and told once.
        """
        for topic, message, content in self.merged_contents(topics, camera):
            if not isinstance(content, Message):
                yield topic, message, content

    def merged_contents(
        self,
        topics: Iterable[BagTopic],
        camera: Callable[[str], str] = camera_of,
        plain: Collection[BagTopic] = (),
    ) -> Iterator[tuple[BagTopic, Message, Message | Frame | FrameError]]:
        """Yield, among the frames of ``merged_frames``, messages of other topics as they are."""
        topics = [*topics]
        names = {topic.name: camera(topic.name) for topic in topics}
        states = {topic: (PacketDecoder(name), BitDepth()) for topic, name in names.items()}
        without: Counter[str] = Counter()
        # each is read on its own: any distance between them in the file is fine; of equal times
        # the one of the earlier stream comes first
        streams = map(self._timed, [*plain, *topics])
        for _, topic, message in heapq.merge(*streams, key=itemgetter(0)):
            if topic.name not in states:
                yield topic, message, message
                continue
            frame = self._frame(message, names[topic.name], *states[topic.name])
            if frame is None:
                without[topic.name] += 1
            else:
                yield topic, message, frame
        for name, count in without.items():
            LOG.warning(
                "%s of '%s': %d of %d packets give no picture: those before the first key frame, "
                'behind a lost packet, or still in the decoder at the end',
                name, self.path, count, self._given[name],
            )  # fmt: skip

    def read_error(self, topics: Iterable[BagTopic]) -> BagReadError | None:
        """Return what topics that have been read to their end did not give, None for nothing."""
        promised = given = 0
        for topic in topics:
            promised += topic.count
            given += self._given[topic.name]
        if given >= promised and (self._promised or not self._errors):
            return None
        about = 'about ' if self._errors else ''
        counts = f'{given} of {about}{promised}' if given < promised else f'{given}'
        reason = '; '.join(self._errors) or 'the rest is not where the bag says'
        return BagReadError(f"bag '{self.path}': {counts} messages read; {reason}")

    def read_errors(self) -> list[str]:
        """Return what could not be read so far, in words."""
        return list(self._errors)

    def read(self, message: Message) -> Any:
        """Return a message's content as attributes; ``BagError`` where it is damaged."""
        kind, encoding = message.channel.msgtype, message.channel.encoding
        if encoding not in ('cdr', 'ros1'):
            raise BagError(f"a {kind} is serialised as '{encoding}'; only 'cdr' is read")
        types = typestore(encoding)
        deserialize = types.deserialize_ros1 if encoding == 'ros1' else types.deserialize_cdr
        try:
            return deserialize(message.data, kind)
        # damaged bytes make the parser beneath fail in many ways
        except Exception as error:
            raise BagError(
                f'a {kind} cannot be read: {str(error) or type(error).__name__}'
            ) from error

    def _frame(
        self, message: Message, camera: str, decoder: PacketDecoder, depth: BitDepth
    ) -> Frame | FrameError | None:
        """Return an image as a frame or an error, None for a packet that gives no picture."""
        try:
            content = self.read(message)
            if is_video(message, content):
                return decoder.decode(content)
            if message.channel.msgtype == IMAGE_TYPES[0]:
                image, order = decode_raw(
                    content.data, encoding=content.encoding, width=content.width,
                    height=content.height, step=content.step,
                    is_bigendian=bool(content.is_bigendian), depth=depth,
                )  # fmt: skip
            else:
                image, order = decode_file(bytes(content.data), str(content.format), depth=depth)
        except FrameError as error:
            return error
        # VideoError is one
        except ValueError as error:
            return FrameError(str(error))
        return Frame(
            image=image, order=order, stamp_ns=message.stamp_ns, camera=camera,
            frame_id=str(content.header.frame_id),
        )  # fmt: skip

    def _read(self, topics: Collection[str]) -> Iterator[Message]:
        for file in self._files:
            for item in read_file(file, topics):
                if isinstance(item, str):
                    self._errors[item] = None
                else:
                    yield item


def _topics(counts: dict[Channel, int]) -> list[BagTopic]:
    topics: dict[str, BagTopic] = {}
    for channel, count in counts.items():
        name, kind = channel.topic, channel.msgtype
        before = topics.get(name, BagTopic(name=name, msgtype=kind, count=0))
        if before.msgtype != kind:
            kind = 'several types'
        count += before.count
        topics[name] = BagTopic(name=name, msgtype=kind, count=count, encoding=channel.encoding)
    return [topics[name] for name in sorted(topics)]


def inspect_bag(
    bag: BagReader, *, thorough: bool
) -> tuple[list[tuple[BagTopic, int, int]], list[str]]:
    """
    Return each topic, how many of its messages were read and how many of these are no image.

    Beside them, in words, what cannot be read. ``thorough`` reads every message.
    """
    topics, errors = [], []
    for topic in bag.topics:
        undecodable = 0
        # depth and the like are read, but are no pictures
        if thorough and topic in bag.image_topics and not bag._no_camera(topic):
            found = bag.merged_frames([topic])
            undecodable = sum(isinstance(frame, FrameError) for *_, frame in found)
        elif thorough:
            deque(bag.messages(topic), maxlen=0)
        read = bag._given[topic.name]
        topics.append((topic, read, undecodable))
        if thorough and read < topic.count:
            errors.append(f"'{topic.name}': {read} of {topic.count} messages read")
        if undecodable:
            errors.append(f"'{topic.name}': {undecodable} images cannot be decoded")
    return topics, errors + bag.read_errors()


# -- the files of a bag ----------------------------------------------------------------------


def is_bag(path: Path) -> bool:
    """Tell a bag by its name: .mcap, .db3, .bag, or a folder with metadata.yaml or such files."""
    if path.is_dir():
        return (path / METADATA).is_file() or bool(_files(path))
    return bool(storage_kind(path))


def _open(path: Path) -> tuple[list[Path], Counter[Channel] | None, list[str]]:
    """
    Return the files of a bag in the order of recording, and what is wrong with the folder.

    Between them, the messages by topic as metadata.yaml counts them, None without a readable one.
    """
    if not path.exists():
        raise BagError(f"bag '{path}' does not exist")
    if not path.is_dir():
        if not storage_kind(path):
            raise BagError(f"'{path}' is no bag: its name ends in none of .mcap, .db3, .bag")
        return [path], None, []
    found = _files(path)
    metadata = path / METADATA
    if not metadata.is_file():
        if not found:
            raise BagError(f"'{path}' is no bag: it holds no {METADATA}, *.mcap or *.db3")
        return found, None, []
    try:
        names, promised = _read_metadata(metadata)
    # YAML of any shape may stand there
    except Exception as error:
        if not found:
            raise BagError(f"'{metadata}' cannot be read, and no file beside it") from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return found, None, [f'{METADATA} cannot be read ({reason}); the files are read without']
    files, missing = [], []
    for name in names:
        # somebody may have unpacked or packed it since
        stem = name.removesuffix('.zstd')
        variants = [path / name, path / stem, *(path / f'{stem}{suffix}' for suffix in PACKED)]
        # of a name that is as long as can be, a variant may be too long
        lying = [file for file in variants if storage_kind(file) and os.path.isfile(file)]
        files += lying[:1]
        missing += [] if lying else [f'{name} is missing']
    if missing and found and not files:
        # somebody gave them names of their own
        read = ', '.join(file.name for file in found)
        rest = ' instead' if len(found) >= len(names) else ', which may not be all'
        return found, promised, [f'{"; ".join(missing)}, {read} is read{rest}']
    # a recorder that was killed may have counted nothing yet
    return files, promised if any(promised.values()) else None, missing


def _read_metadata(file: Path) -> tuple[list[str], Counter[Channel]]:
    content: dict[str, Any] = load_yaml(read_text(file), aliases=True)
    information = content['rosbag2_bagfile_information']
    counts: Counter[Channel] = Counter()
    for entry in information['topics_with_message_count']:
        topic = entry['topic_metadata']
        channel = Channel(
            topic=str(topic['name']), msgtype=str(topic['type']),
            encoding=str(topic.get('serialization_format') or 'cdr'),
            qos=tuple(parse_qos(topic.get('offered_qos_profiles') or [])),
        )  # fmt: skip
        counts[channel] += int(entry['message_count'])
    # older versions wrote the bag's folder before the name
    return [Path(name).name for name in information['relative_file_paths']], counts


def _files(folder: Path) -> list[Path]:
    """Return the files of a ROS 2 bag by their numbers: drive_2 comes before drive_10."""
    paths = sorted(filter(Path.is_file, folder.iterdir()), key=natural_order)
    names = {path.name for path in paths}
    return [
        path
        for path in paths
        if storage_kind(path) not in ('', *ROS1_SUFFIXES)
        # macOS puts ._NAME beside each file of a disk that is not its own
        and not path.name.startswith('._')
        # a packed file beside its unpacked twin would be read twice
        and not (path.suffix in PACKED and path.stem in names)
    ]
