# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Night-robust semantic segmentation for vehicles: a ROS 2 node and its offline tools."""

__version__ = '0.1.0'
