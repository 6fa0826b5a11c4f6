# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Settings of ``nightseg synthesize``; light, so that its help is quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

#: Half side of the swapped Fourier square above which ghosts of the reference show.
LARGEST_BETA = 0.02

Method = Literal['physical', 'statistics', 'fourier', 'generator', 'darken']


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthesisConfig:
    """Turn labelled day images into synthetic night; 'folder:OUT:night' reads the result."""

    data: tuple[str, ...]
    """Labelled day images, ADAPTER:ROOT[:SPLIT]."""
    out: str
    """Folder to write: images/, labels/ and manifest.json."""
    ratio: float | None = None
    """Share of the images to convert, above 0 to 1; give this or 'count'."""
    count: int | None = None
    """Number of images to convert."""
    method: Method = 'physical'
    """'physical' relights by a model, 'statistics' and 'fourier' take colours from real night
    frames, 'generator' runs a trained one, 'darken' is a crude baseline."""
    reference: tuple[str, ...] = ()
    """Real night frames for 'statistics' and 'fourier'; labels are used only where they come
    with some."""
    weights: str = ''
    """Day→night weights for 'generator'."""
    styles: tuple[str, ...] = ()
    """Cameras whose nights are drawn from, for a generator that knows several; none: any."""
    taxonomy: str = 'camvid11'
    """What the label ids mean."""
    seed: int = 0
    """Another seed, other images and other nights."""
    beta: tuple[float, float] = (0.005, 0.02)
    """Half side of the Fourier square as a share of the shorter side, at most 0.02."""
    night: dict[str, Any] = field(default_factory=dict)
    """Looks of the physical model, a mapping as ``NightConfig`` has it."""
    long_side: int = 0
    """Long side of the generator's input in pixels; 0: what it was trained at."""
    backend: Literal['auto', 'torch', 'onnxruntime', 'openvino'] = 'auto'
    """What runs the generator."""
    device: Literal['auto', 'cpu', 'cuda'] = 'auto'
    """Where it runs."""
    quality: int = 95
    """JPEG quality of the result, 1 to 100."""
    force: bool = False
    """Replace the folder, also one that was made with other settings."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other, naming them."""
        if self.ratio is not None and self.count is not None:
            raise ValueError("'ratio' and 'count' say the same; give one of them")
        if self.ratio is not None and not 0.0 < self.ratio <= 1.0:
            raise ValueError(f"'ratio' is a share above 0 and at most 1, got {self.ratio}")
        if self.count is not None and self.count < 1:
            raise ValueError(f"'count' must be at least 1, got {self.count}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"'quality' is 1 to 100, got {self.quality}")
        low, high = self.beta
        if not 0.0 <= low <= high <= LARGEST_BETA:
            raise ValueError(f"'beta' is [low, high] within 0 to {LARGEST_BETA}, got {self.beta}")
        if (self.method == 'generator') != bool(self.weights):
            raise ValueError("'weights' and the method 'generator' belong together")
