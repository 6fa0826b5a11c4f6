# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Paint all surfaces that a camera on a street sees at one moment; light comes later."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nightseg_ros.simulation.camera import FAR, Camera, Canvas
from nightseg_ros.simulation.street import (
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
    SKY,
    TREE,
    Street,
)  # fmt: skip

Tunnels = tuple[tuple[float, float], ...]
Point = tuple[float, float, float]
VAULT, LAMP_STEP = 5.2, 9.0
"""Height of a tunnel's ceiling and distance of its lamps, in metres."""
_SIGNS: tuple[tuple[int, float, float, RGB, RGB], ...] = (  # corners, radius, turn, rim, face
    (3, 0.5, 0.25, (190, 28, 30), (235, 235, 230)),
    (14, 0.36, 0.25, (190, 28, 30), (236, 236, 232)),
    (4, 0.5, 0.125, (235, 235, 230), (30, 70, 160)),
    (4, 0.42, 0.25, (240, 240, 236), (236, 190, 40)),
)
_GLASS, _BLACK = (34, 42, 50), (22, 22, 24)


class Scene:
    """
    The street at ``time`` seconds, painted on ``canvas``.

    ``lamps`` lights the vehicles' lamps, ``beam`` scales the oncoming head lamps (a dipped lamp
    is 2), ``tunnels`` are stretches of road in metres that lie underground.
    """

    def __init__(self, street: Street, camera: Camera, time: float, lamps: bool, beam: float,
                 tunnels: Tunnels) -> None:  # fmt: skip
        """Paint everything."""
        self.street, self.camera, self.lamps, self.beam = street, camera, lamps, beam
        self.canvas = Canvas(camera, street.rgb(SKY, (170, 190, 215)), SKY)
        self.tunnels = [t for t in tunnels if t[1] > camera.z and t[0] < camera.z + FAR]
        self._ground()
        self._traffic(time)
        for start, end in self.tunnels:
            self._tunnel(start, end)
        if not any(a < camera.z and camera.z + 60 < b for a, b in self.tunnels):
            self._houses()
            self._skyline()
        self._furniture(time)
        self.canvas.finish()

    def _near(self, z: float, behind: float = 12) -> float:
        """Return where on the endless street a place of the loop comes next."""
        return self.camera.z - behind + (z - self.camera.z + behind) % LENGTH

    def _open(self, z: float) -> bool:
        return not any(start - 3 < z < end + 3 for start, end in self.tunnels)

    def _face(self, label: int, rgb: RGB, corners: Sequence[Point], shade: float = 0.85,
              nearer: float = 1.0, glow: RGB | None = None) -> None:  # fmt: skip
        points = np.array(corners, np.float64)
        self.canvas.polygon(points, self.street.rgb(label, rgb), label, shade, nearer, glow)

    def _board(self, label: int, rgb: RGB, x: float, y: float, z: float, wide: float, tall: float,
               shade: float = 0.85, glow: RGB | None = None) -> None:  # fmt: skip
        """Draw an upright rectangle across the road, at least a pixel wide; x is its middle."""
        half = max(wide, 1.02 * (z - self.camera.z) / self.camera.focal) / 2
        corners = [(x - half, y, z), (x + half, y, z), (x + half, y + tall, z),
                   (x - half, y + tall, z)]  # fmt: skip
        self._face(label, rgb, corners, shade, glow=glow)

    def _ground(self) -> None:
        street, camera = self.street, self.camera
        at, depth, x = self.canvas.plane(0.0)
        z, side, scale = depth + camera.z, np.abs(x), depth / camera.focal
        road = (side < street.half) | street.crossing(z)
        label = np.where(road, ROAD, np.where(side < street.kerb, PAVEMENT, TREE)).astype(np.uint8)
        foot = scale * np.sqrt(depth / camera.eye)
        rgb = street.road.sample(z, x + 20, foot)
        for surface, texture in ((PAVEMENT, street.pavement), (TREE, street.grass)):
            mask = label == surface
            np.copyto(rgb, texture.sample(z, x + 20, foot), where=mask[..., None])
        self.canvas.paint(at, np.ones(x.shape, bool), np.broadcast_to(depth, x.shape), rgb, label)
        for crossing in (0, LENGTH / 2):
            for offset in (-3.6, CROSSING + 1):
                z0 = self._near(crossing + offset, 3)
                stripes = np.arange(0.5 - street.half, street.half - 0.6, 1.1)
                for a in stripes if z0 < camera.z + 90 else ():
                    b, z1 = a + 0.55, z0 + 2.6
                    stripe = [(a, 0, z0), (b, 0, z0), (b, 0, z1), (a, 0, z1)]
                    self._face(ROAD, (206, 206, 198), stripe, 1, 0.999)

    def _houses(self) -> None:
        street = self.street
        for i, side in enumerate((1.0, -1.0)):
            x, sun = side * (street.edge + 0.4), 1.0 if side == street.sun_side else 0.72
            heights, texture, glow, ends = street.walls[i]
            self.canvas.wall(x, heights, texture, BUILDING, sun, glow)
            self.canvas.wall(x - side * 0.15, *street.fences[i], FENCE, 0.8)
            far, texture, glow, _ = street.walls[i + 2]
            self.canvas.wall(side * (street.edge + 17), far, texture, BUILDING, sun * 0.9, glow)
            for z, rgb in ends:
                height, z = float(heights[int(z * 8 + 1) % len(heights)]), self._near(z, 2)
                if z < self.camera.z + 200:
                    self._board(BUILDING, rgb, x + side * 5.5, 0, z, 11, height, 0.6)

    def _skyline(self) -> None:
        """Close the end of the street with trees on the horizon."""
        camera, phase = self.camera, self.street.phase
        u = np.arange(camera.width, dtype=np.float32) / camera.width
        hump = 6 + 2.5 * np.sin(u * 9 + phase) + 1.2 * np.sin(u * 31 + phase * 3)
        rows = np.arange(camera.height, dtype=np.float32)[:, None] + np.float32(0.5)
        y = camera.eye + (camera.center[1] - rows) * (FAR / camera.focal)
        rgb = np.array(self.street.rgb(TREE, (62, 80, 50)), np.uint8)
        self.canvas.paint(np.s_[:, :], (y < hump) & (y > -4), np.float32(FAR), rgb, TREE, 0.8)

    def _tunnel(self, start: float, end: float) -> None:
        street, camera, side = self.street, self.camera, self.street.half + 0.9
        vault = np.full(street.lining.columns, VAULT)
        for x in (-side, side):
            self.canvas.wall(x, vault, street.lining, BUILDING, 0.9, span=(start, end))
        at, depth, across = self.canvas.plane(VAULT)
        z = depth + camera.z
        inside = (np.abs(across) <= side) & (z >= start) & (z < end)
        rgb = street.lining.sample(z, np.full_like(across, 2.0), depth / camera.focal * 3)
        self.canvas.paint(at, inside, np.broadcast_to(depth, across.shape), rgb, BUILDING, 0.8)
        first, last = max(start, camera.z) // LAMP_STEP, min(end, camera.z + 140) // LAMP_STEP
        for z0 in LAMP_STEP * (np.arange(first, last) + 0.5):
            for x0 in (-street.lane, street.lane):
                if start + 2 < z0 < end - 3:
                    corners = [(x0 + a, VAULT, z0 + b) for a, b in
                               ((-0.2, 0), (0.2, 0), (0.2, 1.6), (-0.2, 1.6))]  # fmt: skip
                    self._face(BUILDING, (240, 235, 215), corners, 1, 0.998, (255, 245, 215))
        if start > camera.z:
            for s in (-1, 1):
                self._board(BUILDING, (132, 130, 124), s * (side + 1.5), 0, start, 3, 7.4)
                self._board(TREE, (70, 88, 44), s * (side + 13), 0, start, 20, 7.4)
            self._board(BUILDING, (132, 130, 124), 0, VAULT, start, 2 * side, 2.2)
            wide, top, back = side + 23, side + 14, start + 14
            self._face(TREE, (74, 94, 46), [(-wide, 7.4, start), (wide, 7.4, start),
                                            (top, 11, back), (-top, 11, back)])  # fmt: skip

    def _furniture(self, time: float) -> None:
        street, canvas = self.street, self.canvas

        def seen(places: Sequence[tuple[float, ...]], reach: float) -> list[tuple[float, ...]]:
            ahead = [(x, self._near(z), *rest) for x, z, *rest in places]
            return [p for p in ahead if self._open(p[1]) and 1 < p[1] - self.camera.z < reach]

        for x, z in seen(street.lamps, 170):
            height, head = street.lamp_height, x - math.copysign(1.6, x)
            self._board(POLE, (92, 94, 96), x, 0, z, 0.14, height)
            self._board(POLE, (92, 94, 96), (x + head) / 2, height - 0.1, z, 1.6, 0.1)
            self._board(POLE, (150, 150, 146), head, height - 0.18, z - 0.02, 0.6, 0.16)
            canvas.lights.append((head, height - 0.2, z - 0.06, 0.16, street.lamp_rgb, True))
        for x, z, kind in seen(street.signs, 110):
            corners, radius, turn, rim, face = _SIGNS[int(kind)]
            self._board(POLE, (120, 122, 124), x, 0, z, 0.07, 2.9)
            angles = 2 * math.pi * (np.arange(corners) / corners + turn)
            for size, rgb, back in ((radius, rim, 0.02), (radius * 0.76, face, 0.04)):
                self._face(SIGN, rgb, [(x + size * math.cos(a), 2.5 + size * math.sin(a), z - back)
                                       for a in angles])  # fmt: skip
        for x, z in seen([(s * (street.half + 0.3), z - 1.5) for s in (-1, 1)
                          for z in (0, LENGTH / 2)], 150):  # fmt: skip
            self._board(POLE, (70, 72, 74), x, 0, z, 0.12, 3.4)
            self._board(SIGN, (24, 26, 26), x, 2.5, z - 0.05, 0.38, 1.05)
            go = 0 if math.sin(time / 6 + street.phase) > 0 else 2
            for k, rgb in enumerate(((40, 220, 120), (240, 170, 40), (240, 40, 36))):
                tone, glow = (rgb, rgb) if k == go else ((44, 44, 42), None)
                self._board(SIGN, tone, x, 2.58 + 0.32 * k, z - 0.08, 0.22, 0.24, 1.0, glow)
                if k == go:
                    r, g, b = (0.6 * (c / 255) ** 2 for c in rgb)
                    canvas.lights.append((x, 2.7 + 0.32 * k, z - 0.1, 0.08, (r, g, b), False))
        for x, z, tall, kind in seen(street.planted, 240):
            canvas.sprite(street.trees[int(kind)], TREE, (x, 0, z), (tall * 0.75, tall))
        walkers = [(x, z + speed * time, *rest) for x, z, speed, *rest in street.walkers]
        for x, z, tall, kind in seen(walkers, 150):
            step = street.people[int(kind) * 3 + int(time * 4 + kind) % 3]
            canvas.sprite(step, PEDESTRIAN, (x, 0.1, z), (tall * 0.375, tall), 0.9)
        cyclists = [(x, z + speed * time, kind) for x, z, speed, kind in street.cyclists]
        for x, z, kind in seen(cyclists, 150):
            canvas.sprite(street.riders[int(kind)], BICYCLIST, (x, 0, z), (0.74, 1.78), 0.9)
            if self.lamps:
                color = (0.5, 0.02, 0.02) if x > 0 else (1.0, 1.0, 0.9)
                canvas.lights.append((x, 0.8, z - 0.1, 0.03, color, False))

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
        if self.canvas.hidden((x - half, 0, near), (x + half, tall, far)):
            return
        slim, lean = half - 0.2, side * (half - 0.2) / half

        def quad(color: RGB, shade: float, nearer: float, *corners: Point) -> None:
            self._face(CAR, color, [(x + a, b, c) for a, b, c in corners], shade, nearer)

        def across(color: RGB, shade: float, nearer: float, low: Point, high: Point) -> None:
            """Draw a strip across the car from half width, y, z to half width, y, z."""
            (a, y0, z0), (b, y1, z1) = low, high
            quad(color, shade, nearer, (-a, y0, z0), (a, y0, z0), (b, y1, z1), (-b, y1, z1))

        for grow in (0.0, 0.25) if distance < 60 else ():
            a, z0, z1 = half + grow, near - grow, far + grow
            corners = [(x - a, 0, z0), (x + a, 0, z0), (x + a, 0, z1), (x - a, 0, z1)]
            self.canvas.polygon(np.array(corners), _BLACK, ROAD, 0.5, shadow=True)
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
            self._board(CAR, _BLACK, t, 0, near, 0.2, base, 0.6)
            lamp = (228, 230, 232) if facing else (150, 20, 22)
            front = self.camera.z + 0.998 * distance
            self._board(CAR, lamp, a, low, front, 0.35, high - low, 1.0)
            if lit:
                tail = (1.8, 0.06, 0.04) if brakes else (0.45, 0.012, 0.01)
                color = (self.beam, 0.95 * self.beam, 0.85 * self.beam) if facing else tail
                self.canvas.lights.append((a, b, near - 0.1, 0.1, color, False))
