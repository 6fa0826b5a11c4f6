# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What a bag holds, and what of it can be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nightseg_ros.bags.reader import IMAGE_TYPES, BagReader
from nightseg_ros.perception.frame import FrameError


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
