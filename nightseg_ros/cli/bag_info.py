# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg bag info``: what a bag holds, and what of it can be read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from nightseg_ros.cli.options import parse


@dataclass(frozen=True, kw_only=True, slots=True)
class InfoOptions:
    """List the topics of BAG; with --check read every message and say what is lost (exit 1)."""

    bag: Annotated[Path, tyro.conf.Positional]
    """Bag of ROS 2 (MCAP, sqlite3) or ROS 1, whole or damaged."""
    check: bool = False
    """Read every message, and decode every image."""


def main(arguments: Sequence[str]) -> int:
    """Run the task."""
    options = parse(InfoOptions, 'bag info', arguments)

    from nightseg_ros.bags.reader import check_bag

    checked = check_bag(options.bag, thorough=options.check)
    width = max((len(topic.name) for topic in checked.topics), default=0)
    for topic in checked.topics:
        counts = f'{topic.recorded:8} recorded'
        if options.check:
            counts += f' {topic.read:8} read'
            counts += f' {topic.undecodable} undecodable' if topic.undecodable else ''
        print(f'{topic.name:{width}} {counts}  {topic.type}')
    for loss in checked.losses:
        print(f'nightseg bag info: {loss}', file=sys.stderr)
    return 1 if checked.losses else 0
