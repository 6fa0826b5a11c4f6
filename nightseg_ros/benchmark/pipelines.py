# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The pipeline without ROS, by backend, size, route and number of cameras, all in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nightseg_ros.benchmark.spread import percentiles
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, Route, WeightsConfig
from nightseg_ros.perception.result import Want
from nightseg_ros.runtime.backend import BackendError
from nightseg_ros.weights import WeightsError

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """One way to run the pipeline."""

    backend: str
    size: tuple[int, int] = (1280, 720)
    """Width and height of the cameras."""
    route: Route = 'night'
    cameras: int = 1
    draw: bool = False
    """Whether every picture of a frame is wanted, and not its labels alone."""


def setups(backend: str, backends: Sequence[str]) -> list[Setup]:
    """Return what is compared: ``backend``, varied in one thing at a time, and ``backends``."""
    base = Setup(backend=backend)
    return [
        base,
        *(replace(base, backend=name) for name in backends if name != backend),
        replace(base, size=(640, 360)),
        replace(base, size=(1920, 1080)),
        replace(base, route='day'),
        replace(base, route='translate'),
        replace(base, cameras=8),
        replace(base, draw=True),
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """What one setup took."""

    setup: Setup
    batch_ms: list[float]
    """Milliseconds of each round's batch, one frame of each camera."""
    stages_ms: dict[str, list[float]]
    """Milliseconds of each frame, by stage."""
    description: dict[str, Any] = field(default_factory=dict)
    """``Pipeline.describe()``: what ran."""

    def summary(self) -> dict[str, Any]:
        """Return the setup with percentiles, as ``bench.json`` holds it."""
        return {
            **asdict(self.setup),
            'ran_on': self.description.get('backend', ''),
            'batch_ms': percentiles(self.batch_ms),
            'stages_ms': {name: percentiles(ms) for name, ms in self.stages_ms.items()},
        }


def measure(
    candidates: Sequence[Setup],
    images: Images,
    rounds: int,
    say: Callable[[str], None],
    *,
    weights: WeightsConfig | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Times]:
    """
    Let every setup label a frame of each of its cameras, ``rounds`` times, in turns.

    ``images`` are uint8 [N, H, W, 3] RGB and are scaled to each setup's size. ``clock`` gives
    seconds. A backend that cannot run is left out and said, unless it is the first setup's.
    """
    names = weights or WeightsConfig(translator='translator')
    pipelines: dict[tuple[str, str], Pipeline] = {}
    found = []
    for setup in candidates:
        key = (setup.backend, setup.route)
        if key not in pipelines:
            config = PipelineConfig(route=setup.route, backend=setup.backend, weights=names)
            try:
                pipelines[key] = Pipeline.load(config, say=say)
            except (BackendError, WeightsError) as error:
                # an int8 network or a GPU that is not there is no reason to measure nothing
                if setup.backend == candidates[0].backend:
                    raise
                say(f'{setup.backend} is not measured: {error}')
                continue
        pipelines[key].warm_up([setup.size[::-1]])
        description = pipelines[key].describe()
        found.append(Times(setup=setup, batch_ms=[], stages_ms={}, description=description))
    scaled = {
        setup.size: [
            np.asarray(cv2.resize(np.asarray(image), setup.size), np.uint8) for image in images
        ]
        for setup in candidates
    }
    everything = Want(confidence=True, color=True, overlay=True)
    for number in range(rounds):
        for times in found:
            setup = times.setup
            pictures = scaled[setup.size]
            frames = [
                Frame(
                    image=pictures[(number + index) % len(pictures)],
                    stamp_ns=(number + 1) * 100_000_000,
                    camera=f'{setup.size}{setup.draw}{setup.cameras}/{index}',
                )
                for index in range(setup.cameras)
            ]
            began = clock()
            results = pipelines[setup.backend, setup.route].process(
                frames, everything if setup.draw else Want()
            )
            times.batch_ms.append((clock() - began) * 1e3)
            for result in results:
                for stage, ms in result.ms.items():
                    times.stages_ms.setdefault(stage, []).append(ms)
    return found
