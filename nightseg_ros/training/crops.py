# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Training crops by number, made ahead of the training in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from nightseg_ros.data.augment import AugmentConfig, augment
from nightseg_ros.data.sample import DataError, Sample, read_image, read_labels
from nightseg_ros.taxonomy import UNLABELLED, Taxonomy

Bytes = npt.NDArray[np.uint8]
Crop = tuple[torch.Tensor, torch.Tensor]


class TrainingCrops(Dataset[Crop]):
    """
    Crop number n of a run, a function of seed and n alone, so that a resumed run sees the same.

    Items are uint8 [h, w, 3] RGB and uint8 [h, w] ids.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        augment: AugmentConfig,
        *,
        taxonomy: Taxonomy,
        seed: int,
        classmix: float = 0.0,
    ) -> None:
        """
        Check that there are samples and that every one is labelled.

        ``classmix`` is the probability that a crop gets pixels of another one pasted in.
        """
        if not samples:
            raise DataError('there is no sample to train on')
        unlabelled = [sample.image for sample in samples if sample.label is None]
        if unlabelled:
            raise DataError(f"'{unlabelled[0]}' has no labels; the segmenter trains on labels")
        self.samples = list(samples)
        self.augment = augment
        self.taxonomy = taxonomy
        self.seed = seed
        self.classmix = classmix
        # real night is what the labelled day lacks; without any, all give to all
        night = [sample for sample in samples if sample.light == 'night']
        self.donors = night or self.samples

    def __getitem__(self, number: int) -> Crop:
        """Make crop ``number``; ``DataError`` names a file that is broken."""
        rng = np.random.default_rng((self.seed, number))
        image, labels = self._draw(self.samples[self._order(number)], rng)
        rng = np.random.default_rng((self.seed, number, 2))
        if rng.random() < self.classmix:
            donor = self.donors[int(rng.integers(len(self.donors)))]
            image, labels = class_mix(image, labels, *self._draw(donor, rng), rng)
        return torch.from_numpy(image), torch.from_numpy(labels)

    def _draw(self, sample: Sample, rng: np.random.Generator) -> tuple[Bytes, Bytes]:
        assert sample.label is not None
        image, labels = read_image(sample.image), read_labels(sample.label)
        if image.shape[:2] != labels.shape:
            raise DataError(
                f"'{sample.label}' is {labels.shape}, its image {image.shape[:2]}; "
                'sizes must agree'
            )
        settings = self.augment
        if sample.light == 'night':
            settings = replace(settings, night_share=0.0)  # it is night already
        scene = read_labels(sample.scene) if sample.scene else None
        return augment(image, labels, rng, settings, taxonomy=self.taxonomy, scene=scene)

    def _order(self, number: int) -> int:
        """Go through all samples in a new order each time round."""
        turn, place = divmod(number, len(self.samples))
        order = np.random.default_rng((self.seed, turn, 1)).permutation(len(self.samples))
        return int(order[place])


def class_mix(
    image: Bytes, labels: Bytes, donor: Bytes, donor_labels: Bytes, rng: np.random.Generator
) -> tuple[Bytes, Bytes]:
    """
    Paste the pixels of a random half of the donor's classes (ClassMix, Olsson et al. 2021).

    Images are uint8 [h, w, 3], labels uint8 [h, w], all of one size; image and ids move together
    and pixels without a label stay behind. The inputs are not changed.
    """
    present = np.setdiff1d(np.unique(donor_labels), [UNLABELLED])
    if not present.size:
        return image, labels
    chosen = rng.choice(present, (len(present) + 1) // 2, replace=False)
    mask = np.isin(donor_labels, chosen)
    return (
        np.where(mask[..., None], donor, image),
        np.where(mask, donor_labels, labels),
    )


class CropLoader:
    """
    Batches of crops in the order of their numbers: uint8 [B, h, w, 3] and uint8 [B, h, w].

    Process ``rank`` of ``world`` takes its part of each step's ``world`` × ``batch`` crops.
    ``DataError`` from a loading process arrives as it was raised, in one line.
    """

    def __init__(
        self,
        crops: Dataset[Crop],
        *,
        batch: int,
        steps: int,
        first: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        """Load the steps from ``first`` to ``steps`` in ``workers`` processes, 0 for none."""
        self._loader: DataLoader[Any] = DataLoader(
            _Checked(crops), batch_size=batch, sampler=_Numbers(batch, steps, first, rank, world),
            num_workers=workers, prefetch_factor=4 if workers else None,
            worker_init_fn=_one_thread, collate_fn=_collate,
        )  # fmt: skip

    def __iter__(self) -> Iterator[Crop]:
        """Yield the batches."""
        batches = iter(self._loader)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                # torch says so when a process was killed, or shared memory has run out
                reason = str(error).splitlines()[0]
                raise DataError(
                    f'a process that loads crops died ({reason}); with little memory, or little '
                    'shared memory, use --workers 0'
                ) from error
            if isinstance(batch, Exception):
                raise batch
            yield batch


class _Checked(Dataset[Any]):
    """Crops, or the error instead: torch would wrap it into a traceback's text."""

    def __init__(self, crops: Dataset[Crop]) -> None:
        self._crops = crops

    def __getitem__(self, number: int) -> Crop | Exception:
        try:
            return self._crops[number]
        except (DataError, OSError) as error:
            return error


class _Numbers(Sampler[int]):
    """The numbers of one process's crops."""

    def __init__(self, batch: int, steps: int, first: int, rank: int, world: int) -> None:
        self._batch, self._rank, self._world = batch, rank, world
        self._range = range(first, steps)

    def __len__(self) -> int:
        return len(self._range) * self._batch

    def __iter__(self) -> Iterator[int]:
        for step in self._range:
            start = (step * self._world + self._rank) * self._batch
            yield from range(start, start + self._batch)


def _collate(items: list[Any]) -> Any:
    for item in items:
        if isinstance(item, Exception):
            return item
    return tuple(torch.stack(column) for column in zip(*items))


def _one_thread(_: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
