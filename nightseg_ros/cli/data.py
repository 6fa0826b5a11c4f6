# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg data`` and ``render``: check data sets, take pictures out of recordings, render."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from nightseg_ros.cli.options import Progress, parse
from nightseg_ros.config import ConfigError, from_mapping

if TYPE_CHECKING:
    from nightseg_ros.data.check import Report

#: Places of a kind of problem that are printed; --json has all.
SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckOptions:
    """
    Read every file of data sets and list what is wrong and what to do about it.

    Labels without pictures and pictures without labels, files that are cut off, sizes that
    differ, ids that mean nothing in the taxonomy, pictures that lie in two of the sets. Exit code
    1: there are problems.
    """

    specs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Data sets as ADAPTER:ROOT[:SPLIT[:ONLY]]; splits are compared with one another."""
    taxonomy: Literal['camvid11', 'cityscapes19', 'comma10k'] = 'camvid11'
    """Classes that the labels are read as."""
    json: Path | None = None
    """File to write everything to."""
    workers: int = 0
    """Processes that read; 0: one a CPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractOptions:
    """
    Write frames of videos, bags or folders into OUT as SOURCE_STAMP.jpg; 'images:OUT' reads them.

    Given again it goes on where it was interrupted. Exit code 1: some frames could not be read.
    """

    sources: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Videos, bags, folders of images."""
    out: Path
    """Folder to write."""
    every: float = 1.0
    """Seconds between frames by their stamps; 0 takes all."""
    format: Literal['jpg', 'png'] = 'jpg'
    """PNG loses nothing and is several times as large."""
    quality: int = 95
    """JPEG quality, 1 to 100."""
    topic: str | None = None
    """Image topic of bags; without it the only one there is."""
    rate: float | None = None
    """Frames a second of folders, which have no time, or of videos instead of their own."""
    force: bool = False
    """Write the sources' frames anew, also those that were taken otherwise."""


def check(arguments: Sequence[str]) -> int:
    """Check data sets."""
    options = parse(CheckOptions, 'data check', arguments)

    from nightseg_ros.data.check import check_datasets
    from nightseg_ros.files import replace_file
    from nightseg_ros.taxonomy import TAXONOMIES

    if not options.specs:
        raise ConfigError('name one data set or more, ADAPTER:ROOT[:SPLIT]')
    if options.workers < 0:
        raise ConfigError(f"'workers' must not be negative, got {options.workers}")
    with Progress('reading', None) as progress:
        report = check_datasets(
            options.specs, TAXONOMIES[options.taxonomy], workers=options.workers,
            progress=progress.set,
        )  # fmt: skip
    if options.json is not None:
        content = json.dumps(report.to_dict(), indent=1) + '\n'
        replace_file(options.json, content.encode())
    _print(report)
    return 1 if report.problems else 0


def extract(arguments: Sequence[str]) -> int:
    """Take frames out of recordings."""
    options = parse(ExtractOptions, 'data extract', arguments)

    from nightseg_ros.data.source import ExtractConfig, extract

    if not options.sources:
        raise ConfigError('name one recording or more: videos, bags, folders of images')
    names = ('every', 'format', 'quality', 'topic', 'rate')
    config = from_mapping(ExtractConfig, {name: getattr(options, name) for name in names})
    with Progress('reading', None) as progress:
        result = extract(
            options.sources, options.out, config, force=options.force, progress=progress.set,
            say=progress.note,
        )  # fmt: skip
    print(
        f"{result.written + result.kept} frames in '{options.out}', {result.written} of them new; "
        f'images:{options.out} reads them'
    )
    if result.broken:
        print(
            f'nightseg data extract: {result.broken} frames could not be read (see above)',
            file=sys.stderr,
        )
    return 1 if result.broken else 0


def _print(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    from nightseg_ros.data.check import ADVICE

    table = Table(title=f"labels read as '{report.taxonomy.name}'")
    for column in ('data set', 'pictures', 'labelled', 'sizes', 'light', 'sources'):
        numbers = column in ('pictures', 'labelled')
        table.add_column(column, justify='right' if numbers else 'left', overflow='fold')
    for summary in report.datasets:
        counts = (summary.sizes, summary.lights, summary.sources)
        table.add_row(
            summary.spec, str(summary.images), str(summary.labelled),
            *(_most(counter.most_common()) for counter in counts),
        )  # fmt: skip
    console = Console()
    console.print(table)
    for kind, advice in ADVICE.items():
        found = [problem for problem in report.problems if problem.kind == kind]
        if not found:
            continue
        lines = [f'{kind}: {len(found)}. What to do: {advice}.']
        for problem in found[:SHOWN]:
            lines.append(f'  {problem.where}' + (f': {problem.detail}' if problem.detail else ''))
        if len(found) > SHOWN:
            lines.append(f'  … and {len(found) - SHOWN} more; --json FILE lists all')
        console.print('\n'.join(lines), markup=False, highlight=False, soft_wrap=True)
    if not report.problems:
        console.print('no problems found')


def _most(counts: list[tuple[str, int]]) -> str:
    shown = ', '.join(f'{name} {count}' for name, count in counts[:2])
    return shown + (f', {len(counts) - 2} others' if len(counts) > 2 else '')


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


def render(arguments: Sequence[str]) -> int:
    """Render the pictures."""
    options = parse(RenderOptions, 'render', arguments)

    from nightseg_ros.simulation.drive import write_rendered

    if options.count < 1:
        raise ConfigError(f"'count' must be at least 1, got {options.count}")
    with Progress('rendering', options.count) as progress:
        write_rendered(
            options.out, count=options.count, split=options.split, light=options.light,
            size=options.size, seed=options.seed, force=options.force, progress=progress.set,
        )  # fmt: skip
    print(f"{options.count} pictures in '{options.out}'; train on folder:{options.out}")
    return 0
