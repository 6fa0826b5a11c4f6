# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Joint augmentation of an image and its labels in cv2 and numpy: geometry, night, camera."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
from nightseg_ros.config import Limited, Natural, NotNegative, Positive, Share
from nightseg_ros.data import photometric
from nightseg_ros.data.night import synthesize_night
from nightseg_ros.data.night_presets import count, log_uniform, NightConfig, Range, uniform
from nightseg_ros.data.night_scene import Bytes, Role, role_table
from nightseg_ros.taxonomy import CAMVID11, Taxonomy, UNLABELLED
import numpy as np

#: Colour of pixels that padding adds: the ImageNet mean, which a normalised network sees as 0.
PADDING = (124, 116, 104)
#: A crop in which one class takes more of the labelled pixels is drawn again.
DOMINANCE = 0.75
#: Standard deviations of blur (pixels), luma noise and blotchy colour noise (of 255).
BLUR, NOISE, CHROMA = (0.0, 3.0), (0.0, 8.0), (0.0, 6.0)
#: JPEG quality, ends included; strength of the light that clipped pixels scatter.
JPEG, HALO = (30, 95), (0.0, 0.6)


@dataclass(frozen=True, kw_only=True, slots=True)
class PhotometricConfig(Limited):
    """Ranges of the camera's share of augmentation; probabilities are 0 to 1."""

    gain: Range = (0.15, 1.5)
    """Factor on encoded values (log-uniform)."""
    gamma: Range = (0.6, 1.6)
    """Exponent on encoded values (log-uniform)."""
    curve_probability: Share = 0.7
    """How often gain and gamma apply; else only a mild version of them."""
    cast: NotNegative = 0.12
    """Standard deviation of the natural log of each channel's gain."""
    saturation: Range = (0.3, 1.4)
    blur_probability: Share = 0.35
    noise_probability: Share = 0.4
    jpeg_probability: Share = 0.3
    halo_probability: Share = 0.15


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig(Limited):
    """How a training sample is drawn from a labelled image."""

    crop: tuple[int, int] = (352, 480)
    """Height and width of the result in pixels."""
    scale: Range = (0.5, 2.0)
    """Factor of the image's size before the crop (log-uniform)."""
    long_side: Natural = 0
    """Long side of every image at scale 1, in pixels; 0 is the image's own. With that of the
    network's use, things of all cameras are as large in training as they will be in use."""
    flip: Share = 0.5
    """Probability of a mirror image."""
    tries: Positive = 4
    """Draws of a crop, until no class takes most of it, before it is taken as it is."""
    night_share: Share = 0.0
    """Probability that the sample becomes a synthetic night."""
    unlit: NotNegative = 0.0
    """Level of 255 below which a person by night is not to be seen, so that the label becomes
    void; 0 keeps every label. Without it a network learns that people stand in the black."""
    night: NightConfig = field(default_factory=NightConfig)
    photometric: PhotometricConfig = field(default_factory=PhotometricConfig)

    def __post_init__(self) -> None:
        Limited.__post_init__(self)
        if min(self.crop) < 1:
            raise ValueError(f"'crop' must be height and width of 1 or more, got {self.crop}")
        if not 0.0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"'scale' must be 0 < low <= high, got {self.scale}")


def augment(
    image: Bytes,
    labels: Bytes,
    rng: np.random.Generator,
    config: AugmentConfig,
    *,
    taxonomy: Taxonomy = CAMVID11,
    scene: Bytes | None = None,
) -> tuple[Bytes, Bytes]:
    """
    Draw a training sample: scale, crop, flip, perhaps a synthetic night, then the camera.

    ``image`` uint8 [H, W, 3] RGB and ``labels`` uint8 [H, W] become uint8 [h, w, 3] and
    uint8 [h, w] of the configured crop. The inputs are not changed. ``scene`` uint8 [H, W] is
    what the synthetic night is made by where the labels have gaps: a guess for every pixel.
    """
    layers = cv2.merge((labels, labels if scene is None else scene))
    image, layers = scale_and_crop(image, layers, rng, config)
    if rng.random() < config.flip:
        image, layers = flip(image, layers)
    labels, guess = cv2.split(layers)
    if rng.random() < config.night_share:
        # the night brings its own camera
        image = synthesize_night(image, guess, rng, config.night, taxonomy=taxonomy)
        labels = hide_unlit(image, labels, config.unlit, taxonomy)
    else:
        image = distort(image, rng, config.photometric)
    # padding comes last: it must neither be exposed for nor change colour
    return pad(image, labels, config.crop, rng)


def hide_unlit(image: Bytes, labels: Bytes, level: float, taxonomy: Taxonomy) -> Bytes:
    """
    Return labels uint8 [H, W] in which persons in the dark of RGB [H, W, 3] are void.

    A pixel is dark where the brightest channel, averaged over a square of a 41st of the height,
    stays below ``level`` of 255.
    """
    if not level:
        return labels
    side = max(3, image.shape[0] // 41 | 1)
    around = cv2.blur(image.max(axis=2), (side, side))
    hidden = (role_table(taxonomy)[labels] == Role.PERSON) & (around < level)
    return np.where(hidden, np.uint8(UNLABELLED), labels)


def scale_and_crop(
    image: Bytes, labels: Bytes, rng: np.random.Generator, config: AugmentConfig
) -> tuple[Bytes, Bytes]:
    """
    Scale by a random factor and cut a random crop, smaller where the image ends.

    Only the window that is needed is resized: linear or area for the image, nearest for the
    labels, with the same pixel centres. Labels may have several layers, uint8 [H, W, n]; the
    first one decides whether a crop is too plain.
    """
    height, width = labels.shape[:2]
    factor = log_uniform(rng, config.scale)
    if config.long_side:
        factor *= config.long_side / max(height, width)
    out_h, out_w = config.crop
    # the window of the source that fills the crop, at most the whole image
    window_h = min(height, max(1, round(out_h / factor)))
    window_w = min(width, max(1, round(out_w / factor)))
    for attempt in range(config.tries):
        top = int(rng.integers(0, height - window_h + 1))
        left = int(rng.integers(0, width - window_w + 1))
        part = labels[top:, left:][:window_h, :window_w]
        if attempt == config.tries - 1 or _dominance(part) <= DOMINANCE:
            break
    size_h = min(out_h, max(1, round(window_h * factor)))
    size_w = min(out_w, max(1, round(window_w * factor)))
    cut = image[top:, left:][:window_h, :window_w]
    how = cv2.INTER_AREA if factor < 1.0 else cv2.INTER_LINEAR
    scaled = cv2.resize(cut, (size_w, size_h), interpolation=how)
    classes = cv2.resize(part, (size_w, size_h), interpolation=cv2.INTER_NEAREST_EXACT)
    return scaled, classes


def pad(
    image: Bytes, labels: Bytes, size: tuple[int, int], rng: np.random.Generator
) -> tuple[Bytes, Bytes]:
    """Place image and labels at random in ``size`` or more, amid ``PADDING`` and 255."""
    height, width = labels.shape
    out_h, out_w = max(size[0], height), max(size[1], width)
    if (height, width) == (out_h, out_w):
        return image, labels
    y = int(rng.integers(0, out_h - height + 1))
    x = int(rng.integers(0, out_w - width + 1))
    edges = y, out_h - height - y, x, out_w - width - x, cv2.BORDER_CONSTANT
    framed = cv2.copyMakeBorder(image, *edges, value=PADDING)
    return framed, cv2.copyMakeBorder(labels, *edges, value=(UNLABELLED,))


def _dominance(labels: Bytes) -> float:
    """Return the share of the most frequent class among the labelled pixels (1 if none is)."""
    first = labels if labels.ndim == 2 else labels[..., 0]
    counts = np.bincount(first[::4, ::4].ravel(), minlength=256)[:UNLABELLED]
    total = int(counts.sum())
    return float(counts.max()) / total if total else 1.0


def flip(image: Bytes, labels: Bytes) -> tuple[Bytes, Bytes]:
    """Mirror an image and its labels left to right."""
    return cv2.flip(image, 1), cv2.flip(labels, 1)


def distort(image: Bytes, rng: np.random.Generator, config: PhotometricConfig) -> Bytes:
    """Change light, colour, sharpness, noise and compression of uint8 [H, W, 3] RGB."""
    strong = rng.random() < config.curve_probability
    gain = log_uniform(rng, config.gain if strong else (0.85, 1.15))
    gamma = log_uniform(rng, config.gamma if strong else (0.9, 1.1))
    cast = np.exp(rng.normal(0.0, config.cast, 3))
    if rng.random() < config.halo_probability:
        image = photometric.halo(image, uniform(rng, HALO))
    if rng.random() < config.blur_probability:
        image = photometric.blur(image, uniform(rng, BLUR))
    image = photometric.curve(image, gain=gain, gamma=gamma, cast=cast)
    image = photometric.saturate(image, uniform(rng, config.saturation))
    if rng.random() < config.noise_probability:
        luma, chroma = uniform(rng, NOISE), uniform(rng, CHROMA)
        image = photometric.add_noise(image, luma, chroma, rng)
    if rng.random() < config.jpeg_probability:
        image = photometric.jpeg(image, count(rng, JPEG))
    return image
