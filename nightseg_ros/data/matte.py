# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A soft sky matte: how much of each pixel is sky, with branches, wires and roof edges kept."""

from __future__ import annotations

import cv2
import numpy as np

from nightseg_ros.data.scene import Array, Role, Scene

#: How far into other classes (pixels at 480 wide) daylight sky may shine through.
FRINGE = {Role.TREE: 80.0, Role.OTHER: 12.0, Role.POLE: 8.0, Role.SIGN: 4.0}
FRINGE_ELSEWHERE = 3.0


def smoothstep(values: Array, low: float, high: float) -> Array:
    """Return 0 below ``low``, 1 above ``high`` and a smooth ramp between."""
    scale = 1.0 / (high - low)
    t = values * np.float32(scale) - np.float32(low * scale)
    np.clip(t, 0.0, 1.0, out=t)
    result: Array = t * t * (3.0 - 2.0 * t)
    return result


def split_sky(linear: Array, scene: Scene) -> tuple[Array, Array]:
    """
    Split a day image into its sky matte and the light of everything before the sky.

    ``linear`` is float32 [H, W, 3] RGB in linear light. A pixel is modelled as
    ``I = alpha * S + (1 - alpha) * F`` with the local colour ``S`` of the day sky (a normalised
    blur of the sky region). ``alpha`` comes from the ratio I / S in the blue channel, where a
    clear sky and a cloud are bright and what stands before them is dark; it is free to be below
    1 inside the sky label (wires, twigs) and above 0 near it outside (gaps in a crown, soft
    label edges). Returns ``alpha`` float32 [H, W] and ``(1 - alpha) * F`` float32 [H, W, 3].
    """
    height, width = scene.roles.shape
    sky = scene.roles == Role.SKY
    count = int(sky.sum())
    if count == 0:
        return np.zeros((height, width), np.float32), linear
    size = (scene.coarse.shape[1], scene.coarse.shape[0])
    sky_f = sky.astype(np.float32)
    # weights by the square of blue: a label that spills over a roof barely colours S
    blue = cv2.extractChannel(linear, 2)
    weight = cv2.resize(sky_f * blue * blue, size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(linear, size, interpolation=cv2.INTER_AREA)
    sigma = 8.0
    total = cv2.GaussianBlur(weight, (0, 0), sigma) + 1e-5
    local = cv2.GaussianBlur(small * weight[..., None], (0, 0), sigma) / total[..., None]
    mean = cv2.mean(linear, sky.astype(np.uint8))[:3]
    trust = (total / (total + 2e-3))[..., None]
    local = (local * trust + np.asarray(mean, np.float32) * (1.0 - trust)).astype(np.float32)
    day_sky = cv2.resize(local, (width, height), interpolation=cv2.INTER_LINEAR)
    ratio = cv2.divide(blue, np.maximum(cv2.extractChannel(day_sky, 2), 0.02))
    inside = smoothstep(ratio, 0.25, 0.62)
    distance = cv2.distanceTransform((~sky).astype(np.uint8), cv2.DIST_L2, 3)
    reach = np.full(len(Role), FRINGE_ELSEWHERE, np.float32)
    for role, pixels in FRINGE.items():
        reach[role] = pixels
    inverse = (480.0 / max(width, 64)) / reach
    table = np.pad(inverse, (0, 256 - len(inverse))).astype(np.float32)
    fringe = np.clip(1.5 - cv2.multiply(distance, cv2.LUT(scene.roles, table)), 0.0, 1.0)
    outside = cv2.multiply(smoothstep(ratio, 0.30, 0.90), fringe)
    alpha: Array = np.where(sky, inside, outside)
    matte = cv2.merge((alpha, alpha, alpha))
    before = cv2.subtract(linear, cv2.multiply(matte, day_sky, dst=day_sky), dst=day_sky)
    np.maximum(before, 0.0, out=before)
    # noise in the sky must not come back as light
    cv2.subtract(linear, cv2.multiply(matte, linear, dst=matte), dst=matte)
    return alpha, cv2.min(before, matte, dst=before)


def coarse_mean(values: Array, scene: Scene) -> Array:
    """Return the mean of float32 [H, W(, C)] in each coarse cell."""
    size = (scene.coarse.shape[1], scene.coarse.shape[0])
    result: Array = cv2.resize(values, size, interpolation=cv2.INTER_AREA)
    return result
