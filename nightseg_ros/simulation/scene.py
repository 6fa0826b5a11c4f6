# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What a camera sees of a street: its surfaces, then their light, exposure and noise."""

from __future__ import annotations

from collections.abc import Sequence
import functools
import math

import cv2
from nightseg_ros.simulation.canvas import Camera, Canvas, FAR, Point
from nightseg_ros.simulation.street import (
    Array,
    BICYCLIST,
    BODIES,
    BUILDING,
    CAR,
    CROSSING,
    FENCE,
    LENGTH,
    PAINTS,
    PAVEMENT,
    PEDESTRIAN,
    POLE,
    RGB,
    ROAD,
    SIGN,
    SPLITS,
    Street,
    TREE,
)
import numpy as np

Tunnels = tuple[tuple[float, float], ...]
"""Begin and end of each in metres along the street."""
VAULT, LAMP_STEP = 5.2, 9.0
"""Height of a tunnel's ceiling and distance of its lamps, in metres."""
_SIGNS: tuple[tuple[int, float, float, RGB, RGB], ...] = (  # corners, radius, turn, rim, face
    (3, 0.5, 0.25, (190, 28, 30), (235, 235, 230)),
    (14, 0.36, 0.25, (190, 28, 30), (236, 236, 232)),
    (4, 0.5, 0.125, (235, 235, 230), (30, 70, 160)),
    (4, 0.42, 0.25, (240, 240, 236), (236, 190, 40)),
)
_GLASS, _BLACK = (34, 42, 50), (22, 22, 24)


class StreetScene(Canvas):
    """The street at a moment, as a camera sees it."""

    def __init__(self, street: Street, camera: Camera, time: float, tunnels: Tunnels = (), *,
                 lamps: bool = False, beam: float = 2.0) -> None:  # fmt: skip
        """
        Paint everything as it stands at ``time`` seconds.

        ``lamps`` lights the vehicles' lamps, ``beam`` scales the oncoming head lamps (a dipped
        lamp is 2), ``tunnels`` are stretches of road that lie underground.
        """
        super().__init__(camera)
        self.street, self.tunnels, self.lamps, self.beam = street, tunnels, lamps, beam
        self._tunnels = [t for t in tunnels if t[1] > camera.z and t[0] < camera.z + FAR]
        self._ground()
        self._traffic(time)
        for start, end in self._tunnels:
            self._tunnel(start, end)
        if not any(a < camera.z and camera.z + 60 < b for a, b in self._tunnels):
            self._houses()
            self._skyline()
        self._furniture(time)

    def _near(self, z: float, behind: float = 12) -> float:
        """Return where on the endless street a place of the loop comes next."""
        return self.camera.z - behind + (z - self.camera.z + behind) % LENGTH

    def _open(self, z: float) -> bool:
        return not any(start - 3 < z < end + 3 for start, end in self._tunnels)

    def _ground(self) -> None:
        street, camera = self.street, self.camera
        at, depth, x = self.plane(0.0)
        z, side, scale = depth + camera.z, np.abs(x), depth / camera.focal
        road = (side < street.half) | street.crossing(z)
        label = np.where(road, ROAD, np.where(side < street.kerb, PAVEMENT, TREE)).astype(np.uint8)
        foot = scale * np.sqrt(depth / camera.eye)
        rgb = street.road.sample(z, x + 20, foot)
        for surface, texture in ((PAVEMENT, street.pavement), (TREE, street.grass)):
            mask = label == surface
            np.copyto(rgb, texture.sample(z, x + 20, foot), where=mask[..., None])
        self.paint(at, np.ones(x.shape, bool), np.broadcast_to(depth, x.shape), rgb, label)
        for crossing in (0, LENGTH / 2):
            for offset in (-3.6, CROSSING + 1):
                z0 = self._near(crossing + offset, 3)
                stripes = np.arange(0.5 - street.half, street.half - 0.6, 1.1)
                for a in stripes if z0 < camera.z + 90 else ():
                    b, z1 = a + 0.55, z0 + 2.6
                    stripe = [(a, 0, z0), (b, 0, z0), (b, 0, z1), (a, 0, z1)]
                    self.polygon(ROAD, (206, 206, 198), stripe, 1, 0.999)

    def _houses(self) -> None:
        street = self.street
        for i, side in enumerate((1.0, -1.0)):
            x, sun = side * (street.edge + 0.4), 1.0 if side == street.sun_side else 0.72
            heights, texture, glow, ends = street.walls[i]
            self.wall(x, heights, texture, BUILDING, sun, glow)
            self.wall(x - side * 0.15, *street.fences[i], FENCE, 0.8)
            far, texture, glow, _ = street.walls[i + 2]
            self.wall(side * (street.edge + 17), far, texture, BUILDING, sun * 0.9, glow)
            for z, rgb in ends:
                height, z = float(heights[int(z * 8 + 1) % len(heights)]), self._near(z, 2)
                if z < self.camera.z + 200:
                    self.board(BUILDING, rgb, x + side * 5.5, 0, z, 11, height, 0.6)

    def _skyline(self) -> None:
        """Close the end of the street with trees on the horizon."""
        camera, phase = self.camera, self.street.phase
        u = np.arange(camera.width, dtype=np.float32) / camera.width
        hump = 6 + 2.5 * np.sin(u * 9 + phase) + 1.2 * np.sin(u * 31 + phase * 3)
        rows = np.arange(camera.height, dtype=np.float32)[:, None] + np.float32(0.5)
        y = camera.eye + (camera.center[1] - rows) * (FAR / camera.focal)
        rgb = np.array((62, 80, 50), np.uint8)
        self.paint(np.s_[:, :], (y < hump) & (y > -4), np.float32(FAR), rgb, TREE, 0.8)

    def _tunnel(self, start: float, end: float) -> None:
        street, camera, side = self.street, self.camera, self.street.half + 0.9
        vault = np.full(street.lining.columns, VAULT)
        for x in (-side, side):
            self.wall(x, vault, street.lining, BUILDING, 0.9, span=(start, end))
        at, depth, across = self.plane(VAULT)
        z = depth + camera.z
        inside = (np.abs(across) <= side) & (z >= start) & (z < end)
        rgb = street.lining.sample(z, np.full_like(across, 2.0), depth / camera.focal * 3)
        self.paint(at, inside, np.broadcast_to(depth, across.shape), rgb, BUILDING, 0.8)
        first, last = max(start, camera.z) // LAMP_STEP, min(end, camera.z + 140) // LAMP_STEP
        for z0 in LAMP_STEP * (np.arange(first, last) + 0.5):
            for x0 in (-street.lane, street.lane):
                if start + 2 < z0 < end - 3:
                    corners = [(x0 + a, VAULT, z0 + b) for a, b in
                               ((-0.2, 0), (0.2, 0), (0.2, 1.6), (-0.2, 1.6))]  # fmt: skip
                    self.polygon(BUILDING, (240, 235, 215), corners, 1, 0.998, (255, 245, 215))
        if start > camera.z:
            for s in (-1, 1):
                self.board(BUILDING, (132, 130, 124), s * (side + 1.5), 0, start, 3, 7.4)
                self.board(TREE, (70, 88, 44), s * (side + 13), 0, start, 20, 7.4)
            self.board(BUILDING, (132, 130, 124), 0, VAULT, start, 2 * side, 2.2)
            wide, top, back = side + 23, side + 14, start + 14
            corners = [
                (-wide, 7.4, start), (wide, 7.4, start), (top, 11, back), (-top, 11, back),
            ]  # fmt: skip
            self.polygon(TREE, (74, 94, 46), corners)

    def _furniture(self, time: float) -> None:
        street = self.street

        def seen(places: Sequence[tuple[float, ...]], reach: float) -> list[tuple[float, ...]]:
            ahead = [(x, self._near(z), *rest) for x, z, *rest in places]
            return [p for p in ahead if self._open(p[1]) and 1 < p[1] - self.camera.z < reach]

        for x, z in seen(street.lamps, 170):
            height, head = street.lamp_height, x - math.copysign(1.6, x)
            self.board(POLE, (92, 94, 96), x, 0, z, 0.14, height)
            self.board(POLE, (92, 94, 96), (x + head) / 2, height - 0.1, z, 1.6, 0.1)
            self.board(POLE, (150, 150, 146), head, height - 0.18, z - 0.02, 0.6, 0.16)
            self.lights.append((head, height - 0.2, z - 0.06, 0.16, street.lamp_rgb, True))
        for x, z, kind in seen(street.signs, 110):
            corners, radius, turn, rim, face = _SIGNS[int(kind)]
            self.board(POLE, (120, 122, 124), x, 0, z, 0.07, 2.9)
            angles = 2 * math.pi * (np.arange(corners) / corners + turn)
            for size, rgb, back in ((radius, rim, 0.02), (radius * 0.76, face, 0.04)):
                disc = [(x + size * math.cos(a), 2.5 + size * math.sin(a), z - back)
                        for a in angles]  # fmt: skip
                self.polygon(SIGN, rgb, disc)
        for x, z in seen([(s * (street.half + 0.3), z - 1.5) for s in (-1, 1)
                          for z in (0, LENGTH / 2)], 150):  # fmt: skip
            self.board(POLE, (70, 72, 74), x, 0, z, 0.12, 3.4)
            self.board(SIGN, (24, 26, 26), x, 2.5, z - 0.05, 0.38, 1.05)
            go = 0 if math.sin(time / 6 + street.phase) > 0 else 2
            for k, rgb in enumerate(((40, 220, 120), (240, 170, 40), (240, 40, 36))):
                tone, glow = (rgb, rgb) if k == go else ((44, 44, 42), None)
                self.board(SIGN, tone, x, 2.58 + 0.32 * k, z - 0.08, 0.22, 0.24, 1.0, glow)
                if k == go:
                    r, g, b = (0.6 * (c / 255) ** 2 for c in rgb)
                    self.lights.append((x, 2.7 + 0.32 * k, z - 0.1, 0.08, (r, g, b), False))
        for x, z, tall, kind in seen(street.planted, 240):
            self.sprite(street.trees[int(kind)], TREE, (x, 0, z), (tall * 0.75, tall))
        walkers = [(x, z + speed * time, *rest) for x, z, speed, *rest in street.walkers]
        for x, z, tall, kind in seen(walkers, 150):
            step = street.people[int(kind) * 3 + int(time * 4 + kind) % 3]
            self.sprite(step, PEDESTRIAN, (x, 0.1, z), (tall * 0.375, tall), 0.9)
        cyclists = [(x, z + speed * time, kind) for x, z, speed, kind in street.cyclists]
        for x, z, kind in seen(cyclists, 150):
            self.sprite(street.riders[int(kind)], BICYCLIST, (x, 0, z), (0.74, 1.78), 0.9)
            if self.lamps:
                color = (0.5, 0.02, 0.02) if x > 0 else (1.0, 1.0, 0.9)
                self.lights.append((x, 0.8, z - 0.1, 0.03, color, False))

    def _traffic(self, time: float) -> None:
        street = self.street
        cars = [(x, self._near(z), body, paint, x < 0, False, False)
                for x, z, body, paint in street.parked if self._open(self._near(z))]  # fmt: skip
        cars += [(-street.lane, self._near(z - 9 * time), body, paint, True, self.lamps, False)
                 for z, body, paint in street.oncoming]  # fmt: skip
        gap, swing, body, paint = street.leader
        ahead = self.camera.z + gap + swing * math.sin(0.19 * time)
        brakes = math.sin(0.23 * time + street.phase) > 0.6
        cars.append((street.lane, ahead, body, paint, False, self.lamps, brakes))
        for car in sorted(cars, key=lambda car: car[1]):
            self._car(*car)

    def _car(self, x: float, z: float, body: int, paint: int, facing: bool, lit: bool,
             brakes: bool) -> None:  # fmt: skip
        """Draw a vehicle whose end nearer to the camera stands at ``z``."""
        length, wide, sill, tall, *cabin = BODIES[body]
        distance = z - self.camera.z
        if distance + length < 1 or distance > 160:
            return
        half, base, rgb, near, far = wide / 2, 0.24, PAINTS[paint], z, z + length
        c0, c1, r0, r1 = (z + (length - t if facing else t) for t in cabin)
        if facing:
            c0, c1, r0, r1 = c1, c0, r1, r0
        ours = -float(self.camera.offset(np.array(distance)))
        side = math.copysign(half, ours - x)
        if self.hidden((x - half, 0, near), (x + half, tall, far)):
            return
        slim, lean = half - 0.2, side * (half - 0.2) / half

        def quad(color: RGB, shade: float, nearer: float, *corners: Point) -> None:
            self.polygon(CAR, color, [(x + a, b, c) for a, b, c in corners], shade, nearer)

        def across(color: RGB, shade: float, nearer: float, low: Point, high: Point) -> None:
            """Draw a strip across the car from half width, y, z to half width, y, z."""
            (a, y0, z0), (b, y1, z1) = low, high
            quad(color, shade, nearer, (-a, y0, z0), (a, y0, z0), (b, y1, z1), (-b, y1, z1))

        for grow in (0.0, 0.25) if distance < 60 else ():
            a, z0, z1 = half + grow, near - grow, far + grow
            corners = [(x - a, 0, z0), (x + a, 0, z0), (x + a, 0, z1), (x - a, 0, z1)]
            self.polygon(ROAD, _BLACK, corners, 0.5, shadow=True)
        across(rgb, 0.8, 1, (half, base, near), (half, sill, near))
        across(rgb, 1.05, 1, (half, sill, near), (half, sill, far))
        across(rgb, 0.9, 0.999, (half, sill, c0), (slim, tall, r0))
        for shade, low, high, f0, t0, t1, f1 in ((0.72, base, sill, near, near, far, far),
                                                 (0.75, sill, tall, c0, r0, r1, c1)):  # fmt: skip
            top = lean if high == tall else side
            quad(rgb, shade, 0.9995, (side, low, f0), (top, high, t0), (top, high, t1),
                 (side, low, f1))  # fmt: skip
        if distance < 70:
            a, b, mid, p, q = sill + 0.05, tall - 0.09, (r0 + r1) / 2, side * 1.01, lean * 1.01
            across(_GLASS, 0.9, 0.996, (half - 0.12, a, c0 + (r0 - c0) * 0.1),
                   (slim - 0.06, b, c0 + (r0 - c0) * 0.85))  # fmt: skip
            for k0, k1, t0, t1 in ((c0 + 0.3, mid - 0.06, r0 + 0.1, mid - 0.06),
                                   (mid + 0.06, c1 - 0.35, mid + 0.06, r1 - 0.1)):  # fmt: skip
                quad(_GLASS, 0.9, 0.996, (p, a, k0), (q, b, t0), (q, b, t1), (p, a, k1))
            across(_BLACK, 0.8, 0.998, (half, base, near), (half, base + 0.16, near))
            across((225, 222, 200), 0.8, 0.997, (0.26, 0.5, near), (0.26, 0.62, near))
            turn = np.arange(10) * (math.pi / 5)
            for hub in (near + 0.8, far - 0.85):
                for size, tone, nearer in ((0.33, _BLACK, 0.998), (0.19, (120, 122, 124), 0.997)):
                    rim = ((p, 0.33 + size * math.sin(t), hub + size * math.cos(t)) for t in turn)
                    quad(tone, 0.8, nearer, *rim)
        low, high = (0.55, 0.72) if facing else (sill - 0.28, sill - 0.08)
        for s in (-1, 1):
            a, b, t = x + s * (half - 0.2), (low + high) / 2, x + s * (half - 0.12)
            self.board(CAR, _BLACK, t, 0, near, 0.2, base, 0.6)
            lamp = (228, 230, 232) if facing else (150, 20, 22)
            front = self.camera.z + 0.998 * distance
            self.board(CAR, lamp, a, low, front, 0.35, high - low, 1.0)
            if lit:
                tail = (1.8, 0.06, 0.04) if brakes else (0.45, 0.012, 0.01)
                color = (self.beam, 0.95 * self.beam, 0.85 * self.beam) if facing else tail
                self.lights.append((a, b, near - 0.1, 0.1, color, False))


FULL_WELL, READ_NOISE = 5000.0, 5.0
"""Electrons at white, and electrons rms, of a small automotive sensor."""
HEAD = (0.11, 0.105, 0.09)
"""Our head lamps' light 14 m ahead, relative to a sunlit street."""
GAIN = (0.2, 18.0)
"""Bounds of the automatic exposure, relative to a sunlit street."""
HAZE = 0.5
"""Optical depth of the air at ``FAR``."""
_HOURS = (0.0, 0.25, 0.5, 0.75, 1.0)
_ZENITH = ((0.2, 0.25, 0.42), (0.3, 0.36, 0.6), (0.36, 0.44, 0.74), (0.5, 0.64, 0.9),
           (0.34, 0.54, 0.98))  # fmt: skip
_HORIZON = ((0.95, 0.75, 0.55), (1.0, 0.62, 0.42), (1.2, 0.72, 0.48), (1.0, 0.88, 0.78),
            (0.74, 0.84, 1.0))  # fmt: skip
"""Colours of the sky at ``_HOURS``, relative to the daylight."""
_LINEAR = ((np.arange(256) / 255.0) ** 2.2).astype(np.float32)
_LIGHT = np.arange(8192) / 1023.0
_SHOULDER = np.where(_LIGHT < 0.6, _LIGHT, 0.6 + 0.4 * (1 - np.exp(-(_LIGHT - 0.6) / 0.5)))
_TONE = np.round(255 * _SHOULDER.clip(0, 1) ** (1 / 2.2)).astype(np.uint8)
"""Encoded level of the light that reaches the sensor; highlights bend before they clip."""


def expose(scene: StreetScene, ambient: float, veil: float, seed: int) -> Array:
    """
    Return the photograph of a scene, uint8 [H, W, 3] RGB.

    ``ambient`` is the daylight, 1 noon to 0 deep night, on a logarithmic scale; ``veil`` the share
    of a lamp's light that the lens scatters, ten times as much in a dirty one; ``seed`` the
    sensor's noise.
    """
    # how far the street lamps are lit
    lit = float(np.clip((0.72 - ambient) / 0.1, 0, 1))
    radiance = _radiance(scene, ambient, lit)
    _halos(scene, lit, veil, radiance)
    luma = radiance[::4, ::4] @ np.array([0.3, 0.59, 0.11], np.float32)
    metered = float(np.exp(np.log(luma + 2e-4).mean()))
    gain = float(np.clip(0.19 / metered, *GAIN)) ** 0.93
    radiance *= gain
    per_electron = gain**0.8 / FULL_WELL
    noise = cv2.sqrt(radiance * per_electron + (READ_NOISE * per_electron) ** 2)
    start = int(np.random.default_rng([seed, 7]).integers(1_000_000))
    noise *= np.resize(_grain(scene.street.split)[start:][: radiance.size], radiance.shape)
    radiance += noise
    radiance *= 1023
    image: Array = _TONE[radiance.clip(0, 8191).astype(np.uint16)]
    return image


@functools.cache
def _grain(split: str) -> Array:
    """Return 5 M samples of unit noise, smoothed a little as a camera's processing leaves it."""
    noise = np.random.default_rng(SPLITS.index(split)).standard_normal((1031, 1619, 3), np.float32)
    return np.asarray(cv2.blur(noise, (2, 2)) * np.float32(1.7)).ravel()


def _radiance(scene: StreetScene, at: float, lit: float) -> Array:
    """Light every surface, and the sky behind them: linear float32 [H, W, 3], 1 is noon."""
    street, camera, shade = scene.street, scene.camera, scene.shade
    day = float(1500.0 ** (at - 1))
    zenith = np.array([np.interp(at, _HOURS, channel) for channel in zip(*_ZENITH)], np.float32)
    horizon = np.array([np.interp(at, _HOURS, channel) for channel in zip(*_HORIZON)], np.float32)
    depth = np.minimum(scene.depth, FAR)
    u, v = (np.arange(count, dtype=np.float32) + 0.5 for count in (camera.width, camera.height))
    u, v = (u - camera.center[0]) / camera.focal, (v[:, None] - camera.center[1]) / camera.focal
    x, y, z = u * depth - camera.offset(depth), camera.eye - v * depth, depth + camera.z
    sky_light, direct, inside = 0.55 * day * shade, np.zeros_like(depth), np.zeros_like(depth)
    if at > 0.72:
        side, houses = street.sun_side, street.walls[0 if street.sun_side > 0 else 1][0]
        column = (np.mod(z, LENGTH) * (len(houses) / LENGTH)).astype(np.int32) % len(houses)
        reach = street.edge + 0.4 - (houses[column] - y) * street.sun_slope
        direct = (x * side < reach) * shade * (0.9 * day * ((at - 0.72) / 0.28) ** 0.7)
    for start, end in scene.tunnels:
        into = np.minimum(z - start, end - z)
        under = (np.abs(x) < street.half + 1) & (into > 0) & (y < VAULT + 0.3)
        sky_light = np.where(under, sky_light * np.exp(-np.maximum(into, 0) / 7), sky_light)
        direct = np.where(under, 0, direct)
        inside += under * (0.5 + 0.3 * np.cos(z * (2 * np.pi / LAMP_STEP)))
    pools = cv2.remap(street.pools, np.mod(z, LENGTH) * 2, (x + 20) * 2, cv2.INTER_LINEAR,
                      borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
    pools = pools * np.exp(np.minimum(4.5 - y, 0) * 0.5) * (inside == 0) * shade
    head = _head_lamps(depth, y, u) * np.maximum(shade, 0.4) * (at < 0.8 or len(scene.tunnels) > 0)
    tint = zenith * 0.7 + horizon * 0.3
    city = np.array([0.0016, 0.0012, 0.0008], np.float32)
    terms = (sky_light, direct, head, pools, inside * shade, np.ones_like(depth))
    lamps = np.array(street.lamp_rgb) * (0.1 * lit)
    colors = (tint / tint.mean(), (1.0, 0.93, 0.8), HEAD, lamps, (0.055, 0.05, 0.036), city * 0.3)
    total = np.stack(terms, -1).astype(np.float32, copy=False) @ np.array(colors, np.float32)
    total *= cv2.LUT(scene.albedo, _LINEAR)
    if scene.glow.any():
        total += cv2.LUT(scene.glow, _LINEAR) * np.float32(0.1)
    fog = (1 - np.exp(depth * (-HAZE / FAR))) * np.where(inside > 0, np.float32(0.2), 1)
    total += fog[..., None] * (horizon * (0.5 * day) + city * 0.4 - total)
    low = np.exp(np.minimum(v, 0) * 6)[..., None]
    sky = (zenith + (horizon - zenith) * low) * (0.75 * day) + city * (0.1 + 0.6 * low)
    clouds = cv2.resize(street.clouds, (camera.width, camera.height))[..., None]
    np.copyto(total, sky * (1 + clouds), where=np.isinf(scene.depth)[..., None])
    return np.asarray(total)


def _head_lamps(depth: Array, y: Array, u: Array) -> Array:
    """Return our dipped head lamps' light: wide, bright just under the horizontal, dark above."""
    aim = (y - 0.65) / np.maximum(depth, 1) + 0.012 - 0.05 * np.maximum(u - 0.02, 0)
    low = np.exp(-np.square(aim / np.where(aim < 0, np.float32(0.075), np.float32(0.01))))
    wide = np.exp(-np.square(u / 0.42))
    return np.asarray((low + 0.025) * wide * (14 / (depth + 2.5)) ** 1.6)


def _halos(scene: StreetScene, lit: float, veil: float, radiance: Array) -> None:
    """Add what visible lamps send into the lens: a disc each, and halos around it."""
    height, width = scene.label.shape
    rows, columns = -(-height // 4), -(-width // 4)
    bloom = np.zeros((rows, columns, 3), np.float32)
    for x, y, z, radius, color, street_lamp in scene.lights:
        rgb = np.array(color, np.float32) * (0.55 * lit if street_lamp else 1)
        depth = z - scene.camera.z
        if not 1 < depth < 250 or not rgb.any():
            continue
        (u,), (v,), _ = scene.camera.project(np.array([[x, y, z]]))
        if not (0 <= u < width and 0 <= v < height):
            continue
        row, column = int(v), int(u)
        if scene.depth[row, column] < depth * 0.985:
            continue
        r = max(0.8, radius * scene.camera.focal / depth)
        reach = int(3 * r)
        at = tuple(slice(max(0, place - reach), place + reach + 1) for place in (row, column))
        py, px = np.arange(height)[at[0], None], np.arange(width)[at[1]]
        disc = np.exp(-((((px + 0.5 - u) ** 2 + (py + 0.5 - v) ** 2) / (r * r)) ** 1.5))
        radiance[at] += disc[..., None].astype(np.float32) * rgb
        bloom[row // 4, column // 4] += rgb * (min(r * r / 8, 3.0) + 0.4 * min(1.0, 50 / depth))
    if bloom.any():
        spread = sum(share * cv2.GaussianBlur(bloom, (0, 0), sigma * columns / 160)
                     for sigma, share in ((1.2, 2.0), (4.0, 1.0), (16.0, 1.2)))  # fmt: skip
        radiance += cv2.resize(np.asarray(spread), (width, height)) * (veil * 8)
