# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg record``: what the node publishes into a bag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nightseg_ros.cli.options import parse
from nightseg_ros.cli.processes import become


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordOptions:
    """
    Record what night_perception publishes into the bag OUT until Ctrl-C.

    The bag appears under its name when the recording is ended. If it is killed or the disk is
    full, a bag of that name in the folder OUT.partial holds what was written; every command here
    reads that, too. The node computes what somebody listens to, so each output that is recorded
    costs it time.
    """

    out: Annotated[Path, tyro.conf.Positional]
    """Folder of the bag."""
    cameras: tuple[str, ...] = ()
    """Names of the cameras; without them every camera that shows up."""
    outputs: tuple[str, ...] = (
        'labels', 'overlay/compressed', 'status', 'illumination', 'label_info_json', 'diagnostics',
    )  # fmt: skip
    """Topics below <camera>/nightseg/ and, as 'diagnostics', /diagnostics."""
    images: tuple[str, ...] = ()
    """Image topics to record as well, such as /camera/image_raw/compressed."""
    seconds: float = 0.0
    """End after so long; 0 waits for Ctrl-C."""
    reliable: bool = False
    """Ask for messages again that were lost on the way."""
    storage: Literal['mcap', 'sqlite3'] = 'mcap'
    """Kind of the bag's file; of a killed recording only mcap leaves what was written."""
    force: bool = False
    """Replace the bag if it exists."""


def main(arguments: Sequence[str]) -> int:
    """Run the verb: this process becomes the recorder."""
    options = parse(RecordOptions, 'record', arguments)

    from nightseg_ros.bags.writer import check_bag

    check_bag(options.out, force=options.force)
    # a name that begins with a dash would be an option to the recorder
    given = [str(options.out.absolute()), '--storage', options.storage]
    given += ['--cameras', *options.cameras] if options.cameras else ['--discover']
    given += ['--outputs', *options.outputs] if options.outputs else []
    given += ['--images', *options.images] if options.images else []
    given += ['--seconds', str(options.seconds)] if options.seconds else []
    given += ['--reliable'] if options.reliable else []
    given += ['--force'] if options.force else []
    become('nightseg_ros.node.replay', given)
