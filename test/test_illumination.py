# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Thumbnails, statistics, glare, the estimator, its recipe and the study."""

from pathlib import Path
from typing import Any

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
from nightseg_ros.data.sample import DataError
from nightseg_ros.networks.illumination import IlluminationNet
from nightseg_ros.outputs import OutputError
from nightseg_ros.perception.illumination import (
    glare,
    GLARE_HALO,
    IlluminationEstimator,
    thumbnail,
)
from nightseg_ros.training.illumination import (
    fit,
    IlluminationConfig,
    load_thumbnails,
    Sampler,
    train_illumination,
)
from nightseg_ros.weights import load_weights, save_weights, Weights, WeightsError, WeightsMetadata
import numpy as np
import pytest
from tiny_data import imwrite
import torch


def scene(day: bool, rng: np.random.Generator, height: int = 120, width: int = 180) -> np.ndarray:
    """Draw a crude street, RGB uint8: a bright sky by day, a dark one and lamps by night."""
    image = np.empty((height, width, 3), np.float32)
    horizon = int(height * rng.uniform(0.4, 0.6))
    road = rng.uniform(70, 130)
    image[:horizon] = rng.uniform(170, 240) if day else rng.uniform(2, 30)
    image[horizon:] = road if day else road / rng.uniform(2, 6)
    for _ in range(6):
        x, y = int(rng.integers(width)), int(rng.integers(height // 4, horizon + 5))
        size = int(rng.integers(6, 20))
        image[y:, x:][: 2 * size, :size] = rng.uniform(30, 150, 3) / (1 if day else 8)
        if not day:
            cv2.circle(image, (x, y), 2, (255.0, 240.0, 180.0), -1)
    image += rng.normal(0, 4, image.shape)
    return cv2.GaussianBlur(image, (3, 3), 0).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Write two cameras by day and night; one of them is far brighter than the other."""
    root = tmp_path_factory.mktemp('cameras')
    specs = []
    for number, (camera, gain) in enumerate([('a', 1.0), ('b', 0.4)]):
        for label in ('day', 'night'):
            folder = root / camera / label
            rng = np.random.default_rng([number, label == 'day'])
            for index in range(24):
                image = scene(label == 'day', rng).astype(np.float32) * gain
                imwrite(folder / f'{index:03d}.png', image.astype(np.uint8)[:, :, ::-1])
            specs.append(f'{label}:{camera}:{folder}')
    return tuple(specs)


@pytest.fixture(scope='module')
def weights(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp('weights') / 'illumination.safetensors'
    config = IlluminationConfig(data=folders, out=str(out), steps=60, batch=12)
    train_illumination(config)
    return out


def estimator_of(tensors: Any) -> IlluminationEstimator:
    metadata = WeightsMetadata(network='illumination_net', task='illumination')
    return IlluminationEstimator(
        Weights(path=Path('light'), sha256='', metadata=metadata, tensors=tensors)
    )


@settings(max_examples=40)
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from(['rgb', 'bgr']))
def test_a_thumbnail_of_any_size_keeps_the_mean_color(height, width, order):
    image = np.empty((height, width, 3), np.uint8)
    image[:] = (10, 100, 200) if order == 'rgb' else (200, 100, 10)
    small = thumbnail(image, order)
    assert small.shape == (64, 96, 3) and small.dtype == np.uint8
    assert np.abs(small.astype(int) - (10, 100, 200)).max() <= 1


def test_a_thumbnail_of_a_large_frame_resembles_area_interpolation():
    image = cv2.resize(scene(False, np.random.default_rng(1)), (1280, 720))
    exact = cv2.resize(image, (96, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(thumbnail(image).astype(int) - exact).mean() < 3


def head_lamps(strength: float, row: int, halo: float) -> np.ndarray:
    """Render a lamp over a dark road in linear light: core, and a halo of inverse square."""
    rows, columns = np.mgrid[:64, :96].astype(np.float32)
    square = (rows - row) ** 2 + (columns - 50) ** 2
    light = np.full((64, 96), 0.01, np.float32)
    light[40:] = 0.04
    light += strength * (square < 25) + halo / (1 + square / 25)
    luma = (light.clip(0, 1) ** (1 / 2.2) * 255).astype(np.uint8)
    return np.repeat(luma[:, :, None], 3, axis=2)


def with_white(grey: int, where: Any) -> np.ndarray:
    image = np.full((64, 96, 3), grey, np.uint8)
    image[where] = 255
    return image


@pytest.mark.parametrize(
    ('image', 'fires'),
    [
        (head_lamps(5, 34, 1.5), True),
        (head_lamps(5, 34, 4.0), True),
        # no halo: a white board
        (head_lamps(5, 34, 0.0), False),
        # above the horizon: a street lamp or the sun
        (head_lamps(5, 10, 1.5), False),
        # no core: a dim tail lamp
        (head_lamps(0, 34, 0.2), False),
        # a white sky, and a row of small lamps
        (with_white(90, np.s_[:35]), False),
        (with_white(15, np.s_[30:34, ::12]), False),
    ],
)
def test_glare_is_a_saturated_blob_with_a_halo_outside_the_sky(image, fires):
    assert (glare(image) > GLARE_HALO) == fires


def test_the_network_is_small_and_its_builder_guards_that():
    net = IlluminationNet()
    assert sum(parameter.numel() for parameter in net.parameters()) <= 20_000
    with pytest.raises(ValueError, match='20,000'):
        IlluminationNet(widths=(32, 64, 128))
    with pytest.raises(ValueError, match='widths'):
        IlluminationNet(widths=(8,))


@pytest.mark.parametrize('widths', [(12, 24, 32, 32), (8, 8, 8), (6, 10, 12, 14, 16)])
def test_numpy_and_torch_agree(widths):
    torch.manual_seed(3)
    net = IlluminationNet(widths=widths)
    net(torch.rand(16, 3, 64, 96) * 255)  # moves the running statistics off their defaults
    net.eval()
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 96, 3), np.uint8)
    with torch.inference_mode():
        expected = net(torch.from_numpy(images).permute(0, 3, 1, 2).float()).numpy()
    estimator = estimator_of(net.state_dict())
    found = estimator.estimate(images)
    assert estimator.estimate(images[:0]) == []
    assert [item.features['logit'] for item in found] == pytest.approx(expected, abs=1e-4)


def test_the_estimator_refuses_other_weights(tmp_path):
    net = IlluminationNet()
    with pytest.raises(WeightsError, match='not those of an illumination network'):
        estimator_of({'head.weight': torch.zeros(1, 4)})
    metadata = WeightsMetadata(network='illumination_net', task='segment')
    save_weights(tmp_path / 'day.safetensors', net.state_dict(), metadata)
    with pytest.raises(WeightsError, match="'segment'"):
        IlluminationEstimator(load_weights(tmp_path / 'day.safetensors'))


def test_a_road_darker_than_any_by_day_lowers_the_score():
    net = IlluminationNet().eval()
    net.head.bias.data.fill_(4.0)
    image = np.full((1, 64, 96, 3), 240, np.uint8)
    image[:, 32:] = 60
    free = estimator_of(net.state_dict()).estimate(image)[0]
    net.day_ground.fill_(0.5)
    held = estimator_of(net.state_dict()).estimate(image)[0]
    assert held.score == pytest.approx(free.score * (60 / 240 / 0.5) ** 2.2, rel=0.02)


@pytest.mark.parametrize(('bias', 'score'), [(5000.0, 1.0), (-5000.0, 0.0)])
def test_a_logit_beyond_every_exponent_is_a_score(bias, score):
    net = IlluminationNet().eval()
    net.head.bias.data.fill_(bias)
    [found] = estimator_of(net.state_dict()).estimate(np.full((1, 64, 96, 3), 128, 'u1'))
    assert found.score == pytest.approx(score, abs=1e-9)


def test_augmented_brightness_says_nothing_about_the_class(folders):
    sampler = Sampler(load_thumbnails(folders), seed=1, relit=0.35)
    images, labels = sampler.draw(160)
    assert images.shape == (160, 3, 64, 96)
    assert torch.equal(images, images.round().clamp(0, 255)), 'bytes'
    luma = images.mean(dim=(1, 2, 3)).numpy()
    day, night = luma[labels.numpy() == 1], luma[labels.numpy() == 0]
    assert len(day) == len(night) == 80
    assert (luma.min(), luma.max()) < (30, 200)
    best = max(((day > t).mean() + (night <= t).mean()) / 2 for t in range(0, 255, 5))
    assert best < 0.8


def test_trained_weights_know_day_from_night_at_any_brightness(weights):
    estimator = IlluminationEstimator(load_weights(weights))
    rng = np.random.default_rng(99)
    right = []
    for index in range(40):
        day = index % 2 == 0
        image = scene(day, rng).astype(np.float32)
        image *= 90 / image.mean()
        found = estimator.estimate(thumbnail(image.clip(0, 255).astype(np.uint8))[None])[0]
        right.append((found.features['logit'] > 0) == day)
    assert np.mean(right) >= 0.9


def test_weights_carry_what_made_them(weights, folders):
    metadata = load_weights(weights).metadata
    assert (metadata.task, metadata.network) == ('illumination', 'illumination_net')
    assert metadata.training['steps'] == 60
    assert metadata.license == 'research, non-commercial'
    assert 'a (day), a (night), b (day), b (night)' in metadata.data
    root = str(Path(folders[0].split(':', 2)[2]).parent.parent)
    assert root not in str(metadata)


def test_same_seed_same_weights(folders):
    config = IlluminationConfig(data=folders, out='', steps=3, batch=8)
    sets = load_thumbnails(folders)
    one, two = fit(sets, config).state_dict(), fit(sets, config).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_missing_frames_and_missing_classes_are_errors(folders, tmp_path):
    out = str(tmp_path / 'x.safetensors')
    (tmp_path / 'torn.jpg').touch()
    said: list[str] = []
    with pytest.raises(DataError, match='no readable frame'):
        load_thumbnails([f'day:c:{tmp_path}/*.jpg'], said.append)
    assert len(said) == 1 and said[0].startswith("left out: 'torn.jpg'")
    with pytest.raises(DataError, match="'night'"):
        train_illumination(IlluminationConfig(data=folders[:1], out=out, steps=1))
    assert not Path(out).exists()
    with pytest.raises(OutputError, match='is a folder'):
        train_illumination(IlluminationConfig(data=folders[:1], out=str(tmp_path.parent)))
