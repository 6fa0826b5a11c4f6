# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The generators by camera and in real time, and the segmenter that judges their pictures."""

from nightseg_ros.networks import build, build_from
from nightseg_ros.networks.frozen_segmenter import FrozenSegmenter
from nightseg_ros.networks.generators import adapt, FastGenerator
from nightseg_ros.runtime.backend import ON_CPU
from nightseg_ros.runtime.backends import available_backends, open_backend
from nightseg_ros.weights import (
    load_weights,
    save_weights,
    WeightsError,
    WeightsMetadata,
    with_style,
)
import numpy as np
import pytest
from tiny_data import silent
from tiny_weights import write_segmenter
import torch


@pytest.fixture(scope='module')
def segmenter(tmp_path_factory):
    return str(write_segmenter(tmp_path_factory.mktemp('judge') / 'judge.safetensors'))


def test_weights_are_set_to_a_camera_and_any_is_one_more(tmp_path):
    torch.manual_seed(0)
    arch = {'ngf': 4, 'blocks': 1, 'styles': ['blue', 'red']}
    network = build('resnet_generator', **arch).eval()
    for module in network.modules():
        if hasattr(module, 'offset'):
            torch.nn.init.normal_(module.offset)
    path = tmp_path / 'g.safetensors'
    metadata = WeightsMetadata(network='resnet_generator', arch=arch, task='translate')
    save_weights(path, network.state_dict(), metadata)
    weights = load_weights(path)
    red = with_style(weights, 'red')
    assert red.sha256 != weights.sha256
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.inference_mode():
        y = network(x.repeat(3, 1, 1, 1), torch.tensor([0, 1, 2]))
        assert (y[0] - y[1]).abs().max() > 1e-3 and (y[0] - y[2]).abs().max() > 1e-3
        torch.testing.assert_close(build_from(weights)(x)[0], y[2])
        torch.testing.assert_close(build_from(red)(x)[0], y[1])
    with pytest.raises(WeightsError, match='they know: blue, red'):
        with_style(weights, 'green')
    with pytest.raises(ValueError, match='knows: blue, red'):
        build('resnet_generator', styles=['blue', 'red'], style='green')
    with pytest.raises(ValueError, match='number of the camera'):
        build('patchgan', ndf=4, styles=2)(x)


def test_frozen_segmenter_stays_as_it_is_but_passes_gradients(segmenter):
    judge = FrozenSegmenter(load_weights(segmenter)).train()
    assert not judge.training
    before = {k: v.clone() for k, v in judge.state_dict().items()}
    x = (torch.rand(1, 3, 64, 64) * 2 - 1).requires_grad_()
    logits, levels = judge.logits_and_features(x)
    torch.testing.assert_close(logits, judge(x))
    for one, other in zip(levels, judge.features(x)):
        torch.testing.assert_close(one, other)
    logits.sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert all(torch.equal(v, before[k]) for k, v in judge.state_dict().items())


# -- the fast generator ----------------------------------------------------------------------


def lively(seed: int = 0, **arch: object) -> FastGenerator:
    """Return a generator whose grid varies from cell to cell."""
    torch.manual_seed(seed)
    network = FastGenerator(**arch)
    torch.nn.init.normal_(network.grid.weight, std=0.3)
    torch.nn.init.normal_(network.guide[2].weight, std=0.3)
    return network.eval()


@pytest.mark.parametrize('level', [3, 20, 60, 120, 250])
def test_adaptation_lifts_the_dark_and_leaves_the_bright(level):
    rng = np.random.default_rng(level)
    x = torch.from_numpy(rng.uniform(0.5, 1.5, (1, 3, 16, 16)) * level / 255).float().clamp(0, 1)
    y = adapt(x)
    assert y.min() >= 0 and y.max() <= 1
    assert (y - x).min() >= 0
    order = x.flatten().argsort()
    assert (y.flatten()[order].diff() >= -1e-6).all()
    if level == 60:
        assert 0.3 < y.mean() < 0.5
    if level == 250:
        assert (y - x).abs().max() < 0.05
    assert torch.isfinite(adapt(torch.zeros(1, 3, 4, 4))).all()


@pytest.mark.parametrize('cell', [8, 16])
def test_fast_generator_begins_as_the_adaptation(cell):
    network = FastGenerator(cell=cell).eval()
    torch.nn.init.zeros_(network.grid.weight)
    x = (torch.rand(2, 1, 64, 96) * 2 - 1).expand(-1, 3, -1, -1)
    with torch.inference_mode():
        torch.testing.assert_close(network(x), adapt(x / 2 + 0.5) * 2 - 1, atol=1e-5, rtol=0)


def test_fast_generator_draws_nothing_finer_than_a_cell():
    network = lively()
    with torch.inference_mode():
        flat = network(torch.full((1, 3, 128, 128), -0.5))
    spread = (flat.amax() - flat.amin()).item()
    assert spread > 0.05
    # a step between neighbours of a picture in which nothing is to be seen is a slope of a cell
    for dim in (2, 3):
        assert flat.diff(dim=dim).abs().max().item() < spread / 3


@pytest.mark.parametrize('arch', [{'cell': 4}, {'bins': 1}, {'widths': [8, 8]}])
def test_fast_generator_refuses_what_cannot_be(arch):
    with pytest.raises(ValueError, match=next(iter(arch))):
        FastGenerator(**arch)


@pytest.mark.parametrize('name', [n for n in ON_CPU if n != 'torch'])
@pytest.mark.parametrize('cell', [8, 16])
def test_fast_generator_is_the_same_on_every_backend(name, cell, tmp_path, monkeypatch):
    if not available_backends()[name]:
        pytest.skip(f'{name} not installed')
    monkeypatch.setenv('NIGHTSEG_CACHE', str(tmp_path))
    arch = {'cell': cell, 'widths': [8, 8, 16, 16]}
    path = tmp_path / 'fast.safetensors'
    metadata = WeightsMetadata(network='fast_generator', arch=arch, task='translate')
    save_weights(path, lively(**arch).state_dict(), metadata)
    weights = load_weights(path)
    reference = open_backend('torch', 'cpu').load(weights, silent)
    run = open_backend(name, 'cpu').load(weights, silent)
    rng = np.random.default_rng(0)
    for size in ((96, 160), (160, 96)):
        images = rng.integers(0, 256, (1, *size, 3), dtype=np.uint8)
        (wanted,), (got,) = reference(images), run(images)
        assert got.shape == images.shape and got.dtype == np.uint8
        assert np.abs(got.astype(int) - wanted).max() <= 2
