# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What OpenVINO's bfloat16 changes on real frames; the time that it saves tells `nightseg bench`.

``python bench/precision.py WEIGHTS FOLDER…`` takes every eighth image of each folder and prints
the share of labels that stay as in float32.
"""

from __future__ import annotations

import sys

from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import read_image
from nightseg_ros.runtime.backends import FLOAT32_LAYERS, OpenVINOBackend
from nightseg_ros.runtime.pixels import fit, HostPixels
from nightseg_ros.weights import load_weights
import numpy as np


def main(name: str, *folders: str) -> None:
    """Print the agreement by folder."""
    weights, pixels = load_weights(name), HostPixels()
    exact = OpenVINOBackend().load(weights, print)
    coarse = {
        layers: OpenVINOBackend(bfloat16=True, exact=layers).load(weights, print)
        for layers in (0, FLOAT32_LAYERS)
    }
    for folder in folders:
        images = [read_image(s.image) for s in open_dataset(f'images:{folder}')[::8]]
        sizes = [fit(*image.shape[:2], weights.metadata.long_side) for image in images]
        batches = [pixels.shrink(i, 'rgb', s)[None] for i, s in zip(images, sizes)]
        wanted = [exact(batch)[0] for batch in batches]
        for layers, run in coarse.items():
            same = [(run(b)[0] == labels).mean() for b, labels in zip(batches, wanted)]
            text = f'{len(same)} frames: mean {np.mean(same):.4f}, worst {np.min(same):.4f}'
            print(f'{name}, {folder}, bfloat16 behind {layers} convolutions, {text}')


if __name__ == '__main__':
    main(*sys.argv[1:])
