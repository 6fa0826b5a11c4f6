# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Persons where there are none: the share of a motorway clip labelled pedestrian or bicyclist.

python bench/phantoms.py CLIP [--weights night …] [--every 10] [--backend openvino]

Nobody walks on `clips/night.mp4`, an unlit motorway, so that every such pixel is wrong. A row for
each weights: mean share of the pixels, share of the frames with any, and the most in one frame.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

from nightseg_ros.data.source import open_source
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig
import numpy as np

PERSONS = ('pedestrian', 'bicyclist')


def phantoms(clip: Path, weights: str, every: int, backend: str) -> list[float]:
    """Return the share of persons in every ``every``-th frame."""
    config = PipelineConfig(
        route='night', backend=backend, threads=1, weights=WeightsConfig(night=weights)
    )
    pipeline = Pipeline.load(config)
    ids = [pipeline.taxonomy.id_of(name) for name in PERSONS]
    shares = []
    for _, frame in islice(open_source(clip), 0, None, every):
        if isinstance(frame, Exception):
            raise frame
        [result] = pipeline.process([frame])
        assert result.labels is not None
        shares.append(float(np.isin(result.labels, ids).mean()))
    return shares


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('clip', type=Path)
    parser.add_argument('--weights', nargs='+', default=['night'])
    parser.add_argument('--every', type=int, default=10)
    parser.add_argument('--backend', default='openvino')
    options = parser.parse_args()
    print('weights,frames,mean_share,frames_with_any,most')
    for weights in options.weights:
        found = np.array(phantoms(options.clip, weights, options.every, options.backend))
        shares = f'{found.mean():.4f},{(found > 0).mean():.3f},{found.max():.4f}'
        print(f'{weights},{len(found)},{shares}')


if __name__ == '__main__':
    main()
