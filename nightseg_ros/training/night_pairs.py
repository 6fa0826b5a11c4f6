# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Synthetic nights whose day is known, for translators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from nightseg_ros.data.augment import AugmentConfig, flip, pad, scale_and_crop
from nightseg_ros.data.night import synthesize_night
from nightseg_ros.data.sample import DataError, Sample, read_image, read_labels
from nightseg_ros.taxonomy import Taxonomy

Pair = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class NightPairs(Dataset[Any]):
    """
    Crop number n of a run: a synthetic night, its day, and its labels.

    Items are uint8 [h, w, 3], uint8 [h, w, 3] RGB and uint8 [h, w] ids, functions of seed and n.
    """

    def __init__(
        self, samples: Sequence[Sample], augment: AugmentConfig, *, taxonomy: Taxonomy, seed: int
    ) -> None:
        """Check that every sample is a labelled day."""
        for sample in samples:
            if sample.label is None:
                raise DataError(f"'{sample.image}' has no labels, which a synthetic night needs")
            if sample.light == 'night':
                raise DataError(
                    f"'{sample.image}' is a night without its day; name it in unpaired"
                )
        self._samples = list(samples)
        self._augment, self._taxonomy, self._seed = augment, taxonomy, seed

    def __getitem__(self, number: int) -> Pair:
        """Make crop ``number``; ``DataError`` names a file that is broken."""
        turn, place = divmod(number, len(self._samples))
        order = np.random.default_rng((self._seed, turn, 1)).permutation(len(self._samples))
        sample = self._samples[int(order[place])]
        rng = np.random.default_rng((self._seed, number))
        assert sample.label is not None
        day, labels = read_image(sample.image), read_labels(sample.label)
        if day.shape[:2] != labels.shape:
            raise DataError(
                f"'{sample.label}' is {labels.shape}, its image {day.shape[:2]}; sizes must agree"
            )
        scene = labels if sample.scene is None else read_labels(sample.scene)
        layers = np.dstack([labels, scene])
        day, layers = scale_and_crop(day, layers, rng, self._augment)
        if rng.random() < self._augment.flip:
            day, layers = flip(day, layers)
        labels, scene = np.ascontiguousarray(layers[..., 0]), np.ascontiguousarray(layers[..., 1])
        night = day
        if rng.random() < self._augment.night_share:
            night = synthesize_night(day, scene, rng, self._augment.night, taxonomy=self._taxonomy)
        where = (self._seed, number, 2)
        crop = self._augment.crop
        night, _ = pad(night, labels, crop, np.random.default_rng(where))
        day, labels = pad(day, labels, crop, np.random.default_rng(where))
        return torch.from_numpy(night), torch.from_numpy(day), torch.from_numpy(labels)
