# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Data sets by name: an adapter of a few lines turns each layout into samples."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from nightseg_ros.data.label_map import LabelMap
from nightseg_ros.data.layout import Fields, Listing, check_light, list_pairs
from nightseg_ros.data.published import PUBLISHED, Adapter
from nightseg_ros.data.sample import SCENE, DataError, LabelFile, Sample
from nightseg_ros.data.vocabulary import label_map, own_ids
from nightseg_ros.taxonomy import CAMVID11, Taxonomy, TaxonomyError


def open_dataset(spec: str, taxonomy: Taxonomy = CAMVID11) -> list[Sample]:
    """
    Return the samples of ``ADAPTER:ROOT[:SPLIT[:ONLY]]``, sorted by path.

    ``read_labels`` gives their labels as ids of ``taxonomy``, whatever the data set stores;
    classes that it lacks become 255. ONLY keeps one light (day, dusk, night), drive or city.
    ``DataError`` names an unknown adapter, a folder that is missing, one without images, images
    whose labels are missing, and labels that say nothing in the taxonomy.
    """
    listing = list_dataset(spec, taxonomy)
    if listing.unlabelled:
        first = listing.unlabelled[0]
        others = f', and {len(listing.unlabelled) - 1} others' * (len(listing.unlabelled) > 1)
        raise DataError(
            f"image '{first.image}' has no labels '{first.label}'{others}; nightseg data check "
            f'{spec} lists them'
        )
    return listing.samples


def list_dataset(spec: str, taxonomy: Taxonomy = CAMVID11) -> Listing:
    """Return what lies in a data set's folders, missing labels and pictures included."""
    name, root, split = parse_spec(spec)
    try:
        listing = ADAPTERS[name](root, split, taxonomy)
    except DataError as error:
        raise DataError(f"'{spec}': {error}") from error
    if not listing.samples:
        raise DataError(f"'{spec}' holds no images")
    return listing


def parse_spec(spec: str) -> tuple[str, Path, str]:
    """Split ``ADAPTER:ROOT[:REST]``; ``DataError`` where the adapter or the root is missing."""
    name, _, rest = spec.partition(':')
    root, _, split = rest.partition(':')
    if name not in ADAPTERS or not root:
        raise DataError(
            f"'{spec}' is no data set; write ADAPTER:ROOT[:SPLIT[:ONLY]] with one of "
            f'{list(ADAPTERS)}'
        )
    return name, Path(root).expanduser(), split


# -- the user's own folders ------------------------------------------------------------------


def folder(root: Path, light: str, taxonomy: Taxonomy) -> Listing:
    """
    ``ROOT/images`` with ``ROOT/labels`` beside it; the third part is the light, if known.

    Labels are ids of the taxonomy in use, or of that in ``ROOT/taxonomy.json``.
    """
    return list_pairs(
        root, 'images/{name}.*', 'labels/{name}.png', _own(root, taxonomy),
        light=check_light(light), source=_camera,
    )  # fmt: skip


def images(root: Path, light: str, taxonomy: Taxonomy) -> Listing:
    """Take a plain folder of images without labels; the third part is the light, if known."""
    return list_pairs(root, '{name}.*', light=check_light(light), source=_camera)


def paired(root: Path, rest: str, taxonomy: Taxonomy) -> Listing:
    """
    Take the images of ROOT that have labels in another folder: ``paired:ROOT:LABELS[:LIGHT]``.

    Labels are ids of the taxonomy in use, or of that in ``LABELS/taxonomy.json``.
    """
    where, _, light = rest.partition(':')
    labels = Path(where).expanduser()
    if not where or not labels.is_dir():
        raise DataError(f"there is no folder '{where}' with labels")
    listing = images(root, light, taxonomy)
    meaning = _own(labels, taxonomy)
    guesses = labels / SCENE
    keep = [i for i, s in enumerate(listing.samples) if (labels / f'{s.image.stem}.png').is_file()]
    stems = {sample.image.stem for sample in listing.samples}
    return Listing(
        samples=[
            replace(
                sample,
                label=LabelFile(labels / f'{sample.image.stem}.png', meaning),
                scene=LabelFile(guesses / f'{sample.image.stem}.png', meaning)
                if guesses.is_dir()
                else None,
            )
            for sample in (listing.samples[i] for i in keep)
        ],
        fields=[listing.fields[i] for i in keep],
        unlabelled=[],
        orphans=[p for p in sorted(labels.glob('*.png')) if p.stem not in stems],
    )


def source_of(stem: str) -> str:
    """Return the camera that a file name tells: its part before the first `_` or digit."""
    head = stem.split('_')[0]
    return head if head and not head[0].isdigit() else 'unnamed'


def _camera(fields: Fields) -> str:
    return source_of(fields['name'])


def _own(root: Path, taxonomy: Taxonomy) -> LabelMap:
    """Return what the ids of a user's own labels mean."""
    file = root / 'taxonomy.json'
    if not file.is_file():
        return label_map(own_ids(taxonomy), taxonomy)
    try:
        own = Taxonomy.from_dict(json.loads(file.read_text(encoding='utf-8')))
    except (ValueError, TaxonomyError) as error:
        raise DataError(f"'{file}' is no taxonomy: {error}") from error
    return label_map(own_ids(own), taxonomy)


def _selectable(adapter: Adapter) -> Adapter:
    """Make ``SPLIT[:ONLY]`` of an adapter's SPLIT."""

    def select(root: Path, rest: str, taxonomy: Taxonomy) -> Listing:
        split, _, only = rest.partition(':')
        listing = adapter(root, split, taxonomy)
        return listing.only(only) if only else listing

    return select


ADAPTERS: dict[str, Adapter] = {
    'folder': folder,
    'images': images,
    'paired': paired,
    **{name: _selectable(adapter) for name, adapter in PUBLISHED.items()},
}
