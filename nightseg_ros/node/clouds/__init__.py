# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The node semantic_cloud: labels of cameras on the points of LiDARs and depth cameras."""
