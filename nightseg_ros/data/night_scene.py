# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What a labelled road image says about its geometry: roles of pixels, horizon and depth.

A soft sky matte: how much of each pixel is sky, with branches, wires and roof edges kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any

import cv2
from nightseg_ros.taxonomy import Taxonomy
import numpy as np
import numpy.typing as npt

# cv2's stubs return arrays of any number type, so the docstrings state the type instead
Array = npt.NDArray[Any]
Bytes = npt.NDArray[Any]

#: Side of the square of pixels that shares one value of light (light varies smoothly).
STRIDE = 4
#: Height of the camera above the road in metres: a windscreen of a passenger car.
CAMERA_HEIGHT = 1.4


class Role(IntEnum):
    """How a class behaves under light, whatever the taxonomy calls it."""

    OTHER = 0
    SKY = 1
    BUILDING = 2
    POLE = 3
    ROAD = 4
    PAVEMENT = 5
    TREE = 6
    SIGN = 7
    FENCE = 8
    VEHICLE = 9
    PERSON = 10


_CLASSES = {
    Role.SKY: ('sky',),
    Role.BUILDING: ('building', 'wall'),
    Role.POLE: ('pole',),
    Role.ROAD: ('road',),
    Role.PAVEMENT: ('pavement', 'sidewalk'),
    Role.TREE: ('terrain', 'tree', 'vegetation'),
    Role.SIGN: ('sign', 'traffic sign', 'traffic light'),
    Role.FENCE: ('fence',),
    Role.VEHICLE: ('car', 'truck', 'bus', 'train', 'motorcycle'),
    Role.PERSON: ('pedestrian', 'person', 'rider', 'bicyclist', 'bicycle'),
}


@lru_cache(maxsize=8)
def role_table(taxonomy: Taxonomy) -> Bytes:
    """Return uint8 [256]: the ``Role`` of each id; ``TaxonomyError`` where there is no ``sky``."""
    taxonomy.id_of('sky')
    table = np.full(256, Role.OTHER, np.uint8)
    for role, names in _CLASSES.items():
        for name in set(names) & set(taxonomy.classes):
            table[taxonomy.id_of(name)] = role
    table.setflags(write=False)
    return table


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """
    A labelled image as coarse 3-D points, one a cell of ``STRIDE`` × ``STRIDE`` pixels.

    ``x`` (right), ``y`` (up from the road) and ``z`` (ahead) are float32 [h, w] metres; they
    are a plausible world, not a measured one: the road is flat and everything else stands
    upright on the ground below it.
    """

    roles: Bytes
    """uint8 [H, W]: the ``Role`` of each pixel."""
    coarse: Bytes
    """uint8 [h, w]: the ``Role`` of the middle of each cell."""
    ground: npt.NDArray[np.bool_]
    """bool [h, w]: road or pavement."""
    x: Array
    y: Array
    z: Array
    horizon: float
    """Row of the horizon in pixels; may lie outside of the image."""
    focal: float
    """Focal length in pixels."""
    center: float
    """Column of the vanishing point in pixels."""

    def project(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Return the column and row in pixels of a point in metres (``z`` above 0)."""
        scale = self.focal / z
        return self.center + x * scale, self.horizon + (CAMERA_HEIGHT - y) * scale


def read_scene(labels: Bytes, table: Bytes, rng: np.random.Generator) -> Scene:
    """Guess the geometry of labels uint8 [H, W]; focal length and centre are drawn at random."""
    height, width = labels.shape
    roles = table[labels]
    half = STRIDE // 2
    rows = np.minimum(np.arange(-(-height // STRIDE)) * STRIDE + half, height - 1)
    columns = np.minimum(np.arange(-(-width // STRIDE)) * STRIDE + half, width - 1)
    coarse = roles[np.ix_(rows, columns)]
    ground = (coarse == Role.ROAD) | (coarse == Role.PAVEMENT)
    lit_columns = ground.any(axis=0)
    if lit_columns.any():
        tops = ground.argmax(axis=0)[lit_columns]
        horizon = float(np.percentile(tops, 5)) * STRIDE - 0.015 * height
    else:
        # a crop without ground looks up: the road lies below it
        horizon = height * float(rng.uniform(0.7, 1.1))
    focal = width * float(rng.uniform(0.7, 1.2))
    center = width * float(rng.uniform(0.35, 0.65))
    v = (rows + 0.5).astype(np.float32)[:, None]
    u = (columns + 0.5).astype(np.float32)[None, :]
    feet = np.where(ground, v, np.float32(height))
    # the nearest ground at or below each cell carries it
    feet = np.minimum.accumulate(feet[::-1], axis=0)[::-1]
    z = focal * CAMERA_HEIGHT / np.maximum(feet - horizon, 1.0)
    z = np.clip(z, 2.0, 150.0).astype(np.float32)
    x = ((u - center) * z / focal).astype(np.float32)
    y = np.maximum(CAMERA_HEIGHT - (v - horizon) * z / focal, 0.0).astype(np.float32)
    y[ground] = 0.0
    return Scene(
        roles=roles, coarse=coarse, ground=ground, x=x, y=y, z=z, horizon=horizon, focal=focal,
        center=center,
    )  # fmt: skip


#: How far into other classes (pixels at 480 wide) daylight sky may shine through.
FRINGE = {Role.TREE: 80.0, Role.OTHER: 12.0, Role.POLE: 8.0, Role.SIGN: 4.0}
FRINGE_ELSEWHERE = 3.0


def smoothstep(values: Array, low: float, high: float) -> Array:
    """Return 0 below ``low``, 1 above ``high`` and a smooth ramp between."""
    scale = 1.0 / (high - low)
    t = values * np.float32(scale) - np.float32(low * scale)
    np.clip(t, 0.0, 1.0, out=t)
    return np.asarray(t * t * (3.0 - 2.0 * t))


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
    if not sky.any():
        return np.zeros((height, width), np.float32), linear
    sky_f = sky.astype(np.float32)
    # weights by the square of blue: a label that spills over a roof barely colours S
    blue = cv2.extractChannel(linear, 2)
    weight = coarse_mean(sky_f * blue * blue, scene)
    small = coarse_mean(linear, scene)
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
    reach = np.array([FRINGE.get(role, FRINGE_ELSEWHERE) for role in Role], np.float32)
    inverse = (480.0 / max(width, 64)) / reach
    fringe = np.clip(1.5 - cv2.multiply(distance, inverse[scene.roles]), 0.0, 1.0)
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
    return cv2.resize(values, size, interpolation=cv2.INTER_AREA)
