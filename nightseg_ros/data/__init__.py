# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Data; here the settings of ``nightseg synthesize``.

Its help shows these, and is quick only as long as nothing here imports numpy or torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from nightseg_ros.config import Limited, Limits, Natural


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthesisConfig(Limited):
    """Turn labelled day images into synthetic night; 'folder:OUT:night' reads the result."""

    data: tuple[str, ...]
    """Labelled day images, ADAPTER:ROOT[:SPLIT]."""
    out: str
    """Folder to write: images/, labels/ and manifest.json."""
    ratio: float | None = None
    """Share of the images to convert, above 0 to 1; give this or 'count'."""
    count: Annotated[int | None, Limits(1)] = None
    """Number of images to convert."""
    method: Literal['physical', 'generator'] = 'physical'
    """'physical' relights by a model, 'generator' runs a trained one."""
    weights: str = ''
    """Day→night weights for 'generator'."""
    styles: tuple[str, ...] = ()
    """Cameras whose nights are drawn from, for a generator that knows several; none: any."""
    taxonomy: str = 'camvid11'
    """What the label ids mean."""
    seed: int = 0
    """Another seed, other images and other nights."""
    night: dict[str, Any] = field(default_factory=dict)
    """Looks of the physical model, a mapping as ``NightConfig`` has it."""
    long_side: Natural = 0
    """Long side of the generator's input in pixels; 0: what it was trained at."""
    backend: Literal['auto', 'torch', 'onnxruntime', 'openvino'] = 'auto'
    """What runs the generator."""
    device: Literal['auto', 'cpu', 'cuda'] = 'auto'
    """Where it runs."""
    quality: Annotated[int, Limits(1, 100)] = 95
    """JPEG quality of the result."""
    force: bool = False
    """Replace the folder, also one that was made with other settings."""

    def __post_init__(self) -> None:
        Limited.__post_init__(self)
        if self.ratio is not None and self.count is not None:
            raise ValueError("'ratio' and 'count' say the same; give one of them")
        if self.ratio is not None and not 0.0 < self.ratio <= 1.0:
            raise ValueError(f"'ratio' is a share above 0 and at most 1, got {self.ratio}")
        if (self.method == 'generator') != bool(self.weights):
            raise ValueError("'weights' and the method 'generator' belong together")
