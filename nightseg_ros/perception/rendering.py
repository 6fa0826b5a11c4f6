# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The one place that colours a mask and draws it over a picture."""

from __future__ import annotations

from typing import Any

from nightseg_ros.perception.frame import Frame
from nightseg_ros.runtime.pixels import Pixels
from nightseg_ros.taxonomy import Taxonomy


class Renderer:
    """Colours by a taxonomy, on the device where the labels are."""

    def __init__(self, taxonomy: Taxonomy, pixels: Pixels) -> None:
        """Take the palette of ``taxonomy``."""
        self._palette = taxonomy.palette()
        self._pixels = pixels

    def color(self, labels: Any) -> Any:
        """uint8 [H, W] ids → uint8 [H, W, 3] RGB, unlabelled pixels black."""
        return self._pixels.colorize(labels, self._palette)

    def overlay(self, frame: Frame, color: Any, alpha: float) -> Any:
        """Mix ``alpha`` (0–1) of the colours into the frame: uint8 [H, W, 3] RGB."""
        return self._pixels.blend(frame.image, frame.order, color, alpha)
