# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
PointCloud2 messages in and out, by sensor_msgs_py where it is installed and does it right.

``read_points`` takes padded rows for points and swaps big-endian bytes within the message that it
was given; ``create_cloud`` knows neither, nor fields that overlap or go back. The view of
``clouds/point_cloud`` does all of it, and the rest to the same bytes (``test_point_cloud2.py``).
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from typing import Any

from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from nightseg_ros.clouds.messages import read_cloud
from nightseg_ros.clouds.painter import LabelledCloud
from nightseg_ros.clouds.point_cloud import Cloud

try:
    sensor_msgs_py: Any = importlib.import_module('sensor_msgs_py.point_cloud2')
except ImportError:
    sensor_msgs_py = None


def read_message(message: PointCloud2) -> Cloud:
    """Return what a message holds without copying its bytes; ``CloudError`` as of ``Cloud``."""
    cloud = read_cloud(message)
    if sensor_msgs_py is None or not plain(cloud):
        return cloud
    return replace(cloud, read=sensor_msgs_py.read_points(message))


def cloud_message(labelled: LabelledCloud) -> PointCloud2:
    """Return the message of a labelled cloud, under the input's stamp and frame."""
    cloud = labelled.cloud
    header = Header(frame_id=labelled.frame_id)
    header.stamp.sec, header.stamp.nanosec = divmod(labelled.stamp_ns, 1_000_000_000)
    fields = [
        PointField(name=f.name, offset=f.offset, datatype=f.datatype, count=f.count)
        for f in cloud.fields
    ]
    if sensor_msgs_py is not None and plain(cloud):
        points = cloud.data.view(sensor_msgs_py.dtype_from_fields(fields))
        message = sensor_msgs_py.create_cloud(header, fields, points)
    else:
        message = PointCloud2(header=header, fields=fields, point_step=cloud.point_step)
        message.data.frombytes(memoryview(cloud.data))
    # create_cloud has organised clouds on their side, and calls none dense
    message.height, message.width = cloud.height, cloud.width
    message.row_step = cloud.row_step
    message.is_bigendian, message.is_dense = cloud.is_bigendian, cloud.is_dense
    return message


def plain(cloud: Cloud) -> bool:
    """Tell whether sensor_msgs_py reads and writes such a cloud rightly."""
    ends = [0, *(field.end for field in cloud.fields)]
    return (
        cloud.is_bigendian == (sys.byteorder == 'big')
        and (cloud.height == 1 or cloud.row_step == cloud.width * cloud.point_step)
        and all(field.count > 0 for field in cloud.fields)
        and all(field.offset >= end for field, end in zip(cloud.fields, ends))
    )
