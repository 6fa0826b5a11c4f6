# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A segmenter ready to run: weights on a backend, and what its labels mean."""

from __future__ import annotations

from typing import Any

from nightseg_ros.runtime.backend import Backend, Say
from nightseg_ros.taxonomy import Taxonomy
from nightseg_ros.weights import Weights, WeightsError, has_trust


class Segmenter:
    """uint8 [B, h, w, 3] RGB on the backend's device → labels, confidence, reliability."""

    def __init__(self, weights: Weights, backend: Backend, say: Say) -> None:
        """Load the weights; ``WeightsError`` where they are no segmenter's."""
        metadata = weights.metadata
        if metadata.task != 'segment' or metadata.taxonomy is None:
            raise WeightsError(
                f"weights '{weights.path}' are for '{metadata.task}' and cannot label pixels; "
                'a segmenter with its taxonomy is wanted'
            )
        self.weights = weights.described()
        #: Whether the weights have learnt to judge whole frames; see ``nightseg calibrate``.
        self.judges = has_trust(weights)
        self.taxonomy = Taxonomy.from_dict(metadata.taxonomy)
        self._run = backend.load(weights, say)

    def __call__(self, images: Any) -> tuple[Any, Any, Any]:
        """
        Return ids, confidence (255 = certain), both uint8 [B, h / 2, w / 2], and reliability.

        The reliability is float [B], 0 to 1: see ``runtime.graph.SegmentGraph``.
        """
        labels, confidence, reliability = self._run(images)
        return labels, confidence, reliability

    def describe(self) -> dict[str, str]:
        """Return how confidence and reliability of these weights came about."""
        temperature = self.weights.metadata.temperature
        return {
            'temperature': f'{temperature:.3f}' if temperature != 1 else 'not calibrated',
            'reliability': 'fitted' if self.judges else 'mean confidence',
        }
