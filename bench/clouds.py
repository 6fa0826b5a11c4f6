# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
How right the labels on points are, and how long they take: ``python bench/clouds.py``.

The LiDAR sweeps of a rendered drive are labelled by the true masks of two cameras that stand apart
from it, for each size of the z-buffer's cells in pixels. What a camera really sees is taken from
its rendered depth: a point is seen where its own depth is that of its pixel, and hidden where it
lies behind every one of the nine pixels around it.

Then, for each distortion, the median time of 50 clouds of 200,000 points with four cameras around
the vehicle, from the bytes of the input message to those of the output.
"""

from __future__ import annotations

from collections import Counter
import math
from timeit import repeat

from nightseg_ros.clouds.camera_model import Calibration, CameraModel
from nightseg_ros.clouds.geometry import BODY_FROM_OPTICAL, FrameTree, from_angles, inverse
from nightseg_ros.clouds.painter import Occlusion, paint, View
from nightseg_ros.clouds.point_cloud import Cloud, Field
from nightseg_ros.simulation.drive import calibration, Drive, DriveFrame, places, scan
from nightseg_ros.taxonomy import CAMVID11, UNLABELLED
import numpy as np

MOUNTS = {'camera': (0.0, 0.0), 'right': (0.6, -0.1)}


def measure(sweep: Cloud, frame: DriveFrame, view: View, occlusion: Occlusion) -> Counter[str]:
    """Count points of one sweep and one camera; see the module."""
    points = np.concatenate([sweep.records[name] for name in 'xyz'])
    painted, _, _ = paint(points, [view], occlusion)
    place = view.camera_from_cloud
    x, y, z = place[:3, :3] @ points.astype(np.float64) + place[:3, 3:]
    height, width = frame.labels.shape
    column = np.floor(x / z * view.model.fx + view.model.cx + 0.5).astype(int)
    row = np.floor(y / z * view.model.fy + view.model.cy + 0.5).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    row, column, z = row[inside], column[inside], z[inside]
    painted, true = painted[inside], sweep.records['truth'][0][inside]
    around = np.stack([
        frame.depth[(row + dy).clip(0, height - 1), (column + dx).clip(0, width - 1)]
        for dy in (-1, 0, 1) for dx in (-1, 0, 1)
    ])  # fmt: skip
    depth = frame.depth[row, column]
    seen = np.abs(z - depth) < 0.05 * depth + 0.1
    hidden = z > around.max(0) * 1.05 + 0.5
    named = painted != UNLABELLED
    return Counter({
        'in the image': len(z),
        'seen': int(seen.sum()),
        'right': int((seen & (painted == frame.labels[row, column])).sum()),
        'hidden': int(hidden.sum()),
        'leaked': int((hidden & named).sum()),
        'labelled': int(named.sum()),
        'true': int((named & (painted == true)).sum()),
    })  # fmt: skip


def measure_drive(drive: Drive, every: int, occlusion: Occlusion) -> Counter[str]:
    """Add up every so many frames of a drive."""
    total: Counter[str] = Counter()
    tree = FrameTree()
    for parent, child, matrix in places(MOUNTS):
        tree.add(parent, child, matrix)
    for index in range(0, len(drive), every):
        sweep = scan(drive, index)
        for name, mount in MOUNTS.items():
            frame = drive.frame(index, mount)
            model = CameraModel(calibration(frame.camera), frame.labels.shape)
            place = tree.lookup(name, 'lidar')
            view = View(model=model, labels=frame.labels, camera_from_cloud=place)
            total += measure(sweep, frame, view, occlusion)
    return total


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


def main() -> None:
    """Measure."""
    for cell in (0, 4, 8, 16):
        n = measure_drive(Drive(seed=0, seconds=45, fps=10), 30, Occlusion(cell=cell))
        print(
            f'cells of {cell} pixels: {n["in the image"]} points, {n["seen"]} seen: '
            f'{n["right"] / n["seen"]:.2%} have the label of their pixel; {n["hidden"]} hidden: '
            f'{n["leaked"] / n["hidden"]:.1%} got a label; of all labels '
            f'{n["true"] / n["labelled"]:.1%} are what the point is'
        )
    cloud, palette, occlusion = spinning(), CAMVID11.palette(), Occlusion()
    for name, (model, d) in DISTORTIONS.items():
        around = views(model, d)

        def label(around: list[View] = around) -> Cloud:
            labels, confidence, _ = paint(cloud.xyz(), around, occlusion)
            return cloud.with_labels(labels, confidence, palette)

        print(f'{name:30} {1e3 * np.median(repeat(label, number=1, repeat=51)[1:]):7.2f} ms')


if __name__ == '__main__':
    main()
