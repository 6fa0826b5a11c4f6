# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Labels on points: camera masks painted onto LiDAR clouds and depth images, without ROS."""
