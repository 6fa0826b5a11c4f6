# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Bags of ROS 2 and ROS 1, read and written without ROS."""
