# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Milliseconds of the work around the networks at 720p, as it is done and as it was.

``python bench/host_work.py``. The ways take turns; shown: the least and the median of 100 rounds.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np

from nightseg_ros.perception.illumination import IlluminationEstimator, thumbnail
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig
from nightseg_ros.runtime.pixels import HostPixels, fit
from nightseg_ros.simulation import Street, render
from nightseg_ros.taxonomy import CAMVID11

ROUNDS = 100
SIZE = (1280, 720)


def main() -> None:
    """Measure and print."""
    image = render(Street(1, 'demo'), 5.0, 'night', size=SIZE).image
    pixels, palette = HostPixels(), CAMVID11.palette()
    size = fit(*image.shape[:2], 640)
    estimator = IlluminationEstimator.load('illumination')
    few = np.random.default_rng(0).integers(0, len(CAMVID11), (24, 40), np.uint8)
    half = size.padded[1] // 2, size.padded[0] // 2
    labels = np.asarray(cv2.resize(few, half, interpolation=cv2.INTER_NEAREST), np.uint8)
    height, width = size.labels
    large = pixels.enlarge(labels, size)
    color = pixels.colorize(large, palette)
    ways: dict[str, Callable[[], object]] = {
        'thumbnail': lambda: thumbnail(image),
        'estimate': lambda: estimator.estimate(thumbnail(image)[None]),
        'shrink': lambda: pixels.shrink(image, 'rgb', size),
        'enlarge labels: OpenCV alone': lambda: cv2.resize(
            labels[:height, :width], SIZE, interpolation=cv2.INTER_NEAREST_EXACT
        ),
        'enlarge labels: as it is': lambda: pixels.enlarge(labels, size),
        'colour: the enlarged labels': lambda: pixels.colorize(large, palette),
        'colour: few, then enlarged': lambda: pixels.enlarge(
            pixels.colorize(labels, palette), size
        ),
        'blend': lambda: pixels.blend(image, 'rgb', color, 0.5),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            times[name].append((time.perf_counter() - began) * 1e3)
    for name, ms in times.items():
        print(f'{name:32}{min(ms):7.2f}{statistics.median(ms):7.2f}')
    pipeline = Pipeline.load(PipelineConfig(route='night'))
    for name in ('search for cycles', 'the same, frozen'):
        began = time.perf_counter()
        gc.collect()
        took = (time.perf_counter() - began) * 1e3
        print(f'{name:32}{took:7.2f} of {len(gc.get_objects())} objects')
        gc.freeze()
    assert pipeline.night is not None


if __name__ == '__main__':
    main()
