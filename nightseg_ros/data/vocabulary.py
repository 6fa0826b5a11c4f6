# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The class names of published data sets, how their label images store them, and what they mean.

A name that covers several classes of a taxonomy, or none of them for certain, means nothing in it:
its pixels become unlabelled rather than wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightseg_ros.data.label_map import Color, LabelMap, color_map, id_map
from nightseg_ros.data.sample import DataError
from nightseg_ros.taxonomy import CAMVID11, CITYSCAPES19, TAXONOMIES, UNLABELLED, Taxonomy


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """How the label images of a data set store class names: as ids or as RGB colours."""

    vocabulary: str
    """Key of ``MEANINGS``, or a taxonomy's name."""
    ids: Mapping[int, str] | None = None
    colors: Mapping[Color, str] | None = None


#: Cityscapes' labels by id (Cordts et al. 2016); KITTI and NightCity took them over.
CITYSCAPES_IDS = Encoding(
    vocabulary='cityscapes',
    ids=dict(
        enumerate(
            (
                'unlabeled', 'ego vehicle', 'rectification border', 'out of roi', 'static',
                'dynamic', 'ground', 'road', 'sidewalk', 'parking', 'rail track', 'building',
                'wall', 'fence', 'guard rail', 'bridge', 'tunnel', 'pole', 'polegroup',
                'traffic light', 'traffic sign', 'vegetation', 'terrain', 'sky', 'person',
                'rider', 'car', 'truck', 'bus', 'caravan', 'trailer', 'train', 'motorcycle',
                'bicycle',
            )
        )
    ),
)  # fmt: skip

#: The ids that Cityscapes evaluates; ACDC, Dark Zurich, BDD100K and others store them.
CITYSCAPES_TRAIN_IDS = Encoding(vocabulary='cityscapes', ids=dict(enumerate(CITYSCAPES19.classes)))

#: CamVid's 11 classes as SegNet's copy of it stores them; 11 is unlabelled there.
SEGNET_IDS = Encoding(
    vocabulary='camvid11', ids=dict(enumerate((*CAMVID11.classes, 'unlabelled')))
)

#: CamVid's 32 classes as the original label images store them (Brostow et al. 2009).
CAMVID32_COLORS = Encoding(
    vocabulary='camvid32',
    colors={
        (64, 128, 64): 'animal', (192, 0, 128): 'archway', (0, 128, 192): 'bicyclist',
        (0, 128, 64): 'bridge', (128, 0, 0): 'building', (64, 0, 128): 'car',
        (64, 0, 192): 'cart luggage pram', (192, 128, 64): 'child',
        (192, 192, 128): 'column pole', (64, 64, 128): 'fence',
        (128, 0, 192): 'lane marking, drivable', (192, 0, 64): 'lane marking, other',
        (128, 128, 64): 'misc text', (192, 0, 192): 'motorcycle scooter',
        (128, 64, 64): 'other moving', (64, 192, 128): 'parking block',
        (64, 64, 0): 'pedestrian', (128, 64, 128): 'road', (128, 128, 192): 'road shoulder',
        (0, 0, 192): 'sidewalk', (192, 128, 128): 'sign symbol', (128, 128, 128): 'sky',
        (64, 128, 192): 'suv pickup truck', (0, 0, 64): 'traffic cone',
        (0, 64, 64): 'traffic light', (192, 64, 128): 'train', (128, 128, 0): 'tree',
        (192, 128, 192): 'truck bus', (64, 0, 64): 'tunnel', (192, 192, 0): 'vegetation misc',
        (0, 0, 0): 'void', (64, 192, 0): 'wall',
    },
)  # fmt: skip

#: comma10k's five categories.
COMMA10K_COLORS = Encoding(
    vocabulary='comma10k',
    colors={
        (0x40, 0x20, 0x20): 'road', (0xFF, 0x00, 0x00): 'lane marking',
        (0x80, 0x80, 0x60): 'undrivable', (0x00, 0xFF, 0x66): 'movable',
        (0xCC, 0x00, 0xFF): 'ego car',
    },
)  # fmt: skip

#: Vocabulary and taxonomy: the class that each name means, with no entry for 'unlabelled'.
MEANINGS: dict[tuple[str, str], dict[str, str]] = {
    ('cityscapes', 'cityscapes19'): {name: name for name in CITYSCAPES19.classes},
    ('cityscapes', 'camvid11'): {
        'sky': 'sky', 'building': 'building', 'wall': 'building', 'bridge': 'building',
        'tunnel': 'building', 'pole': 'pole', 'polegroup': 'pole', 'road': 'road',
        'sidewalk': 'pavement', 'vegetation': 'tree', 'terrain': 'tree', 'traffic sign': 'sign',
        'traffic light': 'sign', 'fence': 'fence', 'car': 'car', 'truck': 'car', 'bus': 'car',
        'caravan': 'car', 'trailer': 'car', 'train': 'car', 'person': 'pedestrian',
        'rider': 'bicyclist', 'bicycle': 'bicyclist', 'motorcycle': 'bicyclist',
    },
    # the grouping of SegNet (Badrinarayanan et al. 2017)
    ('camvid32', 'camvid11'): {
        'sky': 'sky', 'building': 'building', 'archway': 'building', 'bridge': 'building',
        'tunnel': 'building', 'wall': 'building', 'column pole': 'pole', 'traffic cone': 'pole',
        'road': 'road', 'lane marking, drivable': 'road', 'lane marking, other': 'road',
        'sidewalk': 'pavement', 'parking block': 'pavement', 'road shoulder': 'pavement',
        'tree': 'tree', 'vegetation misc': 'tree', 'sign symbol': 'sign', 'misc text': 'sign',
        'traffic light': 'sign', 'fence': 'fence', 'car': 'car', 'suv pickup truck': 'car',
        'truck bus': 'car', 'train': 'car', 'other moving': 'car', 'pedestrian': 'pedestrian',
        'child': 'pedestrian', 'cart luggage pram': 'pedestrian', 'animal': 'pedestrian',
        'bicyclist': 'bicyclist', 'motorcycle scooter': 'bicyclist',
    },
    ('camvid32', 'cityscapes19'): {
        'sky': 'sky', 'building': 'building', 'wall': 'wall', 'column pole': 'pole',
        'road': 'road', 'lane marking, drivable': 'road', 'lane marking, other': 'road',
        'sidewalk': 'sidewalk', 'tree': 'vegetation', 'sign symbol': 'traffic sign',
        'traffic light': 'traffic light', 'fence': 'fence', 'car': 'car', 'train': 'train',
        'pedestrian': 'person', 'child': 'person',
    },
    # building holds walls, tree terrain, sign lights, car lorries: they could be several classes
    ('camvid11', 'cityscapes19'): {
        'sky': 'sky', 'pole': 'pole', 'road': 'road', 'pavement': 'sidewalk', 'fence': 'fence',
        'pedestrian': 'person',
    },
    ('comma10k', 'camvid11'): {'road': 'road', 'lane marking': 'road'},
    ('comma10k', 'cityscapes19'): {'road': 'road', 'lane marking': 'road'},
}  # fmt: skip
# names of a taxonomy are words of the vocabulary that it was taken from
_VOCABULARY = {'cityscapes19': 'cityscapes'}


def label_map(encoding: Encoding, taxonomy: Taxonomy) -> LabelMap:
    """
    Return the table from what a data set stores to ids of ``taxonomy``.

    A vocabulary that is not known here, a user's own, is taken by its names. ``DataError`` where
    none of its names has a meaning in the taxonomy.
    """
    stored = encoding.colors or encoding.ids or {}
    vocabulary = _VOCABULARY.get(encoding.vocabulary, encoding.vocabulary)
    known = {name for name, _ in MEANINGS} | set(TAXONOMIES)
    if encoding.vocabulary == taxonomy.name or vocabulary not in known:
        means = {name: name for name in stored.values() if name in taxonomy.classes}
    else:
        means = MEANINGS.get((vocabulary, taxonomy.name), {})
    if not means:
        readable = [to for name, to in MEANINGS if name == vocabulary]
        raise DataError(
            f"its labels ('{encoding.vocabulary}') mean nothing in the taxonomy "
            f"'{taxonomy.name}'; they do in {readable or 'none that is known here'}"
        )

    def class_id(name: str) -> int:
        return taxonomy.id_of(means[name]) if name in means else UNLABELLED

    if encoding.colors is not None:
        return color_map(taxonomy.name, ((c, class_id(n)) for c, n in encoding.colors.items()))
    ids = encoding.ids or {}
    return id_map(taxonomy.name, ((value, class_id(name)) for value, name in ids.items()))


def own_ids(taxonomy: Taxonomy) -> Encoding:
    """Return the encoding of label images that store a taxonomy's own ids."""
    return Encoding(vocabulary=taxonomy.name, ids=dict(enumerate(taxonomy.classes)))


def translation(source: Taxonomy, target: Taxonomy) -> npt.NDArray[np.uint8]:
    """
    Return uint8 [256]: the id in ``target`` of each id in ``source``, 255 where there is none.

    Indexing it with a mask turns, say, a Cityscapes network's labels into those of CamVid-11.
    """
    table = np.full(256, UNLABELLED, np.uint8)
    for stored, to in label_map(own_ids(source), target).entries:
        table[stored] = to
    return table
