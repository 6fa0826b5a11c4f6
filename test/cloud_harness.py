# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""semantic_cloud as a process, its parameters in the tests, and messages for it."""

from __future__ import annotations

import array
import math
from typing import Any

from cloud_samples import looking
from nightseg_ros.clouds.geometry import as_text, from_angles
from nightseg_ros.clouds.point_cloud import Cloud
import numpy as np
from ros_harness import NodeProcess, stamp
from sensor_msgs.msg import CameraInfo, PointCloud2, PointField

OUT = 'lidar/nightseg/points'
TRANSFORMS = [
    as_text('base_link', 'lidar', from_angles((0, 0, 1), (0, 0, 0))),
    as_text('base_link', 'front_optical', looking(0.0, z=1.0)),
    as_text('base_link', 'left_optical', looking(math.pi / 2, z=1.0)),
]
PARAMETERS = {
    'cameras': ['front', 'left'], 'transforms': TRANSFORMS, 'use_tf': False, 'confidence': False,
    'occlusion.cell': 0.0, 'max_wait': 0.5,
}  # fmt: skip


def cloud_message(given: Cloud, stamp_ns: int, frame_id: str = 'lidar') -> PointCloud2:
    message = PointCloud2(
        height=given.height, width=given.width, point_step=given.point_step,
        row_step=given.row_step, is_bigendian=given.is_bigendian, is_dense=given.is_dense,
        fields=[PointField(name=f.name, offset=f.offset, datatype=f.datatype, count=f.count)
                for f in given.fields],
    )  # fmt: skip
    message.data = array.array('B', given.data.tobytes())
    return stamp(message, stamp_ns, frame_id)


def info_message(given: Any, stamp_ns: int = 1, frame_id: str = 'front_optical') -> CameraInfo:
    message = CameraInfo(
        width=given.width, height=given.height, distortion_model=given.distortion_model,
        d=given.d, k=np.array(given.k, float), p=[0.0] * 12,
    )  # fmt: skip
    return stamp(message, stamp_ns, frame_id)


class CloudProcess(NodeProcess):
    name = 'semantic_cloud'
    command = ('-m', 'nightseg_ros.node.semantic_cloud')
