# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The translators' recipes on a handful of tiny pictures: unpaired crops, losses, trainings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_data import killed_after, silent
from tiny_weights import write_all, write_segmenter

from nightseg_ros.config import ConfigError, from_mapping, to_mapping
from nightseg_ros.data.augment import AugmentConfig
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.night_presets import NightConfig
from nightseg_ros.data.sample import DataError, Sample
from nightseg_ros.networks import build_from
from nightseg_ros.networks.frozen_segmenter import FrozenSegmenter
from nightseg_ros.networks.generators import FastGenerator
from nightseg_ros.taxonomy import CAMVID11
from nightseg_ros.training.crops import ImagePool, NightPairs, UnpairedCrops
from nightseg_ros.training.fast_translator import (
    FastLossConfig,
    FastTranslatorConfig,
    feature_loss,
    picture_losses,
    train_fast_translator,
)
from nightseg_ros.training.losses import discriminator_loss, generator_loss
from nightseg_ros.training.translator import (
    DirectionConfig,
    TranslatorConfig,
    semantic_loss,
    train_translator,
)
from nightseg_ros.weights import WeightsError, load_weights


@pytest.fixture(scope='module')
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cameras, red and blue, by day (bright) and night (dark); the day with labels."""
    root = tmp_path_factory.mktemp('pictures')
    rng = np.random.default_rng(0)
    for light, level in (('day', 200), ('night', 40)):
        (root / light).mkdir()
        (root / f'{light}_labels').mkdir()
        for camera, channel in (('red', 2), ('blue', 0)):
            for index in range(3):
                labels = np.zeros((72, 96), np.uint8)
                labels[36 + index :] = 3
                image = np.full((72, 96, 3), level // 2, np.int64)
                image[..., channel] = level
                image[labels == 3] -= level // 4
                image += rng.integers(-8, 9, image.shape)
                name = f'{camera}_{index}.png'
                cv2.imwrite(str(root / light / name), np.clip(image, 0, 255).astype(np.uint8))
                cv2.imwrite(str(root / f'{light}_labels' / name), labels)
    return root


@pytest.fixture(scope='module')
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_segmenter(tmp_path_factory.mktemp('judge') / 'judge.safetensors'))


def unpaired(root: Path) -> tuple[str, ...]:
    return f'images:{root}/day:day', f'images:{root}/night:night'


def crops(root: Path, **changes: object) -> UnpairedCrops:
    samples = [sample for spec in unpaired(root) for sample in open_dataset(spec)]
    settings: dict = {'crop': (32, 32), 'long_side': 64, 'seed': 0, **changes}
    return UnpairedCrops(samples, **settings)


# -- data ------------------------------------------------------------------------------------


def test_day_and_night_come_from_one_camera(pictures: Path) -> None:
    data = crops(pictures, untold=0.5)
    assert data.cameras == ('blue', 'red')
    seen, untold = set(), 0
    for number in range(40):
        real_A, real_B, _, _, camera, told = data[number]
        for picture in (real_A, real_B):
            assert picture.shape == (32, 32, 3) and picture.dtype == torch.uint8
            red, _, blue = picture.float().mean((0, 1))
            assert ('red' if red > blue else 'blue') == data.cameras[int(camera)]
        assert real_A.float().mean() > real_B.float().mean() + 30
        assert int(told) in (int(camera), 2)
        seen.add(int(camera))
        untold += int(told) == 2
    assert seen == {0, 1} and 5 < untold < 35
    for one, other in zip(data[7], crops(pictures, untold=0.5)[7]):
        assert torch.equal(one, other)


def test_cameras_with_one_light_are_left_out(pictures: Path) -> None:
    day, night = (open_dataset(spec) for spec in unpaired(pictures))
    some = UnpairedCrops(
        [*day, *(s for s in night if s.source == 'red')], crop=(32, 32), long_side=64, seed=0
    )
    assert some.cameras == ('red',) and some.left_out == ('blue',)
    with pytest.raises(DataError, match=r'by day there are blue, red, by night none'):
        UnpairedCrops(day, crop=(32, 32), long_side=64, seed=0)


def test_labels_follow_their_picture(pictures: Path) -> None:
    specs = (f'paired:{pictures}/day:{pictures}/day_labels:day', unpaired(pictures)[1])
    data = UnpairedCrops(
        [s for spec in specs for s in open_dataset(spec)], crop=(64, 64), long_side=96, seed=0
    )
    real_A, _, labels_A, labels_B, _, _ = data[0]
    assert (labels_B == 255).all()
    luma = real_A.float().mean(2)
    assert luma[labels_A == 0].mean() > luma[labels_A == 3].mean() + 20


def test_a_pair_is_a_night_and_its_day(pictures: Path) -> None:
    samples = open_dataset(f'paired:{pictures}/day:{pictures}/day_labels:day')
    settings = AugmentConfig(
        crop=(96, 96), scale=(1.0, 1.0), night_share=1.0, night=NightConfig.only('dark')
    )
    data = NightPairs(samples, settings, taxonomy=CAMVID11, seed=0)
    night, day, labels = data[0]
    assert night.shape == day.shape == (96, 96, 3) and labels.shape == (96, 96)
    # padding lies in the same place in both, and nowhere else are they the same
    padded = labels == 255
    assert padded.any() and torch.equal(night[padded], day[padded])
    assert night[~padded].float().mean() < day[~padded].float().mean()
    still = replace(settings, night_share=0.0)
    night, day, _ = NightPairs(samples, still, taxonomy=CAMVID11, seed=0)[0]
    assert torch.equal(night, day)


def test_pairs_need_labelled_days(pictures: Path) -> None:
    settings = AugmentConfig()
    with pytest.raises(DataError, match='no labels'):
        NightPairs([Sample(image=Path('a.png'))], settings, taxonomy=CAMVID11, seed=0)
    night = Sample(image=Path('a.png'), label=Path('a.png'), light='night')
    with pytest.raises(DataError, match='unpaired'):
        NightPairs([night], settings, taxonomy=CAMVID11, seed=0)


# -- losses ----------------------------------------------------------------------------------


def test_least_squares_losses() -> None:
    ones, zeros = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    assert generator_loss(ones) == 0 and generator_loss(zeros) == 1
    assert discriminator_loss(ones, zeros) == 0
    assert discriminator_loss(zeros, ones) == 1


def test_pool_returns_old_pictures_with_their_cameras() -> None:
    pool = ImagePool(3, seed=0)
    back = []
    for step in range(30):
        image = torch.full((1, 3, 2, 2), step / 127.5 - 1)
        got, camera = pool.exchange(image, torch.tensor([step]), step)
        value = round((got[0, 0, 0, 0].item() + 1) * 127.5)
        assert value == camera.item()
        back.append(value)
        if step < 3:
            assert value == step
    old = [value for step, value in enumerate(back) if value != step]
    assert 5 < len(old) < 25 and len(pool) == 3
    # what was given back is gone
    assert len(set(old)) == len(old)
    same, _ = ImagePool(0, seed=0).exchange(image, torch.tensor([1]), 0)
    assert torch.equal(same, image)


def test_semantic_loss_wants_the_same_scene(segmenter: str) -> None:
    judge = FrozenSegmenter(load_weights(segmenter))
    torch.manual_seed(0)
    one, other = torch.nn.functional.interpolate(torch.randn(2, 3, 4, 4), size=(64, 64)).split(1)
    unknown = torch.full((1, 64, 64), 255)
    same = semantic_loss((judge, judge), one, one, unknown)
    assert semantic_loss((judge, judge), one, other, unknown) > same + 0.1
    # a label that is known wins over what the first judge sees
    seen = judge(one).argmax(1)
    wrong = ((seen + 1) % 11).repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert semantic_loss((judge, judge), one, one, wrong) > same + 0.1


def test_picture_losses_are_zero_for_the_target_alone() -> None:
    x = torch.rand(1, 3, 16, 16)
    assert all(value == 0 for value in picture_losses(x, x).values())
    brighter = picture_losses(x + 0.5, x)
    assert brighter['color'].item() == pytest.approx(1.0)
    assert brighter['gradient'].item() == pytest.approx(0.0, abs=1e-6)
    assert feature_loss([x, 2 * x], [x, x]).item() == pytest.approx(0.5)


# -- the recipes -----------------------------------------------------------------------------


def fast_config(root: Path, judge: str, out: Path, **changes: object) -> FastTranslatorConfig:
    base = FastTranslatorConfig(
        data=(f'paired:{root}/day:{root}/day_labels:day',), segmenter=judge, out=str(out),
        unpaired=unpaired(root), arch={'widths': [8, 8, 16, 16]}, batch=2, night_batch=1, steps=4,
        augment=AugmentConfig(crop=(32, 64), scale=(0.8, 1.0), night_share=0.9), ndf=4,
        loss=FastLossConfig(adversarial=0.1), checkpoint_every=2, picture_every=2, workers=0,
        warm_up=1, precision='32-true', license='',
    )  # fmt: skip
    return replace(base, **changes)


def gan_config(root: Path, judge: str, out: Path, **changes: object) -> TranslatorConfig:
    base = TranslatorConfig(
        data=unpaired(root), segmenter=judge, out=str(out), ngf=4, blocks=1, ndf=4, crop=32,
        long_side=64, pool=2, steps=6, checkpoint_every=2, picture_every=3, log_every=1, workers=0,
        license='',
    )  # fmt: skip
    return replace(base, **changes)


def test_cyclegan_resumed_equals_uninterrupted(
    pictures: Path, segmenter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_translator(gan_config(pictures, segmenter, tmp_path / 'whole'), silent)
    config = gan_config(pictures, segmenter, tmp_path / 'cut')
    killed_after(3, monkeypatch, lambda: train_translator(config, silent))
    said: list[str] = []
    cut = train_translator(config, said.append)
    assert any('resuming after step 4' in line for line in said)
    assert [p.read_bytes() for p in cut] == [p.read_bytes() for p in whole]
    assert [p.name for p in whole] == ['day_to_night.safetensors', 'night_to_day.safetensors']
    metadata = load_weights(whole[1]).metadata
    assert metadata.task == 'translate' and metadata.arch['styles'] == ['blue', 'red']
    log = (tmp_path / 'cut' / 'metrics.jsonl').read_text().splitlines()
    assert len(log) == 6 and all(name in log[0] for name in ('gan_AB', 'cycle_BA', 'semantic_AB'))
    assert len(list((tmp_path / 'cut' / 'pictures').glob('*.jpg'))) == 2


def test_cyclegan_learns_the_light(pictures: Path, tmp_path: Path) -> None:
    config = gan_config(
        pictures, '', tmp_path, steps=60, rate=2e-3, night_to_day=DirectionConfig(identity=0),
        day_to_night=DirectionConfig(identity=0), styled=False, picture_every=0,
    )  # fmt: skip
    to_night, to_day = (build_from(load_weights(p)) for p in train_translator(config, silent))
    day, night = (
        torch.from_numpy(cv2.imread(str(pictures / light / 'red_0.png'))[:64, :96])
        .permute(2, 0, 1)[None].float() / 127.5 - 1
        for light in ('day', 'night')
    )  # fmt: skip
    with torch.inference_mode():
        assert to_day(night).mean() > night.mean() + 0.3
        assert to_night(day).mean() < day.mean() - 0.3


def test_losses_of_weight_zero_cost_nothing(pictures: Path, tmp_path: Path) -> None:
    off = DirectionConfig(identity=0)
    config = gan_config(pictures, '', tmp_path, steps=1, day_to_night=off, night_to_day=off)
    train_translator(config, silent)
    log = (tmp_path / 'metrics.jsonl').read_text()
    assert 'identity' not in log and 'semantic' not in log and 'cycle_AB' in log


def test_fast_translator_resumed_equals_uninterrupted(
    pictures: Path, segmenter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_fast_translator(fast_config(pictures, segmenter, tmp_path / 'whole'), silent)
    config = fast_config(pictures, segmenter, tmp_path / 'cut')
    killed_after(1, monkeypatch, lambda: train_fast_translator(config, silent))
    cut = train_fast_translator(config, silent)
    assert cut.read_bytes() == whole.read_bytes()
    assert load_weights(cut).metadata.task == 'translate'
    log = (tmp_path / 'whole' / 'metrics.jsonl').read_text().splitlines()
    assert all(name in log[0] for name in ('color', 'semantic', 'adversarial', '"D"'))


def test_fast_translator_comes_nearer_to_the_day(
    pictures: Path, segmenter: str, tmp_path: Path
) -> None:
    config = fast_config(
        pictures, segmenter, tmp_path, unpaired=(), steps=40, batch=4, average=0.9, rate=5e-3,
        loss=FastLossConfig(features=0, semantic=0), picture_every=0,
    )  # fmt: skip
    learned = build_from(load_weights(train_fast_translator(config, silent)))
    samples = open_dataset(config.data[0])
    data = NightPairs(samples, replace(config.augment, night_share=1.0), taxonomy=CAMVID11, seed=9)
    errors = []
    for network in (FastGenerator(**config.arch).eval(), learned):
        with torch.inference_mode():
            pairs = [data[number] for number in range(8)]
            night, day = (
                torch.stack([pair[i] for pair in pairs]).permute(0, 3, 1, 2).float() / 127.5 - 1
                for i in (0, 1)
            )
            errors.append(picture_losses(network(night), day)['color'].item())
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'crop': 40}, 'multiple of 32'),
        ({'untold': 2.0}, 'untold'),
        ({'zoom': (0.0, 1.0)}, 'zoom'),
        ({'segmenter': '', 'night_segmenter': 'night'}, 'night_segmenter'),
        ({'day_to_night': {'gan': -1.0}}, "'gan' must be at least 0"),
    ],
)
def test_settings_of_the_cyclegan_that_cannot_work(
    pictures: Path, tmp_path: Path, changes: dict, words: str
) -> None:
    mapping = {**to_mapping(gan_config(pictures, 'judge', tmp_path)), **changes}
    with pytest.raises(ConfigError, match=words):
        from_mapping(TranslatorConfig, mapping)


def test_settings_of_the_fast_translator_that_cannot_work(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='unpaired'):
        fast_config(pictures, 'judge', tmp_path, unpaired=())
    with pytest.raises(ValueError, match='multiples of 32'):
        fast_config(pictures, 'judge', tmp_path, augment=AugmentConfig(crop=(30, 32)))
    translator = write_all(tmp_path)['weights.translator']
    with pytest.raises(WeightsError, match='cannot judge'):
        train_fast_translator(fast_config(pictures, str(translator), tmp_path / 'out'), silent)
