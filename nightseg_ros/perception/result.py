# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What is asked of a frame, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.illumination import Illumination
from nightseg_ros.perception.router import Decision

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Want:
    """Which pictures of a frame somebody asked for; nothing else is computed."""

    labels: bool = True
    confidence: bool = False
    color: bool = False
    overlay: bool = False
    translated: bool = False

    def __bool__(self) -> bool:
        """Tell whether a network has to run at all."""
        return any((self.labels, self.confidence, self.color, self.overlay, self.translated))


LABELS_ONLY = Want()


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What became of one frame; pictures that nobody wanted are None."""

    frame: Frame
    illumination: Illumination
    decision: Decision
    labels: Image | None = None
    """uint8 [H, W] ids of the pipeline's taxonomy, the camera's own size."""
    confidence: Image | None = None
    """uint8 [H, W], 0–255: the winning class's softmax."""
    reliability: float | None = None
    """How far the whole mask can be trusted, 0 to 1; None where no network ran."""
    color: Image | None = None
    """uint8 [H, W, 3] RGB."""
    overlay: Image | None = None
    """uint8 [H, W, 3] RGB."""
    translated: Image | None = None
    """uint8 [H, W, 3] RGB; only on the route 'translate'."""
    ms: dict[str, float] = field(default_factory=dict)
    """Milliseconds by stage: estimate, shrink, network, post, render. A batch shares its time."""
