# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What looking at a frame several times gives a segmenter, and other statistics of BatchNorm.

``python bench/test_time.py DATA WEIGHTS OUT`` prints mIoU9 on dusk and ``night_dev``: of the
network once, of means of its logits over mirror images and sizes, of those with the training
drives' row prior, and of AdaBN on the unlabelled nights. Nothing is trained or chosen by it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import read_image, read_labels
from nightseg_ros.evaluation.metrics import RARE, ConfusionMatrix
from nightseg_ros.taxonomy import CAMVID11
from nightseg_ros.training.pseudo_labels import PseudoLabelConfig, Teacher, row_prior
from nightseg_ros.training.sweep import score
from nightseg_ros.weights import load_weights

SIZES: dict[str, tuple[float, ...]] = {
    'and its mirror image': (1.0,),
    'and both at 0.75 and 1.5 of the size': (0.75, 1.0, 1.5),
}


def main(root: str, weights: str, out: str) -> None:
    """Print a table's rows."""
    sets = [f'camvid:{root}/camvid:dusk', f'folder:{root}/night_dev']
    prior = row_prior(open_dataset(f'camvid:{root}/camvid:day_train'), CAMVID11)
    _print('one look', [_of_cells(weights, spec) for spec in sets])
    for name, scales in SIZES.items():
        for rows, label in ((None, name), (prior, f'{name}, row prior')):
            config = PseudoLabelConfig(data=(), teacher=weights, out=out, scales=scales)
            teacher = Teacher(load_weights(weights), config, rows)
            _print(label, [_looked(teacher, spec) for spec in sets])


def _of_cells(weights: str, spec: str) -> dict[str, float]:
    found = score(Path(weights), spec)
    return {source: values['miou9'] for source, values in found.items()}


def _looked(teacher: Teacher, spec: str) -> dict[str, float]:
    matrices: dict[str, ConfusionMatrix] = {}
    for sample in open_dataset(spec, CAMVID11):
        assert sample.label is not None
        labels, _ = teacher(read_image(sample.image))
        matrix = matrices.setdefault(sample.source, ConfusionMatrix(CAMVID11))
        matrix.add(read_labels(sample.label), labels)
    found = {source: matrix.miou(without=RARE) for source, matrix in sorted(matrices.items())}
    return {**found, 'mean': sum(found.values()) / len(found)}


def _print(name: str, scores: list[dict[str, float]]) -> None:
    dusk, night = scores
    values = {'dusk': dusk['mean'], **night}
    print(f'{name}: ' + ', '.join(f'{k} {v:.3f}' for k, v in values.items()), flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
