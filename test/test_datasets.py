# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Data sets by name, and labels made for those that have none."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_weights import write_segmenter

from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import DataError, read_image, read_labels
from nightseg_ros.taxonomy import CAMVID11
from nightseg_ros.training.pseudo_labels import (
    PseudoLabelConfig,
    row_prior,
    write_pseudo_labels,
)


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ('day_train', 'dusk'):
        for stem in ('0001TP_1', '0006R0_2'):
            picture = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            write(tmp_path / split / 'images' / f'{stem}.png', picture)
            write(tmp_path / split / 'labels' / f'{stem}.png', np.full((48, 64), 3, np.uint8))
    return tmp_path


def test_adapters(root: Path) -> None:
    day = open_dataset(f'camvid:{root}:day_train')
    assert [(s.source, s.light) for s in day] == [('0001TP', 'day'), ('0006R0', 'day')]
    assert open_dataset(f'camvid:{root}:dusk')[0].light == 'dusk'
    assert open_dataset(f'folder:{root}/dusk:night')[0].light == 'night'
    plain = open_dataset(f'images:{root}/dusk/images')
    assert all(s.label is None for s in plain) and len(plain) == 2
    (root / 'dusk' / 'labels' / '0001TP_1.png').unlink()
    (pair,) = open_dataset(f'paired:{root}/dusk/images:{root}/dusk/labels:night')
    assert pair.image.stem == '0006R0_2' and pair.light == 'night'


@pytest.mark.parametrize(
    ('spec', 'words'),
    [
        ('camvid', 'ADAPTER:ROOT'),
        ('kitti:x', "'kitti:x' is no data set"),
        ('folder:/nowhere', 'no folder'),
        ('camvid:{root}:night', 'no folder'),
        ('images:{root}', 'no images'),
    ],
)
def test_mistakes_are_named(root: Path, spec: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_dataset(spec.format(root=root))


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / 'torn.png').write_bytes(b'\x89PNG\r\n')
    for read in (read_image, read_labels):
        with pytest.raises(DataError, match=r'torn\.png'):
            read(tmp_path / 'torn.png')
    write(tmp_path / 'color.png', np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DataError, match='single-channel'):
        read_labels(tmp_path / 'color.png')


def test_row_prior_tells_top_from_bottom(tmp_path: Path) -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[20:] = 3
    write(tmp_path / 'images' / 'a.png', np.zeros((40, 60, 3), np.uint8))
    write(tmp_path / 'labels' / 'a.png', labels)
    prior = row_prior(open_dataset(f'folder:{tmp_path}'), CAMVID11)
    assert prior is not None
    sky, road = prior[:, 0], prior[:, 3]
    assert sky[0] > 1 > sky[-1] and road[-1] > 1 > road[0]
    assert row_prior([], CAMVID11) is None


@pytest.mark.parametrize('keep', [0.0, 0.3, 1.0])
def test_pseudo_labels_keep_the_surest_share_of_each_class(root: Path, keep: float) -> None:
    teacher = write_segmenter(root / 'teacher.safetensors')
    config = PseudoLabelConfig(
        data=(f'images:{root}/dusk/images',),
        teacher=str(teacher),
        out=str(root / 'pseudo'),
        prior=(f'camvid:{root}:day_train',),
        scales=(1.0,),
        keep=keep,
        least=0.0,
    )
    out = write_pseudo_labels(config, lambda text: None)
    samples = open_dataset(f'paired:{root}/dusk/images:{out}')
    masks = np.stack([read_labels(s.label) for s in samples if s.label])
    assert masks.shape == (2, 48, 64)
    share = (masks != 255).mean()
    # certainty is stored in 256 steps, so that a whole step is kept at the border
    assert share >= keep - 1e-6 and share <= min(1.0, keep + 0.3)
    assert json.loads((out / 'manifest.json').read_text())['frames'] == 2
    assert str(root) not in (out / 'manifest.json').read_text()


def test_pseudo_labels_leave_out_classes_by_name(root: Path) -> None:
    teacher = write_segmenter(root / 'teacher.safetensors')
    settings = {'data': (f'images:{root}/dusk/images',), 'teacher': str(teacher), 'least': 0.0}
    found = []
    for name, without in (('all', ()), ('some', ('car', 'tree'))):
        config = PseudoLabelConfig(
            out=str(root / name), keep=1.0, scales=(1.0,), without=without, **settings
        )
        out = write_pseudo_labels(config, lambda text: None)
        found.append(set(np.unique(read_labels(out / '0001TP_1.png')).tolist()))
    assert found[1] == (found[0] - {5, 8}) | {255} and found[0] & {5, 8}
