# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Look at every file of data sets before a training does: all that is wrong, and what to do.

Pictures that show the same, copies that were scaled, brightened or packed anew and neighbours, are
found by a perceptual hash. On the road images that this was set on, frames 1/15 s apart and
altered copies were at most 8 bits apart, the nearest pictures of different places 10 bits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
import os
from pathlib import Path
from typing import Any

import cv2
from nightseg_ros.data.datasets import list_dataset, parse_spec
from nightseg_ros.data.sample import (
    Bytes,
    DataError,
    describe_unknown,
    labels_of,
    read_image,
    read_stored,
    Sample,
)
from nightseg_ros.perception.frame import decode_file
from nightseg_ros.taxonomy import CAMVID11, Taxonomy, UNLABELLED
import numpy as np
import numpy.typing as npt

Fingerprint = npt.NDArray[np.bool_]
Prints = dict[Path, Fingerprint]

#: Every kind of problem, and what to do about it.
ADVICE = {
    'cannot be opened': 'give the folder that the download unpacks into, and a split that it has',
    'label missing': 'add the label image, or move the picture out of the data set',
    'picture missing': 'add the picture, or remove the label; it is not used',
    'picture unreadable': 'copy the file again, or remove it with its label',
    'label unreadable': 'copy the file again, or remove it with its picture; ids are 8-bit PNG',
    'sizes differ': 'a label has a value for each pixel: resize it (nearest neighbour), or find '
    'the picture that it was drawn on',
    'turned': 'the picture is read upright, as its EXIF orientation says: turn the label as well, '
    'or write the picture anew without that orientation',
    'ids without a meaning': 'give the --taxonomy that they are labelled for; a folder of your '
    'own may have a taxonomy.json',
    'nothing labelled': 'label it, or remove it: it teaches nothing',
    'blank picture': 'remove it: every pixel is nearly the same',
    'same name twice': 'rename one: labels and results are named after the picture',
    'near-duplicate': 'put both into the same split: a score on pictures that were trained on is '
    'too good',
}


def check_datasets(
    specs: Sequence[str],
    taxonomy: Taxonomy = CAMVID11,
    *,
    workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """
    Read every file of some data sets; return what they hold and what is wrong, in JSON types.

    Each of ``problems`` has its kind, a key of ``ADVICE``, its data set, a place and a detail.
    ``workers`` 0 takes a thread for each CPU; their number changes nothing in the result.
    ``DataError`` where a spec names no adapter.
    """
    for spec in specs:
        parse_spec(spec)
    problems: list[tuple[str, ...]] = []
    samples: list[tuple[str, Sample]] = []
    found: dict[str, list[tuple[Sample, CheckedSample]]] = {}
    for spec in dict.fromkeys(specs):
        try:
            listed, orphans = list_dataset(spec, taxonomy)
        except DataError as error:
            problems.append(('cannot be opened', spec, spec, str(error)))
            continue
        found[spec] = []
        samples += [(spec, sample) for sample in listed]
        problems += [('picture missing', spec, str(path), '') for path in orphans]
        first: dict[str, Path] = {}
        for image in (sample.image for sample in listed):
            other = first.setdefault(image.stem, image)
            if other is not image:
                problems.append(('same name twice', spec, str(image), str(other)))
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        every = pool.map(_check_sample, (sample for _, sample in samples))
        for number, ((spec, sample), checked) in enumerate(zip(samples, every), start=1):
            found[spec].append((sample, checked))
            problems += [(kind, spec, *where) for kind, *where in checked.problems]
            progress(number, len(samples))
    # each data set with those that come after it
    for left, right in combinations(found, 2):
        ours, theirs = (
            {sample.image: one.prints for sample, one in found[spec] if one.prints is not None}
            for spec in (left, right)
        )
        for image, near, bits in nearest_pairs(ours, theirs):
            detail = f'{near} of {right}, {bits} of 63 bits apart'
            problems.append(('near-duplicate', left, str(image), detail))
    counts = Counter(kind for kind, *_ in problems)
    kinds = [kind for kind in ADVICE if counts[kind]]
    problems.sort(key=lambda problem: kinds.index(problem[0]))
    names = ('kind', 'dataset', 'where', 'detail')
    return {
        'version': 1,
        'taxonomy': taxonomy.name,
        'datasets': [{'spec': spec, **_summary(pairs, taxonomy)} for spec, pairs in found.items()],
        'counts': {kind: counts[kind] for kind in kinds},
        'problems': [dict(zip(names, problem)) for problem in problems],
        'advice': {kind: ADVICE[kind] for kind in kinds},
    }


def _summary(pairs: Sequence[tuple[Sample, CheckedSample]], taxonomy: Taxonomy) -> dict[str, Any]:
    """Return what a data set holds, in JSON types; class shares are of the labelled pixels."""
    read = [checked.pixels for _, checked in pairs if checked.pixels is not None]
    pixels = np.sum([np.zeros(256, np.int64), *read], axis=0)
    known = pixels[: len(taxonomy)]
    shares = dict(zip(taxonomy.classes, (known / max(1, known.sum())).tolist()))
    void = float(pixels[UNLABELLED] / max(1, pixels.sum()))
    sizes = Counter(_size(checked.size) for _, checked in pairs if checked.size is not None)
    return {
        'images': len(pairs),
        'labelled': len(read),
        'sizes': dict(sizes.most_common()),
        'lights': dict(Counter(sample.light or 'unknown' for sample, _ in pairs).most_common()),
        'sources': dict(Counter(sample.source for sample, _ in pairs).most_common()),
        'stray_colors': sum(checked.stray for _, checked in pairs),
        'unlabelled_share': round(void, 4) if read else None,
        'class_shares': {n: round(x, 6) for n, x in shares.items()} if read else None,
        'absent_classes': [n for n, x in shares.items() if not x] if read else None,
    }


# -- one sample ------------------------------------------------------------------------------


@dataclass(kw_only=True, slots=True)
class CheckedSample:
    """What one sample's files showed."""

    size: tuple[int, ...] | None = None
    """Height and width of the picture."""
    prints: Fingerprint | None = None
    pixels: Any = None
    """int64 [256], or None where there is no label that could be read."""
    stray: bool = False
    """Whether a few pixels have no known colour, which are read as unlabelled."""
    problems: list[tuple[str, str, str]] = field(default_factory=list)
    """Kind, where, detail."""


def _check_sample(sample: Sample) -> CheckedSample:
    found = CheckedSample()
    image = str(sample.image)
    try:
        picture = read_image(sample.image)
    except DataError as error:
        found.problems.append(('picture unreadable', image, str(error)))
    else:
        found.size = picture.shape[:2]
        found.prints = fingerprint(picture)
        if found.prints is None:
            found.problems.append(('blank picture', image, ''))
        if sample.scene is not None:
            try:
                labels_of(sample.scene, picture)
            except DataError as error:
                found.problems.append(('label unreadable', str(sample.scene), str(error)))
    if sample.label is None:
        return found
    path, meaning = sample.label.path, sample.label.meaning
    if not path.is_file():
        found.problems.append(('label missing', image, str(path)))
        return found
    try:
        ids, unknown = meaning.decode(read_stored(path, color=meaning.color))
    except DataError as error:
        found.problems.append(('label unreadable', str(path), str(error)))
        return found
    found.stray = bool(unknown) and meaning.color
    if text := describe_unknown(unknown, ids.size, meaning):
        found.problems.append(('ids without a meaning', str(path), text))
    if found.size is not None and ids.shape != found.size:
        detail = f'{_size(ids.shape)}, its picture {_size(found.size)}'
        kind = 'sizes differ'
        if ids.shape == found.size[::-1]:
            kind, detail = 'turned', f'{detail}: they fit turned by 90°'
        found.problems.append((kind, str(path), detail))
    elif found.size is not None and _fits_as_stored(sample.image, picture, ids):
        detail = 'its edges are those of the picture as it is stored'
        found.problems.append(('turned', str(path), detail))
    found.pixels = np.bincount(ids.ravel(), minlength=256)
    if found.pixels[UNLABELLED] == ids.size and not unknown:
        found.problems.append(('nothing labelled', str(path), ''))
    return found


def _fits_as_stored(path: Path, picture: Bytes, ids: Bytes) -> bool:
    """
    Tell labels [H, W] that fit a picture [H, W, 3] better without its EXIF orientation.

    On road images edges of labels were 2.0 to 3.0 times as steep as all, of turned ones below 1.7.
    """
    content = path.read_bytes()
    if not any(name in content for name in (b'Exif', b'eXIf', b'EXIF')):
        return False
    stored = np.ascontiguousarray(decode_file(content)[0][..., ::-1])
    return stored.shape == picture.shape and _fit(stored, ids) > 1.25 * _fit(picture, ids)


def _fit(picture: Bytes, ids: Bytes) -> float:
    """Return how steep uint8 [H, W, 3] is where labels meet, compared with everywhere."""
    square = np.ones((3, 3), np.uint8)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    slope = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, square)
    edges = cv2.morphologyEx(ids, cv2.MORPH_GRADIENT, square) > 0
    return float(slope[edges].mean() / max(slope.mean(), 1e-6)) if edges.any() else 0.0


def _size(shape: tuple[int, ...]) -> str:
    return f'{shape[1]}×{shape[0]}'


# -- pictures that show the same -------------------------------------------------------------

#: Bits of 63 that may differ.
MAX_DISTANCE = 8


def fingerprint(image: Bytes) -> Fingerprint | None:
    """Return the perceptual hash bool [63] of uint8 RGB: cosines above their median; or None."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    tiny = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA)
    if tiny.std() < 1.0:
        return None
    low = cv2.dct(tiny.astype(np.float32))[:8, :8].ravel()[1:]
    return np.asarray(low > np.median(low), np.bool_)


def nearest_pairs(left: Prints, right: Prints) -> Iterator[tuple[Path, Path, int]]:
    """Yield (left, right, differing bits) of each left picture and its nearest likeness."""
    if not right:
        return
    others, prints = [*right], np.stack([*right.values()])
    for image, one in left.items():
        distance = np.count_nonzero(prints != one, axis=1)
        best = int(distance.argmin())
        if distance[best] <= MAX_DISTANCE:
            yield image, others[best], int(distance[best])
