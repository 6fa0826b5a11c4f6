# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Data; here the settings of ``nightseg synthesize`` and ``nightseg paint``.

Its help shows these, and is quick only as long as nothing here imports numpy or torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from nightseg_ros.config import ConfigError, Limited, Limits, Natural

#: What ``nightseg bag predict`` adds below <camera>/nightseg/.
Output = Literal[
    'labels', 'confidence', 'color', 'overlay', 'overlay/compressed', 'translated',
    'illumination', 'status', 'label_info_json',
]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthesisConfig(Limited):
    """Turn labelled day images into synthetic night; 'folder:OUT:night' reads the result."""

    data: tuple[str, ...]
    """Labelled day images, ADAPTER:ROOT[:SPLIT]; what is known as dusk or night is left out."""
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
    seed: Natural = 0
    """Another seed, other images and other nights."""
    night: dict[str, Any] = field(default_factory=dict)
    """Settings of the physical model, a mapping as ``NightConfig`` has it."""
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
        if self.styles and not self.weights:
            raise ValueError("'styles' are those of a generator: leave them out, or give one")


@dataclass(frozen=True, kw_only=True, slots=True)
class PaintSettings(Limited):
    """What of a bag is painted, and how."""

    sensors: tuple[str, ...] = ()
    """Topics of clouds; without them all of the bag."""
    depth: tuple[str, ...] = ()
    """Registered depth images as CAMERA=TOPIC."""
    transforms: tuple[str, ...] = ()
    """Places beside /tf_static: "PARENT CHILD X Y Z ROLL PITCH YAW" or "… QX QY QZ QW"."""
    odometry: str = ''
    """Topic of poses (Odometry, PoseStamped), to make good the motion between mask and cloud."""
    base_frame: str = 'base_link'
    """What the poses are those of."""
    pair_limit: Annotated[float, Limits(0, 10)] = 0.1
    """Seconds by which the stamps of mask and cloud may differ."""
    rectified: bool = False
    """The labels are of rectified images."""
    occlusion_cell: Annotated[float, Limits(0, 200)] = 4.0
    """Side of a cell of the z-buffer in pixels of the labels; 0 hides nothing."""
    occlusion_clearance: Annotated[float, Limits(0.01, 100)] = 0.75
    """Surfaces that pass a camera closer than this (m) may hide parts of themselves."""

    def depth_topics(self) -> dict[str, str]:
        """Return the topics of registered depth images by camera; ``ConfigError``."""
        pairs = [text.partition('=') for text in self.depth]
        if not all(camera and topic for camera, _, topic in pairs):
            raise ConfigError(f'--depth takes CAMERA=TOPIC, got {" ".join(self.depth)}')
        return {camera.strip('/'): topic for camera, _, topic in pairs}
