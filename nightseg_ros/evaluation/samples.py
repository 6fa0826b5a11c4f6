# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The frames that a report shows: chosen while they pass, since nothing is decoded twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from nightseg_ros.data.pictures import Image, encode_picture

#: Frames of each kind in a report.
BEST, MEDIAN, WORST, DIFFERENT, SPREAD = 3, 3, 3, 2, 6
#: Most frames of a lattice; from it come the median and the spread ones.
_LATTICE = 16
#: Bytes of pixels that are held before they are encoded: most frames are replaced soon.
_HELD = 32_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A frame that may be shown."""

    index: int
    """Its number in the shard."""
    group: int
    """Frames of one moment of a drive look the same, and share it."""
    mious: tuple[float | None, ...]
    """One a configuration; None without labels or mask."""
    shard: int = 0


class Samples:
    """
    Holds the pictures of those of the frames so far that may still be shown.

    They are the best and worst by mIoU, those in which configurations differ most, and an even
    lattice of the labelled ones (whose stride doubles as it fills), from which the median is
    taken. Without labels it is a lattice of all frames. Of a group one frame of a kind is taken.
    """

    def __init__(self) -> None:
        """Start with no frame."""
        self._ranked: tuple[dict[int, tuple[float, int]], ...] = ({}, {}, {})
        #: Frames, stride and number seen, of the labelled frames and of all.
        self._lattices: tuple[list[int], list[int]] = ([], [])
        self._strides, self._seen = [1, 1], [0, 0]
        self._held: dict[int, Mapping[str, Image | None]] = {}
        self._encoded: dict[int, dict[str, bytes]] = {}

    def add(self, frame: Candidate, pictures: Callable[[], Mapping[str, Image | None]]) -> None:
        """Take the next frame; ``pictures`` are uint8 [H, W] or RGB [H, W, 3] by file name."""
        self._thin(1, frame.index)
        first = frame.mious[0]
        if first is not None:
            self._thin(0, frame.index)
            best, worst, different = self._ranked
            _rank(best, BEST, frame, first)
            _rank(worst, WORST, frame, -first)
            if _gap(frame.mious) > 0:
                _rank(different, DIFFERENT, frame, _gap(frame.mious))
        wanted = self.wanted
        if frame.index not in wanted:
            return
        self._held = {index: p for index, p in self._held.items() if index in wanted}
        self._encoded = {index: p for index, p in self._encoded.items() if index in wanted}
        self._held[frame.index] = pictures()
        held = [p for some in self._held.values() for p in some.values() if p is not None]
        if sum(picture.nbytes for picture in held) > _HELD:
            self._encode()

    @property
    def wanted(self) -> set[int]:
        """The frames to keep."""
        labelled, every = self._lattices
        ranked = {index for kept in self._ranked for _, index in kept.values()}
        return ranked | set(labelled or every)

    def files(self) -> dict[int, dict[str, bytes]]:
        """Return the files of each frame that may be shown by its number."""
        self._encode()
        wanted = self.wanted
        return {index: self._encoded[index] for index in sorted(self._encoded.keys() & wanted)}

    def _thin(self, which: int, index: int) -> None:
        lattice = self._lattices[which]
        if self._seen[which] % self._strides[which] == 0:
            lattice.append(index)
            if len(lattice) > _LATTICE:
                del lattice[1::2]
                self._strides[which] *= 2
        self._seen[which] += 1

    def _encode(self) -> None:
        for index, pictures in self._held.items():
            self._encoded[index] = {
                name: encode_picture(name, picture)
                for name, picture in pictures.items()
                if picture is not None
            }
        self._held.clear()


def _rank(kept: dict[int, tuple[float, int]], most: int, frame: Candidate, value: float) -> None:
    """Keep the frames of the highest values, one a group."""
    if frame.group not in kept or value > kept[frame.group][0]:
        kept[frame.group] = (value, frame.index)
    if len(kept) > most:
        # of equals the later one goes
        del kept[min(kept, key=lambda group: (kept[group][0], -group))]


def select(candidates: Sequence[Candidate], median: float | None) -> list[tuple[str, Candidate]]:
    """
    Return the frames to show, each once, with its kind.

    ``median`` is that of the first configuration's mIoU over all frames; None without labels.
    """
    rest = sorted(candidates, key=lambda item: (item.shard, item.index))
    if median is None:
        step = max(1, math.ceil(len(rest) / SPREAD))
        return [('spread', item) for item in rest[::step]]
    scored = {item: item.mious[0] for item in rest if item.mious[0] is not None}
    # of few frames, one of each kind rather than the best only
    few = max(1, len(scored) // 4)
    chosen: dict[Candidate, str] = {}
    for kind, most, ranks in (
        ('best', BEST, {item: -value for item, value in scored.items()}),
        ('worst', WORST, scored),
        ('median', MEDIAN, {item: abs(value - median) for item, value in scored.items()}),
        ('different', DIFFERENT, {i: -_gap(i.mious) for i in scored if _gap(i.mious) > 0}),
    ):
        groups: set[tuple[int, int]] = set()
        for item in sorted(
            ranks.keys() - chosen.keys(), key=lambda i: (ranks[i], i.shard, i.index)
        ):
            if len(groups) < min(most, few) and (item.shard, item.group) not in groups:
                groups.add((item.shard, item.group))
                chosen[item] = kind
    return [(kind, item) for item, kind in chosen.items()]


def _gap(mious: Sequence[float | None]) -> float:
    known = [value for value in mious if value is not None]
    return max(known) - min(known)
