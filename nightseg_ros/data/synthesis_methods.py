# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The ways to make a night of a labelled day image, behind one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import cv2
import numpy as np

from nightseg_ros.data import photometric
from nightseg_ros.data.looks import NightConfig, Range, log_uniform, uniform
from nightseg_ros.data.night import synthesize_night
from nightseg_ros.data.sample import DataError, Sample, read_image, read_labels
from nightseg_ros.data.scene import Array, Bytes
from nightseg_ros.data.stylize import mix_amplitude
from nightseg_ros.data.synthesis_regions import RegionColors, recolor, region_colors, region_rows
from nightseg_ros.networks.style import with_style
from nightseg_ros.runtime.backend import Say
from nightseg_ros.runtime.geometry import fit
from nightseg_ros.runtime.registry import open_backend
from nightseg_ros.taxonomy import Taxonomy
from nightseg_ros.weights import Weights, WeightsError


class NightMaker(Protocol):
    """Makes a night of a day image."""

    def __call__(self, image: Bytes, labels: Bytes, rng: np.random.Generator) -> Bytes:
        """Return uint8 [H, W, 3] RGB for uint8 [H, W, 3] RGB and its ids uint8 [H, W]."""


class PhysicalNight:
    """The model of light and camera of ``data/night.py``."""

    def __init__(self, config: NightConfig, taxonomy: Taxonomy) -> None:
        """Take the looks to draw from."""
        self._config, self._taxonomy = config, taxonomy

    def __call__(self, image: Bytes, labels: Bytes, rng: np.random.Generator) -> Bytes:
        """See ``NightMaker``."""
        return synthesize_night(image, labels, rng, self._config, taxonomy=self._taxonomy)


class StatisticsNight:
    """Means and deviations of real night frames, drawn at random, region by region."""

    def __init__(
        self, references: Sequence[Sample], days: Sequence[Sample], taxonomy: Taxonomy
    ) -> None:
        """Learn from the labelled day images in which rows a region lies."""
        self._references = require_references(references, 'statistics')
        self._taxonomy = taxonomy
        self._rows = region_rows(
            (read_labels(day.label) for day in days if day.label is not None), taxonomy
        )
        self._colors: dict[int, RegionColors] = {}

    def __call__(self, image: Bytes, labels: Bytes, rng: np.random.Generator) -> Bytes:
        """See ``NightMaker``."""
        index = int(rng.integers(len(self._references)))
        if index not in self._colors:
            reference = self._references[index]
            known = None if reference.label is None else read_labels(reference.label)
            self._colors[index] = region_colors(
                read_image(reference.image), self._rows, labels=known, taxonomy=self._taxonomy
            )
        return recolor(image, labels, self._colors[index], rng, taxonomy=self._taxonomy)


class FourierNight:
    """Low Fourier amplitudes of real night frames, drawn at random (FDA, Yang and Soatto 2020)."""

    def __init__(self, references: Sequence[Sample], beta: Range) -> None:
        """Take the frames and the range of the swapped square; see ``mix_amplitude``."""
        self._references = require_references(references, 'fourier')
        self._beta = beta

    def __call__(self, image: Bytes, labels: Bytes, rng: np.random.Generator) -> Bytes:
        """See ``NightMaker``."""
        reference = self._references[int(rng.integers(len(self._references)))]
        return mix_amplitude(image, read_image(reference.image), beta=uniform(rng, self._beta))


class DarkenedDay:
    """A crude night to measure the others against: less light, blobs of lamps, noise, blur."""

    def __call__(self, image: Bytes, labels: Bytes, rng: np.random.Generator) -> Bytes:
        """See ``NightMaker``; the labels are not looked at."""
        height, width = image.shape[:2]
        light = np.full((height, width), log_uniform(rng, (0.02, 0.3)), np.float32)
        # head lamps light the lower half
        light *= np.linspace(1.0, uniform(rng, (1.0, 4.0)), height, dtype=np.float32)[:, None]
        linear: Array = cv2.LUT(image, _linear()) * light[..., None]
        linear += _blobs(height, width, rng)
        encoded = np.clip(linear, 0.0, 1.0) ** np.float32(1 / 2.2)
        dark = np.rint(encoded * 255.0).astype(np.uint8)
        dark = photometric.blur(dark, uniform(rng, (0.0, 1.5)) * width / 480.0)
        return photometric.add_noise(dark, uniform(rng, (1, 6)), uniform(rng, (0.5, 4)), rng)


class GeneratedNight:
    """A day→night generator: any weights whose task is 'translate'."""

    def __init__(
        self,
        weights: Weights,
        styles: Sequence[str],
        *,
        backend: str,
        device: str,
        long_side: int,
        say: Say,
    ) -> None:
        """
        Load it; ``styles`` are the cameras whose nights are drawn from, none means any camera.

        ``WeightsError`` where the weights are for another task or know no such camera.
        """
        if weights.metadata.task != 'translate':
            raise WeightsError(
                f"weights '{weights.path}' are for '{weights.metadata.task}'; the method "
                "'generator' wants a day→night translator"
            )
        if weights.metadata.training.get('way') == 'night_to_day':
            raise WeightsError(f"weights '{weights.path}' turn night into day, not day into night")
        self._backend = open_backend(backend, device)
        self._long_side = long_side or weights.metadata.long_side
        self._runs: list[Callable[[Any], tuple[Any, ...]]] = [
            self._backend.load(with_style(weights, style), say) for style in styles or ('',)
        ]

    def __call__(self, image: Bytes, labels: Bytes, rng: np.random.Generator) -> Bytes:
        """See ``NightMaker``; the labels are not looked at."""
        pixels = self._backend.pixels
        size = fit(image.shape[0], image.shape[1], self._long_side)
        run = self._runs[int(rng.integers(len(self._runs)))]
        (night,) = run(pixels.stack([pixels.shrink(image, 'rgb', size)]))
        return pixels.download(pixels.restore(night[0], size))


def require_references(references: Sequence[Sample], method: str) -> Sequence[Sample]:
    """Return the real night frames, or raise ``DataError`` that says how to give some."""
    if not references:
        raise DataError(
            f"the method '{method}' takes its colours from real night frames: "
            'give some with --reference images:FOLDER'
        )
    return references


@lru_cache(maxsize=1)
def _linear() -> Array:
    table = ((np.arange(256) / 255.0) ** 2.2).astype(np.float32)
    table.setflags(write=False)
    return table


def _blobs(height: int, width: int, rng: np.random.Generator) -> Array:
    """Return light float32 [H, W, 3] of up to six lamps at random places."""
    light = np.zeros((height, width, 3), np.float32)
    rows, columns = np.ogrid[:height, :width]
    for _ in range(int(rng.integers(0, 7))):
        y, x = rng.uniform(0.0, 0.8) * height, rng.uniform(0.0, 1.0) * width
        size = log_uniform(rng, (0.005, 0.06)) * width
        squared = (rows - y) ** 2 + (columns - x) ** 2
        glow = np.exp(-squared / (2 * size**2)).astype(np.float32)
        warm = np.array([1.0, uniform(rng, (0.6, 1.0)), uniform(rng, (0.3, 1.0))], np.float32)
        light += glow[..., None] * warm * np.float32(log_uniform(rng, (0.1, 1.5)))
    return light
