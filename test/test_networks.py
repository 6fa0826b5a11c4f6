# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The networks: shapes at any size, published sizes, the default's budget; the generators."""

from nightseg_ros.networks import build, build_from, REGISTRY
from nightseg_ros.networks.frozen_segmenter import FrozenSegmenter
from nightseg_ros.networks.generators import adapt, FastGenerator
from nightseg_ros.networks.segmenters import pool_to_bins
from nightseg_ros.weights import load_weights, WeightsError, with_style
import numpy as np
import pytest
from tiny_weights import lively_generator, write_segmenter, write_translator
import torch
from torch.utils.flop_counter import FlopCounterMode


@pytest.mark.parametrize(
    ('name', 'arch'),
    [
        ('lite_segmenter', {'classes': 11}),
        ('lite_segmenter', {'classes': 19, 'variant': 'lite2'}),
        ('lite_segmenter', {'classes': 5, 'variant': 'tiny'}),
        ('erf_pspnet', {'classes': 11}),
    ],
)
def test_segmenters_give_logits_at_their_stride(name, arch):
    network = build(name, **arch).eval()
    for size in ((64, 96), (96, 160), (32, 32)):
        with torch.inference_mode():
            logits = network(torch.rand(2, 3, *size))
        assert logits.shape == (2, arch['classes'], *(side // network.stride for side in size))


def test_the_patch_of_the_discriminator_is_the_published_one():
    discriminator = build('patchgan', ndf=4)
    image = torch.zeros(1, 3, 256, 256, requires_grad=True)
    for module in discriminator.modules():
        if isinstance(module, torch.nn.InstanceNorm2d):
            module.forward = lambda x: x  # it sees the whole image
    scores = discriminator(image)
    assert scores.shape == (1, 1, 30, 30)
    scores[0, 0, 15, 15].backward()
    rows = image.grad.abs().sum((0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == 70, 'a pixel further away changes nothing'


def test_published_parameter_counts_and_a_light_decoder():
    for name, arch, millions in (
        ('resnet_generator', {}, 11.38),
        ('erf_pspnet', {'classes': 19}, 2.49),
    ):
        count = sum(p.numel() for p in build(name, **arch).parameters())
        assert count / 1e6 == pytest.approx(millions, rel=0.01)
    network = build('lite_segmenter', classes=11).eval()
    image = torch.rand(1, 3, 288, 480)
    gmac = []
    with torch.inference_mode():
        for part in (network, network.encoder):
            with FlopCounterMode(display=False) as counter:
                part(image)
            gmac.append(counter.get_total_flops() / 2e9)
    assert gmac[0] - gmac[1] <= 0.2


@pytest.mark.parametrize(
    ('name', 'arch', 'words'),
    [
        ('unet', {}, next(iter(REGISTRY))),
        ('lite_segmenter', {'classes': 2, 'variant': 'lite7'}, 'lite7'),
        ('erf_pspnet', {'klasses': 2}, 'cannot be built'),
        ('resnet_generator', {'styles': ['a', 'b'], 'style': 'c'}, 'knows: a, b'),
        ('fast_generator', {'bins': 1}, 'bins'),
        ('fast_generator', {'widths': [8, 8]}, 'widths'),
    ],
)
def test_what_cannot_be_built_is_refused_with_what_can(name, arch, words):
    with pytest.raises(ValueError, match=words):
        build(name, **arch)


@pytest.mark.parametrize('size', [(8, 8), (9, 13), (12, 20), (60, 34)])
def test_pyramid_pools_like_adaptive_pooling(size):
    x = torch.rand(2, 3, *size)
    for bins in (1, 2, 4, 8):
        wanted = torch.nn.functional.adaptive_avg_pool2d(x, bins)
        torch.testing.assert_close(pool_to_bins(x, bins), wanted, rtol=1e-4, atol=1e-5)


def test_weights_are_set_to_a_camera_and_any_is_one_more(tmp_path):
    path = write_translator(tmp_path / 'g.safetensors', styles=('blue', 'red'))
    weights = load_weights(path)
    network = build_from(weights)
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
    with pytest.raises(ValueError, match='number of the camera'):
        build('patchgan', ndf=4, styles=2)(x)


def test_frozen_segmenter_stays_as_it_is_but_passes_gradients(tmp_path):
    judge = FrozenSegmenter(load_weights(write_segmenter(tmp_path / 'judge.safetensors'))).train()
    before = {k: v.clone() for k, v in judge.state_dict().items()}
    x = (torch.rand(1, 3, 64, 64) * 2 - 1).requires_grad_()
    logits, levels = judge.logits_and_features(x)
    torch.testing.assert_close((logits, levels), (judge(x), judge.features(x)))
    logits.sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in judge.parameters())
    # as running statistics would not in training mode
    assert all(torch.equal(v, before[k]) for k, v in judge.state_dict().items())


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


def test_fast_generator_begins_as_the_adaptation():
    network = FastGenerator().eval()
    torch.nn.init.zeros_(network.grid.weight)
    x = (torch.rand(2, 1, 64, 96) * 2 - 1).expand(-1, 3, -1, -1)
    with torch.inference_mode():
        torch.testing.assert_close(network(x), adapt(x / 2 + 0.5) * 2 - 1, atol=1e-5, rtol=0)


def test_fast_generator_draws_nothing_finer_than_a_cell():
    network = lively_generator()
    with torch.inference_mode():
        flat = network(torch.full((1, 3, 128, 128), -0.5))
    spread = (flat.amax() - flat.amin()).item()
    assert spread > 0.05
    # a step between neighbours of a picture in which nothing is to be seen is a slope of a cell
    for dim in (2, 3):
        assert flat.diff(dim=dim).abs().max().item() < spread / 3
