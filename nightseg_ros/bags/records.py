# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What the file of a bag holds, in the order in which a reader comes across it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rosbags.interfaces import Qos
from rosbags.rosbag2.metadata import parse_qos


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
