# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
``nightseg train RECIPE``, ``calibrate``, ``sweep`` and ``synthesize``: the ways to weights.

All of them take ``--config FILE.yaml`` and flags, which win over the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightseg_ros.cli.options import Progress, read_config
from nightseg_ros.data.synthesize import SynthesisConfig
from nightseg_ros.files import share_dir
from nightseg_ros.training.calibration_config import CalibrationConfig
from nightseg_ros.training.sweep_config import SweepConfig

#: Pairs of pictures on the contact sheet of a synthesis.
TILES = 12
SHEET = 'sheet.jpg'
_INK = (230, 230, 230)


def segmenter(arguments: Sequence[str]) -> int:
    """Train a segmenter, or go on with a run that was interrupted."""
    from nightseg_ros.training.segmenter import SegmenterConfig, train_segmenter

    config = read_config(SegmenterConfig, 'train segmenter', arguments)
    print(f"weights: '{train_segmenter(config)}'")
    return 0


def pseudo_labels(arguments: Sequence[str]) -> int:
    """Label every frame by a teacher."""
    from nightseg_ros.training.pseudo_labels import PseudoLabelConfig, write_pseudo_labels

    config = read_config(PseudoLabelConfig, 'train pseudo_labels', arguments)
    print(f"labels: '{write_pseudo_labels(config)}'")
    return 0


def translator(arguments: Sequence[str]) -> int:
    """Train generators both ways, or go on with a run that was interrupted."""
    from nightseg_ros.training.translator import TranslatorConfig, train_translator

    config = read_config(TranslatorConfig, 'train translator', arguments)
    for path in train_translator(config):
        print(f"weights: '{path}'")
    return 0


def fast_translator(arguments: Sequence[str]) -> int:
    """Train a real-time generator, or go on with a run that was interrupted."""
    from nightseg_ros.training.fast_translator import FastTranslatorConfig, train_fast_translator

    config = read_config(FastTranslatorConfig, 'train fast_translator', arguments)
    print(f"weights: '{train_fast_translator(config)}'")
    return 0


def average(arguments: Sequence[str]) -> int:
    """Average weights."""
    from nightseg_ros.training.average import AverageConfig, average_weights

    config = read_config(AverageConfig, 'train average', arguments)
    print(f"weights: '{average_weights(config)}'")
    return 0


def illumination(arguments: Sequence[str]) -> int:
    """Train the estimator of the light."""
    from nightseg_ros.training.illumination import IlluminationConfig, train_illumination

    config = read_config(IlluminationConfig, 'train illumination', arguments)
    sha256 = train_illumination(config, say=print)
    print(f"weights: '{config.out}', SHA-256 {sha256}")
    return 0


def calibrate(arguments: Sequence[str]) -> int:
    """Fit temperature and reliability and write them into weights."""
    config = read_config(CalibrationConfig, 'calibrate', arguments)

    from nightseg_ros.training.calibrate import calibrate

    done = calibrate(config, _print)
    if 'temperature' in done.about:
        _print_errors(done.about['temperature'])
    for key, value in done.about.get('reliability', {}).items():
        print(f'reliability: {key} {value}')
    print(f"'{done.path}': temperature {done.temperature:.3f}, SHA-256 {done.sha256}")
    return 0


def _print_errors(found: Mapping[str, Any]) -> None:
    """Print the calibration errors."""
    from rich.console import Console
    from rich.table import Table

    places = ', '.join(f'{place} {t:.3f}' for place, t in found['out_of_fold'].items())
    table = Table(title=f'calibration error; temperature fitted without: {places}')
    for column in ('', 'frames', 'accuracy', 'confidence', 'error before', 'after, out of fold'):
        table.add_column(column, justify='left' if not column else 'right')
    for name, row in found['errors'].items():
        if 'before' not in row:
            continue
        table.add_row(
            name, str(row['frames']), f'{row["before"]["accuracy"]:.3f}',
            f'{row["before"]["confidence"]:.3f}', f'{row["before"]["ece"]:.3f}',
            f'{row["after"]["ece"]:.3f}',
        )  # fmt: skip
    Console().print(table)


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepOptions(SweepConfig):
    """
    Train and score a trial for each ratio, variant and seed; then write table and figure.

    Settings of the trainings come from --config FILE.yaml, without it from the package's
    config/training/sweep.yaml. The same command goes on after an interruption; --shard divides the
    trials among processes or machines that share the folder.
    """


def sweep(arguments: Sequence[str]) -> int:
    """Train and score what is missing, then write the curve."""
    given = list(arguments)
    if not any(argument.partition('=')[0] == '--config' for argument in given):
        given += ['--config', str(share_dir() / 'config' / 'training' / 'sweep.yaml')]
    options = read_config(SweepOptions, 'sweep', given)

    from nightseg_ros.training.sweep import sweep

    report = sweep(options, _print)
    print(f'\n{report.text}')
    for file in report.files:
        print(f"'{file}'")
    return 0


def _print(text: str) -> None:
    print(text, flush=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthesizeOptions(SynthesisConfig):
    """
    Turn a seeded choice of labelled day images into night; 'folder:OUT:night' is the data set.

    Labels are copied, manifest.json names sources and hashes, an interrupted run goes on, and the
    folder appears only when it is whole. --config FILE.yaml holds the same settings.
    """

    sheet: bool = False
    """Write a contact sheet of day beside night to OUT/sheet.jpg."""


def synthesize(arguments: Sequence[str]) -> int:
    """Make night of day."""
    options = read_config(SynthesizeOptions, 'synthesize', arguments)

    from nightseg_ros.data.synthesize import synthesize

    with Progress('making night', None) as progress:
        done = synthesize(options, progress=progress.set, say=progress.note)
    share = done.count / (done.count + done.of)
    print(
        f"{done.count} nights of {done.of} day images in '{done.folder}', {done.made} made now\n"
        f'train on folder:{done.folder}:night; beside all of the day images it is {share:.0%} '
        'of the samples'
    )
    if options.sheet:
        _write_sheet(done.folder)
        print(f"contact sheet: '{done.folder / SHEET}'")
    return 0


def _write_sheet(folder: Path) -> None:
    """Write pairs of day and night, spread over the folder."""
    from nightseg_ros.data.pictures import contact_sheet, write_picture
    from nightseg_ros.data.sample import read_image
    from nightseg_ros.data.synthesize import MANIFEST

    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding='utf-8'))
    entries = manifest['images']
    tiles = []
    for place in range(min(TILES, len(entries))):
        entry = entries[place * len(entries) // min(TILES, len(entries))]
        day, night = read_image(Path(entry['source'])), read_image(folder / entry['image'])
        tiles.append((day, night, f'{manifest["method"]}: {Path(entry["image"]).stem}', _INK))
    write_picture(folder / SHEET, contact_sheet(tiles))
