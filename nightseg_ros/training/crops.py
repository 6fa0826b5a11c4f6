# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What the recipes are shown: crops by number, made ahead by processes of their own.

Crop number n of a run is a function of its seed and n alone, so that a resumed run sees the same.
A file that is broken is a ``DataError`` that names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
from nightseg_ros.data.augment import augment, AugmentConfig, flip, hide_unlit, pad, scale_and_crop
from nightseg_ros.data.night import synthesize_night
from nightseg_ros.data.night_presets import uniform
from nightseg_ros.data.sample import Bytes, DataError, labelled, labels_of, read_pair, Sample
from nightseg_ros.files import process_context
from nightseg_ros.runtime.backend import Log
from nightseg_ros.taxonomy import Taxonomy, TaxonomyError
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

Crop = tuple[torch.Tensor, ...]
#: Further scale of unpaired pictures before the crop.
ZOOM = (1.0, 1.3)


class TrainingCrops(Dataset[Crop]):
    """Crops are uint8 [h, w, 3] RGB and uint8 [h, w] ids."""

    def __init__(
        self, samples: Sequence[Sample], augment: AugmentConfig, *, taxonomy: Taxonomy, seed: int
    ) -> None:
        """Check that there are samples and that every one is labelled."""
        if not samples:
            raise DataError('there is no sample to train on')
        self._samples = labelled(samples, 'a training needs labels')
        self._augment, self._taxonomy, self._seed = augment, taxonomy, seed

    def __getitem__(self, number: int) -> Crop:
        sample, image, labels, scene, rng = self._draw(number)
        settings = self._augment
        if sample.light in ('dusk', 'night'):
            settings = replace(settings, night_share=0.0)  # it is dark already
            labels = hide_unlit(image, labels, settings.unlit, self._taxonomy)
        image, labels = augment(image, labels, rng, settings, taxonomy=self._taxonomy, scene=scene)
        return torch.from_numpy(image), torch.from_numpy(labels)

    def _draw(self, number: int) -> tuple[Sample, Bytes, Bytes, Bytes, np.random.Generator]:
        """Return picture, labels and a guess for every pixel; each time round in a new order."""
        turn, place = divmod(number, len(self._samples))
        order = np.random.default_rng((self._seed, turn, 1)).permutation(len(self._samples))
        sample = self._samples[int(order[place])]
        image, labels = read_pair(sample)
        scene = labels_of(sample.scene, image) if sample.scene else labels
        return sample, image, labels, scene, np.random.default_rng((self._seed, number))


class NightPairs(TrainingCrops):
    """Crops are a synthetic night, its day (uint8 [h, w, 3] RGB), and uint8 [h, w] ids."""

    def __getitem__(self, number: int) -> Crop:
        _, day, labels, scene, rng = self._draw(number)
        day, layers = scale_and_crop(day, np.dstack([labels, scene]), rng, self._augment)
        if rng.random() < self._augment.flip:
            day, layers = flip(day, layers)
        labels, scene = (np.ascontiguousarray(layers[..., layer]) for layer in (0, 1))
        night = day
        if rng.random() < self._augment.night_share:
            night = synthesize_night(day, scene, rng, self._augment.night, taxonomy=self._taxonomy)
        where, crop = (self._seed, number, 2), self._augment.crop
        night, _ = pad(night, labels, crop, np.random.default_rng(where))
        day, labels = pad(day, labels, crop, np.random.default_rng(where))
        return torch.from_numpy(night), torch.from_numpy(day), torch.from_numpy(labels)


class UnpairedCrops(Dataset[Crop]):
    """
    Crops are a day and a night of one camera that show different scenes.

    Each is real_A and real_B (uint8 [h, w, 3] RGB by day and by night), their labels (uint8
    [h, w], 255 where there are none), the camera's number and the number that the generators are
    told, which is one past the last camera where they are told none; both int64 scalars. A
    network that sees one camera by day and another one by night learns the cameras instead.
    """

    def __init__(
        self, samples: Sequence[Sample], *, crop: tuple[int, int], long_side: int,
        untold: float = 0.0, seed: int, log: Log = print,
    ) -> None:  # fmt: skip
        """
        Sort samples by camera and light; ``DataError`` where no camera has both.

        Pictures are scaled to ``long_side`` × ``ZOOM`` pixels, more where the crop (height and
        width) needs it. ``untold`` is the share of crops whose camera is not told.
        """
        by_light: dict[str, dict[str, list[Sample]]] = {'day': {}, 'night': {}}
        for sample in samples:
            if sample.light in by_light:
                by_light[sample.light].setdefault(sample.source, []).append(sample)
        day, night = by_light.values()
        self.cameras = tuple(sorted(day.keys() & night.keys()))
        if not self.cameras:
            raise DataError(
                'no camera has day and night frames: by day there are '
                f'{", ".join(sorted(day)) or "none"}, '
                f'by night {", ".join(sorted(night)) or "none"}; '
                'a camera is the part of a file name before the first _, and the light is the '
                "data set's (images:FOLDER:day)"
            )
        if untimed := sum(sample.light not in by_light for sample in samples):
            log(f'left out, since they are called neither day nor night: {untimed} pictures')
        if left_out := sorted(day.keys() ^ night.keys()):
            log(f'left out, since only day or only night is there: {", ".join(left_out)}')
        self._pairs = [(day[name], night[name]) for name in self.cameras]
        self._crop, self._long_side = crop, long_side
        self._untold, self._seed = untold, seed

    def __getitem__(self, number: int) -> Crop:
        rng = np.random.default_rng((self._seed, number, 3))
        camera = int(rng.integers(len(self.cameras)))
        told = len(self.cameras) if rng.random() < self._untold else camera
        images, labels = [], []
        for side in self._pairs[camera]:
            image, ids = self._draw(side[int(rng.integers(len(side)))], rng)
            images.append(torch.from_numpy(image))
            labels.append(torch.from_numpy(ids))
        return *images, *labels, torch.tensor(camera), torch.tensor(told)

    def _draw(self, sample: Sample, rng: np.random.Generator) -> tuple[Bytes, Bytes]:
        image, labels = read_pair(sample)
        height, width = labels.shape
        crop_h, crop_w = self._crop
        factor = self._long_side * uniform(rng, ZOOM) / max(height, width)
        factor = max(factor, crop_h / height, crop_w / width)
        size = (max(crop_w, round(width * factor)), max(crop_h, round(height * factor)))
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        top = int(rng.integers(0, size[1] - crop_h + 1))
        left = int(rng.integers(0, size[0] - crop_w + 1))
        cut = slice(top, top + crop_h), slice(left, left + crop_w)
        image = np.asarray(cv2.resize(image, size, interpolation=how)[cut], np.uint8)
        ids = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)[cut]
        labels = np.asarray(ids, np.uint8)
        if rng.random() < 0.5:
            return flip(image, labels)
        return np.ascontiguousarray(image), np.ascontiguousarray(labels)


def load_batches(
    crops: Dataset[Any], *, batch: int, steps: int, first: int = 0, rank: int = 0, world: int = 1,
    workers: int = 0,
) -> Iterator[Crop]:  # fmt: skip
    """
    Yield the crops of the steps from ``first`` to ``steps``, each of their parts stacked.

    Process ``rank`` of ``world`` takes its share of each step's ``world`` × ``batch`` crops;
    ``workers`` processes load them, 0 for none; without ``/dev/shm`` there are none. ``DataError``
    from such a process arrives as it was raised, in one line.
    """
    if workers and process_context() is None:
        workers = 0
    starts = [(step * world + rank) * batch for step in range(first, steps)]
    ranges: Any = [range(start, start + batch) for start in starts]
    batches = iter(
        DataLoader(
            ranges, batch_size=None, collate_fn=partial(_stacked, crops), num_workers=workers,
            prefetch_factor=4 if workers else None, worker_init_fn=_one_thread,
        )
    )  # fmt: skip
    for _ in starts:
        try:
            loaded = next(batches)
        except RuntimeError as error:
            # torch says so when a process was killed, or shared memory has run out
            reason = str(error).splitlines()[0]
            raise DataError(
                f'a process that loads crops died ({reason}); with little memory, or little '
                'shared memory, use --workers 0'
            ) from error
        if isinstance(loaded, Exception):
            raise loaded
        yield loaded


def _stacked(crops: Dataset[Any], numbers: Sequence[int]) -> Any:
    """Return a batch, or the error instead: torch would wrap it into a traceback's text."""
    try:
        return tuple(torch.stack(parts) for parts in zip(*(crops[number] for number in numbers)))
    except (DataError, TaxonomyError, OSError) as error:
        return error


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


class ImagePool:
    """
    Fakes of earlier steps, which the discriminator would forget (Shrivastava et al. 2017).

    Up to ``size`` pictures are kept as bytes with their cameras; half of the time an old one is
    returned. Choices depend on ``seed`` and the step alone.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._seed = size, seed
        self._kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def exchange(
        self, images: torch.Tensor, cameras: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Give float [B, 3, H, W] in [-1, 1] and int64 [B] in; get as many new or old ones."""
        returned = []
        for index, (image, camera) in enumerate(zip(images.detach(), cameras)):
            new = _to_bytes(image).cpu(), camera.cpu().clone()
            rng = np.random.default_rng((self._seed, step, index))
            if len(self._kept) < self._size:
                self._kept.append(new)
            elif rng.random() < 0.5:
                place = int(rng.integers(self._size))
                old, its_camera = self._kept[place]
                self._kept[place] = new
                image, camera = old.to(image) / 127.5 - 1, its_camera.to(camera)
            returned.append((image, camera))
        out_images, out_cameras = zip(*returned)
        return torch.stack(out_images), torch.stack(out_cameras)

    def state_dict(self) -> dict[str, torch.Tensor]:
        names = ('images', 'cameras')
        return {name: torch.stack(parts) for name, parts in zip(names, zip(*self._kept))}

    def load_state_dict(self, state: dict[str, torch.Tensor], /) -> None:
        self._kept = list(zip(state['images'], state['cameras']))


def to_network(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 [B, h, w, 3] RGB as float [B, 3, h, w] in [-1, 1], channels last."""
    x = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last)


def _to_bytes(x: torch.Tensor) -> torch.Tensor:
    return ((x.detach().float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def picture_grid(*columns: torch.Tensor) -> Bytes:
    """
    Lay pictures side by side, a row for each of the batch, as RGB uint8.

    They are float [B, 3, h, w] in [-1, 1], or uint8 [B, h, w, 3].
    """
    pictures = (x if x.dtype == torch.uint8 else _to_bytes(x).permute(0, 2, 3, 1) for x in columns)
    return torch.cat([x.cpu().flatten(0, 1) for x in pictures], 1).numpy()
