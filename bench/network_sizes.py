# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Milliseconds a frame of the default network by encoder, input size, backend and precision.

Random weights: the time does not depend on them. All candidates take turns, round by round, so
that a busy machine slows them alike; the figure is the median over the rounds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from nightseg_ros.networks import build
from nightseg_ros.runtime.backends import OnnxBackend, OpenVINOBackend
from nightseg_ros.runtime.pixels import fit
from nightseg_ros.runtime.torch_backend import TorchBackend
from nightseg_ros.taxonomy import CAMVID11
from nightseg_ros.weights import WeightsMetadata, load_weights, save_weights

ENCODERS = ('lite0', 'lite1', 'lite2')
SIDES = (384, 480, 640)
ROUNDS = 15


def main() -> None:
    """Measure and print the table."""
    backends = {
        'torch f32': TorchBackend('cpu'),
        'onnxruntime f32': OnnxBackend(),
        'openvino f32': OpenVINOBackend(precision='f32'),
        'openvino bf16': OpenVINOBackend(precision='bf16'),
    }
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        for encoder in ENCODERS:
            arch = {'classes': len(CAMVID11), 'variant': encoder}
            path = Path(folder) / f'{encoder}.safetensors'
            metadata = WeightsMetadata(
                network='lite_segmenter', arch=arch, taxonomy=CAMVID11.to_dict()
            )
            save_weights(path, build('lite_segmenter', **arch).state_dict(), metadata)
            weights = load_weights(path)
            for name, backend in backends.items():
                run = backend.load(weights, lambda text: None)
                for side in SIDES:
                    size = fit(720, 1280, side)
                    images = np.random.default_rng(0).integers(
                        0, 256, (1, *size.padded, 3), dtype=np.uint8
                    )
                    run(images)
                    runs[encoder, side, name] = (run, images)
    times: dict[tuple[str, int, str], list[float]] = {key: [] for key in runs}
    for _ in range(ROUNDS):
        for key, (run, images) in runs.items():
            started = time.perf_counter()
            run(images)
            times[key].append((time.perf_counter() - started) * 1e3)
    table = Table(title='ms a 16:9 frame, network graph only, median')
    for column in ('encoder', 'long side', *backends):
        table.add_column(column, justify='right')
    for encoder in ENCODERS:
        for side in SIDES:
            row = [statistics.median(times[encoder, side, name]) for name in backends]
            table.add_row(encoder, str(side), *(f'{value:.1f}' for value in row))
    Console().print(table)


if __name__ == '__main__':
    main()
