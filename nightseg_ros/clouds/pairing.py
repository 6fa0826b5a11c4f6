# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Which of a camera's masks belongs to a cloud, by their stamps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]


@dataclass(kw_only=True, slots=True, eq=False)
class Mask:
    """Labels and confidence of one frame, as far as they have come."""

    frame_id: str = ''
    labels: Bytes | None = None
    """[H, W]."""
    confidence: Bytes | None = None
    """[H, W]."""


class MaskTrack:
    """The latest masks of one camera."""

    def __init__(self, *, keep_ns: int, confidence: bool) -> None:
        """Keep masks for ``keep_ns``; with ``confidence`` a mask waits for its own."""
        self._keep_ns = keep_ns
        self._confidence = confidence
        self._masks: dict[int, Mask] = {}
        self._newest = 0
        self._complete = 0

    def add_labels(self, stamp_ns: int, frame_id: str, labels: Bytes) -> None:
        """Take uint8 [H, W] labels of a frame."""
        mask = self._of(stamp_ns)
        mask.labels, mask.frame_id = labels, frame_id
        self._finish(stamp_ns, mask)

    def add_confidence(self, stamp_ns: int, confidence: Bytes) -> None:
        """Take uint8 [H, W] confidence of a frame."""
        mask = self._of(stamp_ns)
        mask.confidence = confidence
        self._finish(stamp_ns, mask)

    def reaches(self, stamp_ns: int) -> bool:
        """Tell whether no later mask can be nearer to this stamp than the best one there is."""
        return self._complete >= stamp_ns

    def nearest(self, stamp_ns: int, limit_ns: int) -> tuple[int, Mask] | None:
        """Return stamp and mask nearest to a stamp, None where there is none within the limit."""
        found = min(
            (stamp for stamp, mask in self._masks.items() if mask.labels is not None),
            key=lambda stamp: abs(stamp - stamp_ns), default=None,
        )  # fmt: skip
        if found is None or abs(found - stamp_ns) > limit_ns:
            return None
        return found, self._masks[found]

    def _of(self, stamp_ns: int) -> Mask:
        if stamp_ns < self._newest - self._keep_ns:
            # a bag that loops: what was kept lies in its future
            self._masks.clear()
            self._newest = self._complete = 0
        if stamp_ns > self._newest:
            self._newest = stamp_ns
            oldest = stamp_ns - self._keep_ns
            self._masks = {stamp: m for stamp, m in self._masks.items() if stamp >= oldest}
        return self._masks.setdefault(stamp_ns, Mask())

    def _finish(self, stamp_ns: int, mask: Mask) -> None:
        if mask.labels is not None and (mask.confidence is not None or not self._confidence):
            self._complete = max(self._complete, stamp_ns)
