# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg train pseudo_labels``."""

from __future__ import annotations

from nightseg_ros.training.pseudo_labels import PseudoLabelConfig, write_pseudo_labels

CONFIG = PseudoLabelConfig


def run(config: PseudoLabelConfig) -> int:
    """Label every frame."""
    print(f"labels: '{write_pseudo_labels(config)}'")
    return 0
