# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Clouds, cameras and messages by their attributes, for the tests of semantic clouds."""

from types import SimpleNamespace
from typing import Any

from nightseg_ros.clouds.camera_model import Calibration
from nightseg_ros.clouds.geometry import BODY_FROM_OPTICAL, from_angles, Matrix, quaternion
from nightseg_ros.clouds.point_cloud import Cloud, DATATYPES, Field
import numpy as np

FLOAT32 = 7
#: Of the masks of small cameras.
SIZE = (90, 160)
#: To the front, to the left, behind; x y z of the LiDAR.
POINTS = [(10.0, 0.0, 0.0), (0.0, 10.0, 0.0), (-10.0, 0.0, 0.0)]


def calibration(
    model: str = 'plumb_bob', d: tuple[float, ...] = (), *, width: int = 640, height: int = 360,
    focal: float = 400.0, **more: Any,
) -> Calibration:  # fmt: skip
    return Calibration(
        width=width, height=height, distortion_model=model, d=d,
        k=(focal, 0, width / 2 - 0.5, 0, focal * 1.02, height / 2 + 3, 0, 0, 1), **more,
    )  # fmt: skip


#: Of a camera of that size.
LENS = calibration(width=160, height=90, focal=100.0)


def cloud(
    points: Any, *, extra: dict[str, tuple[int, Any]] | None = None, big: bool = False,
    height: int = 1, point_padding: int = 0, row_padding: int = 0, float_type: int = FLOAT32,
) -> Cloud:  # fmt: skip
    """Return [N, 3] points, and more fields by name: datatype and [N] values."""
    points = np.asarray(points, np.float64).reshape(-1, 3)
    columns = {name: (float_type, points[:, i]) for i, name in enumerate('xyz')}
    columns |= extra or {}
    kinds = [
        (name, ('>' if big else '<') + DATATYPES[kind]) for name, (kind, _) in columns.items()
    ]
    records = np.zeros(len(points), [*kinds, ('padding', f'V{point_padding}')])
    for name, (_, values) in columns.items():
        records[name] = values
    rows = records.view(np.uint8).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, row_padding)), constant_values=0xA5)
    places = records.dtype.fields
    return Cloud(
        fields=tuple(Field(name=name, offset=places[name][1], datatype=kind)
                     for name, (kind, _) in columns.items()),
        height=height, width=len(points) // height, point_step=records.itemsize,
        row_step=rows.shape[1], data=rows.reshape(-1), is_bigendian=big, is_dense=True,
    )  # fmt: skip


def looking(yaw: float, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Matrix:
    """Return body_from_optical of a camera at a place that looks ``yaw`` to the left."""
    return np.asarray(from_angles((x, y, z), (0, 0, yaw)) @ BODY_FROM_OPTICAL)


def stamped(stamp_ns: int, frame_id: str, **fields: Any) -> Any:
    stamp = SimpleNamespace(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp, frame_id=frame_id), **fields)


def image(
    pixels: Any, encoding: str, stamp_ns: int = 0, frame_id: str = '', *, padding: int = 0,
    big: bool = False,
) -> Any:  # fmt: skip
    pixels = np.asarray(pixels)
    stored = pixels.astype(pixels.dtype.newbyteorder('>' if big else '<'))
    rows = np.frombuffer(stored.tobytes(), np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return stamped(
        stamp_ns, frame_id, height=pixels.shape[0], width=pixels.shape[1], encoding=encoding,
        step=rows.shape[1], is_bigendian=int(big), data=rows.tobytes(),
    )  # fmt: skip


def cloud_of(given: Cloud, stamp_ns: int, frame_id: str = 'lidar') -> Any:
    """Return the message of a cloud."""
    return stamped(stamp_ns, frame_id, **{name: getattr(given, name) for name in Cloud.__slots__})


def info_of(given: Calibration) -> Any:
    """Return the message of a calibration."""
    x, y, width, height = given.roi
    return SimpleNamespace(
        width=given.width, height=given.height, distortion_model=given.distortion_model,
        d=given.d, k=given.k, p=given.p, binning_x=given.binning[0], binning_y=given.binning[1],
        roi=SimpleNamespace(x_offset=x, y_offset=y, width=width, height=height),
    )  # fmt: skip


def pose_of(stamp_ns: int, matrix: Matrix) -> Any:
    """Return the PoseStamped of a matrix."""
    place = SimpleNamespace(**dict(zip('xyz', matrix[:3, 3])))
    turn = SimpleNamespace(**dict(zip('xyzw', quaternion(matrix))))
    pose = SimpleNamespace(position=place, orientation=turn)
    return stamped(stamp_ns, 'odom', pose=pose)
