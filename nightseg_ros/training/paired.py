# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Generators that learn from day pictures and the physical nights that are made of them.

``fast_translator`` goes from night to day: the day picture is the answer, and its labels say what
a day segmenter has to see in it. Real nights without an answer take part by an adversarial loss,
and by their pseudo-labels where there are any.

``day_to_night`` adds what the physical night still lacks. A residual generator changes it until a
PatchGAN, which sees the picture together with its label map, takes it for a real night; the labels
stay exact. Real nights need no exact labels: the dense pseudo-labels of a segmenter tell the
discriminator what stands where. The low frequencies stay those of the physical night, and a
frozen segmenter has to find the labels again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nightseg_ros.config import Limited, Natural, NotNegative, Positive, Share, to_mapping
from nightseg_ros.data.augment import AugmentConfig
from nightseg_ros.data.datasets import open_all
from nightseg_ros.data.sample import DataError
from nightseg_ros.data.synthesize import PHYSICAL_TO_NIGHT
from nightseg_ros.networks.frozen_segmenter import FrozenSegmenter
from nightseg_ros.networks.generators import PatchGAN, ResnetGenerator
from nightseg_ros.runtime.backend import Log
from nightseg_ros.taxonomy import UNLABELLED
from nightseg_ros.training.crops import NightPairs, picture_grid, to_network, UnpairedCrops
from nightseg_ros.training.losses import (
    discriminator_loss,
    generator_loss,
    half_size_cross_entropy,
    open_judges,
    parameter_groups,
    weighted_sum,
)
from nightseg_ros.training.run import CropRunConfig, data_names, LongSide, TrainingRun
from nightseg_ros.training.segmenter import first_network, open_start
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm


@dataclass(frozen=True, kw_only=True, slots=True)
class PairConfig(CropRunConfig):
    """Settings that both recipes have."""

    segmenter: str
    """Weights of the segmenter that judges the results; it is not trained."""
    ndf: Positive = 32
    """Width of the discriminator."""

    def __post_init__(self) -> None:
        CropRunConfig.__post_init__(self)
        for name in ('unlit', 'photometric'):
            if getattr(self.augment, name) != getattr(AugmentConfig(), name):
                raise ValueError(f"'augment.{name}' changes no pair; leave it out")


def _start(
    config: PairConfig, log: Log, **weights: str
) -> tuple[TrainingRun, FrozenSegmenter, NightPairs]:
    """Open the run, the frozen judge and the pairs; networks are built after the seed is set."""
    [segmenter] = open_judges([config.segmenter])
    run = TrainingRun(config, log)
    run.place(segmenter)
    days = open_all(config.data, segmenter.taxonomy)
    run.depend_on(days, segmenter=segmenter.weights.sha256, **weights)
    for day in days:
        if day.light in ('dusk', 'night'):
            raise DataError(
                f"'{day.image}' is a {day.light} without its day; keep the days by "
                "ADAPTER:ROOT:SPLIT:day. Real nights belong into 'unpaired' (fast_translator) or "
                "'nights' (day_to_night)"
            )
    pairs = NightPairs(days, config.augment, taxonomy=segmenter.taxonomy, seed=config.seed)
    return run, segmenter, pairs


def _add_discriminator(run: TrainingRun, discriminator: nn.Module) -> Any:
    """Take the discriminator to train; return what to call."""
    adam = torch.optim.Adam(discriminator.parameters(), 2e-4, (0.5, 0.999))
    # another layout adds up in another order: figures of old runs would differ, and the power
    # iteration of the spectral norm after resuming
    return run.add('D', discriminator, adam, channels_last=False)


# -- night to day ----------------------------------------------------------------------------


#: Mean of the brightest channel, of 1, below which a place has no colour to be seen.
DARK = 0.1
#: Weights of the L1 to the day picture (values in [-1, 1], at full size and a quarter of it), of
#: that of the differences between neighbours, of that of the segmenter's features (each level
#: relative to its own mean), and of the frozen segmenter's cross entropy.
DAY_LOSSES = {'color': 10.0, 'gradient': 5.0, 'features': 1.0, 'semantic': 1.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class FastLossConfig(Limited):
    """Weights of the losses on real nights; 0 leaves one out."""

    night_semantic: NotNegative = 0.5
    """Cross entropy of the frozen segmenter, where they have pseudo-labels."""
    night_color: NotNegative = 20.0
    """L1 to grey where nothing is lit, and to the night itself where a lamp is."""
    adversarial: NotNegative = 0.0
    """Least-squares GAN on real nights, against day pictures of the same camera."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FastTranslatorConfig(PairConfig):
    """Settings of ``nightseg train fast_translator``."""

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
    long_side: LongSide = 480
    """Long side at which the weights will be used."""
    batch: Positive = 6
    """Synthetic nights a step of each process."""
    night_batch: Positive = 2
    """Real nights a step, where there are ``unpaired`` frames."""
    steps: Positive = 800
    rate: NotNegative = 2e-3
    warm_up: Natural = 30
    average: Share = 0.995
    checkpoint_every: Positive = 50
    picture_every: Natural = 100

    def __post_init__(self) -> None:
        PairConfig.__post_init__(self)
        if self.loss.adversarial and not self.unpaired:
            raise ValueError("'loss.adversarial' needs real nights: name them in 'unpaired'")


def train_fast_translator(config: FastTranslatorConfig, log: Log = print) -> Path:
    """Run the recipe, or go on with an interrupted run; return the weights' path."""
    start = open_start(config.init)
    run, segmenter, pairs = _start(config, log, init=start.sha256 if start else config.init)
    nights = None
    if config.unpaired:
        samples = open_all(config.unpaired, segmenter.taxonomy)
        run.depend_on(samples)
        answered = any(sample.label for sample in samples if sample.light == 'night')
        if not config.loss.adversarial and not (answered and config.loss.night_semantic):
            raise DataError(
                "the nights of 'unpaired' would teach nothing: give 'loss.adversarial', or "
                "'loss.night_semantic' and nights with labels (paired:IMAGES:LABELS:night)"
            )
        nights = UnpairedCrops(
            samples, crop=config.augment.crop, long_side=config.long_side, seed=config.seed,
            log=run.log,
        )  # fmt: skip
    torch.manual_seed(config.seed)
    generator = first_network('fast_generator', config.arch, start or 'random')
    groups = parameter_groups(generator, config.rate, weight_decay=0.01)
    discriminator = PatchGAN(config.ndf, styles=len(nights.cameras) if nights else 0)
    G = run.add('G', generator, torch.optim.AdamW(groups), average=config.average)
    D = _add_discriminator(run, discriminator)
    metadata = run.metadata(
        {}, network='fast_generator', arch=dict(config.arch), task='translate',
        long_side=config.long_side, data=data_names((*config.data, *config.unpaired)),
        start=start,
    )  # fmt: skip
    weights = {**DAY_LOSSES, **to_mapping(config.loss)}
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
            result = G(source)
            fake_A = result[count:]

            losses = picture_losses(result[:count], visible_day(source[:count], target))
            with run.fabric.autocast():
                with torch.no_grad():
                    wanted = segmenter.features(target)
                logits, found = segmenter.logits_and_features(result.clamp(-1, 1))
            losses['features'] = feature_loss([level[:count] for level in found], wanted)
            losses['semantic'] = half_size_cross_entropy(logits[:count], labels)
            if nights is not None:
                losses['night_semantic'] = half_size_cross_entropy(logits[count:], labels_B)
                wanted_A = visible_day(source[count:], fake_A.detach())
                losses['night_color'] = F.l1_loss(fake_A, wanted_A)
            if config.loss.adversarial:
                with run.fabric.autocast():
                    losses['adversarial'] = generator_loss(discriminator, fake_A, camera)
            loss = weighted_sum(losses, weights)
            run.minimise('G', loss, config.factor(step))

            if config.loss.adversarial:
                scores = D(torch.cat([real_A, fake_A.detach()]), torch.cat([camera, camera]))
                losses['D'] = discriminator_loss(*scores.chunk(2))
                run.minimise('D', losses['D'])
            run.record(step, loss=loss, **losses)
            if run.is_due(step, config.picture_every):
                known = target if nights is None else torch.cat([target, real_A])
                run.picture(step, 'night_day', picture_grid(source, result, known))
        return run.save('weights', run.averaged('G'), metadata)


def visible_day(night: torch.Tensor, day: torch.Tensor) -> torch.Tensor:
    """
    Return the part of ``day`` that ``night`` can tell, both float [B, 3, h, w] in [-1, 1].

    It is grey where nothing is lit: the mean of what may stand there would be a cloud of olive.
    A lamp, brighter than its surroundings of 33×33 pixels, stays as it is by night.
    """
    peak = night.amax(1, keepdim=True)
    lit = F.avg_pool2d(peak * 0.5 + 0.5, 17, 1, 8, count_include_pad=False) / DARK
    grey = day.mean(1, keepdim=True)
    day = grey + (day - grey) * lit.clamp(0, 1)
    around = F.avg_pool2d(peak, 33, 1, 16, count_include_pad=False)
    lamp = ((peak - around - 0.6) / 0.4).clamp(0, 1)
    return day.lerp(night, lamp)


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


# -- day to night ----------------------------------------------------------------------------


#: Weights of the least-squares GAN on real nights, of the L1 to the physical night (both averaged
#: over 16×16 pixels, values in [-1, 1]), and of the frozen segmenter's cross entropy.
NIGHT_LOSSES = {'adversarial': 1.0, 'low_frequency': 5.0, 'semantic': 0.5}


@dataclass(frozen=True, kw_only=True, slots=True)
class DayToNightConfig(PairConfig):
    """Settings of ``nightseg train day_to_night``."""

    nights: tuple[str, ...]
    """Real nights with a label for every pixel, paired:IMAGES:LABELS:night."""
    ngf: Positive = 24
    """Width of the generator."""
    blocks: Positive = 4
    augment: AugmentConfig = field(
        default_factory=lambda: AugmentConfig(
            crop=(192, 192), scale=(0.8, 1.4), long_side=480, night_share=1.0
        )
    )
    """Crop and geometry of both sides, and the physical night."""
    batch: Positive = 3
    steps: Positive = 4000
    rate: NotNegative = 2e-4
    warm_up: Natural = 100
    average: Share = 0.999
    checkpoint_every: Positive = 250
    picture_every: Natural = 250

    def __post_init__(self) -> None:
        PairConfig.__post_init__(self)
        if self.augment.long_side < 32:
            raise ValueError("'augment.long_side' must be that of the pictures in use, 32 or more")


def train_day_to_night(config: DayToNightConfig, log: Log = print) -> Path:
    """
    Run the recipe, or go on with an interrupted run in ``config.out``; return the weights' path.

    A killed run continues to the same weights (CPU, one process, same number of threads), but for
    the last bits of a float32: the products of the spectral norm round as memory is aligned.
    """
    run, segmenter, pairs = _start(config, log)
    taxonomy = segmenter.taxonomy
    # real nights as they were taken, each of them its own day
    own = replace(config.augment, night_share=0.0)
    samples = open_all(config.nights, taxonomy)
    for sample in samples:
        if sample.light == 'day':
            raise DataError(f"'{sample.image}' is a day; 'nights' are real nights")
    run.depend_on(samples)
    nights = NightPairs(samples, own, taxonomy=taxonomy, seed=config.seed)
    torch.manual_seed(config.seed)
    arch = {'ngf': config.ngf, 'blocks': config.blocks, 'residual': True}
    generator = ResnetGenerator(config.ngf, config.blocks, residual=True)
    adam = torch.optim.Adam(generator.parameters(), config.rate, (0.5, 0.999))
    classes = len(taxonomy.classes)
    discriminator = PatchGAN(config.ndf, channels=3 + classes).apply(_normalise)
    G = run.add('G', generator, adam, average=config.average)
    D = _add_discriminator(run, discriminator)
    metadata = run.metadata(
        {'way': PHYSICAL_TO_NIGHT}, network='resnet_generator', arch=arch, task='translate',
        long_side=config.augment.long_side, data=data_names((*config.data, *config.nights)),
    )  # fmt: skip
    with run:
        real = run.load(nights, batch=config.batch, workers=min(1, config.workers))
        for step, (physical, _, labels) in run.train(pairs):
            factor = config.factor(step)
            night, _, labels_B = next(real)
            real_A, real_B = to_network(physical), to_network(night)
            # void has to tell nothing about which side a picture is from
            void = (labels == UNLABELLED) | (labels_B == UNLABELLED)
            map_A, map_B = (one_hot(ids, void, classes) for ids in (labels, labels_B))

            fake_B = G(real_A)
            with run.fabric.autocast():
                shown = torch.cat([fake_B, map_A], 1)
                adversarial = generator_loss(discriminator, shown)
                logits = segmenter(fake_B.clamp(-1, 1))
            losses = {
                'adversarial': adversarial,
                'low_frequency': F.l1_loss(F.avg_pool2d(fake_B, 16), F.avg_pool2d(real_A, 16)),
                'semantic': half_size_cross_entropy(logits, labels),
            }
            loss = weighted_sum(losses, NIGHT_LOSSES)
            run.minimise('G', loss, factor)

            sides = [torch.cat([real_B, map_B], 1), torch.cat([fake_B.detach(), map_A], 1)]
            losses['D'] = discriminator_loss(*D(torch.cat(sides)).chunk(2))
            run.minimise('D', losses['D'], factor)
            run.record(step, loss=loss, **losses)
            if run.is_due(step, config.picture_every):
                with torch.no_grad():
                    smooth = run.averaged('G')(real_A)
                columns = picture_grid(real_A, fake_B, smooth, real_B)
                run.picture(step, 'physical_fake_average_real', columns)
        return run.save('weights', run.averaged('G'), metadata)


def one_hot(labels: torch.Tensor, void: torch.Tensor, classes: int) -> torch.Tensor:
    """Return uint8 ids [B, h, w] as float maps [B, classes, h, w], all 0 where bool ``void``."""
    ids = labels.long().masked_fill(void, 0)
    maps = F.one_hot(ids, classes) * (~void)[..., None]
    return maps.permute(0, 3, 1, 2).float().contiguous(memory_format=torch.channels_last)


def _normalise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        spectral_norm(module)
