# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A night→day translator ready to run."""

from __future__ import annotations

from typing import Any

from nightseg_ros.runtime.backend import Backend, Say
from nightseg_ros.weights import Weights, WeightsError


class Translator:
    """uint8 [B, h, w, 3] RGB at night → the same scene by day (the paper's method 1)."""

    def __init__(self, weights: Weights, backend: Backend, say: Say) -> None:
        """Load the weights; ``WeightsError`` where they are no translator's."""
        if weights.metadata.task != 'translate':
            raise WeightsError(
                f"weights '{weights.path}' are for '{weights.metadata.task}'; "
                'a translator is wanted'
            )
        self.weights = weights.described()
        self._run = backend.load(weights, say)

    def __call__(self, images: Any) -> Any:
        """Return uint8 [B, h, w, 3] on the same device."""
        return self._run(images)[0]
