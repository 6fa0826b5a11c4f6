# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The networks: shapes at any size, published sizes, and the default's budget."""

from nightseg_ros.networks import build, REGISTRY
from nightseg_ros.networks.segmenters import pool_to_bins
import pytest
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


def test_generator_keeps_the_size_and_discriminator_sees_patches():
    generator, discriminator = build('resnet_generator', ngf=4, blocks=2), build('patchgan', ndf=4)
    image = torch.rand(1, 3, 64, 96) * 2 - 1
    with torch.inference_mode():
        fake = generator(image)
        scores = discriminator(image)
    assert fake.shape == image.shape and fake.abs().max() <= 1
    assert scores.shape == (1, 1, 6, 10)
    # the patch of the published discriminator is 70×70: a pixel further away changes nothing
    discriminator = build('patchgan', ndf=4).eval()
    image = torch.zeros(1, 3, 256, 256, requires_grad=True)
    norms = [m for m in discriminator.modules() if isinstance(m, torch.nn.InstanceNorm2d)]
    for norm in norms:
        norm.forward = lambda x: x  # instance norm sees the whole image
    discriminator(image)[0, 0, 15, 15].backward()
    assert image.grad is not None
    rows = image.grad.abs().sum((0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == 70


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


def test_unknown_names_are_refused_with_the_known():
    with pytest.raises(ValueError, match=next(iter(REGISTRY))):
        build('unet')
    with pytest.raises(ValueError, match='lite7'):
        build('lite_segmenter', classes=2, variant='lite7')
    with pytest.raises(ValueError, match='cannot be built'):
        build('erf_pspnet', klasses=2)


@pytest.mark.parametrize('size', [(8, 8), (9, 13), (12, 20), (60, 34)])
def test_pyramid_pools_like_adaptive_pooling(size):
    x = torch.rand(2, 3, *size)
    for bins in (1, 2, 4, 8):
        wanted = torch.nn.functional.adaptive_avg_pool2d(x, bins)
        torch.testing.assert_close(pool_to_bins(x, bins), wanted, rtol=1e-4, atol=1e-5)
