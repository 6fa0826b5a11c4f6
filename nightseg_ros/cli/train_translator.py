# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg train translator``."""

from __future__ import annotations

from nightseg_ros.training.translator import TranslatorConfig, train_translator

CONFIG = TranslatorConfig


def run(config: TranslatorConfig) -> int:
    """Train, or go on with a run that was interrupted."""
    for path in train_translator(config):
        print(f"weights: '{path}'")
    return 0
