# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The segmenter's recipe on a handful of tiny frames."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_weights import write_segmenter

from nightseg_ros.data.augment import AugmentConfig
from nightseg_ros.data.sample import DataError
from nightseg_ros.networks import build_from
from nightseg_ros.taxonomy import CITYSCAPES19
from nightseg_ros.training import segmenter
from nightseg_ros.training.loss import lovasz_softmax, segmentation_loss
from nightseg_ros.training.precision import speed_up_cpu_training
from nightseg_ros.training.segmenter import SegmenterConfig, train_segmenter
from nightseg_ros.training.soup import SoupConfig, write_soup
from nightseg_ros.weights import WeightsError, load_weights


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Pictures whose colour tells the class: road below, sky above, a car between."""
    root = tmp_path_factory.mktemp('data')
    rng = np.random.default_rng(0)
    for kind in ('images', 'labels'):
        (root / kind).mkdir()
    for index in range(4):
        labels = np.zeros((64, 96), np.uint8)
        labels[30 + index :] = 3
        labels[25:40, 20 + 5 * index : 50] = 8
        labels[:4] = 255
        colors = np.zeros((256, 3), np.uint8)
        colors[[0, 3, 8, 255]] = (200, 160, 120), (90, 90, 90), (30, 40, 200), (0, 0, 0)
        noise = rng.integers(-10, 10, (64, 96, 3))
        image = np.clip(colors[labels].astype(int) + noise, 0, 255).astype(np.uint8)
        cv2.imwrite(str(root / 'images' / f'a{index}.png'), image)
        cv2.imwrite(str(root / 'labels' / f'a{index}.png'), labels)
    return f'folder:{root}'


def config(data: str, out: Path, **changes: object) -> SegmenterConfig:
    base = SegmenterConfig(
        data=(data,), out=str(out), arch={'variant': 'tiny'}, init='random', batch=2, steps=6,
        augment=AugmentConfig(crop=(32, 64), night_share=0.5), checkpoint_every=2, workers=0,
        warm_up=1, license='',
    )  # fmt: skip
    return replace(base, **changes)


def silent(_: str) -> None:
    """Say nothing."""


def test_weights_learn_what_they_are_shown(data: str, tmp_path: Path) -> None:
    path = train_segmenter(
        config(data, tmp_path, steps=60, batch=4, rate=5e-3, average=0.9,
               augment=AugmentConfig(crop=(64, 96), scale=(1.0, 1.0))),
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
    assert right > largest + 0.1


def test_resumed_equals_uninterrupted(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_segmenter(config(data, tmp_path / 'whole'), silent)
    again = train_segmenter(config(data, tmp_path / 'again'), silent)
    assert whole.read_bytes() == again.read_bytes()

    class Killed(BaseException):
        pass

    def stop(step: int) -> None:
        raise Killed

    calls = iter(range(100))
    save = segmenter.save_checkpoint

    def save_once(*args: object, **options: object) -> None:
        save(*args, **options)  # type: ignore[arg-type]
        if next(calls) == 1:
            raise Killed

    monkeypatch.setattr(segmenter, 'save_checkpoint', save_once)
    with pytest.raises(Killed):
        train_segmenter(config(data, tmp_path / 'cut'), silent)
    monkeypatch.undo()
    said: list[str] = []
    cut = train_segmenter(config(data, tmp_path / 'cut'), said.append)
    assert 'resuming after step 4' in said
    assert cut.read_bytes() == whole.read_bytes()


def test_a_checkpoint_of_other_settings_is_refused(data: str, tmp_path: Path) -> None:
    train_segmenter(config(data, tmp_path, steps=2), silent)
    with pytest.raises(ValueError, match='rate = 0.0015, now it is 0.1'):
        train_segmenter(config(data, tmp_path, steps=2, rate=0.1), silent)


def test_broken_data_is_named(data: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match='no folder'):
        train_segmenter(config(f'folder:{tmp_path}/none', tmp_path / 'out'), silent)
    root = tmp_path / 'broken'
    for kind in ('images', 'labels'):
        (root / kind).mkdir(parents=True)
    cv2.imwrite(str(root / 'images' / 'a.png'), np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(DataError, match=r'a\.png. has no labels'):
        train_segmenter(config(f'folder:{root}', tmp_path / 'out'), silent)
    cv2.imwrite(str(root / 'labels' / 'a.png'), np.zeros((16, 32), np.uint8))
    with pytest.raises(DataError, match='sizes must agree'):
        train_segmenter(config(f'folder:{root}', tmp_path / 'out'), silent)


def test_lovasz_is_one_minus_iou_for_hard_predictions() -> None:
    """Its defining property (Berman et al. 2018, section 3)."""
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    predicted = torch.tensor([0, 0, 1, 1, 2, 2])
    probabilities = torch.nn.functional.one_hot(predicted, 3).float()
    ious = [2 / 3, 1 / 3, 1 / 2]
    assert lovasz_softmax(probabilities, labels).item() == pytest.approx(1 - np.mean(ious))


def test_loss_ignores_void_and_stands_frames_without_labels() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.full((1, 4, 4), 255)
    labels[0, 0, 0] = 1
    loss = segmentation_loss(logits, labels, lovasz=1.0)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[0, :, 0, 0].abs().sum() > 0
    assert gradient.abs().sum() == gradient[0, :, 0, 0].abs().sum()


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
    other = write_segmenter(tmp_path / 'other.safetensors', taxonomy=CITYSCAPES19)
    with pytest.raises(WeightsError, match='no mean'):
        write_soup(SoupConfig(weights=(str(one), str(other)), out=str(tmp_path / 'soup')))
    with pytest.raises(ValueError, match='two files'):
        SoupConfig(weights=(str(one),), out='soup')
