# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""How much a mask changes from one frame to the next, with and without the picture's motion."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from nightseg_ros.evaluation.confusion import Counts
from nightseg_ros.perception.frame import Frame

Image = npt.NDArray[np.uint8]

#: Frames further apart are no neighbours: the scene itself has changed.
NEIGHBOURS_NS = 500_000_000
#: Width in pixels at which flow is computed and masks are compared.
WIDTH = 240
#: Fewer rows or columns hold no flow; of some such pictures OpenCV's raises an error.
SMALLEST = 12
#: Columns of the counts: pairs, pixels, changed ones; and behind the flow: pixels, changed ones.
COLUMNS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    stamp_ns: int
    shape: tuple[int, int]
    gray: Image
    masks: list[Image]


class Flicker:
    """
    Compares each frame's masks with those of the frame before it.

    Flow is that of DIS (Kroeger et al. 2016, arXiv 1603.03590) from this frame back to the one
    before, on gray pictures ``WIDTH`` wide; the earlier mask is moved along it, nearest neighbour.
    """

    def __init__(self) -> None:
        """Start without a frame."""
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._before: _Seen | None = None

    def reset(self) -> None:
        """Forget the frame before: the next one has no neighbour."""
        self._before = None

    def add(self, frame: Frame, masks: list[Image]) -> Counts:
        """Take the masks uint8 [H, W] of a frame; return int64 [masks, COLUMNS], 0 for no pair."""
        height, width = frame.image.shape[:2]
        size = (min(WIDTH, width), max(1, round(height * min(WIDTH, width) / width)))
        code = cv2.COLOR_BGR2GRAY if frame.order == 'bgr' else cv2.COLOR_RGB2GRAY
        # a plain step first: averaging a whole frame costs more than the flow
        picture = cv2.resize(frame.image, (2 * size[0], 2 * size[1]))
        small = cv2.resize(cv2.cvtColor(picture, code), size, interpolation=cv2.INTER_AREA)
        now = _Seen(
            stamp_ns=frame.stamp_ns,
            shape=(height, width),
            gray=np.asarray(small, np.uint8),
            masks=[
                np.asarray(cv2.resize(m, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
                for m in masks
            ],
        )
        before, self._before = self._before, now
        counts = np.zeros((len(masks), COLUMNS), np.int64)
        if (
            before is None
            or min(size) < SMALLEST
            or before.shape != now.shape
            or not 0 < now.stamp_ns - before.stamp_ns <= NEIGHBOURS_NS
        ):
            return counts
        where, inside = self._origins(now.gray, before.gray)
        for row, mask, earlier in zip(counts, now.masks, before.masks):
            moved = cv2.remap(earlier, where, None, cv2.INTER_NEAREST)  # type: ignore[call-overload]
            changed = cv2.bitwise_and(cv2.compare(mask, moved, cv2.CMP_NE), inside)
            row[:] = (
                1, mask.size, cv2.countNonZero(cv2.absdiff(mask, earlier)),
                cv2.countNonZero(inside), cv2.countNonZero(changed),
            )  # fmt: skip
        return counts

    def _origins(self, now: Image, before: Image) -> tuple[npt.NDArray[np.float32], Image]:
        """Return float32 [h, w, 2], where each pixel was, and 255 where that is inside."""
        height, width = now.shape
        flow = np.asarray(self._flow.calc(now, before, None), np.float32)  # type: ignore[call-overload]
        flow += _grid(height, width)
        inside = cv2.inRange(flow, (0.0, 0.0), (width - 1.0, height - 1.0))
        return flow, np.asarray(inside, np.uint8)


@lru_cache(maxsize=8)
def _grid(height: int, width: int) -> npt.NDArray[np.float32]:
    """Return float32 [h, w, 2]: column and row of each pixel."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([columns, rows], axis=-1)


def flicker(counts: Counts) -> dict[str, float | int | None] | None:
    """Return ``pairs`` and the shares ``plain`` and ``warped``; None where there is no pair."""
    pairs, pixels, changed, inside, moved = (int(value) for value in counts)
    if not pairs:
        return None
    return {
        'pairs': pairs,
        'plain': round(changed / pixels, 5),
        'warped': round(moved / inside, 5) if inside else None,
    }
