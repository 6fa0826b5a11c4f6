# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The ways to make a night of a labelled day image: by a model, by real nights, by a generator.

``night_maker`` returns one of them. A maker takes uint8 [H, W, 3] RGB, its ids uint8 [H, W] and a
random generator, and returns uint8 [H, W, 3] RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial

import cv2
from nightseg_ros.config import from_mapping
from nightseg_ros.data import photometric
from nightseg_ros.data.night import synthesize_night
from nightseg_ros.data.night_presets import log_uniform, NightConfig, Range, uniform
from nightseg_ros.data.night_scene import Array, Bytes, read_scene, Role, role_table, split_sky
from nightseg_ros.data.sample import (
    DataError,
    encode_labels,
    read_image,
    read_labels,
    read_pair,
    Sample,
)
from nightseg_ros.data.synthesize import SynthesisConfig
from nightseg_ros.runtime.backend import Log
from nightseg_ros.runtime.backends import open_backend
from nightseg_ros.runtime.pixels import fit
from nightseg_ros.taxonomy import Taxonomy, UNLABELLED
from nightseg_ros.weights import Weights, WeightsError, with_style
import numpy as np

#: What a generator's metadata say that wants a physical night instead of a day.
PHYSICAL_TO_NIGHT = 'physical_to_night'

NightMaker = Callable[[Bytes, Bytes, np.random.Generator], Bytes]


def night_maker(
    config: SynthesisConfig,
    taxonomy: Taxonomy,
    days: Sequence[Sample],
    references: Sequence[Sample],
    weights: Weights | None,
    log: Log,
) -> NightMaker:
    """
    Return the maker that ``config.method`` names.

    ``days`` are the labelled day images, ``references`` real night frames, ``weights`` a day→night
    generator. ``DataError`` where a method lacks its references, ``WeightsError`` where the
    weights do not turn day into night.
    """
    if config.method in ('statistics', 'fourier') and not references:
        raise DataError(
            f"the method '{config.method}' takes its colours from real night frames: "
            'give some with --reference images:FOLDER'
        )
    night = from_mapping(NightConfig, config.night, where='night')
    physical = partial(synthesize_night, config=night, taxonomy=taxonomy)
    if config.method == 'physical':
        return physical
    if config.method == 'statistics':
        return statistics_night(references, days, taxonomy)
    if config.method == 'fourier':
        return fourier_night(references, config.beta)
    if config.method == 'darken':
        return darkened_day
    assert weights is not None
    generated = generated_night(weights, config, log)
    if weights.metadata.training.get('way') != PHYSICAL_TO_NIGHT:
        return generated
    return lambda image, labels, rng: generated(physical(image, labels, rng), labels, rng)


def convert(
    day: Sample, maker: NightMaker, rng: np.random.Generator, quality: int
) -> tuple[bytes, bytes]:
    """Return the night as JPEG of ``quality`` and its labels as PNG of ids."""
    assert day.label is not None
    image, labels = read_pair(day)
    night = maker(image, labels if day.scene is None else read_labels(day.scene), rng)
    picture = cv2.cvtColor(night, cv2.COLOR_RGB2BGR)
    content = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    if day.label.stores_ids():
        return content, day.label.path.read_bytes()
    return content, encode_labels(labels)


def generated_night(weights: Weights, config: SynthesisConfig, log: Log) -> NightMaker:
    """
    Load a day→night generator: any weights whose task is 'translate'.

    ``config.styles`` are the cameras whose nights are drawn from; none means any camera.
    ``WeightsError`` where the weights are for another task or know no such camera.
    """
    if weights.metadata.task != 'translate':
        raise WeightsError(
            f"weights '{weights.path}' are for '{weights.metadata.task}'; the method "
            "'generator' wants a day→night translator"
        )
    if weights.metadata.training.get('way') == 'night_to_day':
        raise WeightsError(f"weights '{weights.path}' turn night into day, not day into night")
    backend = open_backend(config.backend, config.device)
    long_side = config.long_side or weights.metadata.long_side
    runs = [backend.load(with_style(weights, style), log) for style in config.styles or ('',)]

    def make(image: Bytes, labels: Bytes, rng: np.random.Generator) -> Bytes:
        pixels = backend.pixels
        size = fit(image.shape[0], image.shape[1], long_side)
        run = runs[int(rng.integers(len(runs)))]
        (night,) = run(pixels.stack([pixels.shrink(image, 'rgb', size)]))
        return pixels.download(pixels.restore(night[0], size))

    return make


# -- Fourier amplitudes of real nights -------------------------------------------------------


def fourier_night(references: Sequence[Sample], beta: Range) -> NightMaker:
    """Take low amplitudes of real night frames, drawn at random; see ``mix_amplitude``."""

    def make(image: Bytes, labels: Bytes, rng: np.random.Generator) -> Bytes:
        reference = references[int(rng.integers(len(references)))]
        return mix_amplitude(image, read_image(reference.image), beta=uniform(rng, beta))

    return make


def mix_amplitude(image: Bytes, reference: Bytes, *, beta: float) -> Bytes:
    """
    Swap an image's low Fourier amplitudes for a reference's (FDA, Yang and Soatto 2020).

    Both are uint8 [., ., 3] RGB; the reference is resized. ``beta`` (0 to 0.5) is the half side
    of the swapped square as a share of the shorter side.
    """
    height, width = image.shape[:2]
    style = cv2.resize(reference, (width, height), interpolation=cv2.INTER_AREA)
    reach = int(np.floor(beta * min(height, width)))
    # the half spectrum starts at frequency 0: low rows lie at both of its ends
    windows = [(slice(0, min(reach + 1, height)), slice(0, reach + 1))]
    if reach > 0:
        windows.append((slice(max(height - reach, reach + 1), height), slice(0, reach + 1)))
    result = np.empty(image.shape, np.float32)
    for channel in range(3):
        spectrum = np.fft.rfft2(image[..., channel].astype(np.float32))
        other = np.fft.rfft2(style[..., channel].astype(np.float32))
        for window in windows:
            amplitude = np.abs(spectrum[window])
            # written so since the rounding decides on single levels: a seed keeps its bytes
            wanted = amplitude + (np.abs(other[window]) - amplitude)
            spectrum[window] *= wanted / np.maximum(amplitude, 1e-6)
        result[..., channel] = np.fft.irfft2(spectrum, s=(height, width))
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


# -- colours of real nights by region --------------------------------------------------------

#: Parts of a road scene that a night changes differently.
SKY, GROUND, THINGS = range(3)
#: Bands of rows of the prior; an image's rows are stretched over them.
ROWS = 48
#: Exponent on the guess: above 1 it leans on the rows where a region is alone.
SHARPNESS = 2.0
#: Most that a deviation may grow, which keeps noise and JPEG blocks down.
GROWTH = 3.0


def statistics_night(
    references: Sequence[Sample], days: Sequence[Sample], taxonomy: Taxonomy
) -> NightMaker:
    """
    Take means and deviations of real night frames, drawn at random, region by region.

    Night frames have no labels. What region a pixel of theirs belongs to is guessed from its row,
    by how often the region lies there in the labelled day images; where a reference comes with
    labels, those are taken instead.
    """
    rows = region_rows((read_labels(day.label) for day in days if day.label is not None), taxonomy)

    @cache
    def colors_of(index: int) -> tuple[Array, Array]:
        reference = references[index]
        known = None if reference.label is None else read_labels(reference.label)
        return region_colors(read_image(reference.image), rows, taxonomy, known)

    def make(image: Bytes, labels: Bytes, rng: np.random.Generator) -> Bytes:
        return recolor(image, labels, colors_of(int(rng.integers(len(references)))), rng, taxonomy)

    return make


def _regions(labels: Bytes, taxonomy: Taxonomy) -> Bytes:
    """Return the region of each pixel of uint8 [H, W] ids; void counts as things."""
    roles = role_table(taxonomy)
    table = np.full(256, THINGS, np.uint8)
    table[roles == Role.SKY] = SKY
    table[(roles == Role.ROAD) | (roles == Role.PAVEMENT)] = GROUND
    return table[labels]


def region_rows(masks: Iterable[Bytes], taxonomy: Taxonomy) -> Array:
    """
    Return float32 [ROWS, 3]: how likely each region is in a row of labelled images.

    ``masks`` are uint8 [H, W] ids of ``taxonomy``, void ignored. It is smoothed over an eighth of
    the height, since another camera's horizon lies elsewhere. Without any labelled pixel every
    region is equally likely everywhere.
    """
    counts = np.full((ROWS, 3), 1e-3, np.float64)
    for labels in masks:
        band = np.arange(len(labels)) * ROWS // len(labels)
        flat = (band[:, None] * 3 + _regions(labels, taxonomy))[labels != UNLABELLED]
        counts += np.bincount(flat, minlength=counts.size).reshape(counts.shape)
    smooth = cv2.GaussianBlur(
        counts, (1, 0), 0.1, sigmaY=ROWS / 8, borderType=cv2.BORDER_REPLICATE
    )
    return np.asarray(smooth / smooth.sum(1, keepdims=True), np.float32)


def region_colors(
    image: Bytes, rows: Array, taxonomy: Taxonomy, labels: Bytes | None = None
) -> tuple[Array, Array]:
    """
    Return mean and deviation of CIELAB by region, float32 [3, 3], of a night frame.

    ``image`` is uint8 [H, W, 3] RGB; ``rows`` come from ``region_rows``. With ``labels``
    (uint8 [H, W] ids) each region that holds at least 1 % of the pixels is measured where it is;
    the others keep the guess by rows.
    """
    height, width = image.shape[:2]
    # a frame of any camera has statistics enough at this size
    factor = min(1.0, 240.0 / width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    lab = rgb_to_lab(cv2.resize(image, size, interpolation=cv2.INTER_AREA)).reshape(-1, 3)
    guess = cv2.resize(rows, (3, size[1]), interpolation=cv2.INTER_LINEAR)
    shares = np.repeat(guess**SHARPNESS, size[0], axis=0)
    if labels is not None:
        small = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT).ravel()
        found = np.eye(3, dtype=np.float32)[_regions(small, taxonomy)]
        found[small == UNLABELLED] = 0.0
        enough = found.mean(axis=0) >= 0.01
        shares[:, enough] = found[:, enough]
    shares /= np.maximum(shares.sum(axis=0), 1e-9)
    mean = shares.T @ lab
    deviation = np.sqrt(np.maximum(shares.T @ lab**2 - mean**2, 0.0))
    return mean.astype(np.float32), deviation.astype(np.float32)


def recolor(
    image: Bytes,
    labels: Bytes,
    colors: tuple[Array, Array],
    rng: np.random.Generator,
    taxonomy: Taxonomy,
) -> Bytes:
    """
    Give each region of a labelled day image a night frame's mean and deviation of CIELAB.

    ``image`` uint8 [H, W, 3] RGB, ``labels`` uint8 [H, W], ``colors`` from ``region_colors``; the
    result is uint8 [H, W, 3]. The regions are blended by a soft matte of the sky, so that twigs
    and roofs keep their edges.
    """
    scene = read_scene(labels, role_table(taxonomy), rng)
    linear = (image.astype(np.float32) / np.float32(255.0)) ** np.float32(2.2)
    sky, before = split_sky(linear, scene)
    # without the daylight that shines through them, twigs stay dark
    solid = np.rint(before ** np.float32(1 / 2.2) * 255.0).astype(np.uint8)
    on_ground = (_regions(labels, taxonomy) == GROUND).astype(np.float32)
    ground = cv2.GaussianBlur(on_ground, (0, 0), 1.5) * (1.0 - sky)
    day, things = rgb_to_lab(image), rgb_to_lab(solid)
    result = np.zeros_like(day)
    for region, lab, weight in (
        (SKY, day, sky),
        (GROUND, things, ground),
        (THINGS, things, 1.0 - sky - ground),
    ):
        total = float(weight.sum())
        if total < 1.0:
            continue
        share = weight / total
        mean = np.tensordot(share, lab, axes=2)
        spread = np.sqrt(np.maximum(np.tensordot(share, lab * lab, axes=2) - mean**2, 0.0))
        # the guess by rows mixes what stands before the sky into its deviation
        growth = 1.0 if region == SKY else GROWTH
        gain = np.clip(colors[1][region] / (spread + 1e-3), 0.0, growth)
        result += weight[..., None] * (lab * gain + (colors[0][region] - mean * gain))
    rgb = cv2.cvtColor(result, cv2.COLOR_Lab2RGB)
    return np.asarray(np.clip(np.rint(rgb * 255.0), 0, 255), np.uint8)


def rgb_to_lab(image: Bytes) -> Array:
    return cv2.cvtColor(image.astype(np.float32) / np.float32(255.0), cv2.COLOR_RGB2Lab)


# -- a crude baseline ------------------------------------------------------------------------

_LINEAR = ((np.arange(256) / 255.0) ** 2.2).astype(np.float32)


def darkened_day(image: Bytes, labels: Bytes, rng: np.random.Generator) -> Bytes:
    """Make a crude night to measure the others against: less light, lamps, noise, blur."""
    height, width = image.shape[:2]
    light = np.full((height, width), log_uniform(rng, (0.02, 0.3)), np.float32)
    # head lamps light the lower half
    light *= np.linspace(1.0, uniform(rng, (1.0, 4.0)), height, dtype=np.float32)[:, None]
    linear: Array = cv2.LUT(image, _LINEAR) * light[..., None]
    lamps = np.zeros((height, width, 3), np.float32)
    rows, columns = np.ogrid[:height, :width]
    for _ in range(int(rng.integers(0, 7))):
        y, x = rng.uniform(0.0, 0.8) * height, rng.uniform(0.0, 1.0) * width
        size = log_uniform(rng, (0.005, 0.06)) * width
        squared = (rows - y) ** 2 + (columns - x) ** 2
        glow = np.exp(-squared / (2 * size**2)).astype(np.float32)
        warm = np.array([1.0, uniform(rng, (0.6, 1.0)), uniform(rng, (0.3, 1.0))], np.float32)
        lamps += glow[..., None] * warm * np.float32(log_uniform(rng, (0.1, 1.5)))
    encoded = np.clip(linear + lamps, 0.0, 1.0) ** np.float32(1 / 2.2)
    dark = np.rint(encoded * 255.0).astype(np.uint8)
    dark = photometric.blur(dark, uniform(rng, (0.0, 1.5)) * width / 480.0)
    return photometric.add_noise(dark, uniform(rng, (1, 6)), uniform(rng, (0.5, 4)), rng)
