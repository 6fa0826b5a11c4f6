# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Rendered data sets on disk: pictures of many streets with their labels, from seeds alone."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from nightseg_ros.data.sample import DataError
from nightseg_ros.simulation import Street, render
from nightseg_ros.taxonomy import CAMVID11

#: Share of each light in a data set of the given name.
MIXES: dict[str, dict[str, float]] = {
    'day': {'day': 1.0},
    'night': {'night': 0.4, 'dusk': 0.2, 'tunnel': 0.15, 'glare': 0.15, 'day': 0.1},
    'mixed': {'day': 0.4, 'night': 0.25, 'dusk': 0.15, 'tunnel': 0.1, 'glare': 0.1},
}
_PER_STREET = 8
_STREET_LENGTH = 400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedConfig:
    """What is rendered; the same settings give the same bytes."""

    count: int = 400
    split: Literal['train', 'demo'] = 'train'
    """Layouts, textures and seeds; the two share none."""
    light: Literal['day', 'night', 'mixed'] = 'mixed'
    """A mix of lights by name: 'night' is mostly night, dusk, tunnel and glare, a tenth day."""
    size: tuple[int, int] = (640, 360)
    """Width and height in pixels."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse empty sets and unknown names."""
        if self.count < 1:
            raise ValueError(f"'count' must be at least 1, got {self.count}")
        if self.light not in MIXES:
            raise ValueError(f"'light' must be one of {list(MIXES)}, got '{self.light}'")
        if self.split not in ('train', 'demo'):
            raise ValueError(f"'split' must be 'train' or 'demo', got '{self.split}'")


def write_rendered(
    out: Path,
    config: RenderedConfig,
    *,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """
    Render ``out/images/LIGHT_NNNNNN.png`` (RGB) and ``out/labels/`` with the ids beside them.

    ``folder:OUT`` is then a data set, whose ``taxonomy.json`` says what the ids mean. The folder
    appears whole or not at all; ``DataError`` where it exists and ``force`` is not set.
    """
    if out.exists() and not force:
        raise DataError(f"'{out}' exists; give another folder or --force")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=out.parent, prefix=f'.{out.name}.partial-'))
    try:
        partial.chmod(0o755)
        for folder in ('images', 'labels'):
            (partial / folder).mkdir()
        taxonomy = json.dumps(CAMVID11.to_dict(), indent=1)
        (partial / 'taxonomy.json').write_text(taxonomy + '\n', encoding='utf-8')
        for index in range(config.count):
            _write(partial, config, index)
            progress(index + 1, config.count)
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return out


def _write(folder: Path, config: RenderedConfig, index: int) -> None:
    rng = np.random.default_rng([config.seed, index, 29])
    lights = MIXES[config.light]
    light = str(rng.choice(list(lights), p=list(lights.values())))
    street = Street(config.seed * 10_007 + index // _PER_STREET, config.split)
    frame = render(
        street, float(rng.uniform(0, _STREET_LENGTH)), light,
        seed=config.seed * 1_000_003 + index, size=config.size,
    )  # fmt: skip
    name = f'{light}_{index:06d}.png'
    quick = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    for kind, picture in (
        ('images', cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)),
        ('labels', frame.labels),
    ):
        if not cv2.imwrite(str(folder / kind / name), picture, quick):
            raise DataError(f"'{folder / kind / name}' cannot be written; is the disk full?")
