# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
A solid-state LiDAR on the roof of the rendered drive, and what a camera's calibration is there.

The road bends in the camera's own coordinates, so that only sensors side by side or one above the
other see one and the same street: that is how cameras and LiDAR are mounted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightseg_ros.clouds.camera_model import Calibration
from nightseg_ros.clouds.point_cloud import Cloud, Field
from nightseg_ros.clouds.transform import BODY_FROM_OPTICAL, Matrix, from_pose
from nightseg_ros.simulation.camera import Camera
from nightseg_ros.simulation.drive import Drive, Mount

#: A hand's breadth to the right of the camera and half a metre above it: its shadows differ.
LIDAR_MOUNT: Mount = (0.3, 0.6)
#: Metres up to which a surface sends an echo back.
RANGE = 100.0
_SIZE = (1280, 720)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scan:
    """One sweep; every echo comes from the middle of a surface that the drive has painted."""

    points: npt.NDArray[np.float32]
    """[N, 3] in the LiDAR's body frame: x ahead, y left, z up, in metres."""
    labels: npt.NDArray[np.uint8]
    """[N] the true ids."""
    ring: npt.NDArray[np.uint16]
    """[N] the line of each point, from above."""
    stamp_ns: int

    def cloud(self) -> Cloud:
        """Return it with the fields x, y, z, ring and the true label, ``truth``."""
        layout = np.dtype(
            [('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('ring', '<u2'), ('truth', 'u1')]
        )
        records = np.empty(len(self.points), layout)
        records['x'], records['y'], records['z'] = self.points.T
        records['ring'], records['truth'] = self.ring, self.labels
        kinds = {'x': 7, 'y': 7, 'z': 7, 'ring': 4, 'truth': 2}
        offsets = {name: place[1] for name, place in (layout.fields or {}).items()}
        return Cloud(
            fields=tuple(
                Field(name=name, offset=offsets[name], datatype=kind)
                for name, kind in kinds.items()
            ),
            height=1, width=len(records), point_step=layout.itemsize,
            row_step=layout.itemsize * len(records), data=records.view(np.uint8), is_dense=True,
        )  # fmt: skip


def scan(drive: Drive, index: int, *, lines: int = 64, columns: int = 400) -> Scan:
    """Return the echoes of ``lines`` × ``columns`` rays, ±30° wide and from 9° up to 17° down."""
    canvas = drive.surfaces(index, _SIZE, LIDAR_MOUNT)
    camera = canvas.camera
    elevation = np.radians(np.linspace(9, -17, lines))
    azimuth = np.radians(np.linspace(-30, 30, columns))
    # the rays of a spinning mirror: the rows bend outwards in the image
    u = camera.center[0] + camera.focal * np.tan(azimuth)[None]
    v = camera.center[1] - camera.focal * np.tan(elevation)[:, None] / np.cos(azimuth)[None]
    column, row = np.broadcast_arrays(u.astype(int), v.astype(int))
    kept = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    line, _ = np.nonzero(kept)
    row, column = row[kept], column[kept]
    depth = canvas.depth[row, column].astype(np.float64)
    x = (column + 0.5 - camera.center[0]) / camera.focal * depth
    y = (row + 0.5 - camera.center[1]) / camera.focal * depth
    with np.errstate(invalid='ignore'):
        echo = np.sqrt(x * x + y * y + depth * depth) < RANGE
    optical = np.stack([x[echo], y[echo], depth[echo]])
    return Scan(
        points=(BODY_FROM_OPTICAL[:3, :3] @ optical).T.astype(np.float32),
        labels=canvas.label[row[echo], column[echo]],
        ring=line[echo].astype(np.uint16),
        stamp_ns=drive.stamp_ns(index),
    )


def calibration(camera: Camera) -> Calibration:
    """Return what camera_info says of a rendered picture; its pitch moves the centre."""
    cx, cy = (value - 0.5 for value in camera.center)
    k = (camera.focal, 0.0, cx, 0.0, camera.focal, cy, 0.0, 0.0, 1.0)
    return Calibration(
        width=camera.width, height=camera.height, distortion_model='plumb_bob', d=(0.0,) * 5,
        k=k, p=(*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0),
    )  # fmt: skip


def places(mounts: Mapping[str, Mount]) -> list[tuple[str, str, Matrix]]:
    """Return parent, child and parent_from_child of the LiDAR and of cameras by their frames."""
    found = [('base_link', 'lidar', _at(LIDAR_MOUNT))]
    for frame, mount in mounts.items():
        found.append(('base_link', frame, np.asarray(_at(mount) @ BODY_FROM_OPTICAL)))
    return found


def _at(mount: Mount) -> Matrix:
    return from_pose((0.0, -mount[0], mount[1]), (0.0, 0.0, 0.0, 1.0))
