# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What OpenVINO's coarser arithmetic changes on real frames, and the time that it saves.

``python bench/precision.py WEIGHTS [FOLDER…]`` takes every eighth image of each folder, and for
the time one image at the weights' own size and one at 480 pixels, 16:9. The
candidates take turns, with two threads and with one.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np

from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import read_image
from nightseg_ros.runtime.backend import Network
from nightseg_ros.runtime.backends import FLOAT32_LAYERS, OnnxBackend, OpenVINOBackend
from nightseg_ros.runtime.pixels import HostPixels, fit
from nightseg_ros.weights import Weights, load_weights

ROUNDS = 40


def main() -> None:
    """Print the agreement by folder, then the times."""
    name, *folders = sys.argv[1:]
    weights = load_weights(name)
    exact, *coarse = candidates(weights, 0).items()
    pixels = HostPixels()
    for folder in folders:
        images = [read_image(s.image) for s in open_dataset(f'images:{folder}')[::8]]
        sizes = [fit(*image.shape[:2], weights.metadata.long_side) for image in images]
        batches = [pixels.shrink(i, 'rgb', s)[None] for i, s in zip(images, sizes)]
        wanted = [exact[1](batch)[0] for batch in batches]
        for title, run in coarse:
            shares = [(run(b)[0] == labels).mean() for b, labels in zip(batches, wanted)]
            print(
                f'{weights.path.stem}, {Path(folder)}, {len(shares)} frames, {title}: '
                f'mean {np.mean(shares):.4f}, worst {np.min(shares):.4f}'
            )
    for threads in (2, 1):
        for side in sorted({480, weights.metadata.long_side}):
            print_times(candidates(weights, threads), side, threads)


def candidates(weights: Weights, threads: int) -> dict[str, Network]:
    """Return the runs by name, the exact one first."""
    backends = {
        'OpenVINO f32': OpenVINOBackend(threads),
        'onnxruntime f32': OnnxBackend(threads),
        **{
            f'OpenVINO bf16 behind {exact} convolutions': OpenVINOBackend(threads, 'bf16', exact)
            for exact in (0, 3, FLOAT32_LAYERS)
        },
    }
    return {title: backend.load(weights, print) for title, backend in backends.items()}


def print_times(runs: dict[str, Network], side: int, threads: int) -> None:
    """Let the candidates take turns on one image."""
    size = fit(720, 1280, side).padded
    image = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    times: dict[str, list[float]] = {title: [] for title in runs}
    for run in runs.values():
        run(image)
    for _ in range(ROUNDS):
        for title, run in runs.items():
            began = time.perf_counter()
            run(image)
            times[title].append((time.perf_counter() - began) * 1e3)
    for title, values in times.items():
        print(
            f'{side}, {threads} threads, {title}: least {min(values):.1f} ms, '
            f'median {statistics.median(values):.1f} ms'
        )


if __name__ == '__main__':
    main()
