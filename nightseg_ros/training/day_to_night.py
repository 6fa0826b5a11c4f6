# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The day→night GAN's recipe: what the physical night still lacks, learned from real nights.

A physical night is made from a labelled day picture, so that its labels are exact. A residual
generator changes it until a PatchGAN, which sees the picture together with its label map, takes
it for a real night. Real nights need no exact labels: the dense pseudo-labels of a segmenter tell
the discriminator what stands where. The low frequencies stay those of the physical night, and a
frozen segmenter has to find the labels again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from nightseg_ros.config import to_mapping
from nightseg_ros.data.augment import AugmentConfig, PhotometricConfig
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.night_methods import PHYSICAL_TO_NIGHT
from nightseg_ros.networks.frozen_segmenter import FrozenSegmenter
from nightseg_ros.networks.generators import PatchGAN, ResnetGenerator
from nightseg_ros.taxonomy import UNLABELLED
from nightseg_ros.training import require_range
from nightseg_ros.training.crops import NightPairs, TrainingCrops, picture_grid, to_network
from nightseg_ros.training.losses import (
    discriminator_loss,
    generator_loss,
    half_size_cross_entropy,
    poly,
    weighted_sum,
)
from nightseg_ros.training.run import RunConfig, TrainingRun, data_names, moving_average
from nightseg_ros.weights import load_weights

#: A real night is shown as it was taken.
UNTOUCHED = PhotometricConfig(
    gain=(1, 1), gamma=(1, 1), cast=0, saturation=(1, 1), curve_probability=0, blur_probability=0,
    noise_probability=0, jpeg_probability=0, halo_probability=0,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class DayToNightLossConfig:
    """Weights of the losses; 0 leaves one out."""

    adversarial: float = 1.0
    """Least-squares GAN on real nights."""
    low_frequency: float = 5.0
    """L1 to the physical night, both averaged over 16×16 pixels; values in [-1, 1]."""
    semantic: float = 0.5
    """Cross entropy of the frozen segmenter on the result against the labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DayToNightConfig(RunConfig):
    """Settings of ``nightseg train day_to_night``."""

    data: tuple[str, ...]
    """Labelled day data sets, ADAPTER:ROOT[:SPLIT]; physical nights are made from them."""
    nights: tuple[str, ...]
    """Real nights with a label for every pixel, paired:IMAGES:LABELS:night."""
    segmenter: str
    """Weights of the segmenter that has to find the labels in the results; it is not trained."""
    ngf: int = 24
    """Width of the generator."""
    blocks: int = 4
    ndf: int = 32
    """Width of the discriminator."""
    augment: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(
            crop=(192, 192), scale=(0.8, 1.4), long_side=480, night_share=1.0
        )
    )
    """Crop and geometry of both sides, and the physical night."""
    loss: DayToNightLossConfig = field(default_factory=DayToNightLossConfig)
    batch: int = 3
    steps: int = 4000
    rate: float = 2e-4
    """Peak learning rate of Adam; poly decay with power 0.9 after a warm-up."""
    discriminator_rate: float = 2e-4
    warm_up: int = 100
    average: float = 0.999
    """Decay of the weight average, which is what the run writes."""
    checkpoint_every: int = 250
    picture_every: int = 250
    """Steps between sample pictures; 0 draws none."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work, naming them."""
        RunConfig.__post_init__(self)
        if any(side % 32 for side in self.augment.crop):
            raise ValueError(f"'augment.crop' must be multiples of 32, got {self.augment.crop}")
        require_range(self, 1, None, 'ngf', 'blocks', 'ndf')
        require_range(self, 0, None, 'warm_up')
        require_range(self, 0, 1, 'average')


def train_day_to_night(config: DayToNightConfig, log: Callable[[str], None] = print) -> Path:
    """
    Run the recipe, or go on with an interrupted run in ``config.out``; return the weights' path.

    A killed run continues to the same weights (CPU, one process, same number of threads), but for
    the last bits of a float32: the products of the spectral norm round as memory is aligned.
    """
    run = TrainingRun(config, log)
    segmenter_weights = load_weights(config.segmenter)
    segmenter = FrozenSegmenter(segmenter_weights)
    taxonomy = segmenter.taxonomy
    pairs = NightPairs(
        [sample for spec in config.data for sample in open_dataset(spec, taxonomy)],
        config.augment, taxonomy=taxonomy, seed=config.seed,
    )  # fmt: skip
    nights = TrainingCrops(
        [sample for spec in config.nights for sample in open_dataset(spec, taxonomy)],
        replace(config.augment, photometric=UNTOUCHED, night_share=0.0),
        taxonomy=taxonomy, seed=config.seed,
    )  # fmt: skip
    torch.manual_seed(config.seed)
    arch = {'ngf': config.ngf, 'blocks': config.blocks, 'residual': True}
    generator = ResnetGenerator(config.ngf, config.blocks, residual=True)
    classes = len(taxonomy.classes)
    discriminator = PatchGAN(config.ndf, channels=3 + classes).apply(_normalise)
    run.place(segmenter)
    adam = torch.optim.Adam(generator.parameters(), config.rate, (0.5, 0.999))
    G = run.add('G', generator, adam)
    adam = torch.optim.Adam(discriminator.parameters(), config.discriminator_rate, (0.5, 0.999))
    # the power iteration adds up in another order in another layout, and so after resuming
    D = run.add('D', discriminator, adam, channels_last=False)
    average = moving_average(generator, config.average)
    run.keep('average', average)
    metadata = run.metadata(
        'nights', 'segmenter', network='resnet_generator', arch=arch, task='translate',
        long_side=config.augment.long_side, data=data_names((*config.data, *config.nights)),
        training={'way': PHYSICAL_TO_NIGHT, 'segmenter': segmenter_weights.sha256},
    )  # fmt: skip
    weights = to_mapping(config.loss)
    with run:
        real = run.load(nights, batch=config.batch, workers=min(1, config.workers))
        for step, (physical, _, labels) in run.train(pairs):
            factor = poly(step, steps=config.steps, warm_up=config.warm_up)
            night, labels_B = next(real)
            real_A, real_B = to_network(physical), to_network(night)
            # void has to tell nothing about which side a picture is from
            void = (labels == UNLABELLED) | (labels_B == UNLABELLED)
            map_A, map_B = (one_hot(ids, void, classes) for ids in (labels, labels_B))

            fake_B = G(real_A).float()
            with run.fabric.autocast():
                adversarial = generator_loss(discriminator, torch.cat([fake_B, map_A], 1))
                logits = segmenter(fake_B.clamp(-1, 1))
            losses = {
                'adversarial': adversarial,
                'low_frequency': low_frequency_loss(fake_B, real_A),
                'semantic': half_size_cross_entropy(logits, labels),
            }
            loss = weighted_sum(losses, weights)
            run.minimise('G', loss, factor)
            average.update_parameters(generator)

            sides = [torch.cat([real_B, map_B], 1), torch.cat([fake_B.detach(), map_A], 1)]
            losses['D'] = discriminator_loss(*D(torch.cat(sides)).chunk(2))
            run.minimise('D', losses['D'], factor)
            run.record(step, loss=loss, **losses)
            if run.is_due(step, config.picture_every):
                with torch.no_grad():
                    smooth = average.module(real_A)
                columns = picture_grid(real_A, fake_B, smooth, real_B)
                run.picture(step, 'physical_fake_average_real', columns)
        return run.save('weights', average.module, metadata)


def low_frequency_loss(fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Return the L1 distance of float [B, 3, h, w], both averaged over 16×16 pixels."""
    return (F.avg_pool2d(fake, 16) - F.avg_pool2d(real, 16)).abs().mean()


def one_hot(labels: torch.Tensor, void: torch.Tensor, classes: int) -> torch.Tensor:
    """Return uint8 ids [B, h, w] as float maps [B, classes, h, w], all 0 where bool ``void``."""
    ids = labels.long().masked_fill(void, 0)
    maps = F.one_hot(ids, classes) * (~void)[..., None]
    return maps.permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last)


def _normalise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        spectral_norm(module)
