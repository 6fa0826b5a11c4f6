# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Share of labels that OpenVINO in bfloat16 gives as in float32, on real frames.

``python bench/precision.py WEIGHTS FOLDER…`` takes every eighth image of each folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import read_image
from nightseg_ros.runtime.geometry import fit
from nightseg_ros.runtime.openvino_backend import OpenVINOBackend
from nightseg_ros.weights import load_weights


def main() -> None:
    """Print the mean and the worst frame of each folder."""
    name, *folders = sys.argv[1:]
    weights = load_weights(name)
    exact, fast = OpenVINOBackend(precision='f32'), OpenVINOBackend(precision='bf16')
    wanted, got = (backend.load(weights, print) for backend in (exact, fast))
    for folder in folders:
        shares = []
        for sample in open_dataset(f'images:{folder}')[::8]:
            image = read_image(sample.image)
            size = fit(*image.shape[:2], weights.metadata.long_side)
            batch = exact.pixels.stack([exact.pixels.shrink(image, 'rgb', size)])
            shares.append(float((wanted(batch)[0] == got(batch)[0]).mean()))
        mean, worst = np.mean(shares), np.min(shares)
        print(f'{name} {Path(folder)}: {len(shares)} frames, mean {mean:.3f}, worst {worst:.3f}')


if __name__ == '__main__':
    main()
