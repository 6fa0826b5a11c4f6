# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What the pixels of a label image mean: a table from stored ids or colours to class ids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from nightseg_ros.taxonomy import UNLABELLED

Bytes = npt.NDArray[np.uint8]
Color = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class LabelMap:
    """
    A table from what a label image stores to ids of one taxonomy, 255 = not labelled.

    It is small and hashable, so that the samples of a data set share one.
    """

    taxonomy: str
    """Name of the taxonomy of the ids that come out."""
    entries: tuple[tuple[int, int], ...]
    """(stored, id) pairs; colours are stored as 0xRRGGBB."""
    color: bool = False
    """Whether RGB colours are stored instead of ids."""

    def __post_init__(self) -> None:
        """Refuse tables that are no function or hold what no label image can."""
        if len({stored for stored, _ in self.entries}) != len(self.entries):
            raise ValueError('a stored value may stand only once in a label map')
        limit = 2**24 if self.color else 2**8
        if any(not 0 <= stored < limit or not 0 <= to < 256 for stored, to in self.entries):
            raise ValueError(f'stored values are 0 to {limit - 1} and ids 0 to 255')

    def decode(self, stored: Bytes) -> tuple[Bytes, dict[str, int]]:
        """
        Return uint8 [H, W] ids, and the pixels of each stored value that the table lacks.

        ``stored`` is uint8 [H, W], or uint8 [H, W, 3] RGB if ``color``. Unknown pixels become
        255; their values are named as in '12' or '#4020ff'. ``ValueError`` where the shape is
        that of the other kind.
        """
        if stored.dtype != np.uint8 or stored.ndim != (3 if self.color else 2):
            raise ValueError(
                f'{stored.dtype} {stored.shape} was given, '
                f'{"uint8 [H, W, 3]" if self.color else "uint8 [H, W]"} is wanted'
            )
        if not self.color:
            ids, lacks = _id_table(self)
            result = np.asarray(cv2.LUT(stored, ids), np.uint8)
            strange = stored[cv2.LUT(stored, lacks) > 0] if lacks.any() else stored[:0]
            values, counts = np.unique(strange, return_counts=True)
            return result, {str(value): int(n) for value, n in zip(values, counts)}
        keys, values = _color_table(self)
        packed = stored.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        place = np.minimum(np.searchsorted(keys, packed), len(keys) - 1)
        known = keys[place] == packed
        result = np.where(known, values[place], np.uint8(UNLABELLED))
        colors, counts = np.unique(packed[~known], return_counts=True)
        return result, {f'#{color:06x}': int(n) for color, n in zip(colors, counts)}


def id_map(taxonomy: str, ids: Iterable[tuple[int, int]]) -> LabelMap:
    """Return the map of an image of ids; 255 means 'not labelled' whatever else is in it."""
    return LabelMap(taxonomy, tuple(sorted({UNLABELLED: UNLABELLED, **dict(ids)}.items())))


def color_map(taxonomy: str, colors: Iterable[tuple[Color, int]]) -> LabelMap:
    """Return the map of an image of RGB colours."""
    packed = {red << 16 | green << 8 | blue: to for (red, green, blue), to in colors}
    return LabelMap(taxonomy, tuple(sorted(packed.items())), color=True)


@lru_cache(maxsize=32)
def _id_table(label_map: LabelMap) -> tuple[Bytes, Bytes]:
    """Return uint8 [256] ids and uint8 [256]: 1 where the map lacks a stored id."""
    ids = np.full(256, UNLABELLED, np.uint8)
    lacks = np.ones(256, np.uint8)
    for stored, to in label_map.entries:
        ids[stored], lacks[stored] = to, 0
    return ids, lacks


@lru_cache(maxsize=32)
def _color_table(label_map: LabelMap) -> tuple[npt.NDArray[np.uint32], Bytes]:
    """Return uint32 [n] packed colours in ascending order, and uint8 [n] ids."""
    stored, ids = zip(*sorted(label_map.entries))
    return np.array(stored, np.uint32), np.array(ids, np.uint8)
