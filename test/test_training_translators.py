# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The translators' recipes on a handful of tiny pictures: unpaired crops, losses, trainings."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
from nightseg_ros.cli.main import main
from nightseg_ros.data import SynthesisConfig
from nightseg_ros.data.augment import AugmentConfig
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.night_presets import NightConfig
from nightseg_ros.data.synthesize import synthesize
from nightseg_ros.networks import build_from
from nightseg_ros.networks.frozen_segmenter import FrozenSegmenter
from nightseg_ros.networks.generators import FastGenerator
from nightseg_ros.taxonomy import CAMVID11, CITYSCAPES19
from nightseg_ros.training import paired, translator
from nightseg_ros.training.crops import ImagePool, NightPairs, UnpairedCrops
from nightseg_ros.training.paired import DayToNightConfig, FastTranslatorConfig
from nightseg_ros.training.segmenter import SegmenterConfig, train_segmenter
from nightseg_ros.training.translator import (
    DirectionConfig,
    semantic_loss,
    train_translator,
    TranslatorConfig,
)
from nightseg_ros.weights import load_weights
import numpy as np
import pytest
from tiny_data import imwrite, killed_after, silent, tiny_config
from tiny_weights import write_fast_generator, write_segmenter, write_translator
import torch


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Two cameras, red and blue, by day (bright) and night (dark), with labels; and a judge."""
    root = tmp_path_factory.mktemp('pictures')
    rng = np.random.default_rng(0)
    for light, level in (('day', 200), ('night', 40)):
        for camera, channel in (('red', 2), ('blue', 0)):
            for index in range(3):
                labels = np.zeros((72, 96), np.uint8)
                labels[36:][index:] = 3
                image = np.full((72, 96, 3), level // 2, np.int64)
                image[..., channel] = level
                image[labels == 3] -= level // 4
                image += rng.integers(-8, 9, image.shape)
                name = f'{camera}_{index}.png'
                imwrite(root / light / name, np.clip(image, 0, 255).astype(np.uint8))
                imwrite(root / f'{light}_labels' / name, labels)
    write_segmenter(root / 'judge.safetensors')
    write_fast_generator(root / 'start.safetensors')
    return root


def spec(root: Path, light: str, labels: bool = False) -> str:
    kind = f'paired:{root}/{light}:{root}/{light}_labels' if labels else f'images:{root}/{light}'
    return f'{kind}:{light}'


def crops(*specs: str, **changes: Any) -> UnpairedCrops:
    samples = [sample for spec in specs for sample in open_dataset(spec)]
    settings: Any = {'crop': (32, 32), 'long_side': 64, 'seed': 0, 'log': silent, **changes}
    return UnpairedCrops(samples, **settings)


def test_day_and_night_come_from_one_camera(root):
    specs = spec(root, 'day'), spec(root, 'night')
    data = crops(*specs, untold=0.5)
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


def test_cameras_with_one_light_are_left_out_and_labels_follow(root, tmp_path):
    (tmp_path / 'red_0.png').symlink_to(root / 'night' / 'red_0.png')
    said: list[str] = []
    specs = spec(root, 'day', labels=True), f'images:{tmp_path}:night', f'images:{root}/night'
    data = crops(*specs, crop=(64, 64), long_side=96, log=said.append)
    assert data.cameras == ('red',) and said == [
        'left out, since they are called neither day nor night: 6 pictures',
        'left out, since only day or only night is there: blue',
    ]
    real_A, _, labels_A, labels_B, _, _ = data[0]
    assert (labels_B == 255).all()
    luma = real_A.float().mean(2)
    assert luma[labels_A == 0].mean() > luma[labels_A == 3].mean() + 20


def test_a_pair_is_a_night_and_its_day(root):
    days = open_dataset(spec(root, 'day', labels=True))
    dark = AugmentConfig(
        crop=(96, 96), scale=(1.0, 1.0), night_share=1.0, night=NightConfig(mixture={'dark': 1.0})
    )

    def pairs(samples: Any, night_share: float = 1.0) -> NightPairs:
        config = replace(dark, night_share=night_share)
        return NightPairs(samples, config, taxonomy=CAMVID11, seed=0)

    night, day, labels = pairs(days)[0]
    assert night.shape == day.shape == (96, 96, 3) and labels.shape == (96, 96)
    # padding lies in the same place in both, and nowhere else are they the same
    padded = labels == 255
    assert padded.any() and torch.equal(night[padded], day[padded])
    assert night[~padded].float().mean() < day[~padded].float().mean()
    night, day, _ = pairs(days, 0.0)[0]
    assert torch.equal(night, day)


def test_pool_returns_old_pictures_with_their_cameras():
    pool = ImagePool(3, seed=0)
    back = []
    for step in range(30):
        image = torch.full((1, 3, 2, 2), step / 127.5 - 1)
        got, camera = pool.exchange(image, torch.tensor([step]), step)
        value = round((got[0, 0, 0, 0].item() + 1) * 127.5)
        assert value == camera.item()
        back.append(value)
        assert value == step or step >= 3
    old = [value for step, value in enumerate(back) if value != step]
    assert 5 < len(old) < 25 and len(pool.state_dict()['images']) == 3
    assert len(set(old)) == len(old), 'what was given back is gone'


def test_semantic_loss_wants_the_same_scene(root):
    judge = FrozenSegmenter(load_weights(root / 'judge.safetensors'))
    torch.manual_seed(0)
    one, other = torch.nn.functional.interpolate(torch.randn(2, 3, 4, 4), size=(64, 64)).split(1)
    unknown = torch.full((1, 64, 64), 255)
    same = semantic_loss(judge, judge, one, one, unknown)
    assert semantic_loss(judge, judge, one, other, unknown) > same + 0.1
    # a label that is known wins over what the first judge sees
    seen = judge(one).argmax(1)
    wrong = ((seen + 1) % 11).repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert semantic_loss(judge, judge, one, one, wrong) > same + 0.1


def test_a_night_asks_for_no_colour_in_the_black_and_keeps_its_lamps():
    day = torch.rand(1, 3, 96, 96, generator=torch.manual_seed(0)) * 2 - 1
    night = torch.full_like(day, -0.2)
    night[..., :48] = -1.0
    lamp = torch.tensor([1.0, -0.6, -0.8]).view(1, 3, 1, 1)
    night[..., 70:76, 70:76] = lamp
    seen = paired.visible_day(night, day)
    assert torch.allclose(
        seen[..., :38], day[..., :38].mean(1, keepdim=True).expand(-1, 3, -1, -1)
    )
    assert torch.allclose(seen[..., :60, 60:], day[..., :60, 60:])
    assert torch.allclose(seen[..., 70:76, 70:76], lamp.expand(1, 3, 6, 6))


def test_picture_losses_are_zero_for_the_target_alone():
    x = torch.rand(1, 3, 16, 16)
    assert all(value == 0 for value in paired.picture_losses(x, x).values())
    brighter = paired.picture_losses(x + 0.5, x)
    assert brighter['color'].item() == pytest.approx(1.0)
    assert brighter['gradient'].item() == pytest.approx(0.0, abs=1e-6)
    assert paired.feature_loss([x, 2 * x], [x, x]).item() == pytest.approx(0.5)


# -- the recipes -----------------------------------------------------------------------------


def fast_config(root: Path, out: Path, **changes: Any) -> FastTranslatorConfig:
    base = FastTranslatorConfig(
        data=(spec(root, 'day', labels=True),), segmenter=str(root / 'judge.safetensors'),
        out=str(out), unpaired=(spec(root, 'day'), spec(root, 'night')), batch=2, night_batch=1,
        arch={'widths': [8, 8, 16, 16]}, steps=6, ndf=4, workers=0, warm_up=1, license='',
        augment=AugmentConfig(crop=(32, 64), scale=(0.8, 1.0), night_share=0.9), log_every=1,
        loss=paired.FastLossConfig(adversarial=0.1), checkpoint_every=2, picture_every=3,
        precision='32-true',
    )  # fmt: skip
    return replace(base, **changes)


def pairs_config(root: Path, out: Path) -> FastTranslatorConfig:
    start = str(root / 'start.safetensors')
    return fast_config(root, out, unpaired=(), loss=paired.FastLossConfig(), init=start)


def night_config(root: Path, out: Path, **changes: Any) -> DayToNightConfig:
    base = DayToNightConfig(
        data=(spec(root, 'day', labels=True),), nights=(spec(root, 'night', labels=True),),
        segmenter=str(root / 'judge.safetensors'), out=str(out), ngf=4, blocks=1, ndf=4, batch=1,
        augment=AugmentConfig(crop=(32, 32), scale=(0.8, 1.0), night_share=1.0, long_side=96),
        steps=6, warm_up=1, checkpoint_every=2, picture_every=3, log_every=1, workers=0,
        license='', precision='32-true',
    )  # fmt: skip
    return replace(base, **changes)


def gan_config(root: Path, out: Path, **changes: Any) -> TranslatorConfig:
    base = TranslatorConfig(
        data=(spec(root, 'day'), spec(root, 'night')), segmenter=str(root / 'judge.safetensors'),
        out=str(out), ngf=4, blocks=1, ndf=4, crop=32, long_side=64, steps=6,
        checkpoint_every=2, picture_every=3, log_every=1, workers=0, license='',
    )  # fmt: skip
    return replace(base, **changes)


def day_config(root: Path, out: Path) -> SegmenterConfig:
    options: dict[str, Any] = {'picture_every': 3, 'balance': 0.5, 'norm_momentum': 0.2}
    return tiny_config(spec(root, 'day', labels=True), out, log_every=1, **options)


def train(config: Any, log: Any = silent) -> tuple[Path, ...]:
    done = {
        TranslatorConfig: train_translator, DayToNightConfig: paired.train_day_to_night,
        FastTranslatorConfig: paired.train_fast_translator, SegmenterConfig: train_segmenter,
    }[type(config)](config, log)  # fmt: skip
    return done if isinstance(done, tuple) else (done,)


@pytest.mark.parametrize(
    ('make', 'names', 'logged'),
    [
        (gan_config, ['day_to_night', 'night_to_day'], 'G gan_AB cycle_BA semantic_AB D_A'),
        (fast_config, ['weights'], 'loss color gradient features semantic adversarial D'),
        (pairs_config, ['weights'], 'loss color gradient features semantic'),
        (night_config, ['weights'], 'loss adversarial low_frequency semantic D'),
        (day_config, ['weights'], 'loss rate'),
    ],
)
def test_resumed_equals_uninterrupted(root, tmp_path, monkeypatch, make, names, logged):
    monkeypatch.setattr(translator, 'POOL', 2)
    whole = train(make(root, tmp_path / 'whole'))
    config = make(root, tmp_path / 'cut')
    killed_after(3, monkeypatch, lambda: train(config))
    said: list[str] = []
    cut = train(config, said.append)
    assert 'resuming after step 4' in said
    for one, other in zip(whole, cut, strict=True):
        if make is night_config:
            # the products of the spectral norm round as memory is aligned, and Adam makes steps of
            # that for biases before an instance norm, which change no picture
            picture = torch.rand(1, 3, 64, 96, generator=torch.manual_seed(0)) * 2 - 1
            with torch.inference_mode():
                wanted, got = (build_from(load_weights(path))(picture) for path in (one, other))
            torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)
        else:
            assert one.read_bytes() == other.read_bytes()
    assert [p.stem for p in whole] == names
    metadata = load_weights(whole[-1]).metadata
    assert metadata.task == ('segment' if make is day_config else 'translate')
    assert metadata.arch.get('styles', ['blue', 'red']) == ['blue', 'red']
    if make is pairs_config:
        assert metadata.training['init'] == load_weights(root / 'start.safetensors').sha256
    log = (tmp_path / 'cut' / 'metrics.jsonl').read_text().splitlines()
    assert len(log) == 6 and all(f'"{name}"' in log[0] for name in logged.split())
    assert len(list((tmp_path / 'cut' / 'pictures').glob('*.jpg'))) == 2


@pytest.mark.slow
def test_cyclegan_learns_the_light(root, tmp_path):
    off = DirectionConfig(identity=0)
    config = gan_config(
        root, tmp_path, segmenter='', steps=60, rate=2e-3, night_to_day=off, day_to_night=off,
        styled=False, picture_every=0,
    )  # fmt: skip
    to_night, to_day = (build_from(load_weights(p)) for p in train_translator(config, silent))
    log = (tmp_path / 'metrics.jsonl').read_text()
    assert 'identity' not in log and 'semantic' not in log and 'cycle_AB' in log
    day, night = (
        torch.from_numpy(cv2.imread(str(root / light / 'red_0.png'))[:64, :96])
        .permute(2, 0, 1)[None].float() / 127.5 - 1
        for light in ('day', 'night')
    )  # fmt: skip
    with torch.inference_mode():
        assert to_day(night).mean() > night.mean() + 0.3
        assert to_night(day).mean() < day.mean() - 0.3


@pytest.mark.slow
def test_fast_translator_comes_nearer_to_the_day(root, tmp_path):
    config = fast_config(
        root, tmp_path, unpaired=(), steps=40, batch=4, average=0.9, rate=5e-3,
        loss=paired.FastLossConfig(), picture_every=0,
    )  # fmt: skip
    learned = build_from(load_weights(paired.train_fast_translator(config, silent)))
    samples = open_dataset(config.data[0])
    data = NightPairs(samples, replace(config.augment, night_share=1.0), taxonomy=CAMVID11, seed=9)
    pairs = [data[number] for number in range(8)]
    night, day = (
        torch.stack([pair[i] for pair in pairs]).permute(0, 3, 1, 2).float() / 127.5 - 1
        for i in (0, 1)
    )
    with torch.inference_mode():
        before, after = (
            paired.picture_losses(network(night), day)['color'].item()
            for network in (FastGenerator(**config.arch).eval(), learned)
        )
    assert after < 0.8 * before


@pytest.mark.parametrize('make', [gan_config, fast_config])
def test_labels_are_ids_of_the_segmenters_classes(root, tmp_path, make):
    judge = write_segmenter(tmp_path / 'judge.safetensors', taxonomy=CITYSCAPES19)
    specs = []
    for light in ('day', 'night'):
        for picture in (root / light).iterdir():
            ids = np.full(cv2.imread(str(picture)).shape[:2], len(CITYSCAPES19) - 1, np.uint8)
            imwrite(tmp_path / light / picture.name, ids)
        specs.append(f'paired:{root}/{light}:{tmp_path}/{light}:{light}')
    field = 'unpaired' if make is fast_config else 'data'
    config = make(root, tmp_path / 'run', segmenter=str(judge), steps=1, **{field: tuple(specs)})
    assert load_weights(train(config)[0]).metadata.task == 'translate'


def test_what_teaches_nothing_is_told_before_the_training(root, tmp_path):
    translator = write_translator(tmp_path / 'translator.safetensors')
    judge = write_segmenter(tmp_path / 'judge.safetensors', taxonomy=CITYSCAPES19)
    for make, words, changes in (
        (fast_config, 'no labels', {'data': (spec(root, 'day'),)}),
        (fast_config, "is a night .*'unpaired'", {'data': (spec(root, 'night', labels=True),)}),
        (fast_config, 'is a dusk without its day',
         {'data': (f'paired:{root}/day:{root}/day_labels:dusk',)}),
        (fast_config, "nights of 'unpaired' would teach nothing",
         {'loss': paired.FastLossConfig()}),
        (fast_config, "'arch': .*unexpected keyword", {'arch': {'widhts': [8, 8, 16, 16]}}),
        (fast_config, 'cannot judge', {'segmenter': str(translator)}),
        (night_config, "is a day; 'nights' are real nights",
         {'nights': (spec(root, 'day', labels=True),)}),
        (gan_config, 'one taxonomy', {'night_segmenter': str(judge)}),
        (gan_config, 'by day there are blue, red, by night none', {'data': (spec(root, 'day'),)}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            train(make(root, tmp_path / 'out', **changes))


def test_a_night_generator_changes_the_physical_night_and_is_a_way_to_synthesize(root, tmp_path):
    weights = paired.train_day_to_night(night_config(root, tmp_path / 'run'), silent)
    nights = {}
    for method, options in (('physical', {}), ('generator', {'weights': str(weights)})):
        config = SynthesisConfig(
            data=(spec(root, 'day', labels=True),), method=method, out=str(tmp_path / method),
            ratio=1.0, backend='torch', **options,
        )  # fmt: skip
        synthesize(config)
        pictures = sorted((tmp_path / method / 'images').iterdir())
        nights[method] = [cv2.imread(str(path)).astype(int) for path in pictures]
    assert len(nights['generator']) == len(nights['physical']) == 6
    days = [cv2.imread(str(path)).astype(int) for path in sorted((root / 'day').iterdir())]
    for day, physical, night in zip(days, nights['physical'], nights['generator']):
        # six steps leave the picture that the generator was given: the physical night, not the day
        assert 0 < np.abs(night - physical).mean() < np.abs(night - day).mean()


def test_void_says_nothing_to_the_discriminator():
    labels = torch.tensor([[[0, 2], [255, 1]]], dtype=torch.uint8)
    maps = paired.one_hot(labels, torch.tensor([[[True, False], [True, False]]]), 3)
    assert maps.shape == (1, 3, 2, 2) and maps.sum(1).tolist() == [[[0, 1], [0, 1]]]
    assert maps[0, 2, 0, 1] == maps[0, 1, 1, 1] == 1


# -- the verb --------------------------------------------------------------------------------


def test_translate_writes_pictures_and_a_sheet(tmp_path, cache):
    frames, out = tmp_path / 'frames', tmp_path / 'out'
    for seed in range(5):
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 10, 3), dtype=np.uint8)
        size = (160, 96) if seed else (90, 120)
        imwrite(frames / f'a_{seed}.png', cv2.resize(coarse, size))
    generator = write_translator(tmp_path / 'generator.safetensors')
    (frames / 'a_broken.png').write_bytes(b'no picture')
    arguments = [
        'translate', str(frames), '--weights', str(generator), '--out', str(out),
        '--backend', 'torch', '--long-side', '160',
    ]  # fmt: skip
    assert main(arguments) == 1  # the broken one
    names = sorted(path.name for path in (out / 'images').iterdir())
    assert names == [f'a_{seed}.jpg' for seed in range(5)]
    assert cv2.imread(str(out / 'images' / 'a_0.jpg')).shape == (120, 90, 3)
    assert cv2.imread(str(out / 'contact_sheet.jpg')) is not None
    (frames / 'a_broken.png').unlink()
    assert main(arguments) == 0
