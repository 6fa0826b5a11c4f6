# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What a camera does to an image: blur, noise, colour, compression; labels stay as they are.

Beside them stand corruptions of every strength, put on labelled frames to learn what a network
makes of them; those that docs/results.md tests are others (bench/out_of_distribution.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
from nightseg_ros.data.night_scene import Array, Bytes
import numpy as np
import numpy.typing as npt

_TILE = 768


@lru_cache(maxsize=1)
def _tiles() -> tuple[Array, Array]:
    """
    Return two noise fields of unit deviation, float32 [768, 768, 3] each.

    Luma noise is alike in the channels and nearly white, chroma noise differs between them
    and is blotchy, as after demosaicing. Drawing fresh noise would cost half of the time of a
    whole synthetic night; a random window of a fixed field looks the same to a network.
    """
    rng = np.random.default_rng(20190820)
    fine = rng.standard_normal((_TILE, _TILE), np.float32)
    soft = cv2.GaussianBlur(fine, (0, 0), 0.8, borderType=cv2.BORDER_REFLECT_101)
    luma = fine * 0.5 + soft / soft.std() * 0.85
    luma = np.repeat((luma / luma.std())[..., None], 3, axis=2)
    small = rng.standard_normal((_TILE, _TILE, 3), np.float32)
    near = cv2.GaussianBlur(small, (0, 0), 0.9)
    far = cv2.GaussianBlur(rng.standard_normal((_TILE, _TILE, 3), np.float32), (0, 0), 2.5)
    chroma = near / near.std() + far / far.std() * 0.7
    chroma -= chroma.mean(axis=2, keepdims=True)
    chroma = (chroma / chroma.std()).astype(np.float32)
    luma.setflags(write=False)
    chroma.setflags(write=False)
    return luma, chroma


def _window(tile: Array, height: int, width: int, rng: np.random.Generator) -> Array:
    """Cut a random [height, width] window out of a tile that repeats endlessly."""
    if height <= _TILE and width <= _TILE:
        top = int(rng.integers(0, _TILE - height + 1))
        left = int(rng.integers(0, _TILE - width + 1))
        return tile[top:, left:][:height, :width]
    top, left = (int(v) for v in rng.integers(0, _TILE, 2))
    rows = (top + np.arange(height)) % _TILE
    columns = (left + np.arange(width)) % _TILE
    return tile[rows[:, None], columns[None, :]]


def _noise(height: int, width: int, luma: float, chroma: float, rng: np.random.Generator) -> Array:
    """Return float32 [height, width, 3] of noise with deviations of luma and chroma."""
    fine, blotchy = (_window(tile, height, width, rng) for tile in _tiles())
    return cv2.addWeighted(fine, luma, blotchy, chroma, 0.0)


def texture(height: int, width: int, rng: np.random.Generator) -> Array:
    """Return a random grain of unit deviation and about two pixels, float32 [H, W]."""
    grain = _window(_tiles()[1], height, width, rng)
    return cv2.extractChannel(grain, int(rng.integers(3)))


def add_noise(image: Bytes, luma: float, chroma: float, rng: np.random.Generator) -> Bytes:
    """
    Add luma and chroma noise to uint8 [H, W, 3]; the deviations are in steps of 255.

    Shot noise of a gamma-encoded image is nearly the same at every level (its square root
    against the slope of the encoding), so the deviation is constant but for read noise in the
    blacks, which adds up to 40 %, and for clipped whites, which show none.
    """
    if luma <= 0.0 and chroma <= 0.0:
        return image
    noise = _noise(image.shape[0], image.shape[1], luma, chroma, rng)
    levels = np.arange(256, dtype=np.float32)
    share = np.minimum(1.0, (255.0 - levels) / 30.0) * (1.0 + 0.4 * np.exp(-levels / 40.0))
    deviation = cv2.LUT(image, share.astype(np.float32))
    return cv2.add(image, cv2.multiply(noise, deviation), dtype=cv2.CV_8U)


def add_blotches(image: Bytes, strength: float, rng: np.random.Generator) -> Bytes:
    """Add a denoiser's patches; ``strength`` is the deviation of their colour, of 255."""
    if strength <= 0.0:
        return image
    height, width = image.shape[:2]
    coarse = _noise(-(-height // 4), -(-width // 4), 0.25 * strength, strength, rng)
    noise = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.add(image, noise, dtype=cv2.CV_8U)


def blur(image: Bytes, sigma: float) -> Bytes:
    """Blur uint8 [H, W, 3] by a Gaussian of ``sigma`` pixels; below 0.3 it is returned as is."""
    if sigma < 0.3:
        return image
    return cv2.GaussianBlur(image, (0, 0), sigma)


def motion_blur(image: Bytes, length: float, angle: float) -> Bytes:
    """Smear uint8 [H, W, 3] along ``angle`` (radians) over ``length`` pixels; below 1.5 not."""
    if length < 1.5:
        return image
    side = int(np.ceil(length)) | 1
    kernel = np.zeros((side, side), np.float32)
    middle = side // 2
    for step in np.linspace(-length / 2, length / 2, 4 * side):
        column = int(round(middle + step * np.cos(angle)))
        row = int(round(middle + step * np.sin(angle)))
        kernel[min(max(row, 0), side - 1), min(max(column, 0), side - 1)] += 1.0
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def saturate(image: Bytes, factor: float) -> Bytes:
    """Scale the chroma of uint8 [H, W, 3] RGB about its luma (Rec. 601)."""
    if abs(factor - 1.0) < 0.02:
        return image
    luma = np.array([0.299, 0.587, 0.114], np.float32)
    matrix = factor * np.eye(3, dtype=np.float32) + (1.0 - factor) * luma[None, :]
    return cv2.transform(image, matrix)


def jpeg(image: Bytes, quality: int) -> Bytes:
    """Compress and decompress uint8 [H, W, 3] RGB; above quality 98 it is returned as is."""
    if quality > 98:
        return image
    _, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    # encoder and decoder swap red and blue alike, so the order survives
    return cv2.imdecode(data, cv2.IMREAD_COLOR)  # type: ignore[return-value]


def curve(
    image: Bytes, *, gain: float, gamma: float, cast: npt.ArrayLike = (1.0, 1.0, 1.0)
) -> Bytes:
    """Return ``255 · min(1, gain · cast_c · (v / 255) ** gamma)`` for uint8 [H, W, 3]."""
    levels = (np.arange(256, dtype=np.float32) / 255.0) ** gamma
    table = 255.0 * gain * levels[:, None] * np.asarray(cast, np.float32)[None, :]
    lut = np.clip(np.rint(table), 0, 255).astype(np.uint8)[:, None, :]
    return cv2.LUT(image, lut)


def halo(image: Bytes, strength: float) -> Bytes:
    """Let nearly clipped pixels of uint8 [H, W, 3] scatter light around them."""
    height, width = image.shape[:2]
    if strength <= 0.0:
        return image
    small = cv2.resize(image, (-(-width // 8), -(-height // 8)), interpolation=cv2.INTER_AREA)
    bright = cv2.subtract(small, np.full_like(small, 200))
    wide = cv2.GaussianBlur(bright, (0, 0), max(1.0, width / 200.0))
    glow = cv2.resize(wide, (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.addWeighted(image, 1.0, glow, 4.0 * strength, 0.0)


# -- corruptions: uint8 [H, W, 3] at a strength of 0 to 1 -------------------------------------


def defocus(image: Bytes, strength: float, rng: np.random.Generator) -> Bytes:
    """Blur by up to 5 % of the width."""
    sigma = 0.05 * strength**2 * image.shape[1] + 0.5
    return cv2.GaussianBlur(image, (0, 0), sigma)


def motion(image: Bytes, strength: float, rng: np.random.Generator) -> Bytes:
    """Smear along a line of up to 20 % of the width."""
    length = max(3, int(0.2 * strength * image.shape[1]))
    angle = rng.uniform(0, np.pi)
    kernel = np.zeros((length, length), np.float32)
    reach = (length - 1) / 2
    ends = [
        (round(reach + sign * reach * np.cos(angle)), round(reach + sign * reach * np.sin(angle)))
        for sign in (-1, 1)
    ]
    cv2.line(kernel, ends[0], ends[1], 1.0)
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def haze(image: Bytes, strength: float, rng: np.random.Generator) -> Bytes:
    """Take away up to 90 % of the contrast, towards a grey."""
    left = 1 - 0.9 * strength
    grey = rng.uniform(60, 210)
    return np.asarray(np.clip(image * left + grey * (1 - left), 0, 255), np.uint8)


def dim(image: Bytes, strength: float, rng: np.random.Generator) -> Bytes:
    """Expose down to a 12th."""
    return np.asarray(image * 0.08**strength, np.uint8)


def scramble(image: Bytes, strength: float, rng: np.random.Generator) -> Bytes:
    """Swap tiles, the more the smaller they are: a broken transmission."""
    count = 2 + int(10 * strength)
    height, width = image.shape[0] // count, image.shape[1] // count
    out = image.copy()
    places = [(y * height, x * width) for y in range(count) for x in range(count)]
    for (y, x), k in zip(places, rng.permutation(len(places))):
        v, u = places[k]
        out[y:, x:][:height, :width] = image[v:, u:][:height, :width]
    return out


def tear(image: Bytes, strength: float, rng: np.random.Generator) -> Bytes:
    """Shift bands of rows sideways: a transmission out of step."""
    out = image.copy()
    edges = np.sort(rng.integers(0, image.shape[0], 3 + int(20 * strength)))
    for top, bottom in zip(edges[:-1], edges[1:]):
        shift = int(rng.normal(0, 0.5 * strength) * image.shape[1])
        out[top:bottom] = np.roll(image[top:bottom], shift, axis=1)
    return out


def mosaic(image: Bytes, strength: float, rng: np.random.Generator) -> Bytes:
    """Keep one mean a block of up to an eighth of the width: a starved video codec."""
    blocks = max(6, round(image.shape[1] / (2 + strength * image.shape[1] / 8)))
    small = cv2.resize(image, (blocks, max(4, blocks * 3 // 4)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)


def false_colors(image: Bytes, strength: float, rng: np.random.Generator) -> Bytes:
    """Blend towards swapped channels: a wrong pixel format."""
    wrong = np.roll(image, int(rng.integers(1, 3)), axis=2)
    return cv2.addWeighted(image, 1 - strength, wrong, strength, 0)


CORRUPTIONS: dict[str, Callable[[Bytes, float, np.random.Generator], Bytes]] = {
    'defocus': defocus, 'motion': motion, 'haze': haze, 'dim': dim, 'scramble': scramble,
    'tear': tear, 'mosaic': mosaic, 'false_colors': false_colors,
}  # fmt: skip


def corrupted(image: Bytes, rng: np.random.Generator) -> Bytes:
    """Return uint8 [H, W, 3] RGB with one corruption of some strength."""
    corrupt = list(CORRUPTIONS.values())[rng.integers(len(CORRUPTIONS))]
    return corrupt(image, float(rng.uniform(0.05, 1)), rng)
