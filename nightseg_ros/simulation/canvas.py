# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A pinhole camera above a bending road, and the z-buffered canvas of its picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import cv2
from nightseg_ros.simulation.street import Array, Mip, RGB, SKY
import numpy as np

NEAR, FAR = 0.4, 320.0
Point = tuple[float, float, float]
Lamp = tuple[float, float, float, float, Point, bool]
"""x, y, z, radius in metres, linear RGB radiance, and whether it is a street lamp."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Camera:
    """World: x right of the road's axis, y up, z along the road, in metres."""

    width: int
    height: int
    x: float
    z: float
    eye: float = 1.4
    pitch: float = 0.0
    """Radians, up is positive."""
    yaw: float = 0.0
    bend: float = 0.0
    """Curvature of the road in 1/m; to first order it displaces x by ``bend * depth² / 2``."""

    @property
    def focal(self) -> float:
        """Focal length in pixels; the horizontal field of view is 64°."""
        return 0.8 * self.width

    @property
    def center(self) -> tuple[float, float]:
        """Image point of the road's tangent at the horizon, pitch included."""
        return self.width / 2, 0.47 * self.height + self.pitch * self.focal

    def offset(self, depth: Array) -> Array:
        """Return how far the bend and the yaw displace a point at ``depth`` to the right."""
        return np.asarray(depth * (self.yaw + depth * (self.bend / 2)) - self.x)

    def project(self, points: Array) -> tuple[Array, Array, Array]:
        """Map world points [N, 3] to pixel coordinates u, v (centres at .5) and depth."""
        depth = points[:, 2] - self.z
        scale = self.focal / depth
        u = self.center[0] + (points[:, 0] + self.offset(depth)) * scale
        return u, self.center[1] + (self.eye - points[:, 1]) * scale, depth

    def wall_depth(self, x: float) -> Array:
        """Return for each column [W] the depth where it first meets the wall at ``x``."""
        a, c = self.bend / 2, x - self.x
        b = self.yaw - (np.arange(self.width) + 0.5 - self.center[0]) / self.focal
        with np.errstate(all='ignore'):
            root = np.sqrt(b * b - 4 * a * c)
            depths = np.stack([2 * c / (-b - root), 2 * c / (-b + root)])
        depths[~(depths > 0)] = np.inf
        return np.asarray(depths.min(0).astype(np.float32))


def _cross(u: Array, v: Array, k: int) -> float:
    """Return twice the area of the triangle of the corners 0, k and k + 1."""
    return float((u[k] - u[0]) * (v[k + 1] - v[0]) - (v[k] - v[0]) * (u[k + 1] - u[0]))


class Canvas:
    """
    Albedo uint8 [H, W, 3], label uint8, depth float32 in metres, shade and glow of each pixel.

    A surface covers a pixel if it covers its centre; the nearest one owns all its values.
    """

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        shape = (camera.height, camera.width)
        self.albedo = np.full((*shape, 3), (170, 190, 215), np.uint8)
        self.label = np.full(shape, SKY, np.uint8)
        self.depth = np.full(shape, np.inf, np.float32)
        self.shade = np.ones(shape, np.float32)
        self.glow = np.zeros((*shape, 3), np.uint8)
        self.lights: list[Lamp] = []
        #: Where a polygon lies, on which no shadow falls.
        self._flat = np.zeros(shape, bool)

    def paint(self, at: Any, mask: Array, depth: Any, rgb: Any, label: Any, shade: float = 1.0,
              glow: Any = None, flat: bool = False) -> None:  # fmt: skip
        """Write a surface into the window ``at`` where ``mask`` holds and nothing is nearer."""
        mask = mask & (depth < self.depth[at])
        np.copyto(self.depth[at], depth, where=mask)
        np.copyto(self.label[at], label, where=mask)
        np.copyto(self.shade[at], np.float32(shade), where=mask)
        np.copyto(self.albedo[at], np.asarray(rgb, np.uint8), where=mask[..., None])
        light = np.uint8(0) if glow is None else np.asarray(glow, np.uint8)
        np.copyto(self.glow[at], light, where=mask[..., None])
        np.copyto(self._flat[at], flat, where=mask)

    def hidden(self, low: Point, high: Point) -> bool:
        """Return whether no part of the upright box between two corners can be seen."""
        u, v, depth = self.camera.project(np.array([*product(*zip(low, high))]))
        if depth.min() < NEAR:
            return bool(depth.max() < NEAR)
        rows, columns = (slice(max(0, int(s.min())), max(0, int(s.max()) + 1)) for s in (v, u))
        window = self.depth[rows, columns]
        return not window.size or float(window.max()) < float(depth.min())

    def polygon(self, label: int, rgb: RGB, corners: Sequence[Point], shade: float = 0.85,
                nearer: float = 1.0, glow: RGB | None = None, *,
                shadow: bool = False) -> None:  # fmt: skip
        """Draw a flat convex polygon; a ``shadow`` only darkens what lies there."""
        points = np.array(corners, np.float64)
        ahead = points[:, 2] - self.camera.z - NEAR
        if not (ahead > 0).any():
            return
        if not (ahead > 0).all():
            cut: list[Array] = []
            for p, q, a, b in zip(points, np.roll(points, -1, 0), ahead, np.roll(ahead, -1)):
                cut += [p] if a > 0 else []
                cut += [p + (q - p) * (a / (a - b))] if (a > 0) != (b > 0) else []
            points = np.stack(cut)
        u, v, depth = self.camera.project(points)
        left, top = max(0, int(u.min())), max(0, int(v.min()))
        right = min(self.camera.width, int(min(u.max(), 1e6)) + 1)
        bottom = min(self.camera.height, int(min(v.max(), 1e6)) + 1)
        following = np.arange(1, len(u) + 1) % len(u)
        du, dv = u[following] - u, v[following] - v
        area = float(u @ dv - v @ du)
        at = np.s_[top:bottom, left:right]
        if left >= right or top >= bottom or abs(area) < 0.05:
            return
        if float(depth.min()) * nearer > float(self.depth[at].max()):
            return
        px = np.arange(left, right, dtype=np.float32) + np.float32(0.5)
        py = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5))[:, None]
        inside = np.ones((bottom - top, right - left), bool)
        for ui, vi, dui, dvi in zip(u, v, du * np.sign(area), dv * np.sign(area)):
            inside &= np.float32(dui) * (py - np.float32(vi)) >= (px - np.float32(ui)) * dvi
        if np.ptp(depth) < 1e-6:
            deep: Array = np.full(inside.shape, depth[0] * nearer, np.float32)
        else:  # the inverse depth of a plane is linear in the image
            i = max(range(1, len(u) - 1), key=lambda k: abs(_cross(u, v, k)))
            one, two = 1 / depth[i] - 1 / depth[0], 1 / depth[i + 1] - 1 / depth[0]
            whole = _cross(u, v, i)
            across = (one * (v[i + 1] - v[0]) - two * (v[i] - v[0])) / whole
            down = (two * (u[i] - u[0]) - one * (u[i + 1] - u[0])) / whole
            inverse = np.float32(across) * px + np.float32(down) * py
            inverse += np.float32(1 / depth[0] - across * u[0] - down * v[0])
            deep = np.float32(nearer) / np.maximum(inverse, np.float32(1e-4))
        if shadow:
            inside &= (deep < self.depth[at] * 1.05) & ~self._flat[at]
            self.shade[at] *= np.where(inside, shade, 1)
        else:
            self.paint(at, inside, deep, rgb, label, shade, glow, flat=True)

    def board(self, label: int, rgb: RGB, x: float, y: float, z: float, wide: float, tall: float,
              shade: float = 0.85, glow: RGB | None = None) -> None:  # fmt: skip
        """Draw an upright rectangle across the road, at least a pixel wide; x is its middle."""
        half = max(wide, 1.02 * (z - self.camera.z) / self.camera.focal) / 2
        corners = [(x - half, y, z), (x + half, y, z), (x + half, y + tall, z),
                   (x - half, y + tall, z)]  # fmt: skip
        self.polygon(label, rgb, corners, shade, glow=glow)

    def sprite(self, levels: list[Array], label: int, place: tuple[float, float, float],
               size: tuple[float, float], shade: float = 1.0) -> None:  # fmt: skip
        """Draw an RGBA sprite upright: ``place`` is the middle of its foot, ``size`` in metres."""
        (u,), (v,), (depth,) = self.camera.project(np.asarray([place], np.float64))
        if not 1.0 < depth < FAR * 0.7:
            return
        w, h = (side * self.camera.focal / depth for side in size)
        left, right = max(0, int(u - w / 2)), min(self.camera.width, int(u + w / 2) + 1)
        top, bottom = max(0, int(v - h)), min(self.camera.height, int(v) + 1)
        if left >= right or top >= bottom:
            return
        image = levels[int(np.clip(np.log2(levels[0].shape[0] / h), 0, len(levels) - 1))]
        sx, sy = image.shape[1] / w, image.shape[0] / h
        into = np.array([[sx, 0, (left + 0.5 - u + w / 2) * sx - 0.5],
                         [0, sy, (top + 0.5 - v + h) * sy - 0.5]])  # fmt: skip
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        patch = cv2.warpAffine(image, into, (right - left, bottom - top), flags=flags,
                               borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
        px = np.arange(left, right) + 0.5
        py = np.arange(top, bottom)[:, None] + 0.5
        inside = (np.abs(px - u) <= w / 2) & (py >= v - h) & (py <= v) & (patch[..., 3] > 127)
        at = np.s_[top:bottom, left:right]
        self.paint(at, inside, np.float32(depth), patch[..., :3], label, shade)

    def wall(self, x: float, heights: Array, texture: Mip, label: int, shade: float = 1.0,
             glow: Mip | None = None,
             span: tuple[float, float] = (-np.inf, np.inf)) -> None:  # fmt: skip
        """Draw the wall along the road at ``x``; ``heights`` in metres for each texel along it."""
        camera, texture_height = self.camera, texture.rows / texture.ppm
        depth = camera.wall_depth(x)
        seen = (depth > NEAR) & (depth < FAR)
        seen &= (depth + camera.z >= span[0]) & (depth + camera.z < span[1])
        if not seen.any():
            return
        left, right = np.flatnonzero(seen)[[0, -1]] + [0, 1]
        seen, depth = seen[left:right], np.minimum(depth[left:right], FAR)
        along = np.mod(depth + camera.z, texture.columns / texture.ppm)
        top = np.where(seen, heights[(along * texture.ppm).astype(int) % texture.columns], 0)
        scale = depth / camera.focal
        first = max(0, int((camera.center[1] - (top - camera.eye) / scale).min()))
        last = min(camera.height, int((camera.center[1] + camera.eye / scale)[seen].max()) + 1)
        if first >= last:
            return
        py = np.arange(first, last, dtype=np.float32)[:, None] + np.float32(0.5)
        y = np.float32(camera.eye) - (py - np.float32(camera.center[1])) * scale
        mask = (y >= 0) & (y < top)
        down = np.float32(texture_height) - y
        foot = np.sqrt(scale * depth * scale / abs(x - camera.x))
        at = np.s_[first:last, left:right]
        light = None if glow is None else glow.sample(along, down, foot)
        rgb = texture.sample(along, down, foot)
        self.paint(at, mask, np.broadcast_to(depth, y.shape), rgb, label, shade, light)

    def plane(self, y: float) -> tuple[slice, Array, Array]:
        """Return the rows that see the level plane at ``y``, their depth [R, 1] and x [R, W]."""
        camera = self.camera
        v = np.arange(camera.height) + 0.5 - camera.center[1]
        with np.errstate(all='ignore'):
            depth = (camera.eye - y) * camera.focal / v
        rows = np.flatnonzero((depth > NEAR) & (depth < FAR))
        at = slice(rows[0], rows[-1] + 1) if len(rows) else slice(0, 0)
        deep = depth[at, None].astype(np.float32)
        u = (np.arange(camera.width, dtype=np.float32) + 0.5 - camera.center[0]) / camera.focal
        return at, deep, (u * deep - camera.offset(deep)).astype(np.float32)
