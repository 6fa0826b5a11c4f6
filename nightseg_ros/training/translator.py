# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
CycleGAN between day (A) and night (B) of the same cameras, without pairs (Zhu et al. 2017).

As published: least-squares GAN, cycle and identity losses, a pool of 50 fakes, 70×70 PatchGAN,
Adam at 2e-4 that decays linearly over the second half, square crops. Beyond it: day and night
come from one camera, generators and discriminators are told which; the two directions are
weighted apart, since night→day goes from poor to rich; a frozen segmenter has to see the same
scene before and after.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nightseg_ros.config import Limited, Natural, NotNegative, Positive, to_mapping
from nightseg_ros.data.datasets import open_all
from nightseg_ros.networks.frozen_segmenter import FrozenSegmenter
from nightseg_ros.networks.generators import PatchGAN, ResnetGenerator
from nightseg_ros.runtime.backend import Log
from nightseg_ros.taxonomy import CAMVID11, UNLABELLED
from nightseg_ros.training.crops import ImagePool, picture_grid, to_network, UnpairedCrops
from nightseg_ros.training.losses import (
    discriminator_loss,
    generator_loss,
    open_judges,
    weighted_sum,
)
from nightseg_ros.training.run import data_names, LongSide, RunConfig, TrainingRun
import torch
from torch import nn
from torch.nn import functional as F

#: Spread of the initial weights, as published.
INITIAL_DEVIATION = 0.02
#: Fakes of earlier steps that each discriminator is shown again.
POOL = 50
#: Share of the crops whose camera the generators are not told, which trains 'any'.
UNTOLD = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectionConfig(Limited):
    """Weights of one direction's losses; 0 leaves one out."""

    gan: NotNegative = 1.0
    cycle: NotNegative = 10.0
    """L1 of there and back again, counted for the way there."""
    identity: NotNegative = 5.0
    """L1 of what happens to pictures that are of the wanted light already."""
    semantic: NotNegative = 1.0
    """Cross entropy of the frozen segmenter after against before, where it is given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TranslatorConfig(RunConfig):
    """Settings of ``nightseg train translator``."""

    data: tuple[str, ...]
    """Day and night frames of the same cameras: images:FOLDER:day images:FOLDER:night."""
    segmenter: str = ''
    """Weights of a segmenter for the semantic loss, seeing day and night; '' leaves it out."""
    night_segmenter: str = ''
    """Weights of a segmenter that sees night pictures instead; '' takes the other one."""
    ngf: Positive = 64
    """Width of the generators."""
    blocks: Natural = 9
    residual: bool = False
    """The generators give a change of the picture, not the picture: for short trainings."""
    ndf: Positive = 64
    """Width of the discriminators."""
    styled: bool = True
    """The networks are told the camera; False is one style for all, as published."""
    crop: int = 256
    """Side of the square crops; in use any size goes."""
    long_side: LongSide = 480
    """Long side of the whole pictures that the crops come from, and of those in use."""
    day_to_night: DirectionConfig = field(default_factory=DirectionConfig)
    night_to_day: DirectionConfig = field(default_factory=lambda: DirectionConfig(cycle=5.0))
    batch: Positive = 1
    steps: Positive = 50_000
    rate: NotNegative = 2e-4
    """Learning rate of Adam in the first half; then it falls to 0 in a line."""
    workers: Natural = 1
    checkpoint_every: Positive = 200
    picture_every: Natural = 500
    log_every: Positive = 50

    def __post_init__(self) -> None:
        Limited.__post_init__(self)
        multiple = 32 if self.segmenter else 4
        if self.crop < 32 or self.crop % multiple:
            raise ValueError(f"'crop' must be a multiple of {multiple} from 32, got {self.crop}")
        if self.night_segmenter and not self.segmenter:
            raise ValueError("'night_segmenter' needs a 'segmenter' for the day as well")


class Generators(nn.Module):
    """Both generators; one pass makes every picture that the losses of a step need."""

    def __init__(self, config: TranslatorConfig, arch: dict[str, Any]) -> None:
        super().__init__()
        self.G_AB, self.G_BA = (ResnetGenerator(**arch).apply(_initialise) for _ in 'AB')
        self._identity = config.day_to_night.identity > 0, config.night_to_day.identity > 0

    def forward(
        self, real_A: torch.Tensor, real_B: torch.Tensor, style: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """Return fake, rec and, if its loss counts, idt; float [B, 3, h, w] in [-1, 1]."""
        fake_B, fake_A = self.G_AB(real_A, style), self.G_BA(real_B, style)
        made = {
            'fake_B': fake_B, 'rec_A': self.G_BA(fake_B, style),
            'fake_A': fake_A, 'rec_B': self.G_AB(fake_A, style),
        }  # fmt: skip
        if self._identity[0]:
            made['idt_B'] = self.G_AB(real_B, style)
        if self._identity[1]:
            made['idt_A'] = self.G_BA(real_A, style)
        return made


class Discriminators(nn.Module):
    """Both discriminators: D_A tells real day from fake, D_B real night."""

    def __init__(self, ndf: int, styles: int) -> None:
        super().__init__()
        self.D_A, self.D_B = (PatchGAN(ndf, styles).apply(_initialise) for _ in 'AB')

    def forward(self, *shown: tuple[torch.Tensor, torch.Tensor]) -> list[torch.Tensor]:
        """Return the scores of pictures with cameras: real A, fake A, real B, fake B."""
        networks = (self.D_A, self.D_A, self.D_B, self.D_B)
        return [network(*pictures) for network, pictures in zip(networks, shown)]


def train_translator(config: TranslatorConfig, log: Log = print) -> tuple[Path, ...]:
    """Run the recipe, or go on with an interrupted run; return the weights of A→B and of B→A."""
    names = [name for name in (config.segmenter, config.night_segmenter) if name]
    segmenters = open_judges(names)
    run = TrainingRun(config, log)
    taxonomy = segmenters[0].taxonomy if segmenters else CAMVID11
    samples = open_all(config.data, taxonomy)
    run.depend_on(samples, segmenters=[segmenter.weights.sha256 for segmenter in segmenters])
    crops = UnpairedCrops(
        samples, crop=(config.crop, config.crop),
        long_side=config.long_side, untold=UNTOLD, seed=config.seed, log=run.log,
    )  # fmt: skip
    torch.manual_seed(config.seed)
    styles = crops.cameras if config.styled else ()
    arch: dict[str, Any] = {'ngf': config.ngf, 'blocks': config.blocks}
    arch |= {'residual': True} if config.residual else {}
    arch |= {'styles': list(styles)} if styles else {}
    generators = Generators(config, arch)
    discriminators = Discriminators(config.ndf, len(styles))
    for segmenter in segmenters:
        run.place(segmenter)
    G, D = (
        run.add(name, network, torch.optim.Adam(network.parameters(), config.rate, (0.5, 0.999)))
        for name, network in (('G', generators), ('D', discriminators))
    )
    pool_A, pool_B = (ImagePool(POOL, config.seed * 2 + side) for side in (0, 1))
    run.keep('pool_A', pool_A)
    run.keep('pool_B', pool_B)
    weights = {
        f'{kind}_{way}': weight
        for way, direction in (('AB', config.day_to_night), ('BA', config.night_to_day))
        for kind, weight in to_mapping(direction).items()
    }
    with run:
        for step, (day, night, labels_A, labels_B, camera, told) in run.train(crops):
            real_A, real_B = to_network(day), to_network(night)
            factor = min(1.0, 2 * (1 - step / config.steps))
            made = G(real_A, real_B, told if styles else None)
            fake_A, fake_B = made['fake_A'], made['fake_B']
            losses: dict[str, torch.Tensor] = {}
            with run.fabric.autocast():
                for x, y, real, other, judge in (
                    ('A', 'B', real_A, real_B, discriminators.D_B),
                    ('B', 'A', real_B, real_A, discriminators.D_A),
                ):
                    way = x + y
                    losses[f'gan_{way}'] = generator_loss(judge, made[f'fake_{y}'], camera)
                    losses[f'cycle_{way}'] = (made[f'rec_{x}'] - real).abs().mean()
                    if f'idt_{y}' in made:
                        losses[f'identity_{way}'] = (made[f'idt_{y}'] - other).abs().mean()
                if segmenters:
                    seg_A, seg_B = segmenters[0], segmenters[-1]
                    losses['semantic_AB'] = semantic_loss(seg_A, seg_B, real_A, fake_B, labels_A)
                    losses['semantic_BA'] = semantic_loss(seg_B, seg_A, real_B, fake_A, labels_B)
            loss = weighted_sum(losses, weights)
            run.minimise('G', loss, factor)

            old_A = pool_A.exchange(fake_A, camera, step)
            old_B = pool_B.exchange(fake_B, camera, step)
            scores = D((real_A, camera), old_A, (real_B, camera), old_B)
            losses['D_A'] = discriminator_loss(*scores[:2])
            losses['D_B'] = discriminator_loss(*scores[2:])
            run.minimise('D', losses['D_A'] + losses['D_B'], factor)

            run.record(step, G=loss, **losses)
            if run.is_due(step, config.picture_every):
                columns = real_A, fake_B, made['rec_A'], real_B, fake_A, made['rec_B']
                run.picture(step, 'A_B_A_B_A_B', picture_grid(*(x[:4] for x in columns)))
        paths = []
        for way, network in (('day_to_night', generators.G_AB), ('night_to_day', generators.G_BA)):
            metadata = run.metadata(
                {'way': way}, network='resnet_generator', arch=arch, task='translate',
                long_side=config.long_side, data=data_names(config.data),
            )  # fmt: skip
            paths.append(run.save(way, network, metadata))
    return tuple(paths)


def semantic_loss(
    before: FrozenSegmenter, after: FrozenSegmenter, real: torch.Tensor, fake: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """Cross entropy of ``after`` on fake against ``before`` on real; known int [B, H, W] win."""
    with torch.no_grad():
        target = before(real).float().softmax(1)
        # the pixel in the middle of each cell
        size, known = target.shape[2:], labels[:, None].float()
        ids = F.interpolate(known, size=size, mode='nearest-exact')[:, 0].long()
        known = (ids != UNLABELLED)[:, None]
        hard = F.one_hot(ids.clamp(max=target.shape[1] - 1), target.shape[1]).permute(0, 3, 1, 2)
        target = torch.where(known, hard.float(), target)
    return F.cross_entropy(after(fake).float(), target)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, INITIAL_DEVIATION)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
