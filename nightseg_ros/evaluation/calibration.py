# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Whether a confidence of 80 % is right in 80 % of the pixels: reliability and its error."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nightseg_ros.evaluation.confusion import Counts
from nightseg_ros.taxonomy import UNLABELLED

#: Bins of equal width over confidences from 0 to 1 (Guo et al. 2017, arXiv 1706.04599).
BINS = 15
#: Columns of the counts: pixels, right ones, and the sum of their confidences (0–255).
COLUMNS = 3

Image = npt.NDArray[np.uint8]

_BIN_OF = np.minimum(np.arange(256) * BINS // 255, BINS - 1)


def reliability(truth: Image, labels: Image, confidence: Image) -> Counts:
    """
    Count pixels by confidence, int64 [BINS, 3]: pixels, right ones, sum of confidences (0–255).

    All inputs are uint8 [H, W]; pixels without truth or without a label are left out.
    """
    known = cv2.bitwise_and(
        cv2.compare(truth, UNLABELLED, cv2.CMP_NE),  # type: ignore[call-overload]
        cv2.compare(labels, UNLABELLED, cv2.CMP_NE),  # type: ignore[call-overload]
    )
    hit = cv2.bitwise_and(cv2.compare(truth, labels, cv2.CMP_EQ), known)
    every, right = (_histogram(confidence, mask) for mask in (known, hit))
    levels = np.stack([every, right, every * np.arange(256)])
    counts = np.zeros((BINS, COLUMNS), np.int64)
    np.add.at(counts, _BIN_OF, levels.T)
    return counts


def _histogram(confidence: Image, mask: Any) -> Counts:
    """Count the levels of the pixels in the mask, int64 [256]."""
    if confidence.size < 1 << 24:
        # OpenCV counts in float32, which is exact up to here
        found = cv2.calcHist([confidence], [0], mask, [256], [0, 256])
        return np.asarray(found, np.int64).ravel()
    return np.asarray(np.bincount(confidence[mask > 0], minlength=256), np.int64)


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
