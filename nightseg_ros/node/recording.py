# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What a player publishes: the messages of a recording in the order of their stamps."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nightseg_ros.bags.errors import BagError
from nightseg_ros.bags.reader import IMAGE_TYPES, BagReader, Topic, is_bag
from nightseg_ros.data.source import FrameSource, open_source
from nightseg_ros.perception.frame import Frame, FrameError


@dataclass(frozen=True, kw_only=True, slots=True)
class Outgoing:
    """One message to publish: as it was serialised, or as a frame."""

    stamp_ns: int
    topic: str
    type: str
    content: bytes | Frame


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """The image topics of a bag with their types, or a video or folder as one topic."""

    path: Path
    topics: dict[str, str]
    """Type by topic."""
    source: FrameSource | None
    """Where frames come from that are no serialised ROS 2 messages."""

    def play(self, say: Callable[[str], None]) -> Iterator[Outgoing]:
        """Yield the messages in the order of their stamps; ``say`` hears what is skipped."""
        if self.source is None:
            yield from self._serialised()
            return
        [topic] = self.topics
        for stem, frame in self.source:
            if isinstance(frame, FrameError):
                say(f'{stem} skipped: {frame}')
                continue
            yield Outgoing(
                stamp_ns=frame.stamp_ns, topic=topic, type=IMAGE_TYPES[0], content=frame
            )

    def _serialised(self) -> Iterator[Outgoing]:
        with BagReader(self.path) as bag:
            streams = [_stream(bag, t) for t in bag.image_topics if t.name in self.topics]
            yield from heapq.merge(*streams, key=lambda item: item.stamp_ns)


def _stream(bag: BagReader, topic: Topic) -> Iterator[Outgoing]:
    for message in bag.messages(topic):
        yield Outgoing(
            stamp_ns=message.stamp_ns,
            topic=topic.name,
            type=message.type,
            content=message.data,
        )


def open_recording(path: Path, topic: str | None, rate: float | None = None) -> Recording:
    """
    Open a bag, video or folder for a player.

    Without ``topic`` all of a bag's camera topics are played, without those of predictions and
    labels. A video or folder becomes ``camera/image_raw``, ``rate`` being its frames a second.
    """
    if not path.exists() or not is_bag(path):
        source = open_source(path, topic, rate=rate)
        return Recording(path=path, topics={'camera/image_raw': IMAGE_TYPES[0]}, source=source)
    with BagReader(path) as bag:
        if topic is not None:
            chosen = [bag.image_topic(topic)]
        else:
            chosen = [
                t
                for t in bag.image_topics
                if '/nightseg/' not in t.name and not t.name.rpartition('/')[2].startswith('label')
            ]
            if len(chosen) < 1:
                chosen = [bag.image_topic(None)]
        if bag.is_ros2:
            return Recording(path=path, topics={t.name: t.type for t in chosen}, source=None)
    if len(chosen) > 1:
        names = ', '.join(t.name for t in chosen)
        raise BagError(f"'{path}' is a ROS 1 bag of {names}; play one of them with --topic")
    source = open_source(path, chosen[0].name)
    return Recording(path=path, topics={chosen[0].name: IMAGE_TYPES[0]}, source=source)
