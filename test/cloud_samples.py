# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Clouds, cameras and images for the tests of semantic clouds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from nightseg_ros.clouds.camera_model import Calibration
from nightseg_ros.clouds.geometry import BODY_FROM_OPTICAL, Matrix, from_angles
from nightseg_ros.clouds.point_cloud import DATATYPES, Cloud, Field

FLOAT32 = 7


def calibration(
    model: str = 'plumb_bob', d: tuple[float, ...] = (), *, width: int = 640, height: int = 360,
    focal: float = 400.0, **more: Any,
) -> Calibration:  # fmt: skip
    return Calibration(
        width=width, height=height, distortion_model=model, d=d,
        k=(focal, 0, width / 2 - 0.5, 0, focal * 1.02, height / 2 + 3, 0, 0, 1), **more,
    )  # fmt: skip


def cloud(
    points: Any, *, extra: dict[str, tuple[int, Any]] | None = None, big: bool = False,
    height: int = 1, point_padding: int = 0, row_padding: int = 0, float_type: int = FLOAT32,
) -> Cloud:  # fmt: skip
    """Return [N, 3] points, and more fields by name: datatype and [N] values."""
    points = np.asarray(points, np.float64).reshape(-1, 3)
    columns = {name: (float_type, points[:, i]) for i, name in enumerate('xyz')}
    columns |= extra or {}
    order, fields, at = '>' if big else '<', [], 0
    for name, (datatype, _) in columns.items():
        fields.append(Field(name=name, offset=at, datatype=datatype))
        at += np.dtype(DATATYPES[datatype]).itemsize
    step = at + point_padding
    width = len(points) // height
    row_step = width * step + row_padding
    data = np.full(height * row_step, 0xA5, np.uint8)
    for number in range(len(points)):
        start = number // width * row_step + number % width * step
        for field in fields:
            datatype, values = columns[field.name]
            value = np.array(values[number]).astype(order + DATATYPES[datatype])
            content = np.frombuffer(value.tobytes(), np.uint8)
            data[start + field.offset : start + field.offset + len(content)] = content
    return Cloud(
        fields=tuple(fields), height=height, width=width, point_step=step, row_step=row_step,
        data=data, is_bigendian=big, is_dense=True,
    )  # fmt: skip


def image(pixels: Any, encoding: str, *, padding: int = 0, big: bool = False) -> Any:
    """Return what read_plane takes: an image message by its attributes."""
    pixels = np.asarray(pixels)
    stored = pixels.astype(pixels.dtype.newbyteorder('>' if big else '<'))
    rows = np.frombuffer(stored.tobytes(), np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return SimpleNamespace(
        height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=rows.shape[1],
        is_bigendian=int(big), data=rows.tobytes(),
    )  # fmt: skip


def looking(yaw: float, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Matrix:
    """Return body_from_optical of a camera at a place that looks ``yaw`` to the left."""
    return np.asarray(from_angles((x, y, z), (0, 0, yaw)) @ BODY_FROM_OPTICAL)
