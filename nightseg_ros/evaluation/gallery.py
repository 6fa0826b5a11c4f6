# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The frames that a report shows: chosen while they pass, since nothing is decoded twice."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from nightseg_ros.data.pictures import write_picture
from nightseg_ros.perception.frame import Frame

Image = npt.NDArray[np.uint8]

#: Frames of each kind in a report.
BEST, MEDIAN, WORST, DIFFERENT, SPREAD = 3, 3, 3, 2, 6
#: Most frames of a lattice; from it come the median and the spread ones.
_LATTICE = 16
#: Frames of a drive in one moment look the same.
MOMENT_NS = 2_000_000_000
#: Bytes of pictures that are held in memory before they are written: most are replaced soon.
_HELD = 32_000_000


class Choice:
    """
    Which of the frames so far may still be shown: a function of their scores alone.

    Best and worst by mIoU, those in which configurations differ most, and an even lattice of the
    labelled ones (whose stride doubles as it fills), from which the median is taken. Without
    labels it is a lattice of all frames. Of a group (a moment of a drive) one frame of a kind is
    taken, since its neighbours look the same.
    """

    def __init__(self) -> None:
        """Start with no frame."""
        self._best, self._worst = _Highest(BEST), _Highest(WORST)
        self._different = _Highest(DIFFERENT)
        self._labelled = _Lattice()
        self._all = _Lattice()

    def add(self, index: int, group: int, mious: Sequence[float | None]) -> None:
        """Take the next frame's mIoU in each configuration; None without labels or mask."""
        self._all.add(index)
        first = mious[0]
        known = [value for value in mious if value is not None]
        if first is None:
            return
        self._labelled.add(index)
        self._best.add(first, group, index)
        self._worst.add(-first, group, index)
        if max(known) > min(known):
            self._different.add(max(known) - min(known), group, index)

    @property
    def wanted(self) -> set[int]:
        """The frames to keep."""
        if not self._labelled.kept:
            return set(self._all.kept)
        ranked = (self._best, self._worst, self._different)
        return {*self._labelled.kept, *(index for some in ranked for index in some.kept)}


class _Highest:
    """The frames of the highest values, one a group."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._frames: dict[int, tuple[float, int]] = {}

    @property
    def kept(self) -> list[int]:
        return [index for _, index in self._frames.values()]

    def add(self, value: float, group: int, index: int) -> None:
        if group not in self._frames or value > self._frames[group][0]:
            self._frames[group] = (value, index)
        if len(self._frames) > self._most:
            # of equals the later one goes
            del self._frames[min(self._frames, key=lambda g: (self._frames[g][0], -g))]


class _Lattice:
    def __init__(self) -> None:
        self.kept: list[int] = []
        self._stride = 1
        self._seen = 0

    def add(self, index: int) -> None:
        if self._seen % self._stride == 0:
            self.kept.append(index)
            if len(self.kept) > _LATTICE:
                self.kept = self.kept[::2]
                self._stride *= 2
        self._seen += 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A frame whose pictures were kept."""

    part: int
    index: int
    """Its number in the part."""
    group: int
    """Frames of one moment share it."""
    mious: tuple[float | None, ...]


def select(candidates: Sequence[Candidate], median: float | None) -> list[tuple[str, Candidate]]:
    """
    Return the frames to show, each once, with its kind.

    ``median`` is that of the first configuration's mIoU over all frames; None without labels.
    """
    rest = sorted(candidates, key=lambda item: (item.part, item.index))
    if median is None:
        step = max(1, math.ceil(len(rest) / SPREAD))
        return [('spread', item) for item in rest[::step]]
    scored = [(item, item.mious[0]) for item in rest if item.mious[0] is not None]
    middle = float(median)
    # of few frames, one of each kind rather than the best only
    few = max(1, len(scored) // 4)
    chosen: list[tuple[str, Candidate]] = []
    for kind, most, rank in (
        ('best', BEST, lambda value, item: -value),
        ('worst', WORST, lambda value, item: value),
        ('median', MEDIAN, lambda value, item: abs(value - middle)),
        ('different', DIFFERENT, lambda value, item: -_gap(item)),
    ):
        groups: set[tuple[int, int]] = set()
        for item, _ in sorted(scored, key=lambda pair: rank(pair[1], pair[0])):
            if len(groups) == min(most, few) or (kind == 'different' and _gap(item) <= 0):
                break
            if (item.part, item.group) not in groups:
                groups.add((item.part, item.group))
                chosen.append((kind, item))
        taken = {(item.part, item.index) for _, item in chosen}
        scored = [pair for pair in scored if (pair[0].part, pair[0].index) not in taken]
    return chosen


def _gap(item: Candidate) -> float:
    known = [value for value in item.mious if value is not None]
    return max(known) - min(known)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A frame with what is drawn beside it."""

    frame: Frame
    truth: Image | None
    masks: tuple[Image | None, ...]
    """One a configuration."""

    @property
    def bytes(self) -> int:
        """Size of its pictures in memory."""
        pictures = (self.frame.image, self.truth, *self.masks)
        return sum(picture.nbytes for picture in pictures if picture is not None)


def group_of(index: int, stamp_ns: int, sequence: bool) -> int:
    """Return the group of a frame: its moment in a drive, itself for a picture by itself."""
    return stamp_ns // MOMENT_NS if sequence else index


class Gallery:
    """Keeps the chosen frames in ``FOLDER/NNNNNN/``: image.jpg, truth.png, labels-I.png."""

    def __init__(self, folder: Path) -> None:
        """Take what an earlier process left there."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._choice = Choice()
        self._held: dict[int, Shown] = {}
        self._bytes = 0
        self._written = {int(path.name) for path in folder.iterdir() if path.name.isdigit()}

    @property
    def missing(self) -> set[int]:
        """The wanted frames whose pictures are neither written nor held."""
        return self._choice.wanted - self._written - self._held.keys()

    def add(self, index: int, group: int, mious: Sequence[float | None]) -> bool:
        """Take the scores of the next frame; tell whether its pictures are wanted."""
        self._choice.add(index, group, mious)
        return index in self._choice.wanted and index not in self._written

    def keep(self, index: int, shown: Shown) -> None:
        """Hold a wanted frame until it is written; what is no longer wanted makes room."""
        wanted = self._choice.wanted
        for other in self._held.keys() - wanted:
            self._bytes -= self._held.pop(other).bytes
        self._held[index] = shown
        self._bytes += shown.bytes
        if self._bytes > _HELD:
            self.flush()

    def flush(self) -> None:
        """Write what is held and still wanted; remove what no longer is."""
        wanted = self._choice.wanted
        for index in self._written - wanted:
            shutil.rmtree(self.folder / f'{index:06d}')
        self._written &= wanted
        for index, shown in self._held.items():
            if index in wanted:
                _write(self.folder / f'{index:06d}', shown)
                self._written.add(index)
        self._held.clear()
        self._bytes = 0


def _write(folder: Path, shown: Shown) -> None:
    """Write a frame's pictures; the folder gets its name when it is whole."""
    hidden = folder.with_name(f'.{folder.name}')
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.mkdir()
    image = shown.frame.image
    if shown.frame.order == 'bgr':
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
    write_picture(hidden / 'image.jpg', image)
    if shown.truth is not None:
        write_picture(hidden / 'truth.png', shown.truth)
    for number, mask in enumerate(shown.masks):
        if mask is not None:
            write_picture(hidden / f'labels-{number}.png', mask)
    shutil.rmtree(folder, ignore_errors=True)
    hidden.rename(folder)
