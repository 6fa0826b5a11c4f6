# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
How long it takes to label a cloud: 200,000 points with four cameras around a vehicle.

``python bench/clouds.py`` prints the median of 50 clouds in milliseconds: for each distortion,
from the bytes of the input message to those of the output; and OpenCV's own projection of the
points that one camera sees, for comparison.
"""

from __future__ import annotations

from collections.abc import Callable
import math
from timeit import repeat
from typing import Any

import cv2
from nightseg_ros.clouds.camera_model import Calibration, CameraModel
from nightseg_ros.clouds.geometry import BODY_FROM_OPTICAL, from_angles, inverse
from nightseg_ros.clouds.painter import Occlusion, paint, View
from nightseg_ros.clouds.point_cloud import Cloud, Field
from nightseg_ros.taxonomy import CAMVID11
import numpy as np

POINTS, CAMERAS = 200_000, 4
WIDTH, HEIGHT = 1280, 720
DISTORTIONS = {
    'plumb_bob without distortion': ('plumb_bob', ()),
    'plumb_bob': ('plumb_bob', (-0.3, 0.1, 0.001, -0.0005, -0.015)),
    'rational_polynomial': (
        'rational_polynomial', (0.3, 0.05, 0.001, -0.0005, 0.01, 0.6, 0.15, 0.02),
    ),
    'equidistant': ('equidistant', (0.05, -0.01, 0.002, -0.0003)),
}  # fmt: skip


def spinning() -> Cloud:
    """Return a cloud as a spinning LiDAR gives it: 32 bytes a point, x y z intensity ring time."""
    rng = np.random.default_rng(0)
    places = {'x': 0, 'y': 4, 'z': 8, 'intensity': 16, 'ring': 20, 'time': 24}
    cloud = Cloud(
        fields=tuple(
            Field(name=name, offset=offset, datatype=4 if name == 'ring' else 7)
            for name, offset in places.items()
        ),
        height=1, width=POINTS, point_step=32, row_step=32 * POINTS,
        data=np.zeros(32 * POINTS, np.uint8),
    )  # fmt: skip
    azimuth = np.linspace(0, 2 * math.pi, POINTS, endpoint=False)
    elevation = np.radians(rng.integers(0, 128, POINTS) * (40 / 128) - 25)
    reach = np.where(elevation < -0.02, 1.8 / np.sin(np.maximum(-elevation, 0.02)), 60)
    reach = np.minimum(reach, rng.uniform(5, 80, POINTS))
    records = cloud.records[0]
    records['x'] = reach * np.cos(elevation) * np.cos(azimuth)
    records['y'] = reach * np.cos(elevation) * np.sin(azimuth)
    records['z'] = reach * np.sin(elevation)
    return cloud


def views(model: str, d: tuple[float, ...]) -> list[View]:
    """Return cameras that look evenly around, each a metre away from the LiDAR."""
    rng = np.random.default_rng(1)
    calibration = Calibration(
        width=WIDTH, height=HEIGHT, distortion_model=model, d=d,
        k=(640, 0, WIDTH / 2, 0, 640, HEIGHT / 2, 0, 0, 1),
    )  # fmt: skip
    found = []
    for number in range(CAMERAS):
        yaw = 2 * math.pi * number / CAMERAS
        body = from_angles((math.cos(yaw), math.sin(yaw), -0.3), (0, 0, yaw))
        found.append(View(
            model=CameraModel(calibration, (HEIGHT, WIDTH)),
            camera_from_cloud=inverse(body @ BODY_FROM_OPTICAL),
            labels=rng.integers(0, 11, (HEIGHT, WIDTH), np.uint8),
            confidence=rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8),
        ))  # fmt: skip
    return found


def timed(name: str, work: Callable[[], Any]) -> None:
    """Print how long ``work`` takes."""
    print(f'{name:48} {1e3 * np.median(repeat(work, number=1, repeat=51)[1:]):7.2f} ms')


def main() -> None:
    """Measure."""
    cloud, palette, occlusion = spinning(), CAMVID11.palette(), Occlusion()
    for name, (model, d) in DISTORTIONS.items():
        around = views(model, d)

        def label(around: list[View] = around) -> Cloud:
            labels, confidence, _ = paint(cloud.xyz(), around, occlusion)
            return cloud.with_labels(labels, confidence, palette)

        timed(name, label)
    lens, place = around[0].model, around[0].camera_from_cloud
    moved = (place[:3, :3] @ cloud.xyz() + place[:3, 3:]).astype(np.float32)
    index = lens.project(moved)[0]
    seen = np.ascontiguousarray(moved.T[index], np.float64)[:, None]
    matrix = np.array([[lens.fx, 0, lens.cx], [0, lens.fy, lens.cy], [0, 0, 1]])
    zero, chosen = np.zeros(3), np.ascontiguousarray(moved[:, index])
    timed(f'projecting the {len(index)} points of one camera', lambda: lens.project(chosen))
    timed(
        'the same by cv2.fisheye.projectPoints',
        lambda: cv2.fisheye.projectPoints(seen, zero, zero, matrix, np.array(d)),
    )


if __name__ == '__main__':
    main()
