# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The one confusion matrix, and the scores that follow from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nightseg_ros.taxonomy import UNLABELLED, Taxonomy

Counts = npt.NDArray[np.int64]


class ConfusionMatrix:
    """
    Pixel counts int64 [classes, classes]: rows are the truth, columns the prediction.

    Pixels whose truth is 255 count nowhere. A prediction of 255 on a labelled pixel (a mask that
    abstains) counts as a miss of its class: it is kept in ``abstained``.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        """Start with no pixel counted."""
        self.taxonomy = taxonomy
        classes = len(taxonomy)
        self.counts: Counts = np.zeros((classes, classes), np.int64)
        self.abstained: Counts = np.zeros(classes, np.int64)

    def add(self, truth: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> None:
        """
        Count one mask, both uint8 [H, W].

        ``ValueError`` is raised where sizes differ or an id is no class of the taxonomy.
        """
        if truth.shape != labels.shape:
            raise ValueError(f'truth is {truth.shape}, the mask {labels.shape}; sizes must agree')
        classes = len(self.taxonomy)
        joint = np.bincount(
            truth.ravel().astype(np.uint16) << 8 | labels.ravel(), minlength=1 << 16
        ).reshape(256, 256)
        for name, ids in (('truth', joint.sum(1)), ('mask', joint.sum(0))):
            strange = np.flatnonzero(ids[classes:UNLABELLED])
            if strange.size:
                raise ValueError(
                    f'the {name} holds id {strange[0] + classes}; '
                    f"'{self.taxonomy.name}' has ids 0–{classes - 1} and {UNLABELLED}"
                )
        self.counts += joint[:classes, :classes]
        self.abstained += joint[:classes, UNLABELLED]

    def merge(self, other: ConfusionMatrix) -> None:
        """Add another matrix of the same taxonomy."""
        if other.taxonomy != self.taxonomy:
            raise ValueError(f"cannot merge '{other.taxonomy.name}' into '{self.taxonomy.name}'")
        self.counts += other.counts
        self.abstained += other.abstained

    @property
    def support(self) -> Counts:
        """Labelled pixels of each class, int64 [classes]."""
        return np.asarray(self.counts.sum(1) + self.abstained, np.int64)

    def iou(self) -> npt.NDArray[np.float64]:
        """IoU of each class in [0, 1], float64 [classes]; NaN where neither side has it."""
        hits = np.diag(self.counts)
        union = self.support + self.counts.sum(0) - hits
        return _ratio(hits, union)

    def accuracy(self) -> npt.NDArray[np.float64]:
        """Recall of each class in [0, 1], float64 [classes]; NaN where the truth lacks it."""
        return _ratio(np.diag(self.counts), self.support)

    def miou(self, *, without: Sequence[str] = ()) -> float:
        """Mean IoU over the classes present in the truth, less those named in ``without``."""
        keep = self.support > 0
        keep[[self.taxonomy.id_of(name) for name in without]] = False
        return float(self.iou()[keep].mean()) if keep.any() else float('nan')

    def pixel_accuracy(self) -> float:
        """Return the share of labelled pixels whose label is right; NaN without any."""
        total = self.support.sum()
        return float(np.trace(self.counts) / total) if total else float('nan')


def _ratio(part: Counts, whole: Counts) -> npt.NDArray[np.float64]:
    with np.errstate(invalid='ignore', divide='ignore'):
        return np.asarray(np.where(whole > 0, part / np.maximum(whole, 1), np.nan))
