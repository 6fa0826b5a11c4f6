# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Class weights from how many pixels a class has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from nightseg_ros.data.sample import DataError, Sample, read_labels

#: Share that every class is taken to have at least, so that no weight is without bounds.
LEAST_SHARE = 1e-3
#: Frames that are counted, spread over the data.
COUNTED = 100


def class_weights(samples: Sequence[Sample], classes: int, balance: float) -> torch.Tensor:
    """
    Return float32 [classes]: (share of the pixels + 0.001)^-``balance``, 1 in the pixels' mean.

    ``balance`` 0 weighs pixels alike, 1 classes. ``DataError`` where nothing is labelled.
    """
    counts = np.zeros(256)
    for sample in samples[:: max(1, len(samples) // COUNTED)]:
        assert sample.label is not None
        counts += np.bincount(read_labels(sample.label).ravel(), minlength=256)
    total = counts[:classes].sum()
    if not total:
        raise DataError('no pixel of the training data has a label')
    share = counts[:classes] / total
    weights = (share + LEAST_SHARE) ** -balance
    weights /= (weights * share).sum()
    return torch.from_numpy(weights).float()
