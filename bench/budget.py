# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Accuracy by cost: encoders and widths of the decoder, each trained briefly, at several sizes.

``python bench/budget.py DATA OUT`` prints the rows of docs/results/budget.csv; what was stopped
goes on. The networks learn from CamVid's day_train; the mIoU is that of day_val and dusk by
OpenVINO, the cost that of a 720p frame through the pipeline over the shipped shape's, in turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import median
import time

from nightseg_ros.data.augment import AugmentConfig
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import read_pair
from nightseg_ros.evaluation.metrics import confusion, miou
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig
from nightseg_ros.taxonomy import CAMVID11
from nightseg_ros.training.segmenter import SegmenterConfig, train_segmenter
import numpy as np
import tyro

#: Encoder, and the decoder's widths at strides 8 to 32 and at 4; the first is the shipped shape.
SHAPES = [*product(('lite0', 'lite1', 'lite2'), ((96, 64), (48, 32)))]
SIZES = (640, 512, 480, 384)


def score(network: Pipeline, spec: str) -> float:
    """Return the mIoU of a labelled data set in [0, 1]."""
    counts = []
    for image, truth in map(read_pair, open_dataset(spec)):
        [result] = network.process([Frame(image=image)])
        assert result.labels is not None
        counts.append(confusion(truth, result.labels, CAMVID11))
    return float(miou(np.sum(counts, axis=0)))


def costs(networks: list[Pipeline], rounds: int) -> Iterator[float]:
    """Yield each one's median time over that of the first, both of the same round."""
    frame = Frame(image=np.zeros((720, 1280, 3), np.uint8), order='bgr')
    seconds: list[list[float]] = [[] for _ in networks]
    for turn in range(rounds + 3):
        for network, spent in zip(networks, seconds):
            begun = time.perf_counter()
            network.process([frame])
            # the first ones warm up
            spent += [time.perf_counter() - begun] if turn >= 3 else []
    for spent in seconds:
        yield median(own / first for own, first in zip(spent, seconds[0]))


def main(data: Path, out: Path, /, *, steps: int = 400, rounds: int = 60) -> None:
    """Train every shape, score it at every size, then time all of them."""
    rows, networks = [], []
    for encoder, (width, fine_width) in SHAPES:
        weights = train_segmenter(
            SegmenterConfig(
                data=(f'camvid:{data}/camvid:day_train',),
                arch={'variant': encoder, 'width': width, 'fine_width': fine_width},
                augment=AugmentConfig(long_side=640, crop=(192, 288), scale=(0.5, 1.4)),
                batch=4, steps=steps, rate=2e-3, warm_up=40, average=0.98, balance=0.3,
                long_side=640, precision='32-true', workers=0, checkpoint_every=50,
                out=str(out / f'{encoder}_{width}'),
            )
        )  # fmt: skip
        day = WeightsConfig(day=str(weights))
        for size in SIZES:
            networks.append(Pipeline.load(
                PipelineConfig(route='day', backend='openvino', long_side=size, weights=day)
            ))  # fmt: skip
            sets = (f'camvid:{data}/camvid:{name}' for name in ('day_val', 'dusk'))
            scores = [f'{score(networks[-1], spec):.3f}' for spec in sets]
            rows.append([encoder, width, fine_width, size, *scores])
    print('encoder,width,fine_width,long_side,day_val,dusk,cost')
    for row, cost in zip(rows, costs(networks, rounds)):
        print(*row, f'{cost:.2f}', sep=',')


if __name__ == '__main__':
    tyro.cli(main)
