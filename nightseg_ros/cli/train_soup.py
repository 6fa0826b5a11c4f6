# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg train soup``."""

from __future__ import annotations

from nightseg_ros.training.average import AverageConfig, average_weights

CONFIG = AverageConfig


def run(config: AverageConfig) -> int:
    """Average the weights."""
    print(f"weights: '{average_weights(config)}'")
    return 0
