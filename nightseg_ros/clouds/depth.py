# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A registered depth image as a cloud (REP-118)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nightseg_ros.clouds.camera_model import CameraModel
from nightseg_ros.clouds.errors import CloudError
from nightseg_ros.clouds.plane import read_plane
from nightseg_ros.clouds.point_cloud import Cloud, cloud_of

#: REP-118: 32FC1 is metres, 16UC1 is millimetres with 0 for no measurement.
ENCODINGS = ('16UC1', '32FC1', 'mono16')


def metres(message: Any) -> npt.NDArray[np.float32]:
    """Return float32 [H, W] along the optical axis, NaN where nothing was measured."""
    depth = read_plane(message, ENCODINGS)
    if depth.dtype.kind == 'u':
        result = depth.astype(np.float32)
        result *= np.float32(0.001)
    else:
        result = depth.astype(np.float32)
    # beyond the sensor's range it says infinity
    result[~(result > 0) | np.isinf(result)] = np.nan
    return result


def depth_cloud(depth: npt.NDArray[np.float32], model: CameraModel) -> Cloud:
    """
    Return the points of float32 [H, W] metres in the camera's optical frame, one a pixel.

    ``CloudError`` where the image is of another size than the camera's.
    """
    if depth.shape != (model.height, model.width):
        raise CloudError(
            f'the depth image has {depth.shape[1]}×{depth.shape[0]} pixels, its camera '
            f'{model.width}×{model.height}'
        )
    return cloud_of(np.concatenate([model.rays() * depth, depth[None]]))
