# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What a labelled road image says about its geometry: roles of pixels, horizon and depth."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from nightseg_ros.taxonomy import Taxonomy

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


_ROLE_OF_CLASS = {
    'sky': Role.SKY,
    'building': Role.BUILDING,
    'wall': Role.BUILDING,
    'pole': Role.POLE,
    'road': Role.ROAD,
    'pavement': Role.PAVEMENT,
    'sidewalk': Role.PAVEMENT,
    'terrain': Role.TREE,
    'tree': Role.TREE,
    'vegetation': Role.TREE,
    'sign': Role.SIGN,
    'traffic sign': Role.SIGN,
    'traffic light': Role.SIGN,
    'fence': Role.FENCE,
    'car': Role.VEHICLE,
    'truck': Role.VEHICLE,
    'bus': Role.VEHICLE,
    'train': Role.VEHICLE,
    'motorcycle': Role.VEHICLE,
    'pedestrian': Role.PERSON,
    'person': Role.PERSON,
    'rider': Role.PERSON,
    'bicyclist': Role.PERSON,
    'bicycle': Role.PERSON,
}


@lru_cache(maxsize=8)
def role_table(taxonomy: Taxonomy) -> Bytes:
    """
    Return uint8 [256]: the ``Role`` of each label id, ``OTHER`` for void and unknown classes.

    ``TaxonomyError`` if the taxonomy has no class ``sky``: a night cannot be made without it.
    """
    table = np.full(256, Role.OTHER, np.uint8)
    for index, name in enumerate(taxonomy.classes):
        table[index] = _ROLE_OF_CLASS.get(name, Role.OTHER)
    table[taxonomy.id_of('sky')] = Role.SKY
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
    """
    Guess the geometry of a road scene from its labels uint8 [H, W].

    The horizon is where the ground ends; focal length and vanishing point are drawn at random.
    """
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
        roles=roles,
        coarse=coarse,
        ground=ground,
        x=x,
        y=y,
        z=z,
        horizon=horizon,
        focal=focal,
        center=center,
    )
