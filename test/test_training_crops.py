# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Crops by number: the same whoever asks, whole batches in order, broken files by name."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_data import write_streets

from nightseg_ros.data.augment import AugmentConfig
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import DataError
from nightseg_ros.taxonomy import CAMVID11
from nightseg_ros.training.crops import CropLoader, TrainingCrops, class_mix

IDS = st.sampled_from([0, 1, 3, 8, 255])


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_streets(tmp_path_factory.mktemp('data') / 'streets')


def crops(data: str, light: str = '', **options: object) -> TrainingCrops:
    samples = open_dataset(f'{data}:{light}' if light else data)
    settings = AugmentConfig(crop=(32, 64), night_share=0.3)
    return TrainingCrops(samples, settings, taxonomy=CAMVID11, seed=5, **options)


class Numbers(torch.utils.data.Dataset):
    """The number itself instead of a crop."""

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor(number), torch.tensor(-number)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(0, 2**31))
def test_class_mix_moves_pixels_and_ids_together(data: st.DataObject, seed: int) -> None:
    shape = data.draw(st.tuples(st.integers(1, 8), st.integers(1, 8)))
    rng = np.random.default_rng(seed)
    here, there = (rng.choice([0, 1, 3, 8, 255], shape).astype(np.uint8) for _ in range(2))
    # pictures that tell where each pixel came from
    image, donor = (np.full((*shape, 3), value, np.uint8) for value in (10, 20))
    mixed, labels = class_mix(image, here, donor, there, np.random.default_rng(seed))
    pasted = mixed[..., 0] == 20
    assert ((mixed == 10) | (mixed == 20)).all() and (mixed == mixed[..., :1]).all()
    np.testing.assert_array_equal(labels, np.where(pasted, there, here))
    present = set(np.unique(there)) - {255}
    taken = set(np.unique(there[pasted]))
    assert taken <= present and len(taken) == (len(present) + 1) // 2
    # a class comes whole or not at all
    assert not taken & set(np.unique(there[~pasted]))


def test_crops_are_a_function_of_seed_and_number(data: str) -> None:
    plain, mixed = crops(data), crops(data, classmix=1.0)
    for number in (0, 3, 17):
        for one, other in zip(plain[number], crops(data)[number]):
            assert torch.equal(one, other)
        for one, other in zip(mixed[number], crops(data, classmix=1.0)[number]):
            assert torch.equal(one, other)
    assert any(not torch.equal(plain[n][0], mixed[n][0]) for n in range(8))
    # what is not mixed is as it would be without the option
    rarely = crops(data, classmix=0.3)
    same = [torch.equal(plain[n][0], rarely[n][0]) for n in range(20)]
    assert 8 <= sum(same) < 20


def test_night_gives_to_day(data: str) -> None:
    day, night = (open_dataset(f'{data}:{light}') for light in ('day', 'night'))
    made = TrainingCrops(day + night, AugmentConfig(), taxonomy=CAMVID11, seed=0, classmix=1.0)
    assert {sample.light for sample in made.donors} == {'night'}


@pytest.mark.parametrize(('world', 'workers'), [(1, 0), (2, 0), (3, 0), (2, 2)])
def test_processes_share_the_batches_of_one(world: int, workers: int) -> None:
    loaders = [
        CropLoader(Numbers(), batch=6 // world, steps=4, first=1, rank=rank, world=world,
                   workers=workers)
        for rank in range(world)
    ]  # fmt: skip
    steps = [torch.cat([batch[0] for batch in batches]) for batches in zip(*loaders)]
    assert [step.tolist() for step in steps] == [list(range(6 * s, 6 * s + 6)) for s in (1, 2, 3)]


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        ('missing label', r'a2\.png.*cannot be read'),
        ('truncated image', r"a2\.png' cannot be read as an image"),
        ('other size', r"a2\.png' is \(64, 96\).*sizes must agree"),
    ],
)
def test_a_broken_file_is_one_line(
    tmp_path: Path, workers: int, damage: str, message: str
) -> None:
    data = write_streets(tmp_path / 'streets')
    made = crops(data)
    image, label = (tmp_path / 'streets' / kind / 'a2.png' for kind in ('images', 'labels'))
    if damage == 'missing label':
        label.unlink()
    elif damage == 'truncated image':
        image.write_bytes(image.read_bytes()[:-200])
    else:
        other = write_streets(tmp_path / 'others', count=1).partition(':')[2]
        import cv2

        cv2.imwrite(str(image), cv2.imread(f'{other}/images/a0.png')[:40])
    with pytest.raises(DataError, match=message) as caught:
        list(CropLoader(made, batch=2, steps=2, workers=workers))
    assert len(str(caught.value).splitlines()) == 1


class Killed(torch.utils.data.Dataset):
    """A data set whose loading process is killed, as for want of memory."""

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_a_killed_loading_process_is_told() -> None:
    with pytest.raises(DataError, match='died.*--workers 0'):
        list(CropLoader(Killed(), batch=1, steps=1, workers=1))


def test_nothing_to_train_on_is_told(data: str) -> None:
    with pytest.raises(DataError, match='no sample'):
        TrainingCrops([], AugmentConfig(), taxonomy=CAMVID11, seed=0)
    root = data.partition(':')[2]
    with pytest.raises(DataError, match=r'a0\.png. has no labels'):
        TrainingCrops(
            open_dataset(f'images:{root}/images'), AugmentConfig(), taxonomy=CAMVID11, seed=0
        )
