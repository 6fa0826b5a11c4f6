# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What the pixels of label images mean; a picture of a data set, and the one reader of its files.

An encoding tells what the stored values are called. A name that covers several classes of a
taxonomy, or none of them for certain, means nothing in it, and its pixels become unlabelled rather
than wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
import struct
from typing import NamedTuple
from unicodedata import normalize
import zlib

import cv2
from nightseg_ros.files import LOG
from nightseg_ros.perception.frame import check_picture, decode_file, FrameError, PNG
from nightseg_ros.taxonomy import CAMVID11, CITYSCAPES19, TAXONOMIES, Taxonomy, UNLABELLED
import numpy as np
import numpy.typing as npt

#: uint8 pixels of a picture, or ids of its labels.
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class LabelMap:
    """A small, hashable table from stored values to ids of one taxonomy, 255 = not labelled."""

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
        if not self.color:
            means = dict(self.entries)
            table = np.array([means.get(value, UNLABELLED) for value in range(256)], np.uint8)
            counts = np.bincount(stored.ravel(), minlength=256).tolist()
            unknown = {str(value): n for value, n in enumerate(counts) if n and value not in means}
            return np.asarray(cv2.LUT(stored, table), np.uint8), unknown
        keys, ids = np.array(self.entries, np.uint32).T
        packed = stored.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        place = np.minimum(np.searchsorted(keys, packed), len(keys) - 1)
        known = keys[place] == packed
        values, numbers = np.unique(packed[~known], return_counts=True)
        result = np.where(known, ids[place], UNLABELLED).astype(np.uint8)
        return result, {f'#{value:06x}': int(n) for value, n in zip(values, numbers)}


# -- what label images store -----------------------------------------------------------------


class Encoding(NamedTuple):
    """How the label images of a data set store class names."""

    vocabulary: str
    """First part of a key of ``MEANINGS``, or a taxonomy's name."""
    names: Mapping[int, str]
    """By id, or by colour as 0xRRGGBB."""
    color: bool = False


#: Cityscapes' labels by id (Cordts et al. 2016); KITTI and NightCity took them over.
CITYSCAPES_IDS = Encoding('cityscapes', dict(enumerate((
    'unlabeled', 'ego vehicle', 'rectification border', 'out of roi', 'static', 'dynamic',
    'ground', 'road', 'sidewalk', 'parking', 'rail track', 'building', 'wall', 'fence',
    'guard rail', 'bridge', 'tunnel', 'pole', 'polegroup', 'traffic light', 'traffic sign',
    'vegetation', 'terrain', 'sky', 'person', 'rider', 'car', 'truck', 'bus', 'caravan',
    'trailer', 'train', 'motorcycle', 'bicycle',
))))  # fmt: skip

#: The ids that Cityscapes evaluates; ACDC, Dark Zurich, BDD100K and others store them.
CITYSCAPES_TRAIN_IDS = Encoding('cityscapes', dict(enumerate(CITYSCAPES19.classes)))

#: CamVid's 11 classes as SegNet's copy of it stores them; 11 is unlabelled there.
SEGNET_IDS = Encoding('camvid11', dict(enumerate((*CAMVID11.classes, 'unlabelled'))))

#: CamVid's 32 classes as the original label images store them (Brostow et al. 2009).
CAMVID32_COLORS = Encoding('camvid32', {
    0x408040: 'animal', 0xC00080: 'archway', 0x0080C0: 'bicyclist', 0x008040: 'bridge',
    0x800000: 'building', 0x400080: 'car', 0x4000C0: 'cart luggage pram', 0xC08040: 'child',
    0xC0C080: 'column pole', 0x404080: 'fence', 0x8000C0: 'lane marking, drivable',
    0xC00040: 'lane marking, other', 0x808040: 'misc text', 0xC000C0: 'motorcycle scooter',
    0x804040: 'other moving', 0x40C080: 'parking block', 0x404000: 'pedestrian', 0x804080: 'road',
    0x8080C0: 'road shoulder', 0x0000C0: 'sidewalk', 0xC08080: 'sign symbol', 0x808080: 'sky',
    0x4080C0: 'suv pickup truck', 0x000040: 'traffic cone', 0x004040: 'traffic light',
    0xC04080: 'train', 0x808000: 'tree', 0xC080C0: 'truck bus', 0x400040: 'tunnel',
    0xC0C000: 'vegetation misc', 0x000000: 'void', 0x40C000: 'wall',
}, color=True)  # fmt: skip

#: comma10k's five categories.
COMMA10K_COLORS = Encoding('comma10k', {
    0x402020: 'road', 0xFF0000: 'lane marking', 0x808060: 'undrivable', 0x00FF66: 'movable',
    0xCC00FF: 'ego car',
}, color=True)  # fmt: skip

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


def label_map(encoding: Encoding, taxonomy: Taxonomy) -> LabelMap:
    """
    Return the table from what a data set stores to ids of ``taxonomy``.

    A vocabulary that is not known here, a user's own, is taken by its names. In an image of ids
    255 means 'not labelled' whatever else is in it. ``DataError`` where none of its names has a
    meaning in the taxonomy.
    """
    # the names of this taxonomy are words of the vocabulary that it was taken from
    vocabulary = encoding.vocabulary.replace('cityscapes19', 'cityscapes')
    known = {name for name, _ in MEANINGS} | set(TAXONOMIES)
    if encoding.vocabulary == taxonomy.name or vocabulary not in known:
        means = {name: name for name in encoding.names.values() if name in taxonomy.classes}
    else:
        means = MEANINGS.get((vocabulary, taxonomy.name), {})
    if not means:
        readable = [to for name, to in MEANINGS if name == vocabulary]
        raise DataError(
            f"its labels ('{encoding.vocabulary}') mean nothing in the taxonomy "
            f"'{taxonomy.name}'; they do in {readable or 'none that is known here'}"
        )
    own = vocabulary not in known
    if own and (lost := [name for name in encoding.names.values() if name not in means]):
        _warn_of_lost(', '.join(lost), encoding.vocabulary, taxonomy.name)
    table = {
        value: taxonomy.id_of(means[name]) if name in means else UNLABELLED
        for value, name in encoding.names.items()
    }
    if not encoding.color:
        table[UNLABELLED] = UNLABELLED
    return LabelMap(taxonomy.name, tuple(sorted(table.items())), color=encoding.color)


@lru_cache
def _warn_of_lost(names: str, vocabulary: str, taxonomy: str) -> None:
    text = "labels: %s of '%s' are no classes of '%s' and become 255"
    LOG.warning(text, names, vocabulary, taxonomy)


def own_ids(taxonomy: Taxonomy) -> Encoding:
    """Return the encoding of label images that store a taxonomy's own ids."""
    return Encoding(taxonomy.name, dict(enumerate(taxonomy.classes)))


# -- files -----------------------------------------------------------------------------------

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.jfif', '.png', '.bmp', '.webp', '.tif', '.tiff')
#: Folder beside pseudo-labels that holds a guess for every pixel, unsure ones as well.
SCENE = 'scene'
#: Share of the pixels of a colour-coded label image that may be of no known colour: soft rims.
STRAY_COLORS = 0.01


class DataError(ValueError):
    """A data set that is not where or what it was said to be."""


@dataclass(frozen=True, slots=True)
class LabelFile:
    """A label image and what its pixels mean; no path on purpose: a copy would lose that."""

    path: Path
    meaning: LabelMap

    def __str__(self) -> str:
        return str(self.path)

    def stores_ids(self) -> bool:
        """Tell whether the file's own bytes are a PNG of ids of the taxonomy in use."""
        ids = not self.meaning.color and all(a == b for a, b in self.meaning.entries)
        return ids and self.path.suffix == '.png'


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Where a picture and its labels lie, and where it comes from."""

    image: Path
    label: LabelFile | None = None
    """What ``read_labels`` makes uint8 [H, W] ids of; None where there is none."""
    source: str = ''
    """The camera or drive; scores are split by it and bootstrapped over it."""
    light: str | None = None
    """'day', 'dusk' or 'night' where the data set says so."""
    scene: LabelFile | None = None
    """Labels with a guess where ``label`` has a gap: a synthetic night is made by them."""


def labelled(samples: Sequence[Sample], why: str) -> list[Sample]:
    """Return the samples; ``DataError`` names the first without labels, and why it needs them."""
    for sample in samples:
        if sample.label is None:
            raise DataError(f"'{sample.image}' has no labels; {why}")
    return list(samples)


def read_pair(sample: Sample) -> tuple[Bytes, Bytes]:
    """Return picture and ids of one size, 255 everywhere where there are no labels."""
    image = read_image(sample.image)
    if sample.label is None:
        return image, np.full(image.shape[:2], UNLABELLED, np.uint8)
    return image, labels_of(sample.label, image)


def labels_of(label: Path | LabelFile, image: Bytes) -> Bytes:
    """Return what ``read_labels`` does; ``DataError`` where it is not of the image's size."""
    labels = read_labels(label)
    if image.shape[:2] != labels.shape:
        raise DataError(
            f"'{label}' is {labels.shape}, its image {image.shape[:2]}; sizes must agree"
        )
    return labels


def read_image(path: Path) -> Bytes:
    """Return uint8 [H, W, 3] RGB, upright; ``DataError`` where the file is no whole image."""
    try:
        image, _ = decode_file(path.read_bytes(), upright=True)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}") from error
    except FrameError as error:
        raise DataError(
            f"'{path}' cannot be read as an image; remove or replace the file ({error})"
        ) from error
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_labels(label: Path | LabelFile) -> Bytes:
    """
    Return uint8 [H, W] ids, 255 = not labelled.

    A bare path is a single-channel PNG of ids of the taxonomy in use. ``DataError`` where the file
    is no whole label image, and where it holds ids that nobody gave a meaning: those of another
    taxonomy would train a network on the wrong classes. Up to ``STRAY_COLORS`` of a colour-coded
    image may be of no known colour.
    """
    if isinstance(label, Path):
        return read_stored(label, color=False)
    ids, unknown = label.meaning.decode(read_stored(label.path, color=label.meaning.color))
    if text := describe_unknown(unknown, ids.size, label.meaning):
        raise DataError(f"'{label}' {text}")
    return ids


def describe_unknown(unknown: dict[str, int], pixels: int, meaning: LabelMap) -> str:
    """Say which stored values have no meaning, the most frequent first; '' for stray colours."""
    if sum(unknown.values()) <= (STRAY_COLORS * pixels if meaning.color else 0):
        return ''
    first = sorted(unknown, key=lambda value: -unknown[value])[:5]
    more = ', …' if len(unknown) > len(first) else ''
    return (
        f'holds {"colours" if meaning.color else "ids"} {", ".join(first)}{more} that mean '
        f"nothing in '{meaning.taxonomy}'; is it labelled for another taxonomy?"
    )


def label_files(folder: Path) -> dict[str, Path]:
    """Return the visible PNGs of a folder by their stems, which macOS writes in another form."""
    found = sorted(folder.glob('[!.]*.[pP][nN][gG]'))
    return {normalize('NFC', path.stem): path for path in found}


def read_stored(path: Path, *, color: bool) -> Bytes:
    """Return a label image as it is stored, as ``decode_stored`` does."""
    try:
        return decode_stored(path.read_bytes(), str(path), color=color)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}") from error


def decode_stored(content: bytes, name: str, *, color: bool) -> Bytes:
    """
    Return a label image as it is stored: uint8 [H, W] ids, or uint8 [H, W, 3] RGB if ``color``.

    Ids are the values of the file: of a PNG with a palette the indices, of one with 1, 2 or 4
    bits what they count. ``DataError`` where ``content`` is no whole image of that kind, changes
    ids, or has one above 255.
    """
    try:
        check_picture(content)
        content, factor = (content, 1) if color else _plain_grey(content)
        stored = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if stored is None:
            raise ValueError('it is no picture')
    except (ValueError, cv2.error) as error:
        raise DataError(
            f"'{name}' cannot be read as a label image; remove or replace the file ({error})"
        ) from error
    if color and stored.dtype == np.uint8 and stored.ndim == 3:
        return np.asarray(stored[..., 2::-1], np.uint8)
    lossy_webp = content.startswith(b'RIFF') and b'VP8L' not in content
    if not color and (content.startswith(b'\xff\xd8') or lossy_webp):
        raise DataError(
            f"'{name}' is a JPEG or lossy WebP, which changes ids; write labels as PNG"
        )
    ids = stored
    if ids.ndim == 3 and (ids[..., :3] == ids[..., :1]).all() and (ids[..., 3:] == 255).all():
        # ids that were saved as a grey RGB image, perhaps with an opaque alpha
        ids = ids[..., 0]
    if color or ids.ndim != 2 or ids.dtype not in (np.uint8, np.uint16) or ids.max() > 255:
        wanted = 'RGB colours' if color else 'single-channel ids up to 255'
        raise DataError(
            f"'{name}' is {stored.dtype} {stored.shape} up to {stored.max()}; labels are {wanted}"
        )
    return np.ascontiguousarray(ids if factor == 1 else ids // factor, np.uint8)


def _plain_grey(content: bytes) -> tuple[bytes, int]:
    """
    Return a whole PNG of grey or of a palette as one of grey alone, and its values per id.

    OpenCV turns indices into their palette's colours, and stretches fewer than 8 bits to 0–255.
    """
    grey, palette = 0, 3
    bits, color_type = content[24:26]
    known = bits in (1, 2, 4, 8) and color_type in (grey, palette)
    if not known or not content.startswith(PNG):
        return content, 1
    parts, at = [PNG], len(PNG)
    while at + 8 <= len(content):
        length, kind = struct.unpack_from('>I4s', content, at)
        start, at = at, at + 12 + length
        chunk = content[start:at]
        if kind == b'IHDR':
            head = chunk[4:17] + bytes((grey,)) + chunk[18:-4]
            chunk = chunk[:4] + head + struct.pack('>I', zlib.crc32(head))
        if kind in (b'IHDR', b'IDAT', b'IEND'):
            parts.append(chunk)
        if kind == b'IEND':
            break
    return b''.join(parts), 255 // (2**bits - 1)


def encode_labels(labels: Bytes) -> bytes:
    """Return uint8 [H, W] ids as a PNG."""
    return cv2.imencode('.png', labels)[1].tobytes()
