# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What the pixels of a label image mean: a table from stored ids or colours to class ids.

One picture of a data set with what is known about it, and the one reader of its files.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from nightseg_ros.files import replace_file
from nightseg_ros.perception.frame import FrameError, decode_file, picture_size
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
    """(stored, id) pairs in ascending order; colours are stored as 0xRRGGBB."""
    color: bool = False
    """Whether RGB colours are stored instead of ids."""

    def decode(self, stored: Bytes) -> tuple[Bytes, dict[str, int]]:
        """
        Return uint8 [H, W] ids, and the pixels of each stored value that the table lacks.

        ``stored`` is uint8 [H, W], or uint8 [H, W, 3] RGB if ``color``. Unknown pixels become
        255; their values are named as in '12' or '#4020ff'.
        """
        keys, ids, table, lacks = _tables(self)
        if self.color:
            packed = stored.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
            place = np.minimum(np.searchsorted(keys, packed), len(keys) - 1)
            known = keys[place] == packed
            result = np.where(known, ids[place], np.uint8(UNLABELLED))
            strange = packed[~known]
        else:
            result = np.asarray(cv2.LUT(stored, table), np.uint8)
            strange = stored[cv2.LUT(stored, lacks) > 0] if lacks.any() else stored[:0]
        values, counts = np.unique(strange, return_counts=True)
        form = '#{:06x}' if self.color else '{}'
        return result, {form.format(value): int(n) for value, n in zip(values, counts)}


@lru_cache(maxsize=32)
def _tables(label_map: LabelMap) -> tuple[npt.NDArray[np.uint32], Bytes, Bytes, Bytes]:
    """Return stored values (ascending) and their ids; ids and gaps of all values below 256."""
    stored, ids = zip(*label_map.entries)
    keys, values = np.array(stored, np.uint32), np.array(ids, np.uint8)
    table, lacks = np.full(256, UNLABELLED, np.uint8), np.ones(256, np.uint8)
    small = keys < 256
    table[keys[small]], lacks[keys[small]] = values[small], 0
    return keys, values, table, lacks


IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')
#: Folder beside pseudo-labels that holds a guess for every pixel, unsure ones as well.
SCENE = 'scene'
#: Share of the pixels of a colour-coded label image that may be of no known colour: soft rims.
STRAY_COLORS = 0.01


class DataError(ValueError):
    """A data set that is not where or what it was said to be."""


@dataclass(frozen=True, slots=True)
class LabelFile:
    """
    A label image and what its pixels mean.

    It is no path on purpose: whoever copied the file would lose the meaning. ``read_labels``
    reads it, ``write_labels`` writes what came out.
    """

    path: Path
    meaning: LabelMap

    def __str__(self) -> str:
        """Return the path, for messages."""
        return str(self.path)

    def read_bytes(self) -> bytes:
        """Return the file's content, for a hash of it."""
        return self.path.read_bytes()

    def stores_ids(self) -> bool:
        """Tell whether the file's own bytes are a PNG of ids of the taxonomy in use."""
        ids = not self.meaning.color and all(a == b for a, b in self.meaning.entries)
        return ids and self.path.suffix == '.png'


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Where a picture and its labels lie, and where it comes from."""

    image: Path
    label: Path | LabelFile | None = None
    """What ``read_labels`` makes uint8 [H, W] ids of; None where there is none. A bare path is a
    single-channel PNG of ids of the taxonomy in use, 255 = not labelled."""
    source: str = ''
    """The camera or drive; scores are split by it and bootstrapped over it."""
    light: str | None = None
    """'day', 'dusk' or 'night' where the data set says so."""
    scene: Path | LabelFile | None = None
    """Labels with a guess where ``label`` has a gap: a synthetic night is made by them."""


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Return uint8 [H, W, 3] RGB; ``DataError`` where the file is no image, or not a whole one."""
    try:
        image, order = decode_file(path.read_bytes())
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}") from error
    except FrameError as error:
        raise DataError(
            f"'{path}' cannot be read as an image; remove or replace the file ({error})"
        ) from error
    if order == 'rgb':
        return image
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_labels(label: Path | LabelFile) -> npt.NDArray[np.uint8]:
    """
    Return uint8 [H, W] ids, 255 = not labelled.

    ``DataError`` where the file is no whole label image, and where it holds ids that nobody gave
    a meaning: those of another taxonomy would train a network on the wrong classes. Up to
    ``STRAY_COLORS`` of a colour-coded image may be of no known colour.
    """
    if isinstance(label, Path):
        return read_stored(label, color=False)
    ids, unknown = label.meaning.decode(read_stored(label.path, color=label.meaning.color))
    allowed = STRAY_COLORS * ids.size if label.meaning.color else 0
    if sum(unknown.values()) > allowed:
        raise DataError(f"'{label}' {describe_unknown(unknown, label.meaning)}")
    return ids


def describe_unknown(unknown: dict[str, int], meaning: LabelMap) -> str:
    """Say which stored values have no meaning, the most frequent first."""
    first = sorted(unknown, key=lambda value: -unknown[value])[:5]
    more = ', …' if len(unknown) > len(first) else ''
    return (
        f'holds {"colours" if meaning.color else "ids"} {", ".join(first)}{more} that mean '
        f"nothing in '{meaning.taxonomy}'; is it labelled for another taxonomy?"
    )


def read_stored(path: Path, *, color: bool) -> npt.NDArray[np.uint8]:
    """
    Return a label image as it is stored: uint8 [H, W] ids, or uint8 [H, W, 3] RGB if ``color``.

    ``DataError`` where the file is no whole 8-bit image of that kind.
    """
    try:
        content = path.read_bytes()
        picture_size(content)
        stored = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}") from error
    except (ValueError, cv2.error) as error:
        raise DataError(
            f"'{path}' cannot be read as a label image; remove or replace the file ({error})"
        ) from error
    if stored is None:
        raise DataError(f"'{path}' cannot be read as a label image; remove or replace the file")
    if stored.dtype == np.uint8 and color and stored.ndim == 3:
        return np.asarray(stored[..., 2::-1], np.uint8)
    if stored.dtype == np.uint8 and not color and stored.ndim == 3 and not _is_palette(content):
        first = stored[..., 0]
        if stored.shape[2] == 3 and (stored == first[..., None]).all():
            # ids that were saved as a grey RGB image
            return np.ascontiguousarray(first, np.uint8)
    if stored.dtype != np.uint8 or color or stored.ndim != 2:
        wanted = 'RGB colours' if color else 'single-channel uint8 ids'
        palette = ' with a palette' if _is_palette(content) else ''
        raise DataError(f"'{path}' is {stored.dtype} {stored.shape}{palette}; labels are {wanted}")
    return np.asarray(stored, np.uint8)


def _is_palette(content: bytes) -> bool:
    """Tell a PNG of palette indices, which OpenCV unfolds into colours."""
    return content.startswith(b'\x89PNG') and len(content) > 25 and content[25] == 3


def encode_labels(labels: npt.NDArray[np.uint8]) -> bytes:
    """Return uint8 [H, W] ids as a PNG."""
    if labels.dtype != np.uint8 or labels.ndim != 2:
        raise DataError(f'labels are uint8 [H, W], got {labels.dtype} {labels.shape}')
    return cv2.imencode('.png', labels)[1].tobytes()


def write_labels(path: Path, labels: npt.NDArray[np.uint8]) -> None:
    """Write uint8 [H, W] ids as a PNG, whole or not at all; ``OSError`` where the disk is full."""
    replace_file(path, encode_labels(labels))
