# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg train adabn``."""

from __future__ import annotations

from nightseg_ros.training.adabn import AdaBNConfig, adapt_norm

CONFIG = AdaBNConfig


def run(config: AdaBNConfig) -> int:
    """Adapt the statistics."""
    print(f"weights: '{adapt_norm(config)}'")
    return 0
