# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The ROS 2 processes; the only place that imports rclpy."""
