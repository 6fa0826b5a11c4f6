# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""From surfaces to a photograph: daylight, lamps, glare, exposure and sensor noise."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from nightseg_ros.simulation.camera import FAR, Array, Canvas
from nightseg_ros.simulation.scene import LAMP_STEP, VAULT, Tunnels
from nightseg_ros.simulation.street import LENGTH, SPLITS, Street

FULL_WELL, READ_NOISE = 5000.0, 5.0
"""Electrons at white, and electrons rms, of a small automotive sensor."""
HEAD = (0.11, 0.105, 0.09)
"""Our head lamps' light 14 m ahead, relative to a sunlit street."""
GAIN = (0.2, 18.0)
"""Bounds of the automatic exposure, relative to a sunlit street."""
_HOURS = (0.0, 0.25, 0.5, 0.75, 1.0)
_ZENITH = ((0.2, 0.25, 0.42), (0.3, 0.36, 0.6), (0.36, 0.44, 0.74), (0.5, 0.64, 0.9),
           (0.34, 0.54, 0.98))  # fmt: skip
_HORIZON = ((0.95, 0.75, 0.55), (1.0, 0.62, 0.42), (1.2, 0.72, 0.48), (1.0, 0.88, 0.78),
            (0.74, 0.84, 1.0))  # fmt: skip
"""Colours of the sky at ``_HOURS``, relative to the daylight."""
_LINEAR = ((np.arange(256) / 255.0) ** 2.2).astype(np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Light:
    """The light of a moment."""

    ambient: float
    """Daylight, 1 noon to 0 deep night, on a logarithmic scale."""
    veil: float = 0.02
    """Share of a lamp's light that the lens scatters; a dirty one ten times as much."""
    seed: int = 0
    """Of the sensor's noise."""
    haze: float = 0.5

    @property
    def daylight(self) -> float:
        """Return the linear daylight: 1 at noon, 1/1500 at night."""
        return float(1500.0 ** (self.ambient - 1))

    @property
    def lamps(self) -> float:
        """Return how far the street lamps are lit, 0 to 1."""
        return float(np.clip((0.72 - self.ambient) / 0.1, 0, 1))


def expose(canvas: Canvas, street: Street, light: Light, tunnels: Tunnels = ()) -> Array:
    """Return the photograph, uint8 [H, W, 3] RGB."""
    radiance = _radiance(canvas, street, light, tunnels)
    _halos(canvas, light, radiance)
    luma = radiance[::4, ::4] @ np.array([0.3, 0.59, 0.11], np.float32)
    metered = float(np.exp(np.log(luma + 2e-4).mean()))
    gain = float(np.clip(0.19 / metered, *GAIN)) ** 0.93
    radiance *= gain
    per_electron = gain**0.8 / FULL_WELL
    noise = cv2.sqrt(radiance * per_electron + (READ_NOISE * per_electron) ** 2)
    start = int(np.random.default_rng([light.seed, 7]).integers(1_000_000))
    noise *= np.resize(_grain(street.split)[start : start + radiance.size], radiance.shape)
    radiance += noise
    radiance *= 1023
    image: Array = _TONE[radiance.clip(0, 8191).astype(np.uint16)]
    return image


def _tone() -> Array:
    v = np.arange(8192) / 1023.0
    shoulder = np.where(v < 0.6, v, 0.6 + 0.4 * (1 - np.exp(-(v - 0.6) / 0.5)))
    return np.round(255 * shoulder.clip(0, 1) ** (1 / 2.2)).astype(np.uint8)


_TONE = _tone()


@functools.cache
def _grain(split: str) -> Array:
    """Return 5 M samples of unit noise, smoothed a little as a camera's processing leaves it."""
    noise = np.random.default_rng(SPLITS.index(split)).standard_normal((1031, 1619, 3), np.float32)
    return np.asarray(cv2.blur(noise, (2, 2)) * np.float32(1.7)).ravel()


def _radiance(canvas: Canvas, street: Street, light: Light, tunnels: Tunnels) -> Array:
    """Light every surface, and the sky behind them: linear float32 [H, W, 3], 1 is noon."""
    camera, day, at, shade = canvas.camera, light.daylight, light.ambient, canvas.shade
    zenith, horizon = (
        np.array([np.interp(at, _HOURS, channel) for channel in zip(*sky)], np.float32)
        for sky in (_ZENITH, _HORIZON)
    )
    depth = np.minimum(canvas.depth, FAR)
    u, v = (np.arange(count, dtype=np.float32) + 0.5 for count in (camera.width, camera.height))
    u, v = (u - camera.center[0]) / camera.focal, (v[:, None] - camera.center[1]) / camera.focal
    x, y, z = u * depth - camera.offset(depth), camera.eye - v * depth, depth + camera.z
    sky_light, direct, inside = 0.55 * day * shade, np.zeros_like(depth), np.zeros_like(depth)
    if at > 0.72:
        side, houses = street.sun_side, street.walls[0 if street.sun_side > 0 else 1][0]
        column = (np.mod(z, LENGTH) * (len(houses) / LENGTH)).astype(np.int32) % len(houses)
        reach = street.edge + 0.4 - (houses[column] - y) * street.sun_slope
        direct = (x * side < reach) * shade * (0.9 * day * ((at - 0.72) / 0.28) ** 0.7)
    for start, end in tunnels:
        into = np.minimum(z - start, end - z)
        under = (np.abs(x) < street.half + 1) & (into > 0) & (y < VAULT + 0.3)
        sky_light = np.where(under, sky_light * np.exp(-np.maximum(into, 0) / 7), sky_light)
        direct = np.where(under, 0, direct)
        inside += under * (0.5 + 0.3 * np.cos(z * (2 * np.pi / LAMP_STEP)))
    pools = cv2.remap(street.pools, np.mod(z, LENGTH) * 2, (x + 20) * 2, cv2.INTER_LINEAR,
                      borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
    pools = pools * np.exp(np.minimum(4.5 - y, 0) * 0.5) * (inside == 0) * shade
    head = _head_lamps(depth, y, u) * np.maximum(shade, 0.4) * (at < 0.8 or len(tunnels) > 0)
    tint = zenith * 0.7 + horizon * 0.3
    city = np.array([0.0016, 0.0012, 0.0008], np.float32)
    terms = (sky_light, direct, head, pools, inside * shade, np.ones_like(depth))
    lamps = np.array(street.lamp_rgb) * (0.1 * light.lamps)
    colors = (tint / tint.mean(), (1.0, 0.93, 0.8), HEAD, lamps, (0.055, 0.05, 0.036), city * 0.3)
    total = np.stack(terms, -1).astype(np.float32, copy=False) @ np.array(colors, np.float32)
    total *= cv2.LUT(canvas.albedo, _LINEAR)
    if canvas.glow.any():
        total += cv2.LUT(canvas.glow, _LINEAR) * np.float32(0.1)
    fog = (1 - np.exp(depth * (-light.haze / FAR))) * np.where(inside > 0, np.float32(0.2), 1)
    total += fog[..., None] * (horizon * (0.5 * day) + city * 0.4 - total)
    low = np.exp(np.minimum(v, 0) * 6)[..., None]
    sky = (zenith + (horizon - zenith) * low) * (0.75 * day) + city * (0.1 + 0.6 * low)
    clouds = cv2.resize(street.clouds, (camera.width, camera.height))[..., None]
    np.copyto(total, sky * (1 + clouds), where=np.isinf(canvas.depth)[..., None])
    return np.asarray(total)


def _head_lamps(depth: Array, y: Array, u: Array) -> Array:
    """Return our dipped head lamps' light: wide, bright just under the horizontal, dark above."""
    aim = (y - 0.65) / np.maximum(depth, 1) + 0.012 - 0.05 * np.maximum(u - 0.02, 0)
    low = np.exp(-np.square(aim / np.where(aim < 0, np.float32(0.075), np.float32(0.01))))
    wide = np.exp(-np.square(u / 0.42))
    return np.asarray((low + 0.025) * wide * (14 / (depth + 2.5)) ** 1.6)


def _halos(canvas: Canvas, light: Light, radiance: Array) -> None:
    """Add what visible lamps send into the lens: a disc each, and halos around it."""
    height, width = canvas.label.shape
    rows, columns = -(-height // 4), -(-width // 4)
    bloom = np.zeros((rows, columns, 3), np.float32)
    for x, y, z, radius, color, street_lamp in canvas.lights:
        rgb = np.array(color, np.float32) * (0.55 * light.lamps if street_lamp else 1)
        depth = z - canvas.camera.z
        if not 1 < depth < 250 or not rgb.any():
            continue
        (u,), (v,), _ = canvas.camera.project(np.array([[x, y, z]]))
        if not (0 <= u < width and 0 <= v < height):
            continue
        row, column = int(v), int(u)
        if canvas.depth[row, column] < depth * 0.985:
            continue
        r = max(0.8, radius * canvas.camera.focal / depth)
        at = np.s_[max(0, row - int(3 * r)) : row + int(3 * r) + 1,
                   max(0, column - int(3 * r)) : column + int(3 * r) + 1]  # fmt: skip
        py, px = np.arange(height)[at[0], None], np.arange(width)[at[1]]
        disc = np.exp(-((((px + 0.5 - u) ** 2 + (py + 0.5 - v) ** 2) / (r * r)) ** 1.5))
        radiance[at] += disc[..., None].astype(np.float32) * rgb
        bloom[row // 4, column // 4] += rgb * (min(r * r / 8, 3.0) + 0.4 * min(1.0, 50 / depth))
    if bloom.any():
        spread = sum(share * cv2.GaussianBlur(bloom, (0, 0), sigma * columns / 160)
                     for sigma, share in ((1.2, 2.0), (4.0, 1.0), (16.0, 1.2)))  # fmt: skip
        radiance += cv2.resize(np.asarray(spread), (width, height)) * (light.veil * 8)
