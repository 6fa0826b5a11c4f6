# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What messages say, read by their attributes.

The messages may be those of rclpy or those of a bag's reader: both have the names of the ROS 2
definitions.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from nightseg_ros.clouds.camera_model import Calibration
from nightseg_ros.clouds.errors import CloudError
from nightseg_ros.clouds.point_cloud import Cloud, fields_of
from nightseg_ros.clouds.transform import Matrix, from_pose


def stamp_of(message: Any) -> int:
    """Return the header's stamp in ns."""
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def read_cloud(message: Any) -> Cloud:
    """Return a sensor_msgs/PointCloud2 without copying its bytes; see ``Cloud`` for the errors."""
    return Cloud(
        fields=fields_of(message.fields), height=int(message.height), width=int(message.width),
        point_step=int(message.point_step), row_step=int(message.row_step),
        data=np.frombuffer(message.data, np.uint8), is_bigendian=bool(message.is_bigendian),
        is_dense=bool(message.is_dense),
    )  # fmt: skip


def read_calibration(message: Any) -> Calibration:
    """Return a sensor_msgs/CameraInfo; whether it can be used, ``CameraModel`` says."""
    roi = message.roi
    return Calibration(
        width=int(message.width), height=int(message.height),
        distortion_model=str(message.distortion_model),
        d=tuple(map(float, message.d)), k=tuple(map(float, message.k)),
        p=tuple(map(float, message.p)),
        binning=(int(message.binning_x), int(message.binning_y)),
        roi=(int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height)),
    )  # fmt: skip


def read_pose(message: Any) -> Matrix:
    """Return fixed_from_base of a nav_msgs/Odometry or a geometry_msgs/PoseStamped."""
    pose = getattr(message.pose, 'pose', message.pose)
    return _matrix(pose.position, pose.orientation)


def read_transform(message: Any) -> Matrix:
    """Return parent_from_child of a geometry_msgs/TransformStamped."""
    return _matrix(message.transform.translation, message.transform.rotation)


def read_palette(text: str) -> npt.NDArray[np.uint8]:
    """Return uint8 [256, 3] of the JSON on ``label_info_json``; ``CloudError`` if it is none."""
    palette = np.zeros((256, 3), np.uint8)
    try:
        for entry in json.loads(text)['classes']:
            palette[int(entry['id'])] = entry['color']
    except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        raise CloudError(f'label_info_json cannot be read: {error!r}') from error
    return palette


def _matrix(place: Any, turn: Any) -> Matrix:
    return from_pose((place.x, place.y, place.z), (turn.x, turn.y, turn.z, turn.w))
