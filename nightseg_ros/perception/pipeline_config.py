# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Settings of a pipeline: weights, routes, backend, sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nightseg_ros.perception.router import RouterConfig

Route = Literal['auto', 'day', 'night', 'translate']


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsConfig:
    """Which weights serve which route: a path, the name of a shipped file, or '' for none."""

    day: str = 'day'
    night: str = 'night'
    translator: str = ''
    illumination: str = 'illumination'


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineConfig:
    """Everything that decides which label a pixel gets."""

    route: Route = 'auto'
    """'auto' follows the illumination; the others are always taken."""
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    router: RouterConfig = field(default_factory=RouterConfig)
    backend: str = 'auto'
    device: str = 'auto'
    threads: int = 0
    """CPU threads of the backend; 0 leaves the number to it."""
    long_side: int = 0
    """Long side of the network's input in pixels; 0 takes what the weights were trained at."""
    overlay_alpha: float = 0.5
    """How much of the colours the overlay shows, 0 to 1."""
    overlay_route: bool = True
    """Write state and route into the upper left corner of the overlay."""

    def __post_init__(self) -> None:
        """Refuse values out of range, naming them."""
        if self.route not in ('auto', 'day', 'night', 'translate'):
            raise ValueError(f"route is auto, day, night or translate, got '{self.route}'")
        if self.long_side and not 64 <= self.long_side <= 4096:
            raise ValueError(f'long_side is 0 or 64 to 4096 pixels, got {self.long_side}')
        if not 0 <= self.overlay_alpha <= 1:
            raise ValueError(f'overlay_alpha is 0 to 1, got {self.overlay_alpha}')
        if self.threads < 0:
            raise ValueError(f'threads must not be negative, got {self.threads}')
