# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg train fast_translator``."""

from __future__ import annotations

from nightseg_ros.training.fast_translator import FastTranslatorConfig, train_fast_translator

CONFIG = FastTranslatorConfig


def run(config: FastTranslatorConfig) -> int:
    """Train, or go on with a run that was interrupted."""
    print(f"weights: '{train_fast_translator(config)}'")
    return 0
