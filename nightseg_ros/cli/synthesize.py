# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg synthesize``: labelled day images become synthetic night with the same labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightseg_ros.cli.train import read_config
from nightseg_ros.data.synthesis_config import SynthesisConfig

#: Pairs of pictures on the contact sheet.
TILES = 12
SHEET = 'sheet.jpg'
_INK = (230, 230, 230)


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthesizeOptions(SynthesisConfig):
    """
    Turn a seeded choice of labelled day images into night; 'folder:OUT:night' is the data set.

    Labels are copied, manifest.json names sources and hashes, an interrupted run goes on, and the
    folder appears only when it is whole. --config FILE.yaml holds the same settings.
    """

    sheet: bool = False
    """Write a contact sheet of day beside night to OUT/sheet.jpg."""


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    options = read_config(SynthesizeOptions, 'synthesize', arguments)

    from nightseg_ros.cli.progress import Progress
    from nightseg_ros.data.synthesize import synthesize

    with Progress('making night', None) as progress:
        done = synthesize(options, progress=progress.set, say=progress.say)
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
