# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The frames that a report shows: chosen while they pass, since nothing is decoded twice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from nightseg_ros.data.pictures import Image, encode_picture
from nightseg_ros.perception.frame import Frame

#: Frames of each kind in a report.
BEST, MEDIAN, WORST, DIFFERENT, SPREAD = 3, 3, 3, 2, 6
#: Most frames of a lattice; from it come the median and the spread ones.
_LATTICE = 16
#: Frames of a drive in one moment look the same.
MOMENT_NS = 2_000_000_000
#: Bytes of pixels that are held before they are encoded: most frames are replaced soon.
_HELD = 32_000_000


def group_of(index: int, stamp_ns: int, sequence: bool) -> int:
    """Return the group of a frame: its moment in a drive, itself for an image by itself."""
    return stamp_ns // MOMENT_NS if sequence else index


class SampleChoice:
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
        self._labelled, self._all = _Lattice(), _Lattice()

    def add(self, index: int, group: int, mious: Sequence[float | None]) -> None:
        """Take the next frame's mIoU in each configuration; None without labels or mask."""
        self._all.add(index)
        first = mious[0]
        if first is None:
            return
        self._labelled.add(index)
        self._best.add(first, group, index)
        self._worst.add(-first, group, index)
        if _gap(mious) > 0:
            self._different.add(_gap(mious), group, index)

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
    """Every 2^n-th frame, at most ``_LATTICE`` of them."""

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


class SampleStore:
    """Holds the pictures of the chosen frames, encoded once they take much memory."""

    def __init__(self) -> None:
        """Start with no frame."""
        self._choice = SampleChoice()
        self._held: dict[int, dict[str, Image]] = {}
        self._encoded: dict[int, dict[str, bytes]] = {}

    def add(
        self, index: int, group: int, mious: Sequence[float | None],
        frame: Frame, truth: Image | None, masks: Sequence[Image | None],
    ) -> None:  # fmt: skip
        """Take the next frame with its scores, labels, and masks, one a configuration."""
        self._choice.add(index, group, mious)
        wanted = self._choice.wanted
        if index not in wanted:
            return
        for kept in (self._held, self._encoded):
            for other in kept.keys() - wanted:
                del kept[other]
        image = frame.image
        if frame.order == 'bgr':
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
        pictures = {'image.jpg': image, 'truth.png': truth}
        pictures |= {f'labels-{number}.png': mask for number, mask in enumerate(masks)}
        self._held[index] = {k: v for k, v in pictures.items() if v is not None}
        if sum(p.nbytes for some in self._held.values() for p in some.values()) > _HELD:
            self._encode()

    def files(self) -> dict[int, dict[str, bytes]]:
        """Return the files of each chosen frame by its number: image, truth and labels."""
        self._encode()
        return {
            index: files
            for index, files in sorted(self._encoded.items())
            if index in self._choice.wanted
        }

    def _encode(self) -> None:
        for index, pictures in self._held.items():
            self._encoded[index] = {
                name: encode_picture(name, picture) for name, picture in pictures.items()
            }
        self._held.clear()


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A frame whose pictures were kept."""

    shard: int
    index: int
    """Its number in the shard."""
    group: int
    """Frames of one moment share it."""
    mious: tuple[float | None, ...]


def select(candidates: Sequence[Candidate], median: float | None) -> list[tuple[str, Candidate]]:
    """
    Return the frames to show, each once, with its kind.

    ``median`` is that of the first configuration's mIoU over all frames; None without labels.
    """
    rest = sorted(candidates, key=lambda item: (item.shard, item.index))
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
        ('different', DIFFERENT, lambda value, item: -_gap(item.mious)),
    ):
        groups: set[tuple[int, int]] = set()
        for item, _ in sorted(scored, key=lambda pair: rank(pair[1], pair[0])):
            if len(groups) == min(most, few) or (kind == 'different' and _gap(item.mious) <= 0):
                break
            if (item.shard, item.group) not in groups:
                groups.add((item.shard, item.group))
                chosen.append((kind, item))
        taken = {(item.shard, item.index) for _, item in chosen}
        scored = [pair for pair in scored if (pair[0].shard, pair[0].index) not in taken]
    return chosen


def _gap(mious: Sequence[float | None]) -> float:
    known = [value for value in mious if value is not None]
    return max(known) - min(known)
