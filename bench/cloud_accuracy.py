# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
How right the labels on points are, on rendered drives whose surfaces are known exactly.

``python bench/cloud_accuracy.py [CELL…]`` labels the LiDAR sweeps of a drive by the true masks of
two cameras that stand apart from it, for each size of the z-buffer's cells in pixels (4 without).
What a camera really sees is taken from its rendered depth: a point is seen where its own depth is
that of its pixel, and hidden where it lies behind every one of the nine pixels around it.
"""

from __future__ import annotations

from collections import Counter
import sys

from nightseg_ros.clouds.camera_model import CameraModel
from nightseg_ros.clouds.geometry import FrameTree
from nightseg_ros.clouds.painter import Occlusion, paint, View
from nightseg_ros.simulation.drive import calibration, Drive, DriveFrame, places, Scan, scan
from nightseg_ros.taxonomy import UNLABELLED
import numpy as np

MOUNTS = {'camera': (0.0, 0.0), 'right': (0.6, -0.1)}


def measure(sweep: Scan, frame: DriveFrame, view: View, occlusion: Occlusion) -> Counter[str]:
    """Count points of one sweep and one camera; see the module."""
    painted, _, _ = paint(np.ascontiguousarray(sweep.points.T), [view], occlusion)
    place = view.camera_from_cloud
    x, y, z = place[:3, :3] @ sweep.points.T.astype(np.float64) + place[:3, 3:]
    height, width = frame.labels.shape
    column = np.floor(x / z * view.model.fx + view.model.cx + 0.5).astype(int)
    row = np.floor(y / z * view.model.fy + view.model.cy + 0.5).astype(int)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    row, column, z = row[inside], column[inside], z[inside]
    painted, true = painted[inside], sweep.labels[inside]
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


def main() -> None:
    """Measure."""
    for cell in map(float, sys.argv[1:] or ['4']):
        drive = Drive(seed=0, seconds=45, fps=10)
        n = measure_drive(drive, 30, Occlusion(cell=cell))
        print(
            f'cells of {cell:g} pixels: {n["in the image"]} points, {n["seen"]} seen: '
            f'{n["right"] / n["seen"]:.2%} have the label of their pixel; {n["hidden"]} hidden: '
            f'{n["leaked"] / n["hidden"]:.1%} got a label; of all labels '
            f'{n["true"] / n["labelled"]:.1%} are what the point is'
        )


if __name__ == '__main__':
    main()
