# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The recipe of the illumination estimator's network: day against night, brightness made useless.

Each step draws the two classes equally, the cameras of a class equally and their frames at
random, then redraws what a camera may change (``illumination_augment``).
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nightseg_ros.config import to_mapping
from nightseg_ros.networks.illumination_net import IlluminationNet, illumination_net
from nightseg_ros.perception.illumination import statistics
from nightseg_ros.training.illumination_augment import augment
from nightseg_ros.training.illumination_sources import (
    IlluminationDataError,
    Thumbnails,
    load_thumbnails,
    parse_sources,
    shrink,
)
from nightseg_ros.weights import WeightsMetadata, save_weights


@dataclass(frozen=True, kw_only=True, slots=True)
class IlluminationConfig:
    """Settings of ``nightseg train illumination``."""

    data: tuple[str, ...]
    """What to learn from: 'shared:ROOT' (the real data), 'day:CAMERA:PATH' or
    'night:CAMERA:PATH', where PATH is a folder, a video, or a pattern of images."""
    out: str
    """The weights file to write."""
    steps: int = 1200
    batch: int = 32
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    label_smoothing: float = 0.05
    """Keeps the score away from 0 and 1, where a threshold could not tell anything any more."""
    relit: float = 0.35
    """Share of the night samples that are day frames turned into nights (see ``augment``)."""
    seed: int = 0
    widths: tuple[int, ...] = (12, 24, 32, 32)
    license: str = 'research, non-commercial'
    """What the training data allows; written into the weights."""

    def __post_init__(self) -> None:
        """Name the key that cannot work."""
        if not self.data:
            raise ValueError("'data' names no source")
        for spec in self.data:
            parse_sources(spec)
        for key in ('steps', 'batch'):
            if getattr(self, key) < 1:
                raise ValueError(f"'{key}' must be at least 1, got {getattr(self, key)}")
        for key in ('learning_rate', 'weight_decay'):
            if getattr(self, key) < 0:
                raise ValueError(f"'{key}' must not be negative, got {getattr(self, key)}")
        if not 0 <= self.relit <= 1:
            raise ValueError(f"'relit' must be in [0, 1], got {self.relit}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"'label_smoothing' must be in [0, 0.5), got {self.label_smoothing}")


class Sampler:
    """Draws augmented batches with equal classes and, within a class, equal cameras."""

    def __init__(self, sets: Sequence[Thumbnails], seed: int, *, relit: float = 0.0) -> None:
        """
        Keep the training sets; ``IlluminationDataError`` where a class is missing.

        ``relit`` is the share of the night frames that are made of day frames.
        """
        self._relit = relit
        self._groups: list[list[torch.Tensor]] = []
        for day in (False, True):
            cameras: dict[str, list[npt.NDArray[np.uint8]]] = {}
            for item in sets:
                if item.day == day and item.train:
                    cameras.setdefault(item.camera, []).append(item.images)
            if not cameras:
                raise IlluminationDataError(
                    f"no training source is labelled '{'day' if day else 'night'}'; day and "
                    'night are both needed'
                )
            self._groups.append(
                [torch.from_numpy(np.concatenate(images)) for images in cameras.values()]
            )
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return RGB float32 [count, 3, 64, 96] in 0–255 and labels [count], 1 for day."""
        labels = torch.arange(count) % 2
        chosen = []
        relit = (torch.rand(count, generator=self._generator) < self._relit) & (labels == 0)
        for label, day_frame in zip(labels.tolist(), relit.tolist()):
            cameras = self._groups[1 if day_frame else label]
            images = cameras[self._integer(len(cameras))]
            chosen.append(images[self._integer(len(images))])
        images = torch.stack(chosen).permute(0, 3, 1, 2).float() / 255
        return augment(images, self._generator, relit=relit), labels.float()

    def _integer(self, below: int) -> int:
        return int(torch.randint(below, (1,), generator=self._generator))


def train_illumination(
    config: IlluminationConfig, *, say: Callable[[str], None] = lambda line: None
) -> str:
    """Read the data, train, write ``config.out`` and return its SHA-256."""
    sources = [source for spec in config.data for source in parse_sources(spec)]
    sets = [load_thumbnails(source) for source in sources if source.train]
    for item in sets:
        say(f'{item.camera}: {len(item.images)} frames by {"day" if item.day else "night"}')
    network = fit(sets, config, say=say)
    cameras = sorted({f'{x.camera} ({"day" if x.day else "night"})' for x in sets})
    settings = to_mapping(config)
    # paths of the machine that trained are nobody's business, and would change the hash
    del settings['data'], settings['out']
    return save_weights(
        config.out,
        network.state_dict(),
        WeightsMetadata(
            network='illumination_net',
            arch={'widths': list(config.widths)},
            task='illumination',
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            long_side=96,
            data=f'day or night by the name of folder or clip: {", ".join(cameras)}',
            license=config.license,
            training={
                **settings,
                'machine': platform.machine(),
            },
        ),
    )


def fit(
    sets: Sequence[Thumbnails],
    config: IlluminationConfig,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> IlluminationNet:
    """
    Train on the sets whose ``train`` is true; same sets, config and thread count, same weights.

    Returns the network in evaluation mode. ``say`` gets a line about every tenth of the steps.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = illumination_net(widths=config.widths)
    sampler = Sampler(sets, config.seed, relit=config.relit)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=config.learning_rate, total_steps=config.steps + 1, pct_start=0.15
    )
    loss_of = nn.BCEWithLogitsLoss()
    network.train()
    started, every = time.monotonic(), max(1, config.steps // 10)
    for step in range(1, config.steps + 1):
        images, labels = sampler.draw(config.batch)
        logits = network(images)
        smooth = labels * (1 - 2 * config.label_smoothing) + config.label_smoothing
        loss = loss_of(logits, smooth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % every == 0:
            right = ((logits > 0).float() == labels).float().mean().item()
            left = (time.monotonic() - started) / step * (config.steps - step)
            say(
                f'step {step}/{config.steps} loss {loss.item():.3f} accuracy of the batch '
                f'{100 * right:.0f} %, {left:.0f} s left'
            )
    network.day_ground.fill_(darkest_day_ground(sets))
    return network.eval()


def darkest_day_ground(sets: Sequence[Thumbnails]) -> float:
    """
    Return ``ground_light`` that 99 % of the day frames of every training camera exceed.

    Frames of a darker road are scored as less than daylight. Only day frames set this limit.
    """
    cameras: dict[str, list[float]] = {}
    for item in sets:
        if item.day and item.train:
            values = (statistics(image)['ground_light'] for image in shrink(item.images))
            cameras.setdefault(item.camera, []).extend(values)
    return min(float(np.percentile(values, 1)) for values in cameras.values())
