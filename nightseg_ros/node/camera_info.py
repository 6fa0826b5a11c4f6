# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The camera's calibration, for the labels' size."""

from __future__ import annotations

from typing import Any

from sensor_msgs.msg import CameraInfo, RegionOfInterest


def scaled_info(
    info: Any, image: tuple[int, int], labels: tuple[int, int], header: Any
) -> CameraInfo:
    """
    Return the calibration of the labels of an image; both sizes are (height, width).

    Pixel centres lie at whole numbers, as image_geometry and OpenCV have it. Binning and region
    of interest are worked in where the size changes. ``ValueError`` says where the calibration
    is for another image.
    """
    binning_x, binning_y = max(info.binning_x, 1), max(info.binning_y, 1)
    roi = info.roi
    width, height = roi.width or info.width, roi.height or info.height
    if (height // binning_y, width // binning_x) != image:
        raise ValueError(
            f'camera_info is for {width // binning_x}×{height // binning_y} pixels, the images '
            f'have {image[1]}×{image[0]}: it is not passed on'
        )
    result = CameraInfo(
        header=header,
        height=info.height,
        width=info.width,
        distortion_model=info.distortion_model,
        d=info.d,
        k=info.k,
        r=info.r,
        p=info.p,
        binning_x=info.binning_x,
        binning_y=info.binning_y,
        roi=info.roi,
    )
    if labels == image:
        return result
    sx = labels[1] / (image[1] * binning_x)
    sy = labels[0] / (image[0] * binning_y)

    def move(cx: float, offset: int, scale: float) -> float:
        return (cx - offset + 0.5) * scale - 0.5

    k, p = list(info.k), list(info.p)
    for matrix, width_of in ((k, 3), (p, 4)):
        matrix[0] *= sx
        matrix[1] *= sx
        matrix[2] = move(matrix[2], roi.x_offset, sx)
        matrix[width_of + 1] *= sy
        matrix[width_of + 2] = move(matrix[width_of + 2], roi.y_offset, sy)
    # Tx = -fx' B and Ty are products with the focal lengths
    p[3] *= sx
    p[7] *= sy
    result.k, result.p = k, p
    result.height, result.width = labels
    result.binning_x = result.binning_y = 0
    result.roi = RegionOfInterest()
    return result
