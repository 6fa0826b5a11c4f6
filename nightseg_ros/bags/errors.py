# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a bag."""

from __future__ import annotations

from nightseg_ros.perception.frame import FrameError


class BagError(ValueError):
    """A bag that cannot be read or written; the message names the file, the topic and the fix."""


class BagLoss(FrameError):
    """What a damaged bag did not give: the one last item of its frames, for any number of them."""
