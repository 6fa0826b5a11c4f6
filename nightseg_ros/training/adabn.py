# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""AdaBN: BatchNorm statistics of other weather or light, taken from unlabelled frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import Sample, read_image
from nightseg_ros.networks import build_from
from nightseg_ros.outputs import check_output
from nightseg_ros.runtime.pixels import HostPixels, fit
from nightseg_ros.weights import WeightsError, WeightsMetadata, load_weights, save_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaBNConfig:
    """Settings of ``nightseg train adabn``."""

    weights: str
    """Weights of a segmenter with BatchNorm."""
    data: tuple[str, ...]
    """Data sets of the light or camera to adapt to, ADAPTER:ROOT[:SPLIT]; labels are not read."""
    out: str
    """File to write."""
    blend: float = 1.0
    """Share of the new statistics: 1 forgets those of the training, 0 changes nothing."""
    batch: int = 8
    seed: int = 0
    """Which frames share a batch."""

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming it."""
        if not 0 <= self.blend <= 1:
            raise ValueError(f'blend is 0 to 1, got {self.blend}')
        if self.batch < 1:
            raise ValueError(f'batch must be at least 1, got {self.batch}')


@torch.no_grad()
def adapt_norm(config: AdaBNConfig, say: Callable[[str], None] = print) -> Path:
    """
    Write weights whose BatchNorm statistics are those of ``config.data``; return their path.

    Each layer's mean and variance are averaged over all frames while the layers before it work
    with those of their batch (Li et al. 2016); everything else stays. ``WeightsError`` where the
    network has no BatchNorm, ``DataError`` names a broken frame.
    """
    weights = load_weights(config.weights)
    network = build_from(weights)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    if not norms:
        raise WeightsError(
            f"'{weights.path}' ({weights.metadata.network}) has no BatchNorm to adapt"
        )
    before = [(_mean(layer).clone(), _var(layer).clone()) for layer in norms]
    for layer in norms:
        layer.train()
    samples = [sample for spec in config.data for sample in open_dataset(spec)]
    seen = 0
    for images in _batches(samples, weights.metadata, config):
        for layer in norms:
            # a plain mean over frames: the first batch replaces what was there
            layer.momentum = len(images) / (seen + len(images))
        network(images)
        seen += len(images)
        say(f'{seen}/{len(samples)} frames')
    for layer, (mean, var) in zip(norms, before):
        _mean(layer).lerp_(mean, 1 - config.blend)
        _var(layer).lerp_(var, 1 - config.blend)
    tensors = {
        **network.state_dict(),
        # a count of training steps, which these frames are not
        **{name: t for name, t in weights.tensors.items() if name.endswith('batches_tracked')},
    }
    adapted = {
        'from': weights.sha256,
        'frames': len(samples),
        'blend': config.blend,
        'batch': config.batch,
        'seed': config.seed,
    }
    metadata = dataclasses.replace(
        weights.metadata,
        training={**weights.metadata.training, 'adabn': adapted},
        # calibrated and compared was the network with the old statistics
        temperature=1.0,
        bfloat16=0.0,
    )
    path = Path(config.out)
    check_output(path, 'weights', Path.is_file, inputs=[weights.path])
    save_weights(path, tensors, metadata)
    return path


def _batches(
    samples: Sequence[Sample], metadata: WeightsMetadata, config: AdaBNConfig
) -> Iterator[torch.Tensor]:
    """Yield normalised float [B, 3, h, w], each batch of frames of one size."""
    pixels = HostPixels()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (metadata.mean, metadata.std))
    waiting: dict[tuple[int, int], list[torch.Tensor]] = {}
    for index in np.random.default_rng(config.seed).permutation(len(samples)):
        image = read_image(samples[index].image)
        size = fit(image.shape[0], image.shape[1], metadata.long_side)
        x = torch.from_numpy(pixels.shrink(image, 'rgb', size)).permute(2, 0, 1)
        x = (x.float() / 255 - mean) / std
        group = waiting.setdefault(size.padded, [])
        group.append(x)
        if len(group) == config.batch:
            yield torch.stack(group)
            group.clear()
    yield from (torch.stack(group) for group in waiting.values() if group)


def _mean(layer: nn.BatchNorm2d) -> torch.Tensor:
    assert layer.running_mean is not None
    return layer.running_mean


def _var(layer: nn.BatchNorm2d) -> torch.Tensor:
    assert layer.running_var is not None
    return layer.running_var
