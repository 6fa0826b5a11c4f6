# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The one confusion matrix, and the scores that follow from it.

The functions take counts int64 or float64 [..., classes, classes + 1]: rows are the truth, columns
the mask, the last column what the mask abstained from. Leading axes are frames, splits or
bootstrap draws, so that a thousand resampled matrices are scored at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nightseg_ros.taxonomy import UNLABELLED, Taxonomy

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
#: Counts, or their sums over a bootstrap draw.
Rows = npt.NDArray[Any]


class ConfusionMatrix:
    """
    Pixel counts of one taxonomy.

    Pixels whose truth is 255 count nowhere. A prediction of 255 on a labelled pixel (a mask that
    abstains) counts as a miss of its class: it is kept in ``abstained``.
    """

    def __init__(self, taxonomy: Taxonomy, rows: Counts | None = None) -> None:
        """Start with no pixel counted, or with int64 [classes, classes + 1] as in ``rows``."""
        self.taxonomy = taxonomy
        classes = len(taxonomy)
        self.rows: Counts = np.zeros((classes, classes + 1), np.int64)
        if rows is not None:
            self.rows += rows

    @property
    def counts(self) -> Counts:
        """Pixels int64 [classes, classes]: rows are the truth, columns the prediction."""
        return self.rows[:, :-1]

    @property
    def abstained(self) -> Counts:
        """Labelled pixels of each class without a prediction, int64 [classes]."""
        return self.rows[:, -1]

    def add(self, truth: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> None:
        """
        Count one mask, both uint8 [H, W].

        ``ValueError`` is raised where sizes differ or an id is no class of the taxonomy.
        """
        if truth.shape != labels.shape:
            raise ValueError(f'truth is {truth.shape}, the mask {labels.shape}; sizes must agree')
        classes = len(self.taxonomy)
        for joint in pairs(truth, labels):
            for name, ids in (('truth', joint), ('mask', joint.T)):
                strange = np.flatnonzero(ids[classes:UNLABELLED].any(1))
                if strange.size:
                    raise ValueError(
                        f'the {name} holds id {strange[0] + classes}; '
                        f"'{self.taxonomy.name}' has ids 0–{classes - 1} and {UNLABELLED}"
                    )
            self.rows[:, :-1] += joint[:classes, :classes].astype(np.int64)
            self.rows[:, -1] += joint[:classes, UNLABELLED].astype(np.int64)

    def merge(self, other: ConfusionMatrix) -> None:
        """Add another matrix of the same taxonomy."""
        if other.taxonomy != self.taxonomy:
            raise ValueError(f"cannot merge '{other.taxonomy.name}' into '{self.taxonomy.name}'")
        self.rows += other.rows

    @property
    def support(self) -> Counts:
        """Labelled pixels of each class, int64 [classes]."""
        return np.asarray(self.rows.sum(-1), np.int64)

    def iou(self) -> Floats:
        """IoU of each class in [0, 1], float64 [classes]; NaN where neither side has it."""
        return iou(self.rows)

    def accuracy(self) -> Floats:
        """Recall of each class in [0, 1], float64 [classes]; NaN where the truth lacks it."""
        return accuracy(self.rows)

    def miou(self, *, without: Sequence[str] = ()) -> float:
        """Mean IoU over the classes present in the truth, less those named in ``without``."""
        keep = np.ones(len(self.taxonomy), np.bool_)
        keep[[self.taxonomy.id_of(name) for name in without]] = False
        return float(miou(self.rows, keep))

    def pixel_accuracy(self) -> float:
        """Return the share of labelled pixels whose label is right; NaN without any."""
        return float(pixel_accuracy(self.rows))


def pairs(
    first: npt.NDArray[np.uint8],
    second: npt.NDArray[np.uint8],
    bins: tuple[int, int] = (256, 256),
    mask: npt.NDArray[np.uint8] | None = None,
) -> Iterator[Rows]:
    """
    Count the pairs of values of two uint8 [H, W] in bins of equal width, where ``mask`` is not 0.

    Yields whole numbers as float32 [bins], to be added up: of one piece unless the picture is
    huge, since OpenCV counts in float32, which is exact up to 2^24, and lets other threads run.
    """
    rows = max(1, (1 << 24) // first.shape[1])
    for top in range(0, first.shape[0], rows):
        part = slice(top, top + rows)
        chosen = None if mask is None else mask[part]
        yield cv2.calcHist([first[part], second[part]], [0, 1], chosen, bins, [0, 256, 0, 256])


def iou(rows: Rows) -> Floats:
    """IoU of each class, float64 [..., classes]; NaN where neither truth nor mask has it."""
    hits = _hits(rows)
    return _ratio(hits, rows.sum(-1) + rows[..., :-1].sum(-2) - hits)


def accuracy(rows: Rows) -> Floats:
    """Recall of each class, float64 [..., classes]; NaN where the truth lacks it."""
    return _ratio(_hits(rows), rows.sum(-1))


def miou(rows: Rows, keep: npt.NDArray[np.bool_] | None = None) -> Floats:
    """Mean IoU over the classes present in the truth (of those in ``keep``); NaN without any."""
    present = rows.sum(-1) > 0
    return _mean(iou(rows), present if keep is None else present & keep)


def miou_all(rows: Rows) -> Floats:
    """
    Mean IoU over the classes that the truth or a mask holds; NaN without any.

    A class that is only in masks counts 0, as in torchmetrics' macro average.
    """
    values = iou(rows)
    return _mean(values, ~np.isnan(values))


def frequency_weighted_iou(rows: Rows) -> Floats:
    """IoU weighted by each class's share of the labelled pixels (Long et al. 2015); or NaN."""
    support = rows.sum(-1)
    return _ratio((np.nan_to_num(iou(rows)) * support).sum(-1), support.sum(-1))


def pixel_accuracy(rows: Rows) -> Floats:
    """Share of the labelled pixels that are right; NaN without any."""
    return _ratio(_hits(rows).sum(-1), rows.sum((-2, -1)))


def mean_accuracy(rows: Rows) -> Floats:
    """Mean recall over the classes present in the truth; NaN without any."""
    return _mean(accuracy(rows), rows.sum(-1) > 0)


def _hits(rows: Rows) -> Rows:
    return np.diagonal(rows[..., :-1], axis1=-2, axis2=-1)


def _mean(values: Floats, keep: npt.NDArray[np.bool_]) -> Floats:
    return _ratio(np.where(keep, values, 0.0).sum(-1), keep.sum(-1))


def _ratio(part: Rows, whole: Rows) -> Floats:
    with np.errstate(invalid='ignore', divide='ignore'):
        return np.asarray(np.where(whole > 0, part / np.maximum(whole, 1), np.nan))
