# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg train soup``."""

from __future__ import annotations

from nightseg_ros.training.run import SoupConfig, write_soup

CONFIG = SoupConfig


def run(config: SoupConfig) -> int:
    """Average the weights."""
    print(f"weights: '{write_soup(config)}'")
    return 0
