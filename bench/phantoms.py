# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Persons where there are none: the share of a motorway clip labelled pedestrian or bicyclist.

python bench/phantoms.py CLIP [--route night] [--weights night …] [--every 10] [--backend openvino]

Nobody walks on `clips/night.mp4`, an unlit motorway, so that every such pixel is wrong. A row for
each weights: mean share of the pixels, share of the frames with any, and the most in one frame.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Literal

from nightseg_ros.data.source import open_source
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig
import numpy as np
import tyro


def main(
    clip: Path, /, *, route: Literal['day', 'night', 'translate'] = 'night',
    weights: tuple[str, ...] = ('night',), every: int = 10, backend: str = 'openvino',
) -> None:  # fmt: skip
    """Print the table."""
    print('weights,frames,mean_share,frames_with_any,most')
    for name in weights:
        pipeline = Pipeline.load(PipelineConfig(
            route=route, backend=backend, threads=1, weights=WeightsConfig(night=name)
        ))  # fmt: skip
        persons = [pipeline.taxonomy.id_of(person) for person in ('pedestrian', 'bicyclist')]
        shares = []
        for _, frame in islice(open_source(clip), 0, None, every):
            if isinstance(frame, Exception):
                raise frame
            [result] = pipeline.process([frame])
            shares.append(np.isin(result.labels, persons).mean())
        found = np.array(shares)
        text = f'{found.mean():.4f},{(found > 0).mean():.3f},{found.max():.4f}'
        print(f'{name},{len(found)},{text}')


if __name__ == '__main__':
    tyro.cli(main)
