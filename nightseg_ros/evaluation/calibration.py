# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Whether a confidence of 80 % is right in 80 % of the pixels: reliability and its error."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nightseg_ros.evaluation.confusion import Counts, pairs
from nightseg_ros.taxonomy import UNLABELLED

#: Bins of equal width over confidences from 0 to 1 (Guo et al. 2017, arXiv 1706.04599).
BINS = 15
#: Columns of the counts: pixels, right ones, and the sum of their confidences (0–255).
COLUMNS = 3

Image = npt.NDArray[np.uint8]

#: The first confidence (0–255) of each bin.
_BEGIN = -(-np.arange(BINS) * 255 // BINS)


def reliability(truth: Image, labels: Image, confidence: Image) -> Counts:
    """
    Count pixels by confidence, int64 [BINS, 3]: pixels, right ones, sum of confidences (0–255).

    All inputs are uint8 [H, W]; pixels without truth or without a label are left out.
    """
    known = cv2.bitwise_and(
        cv2.compare(truth, UNLABELLED, cv2.CMP_NE),  # type: ignore[call-overload]
        cv2.compare(labels, UNLABELLED, cv2.CMP_NE),  # type: ignore[call-overload]
    )
    hit = cv2.compare(truth, labels, cv2.CMP_EQ)
    counted = pairs(np.asarray(hit, np.uint8), confidence, (2, 256), np.asarray(known, np.uint8))
    wrong, right = np.sum([piece.astype(np.int64) for piece in counted], axis=0)
    every = wrong + right
    levels = np.stack([every, right, every * np.arange(256)])
    return np.asarray(np.add.reduceat(levels, _BEGIN, axis=1).T, np.int64)


def calibration(counts: Counts) -> dict[str, Any] | None:
    """
    Return ``ece``, ``confidence``, ``accuracy``, ``pixels`` and ``bins``; None without pixels.

    The expected calibration error is the mean over pixels of |accuracy − confidence| of their bin.
    """
    pixels, right, sums = (counts[:, column].astype(np.float64) for column in range(COLUMNS))
    total = pixels.sum()
    if not total:
        return None
    confidence = sums / 255
    return {
        'ece': round(float(np.abs(right - confidence).sum() / total), 4),
        'confidence': round(float(confidence.sum() / total), 4),
        'accuracy': round(float(right.sum() / total), 4),
        'pixels': int(total),
        'bins': [
            {
                'low': round(index / BINS, 4),
                'high': round((index + 1) / BINS, 4),
                'pixels': int(pixels[index]),
                'confidence': _share(confidence[index], pixels[index]),
                'accuracy': _share(right[index], pixels[index]),
            }
            for index in range(BINS)
        ],
    }


def _share(part: float, whole: float) -> float | None:
    return round(float(part / whole), 4) if whole else None
