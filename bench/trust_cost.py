# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Milliseconds that the reliability adds to a frame: ``python bench/trust_cost.py [ROUNDS]``.

The day segmenter with and without its ``reliability.*`` tensors takes turns on OpenVINO at the
network's own size, so that a busy machine slows both alike.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time

import numpy as np

from nightseg_ros.runtime.backends import OpenVINOBackend
from nightseg_ros.runtime.pixels import fit
from nightseg_ros.weights import load_weights, network_tensors


def main(rounds: int) -> None:
    """Measure and print medians and their difference."""
    weights = load_weights('day')
    # the cache of graphs goes by the hash
    plain = dataclasses.replace(weights, sha256='0' * 64, tensors=network_tensors(weights.tensors))
    size = fit(720, 1280, weights.metadata.long_side)
    images = np.random.default_rng(0).integers(0, 256, (1, *size.padded, 3), dtype=np.uint8)
    runs = {
        name: OpenVINOBackend().load(some, print)
        for name, some in (('with', weights), ('without', plain))
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 3):
        for name, run in runs.items():
            started = time.perf_counter()
            run(images)
            if turn >= 3:
                times[name].append((time.perf_counter() - started) * 1e3)
    gaps = [a - b for a, b in zip(times['with'], times['without'])]
    for name, values in times.items():
        print(f'{name}: median {statistics.median(values):.2f} ms, best {min(values):.2f} ms')
    print(f'median of the paired differences: {statistics.median(gaps):+.2f} ms')


if __name__ == '__main__':
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
