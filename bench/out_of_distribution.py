# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Out-of-distribution images: a camera that is covered, noisy, saturated, indoors or blank.

They test a reliability score and are never fitted on. A street is only the ground for those that
let some of it through; labels do not exist.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
from nightseg_ros.data.photometric import jpeg
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Corruption = Callable[[Image, np.random.Generator], Image]


def covered(street: Image, rng: np.random.Generator) -> Image:
    """Cloth, mud or a hand close to the lens: a soft dark texture, light leaking in at a side."""
    height, width = street.shape[:2]
    scales = [_field(rng, (height, width), cells) / cells**0.5 for cells in (2, 4, 8, 16)]
    texture = np.sum(scales, axis=0)
    leak = _ramp(height, width, rng) ** rng.uniform(4, 12) * rng.uniform(0, 120)
    tone = rng.uniform(8, 70) * rng.uniform(0.6, 1.2, 3)
    light = tone * (1 + rng.uniform(0.1, 0.5) * texture[..., None]) + leak[..., None]
    return _camera(light + street * rng.uniform(0, 0.03), rng)


def noise(street: Image, rng: np.random.Generator) -> Image:
    """Sensor noise that drowns the street: white, salt and pepper, or in colour blotches."""
    height, width = street.shape[:2]
    kind = rng.integers(3)
    left = rng.uniform(0, 0.1) * street
    if kind == 0:
        channels = 1 if rng.random() < 0.5 else 3
        mean, deviation = rng.uniform(60, 190), rng.uniform(40, 90)
        return _bytes(left + rng.normal(mean, deviation, (height, width, channels)))
    if kind == 1:
        return _bytes(left + (rng.random((height, width, 1)) < 0.5) * 255.0)
    cell = int(rng.integers(2, 6))
    blotches = rng.uniform(0, 255, (height // cell + 1, width // cell + 1, 3)).astype(np.float32)
    return _bytes(left + cv2.resize(blotches, (width, height)))


def saturated(street: Image, rng: np.random.Generator) -> Image:
    """Let sun or head lamps into the lens: nearly all of the picture at its upper end."""
    height, width = street.shape[:2]
    y, x = np.mgrid[:height, :width]
    center = rng.uniform(0.2, 0.8, 2) * (height, width)
    away = np.hypot(y - center[0], x - center[1]) / width
    reach = rng.uniform(0.4, 0.9)
    glow = rng.uniform(300, 900) * np.exp(-((away / reach) ** 2)) + rng.uniform(20, 120)
    tint = rng.uniform(0.85, 1.0, 3)
    return _camera(street * rng.uniform(1.0, 3.0) + glow[..., None] * tint, rng)


def indoor(street: Image, rng: np.random.Generator) -> Image:
    """Draw a garage or hall: walls, floor, ceiling with lamps, shelves and boxes; no street."""
    height, width = street.shape[:2]
    size = np.array([width, height])
    picture = np.zeros((height, width, 3), np.float32)
    far = rng.uniform(0.15, 0.4)
    center = rng.uniform((0.35, 0.35), (0.65, 0.6)) * size
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    near, back = corners * size, center + (2 * corners - 1) * (far * size / 2)
    for side in range(4):
        after = (side + 1) % 4
        face = near[side], near[after], back[after], back[side]
        cv2.fillConvexPoly(picture, _whole(face), _paint(rng, 60, 220))
        for step in np.linspace(0.1, 0.9, int(rng.integers(2, 9))):
            ends = (face[0] + (face[1] - face[0]) * step, face[3] + (face[2] - face[3]) * step)
            cv2.line(picture, *_whole(ends), _paint(rng, 40, 240), 1, cv2.LINE_AA)
    cv2.fillConvexPoly(picture, _whole(back), _paint(rng, 60, 220))
    for _ in range(int(rng.integers(1, 5))):
        lamp = _whole(rng.uniform((0.1, 0), (0.9, 0.2)) * size)
        axes = (int(width / 12), int(height / 40))
        cv2.ellipse(picture, lamp, axes, 0, 0, 360, (255, 255, 245), -1, cv2.LINE_AA)
    for _ in range(int(rng.integers(5, 16))):
        low = rng.uniform(0, 0.9, 2) * size
        high = low + rng.uniform(0.05, 0.35, 2) * size
        color = _paint(rng, 20, 230)
        cv2.rectangle(picture, _whole(low), _whole(high), color, -1)
        for shelf in np.linspace(low[1], high[1], int(rng.integers(1, 6))):
            ends = ((low[0], shelf), (high[0], shelf))
            cv2.line(picture, *_whole(ends), [0.6 * c for c in color], 2)
    shade = 0.7 + 0.3 * _ramp(height, width, rng)[..., None]
    texture = 1 + 0.06 * _field(rng, (height, width), 40)[..., None]
    return _camera(picture * shade * texture, rng)


def blank(street: Image, rng: np.random.Generator) -> Image:
    """One colour (black and white among them), or a test picture of bars."""
    height, width = street.shape[:2]
    kind = rng.integers(4)
    if kind == 3:
        bars = 255 * (np.arange(8)[:, None] >> np.arange(3) & 1)
        return np.repeat(_bytes(bars[np.arange(width) * 8 // width])[None], height, 0)
    color = rng.uniform(0, 255, 3)
    if kind < 2:
        color[:] = 255 * kind
    return _bytes(color + rng.normal(0, 0.8, street.shape))


CORRUPTIONS: dict[str, Corruption] = {
    'covered': covered, 'noise': noise, 'saturated': saturated, 'indoor': indoor, 'blank': blank,
}  # fmt: skip


def _field(rng: np.random.Generator, size: tuple[int, int], cells: int) -> npt.NDArray[np.float64]:
    coarse = rng.normal(0, 1, (cells + 1, cells + 1))
    return np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), np.float64)


def _ramp(height: int, width: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return float64 [H, W] from 0 to 1 along a direction."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:height, :width]
    ramp = np.cos(angle) * x / width + np.sin(angle) * y / height
    return np.asarray((ramp - ramp.min()) / (ramp.max() - ramp.min()))


def _camera(light: npt.NDArray[np.float64], rng: np.random.Generator) -> Image:
    """Blur a little, add a sensor's noise, compress."""
    soft = cv2.GaussianBlur(np.asarray(light, np.float32), (0, 0), 0.7)
    picture = _bytes(soft + rng.normal(0, rng.uniform(0.5, 4), soft.shape))
    return jpeg(picture, 90)


def _bytes(light: npt.NDArray[np.floating]) -> Image:
    return np.asarray(np.clip(np.rint(light), 0, 255), np.uint8)


def _paint(rng: np.random.Generator, low: float, high: float) -> list[float]:
    grey = rng.uniform(low, high)
    return list(np.clip(grey * rng.uniform(0.8, 1.2, 3), 0, 255))


def _whole(at: npt.ArrayLike) -> npt.NDArray[np.int32]:
    return np.rint(at).astype(np.int32)
