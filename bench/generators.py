# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Milliseconds a 480-wide frame of the generators, beside the default segmenter.

Random weights: the time does not depend on them. All candidates take turns, round by round, so
that a busy machine slows them alike; figures are the fastest and the median round.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from nightseg_ros.networks import build
from nightseg_ros.runtime.backends import OnnxBackend, OpenVINOBackend
from nightseg_ros.runtime.pixels import fit
from nightseg_ros.taxonomy import CAMVID11
from nightseg_ros.weights import WeightsMetadata, load_weights, save_weights

#: Network, its arguments, and how many rounds it takes part in: the large one is slow.
CANDIDATES: dict[str, tuple[str, dict[str, Any], int]] = {
    'lite_segmenter': ('lite_segmenter', {'classes': len(CAMVID11)}, 60),
    'fast_generator': ('fast_generator', {}, 60),
    'resnet_generator, ngf 16, 4 blocks': ('resnet_generator', {'ngf': 16, 'blocks': 4}, 10),
    'resnet_generator, ngf 64, 9 blocks': ('resnet_generator', {}, 2),
}


def main() -> None:
    """Measure and print the table."""
    size = fit(720, 1280, 480)
    images = np.random.default_rng(0).integers(0, 256, (1, *size.padded, 3), dtype=np.uint8)
    backends = {'onnxruntime f32': OnnxBackend(), 'openvino f32': OpenVINOBackend()}
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (network, arch, rounds) in CANDIDATES.items():
            segments = network == 'lite_segmenter'
            metadata = WeightsMetadata(
                network=network, arch=arch, task='segment' if segments else 'translate',
                taxonomy=CAMVID11.to_dict() if segments else None,
            )  # fmt: skip
            path = Path(folder) / f'{len(runs)}.safetensors'
            save_weights(path, build(network, **arch).state_dict(), metadata)
            for backend_name, backend in backends.items():
                run = backend.load(load_weights(path), lambda text: None)
                run(images)
                runs[name, backend_name] = (run, rounds)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for turn in range(max(rounds for _, rounds in runs.values())):
        for key, (run, rounds) in runs.items():
            if turn < rounds:
                started = time.perf_counter()
                run(images)
                times[key].append((time.perf_counter() - started) * 1e3)
    table = Table(title=f'ms a frame of {size.padded[1]}×{size.padded[0]}: fastest / median')
    table.add_column('network')
    for name in backends:
        table.add_column(name, justify='right')
    for name in CANDIDATES:
        row = [times[name, backend] for backend in backends]
        table.add_row(name, *(f'{min(v):.1f} / {statistics.median(v):.1f}' for v in row))
    Console().print(table)


if __name__ == '__main__':
    main()
