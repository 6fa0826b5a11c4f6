# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg paint``: a copy of a bag with labels on the points of its clouds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nightseg_ros.cli.options import parse


@dataclass(frozen=True, kw_only=True, slots=True)
class PaintOptions:
    """
    Copy BAG to OUT and add what the node semantic_cloud would publish for its clouds.

    The bag holds labels, as `nightseg bag predict` puts them in, camera_info of their cameras, and
    the places of the sensors on /tf_static or in --transforms. Exit code 1: some messages could
    not be used; the others are in the copy.
    """

    bag: Annotated[Path, tyro.conf.Positional]
    """Bag of ROS 2 with <camera>/nightseg/labels in it."""
    out: Path
    """Folder of the copy."""
    sensors: tuple[str, ...] = ()
    """Topics of clouds; without them all of the bag."""
    depth: tuple[str, ...] = ()
    """Registered depth images as CAMERA=TOPIC."""
    transforms: tuple[str, ...] = ()
    """Places beside /tf_static: "PARENT CHILD X Y Z ROLL PITCH YAW" or "… QX QY QZ QW"."""
    odometry: str = ''
    """Topic of poses (Odometry, PoseStamped), to make good the motion between mask and cloud."""
    base_frame: str = 'base_link'
    """What the poses are those of."""
    pair_limit: float = 0.1
    """Seconds by which the stamps of mask and cloud may differ."""
    rectified: bool = False
    """The labels are of rectified images."""
    occlusion_cell: float = 4.0
    """Side of a cell of the z-buffer in pixels of the labels; 0 hides nothing."""
    occlusion_clearance: float = 0.75
    """Surfaces that pass a camera closer than this (m) may hide parts of themselves."""
    storage: Literal['mcap', 'sqlite3'] = 'mcap'
    """Kind of the copy's file."""
    compress: bool = True
    """Pack the copy with zstd."""
    force: bool = False
    """Replace the copy if it exists."""


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    options = parse(PaintOptions, 'paint', arguments)

    from nightseg_ros.bags.writer import check_bag
    from nightseg_ros.cli.progress import Progress
    from nightseg_ros.clouds.painter import Occlusion
    from nightseg_ros.config import ConfigError
    from nightseg_ros.data.convert import PaintSettings, write_painted

    check_bag(options.out, [options.bag], force=options.force)
    pairs = [text.partition('=') for text in options.depth]
    if any(not camera or not topic for camera, _, topic in pairs):
        raise ConfigError(f'--depth takes CAMERA=TOPIC, got {" ".join(options.depth)}')
    try:
        occlusion = Occlusion(cell=options.occlusion_cell, clearance=options.occlusion_clearance)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    settings = PaintSettings(
        sensors=options.sensors, depth={camera.strip('/'): topic for camera, _, topic in pairs},
        transforms=options.transforms, odometry=options.odometry, base_frame=options.base_frame,
        pair_limit=options.pair_limit, rectified=options.rectified, occlusion=occlusion,
    )  # fmt: skip
    with Progress('painting', None) as progress:
        done = write_painted(
            options.bag, options.out, settings, storage=options.storage,
            compress=options.compress, force=options.force,
            progress=lambda count, total: progress.set(count, total),
        )  # fmt: skip
        for text in done.problems[:20]:
            progress.say(f'not used: {text}')
    share = done.labelled / max(done.points, 1)
    print(
        f"{done.clouds} clouds of {done.points} points in '{options.out}', {share:.0%} of the "
        'points labelled'
    )
    for reason, count in sorted(done.misses.items()):
        print(f'{reason}: {count} of {done.clouds} clouds')
    if done.problems:
        print(
            f'nightseg paint: {len(done.problems)} messages could not be used (see above)',
            file=sys.stderr,
        )
    return 1 if done.problems else 0
