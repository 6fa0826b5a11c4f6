# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The fast generator's recipe: night→day, learned from nights whose day is known.

A synthetic night is made from a labelled day picture, so that the picture itself is the answer
and its labels say what a day segmenter has to see in it. Real nights without an answer take part
by an adversarial loss, and by their pseudo-labels where there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from nightseg_ros.config import ConfigError, to_mapping
from nightseg_ros.data.augment import AugmentConfig
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.networks import build
from nightseg_ros.networks.frozen_segmenter import FrozenSegmenter
from nightseg_ros.networks.generators import PatchGAN
from nightseg_ros.training import require_range
from nightseg_ros.training.crops import NightPairs, UnpairedCrops, picture_grid, to_network
from nightseg_ros.training.losses import (
    discriminator_loss,
    generator_loss,
    half_size_cross_entropy,
    parameter_groups,
    poly,
    weighted_sum,
)
from nightseg_ros.training.run import (
    RunConfig,
    TrainingRun,
    data_names,
    moving_average,
)
from nightseg_ros.weights import load_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class FastLossConfig:
    """Weights of the losses; 0 leaves one out."""

    color: float = 10.0
    """L1 to the day picture, values in [-1, 1], at full size and at a quarter of it."""
    gradient: float = 5.0
    """L1 of the differences between neighbours."""
    features: float = 1.0
    """L1 of the segmenter's features, each level relative to its own mean."""
    semantic: float = 1.0
    """Cross entropy of the frozen segmenter on the result against the labels."""
    night_semantic: float = 0.5
    """The same on real nights, where they have pseudo-labels."""
    adversarial: float = 0.0
    """Least-squares GAN on real nights, against day pictures of the same camera."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FastTranslatorConfig(RunConfig):
    """Settings of ``nightseg train fast_translator``."""

    data: tuple[str, ...]
    """Labelled day data sets, ADAPTER:ROOT[:SPLIT]; synthetic nights are made from them."""
    segmenter: str
    """Weights of the day segmenter that will get the results; it is not trained."""
    unpaired: tuple[str, ...] = ()
    """Day and night frames of the same cameras (images:FOLDER:day, paired:FOLDER:LABELS:night)."""
    arch: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of ``fast_generator``."""
    init: str = ''
    """Weights of a fast generator to start from; '' starts from the plain adaptation."""
    augment: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(crop=(224, 320), scale=(0.6, 1.4), night_share=0.9)
    )
    """Crop and geometry; crops that become no night teach that day stays as it is."""
    loss: FastLossConfig = field(default_factory=FastLossConfig)
    long_side: int = 480
    """Long side at which the weights will be used."""
    batch: int = 6
    """Synthetic nights a step of each process."""
    night_batch: int = 2
    """Real nights a step, where there are ``unpaired`` frames."""
    steps: int = 800
    rate: float = 2e-3
    """Peak learning rate of AdamW; poly decay with power 0.9 after a warm-up."""
    warm_up: int = 30
    weight_decay: float = 0.01
    ndf: int = 32
    """Width of the discriminator."""
    discriminator_rate: float = 2e-4
    average: float = 0.995
    """Decay of the weight average, which is what the run writes."""
    checkpoint_every: int = 50
    picture_every: int = 100
    """Steps between sample pictures; 0 draws none."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work, naming them."""
        RunConfig.__post_init__(self)
        if any(side % 32 for side in self.augment.crop):
            raise ValueError(f"'augment.crop' must be multiples of 32, got {self.augment.crop}")
        require_range(self, 1, None, 'night_batch')
        require_range(self, 0, None, 'warm_up')
        require_range(self, 0, 1, 'average')
        if self.loss.adversarial and not self.unpaired:
            raise ValueError("'loss.adversarial' needs real nights: name them in 'unpaired'")


def train_fast_translator(
    config: FastTranslatorConfig, log: Callable[[str], None] = print
) -> Path:
    """
    Run the recipe, or go on with an interrupted run in ``config.out``; return the weights' path.

    A killed run continues to the same weights (CPU, one process, same number of threads).
    """
    run = TrainingRun(config, log)
    segmenter_weights = load_weights(config.segmenter)
    segmenter = FrozenSegmenter(segmenter_weights)
    pairs = NightPairs(
        [sample for spec in config.data for sample in open_dataset(spec, segmenter.taxonomy)],
        config.augment, taxonomy=segmenter.taxonomy, seed=config.seed,
    )  # fmt: skip
    nights = None
    if config.unpaired:
        nights = UnpairedCrops(
            [sample for spec in config.unpaired for sample in open_dataset(spec)],
            crop=config.augment.crop, long_side=config.long_side, seed=config.seed, log=run.log,
        )  # fmt: skip
    torch.manual_seed(config.seed)
    try:
        generator = build('fast_generator', **config.arch)
    except ValueError as error:
        raise ConfigError(f'arch: {error}') from error
    if config.init:
        generator.load_state_dict(load_weights(config.init).tensors)
    discriminator = PatchGAN(config.ndf, styles=len(nights.cameras) if nights else 0)
    run.place(segmenter)
    groups = parameter_groups(generator, config.rate, config.weight_decay)
    G = run.add('G', generator, torch.optim.AdamW(groups))
    adam = torch.optim.Adam(discriminator.parameters(), config.discriminator_rate, (0.5, 0.999))
    # another layout adds up in another order, and the figures of old runs would differ
    D = run.add('D', discriminator, adam, channels_last=False)
    average = moving_average(generator, config.average)
    run.keep('average', average)
    metadata = run.metadata(
        'unpaired', 'init', 'segmenter', network='fast_generator', arch=dict(config.arch),
        task='translate', long_side=config.long_side,
        data=data_names((*config.data, *config.unpaired)),
        training={'segmenter': segmenter_weights.sha256},
    )  # fmt: skip
    weights = to_mapping(config.loss)
    with run:
        if nights is not None:
            real = run.load(nights, batch=config.night_batch, workers=min(1, config.workers))
        for step, (night, day, labels) in run.train(pairs):
            source, target = to_network(night), to_network(day)
            count = len(source)
            if nights is not None:
                day_A, night_B, _, labels_B, camera, _ = next(real)
                real_A = to_network(day_A)
                source = torch.cat([source, to_network(night_B)])
            generator.train()
            result = G(source).float()
            fake_A = result[count:]

            losses = picture_losses(result[:count], target)
            with run.fabric.autocast():
                with torch.no_grad():
                    wanted = segmenter.features(target)
                logits, found = segmenter.logits_and_features(result.clamp(-1, 1))
            losses['features'] = feature_loss([level[:count] for level in found], wanted)
            losses['semantic'] = half_size_cross_entropy(logits[:count], labels)
            if nights is not None:
                losses['night_semantic'] = half_size_cross_entropy(logits[count:], labels_B)
            if config.loss.adversarial:
                with run.fabric.autocast():
                    losses['adversarial'] = generator_loss(discriminator, fake_A, camera)
            loss = weighted_sum(losses, weights)
            run.minimise('G', loss, poly(step, steps=config.steps, warm_up=config.warm_up))
            average.update_parameters(generator)

            if config.loss.adversarial:
                scores = D(torch.cat([real_A, fake_A.detach()]), torch.cat([camera, camera]))
                losses['D'] = discriminator_loss(*scores.chunk(2))
                run.minimise('D', losses['D'])
            run.record(step, loss=loss, **losses)
            if run.is_due(step, config.picture_every):
                known = target if nights is None else torch.cat([target, real_A])
                run.picture(step, 'night_day', picture_grid(source, result, known))
        return run.save('weights', average.module, metadata)


def picture_losses(result: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the scalars 'color' and 'gradient' of float [B, 3, h, w] in [-1, 1]."""
    color = (result - target).abs().mean()
    color = color + (F.avg_pool2d(result, 4) - F.avg_pool2d(target, 4)).abs().mean()
    error = result - target
    gradient = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return {'color': color, 'gradient': gradient}


def feature_loss(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the mean over levels of the L1 distance, each relative to its level's mean size."""
    terms = []
    for one, other in zip(found, wanted):
        one, other = one.float(), other.float()
        terms.append((one - other).abs().mean() / other.abs().mean().clamp(min=1e-6))
    return torch.stack(terms).mean()
