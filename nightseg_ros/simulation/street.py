# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
One looping street, drawn from one seed: its layout, textures and traffic.

The order in which random numbers are drawn is part of it: the same seed gives the same street.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any

import cv2
from nightseg_ros.taxonomy import CAMVID11
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
(SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN,
 BICYCLIST) = range(len(CAMVID11))  # fmt: skip
SPLITS = ('train', 'demo')
LENGTH = 480.0
"""Metres after which the street repeats."""
CROSSING = 9.0
"""A side road of this width starts at z = 0 and at half the length."""
RGB = tuple[int, int, int]
CLOTHES = (
    (40, 44, 60), (120, 40, 44), (60, 80, 110), (150, 146, 138), (50, 70, 52), (190, 160, 60),
)  # fmt: skip
BODIES = (  # length, width, sill, height, then cabin: foot and roof, rear and front, from the rear
    (4.1, 1.74, 0.95, 1.48, 0.05, 3.2, 0.5, 2.3),
    (4.6, 1.80, 0.92, 1.43, 0.6, 3.6, 1.2, 2.7),
    (4.5, 1.84, 1.05, 1.68, 0.02, 3.6, 0.3, 2.8),
    (5.2, 1.98, 1.25, 2.30, 0.0, 4.5, 0.05, 3.9),
)
PAINTS = ((30, 32, 36), (196, 198, 200), (228, 228, 224), (120, 124, 130), (140, 26, 28),
          (34, 56, 110), (70, 84, 74), (150, 120, 70), (60, 100, 130), (94, 30, 60))  # fmt: skip


class Mip:
    """A texture, periodic in its columns, with its halved copies stacked in one image."""

    def __init__(self, texture: Array, ppm: float) -> None:
        """Take 0 to 255 [rows, columns, channels] at ``ppm`` pixels a metre."""
        texture = texture.clip(0, 255).astype(np.uint8)
        self.ppm, self.rows, self.columns = ppm, texture.shape[0], texture.shape[1]
        levels: list[Array] = []
        self.tops: list[int] = []
        top = 0
        while min(texture.shape[:2]) >= 4 and len(levels) < 7:
            level = np.pad(texture, ((1, 1), (0, 0), (0, 0)), mode='edge')
            level = np.pad(level, ((0, 0), (1, 1), (0, 0)), mode='wrap')
            spare = self.columns + 2 - level.shape[1]
            levels.append(np.pad(level, ((0, 0), (0, spare), (0, 0))))
            self.tops.append(top + 1)
            top += level.shape[0]
            halved = (max(1, texture.shape[1] // 2), max(1, texture.shape[0] // 2))
            texture = cv2.resize(texture, halved, interpolation=cv2.INTER_AREA)
        self.image = np.concatenate(levels)

    def sample(self, along: Array, across: Array, footprint: Array) -> Array:
        """Look up metres along the columns and across the rows, ``footprint`` metres a pixel."""
        level = np.log2(np.maximum(footprint * self.ppm, 1e-6)).clip(0, len(self.tops) - 1)
        level = level.astype(np.int32)
        scale = (self.ppm / (1 << level)).astype(np.float32)
        column = np.mod(along * scale, self.columns // (1 << level)) + 0.5
        row = (across * scale).clip(0, self.rows / (1 << level)) - 0.5
        row = row + np.asarray(self.tops, np.float32)[level]
        shape = np.broadcast_shapes(column.shape, row.shape)
        u, v = (np.broadcast_to(m, shape).astype(np.float32) for m in (column, row))
        return np.asarray(cv2.remap(self.image, u, v, cv2.INTER_LINEAR))


def pyramid(sprite: Array) -> list[Array]:
    """Halve an RGBA sprite again and again, for drawing it at any distance."""
    levels = [sprite]
    while min(levels[-1].shape[:2]) > 3:
        levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return levels


class Draw:
    """Random numbers of a split: train and demo never share a value, though they share ranges."""

    def __init__(self, seed: Sequence[int], split: str) -> None:
        """Seed one stream; ``split`` is one of ``SPLITS``."""
        self.parity = SPLITS.index(split)
        self.rng = np.random.default_rng([self.parity, *seed])

    def between(self, low: float, high: float) -> float:
        """Draw from every other of 32 slices of the range, each split from its own half."""
        part = 2 * int(self.rng.integers(16)) + self.parity + float(self.rng.random()) * 0.98
        return low + (high - low) * part / 32

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def index(self, count: int) -> int:
        """Return a number from 0 to ``count - 1``."""
        return int(self.rng.integers(count))

    def noise(self, rows: int, columns: int, coarse: int, octaves: int = 4) -> Array:
        """Return float32 [rows, columns] of fractal noise, mean 0, that repeats in columns."""
        total, weight = np.zeros((rows, columns), np.float32), 1.0
        for octave in range(octaves):
            cell = max(1, coarse >> octave)
            grid = self.rng.standard_normal((rows // cell + 2, columns // cell + 1), np.float32)
            grid[:, -1] = grid[:, 0]
            total += weight * cv2.resize(grid, (columns, rows), interpolation=cv2.INTER_LINEAR)
            weight *= 0.65
        return np.asarray(total / (total.std() + 1e-6))

    def color(self, palette: Sequence[RGB], spread: float = 14) -> Array:
        base = palette[self.index(len(palette))]
        shifted = [c + self.between(-spread, spread) for c in base]
        return np.asarray(np.clip(shifted, 4, 250))


FACADES = ((168, 150, 128), (140, 84, 66), (186, 178, 164), (120, 116, 112), (198, 170, 120),
           (150, 108, 88), (110, 96, 90), (160, 164, 170), (206, 196, 180))  # fmt: skip


class Street:
    """A street of ``LENGTH`` metres that repeats."""

    def __init__(self, seed: int = 0, split: str = 'train') -> None:
        """Build layout and textures; ``split`` is one of ``SPLITS``."""
        self.split = split
        draw = Draw([seed, 1], split)
        self.half = draw.between(4.6, 5.8)
        self.kerb = self.half + draw.between(1.8, 3.2)
        self.edge = self.kerb + (draw.between(0.6, 3.0) if draw.chance(0.5) else 0.0)
        self.lane = self.half / 2 - draw.between(0.9, 1.1)
        self.phase, self.sway = draw.between(0, 6.28), draw.between(0.0004, 0.0022)
        self.lamp_height = draw.between(5.5, 8)
        sodium = draw.chance(0.5)
        lamp = (1.0, draw.between(0.5, 0.62), 0.2) if sodium else (1.0, 0.9, draw.between(0.6, 1))
        self.lamp_rgb: tuple[float, float, float] = lamp
        gap, both = draw.between(24, 36), draw.chance(0.4)
        zs = np.linspace(12, LENGTH - 4, int((LENGTH - 16) / gap))
        sides = [1.0, 1.0 if both else -1.0]
        self.lamps = [(sides[i % 2] * (self.half + 0.5), float(z)) for i, z in enumerate(zs)]
        if both:
            self.lamps += [(-x, z) for x, z in self.lamps]
        self.sun_side = -1.0 if draw.chance(0.5) else 1.0
        self.sun_slope = draw.between(0.8, 2.0)
        self.road, self.pavement, self.grass = self._ground(draw)
        self.walls = [self._facade(Draw([seed, 2, i], split), far=i > 1) for i in range(4)]
        self.fences = [self._fence(Draw([seed, 3, i], split), self.walls[i][0]) for i in range(2)]
        self.trees = [pyramid(_tree(draw)) for _ in range(4)]
        self.people = [pyramid(_person(draw, i % 3)) for i in range(12)]
        self.riders = [pyramid(_rider(draw)) for _ in range(4)]
        lining = 120 + 10 * draw.noise(int(6 * 8), 8 * 48, 32)[..., None] * np.ones(3)
        lining[:, ::48] *= 0.75
        lining[34:] *= 0.8
        self.lining = Mip(lining, 8)
        self.clouds = (0.12 * draw.noise(128, 256, 64)).clip(-0.25, 0.3)
        self.pools = self._pools()
        self._furnish(draw)

    def crossing(self, z: Array | float) -> Array:
        """Return where ``z`` lies in a side road."""
        return np.asarray(np.mod(np.asarray(z), LENGTH / 2) < CROSSING)

    def bend(self, z: float) -> float:
        """Return the road's curvature at ``z`` in 1/m."""
        return self.sway * math.sin(z * 2 * math.pi / LENGTH * 3 + self.phase)

    def _ground(self, draw: Draw) -> tuple[Mip, Mip, Mip]:
        """Paint 48 m of asphalt with markings, of pavement and of grass; rows are x + 20 m."""
        ppm, rows, columns = 20, 800, 960
        x, z = (np.arange(rows)[:, None] + 0.5) / ppm - 20, (np.arange(columns) + 0.5) / ppm
        tone = 84 + draw.between(-16, 16) + 4 * draw.noise(rows, columns, 200)
        tone = tone + 7 * draw.rng.standard_normal((rows, columns), np.float32)
        wheel = np.abs(np.abs(np.abs(x) - self.lane) - 0.8)
        tone = tone - 7 * np.exp(-((wheel / 0.25) ** 2))
        tone = tone - 16 * (np.abs(draw.noise(rows, columns, 60)) < 0.03)
        for _ in range(5):
            r, c = int(draw.rng.integers(250, 500)), int(draw.rng.integers(columns - 90))
            tone[r:, c:][:40, : int(draw.rng.integers(30, 90))] -= draw.between(5, 16)
        lines = (np.abs(x) < 0.07) & (np.mod(z, 6) < 3)
        lines = lines | ((np.abs(np.abs(x) - (self.half - 2.05)) < 0.06) & (np.mod(z, 2) < 1))
        worn = draw.noise(rows, columns, 8) < 1.2
        road = np.where((lines & worn)[..., None], (212.0, 212.0, 204.0), tone[..., None])
        paved = 138 + draw.between(-20, 20) + 7 * draw.noise(rows, columns, 32)
        joints = (np.mod(np.abs(x), 0.75) < 0.06) | (np.mod(z, 0.75) < 0.06)
        paved = np.where(joints, paved - 26, paved)[..., None] * np.array([1.0, 0.97, 0.92])
        paved[np.abs(np.abs(x[:, 0]) - self.half - 0.08) < 0.1] = (176, 174, 168)
        grass = 58 + 15 * draw.noise(rows, columns, 40)[..., None]
        grass = grass * np.array([0.92, 1.22, 0.5])
        return Mip(road, ppm), Mip(paved, ppm), Mip(grass, ppm)

    def _facade(self, draw: Draw, far: bool) -> tuple[Array, Mip, Mip, list[tuple[float, RGB]]]:
        """Build a row of houses: heights [columns], texture, lit windows and bare ends."""
        ppm, tall = 8, 24
        rows, columns = tall * ppm, int(LENGTH * ppm)
        rgb = np.full((rows, columns, 3), draw.color(FACADES), np.float32)
        glow = np.zeros((rows, columns, 3), np.uint8)
        heights, ends = np.zeros(columns, np.float32), list[tuple[float, RGB]]()
        y, end = tall - (np.arange(rows) + 0.5) / ppm, 0.0
        while end < LENGTH - 8:
            z, end = end, end + draw.between(8, 22)
            end = end if end < LENGTH - 8 else LENGTH
            if not far and draw.chance(0.16):
                continue
            if not far and self.crossing(z):
                z = LENGTH / 2 * (z // (LENGTH / 2)) + CROSSING
            start, stop, wide = int(z * ppm), int(end * ppm), int(end * ppm) - int(z * ppm)
            if wide < 3 * ppm:
                continue
            floors = int(draw.between(2, 6.99)) + far
            eave = floors * 3.0 + draw.between(0.4, 1.2)
            ridge = draw.between(1.2, 3.4) if draw.chance(0.55) else 0.0
            gable = np.minimum(np.arange(wide), np.arange(wide)[::-1]) / (0.22 * wide)
            heights[start:stop] = np.minimum(eave + ridge * np.minimum(1, gable), tall - 0.3)
            base = draw.color(FACADES)
            r, g, b = (int(c) for c in base)
            if not start or not heights[start - 1]:
                ends.append((z, (r, g, b)))
            wall, lit = rgb[:, start:stop], glow[:, start:stop]
            wall[:] = base * (1 + 0.05 * draw.noise(rows, wide, 24)[..., None])
            wall[np.mod(y, 3.0) < 0.2] *= 0.82
            wall[y < 0.7] *= 0.7
            wall[y > eave] = draw.color(((92, 50, 42), (70, 68, 70), (104, 72, 52)))
            count = max(1, int((end - z - 0.6) / draw.between(2.0, 3.4)))
            size, awake, shop = draw.between(0.9, 1.5), draw.between(0.15, 0.5), draw.chance(0.45)
            for floor, k in np.ndindex(floors, count):
                show = shop and not floor
                high, foot, span = (2.0, 0.5, 2.1) if show else (1.5, 0.9, size)
                top = int((tall - floor * 3 - foot - high) * ppm)
                left = max(1, int(((k + 0.5) * (end - z) / count - size / 2) * ppm))
                bottom, right = top + int(high * ppm), left + int(span * ppm)
                wall[slice(top - 1, bottom + 1), slice(left - 1, right + 1)] = base * 0.35 + 132
                wall[top:bottom, left:right] = np.array([46, 58, 74]) * draw.between(0.5, 1.7)
                if draw.chance(0.75 if show else awake):
                    warm = draw.color(((235, 190, 110), (250, 225, 170), (210, 225, 235)), 20)
                    lit[top:bottom, left:right] = np.minimum(255, warm) * draw.between(0.5, 1)
        if not far:
            heights[self.crossing((np.arange(columns) + 0.5) / ppm)] = 0
        return heights, Mip(rgb, ppm), Mip(glow, ppm), ends

    def _fence(self, draw: Draw, houses: Array) -> tuple[Array, Mip]:
        """Fence the gardens between the houses, and some of their fronts."""
        ppm, columns = 8, int(LENGTH * 8)
        z = (np.arange(columns) + 0.5) / ppm
        stretch = np.repeat(draw.rng.random(int(LENGTH / 16)) < 0.3, 16 * ppm)[:columns]
        heights = np.where((houses == 0) | stretch, draw.between(1.0, 1.7), 0)
        heights[self.crossing(z)] = 0
        tone = draw.color([(120, 92, 66), (86, 90, 88), (190, 188, 180), (60, 76, 62)])
        slats = np.where(np.arange(columns) % 4 == 0, 0.5, 1.0)[:, None] * np.ones((24, 1, 1))
        slats = slats * (1 + 0.1 * draw.noise(24, columns, 16))[..., None]
        slats[[8, 9]] *= 0.7
        return heights, Mip(tone * slats, ppm)

    def _pools(self) -> Array:
        """Map the street lamps' light on the ground: float32 [x -20 to 20 m, z], 2 a metre."""
        x, z = (np.arange(80)[:, None] + 0.5) / 2 - 20, (np.arange(int(LENGTH * 2)) + 0.5) / 2
        total = np.zeros((80, len(z)), np.float32)
        for lamp_x, lamp_z in self.lamps:
            along = np.mod(z - lamp_z + LENGTH / 2, LENGTH) - LENGTH / 2
            away = (x - lamp_x * (1 - 1.6 / abs(lamp_x))) ** 2 + along**2
            total += (1 + away / self.lamp_height**2) ** -2.5
        return np.asarray(total)

    def _furnish(self, draw: Draw) -> None:
        """Place what stands on the kerb, parks beside it and moves along it."""
        free = [float(z) for z in np.arange(12, LENGTH - 6, 5.9)
                if not self.crossing(z + 2.5) and not self.crossing(z - 2)]  # fmt: skip
        busy, leafy = draw.between(0.1, 0.65), draw.between(0.3, 0.9)
        walking = draw.between(0.15, 0.5)

        def car() -> tuple[int, int]:
            return draw.index(len(BODIES)), draw.index(len(PAINTS))

        self.parked: list[tuple[float, float, int, int]] = []
        self.planted: list[tuple[float, ...]] = []
        self.signs: list[tuple[float, ...]] = []
        self.walkers: list[tuple[float, ...]] = []
        for side in (-1.0, 1.0):
            for i, z in enumerate(free):
                if draw.chance(busy):
                    x = side * (self.half - 1.0)
                    self.parked.append((x, z + draw.between(0, 0.8), *car()))
                out = self.edge + draw.between(2, 6) if draw.chance(0.35) else self.half + 0.7
                lit = min(abs(z - lamp[1]) for lamp in self.lamps) < 2
                if i % 2 and draw.chance(leafy) and not lit:
                    self.planted.append((side * out, z, draw.between(4.5, 9), draw.index(4)))
                if i % 4 == 3 and draw.chance(0.7):
                    self.signs.append((side * (self.half + 0.35), z + 2.0, draw.index(4)))
                if draw.chance(walking):
                    x = side * draw.between(self.half + 0.9, self.kerb - 0.3)
                    tall, speed = draw.between(1.5, 1.9), draw.between(-1.6, 1.6)
                    self.walkers.append((x, z, speed, tall, draw.index(4)))
        self.cyclists = [(s * (self.half - 2.5), draw.between(0, LENGTH), 4.5 * s, draw.index(4))
                         for s in (-1.0, 1.0, -1.0, 1.0)]  # fmt: skip
        self.oncoming = [(k * 68 + draw.between(0, 40), *car()) for k in range(7)]
        self.leader = (draw.between(14, 26), draw.between(3, 9), *car())


def _tree(draw: Draw) -> Array:
    y, x = np.mgrid[:192, :144].astype(np.float32)
    squeeze, low = draw.between(0.8, 1.25), draw.between(66, 78)
    radius = np.hypot((x - 72) / 68 * squeeze, (y - low) / (low + 2))
    leaves = radius + 0.13 * draw.noise(192, 144, 32, 5) < 0.86
    trunk = (np.abs(x - 72) < 4.5 + (y > 180) * 2) & (y > low)
    tone = 0.95 + 0.25 * draw.noise(192, 144, 16) - 0.0035 * (y - 60)
    rgb = tone[..., None] * (draw.between(50, 92), draw.between(82, 118), draw.between(26, 48))
    rgb[trunk & ~leaves] = (74, 60, 48)
    return np.dstack([rgb, 255.0 * (leaves | trunk)]).clip(0, 255).astype(np.uint8)


def _figure(draw: Draw, limbs: Sequence[tuple[int, int, Sequence[float]]]) -> Array:
    """Draw limbs (colour, width, x and y in turn) as an RGBA sprite of 80 x 192."""
    coat, legs, other = (draw.color(CLOTHES) for _ in range(3))
    skin, hair = draw.color(((190, 144, 116),), 40), draw.color(((50, 38, 30), (110, 84, 50)))
    colors = (coat, coat * 0.85, legs, other, skin, hair, np.full(3, 26.0))
    image: Array = np.zeros((768, 320, 4), np.float32)
    image[..., :3] = coat  # what blends into the edges
    for color, width, points in limbs:
        line = (np.array(points).reshape(-1, 2) * 4).astype(np.int32)
        ink = (*(float(c) for c in colors[color]), 255.0)
        cv2.polylines(image, [line], False, ink, width * 4)
    image = cv2.resize(image, (80, 192), interpolation=cv2.INTER_AREA)
    image[..., :3] += 9 * draw.noise(192, 80, 8)[..., None]
    return image.clip(0, 255).astype(np.uint8)


def _person(draw: Draw, stride: int) -> Array:
    s = (4, 9, 13)[stride]
    return _figure(draw, (
        (2, 9, (38, 100, 40 - s, 144, 40 - 1.4 * s, 188)),
        (2, 9, (42, 100, 40 + s, 144, 40 + s, 188)),
        (0, 24, (40, 52, 40, 102)), (1, 7, (29, 50, 26 - s / 2, 78, 28, 100)),
        (1, 7, (51, 50, 54 + s / 2, 78, 52, 100)),
        (4, 16, (40, 20, 40, 26)), (5, 15, (40, 13, 40, 17)),
    ))  # fmt: skip


def _rider(draw: Draw) -> Array:
    return _figure(draw, (
        (6, 5, (40, 128, 40, 189)), (6, 3, (18, 88, 40, 84, 62, 88)),
        (2, 9, (36, 98, 29, 130, 34, 164)), (2, 9, (44, 98, 52, 122, 47, 148)),
        (0, 24, (40, 48, 40, 98)), (1, 7, (29, 48, 20, 66, 20, 88)),
        (1, 7, (51, 48, 60, 66, 60, 88)), (4, 14, (40, 24, 40, 29)), (3, 17, (40, 17, 40, 20)),
    ))  # fmt: skip
