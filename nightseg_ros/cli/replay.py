# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg replay``: a bag's messages into ROS 2 topics, for those without ``ros2 bag``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from nightseg_ros.cli.options import parse
from nightseg_ros.cli.processes import become


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayOptions:
    """
    Publish the camera images of SOURCE at their own pace, in the ROS domain of this shell.

    With --lockstep each image waits for the labels of the one before it: a running
    night_perception then labels every frame, and exactly as `nightseg predict` does. Exit code 1:
    frames could not be read, or got no labels; 2: it could not play, or nobody listened.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """Bag, video, or folder of pictures."""
    rate: float | None = None
    """Times the recorded speed; 1 if not given, and with --lockstep as fast as labels come."""
    loop: bool = False
    """Start again at the end; the stamps jump back."""
    clock: bool = False
    """Publish the time of the recording on /clock, for nodes with use_sim_time."""
    lockstep: bool = False
    """Send an image only after the labels of the one before it."""
    patience: float = 60.0
    """Seconds to wait for the labels of an image, and at the start for subscribers."""
    topic: tuple[str, ...] = ()
    """Image topics of a bag; without them all cameras."""
    all: bool = False
    """Every topic of the bag, such as the predictions that `nightseg bag predict` added."""
    remap_to: str | None = None
    """Publish the one image topic under this name."""
    labels: str | None = None
    """Labels of the one image topic, with --lockstep; <camera>/nightseg/labels if not given."""
    fps: float | None = None
    """Frames a second of a folder, or of a video instead of its own."""
    stamps: Path | None = None
    """File of the stamps of a folder or video, instead."""
    seconds: float = 0.0
    """Play only this much; 0 plays all."""
    reliable: bool = False
    """Publish images reliably; --lockstep does."""
    wait_subscribers: int = 0
    """Wait until each image topic has so many subscribers; --lockstep waits for one."""


def main(arguments: Sequence[str]) -> int:
    """Run the verb: this process becomes the player."""
    options = parse(ReplayOptions, 'replay', arguments)

    from nightseg_ros.config import ConfigError

    if not options.source.exists():
        raise ConfigError(f"'{options.source}' does not exist")
    if options.rate is not None and not 0 < options.rate < 1e6:
        raise ConfigError(f'--rate must be above 0, got {options.rate}')
    if options.lockstep and options.all:
        raise ConfigError('--lockstep plays images alone: the labels are to come from the node')
    given = [str(options.source.absolute()), '--patience', str(options.patience)]
    for name in ('loop', 'clock', 'lockstep', 'all', 'reliable'):
        given += [f'--{name}'] if getattr(options, name) else []
    for name in ('rate', 'remap_to', 'labels', 'fps', 'stamps', 'seconds', 'wait_subscribers'):
        value = getattr(options, name)
        given += [f'--{name.replace("_", "-")}', str(value)] if value else []
    given += ['--topic', *options.topic] if options.topic else []
    become('nightseg_ros.node.replay', given)
