# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg bag predict``: a copy of a bag with the pipeline's results in it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nightseg_ros.cli.options import PipelineOptions, parse

# stands here as well, since what it is made of may not be imported for --help
Output = Literal[
    'labels', 'confidence', 'color', 'overlay', 'overlay/compressed', 'translated',
    'illumination', 'status', 'label_info_json',
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictBagOptions(PipelineOptions):
    """
    Copy BAG to OUT and add what the node would publish for its cameras, computed offline.

    Topics, types, frame ids and stamps are the node's, so that config/nightseg.rviz and
    config/nightseg_foxglove.json show the copy as they show a live vehicle. Exit code 1: some
    frames could not be read; the others are in the copy.
    """

    bag: Annotated[Path, tyro.conf.Positional]
    """Bag of ROS 2 (MCAP, sqlite3) or ROS 1."""
    out: Path
    """Folder of the copy."""
    topic: tuple[str, ...] = ()
    """Image topics; without them all cameras."""
    outputs: tuple[Output, ...] = ()
    """What to add below <camera>/nightseg/; without it what the two layouts show."""
    storage: Literal['mcap', 'sqlite3'] = 'mcap'
    """Kind of the copy's file."""
    compress: bool = True
    """Pack the copy with zstd."""
    force: bool = False
    """Replace the copy if it exists."""


def main(arguments: Sequence[str]) -> int:
    """Run the task."""
    options = parse(PredictBagOptions, 'bag predict', arguments)

    from nightseg_ros.bags.writer import check_bag
    from nightseg_ros.cli.progress import Progress
    from nightseg_ros.data.convert import DEFAULT_OUTPUTS, write_predictions
    from nightseg_ros.perception.pipeline import Pipeline

    check_bag(options.out, [options.bag], force=options.force)
    with Progress('loading the networks', None) as progress:
        pipeline = Pipeline.load(options.pipeline_config(), say=progress.say)
        done = write_predictions(
            options.bag, options.out, pipeline, topics=options.topic,
            outputs=options.outputs or DEFAULT_OUTPUTS, storage=options.storage,
            compress=options.compress, force=options.force,
            progress=lambda count, total: progress.set(count, total, 'predicting'),
        )  # fmt: skip
        for text in done.left_out:
            progress.say(f'not copied: {text}')
        for text in done.problems:
            progress.say(f'skipped: {text}')
    taken = ', '.join(f'{route} {count}' for route, count in done.routes.most_common())
    print(f"{done.frames} frames predicted in '{options.out}'; routes: {taken}")
    if done.problems:
        print('nightseg bag predict: some frames could not be read (see above)', file=sys.stderr)
    return 1 if done.problems else 0
