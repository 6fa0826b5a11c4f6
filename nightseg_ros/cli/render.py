# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg render``: a rendered data set, written as a folder that training reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nightseg_ros.cli.options import parse


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderOptions:
    """Render streets with exact labels into OUT/images and OUT/labels; 'folder:OUT' reads them."""

    out: Path
    """Folder to write."""
    count: int = 400
    """Number of pictures."""
    split: Literal['train', 'demo'] = 'train'
    """Layouts, textures and seeds; the two share none."""
    light: Literal['day', 'night', 'mixed'] = 'mixed'
    """Mix of lights; 'night' is mostly night, dusk, tunnel and glare, a tenth day."""
    size: tuple[int, int] = (640, 360)
    """Width and height in pixels."""
    seed: int = 0
    """Another seed, other streets."""
    force: bool = False
    """Replace the folder if it exists."""


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    options = parse(RenderOptions, 'render', arguments)

    from nightseg_ros.cli.progress import Progress
    from nightseg_ros.config import from_mapping
    from nightseg_ros.simulation.drive import RenderedConfig, write_rendered

    config = from_mapping(
        RenderedConfig,
        {name: getattr(options, name) for name in ('count', 'split', 'light', 'size', 'seed')},
    )
    with Progress('rendering', config.count) as progress:
        write_rendered(options.out, config, force=options.force, progress=progress.set)
    print(f"{config.count} pictures in '{options.out}'; train on folder:{options.out}")
    return 0
