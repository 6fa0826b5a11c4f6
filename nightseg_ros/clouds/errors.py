# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The one error of this room."""

from __future__ import annotations


class CloudError(ValueError):
    """A cloud, image, calibration, transform or pose that cannot be used, and why."""
