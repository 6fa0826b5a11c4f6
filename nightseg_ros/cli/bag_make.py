# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg bag make``: a video or a folder of pictures becomes a bag."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nightseg_ros.cli.options import parse


@dataclass(frozen=True, kw_only=True, slots=True)
class MakeOptions:
    """
    Write the pictures of SOURCE into the bag OUT, for evaluate, replay, RViz and Foxglove.

    Without --stamps the first picture gets the stamp 1000000000 s. Exit code 1: some pictures
    could not be read; the others are in the bag.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """Video, folder of pictures, or one picture."""
    out: Path
    """Folder of the bag."""
    rate: float | None = None
    """Frames a second; 10 for a folder, a video's own."""
    stamps: Path | None = None
    """File of lines STAMP or STAMP NAME; seconds with a point, or whole nanoseconds."""
    labels: Path | None = None
    """Folder of PNGs of ids, named as the pictures (a video's: 000000.png); they go to
    labels_truth beside the images."""
    topic: str = '/camera/image_raw'
    """Image topic; png and jpeg go to TOPIC/compressed."""
    frame_id: str = 'camera'
    """frame_id of the headers."""
    format: Literal['raw', 'png', 'jpeg'] = 'raw'
    """raw and png keep every pixel; jpeg is smaller and does not."""
    storage: Literal['mcap', 'sqlite3'] = 'mcap'
    """Kind of the bag's file."""
    compress: bool = False
    """Pack the bag with zstd."""
    force: bool = False
    """Replace the bag if it exists."""


def main(arguments: Sequence[str]) -> int:
    """Run the task."""
    options = parse(MakeOptions, 'bag make', arguments)

    from nightseg_ros.cli.progress import Progress
    from nightseg_ros.config import ConfigError
    from nightseg_ros.data.convert import make_bag
    from nightseg_ros.data.source import open_source

    source = open_source(options.source, rate=options.rate, stamps=options.stamps)
    if source.kind == 'bag':
        raise ConfigError(f"'{options.source}' is a bag; `nightseg bag predict` copies bags")
    with Progress('writing', source.count) as progress:
        made = make_bag(
            source, options.out, topic=options.topic, frame_id=options.frame_id,
            format=options.format, labels=options.labels, storage=options.storage,
            compress=options.compress, force=options.force, progress=progress.set,
        )  # fmt: skip
        for problem in made.problems:
            progress.say(f'left out: {problem}')
    labelled = f', {made.labelled} with labels' if options.labels is not None else ''
    print(f"{made.frames} frames{labelled} in '{options.out}'")
    if made.problems:
        print(
            f'nightseg bag make: {len(made.problems)} pictures could not be read (see above)',
            file=sys.stderr,
        )
    return 1 if made.problems else 0
