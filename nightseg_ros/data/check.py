# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Look at every file of data sets before a training does: all that is wrong, and what to do.

Pictures that show the same, copies that were scaled, brightened or packed anew and neighbours, are
found by a perceptual hash and confirmed by the correlation of tiny grey pictures. On the road
images that this was set on, frames 1/15 s apart and altered copies were at most 8 bits apart and
correlated by 0.9 or more; the nearest pictures of different places were 10 bits apart.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nightseg_ros.data.datasets import Listing, list_dataset, parse_spec
from nightseg_ros.data.sample import (
    STRAY_COLORS,
    DataError,
    LabelFile,
    Sample,
    describe_unknown,
    read_image,
    read_stored,
)
from nightseg_ros.taxonomy import CAMVID11, UNLABELLED, Taxonomy

Bytes = npt.NDArray[np.uint8]

#: Bits of 63 that may differ.
MAX_DISTANCE = 8
#: Least correlation of the tiny pictures, -1 to 1.
MIN_CORRELATION = 0.9
SIDE = 32


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What is kept of a picture: 1 KB."""

    bits: int
    """63 bits: which of the lowest 8×8 cosine coefficients lie above their median."""
    tiny: bytes
    """uint8 [32, 32] grey."""


def fingerprint(image: Bytes) -> Fingerprint:
    """Return the fingerprint of uint8 [H, W, 3] RGB of any size."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    tiny = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    low = cv2.dct(tiny.astype(np.float32))[:8, :8].ravel()[1:]
    bits = np.packbits(np.append(False, low > np.median(low)))
    return Fingerprint(int.from_bytes(bits.tobytes(), 'big'), tiny.tobytes())


def nearest_pairs(left: list[Fingerprint], right: list[Fingerprint]) -> list[tuple[int, int, int]]:
    """
    Return (index in left, index in right, differing bits) of each left picture with a likeness.

    Only its nearest one in ``right`` is given.
    """
    if not left or not right:
        return []
    ones = _ones()
    others = np.array([f.bits for f in right], np.uint64)
    tiny = _normalized(right)
    pairs = []
    for index, (one, normal) in enumerate(zip(left, _normalized(left))):
        differing = (others ^ np.uint64(one.bits)).view(np.uint16).reshape(-1, 4)
        distance = ones[differing].sum(axis=1)
        near = np.flatnonzero(distance <= MAX_DISTANCE)
        near = near[tiny[near] @ normal >= MIN_CORRELATION]
        if near.size:
            best = int(near[distance[near].argmin()])
            pairs.append((index, best, int(distance[best])))
    return pairs


@lru_cache(maxsize=1)
def _ones() -> Bytes:
    """Return uint8 [65536]: how many bits of each 16-bit number are set."""
    numbers = np.arange(1 << 16, dtype='<u2').view(np.uint8).reshape(-1, 2)
    return np.asarray(np.unpackbits(numbers, axis=1).sum(axis=1), np.uint8)


def _normalized(prints: list[Fingerprint]) -> npt.NDArray[np.float32]:
    """Return float32 [N, 1024] of mean 0 and length 1."""
    tiny = np.frombuffer(b''.join(p.tiny for p in prints), np.uint8)
    rows = tiny.reshape(len(prints), SIDE * SIDE).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(length, 1e-6), np.float32)


#: Every kind of problem, and what to do about it.
ADVICE = {
    'cannot be opened': 'give the folder that the download unpacks into, and a split that it has',
    'label missing': 'add the label image, or move the picture out of the data set',
    'picture missing': 'add the picture, or remove the label; it is not used',
    'picture unreadable': 'copy the file again, or remove it with its label',
    'label unreadable': 'copy the file again, or remove it with its picture; ids are 8-bit PNG',
    'sizes differ': 'a label has a value for each pixel: resize it (nearest neighbour), or find '
    'the picture that it was drawn on',
    'ids without a meaning': 'give the --taxonomy that they are labelled for; a folder of your '
    'own may have a taxonomy.json',
    'nothing labelled': 'label it, or remove it: it teaches nothing',
    'blank picture': 'remove it: every pixel is nearly the same',
    'same name twice': 'rename one: labels and results are named after the picture',
    'near-duplicate': 'put both into the same split: a score on pictures that were trained on is '
    'too good',
}
#: Sets smaller than this are read faster by this process than by others that must start first.
_FEW = 64


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    kind: str
    """Key of ``ADVICE``."""
    dataset: str
    where: str
    detail: str = ''


@dataclass(kw_only=True, slots=True)
class Summary:
    """What a data set holds."""

    spec: str
    images: int = 0
    labelled: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    """Pictures by width×height."""
    lights: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    stray_colors: int = 0
    """Label images with a few pixels of no known colour, which are read as unlabelled."""
    pixels: Any = field(default_factory=lambda: np.zeros(256, np.int64))
    """int64 [256]: pixels of each id."""

    def to_dict(self, taxonomy: Taxonomy) -> dict[str, Any]:
        """Return it in JSON types; class shares are of the labelled pixels."""
        known = self.pixels[: len(taxonomy)]
        shares = known / max(1, int(known.sum()))
        void = self.pixels[UNLABELLED] / max(1, int(self.pixels.sum()))
        return {
            'spec': self.spec,
            'images': self.images,
            'labelled': self.labelled,
            'sizes': dict(self.sizes.most_common()),
            'lights': dict(self.lights.most_common()),
            'sources': dict(self.sources.most_common()),
            'stray_colors': self.stray_colors,
            'unlabelled_share': round(float(void), 4) if self.labelled else None,
            'class_shares': {
                name: round(float(share), 6) for name, share in zip(taxonomy.classes, shares)
            }
            if self.labelled
            else None,
        }


@dataclass(kw_only=True, slots=True)
class Report:
    """What a check found."""

    taxonomy: Taxonomy
    datasets: list[Summary]
    problems: list[Problem]

    def to_dict(self) -> dict[str, Any]:
        """Return it in JSON types."""
        counts = Counter(problem.kind for problem in self.problems)
        return {
            'version': 1,
            'taxonomy': self.taxonomy.name,
            'datasets': [summary.to_dict(self.taxonomy) for summary in self.datasets],
            'counts': {kind: counts[kind] for kind in ADVICE if counts[kind]},
            'problems': [
                {'kind': p.kind, 'dataset': p.dataset, 'where': p.where, 'detail': p.detail}
                for p in self.problems
            ],
            'advice': {kind: ADVICE[kind] for kind in ADVICE if counts[kind]},
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What one sample's files showed."""

    size: tuple[int, int] | None = None
    """Height and width of the picture."""
    prints: Fingerprint | None = None
    pixels: Any = None
    """int64 [256], or None where there is no label that could be read."""
    stray: bool = False
    problems: tuple[tuple[str, str, str], ...] = ()
    """Kind, where, detail."""


def check_datasets(
    specs: Sequence[str],
    taxonomy: Taxonomy = CAMVID11,
    *,
    workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """
    Read every file of some data sets and return what they hold and what is wrong.

    ``workers`` 0 takes a process for each CPU; their number changes nothing in the result.
    ``DataError`` where a spec names no adapter.
    """
    for spec in specs:
        parse_spec(spec)
    problems: list[Problem] = []
    listings: dict[str, Listing] = {}
    for spec in dict.fromkeys(specs):
        try:
            listings[spec] = list_dataset(spec, taxonomy)
        except DataError as error:
            problems.append(Problem('cannot be opened', spec, spec, str(error)))
    samples = [(spec, s) for spec, listing in listings.items() for s in listing.samples]
    summaries = {spec: Summary(spec=spec) for spec in listings}
    prints: dict[str, list[tuple[Path, Fingerprint]]] = {spec: [] for spec in listings}
    looks = _looks([sample for _, sample in samples], workers)
    for number, ((spec, sample), look) in enumerate(zip(samples, looks), start=1):
        _count(summaries[spec], sample, look)
        problems += [Problem(kind, spec, where, detail) for kind, where, detail in look.problems]
        if look.prints is not None:
            prints[spec].append((sample.image, look.prints))
        progress(number, len(samples))
    for spec, listing in listings.items():
        problems += [Problem('picture missing', spec, str(path)) for path in listing.orphans]
        problems += _same_names(spec, listing.samples)
    problems += _near_duplicates(prints)
    order = list(ADVICE)
    problems.sort(key=lambda problem: order.index(problem.kind))
    return Report(taxonomy=taxonomy, datasets=list(summaries.values()), problems=problems)


def look_at(sample: Sample) -> Look:
    """Read a sample's files."""
    problems = []
    size = prints = None
    try:
        image = read_image(sample.image)
    except DataError as error:
        problems.append(('picture unreadable', str(sample.image), str(error)))
    else:
        size = (image.shape[0], image.shape[1])
        prints = fingerprint(image)
        if np.frombuffer(prints.tiny, np.uint8).std() < 1.0:
            problems.append(('blank picture', str(sample.image), ''))
            prints = None  # nothing to recognise it by
    label = sample.label
    if label is None:
        return Look(size=size, prints=prints, problems=tuple(problems))
    path = label.path if isinstance(label, LabelFile) else label
    if not path.is_file():
        problems.append(('label missing', str(sample.image), str(path)))
        return Look(size=size, prints=prints, problems=tuple(problems))
    unknown: dict[str, int] = {}
    try:
        if isinstance(label, LabelFile):
            stored = read_stored(path, color=label.meaning.color)
            ids, unknown = label.meaning.decode(stored)
        else:
            ids = read_stored(path, color=False)
    except DataError as error:
        problems.append(('label unreadable', str(path), str(error)))
        return Look(size=size, prints=prints, problems=tuple(problems))
    strange = sum(unknown.values())
    if isinstance(label, LabelFile) and unknown:
        allowed = STRAY_COLORS * ids.size if label.meaning.color else 0
        if strange > allowed:
            problems.append(
                ('ids without a meaning', str(path), describe_unknown(unknown, label.meaning))
            )
    if size is not None and ids.shape != size:
        detail = f'{_size(ids.shape)}, its picture {_size(size)}'
        problems.append(('sizes differ', str(path), detail))
    pixels = np.bincount(ids.ravel(), minlength=256)
    if pixels[UNLABELLED] == ids.size and not unknown:
        problems.append(('nothing labelled', str(path), ''))
    return Look(
        size=size, prints=prints, pixels=pixels, stray=strange > 0, problems=tuple(problems)
    )


def _looks(samples: list[Sample], workers: int) -> Iterator[Look]:
    """Yield a look at each sample, in order."""
    workers = min(workers or os.cpu_count() or 1, len(samples) // _FEW + 1)
    if workers == 1:
        yield from map(look_at, samples)
        return
    # a fork would copy the locks of threads that this process may have
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, context, _start) as pool:
        rest = iter(samples)
        try:
            # a piece at a time, so that an interruption has little to wait for
            while piece := list(islice(rest, 64 * workers)):
                yield from pool.map(look_at, piece, chunksize=8)
        except BrokenProcessPool as error:
            raise DataError(
                'a process that reads files died, perhaps for want of memory; use --workers 1'
            ) from error


def _start() -> None:
    # Ctrl-C is for the process that waits for this one
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def _count(summary: Summary, sample: Sample, look: Look) -> None:
    summary.images += 1
    if look.size is not None:
        summary.sizes[_size(look.size)] += 1
    summary.lights[sample.light or 'unknown'] += 1
    summary.sources[sample.source] += 1
    summary.stray_colors += look.stray
    if look.pixels is not None:
        summary.labelled += 1
        summary.pixels += look.pixels


def _size(shape: tuple[int, ...]) -> str:
    return f'{shape[1]}×{shape[0]}'


def _same_names(spec: str, samples: list[Sample]) -> list[Problem]:
    first: dict[str, Path] = {}
    problems = []
    for sample in samples:
        other = first.setdefault(sample.image.stem, sample.image)
        if other is not sample.image:
            problems.append(Problem('same name twice', spec, str(sample.image), str(other)))
    return problems


def _near_duplicates(prints: dict[str, list[tuple[Path, Fingerprint]]]) -> list[Problem]:
    """Compare each data set with those that come after it."""
    problems = []
    for left, right in combinations(prints, 2):
        pairs = nearest_pairs([p for _, p in prints[left]], [p for _, p in prints[right]])
        for index, other, distance in pairs:
            detail = f'{prints[right][other][0]} of {right}, {distance} of 63 bits apart'
            problems.append(Problem('near-duplicate', left, str(prints[left][index][0]), detail))
    return problems
