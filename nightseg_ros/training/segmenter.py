# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
A checkpoint chosen by its score on data that is for choosing only.

The segmenter's recipe: labelled day frames and synthetic night in, weights out.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional as F

from nightseg_ros.config import ConfigError, to_mapping
from nightseg_ros.data.augment import AugmentConfig
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import DataError, Sample, read_image, read_labels
from nightseg_ros.evaluation.metrics import ConfusionMatrix
from nightseg_ros.networks import build
from nightseg_ros.perception.pipeline import Segmenter
from nightseg_ros.perception.rendering import Renderer
from nightseg_ros.runtime.pixels import HostPixels, fit
from nightseg_ros.runtime.torch_backend import TorchBackend
from nightseg_ros.taxonomy import TAXONOMIES, Taxonomy
from nightseg_ros.training.crops import CropLoader, TrainingCrops
from nightseg_ros.training.losses import (
    CrossEntropy,
    Together,
    class_weights,
    parameter_groups,
    poly,
    segmentation_loss,
    set_rate,
    speed_up_cpu_training,
)
from nightseg_ros.training.run import Precision, Run, WeightAverage, initialise, open_fabric
from nightseg_ros.weights import Weights, WeightsMetadata, save_weights


class Selection:
    """
    The best score so far and its step, which travel in the checkpoint.

    The score is the mIoU over the classes present, of the graph that is deployed.
    """

    def __init__(self, samples: Sequence[Sample], device: str, name: str) -> None:
        """
        Check that every sample is labelled.

        ``device`` is where the network is scored, ``name`` what the weights call the data.
        """
        unlabelled = [sample.image for sample in samples if sample.label is None]
        if unlabelled:
            raise DataError(f"'{unlabelled[0]}' has no labels; selection data is labelled")
        self.samples, self.name = list(samples), name
        self.backend = TorchBackend(device)
        self.best = torch.tensor(-1.0, dtype=torch.float64)
        self.step = torch.tensor(-1)

    def state_dict(self) -> dict[str, Any]:
        """Return best score and step."""
        return {'best': self.best, 'step': self.step}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take them back."""
        self.best, self.step = state['best'], state['step']

    def score(self, network: nn.Module, metadata: WeightsMetadata) -> float:
        """Return the mIoU in [0, 1] of a network that is described by ``metadata``."""
        weights = Weights(
            path=Path('the network in training'),
            sha256='',
            metadata=metadata,
            tensors={name: tensor.cpu() for name, tensor in network.state_dict().items()},
        )
        with torch.random.fork_rng():  # building a network draws random numbers
            segmenter = Segmenter(weights, self.backend, lambda text: None)
        pixels = self.backend.pixels
        matrix = ConfusionMatrix(segmenter.taxonomy)
        for sample in self.samples:
            assert sample.label is not None
            image, truth = read_image(sample.image), read_labels(sample.label)
            size = fit(image.shape[0], image.shape[1], metadata.long_side)
            labels, *_ = segmenter(pixels.stack([pixels.shrink(image, 'rgb', size)]))
            matrix.add(truth, pixels.download(pixels.enlarge(labels[0], size)))
        return matrix.miou()

    def keep_best(
        self, path: Path, network: nn.Module, metadata: WeightsMetadata, step: int
    ) -> float:
        """Score the network and write it to ``path`` if it is the best so far."""
        score = self.score(network, metadata)
        if score > float(self.best):
            self.best, self.step = torch.tensor(score, dtype=torch.float64), torch.tensor(step)
            chosen = {'step': step, 'miou': score, 'data': self.name}
            training = {**metadata.training, 'selected': chosen}
            save_weights(path, network.state_dict(), replace(metadata, training=training))
        return score


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
    """Folder of the run: checkpoint, metrics.jsonl, pictures and weights.safetensors."""
    taxonomy: str = 'camvid11'
    network: str = 'lite_segmenter'
    arch: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the network's builder, beside the number of classes."""
    init: str = 'imagenet'
    """'imagenet', 'random', or weights to start from."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Crop, geometry, camera, and the share of synthetic night."""
    classmix: float = 0.0
    """Probability that half of the classes of another crop, a real night one if the data has any,
    are pasted in."""
    long_side: int = 480
    """Long side at which the weights will be used."""
    batch: int = 8
    """Crops a step of each process."""
    steps: int = 1200
    rate: float = 1.5e-3
    """Peak learning rate of AdamW; poly decay with power 0.9 after a warm-up."""
    encoder_rate: float = 0.3
    """The pretrained encoder's learning rate, as a factor of ``rate``."""
    warm_up: int = 60
    weight_decay: float = 0.02
    freeze_norm: bool = False
    """BatchNorm keeps the statistics it starts with; its scale and shift still learn."""
    norm_momentum: float | None = None
    """Share of each step in BatchNorm's statistics; none leaves the network's own. A training of
    a few hundred steps from random weights needs about 0.1."""
    loss: CrossEntropy = 'ce'
    """Cross entropy of all labelled pixels, or 'ohem': of the hard ones."""
    balance: float = 0.0
    """Exponent of the class weights in 'ce': 0 weighs pixels alike, 1 classes."""
    lovasz: float = 0.5
    """Weight of the Lovász-softmax loss beside it."""
    average: float = 0.998
    """Decay of the weight average, which is what the run writes."""
    select: tuple[str, ...] = ()
    """Labelled data sets (never test data) to choose a step on: it becomes best.safetensors."""
    select_every: int = 200
    seed: int = 0
    precision: Precision = 'bf16-mixed'
    accelerator: str = 'cpu'
    """'cpu', 'cuda' or 'auto'; under torchrun each process has a device of its own."""
    workers: int = 2
    checkpoint_every: int = 100
    picture_every: int = 200
    """Steps between sample pictures; 0 draws none."""
    license: str = LITE_LICENSE
    """What the training data allows; written into the weights."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work, naming them."""
        if any(side % 32 for side in self.augment.crop):
            raise ValueError(f'augment.crop must be multiples of 32, got {self.augment.crop}')
        if self.taxonomy not in TAXONOMIES:
            raise ValueError(f"no taxonomy '{self.taxonomy}'; there are {list(TAXONOMIES)}")
        for name in ('batch', 'steps', 'checkpoint_every', 'select_every'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} must be at least 1, got {getattr(self, name)}')
        for name in ('workers', 'picture_every', 'lovasz', 'warm_up'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name} must not be negative, got {getattr(self, name)}')
        if not 0 <= self.classmix <= 1:
            raise ValueError(f'classmix is 0 to 1, got {self.classmix}')
        if not 0 <= self.balance <= 1:
            raise ValueError(f'balance is 0 to 1, got {self.balance}')
        if self.balance and self.loss == 'ohem':
            raise ValueError("balance weighs the classes of loss 'ce', not of 'ohem'; set it to 0")
        if self.norm_momentum is not None and not 0 < self.norm_momentum <= 1:
            raise ValueError(f'norm_momentum is above 0 to 1, got {self.norm_momentum}')
        if not 0 <= self.average < 1:
            raise ValueError(f'average must be 0 to below 1, got {self.average}')


def train_segmenter(config: SegmenterConfig, say: Callable[[str], None] = print) -> Path:
    """
    Run the recipe, or go on with an interrupted run in ``config.out``; return the weights' path.

    Every random choice is drawn from seed and step, so that a killed run continues to the same
    weights (CPU, one process, same number of threads). ``DataError`` names a broken file.
    """
    fabric = open_fabric(config.accelerator, config.precision)
    taxonomy = TAXONOMIES[config.taxonomy]
    samples = [sample for spec in config.data for sample in open_dataset(spec, taxonomy)]
    crops = TrainingCrops(
        samples, config.augment, taxonomy=taxonomy, seed=config.seed, classmix=config.classmix
    )
    torch.manual_seed(config.seed)
    arch = {'classes': len(taxonomy), **config.arch}
    network = _network(config, arch, fabric)
    optimizer = torch.optim.AdamW(
        parameter_groups(network, config.rate, config.weight_decay, _rate_factor(config))
    )
    wrapped, wrapped_optimizer = fabric.setup(network, optimizer)
    average = WeightAverage(network, config.average)
    select = [sample for spec in config.select for sample in open_dataset(spec, taxonomy)]
    selection = None
    if select:
        selection = Selection(select, fabric.device.type, _names(config.select))
    metadata = _metadata(config, arch, fabric)

    mean, std = (
        torch.tensor(v, device=fabric.device).view(3, 1, 1) * 255 for v in (LITE_MEAN, LITE_STD)
    )
    weight = None
    if config.balance:
        weight = class_weights(samples, len(taxonomy), config.balance).to(fabric.device)
    together = Together(fabric)
    generator = torch.Generator() if fabric.world_size > 1 else None
    with Run(
        Path(config.out), config=to_mapping(config), steps=config.steps, fabric=fabric,
        networks={'network': network, 'average': average.network},
        optimizers={'optimizer': optimizer}, extra=selection,
        checkpoint_every=config.checkpoint_every, picture_every=config.picture_every, say=say,
    ) as run:  # fmt: skip
        loader = CropLoader(
            crops, batch=config.batch, steps=config.steps, first=run.first,
            rank=fabric.global_rank, world=fabric.world_size, workers=config.workers,
        )  # fmt: skip
        for step, (images, labels) in enumerate(loader, start=run.first):
            seed = config.seed * 1_000_003 + step
            torch.manual_seed(seed + (fabric.global_rank << 32))
            if generator is not None:
                generator.manual_seed(seed)  # all processes draw the same pixels
            factor = poly(step, steps=config.steps, warm_up=config.warm_up)
            set_rate(optimizer, factor)
            x = (images.to(fabric.device).permute(0, 3, 1, 2).float() - mean) / std
            _train_mode(network, config.freeze_norm)
            logits = wrapped(x.contiguous(memory_format=torch.channels_last))
            # the deployed graph takes its labels from logits at half the network's size
            half = F.interpolate(
                logits.float(), size=[side // 2 for side in x.shape[2:]], mode='bilinear'
            )
            loss = segmentation_loss(
                half, labels[:, 1::2, 1::2].long().to(fabric.device), kind=config.loss,
                weight=weight, lovasz=config.lovasz, generator=generator, together=together,
            )  # fmt: skip
            optimizer.zero_grad()
            fabric.backward(loss)
            wrapped_optimizer.step()
            average.update(network, step)
            if run.wants_log(step):
                mean_loss = float(together.total(loss)) / together.world
                run.log(step, loss=mean_loss, rate=config.rate * factor)
            if run.wants_picture(step):
                run.picture(step, 'crops', _strips(images, labels, half.argmax(1), taxonomy))
            due = (step + 1) % config.select_every == 0 or step == config.steps - 1
            if selection is not None and due and fabric.global_rank == 0:
                best = run.out / 'best.safetensors'
                score = selection.keep_best(best, average.network, metadata, step)
                say(f'step {step}/{config.steps} selection mIoU {score:.4f}')
            run.checkpoint(step)
    path = Path(config.out) / 'weights.safetensors'
    if fabric.global_rank == 0:
        save_weights(path, average.network.state_dict(), metadata)
    if fabric.world_size > 1:
        fabric.barrier()
    return path


def _network(config: SegmenterConfig, arch: dict[str, Any], fabric: Fabric) -> nn.Module:
    """Build the network with what it starts from; ``ConfigError`` names a wrong ``arch``."""
    try:
        network = build(config.network, **arch)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    initialise(network, config.init, config.arch)
    if config.norm_momentum is not None:
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = config.norm_momentum
    if fabric.device.type == 'cpu':
        speed_up_cpu_training(network)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _rate_factor(config: SegmenterConfig) -> Callable[[str], float]:
    """Return the factor of a parameter's learning rate by its name."""
    encoder = 1.0 if config.init == 'random' else config.encoder_rate
    return lambda name: encoder if name.startswith('encoder.') else 1.0


def _train_mode(network: nn.Module, freeze_norm: bool) -> None:
    network.train()
    if freeze_norm:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def _strips(
    images: torch.Tensor, labels: torch.Tensor, predicted: torch.Tensor, taxonomy: Taxonomy
) -> npt.NDArray[np.uint8]:
    """Return RGB uint8: image, labels and prediction of the first three crops, a row each."""
    renderer = Renderer(taxonomy, HostPixels())
    rows = []
    for image, truth, found in list(zip(images, labels, predicted))[:3]:
        height, width = truth.shape
        guess = cv2.resize(
            found.to(torch.uint8).cpu().numpy(), (width, height),
            interpolation=cv2.INTER_NEAREST_EXACT,
        )  # fmt: skip
        masks = [renderer.color(ids) for ids in (truth.numpy(), guess)]
        rows.append(np.hstack([image.numpy(), *masks]))
    return np.asarray(np.vstack(rows), np.uint8)


def _names(specs: tuple[str, ...]) -> str:
    """Return the data sets without the folders they lie in on this machine."""
    return ', '.join(Path(spec.partition(':')[2]).name for spec in specs)


def _metadata(config: SegmenterConfig, arch: dict[str, Any], fabric: Fabric) -> WeightsMetadata:
    machine = f'{platform.machine()} CPU, {torch.get_num_threads()} threads'
    if fabric.device.type == 'cuda':
        machine = torch.cuda.get_device_name(fabric.device)
    if fabric.world_size > 1:
        machine = f'{fabric.world_size} processes, each {machine}'
    mapping = to_mapping(config)
    left_out = ('out', 'data', 'init', 'select', 'workers', 'checkpoint_every', 'picture_every')
    return WeightsMetadata(
        network=config.network,
        arch=arch,
        task='segment',
        taxonomy=TAXONOMIES[config.taxonomy].to_dict(),
        mean=LITE_MEAN,
        std=LITE_STD,
        long_side=config.long_side,
        data=_names(config.data),
        ratio=config.augment.night_share,
        license=config.license,
        training={
            **{key: value for key, value in mapping.items() if key not in left_out},
            'init': Path(config.init).stem,
            'machine': machine,
        },
    )
