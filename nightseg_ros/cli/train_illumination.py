# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg train illumination``."""

from __future__ import annotations

from nightseg_ros.training.illumination import IlluminationConfig, train_illumination

CONFIG = IlluminationConfig


def run(config: IlluminationConfig) -> int:
    """Train and write the weights."""
    sha256 = train_illumination(config, say=print)
    print(f"weights: '{config.out}', SHA-256 {sha256}")
    return 0
