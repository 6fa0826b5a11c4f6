# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The artificial lights of a night: street lamps, head lamps, windows, traffic, glints."""

from __future__ import annotations

from typing import NamedTuple

import cv2
from nightseg_ros.data.night_presets import count, LightRanges, log_uniform, uniform
from nightseg_ros.data.night_scene import Array, CAMERA_HEIGHT, coarse_mean, Role, Scene, STRIDE
import numpy as np

# linear RGB of black bodies, clipped to sRGB's gamut and scaled to luminance 1 (Rec. 709)
_KELVIN = np.array([1900.0, 2700.0, 4000.0, 5500.0, 6500.0, 8000.0])
_COLORS = np.array(
    [[2.0, 0.78, 0.04], [1.72, 0.87, 0.22], [1.33, 0.94, 0.6], [1.08, 0.98, 0.91],
     [1.0, 1.0, 1.0], [0.88, 1.01, 1.2]],
    np.float32,
)  # fmt: skip

RED = np.array([3.2, 0.25, 0.1], np.float32)
AMBER = np.array([2.1, 0.75, 0.05], np.float32)
GREEN = np.array([0.1, 1.25, 0.6], np.float32)
# height of each lamp in a traffic light, from the top
_SIGNALS = ((0.2, RED), (0.5, AMBER), (0.8, GREEN))


def lamp_color(kelvin: float) -> Array:
    """Return the linear RGB of a black body at luminance 1, float32 [3]."""
    channels = [np.interp(kelvin, _KELVIN, _COLORS[:, channel]) for channel in range(3)]
    return np.array(channels, np.float32)


class Lamps(NamedTuple):
    """Street lamps as points: float32 [K] metres, powers and [K, 3] linear RGB colours."""

    x: Array
    y: Array
    z: Array
    power: Array
    color: Array


def place_lamps(scene: Scene, ranges: LightRanges, rng: np.random.Generator) -> Lamps:
    """Put lamps of one or two kinds beside the road, and some on the tops of labelled poles."""
    number = count(rng, ranges.lamps)
    side = np.where(np.arange(number) % 2 == 0, 1.0, -1.0) * (1 if rng.random() < 0.5 else -1)
    spacing = float(rng.uniform(6.0, 18.0))
    z = rng.uniform(2.0, 16.0) + spacing * np.arange(number) + rng.normal(0.0, 2.0, number)
    z = np.maximum(z, 1.5)
    x = side * rng.uniform(3.0, 9.0) + rng.normal(0.0, 1.0, number)
    y = rng.uniform(4.0, 8.5) + rng.normal(0.0, 0.4, number)
    poles = _pole_tops(scene)
    for index in range(min(len(poles), number)):
        if rng.random() < 0.6:
            row, column = poles[int(rng.integers(len(poles)))]
            x[index], z[index] = scene.x[row, column], scene.z[row, column]
            y[index] = max(float(scene.y[row, column]), 2.5)
    kinds = [uniform(rng, ranges.lamp_kelvin) for _ in range(2)]
    mixed = rng.random() < 0.5
    kelvin = [kinds[int(mixed and rng.random() < 0.4)] for _ in range(number)]
    colors = np.array([lamp_color(k * float(rng.uniform(0.9, 1.1))) for k in kelvin], np.float32)
    # one pool has irradiance 1 on the road below its lamp
    power = log_uniform(rng, ranges.lamp_power) * np.exp(rng.normal(0.0, 0.35, number)) * y**2
    x, y, z, power = np.stack((x, y, z, power)).astype(np.float32)
    return Lamps(x, y, z, power, colors.reshape(number, 3))


def _blobs(scene: Scene, role: Role) -> Array:
    """Return left, top, width, height and area in cells of each connected part, int32 [N, 5]."""
    cells = (scene.coarse == role).astype(np.uint8)
    return np.asarray(cv2.connectedComponentsWithStats(cells)[2][1:])


def _pole_tops(scene: Scene) -> list[tuple[int, int]]:
    """Return (row, column) of the top cell of each labelled pole, the tallest first."""
    tops = []
    boxes = sorted(_blobs(scene, Role.POLE).tolist(), key=lambda box: -box[3])
    for left, top, width, height, _ in boxes[:8]:
        if height >= 3:
            column = (scene.coarse[top, left:][:width] == Role.POLE).argmax()
            tops.append((top, left + int(column)))
    return tops


def lamp_light(scene: Scene, lamps: Lamps) -> Array:
    """
    Return the light of the street lamps on each cell, float32 [h, w, 3].

    Inverse square of the distance times a cosine: that of the angle to the vertical on the
    ground, a constant on upright things, less above the lamp's shade.
    """
    dx = scene.x[None] - lamps.x[:, None, None]
    dy = lamps.y[:, None, None] - scene.y[None]
    dz = scene.z[None] - lamps.z[:, None, None]
    squared = dx * dx + dy * dy + dz * dz + 2.0
    cosine = np.where(
        scene.ground[None], dy / np.sqrt(squared), np.where(dy > 0.0, 0.6, 0.2)
    ).astype(np.float32)
    falloff = lamps.power[:, None, None] * cosine / squared
    return np.asarray(np.tensordot(falloff, lamps.color, axes=(0, 0)), np.float32)


def head_light(scene: Scene, strength: float, rng: np.random.Generator) -> Array:
    """Return the light of the own head lamps on each cell, float32 [h, w, 3]."""
    azimuth = scene.x / scene.z - float(rng.normal(0.0, 0.05))
    down = np.clip((CAMERA_HEIGHT - scene.y) / scene.z, -1.0, 1.0)
    wide = float(rng.uniform(0.18, 0.5))
    high_beam = float(rng.uniform(0.04, 0.25)) if rng.random() < 0.8 else 0.7
    cut = high_beam + (1.0 - high_beam) / (1.0 + np.exp(-(down - 0.01) / 0.025))
    reach = float(rng.uniform(8.0, 30.0))
    beam = np.exp(-((azimuth / wide) ** 2)) * cut / (1.0 + (scene.z / reach) ** 2)
    beam *= strength * (1.0 - 0.7 * np.exp(-((scene.z / 3.5) ** 2)))
    color = lamp_color(float(rng.uniform(3000.0, 6500.0)))
    return np.asarray(beam[..., None] * color, np.float32)


def draw_lamps(canvas: Array, scene: Scene, lamps: Lamps, rng: np.random.Generator) -> None:
    """Add the visible lamp heads to ``canvas``, float32 [H, W, 3] radiance, in place."""
    height, width = canvas.shape[:2]
    for index in range(len(lamps.x)):
        x, y, z = float(lamps.x[index]), float(lamps.y[index]), float(lamps.z[index])
        u, v = scene.project(x, y, z)
        if not (0 <= u < width and 0 <= v < height):
            continue
        cell = int(v) // STRIDE, int(u) // STRIDE
        hidden = scene.coarse[cell] != Role.SKY and scene.z[cell] < 0.7 * z
        if hidden and rng.random() < 0.8:
            continue
        radius = scene.focal * float(rng.uniform(0.04, 0.12)) / max(z, 8.0)
        _disk(canvas, u, v, radius, lamps.color[index] * log_uniform(rng, (15.0, 150.0)))


def draw_glints(canvas: Array, scene: Scene, number: int, rng: np.random.Generator) -> None:
    """Add small far lights about the horizon to ``canvas`` in place."""
    height, width = canvas.shape[:2]
    spread = float(rng.uniform(0.02, 0.1)) * height
    for _ in range(number):
        u = float(rng.normal(scene.center, 0.25 * width))
        v = float(rng.normal(scene.horizon - 0.03 * height, spread))
        if not (0 <= u < width and 0 <= v < height):
            continue
        if scene.roles[int(v), int(u)] in (Role.SKY, Role.ROAD, Role.PERSON):
            continue
        pick = rng.random()
        color = RED if pick < 0.25 else AMBER if pick < 0.35 else GREEN if pick < 0.45 else None
        if color is None:
            color = lamp_color(float(rng.uniform(2000.0, 8000.0)))
        radius = float(rng.uniform(0.5, 2.2)) * width / 480.0
        _disk(canvas, u, v, radius, color * log_uniform(rng, (2.0, 25.0)))


def draw_windows(
    canvas: Array, scene: Scene, luma: Array, share: float, rng: np.random.Generator
) -> None:
    """
    Light a share of the windows and shop fronts in ``canvas`` in place.

    By day a window is darker than its wall, so what lies below the local mean of ``luma``
    (float32 [H, W], linear) in a building is taken for glass; whole cells are lit together.
    """
    facade = scene.coarse == Role.BUILDING
    if share <= 0.0 or not facade.any():
        return
    h, w = facade.shape
    cells_h, cells_w = max(1, h // int(rng.integers(4, 9))), max(1, w // int(rng.integers(3, 8)))
    lit = (rng.random((cells_h, cells_w)) < share).astype(np.float32)
    lit *= np.exp(rng.normal(0.0, 0.5, lit.shape)).astype(np.float32)
    low = cv2.resize(lit, (w, h), interpolation=cv2.INTER_NEAREST)
    # shops and entrances: more light near the ground
    if rng.random() < 0.6:
        shops = (rng.random((1, cells_w)) < 2.0 * share).astype(np.float32)
        row = cv2.resize(shops, (w, 1), interpolation=cv2.INTER_NEAREST)
        low = np.maximum(low, row * (scene.y < 3.5))
    low *= facade
    if not low.any():
        return
    height, width = luma.shape
    small = coarse_mean(luma, scene)
    mean = cv2.resize(cv2.blur(small, (9, 9)), (width, height), interpolation=cv2.INTER_LINEAR)
    full = cv2.resize(low, (width, height), interpolation=cv2.INTER_NEAREST)
    rows, columns = np.nonzero((full > 0.0) & (scene.roles == Role.BUILDING))
    contrast = luma[rows, columns] / (mean[rows, columns] + 1e-4)
    edge = float(rng.uniform(0.6, 0.9))
    glass = np.clip((edge - contrast) / 0.25, 0.0, 1.0)
    # what shows behind the glass keeps a trace of what the day saw there
    glass *= full[rows, columns] * (0.4 + contrast)
    color = lamp_color(float(rng.uniform(2200.0, 6500.0))) * log_uniform(rng, (0.5, 7.0))
    canvas[rows, columns] += glass[:, None] * color


def draw_traffic(canvas: Array, scene: Scene, share: float, rng: np.random.Generator) -> None:
    """Switch on the lamps of a share of the labelled vehicles in ``canvas`` in place."""
    vehicles = _blobs(scene, Role.VEHICLE)
    if not len(vehicles):
        return
    # who drives on which side: on-coming traffic shows white, traffic ahead red
    handed = 1.0 if rng.random() < 0.5 else -1.0
    for left, top, width, height, area in (vehicles[:23] * STRIDE).tolist():
        if area < 6 * STRIDE or rng.random() > share:
            continue
        middle = left + width / 2
        oncoming = (middle - scene.center) * handed < 0
        if rng.random() < 0.15:
            oncoming = not oncoming
        # one car is about as wide as high; wider blobs are parked rows seen from the side
        span = min(width, 1.5 * height)
        left = middle - span / 2 if rng.random() < 0.5 else left
        v = top + height * float(rng.uniform(0.5, 0.68))
        radius = float(np.clip(span * rng.uniform(0.03, 0.07), 0.5, 0.015 * canvas.shape[1]))
        if oncoming:
            white = lamp_color(float(rng.uniform(3200.0, 8000.0)))
            color: Array = white * log_uniform(rng, (8.0, 150.0))
        else:
            color = RED * log_uniform(rng, (2.0, 25.0))
        for side in (0.14, 0.86):
            u = left + side * span
            cell = min(int(v), canvas.shape[0] - 1), min(int(u), canvas.shape[1] - 1)
            if scene.roles[cell] == Role.VEHICLE:
                _disk(canvas, u, v, radius, color)


def draw_signals(canvas: Array, scene: Scene, share: float, rng: np.random.Generator) -> None:
    """Light one lamp of a share of the upright signs, as of traffic lights, in place."""
    for left, top, width, height, _ in (_blobs(scene, Role.SIGN)[:23] * STRIDE).tolist():
        upright = height >= 1.5 * width and width <= 0.06 * canvas.shape[1]
        if not upright or rng.random() > share:
            continue
        place, color = _SIGNALS[int(rng.choice(3, p=[0.5, 0.1, 0.4]))]
        brightness = log_uniform(rng, (3.0, 25.0))
        _disk(canvas, left + width / 2, top + place * height, 0.3 * width, color * brightness)


def _disk(canvas: Array, u: float, v: float, radius: float, color: Array) -> None:
    """Draw a soft-edged disk; below a pixel's size its light shrinks with its area."""
    height, width = canvas.shape[:2]
    reach = int(np.ceil(radius + 1.0))
    left, right = max(0, int(u) - reach), min(width, int(u) + reach + 1)
    top, bottom = max(0, int(v) - reach), min(height, int(v) + reach + 1)
    if left >= right or top >= bottom:
        return
    du = np.arange(left, right, dtype=np.float32) + 0.5 - u
    dv = np.arange(top, bottom, dtype=np.float32) + 0.5 - v
    distance = np.sqrt(du[None, :] ** 2 + dv[:, None] ** 2)
    cover = np.clip(radius + 0.5 - distance, 0.0, 1.0) * min(1.0, radius * radius * 2.0)
    canvas[top:bottom, left:right] += cover[..., None] * color
