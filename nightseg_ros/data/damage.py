# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Camera faults of every strength, put on labelled frames to learn what a network makes of them.

None of them is a fault that docs/confidence.md tests: those are in ``simulation.blinded``.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Damage = Callable[[Image, float, np.random.Generator], Image]


def defocus(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Blur by up to 5 % of the width."""
    sigma = 0.05 * strength**2 * image.shape[1] + 0.5
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def motion(image: Image, strength: float, rng: np.random.Generator) -> Image:
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
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)


def haze(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Take away up to 90 % of the contrast, towards a grey."""
    left = 1 - 0.9 * strength
    grey = rng.uniform(60, 210)
    return np.asarray(np.clip(image * left + grey * (1 - left), 0, 255), np.uint8)


def dim(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Expose down to a 12th."""
    return np.asarray(image * 0.08**strength, np.uint8)


def scramble(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Swap tiles, the more the smaller they are: a broken transmission."""
    count = 2 + int(10 * strength)
    height, width = image.shape[0] // count, image.shape[1] // count
    out = image.copy()
    places = [(y * height, x * width) for y in range(count) for x in range(count)]
    for (y, x), k in zip(places, rng.permutation(len(places))):
        v, u = places[k]
        out[y : y + height, x : x + width] = image[v : v + height, u : u + width]
    return out


def tear(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Shift bands of rows sideways: a transmission out of step."""
    out = image.copy()
    edges = np.sort(rng.integers(0, image.shape[0], 3 + int(20 * strength)))
    for top, bottom in zip(edges[:-1], edges[1:]):
        shift = int(rng.normal(0, 0.5 * strength) * image.shape[1])
        out[top:bottom] = np.roll(image[top:bottom], shift, axis=1)
    return out


def mosaic(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Keep one mean a block of up to an eighth of the width: a starved video codec."""
    blocks = max(6, round(image.shape[1] / (2 + strength * image.shape[1] / 8)))
    small = cv2.resize(image, (blocks, max(4, blocks * 3 // 4)), interpolation=cv2.INTER_AREA)
    size = (image.shape[1], image.shape[0])
    return np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_NEAREST), np.uint8)


def false_colors(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Blend towards swapped channels: a wrong pixel format."""
    wrong = np.roll(image, int(rng.integers(1, 3)), axis=2)
    return np.asarray(cv2.addWeighted(image, 1 - strength, wrong, strength, 0), np.uint8)


DAMAGES: dict[str, Damage] = {
    'defocus': defocus, 'motion': motion, 'haze': haze, 'dim': dim, 'scramble': scramble,
    'tear': tear, 'mosaic': mosaic, 'false_colors': false_colors,
}  # fmt: skip


def damaged(image: Image, rng: np.random.Generator) -> Image:
    """Return uint8 [H, W, 3] RGB with one fault of some strength."""
    name = list(DAMAGES)[rng.integers(len(DAMAGES))]
    return DAMAGES[name](image, float(rng.uniform(0.05, 1)), rng)
