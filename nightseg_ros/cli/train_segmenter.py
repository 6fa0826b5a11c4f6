# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg train segmenter``."""

from __future__ import annotations

from nightseg_ros.training.segmenter import SegmenterConfig, train_segmenter

CONFIG = SegmenterConfig


def run(config: SegmenterConfig) -> int:
    """Train, or go on with a run that was interrupted."""
    print(f"weights: '{train_segmenter(config)}'")
    return 0
