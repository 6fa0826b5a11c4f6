# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Small weights with random layers, for tests that need networks and no accuracy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nightseg_ros.networks import build
from nightseg_ros.networks.generators import FastGenerator
from nightseg_ros.perception.pipeline import WeightsConfig
from nightseg_ros.runtime.graph import BANDS, FEATURES
from nightseg_ros.taxonomy import CAMVID11, Taxonomy
from nightseg_ros.weights import load_weights, RELIABILITY, save_weights, WeightsMetadata
import torch

LICENSE = 'made by the tests, free for all'


def _write(path: Path, network: torch.nn.Module, name: str, **fields: Any) -> Path:
    save_weights(path, network.state_dict(), WeightsMetadata(network=name, **fields))
    return path


def write_segmenter(path: Path, seed: int = 0, taxonomy: Taxonomy = CAMVID11) -> Path:
    """Write a segmenter whose masks vary with the picture."""
    arch = {'classes': len(taxonomy), 'variant': 'tiny', 'width': 16, 'fine_width': 16}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build('lite_segmenter', **arch)
        pictures = torch.nn.functional.interpolate(torch.randn(8, 3, 6, 10), size=(96, 160))
    with torch.no_grad():
        # random logits let one class win everywhere, unless each has the same mean and spread
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1.0
        network.train()(pictures)
        logits = network.eval()(pictures)
        spread = logits.std(dim=(0, 2, 3))
        network.classify.weight /= spread[:, None, None, None]
        network.classify.bias.copy_((network.classify.bias - logits.mean(dim=(0, 2, 3))) / spread)
    return _write(
        path, network, 'lite_segmenter', arch=arch, taxonomy=taxonomy.to_dict(), long_side=160,
        license=LICENSE,
    )  # fmt: skip


def write_network(
    path: Path, name: str, tensors: dict[str, torch.Tensor] | None = None, **arch: Any
) -> Path:
    """Write a segmenter of that kind, with random layers where no tensors are given."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build(name, **arch)
    if tensors:
        network.load_state_dict(tensors)
    return _write(path, network, name, arch=arch, taxonomy=CAMVID11.to_dict())


def give_trust(path: Path, reliability: float) -> None:
    """Let the segmenter judge every frame alike, 0 to 1."""
    weights = load_weights(path)
    network = build(weights.metadata.network, **weights.metadata.arch)
    channels = sum(network.encoder.channels)
    classes = weights.metadata.arch['classes']
    tensors = {
        'pooled_mean': torch.zeros(channels), 'pooled_scale': torch.ones(channels),
        'components': torch.zeros(2, channels), 'variances': torch.ones(2),
        'residual': torch.ones(()), 'rows_mean': torch.zeros(classes * BANDS),
        'start': torch.zeros(len(FEATURES)), 'scale': torch.ones(len(FEATURES)),
        'weight': torch.zeros(len(FEATURES)), 'bias': torch.logit(torch.tensor(reliability)),
    }  # fmt: skip
    tensors = {RELIABILITY + name: tensor for name, tensor in tensors.items()}
    save_weights(path, {**weights.tensors, **tensors}, weights.metadata)


def write_translator(
    path: Path, residual: bool = False, styles: Sequence[str] = (), way: str = ''
) -> Path:
    """Write a generator of the paper's kind, very narrow, of one or several cameras."""
    arch = {'ngf': 4, 'blocks': 1, 'residual': residual, 'styles': [*styles]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build('resnet_generator', **arch)
        if styles:
            # the norms of the cameras begin alike
            for parameter in network.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
    training = {'way': way} if way else {}
    return _write(
        path, network, 'resnet_generator', arch=arch, task='translate', training=training
    )


def write_fast_generator(path: Path) -> Path:
    """Write a generator in real time whose grid varies from cell to cell."""
    arch = {'widths': [8, 8, 16, 16]}
    network = lively_generator(**arch)
    return _write(path, network, 'fast_generator', arch=arch, task='translate')


def lively_generator(**arch: Any) -> FastGenerator:
    torch.manual_seed(0)
    network = FastGenerator(**arch)
    torch.nn.init.normal_(network.grid.weight, std=0.3)
    torch.nn.init.normal_(network.guide[2].weight, std=0.3)
    return network.eval()


def write_illumination(path: Path) -> Path:
    """
    Write an estimator that goes by the light on the ground alone.

    An even picture is day, one whose lower half is black under a bright sky is night.
    """
    network = build('illumination_net')
    for name, value in (('head.weight', 0.0), ('head.bias', 5.0), ('day_ground', 0.5)):
        network.state_dict()[name].fill_(value)
    return _write(path, network, 'illumination_net', task='illumination')


def write_all(folder: Path) -> dict[str, Path]:
    """Write weights for every route and return them by the name of their parameter."""
    return {
        'weights.day': write_segmenter(folder / 'day.safetensors', seed=1),
        'weights.night': write_segmenter(folder / 'night.safetensors', seed=2),
        'weights.translator': write_translator(folder / 'translator.safetensors'),
        'weights.illumination': write_illumination(folder / 'illumination.safetensors'),
    }


def weights_config(folder: Path) -> WeightsConfig:
    """Write weights for every route and return them as the pipeline's config names them."""
    return WeightsConfig(**{n.partition('.')[2]: str(p) for n, p in write_all(folder).items()})


def weight_flags(folder: Path, *names: str) -> list[str]:
    """Write weights; return the flags that name them, without ``names`` all but a translator."""
    files = write_all(folder)
    wanted = [f'weights.{name}' for name in names or ('day', 'night', 'illumination')]
    return [x for name in wanted for x in (f'--{name.replace(".", "-")}', str(files[name]))]
