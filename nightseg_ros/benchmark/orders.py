# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What a probe process is told to do, as JSON; see ``node/bench_probe.py``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nightseg_ros.config import from_mapping


@dataclass(frozen=True, kw_only=True, slots=True)
class Turns:
    """Contenders take turns, round by round, each as fast as its answers come."""

    name: str
    contenders: dict[str, tuple[str, ...]]
    """Cameras, by the name of the contender that serves them; they are sent a frame each."""
    rounds: int
    frames: int = 1
    """Frames of each camera that are answered in a turn."""
    window: int = 1
    """Frames of a camera that may be on their way at once."""
    topics: tuple[str, ...] = ('labels', 'status')
    """What is subscribed to, below each camera's namespace."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Paced:
    """Frames at the pace of a camera, whether answers come or not."""

    name: str
    cameras: tuple[str, ...]
    rate: float
    """Frames a second."""
    seconds: float
    topics: tuple[str, ...] = ('labels', 'status')


@dataclass(frozen=True, kw_only=True, slots=True)
class Orders:
    """Everything a probe does, in this order: the first answers, the turns, the paced phases."""

    cameras: tuple[str, ...]
    """Namespaces; images go to ``<camera>/image_raw``, labels come from the node's topic."""
    frames: str = ''
    """``.npy`` file of uint8 [N, H, W, 3] RGB, sent one after the other."""
    result: str = ''
    """JSON file to write."""
    pids: dict[str, int] = field(default_factory=dict)
    """Processes to watch, by name."""
    patience: float = 60.0
    """Seconds for the first answer of every camera; each later one gets a tenth."""
    turns: tuple[Turns, ...] = ()
    paced: tuple[Paced, ...] = ()

    def write(self, path: Path) -> None:
        """Write JSON."""
        path.write_text(json.dumps(asdict(self)), encoding='utf-8')

    @classmethod
    def read(cls, path: Path) -> Orders:
        """Read what ``write`` wrote; ``ConfigError`` names what is wrong in it."""
        return from_mapping(cls, json.loads(path.read_text(encoding='utf-8')))
