# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Every parameter of semantic_cloud, in one table.

``python -m nightseg_ros.node.clouds.parameters yaml`` prints ``config/semantic_cloud.yaml``, with
``markdown`` the table of docs/clouds.md.
"""

from __future__ import annotations

import sys

from nightseg_ros.clouds.painter import PaintConfig
from nightseg_ros.node.parameters import Parameter, markdown, yaml_text

ODOMETRY_TYPES = ('nav_msgs/Odometry', 'geometry_msgs/PoseStamped')
_DEFAULT = PaintConfig(cameras=())

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(name='autostart', default=True,
              text='configure and activate without being asked; false waits for a lifecycle '
                   'manager'),
    Parameter(name='cameras', default=('camera',),
              text='cameras whose labels are read from <camera>/nightseg/labels; of equal '
                   'confidence the first wins'),
    Parameter(name='info_topics', default=('',),
              text="topics of the cameras' calibration, one a camera, where it is not "
                   '<camera>/camera_info'),
    Parameter(name='sensors', default=('lidar',),
              text='LiDARs, each read from <sensor>/points and published on '
                   '<sensor>/nightseg/points'),
    Parameter(name='sensor_topics', default=('',),
              text='their topics, one a sensor, where they are named otherwise'),
    Parameter(name='depth_cameras', default=('',),
              text='those of the cameras that have a registered depth image, read from '
                   '<camera>/depth/image_raw and published as points on <camera>/nightseg/points'),
    Parameter(name='depth_topics', default=('',),
              text='topics of the depth images, one a depth camera, where they are named '
                   'otherwise'),
    Parameter(name='confidence', default=_DEFAULT.confidence,
              text='read <camera>/nightseg/confidence as well; without it the order of the '
                   'cameras decides'),
    Parameter(name='rectified', default=_DEFAULT.rectified,
              text='the labels are of rectified images: P of the calibration counts, without '
                   'distortion'),
    Parameter(name='qos_reliability', default='auto', choices=('auto', 'reliable', 'best_effort'),
              text='reliability of the subscriptions; auto does as each publisher does'),
    Parameter(name='transforms', default=('',),
              text="places that count before tf: 'PARENT CHILD X Y Z ROLL PITCH YAW' or '... QX "
                   "QY QZ QW' in metres and radians"),
    Parameter(name='use_tf', default=True, text='ask tf2 for the other places, where installed'),
    Parameter(name='odometry', default='',
              text="topic of the vehicle's poses, to make good what it moved between mask and "
                   "cloud; '' for none"),
    Parameter(name='odometry_type', default=ODOMETRY_TYPES[0], choices=ODOMETRY_TYPES,
              text='type of the poses'),
    Parameter(name='base_frame', default=_DEFAULT.base_frame,
              text='frame that the poses are those of'),
    Parameter(name='pair_limit', default=_DEFAULT.pair_limit, low=0, high=10,
              text='seconds by which the stamps of a mask and a cloud may differ'),
    Parameter(name='max_wait', default=_DEFAULT.max_wait, low=0, high=10,
              text='seconds that a cloud waits for masks as new as itself'),
    Parameter(name='occlusion.cell', default=_DEFAULT.occlusion.cell, low=0, high=200,
              dynamic=True,
              text='side of a cell of the z-buffer in pixels, about the distance of two points '
                   'in the image; 0 hides nothing'),
    Parameter(name='occlusion.clearance', default=_DEFAULT.occlusion.clearance, low=0.01,
              high=100, dynamic=True,
              text='surfaces that pass the camera closer than this (m) may hide parts of '
                   'themselves'),
    Parameter(name='max_rate', default=0.0, low=0, high=1000, dynamic=True,
              text='clouds a second of each sensor to serve at most; 0 serves all'),
    Parameter(name='silent_after', default=1.2, low=0.1, high=60, dynamic=True,
              text='seconds without a cloud, or without a mask, after which that is reported'),
)  # fmt: skip

if __name__ == '__main__':
    if sys.argv[1:] not in (['yaml'], ['markdown']):
        sys.exit('usage: python -m nightseg_ros.node.clouds.parameters yaml|markdown')
    text = yaml_text(PARAMETERS, 'semantic_cloud', 'clouds.parameters')
    sys.stdout.write(text if sys.argv[1] == 'yaml' else markdown(PARAMETERS))
