# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg bag``: make bags, put predictions into them, and look at damaged ones."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

#: Sub-verb: its module, and a line of help.
TASKS = {
    'make': ('nightseg_ros.cli.bag_make', 'a video or a folder of pictures in, a bag out'),
    'predict': (
        'nightseg_ros.cli.bag_predict',
        'a copy of a bag with labels, overlay and status, for RViz and Foxglove',
    ),
    'info': ('nightseg_ros.cli.bag_info', 'topics, and what of a damaged bag can be read'),
}


def main(arguments: Sequence[str]) -> int:
    """Run one task."""
    if not arguments or arguments[0] in ('-h', '--help'):
        print(_help())
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in TASKS:
        print(
            f"nightseg bag: there is no task '{name}'; tasks: {', '.join(TASKS)}", file=sys.stderr
        )
        return 2
    return int(importlib.import_module(TASKS[name][0]).main(rest))


def _help() -> str:
    width = max(map(len, TASKS)) + 2
    lines = [f'  {name:{width}}{text}' for name, (_, text) in TASKS.items()]
    return '\n'.join(
        [
            'usage: nightseg bag TASK [options]',
            '',
            *lines,
            '',
            'nightseg bag TASK --help lists the options of a task.',
        ]
    )
