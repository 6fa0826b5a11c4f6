# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Data sets by name: an adapter of a few lines turns each layout into samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nightseg_ros.data.sample import IMAGE_SUFFIXES, DataError, Sample


def open_dataset(spec: str) -> list[Sample]:
    """
    Return the samples of ``ADAPTER:ROOT[:SPLIT]``, sorted by file name.

    ``DataError`` names an unknown adapter, a folder that is missing, or one without images.
    """
    name, _, rest = spec.partition(':')
    root, _, split = rest.partition(':')
    if name not in ADAPTERS or not root:
        raise DataError(
            f"'{spec}' is no data set; write ADAPTER:ROOT[:SPLIT] with one of {list(ADAPTERS)}"
        )
    samples = ADAPTERS[name](Path(root), split)
    if not samples:
        raise DataError(f"'{spec}' holds no images")
    return samples


def camvid(root: Path, split: str) -> list[Sample]:
    """
    CamVid as ``ROOT/SPLIT/images`` and ``labels``; SPLIT is FOLDER[:DRIVE].

    The drive is the stem's first part; settings are chosen on a drive that was not trained on.
    """
    split, _, drive = split.partition(':')
    light = 'dusk' if split == 'dusk' else 'day'
    return [
        Sample(
            image=image,
            label=_label_of(image, root / split / 'labels'),
            source=image.stem.split('_')[0],
            light=light,
        )
        for image in _images(root / split / 'images')
        if not drive or image.stem.split('_')[0] == drive
    ]


def folder(root: Path, split: str) -> list[Sample]:
    """Read ``ROOT/images`` with ``ROOT/labels`` beside it; SPLIT is the light, if known."""
    return [
        Sample(
            image=image,
            label=_label_of(image, root / 'labels'),
            source=source_of(image.stem),
            light=split or None,
        )
        for image in _images(root / 'images')
    ]


def images(root: Path, split: str) -> list[Sample]:
    """Read a plain folder of images without labels; SPLIT is the light, if known."""
    return [
        Sample(image=image, source=source_of(image.stem), light=split or None)
        for image in _images(root)
    ]


def paired(root: Path, split: str) -> list[Sample]:
    """Read the images of ROOT that have labels in another folder: SPLIT is FOLDER[:LIGHT]."""
    labels, _, light = split.partition(':')
    return [
        Sample(
            image=image,
            label=Path(labels) / f'{image.stem}.png',
            source=source_of(image.stem),
            light=light or None,
        )
        for image in _images(root)
        if (Path(labels) / f'{image.stem}.png').is_file()
    ]


def source_of(stem: str) -> str:
    """Return the camera that a file name tells: its part before the first `_` or digit."""
    head = stem.split('_')[0]
    return head if head and not head[0].isdigit() else 'unnamed'


ADAPTERS: dict[str, Callable[[Path, str], list[Sample]]] = {
    'camvid': camvid,
    'folder': folder,
    'images': images,
    'paired': paired,
}


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"there is no folder '{folder}'")
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)


def _label_of(image: Path, labels: Path) -> Path:
    label = labels / f'{image.stem}.png'
    if not label.is_file():
        raise DataError(f"image '{image}' has no labels '{label}'")
    return label
