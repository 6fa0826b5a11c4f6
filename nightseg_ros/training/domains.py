# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Day and night of the same camera, unpaired: two domains that differ in their light alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from nightseg_ros.data.augment import flip
from nightseg_ros.data.looks import Range, uniform
from nightseg_ros.data.sample import DataError, Sample, read_image, read_labels
from nightseg_ros.taxonomy import UNLABELLED

Bytes = npt.NDArray[np.uint8]
Item = tuple[torch.Tensor, ...]


class UnpairedCrops(Dataset[Any]):
    """
    Crop number n of a run: a day and a night crop of one camera, a function of seed and n alone.

    Items are real_A and real_B (uint8 [h, w, 3] RGB by day and by night), their labels (uint8
    [h, w], 255 where there are none), the camera's number and the number that the generators are
    told, which is one past the last camera where they are told none; both int64 scalars. A
    network that sees one camera by day and another one by night learns the cameras instead.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        crop: tuple[int, int],
        long_side: int,
        zoom: Range = (1.0, 1.3),
        untold: float = 0.0,
        seed: int,
    ) -> None:
        """
        Sort samples by camera and light; ``DataError`` where no camera has both.

        Pictures are scaled to ``long_side`` × ``zoom`` pixels, more where the crop (height and
        width) needs it. ``untold`` is the share of items whose camera is not told.
        """
        by_light: dict[str | None, dict[str, list[Sample]]] = {'day': {}, 'night': {}}
        for sample in samples:
            if sample.light in by_light:
                by_light[sample.light].setdefault(sample.source, []).append(sample)
        day, night = by_light['day'], by_light['night']
        self.cameras = tuple(sorted(day.keys() & night.keys()))
        self.left_out = tuple(sorted(day.keys() ^ night.keys()))
        if not self.cameras:
            raise DataError(
                'no camera has day and night frames: by day there are '
                f'{", ".join(sorted(day)) or "none"}, '
                f'by night {", ".join(sorted(night)) or "none"}; '
                'a camera is the part of a file name before the first _, and the light is the '
                "data set's (images:FOLDER:day)"
            )
        self._pairs = [(day[name], night[name]) for name in self.cameras]
        self._crop, self._long_side, self._zoom = crop, long_side, zoom
        self._untold, self._seed = untold, seed

    def __getitem__(self, number: int) -> Item:
        """Make item ``number``; ``DataError`` names a file that is broken."""
        rng = np.random.default_rng((self._seed, number, 3))
        camera = int(rng.integers(len(self.cameras)))
        told = len(self.cameras) if rng.random() < self._untold else camera
        images, labels = [], []
        for side in self._pairs[camera]:
            image, ids = self._draw(side[int(rng.integers(len(side)))], rng)
            images.append(torch.from_numpy(image))
            labels.append(torch.from_numpy(ids))
        return images[0], images[1], labels[0], labels[1], torch.tensor(camera), torch.tensor(told)

    def _draw(self, sample: Sample, rng: np.random.Generator) -> tuple[Bytes, Bytes]:
        image = read_image(sample.image)
        labels = (
            np.full(image.shape[:2], UNLABELLED, np.uint8)
            if sample.label is None
            else read_labels(sample.label)
        )
        if image.shape[:2] != labels.shape:
            raise DataError(
                f"'{sample.label}' is {labels.shape}, its image {image.shape[:2]}; "
                'sizes must agree'
            )
        height, width = labels.shape
        crop_h, crop_w = self._crop
        factor = self._long_side * uniform(rng, self._zoom) / max(height, width)
        factor = max(factor, crop_h / height, crop_w / width)
        size = (max(crop_w, round(width * factor)), max(crop_h, round(height * factor)))
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)
        labels = np.asarray(
            cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8
        )
        top = int(rng.integers(0, size[1] - crop_h + 1))
        left = int(rng.integers(0, size[0] - crop_w + 1))
        image = image[top : top + crop_h, left : left + crop_w]
        labels = labels[top : top + crop_h, left : left + crop_w]
        if rng.random() < 0.5:
            return flip(image, labels)
        return np.ascontiguousarray(image), np.ascontiguousarray(labels)
