# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Training crops by number, made ahead of the training in processes of their own.

Day and night of the same camera, unpaired: two domains that differ in their light alone.

Synthetic nights whose day is known, for translators.

Fakes of earlier steps for the discriminator, which else forgets them (Shrivastava 2017).

Pictures as generators take them, and back to pictures that people look at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from nightseg_ros.data.augment import AugmentConfig, augment, flip, pad, scale_and_crop
from nightseg_ros.data.night.model import synthesize_night
from nightseg_ros.data.night.presets import Range, uniform
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


class ImagePool:
    """
    Up to ``size`` fake pictures with their cameras; half of the time an old one is returned.

    Pictures are kept as bytes, as real ones are. Choices depend on ``seed`` and the step alone.
    """

    def __init__(self, size: int, seed: int) -> None:
        """Start empty; size 0 returns every picture as it comes."""
        self.size = size
        self._seed = seed
        self._images: list[torch.Tensor] = []
        self._cameras: list[torch.Tensor] = []

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self._images)

    def exchange(
        self, images: torch.Tensor, cameras: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Give float [B, 3, H, W] in [-1, 1] and int64 [B] in, get as many back.

        A new picture is returned as it is, or stays in place of the old one that is returned.
        """
        if self.size == 0:
            return images.detach(), cameras
        out_images, out_cameras = [], []
        for index, (image, camera) in enumerate(zip(images.detach(), cameras)):
            if len(self) < self.size:
                self._images.append(_to_bytes(image))
                self._cameras.append(camera.cpu().clone())
            else:
                rng = np.random.default_rng((self._seed, step, index))
                if rng.random() < 0.5:
                    place = int(rng.integers(self.size))
                    old = self._images[place], self._cameras[place]
                    self._images[place] = _to_bytes(image)
                    self._cameras[place] = camera.cpu().clone()
                    image = old[0].to(image) / 127.5 - 1
                    camera = old[1].to(camera)
            out_images.append(image)
            out_cameras.append(camera)
        return torch.stack(out_images), torch.stack(out_cameras)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the pictures as tensors, fit for a checkpoint."""
        if not self._images:
            return {}
        return {'images': torch.stack(self._images), 'cameras': torch.stack(self._cameras)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what ``state_dict`` returned."""
        self._images = list(state['images']) if state else []
        self._cameras = list(state['cameras']) if state else []


def _to_bytes(image: torch.Tensor) -> torch.Tensor:
    return ((image.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()


def to_network(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 [B, h, w, 3] RGB as float [B, 3, h, w] in [-1, 1], channels last."""
    x = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last)


def to_pictures(x: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Return float [B, 3, h, w] in [-1, 1], clipped, as uint8 [B, h, w, 3] RGB."""
    y = ((x.detach().float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return np.asarray(y.permute(0, 2, 3, 1).cpu().numpy())


def grid(columns: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Lay pictures uint8 [B, h, w, 3] side by side, a row for each of the batch."""
    return np.asarray(np.hstack([np.vstack(list(column)) for column in columns]), np.uint8)
