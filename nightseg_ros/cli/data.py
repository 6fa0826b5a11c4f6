# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg data``, ``render`` and ``synthesize``: check, take, render and darken pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from nightseg_ros.cli.options import print_table, Progress, read_config, refuse, tell_problems
from nightseg_ros.config import ConfigError, Limited, Limits, Natural, Positive
from nightseg_ros.data import SynthesisConfig
from nightseg_ros.files import read_json, replace_file
from nightseg_ros.outputs import check_output
import tyro

#: Places of a kind of problem that are printed; --json has all.
SHOWN = 5
#: Pairs of pictures on the contact sheet of a synthesis.
TILES = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckOptions(Limited):
    """
    Read every file of data sets and list what is wrong and what to do about it.

    Labels without pictures and pictures without labels, files that are cut off, sizes that
    differ or are turned, ids that mean nothing in the taxonomy, pictures that lie in two of the
    sets. Classes that never occur are told, which is no problem. Exit code 1: there are problems.
    """

    specs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Data sets as ADAPTER:ROOT[:SPLIT[:ONLY]]; splits are compared with one another."""
    taxonomy: Literal['camvid11', 'cityscapes19', 'comma10k'] = 'camvid11'
    """Classes that the labels are read as."""
    json: Path | None = None
    """File to write everything to."""
    workers: Natural = 0
    """Threads that read; 0: one a CPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractOptions(Limited):
    """
    Write frames of videos, bags or folders into OUT as SOURCE_STAMP.jpg; 'images:OUT' reads them.

    OUT appears when it is whole. Exit code 1: some frames could not be read.
    """

    sources: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Videos, bags, folders of images."""
    out: Path
    """Folder to write."""
    every: Annotated[float, Limits(0, 1e6)] = 1.0
    """Seconds between frames by their stamps; 0 takes all."""
    encoding: Annotated[Literal['jpg', 'png'], tyro.conf.arg(name='format')] = 'jpg'
    """PNG loses nothing and is several times as large."""
    quality: Annotated[int, Limits(1, 100)] = 95
    """JPEG quality."""
    topic: str | None = None
    """Image topic of bags; without it the only one there is."""
    rate: float | None = None
    """Frames a second of folders, which have no time, or of videos instead of their own."""
    force: bool = False
    """Replace a folder of frames that were extracted."""


def check(options: CheckOptions) -> int:
    from nightseg_ros.data.check import check_datasets
    from nightseg_ros.taxonomy import TAXONOMIES

    if not options.specs:
        raise ConfigError('name one data set or more, ADAPTER:ROOT[:SPLIT]')
    if options.json is not None:
        check_output(options.json, 'a report', _is_report)
        options.json.parent.mkdir(parents=True, exist_ok=True)
    with Progress('reading', None) as progress:
        report = check_datasets(
            options.specs, TAXONOMIES[options.taxonomy], workers=options.workers,
            progress=progress.show,
        )  # fmt: skip
    if options.json is not None:
        replace_file(options.json, (json.dumps(report, indent=1) + '\n').encode())
    _print(report)
    return 1 if report['problems'] else 0


def extract(options: ExtractOptions) -> int:
    from nightseg_ros.data.extract import extract

    if not options.sources:
        raise ConfigError('name one recording or more: videos, bags, folders of images')
    if options.encoding == 'png':
        refuse(options, 'PNG', 'quality')
    with Progress('reading', None) as progress:
        written, broken = extract(
            options.sources, options.out, every=options.every, encoding=options.encoding,
            quality=options.quality, topic=options.topic, rate=options.rate, force=options.force,
            progress=progress.show, log=progress.note, problem=progress.problem,
        )  # fmt: skip
    print(f"{written} frames in '{options.out}'; images:{options.out} reads them")
    return tell_problems('data extract', broken, 'frames could not be read')


def _is_report(path: Path) -> bool:
    return path.is_file() and 'datasets' in read_json(path)


def _print(report: dict[str, Any]) -> None:
    print_table(
        f"labels read as '{report['taxonomy']}'",
        ('data set', 'pictures', 'labelled', 'sizes', 'light', 'sources'),
        [
            [found['spec'], str(found['images']), str(found['labelled']),
             *(_most([*found[key].items()]) for key in ('sizes', 'lights', 'sources'))]
            for found in report['datasets']
        ],
    )  # fmt: skip
    for found in report['datasets']:
        shares = (found['class_shares'] or {}).items()
        # where ids are mixed up, one sees it here
        most = [(name, share) for name, share in shares if share >= 0.005]
        if most:
            most.sort(key=lambda one: -one[1])
            print(f'{found["spec"]}: {", ".join(f"{name} {share:.0%}" for name, share in most)}')
        if found['absent_classes']:
            print(f'{found["spec"]}: no pixel is {", ".join(found["absent_classes"])}')
    for kind, advice in report['advice'].items():
        print(f'{kind}: {report["counts"][kind]}. What to do: {advice}.')
        places = [problem for problem in report['problems'] if problem['kind'] == kind]
        for problem in places[:SHOWN]:
            print(f'  {problem["where"]}' + f': {problem["detail"]}' * bool(problem['detail']))
        if len(places) > SHOWN:
            print(f'  … and {len(places) - SHOWN} more; --json FILE lists all')
    if not report['problems']:
        print('no problems found')


def _most(counts: list[tuple[str, int]]) -> str:
    shown = ', '.join(f'{name} {count}' for name, count in counts[:2])
    return shown + (f', {len(counts) - 2} others' if len(counts) > 2 else '')


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderOptions(Limited):
    """Render streets with exact labels into OUT/images and OUT/labels; 'folder:OUT' reads them."""

    out: Path
    """Folder to write."""
    count: Positive = 400
    """Number of pictures."""
    split: Literal['train', 'demo'] = 'train'
    """Layouts, textures and seeds; the two share none."""
    light: Literal['day', 'night', 'mixed'] = 'mixed'
    """Mix of lights; 'night' is mostly night, dusk, tunnel and glare, a tenth day."""
    size: tuple[int, int] = (640, 360)
    """Width and height in pixels."""
    seed: Natural = 0
    """Another seed, other streets."""
    force: bool = False
    """Replace the folder if it exists."""


def render(options: RenderOptions) -> int:
    from nightseg_ros.simulation.drive import write_rendered

    with Progress('rendering', options.count) as progress:
        write_rendered(
            options.out, count=options.count, split=options.split, light=options.light,
            size=options.size, seed=options.seed, force=options.force, progress=progress.show,
        )  # fmt: skip
    print(f"{options.count} pictures in '{options.out}'; train on folder:{options.out}")
    return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthesizeOptions(SynthesisConfig):
    """
    Turn a seeded choice of labelled day images into night; 'folder:OUT:night' is the data set.

    Labels are copied, manifest.json names sources and hashes, and the folder appears only when it
    is whole. --config FILE.yaml holds the same settings.
    """

    sheet: bool = False
    """Write a contact sheet of day beside night to OUT/sheet.jpg."""


def synthesize(arguments: Sequence[str]) -> int:
    options = read_config(SynthesizeOptions, 'synthesize', arguments)

    from nightseg_ros.data.synthesize import synthesize

    with Progress('making night', None) as progress:
        count, of = synthesize(options, progress=progress.show, log=progress.note)
    print(
        f"{count} nights of {of} day images in '{options.out}'\n"
        f'train on folder:{options.out}:night; beside all of the day images it is '
        f'{count / (count + of):.0%} of the samples'
    )
    if options.sheet:
        print(f"contact sheet: '{_write_sheet(Path(options.out))}'")
    return 0


def _write_sheet(folder: Path) -> Path:
    """Write pairs of day and night, spread over the folder; return the picture's path."""
    from nightseg_ros.data.pictures import contact_sheet, write_picture
    from nightseg_ros.data.sample import read_image
    from nightseg_ros.data.synthesize import MANIFEST, SHEET

    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding='utf-8'))
    entries = manifest['images']
    shown = min(TILES, len(entries))
    tiles = []
    for entry in (entries[place * len(entries) // shown] for place in range(shown)):
        day, night = read_image(Path(entry['source'])), read_image(folder / entry['image'])
        caption = f'{manifest["method"]}: {Path(entry["image"]).stem}'
        tiles.append((day, night, caption, (230, 230, 230)))
    write_picture(folder / SHEET, contact_sheet(tiles))
    return folder / SHEET
