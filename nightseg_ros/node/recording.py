# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What a player publishes: the messages of a recording in the order of their stamps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nightseg_ros.bags.reader import IMAGE_TYPES, BagReader, is_bag
from nightseg_ros.data.source import FrameSource, camera_names, open_source
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
    """Topics of a bag with their types, or a video or folder as one topic."""

    path: Path
    topics: dict[str, str]
    """Type by topic."""
    source: FrameSource | None
    """Where frames come from that are no serialised ROS 2 messages."""
    latched: frozenset[str] = frozenset()
    """Topics that late subscribers are to get as well, as when they were recorded."""

    def play(self, say: Callable[[str], None]) -> Iterator[Outgoing]:
        """Yield the messages in the order of their stamps; ``say`` hears what is skipped."""
        if self.source is None:
            yield from self._serialised(say)
            return
        names = {camera: topic for topic, camera in camera_names(self.source.topics).items()}
        [*_, only] = self.topics
        for stem, frame in self.source:
            if isinstance(frame, FrameError):
                say(f'{stem} skipped: {frame}')
                continue
            yield Outgoing(
                stamp_ns=frame.stamp_ns, topic=names.get(frame.camera, only),
                type=IMAGE_TYPES[0], content=frame,
            )  # fmt: skip

    def _serialised(self, say: Callable[[str], None]) -> Iterator[Outgoing]:
        with BagReader(self.path) as bag:
            topics = [topic for topic in bag.topics if topic.name in self.topics]
            for topic, message in bag.merged(topics):
                yield Outgoing(
                    stamp_ns=message.stamp_ns, topic=topic.name, type=message.type,
                    content=message.data,
                )  # fmt: skip
            loss = bag.loss(topics)
            if loss is not None:
                say(str(loss))


def open_recording(
    path: Path,
    topics: str | Sequence[str] | None = None,
    rate: float | None = None,
    *,
    stamps: Path | None = None,
    everything: bool = False,
    also: Collection[str] = (),
) -> Recording:
    """
    Open a bag, video or folder for a player.

    Without ``topics`` all of a bag's camera topics are played, without those of predictions and
    labels; with ``everything`` each topic of a ROS 2 bag. ``also`` are topics of any type beside
    them. A video or folder becomes
    ``camera/image_raw``, ``rate`` being its frames a second and ``stamps`` a file of them.
    """
    wanted = [topics] if isinstance(topics, str) else list(topics or ())
    if not path.exists() or not is_bag(path):
        source = open_source(path, wanted[0] if wanted else None, rate=rate, stamps=stamps)
        return Recording(path=path, topics={'camera/image_raw': IMAGE_TYPES[0]}, source=source)
    with BagReader(path) as bag:
        if everything:
            chosen = [topic for topic in bag.topics if '/msg/' in topic.type]
        elif wanted:
            chosen = [bag.image_topic(name) for name in wanted]
        else:
            chosen = bag.camera_topics or [bag.image_topic(None)]
        chosen += [topic for topic in bag.topics if topic.name in also and topic not in chosen]
        if bag.is_ros2:
            names = {topic.name: topic.type for topic in chosen}
            latched = bag.latched_topics & names.keys()
            return Recording(path=path, topics=names, source=None, latched=frozenset(latched))
    source = open_source(path, wanted[0] if len(wanted) == 1 else None, every_camera=not wanted)
    return Recording(path=path, topics=dict.fromkeys(source.topics, IMAGE_TYPES[0]), source=source)
