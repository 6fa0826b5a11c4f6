# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What is exported: a network with its pre- and post-processing inside one graph.

A segmenter's graph also says how far a frame's mask can be trusted. A softmax is sure of itself
in front of a covered lens as well. So four features are weighed, each of them larger for a worse
frame: doubt of the pixels; how far the encoder's pooled features lie from those of good frames,
within their principal components (a Mahalanobis distance) and beside them; and how far the classes
lie from the rows where good frames have them. The three distances count from where one good frame
in twenty lies: nearer, they say nothing of the accuracy. A logistic function of the features
estimates the share of right pixels. ``training.calibrate`` fits it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from nightseg_ros.networks import build_from
from nightseg_ros.taxonomy import UNLABELLED
from nightseg_ros.weights import RELIABILITY, Weights, WeightsError
import torch
from torch import nn
from torch.nn import functional as F

#: Bands of rows in which the classes are compared with those of the training.
BANDS = 8
#: Side in pixels of the tiles in which classes are counted; every input is a multiple of it.
TILE = 32
FEATURES = ('doubt', 'features_within', 'features_beside', 'rows')
TENSORS = (
    'pooled_mean', 'pooled_scale', 'components', 'variances', 'residual', 'rows_mean',
    'start', 'scale', 'weight', 'bias',
)  # fmt: skip
#: Standard deviations of good frames beyond which a feature says no more.
MOST = 8.0


@dataclass(frozen=True, slots=True)
class Observation:
    """What is seen of a batch of frames, before anything is compared with good ones."""

    confidence: torch.Tensor
    """Float [B], the mean of the softmax's top, 0 to 1."""
    pooled: torch.Tensor
    """Float [B, D], the mean over the picture of every channel of the encoder's maps."""
    rows: torch.Tensor
    """Float [B, classes · BANDS], the share of each class in each band of rows."""


class ReliabilityHead(nn.Module):
    """An ``Observation`` of a batch → reliability, float [B] from 0 to 1."""

    pooled_mean: torch.Tensor
    pooled_scale: torch.Tensor
    components: torch.Tensor
    variances: torch.Tensor
    residual: torch.Tensor
    rows_mean: torch.Tensor
    start: torch.Tensor
    scale: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take what ``training.calibrate`` fits."""
        super().__init__()
        for name in TENSORS:
            self.register_buffer(name, tensors[name].float())

    @classmethod
    def of(cls, weights: Weights) -> ReliabilityHead | None:
        """Return the head that travels with the weights, None where there is none."""
        tensors = {
            name.removeprefix(RELIABILITY): tensor
            for name, tensor in weights.tensors.items()
            if name.startswith(RELIABILITY)
        }
        return cls(tensors) if tensors else None

    def forward(self, seen: Observation) -> torch.Tensor:
        """Return the share of right pixels to expect."""
        return torch.sigmoid(self.bias - self.scaled(self.features(seen)) @ self.weight)

    def scaled(self, features: torch.Tensor) -> torch.Tensor:
        """Return features [B, 4] in units of good frames; distances count from ``start`` on."""
        z = (features - self.start) / self.scale
        return torch.cat([z[:, :1].clamp(-MOST, MOST), z[:, 1:].clamp(0, MOST)], 1)

    def features(self, seen: Observation) -> torch.Tensor:
        """Return float [B, FEATURES]; of each, more is worse."""
        z = (seen.pooled - self.pooled_mean) / self.pooled_scale
        within = z @ self.components.T
        beside = (z**2).sum(1) - (within**2).sum(1)
        columns = [
            -torch.log(seen.confidence.clamp(1e-6, 1)),
            torch.log1p((within**2 / self.variances).mean(1)),
            torch.log1p(beside.clamp(min=0) / self.residual),
            (seen.rows - self.rows_mean).abs().mean(1),
        ]
        return torch.stack(columns, 1)


#: No trained network's logits come near; NaN and infinity are not below it.
LARGEST = 1e30


class SegmentGraph(nn.Module):
    """
    uint8 [B, h, w, 3] RGB → labels, confidence, both uint8 [B, h / 2, w / 2], and reliability [B].

    The reliability, float 0 to 1, is that of each whole frame: what the weights'
    ``ReliabilityHead`` says, or where they have none, the mean confidence.
    """

    outputs = ('labels', 'confidence', 'reliability')
    float16 = False
    """Compute convolutions in float16, on a GPU."""

    def __init__(self, weights: Weights) -> None:
        """Build the network that the weights are for."""
        super().__init__()
        metadata = weights.metadata
        self.network: Any = build_from(weights)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (metadata.mean, metadata.std))
        self.scale = nn.Buffer(1 / (255 * std))
        self.shift = nn.Buffer(-mean / std)
        self.cooling = 1 / metadata.temperature
        self.upsampling = float(self.network.stride) / 2  # type: ignore[arg-type]
        self.reliability_head = ReliabilityHead.of(weights)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Return ids, the softmax of the winning class times 255, and the frames' reliability.

        Where the network gave no numbers, the id is 255 and the confidence 0.
        """
        logits, features = self.logits_and_features(images)
        coarse = logits
        logits = self.enlarge(logits)
        best, labels = logits.max(1)
        # the top of the softmax without the softmax: 1 / sum(exp(logit - best)), at least 1
        spread = torch.exp((logits - best[:, None]) * self.cooling).sum(1)
        # OpenVINO's exponential turns NaN into a number, its sum does not
        valid = logits.abs().sum(1) < LARGEST
        # by way of float: TensorRT turns nothing else into uint8
        labels = torch.where(valid, labels.float(), float(UNLABELLED))
        sure = torch.where(valid, 1 / spread, 0.0)
        reliability = sure.mean(dim=(1, 2))
        if self.reliability_head is not None:
            reliability = self.reliability_head(self.observe(features, coarse, reliability))
        return labels.to(torch.uint8), (255 * sure).round().to(torch.uint8), reliability

    def logits_and_features(self, images: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Return logits at the network's stride and its encoder's features."""
        x = images.permute(0, 3, 1, 2).float() * self.scale + self.shift
        with precision(self.float16):
            features = self.network.encoder(x)
            logits = self.network.decode(features)
        # float16 on a GPU: near winners would tie, and distances overflow
        if isinstance(features, torch.Tensor):
            return logits.float(), features.float()
        return logits.float(), [level.float() for level in features]

    def enlarge(self, logits: torch.Tensor) -> torch.Tensor:
        """Return logits at half the input's size."""
        return F.interpolate(logits, scale_factor=self.upsampling, mode='bilinear')

    def observe(
        self, features: Any, logits: torch.Tensor, confidence: torch.Tensor
    ) -> Observation:
        """Return what there is to judge a batch by; ``logits`` at the network's stride."""
        maps = [features] if isinstance(features, torch.Tensor) else features
        coarse = F.avg_pool2d(logits, TILE // int(self.network.stride)).softmax(1).mean(3)
        return Observation(
            confidence=confidence,
            pooled=torch.cat([level.mean(dim=(2, 3)) for level in maps], 1),
            rows=F.interpolate(coarse, size=BANDS, mode='linear').flatten(1),
        )


class TranslateGraph(nn.Module):
    """uint8 [B, h, w, 3] RGB at night → the same by day."""

    outputs = ('images',)
    float16 = False

    def __init__(self, weights: Weights) -> None:
        """Build the generator that the weights are for."""
        super().__init__()
        self.network = build_from(weights)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        """Return the translated images."""
        x = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        with precision(self.float16):
            y = self.network(x)
        y = (y.float() + 1) * 127.5
        return (y.permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8),)


def precision(half: bool) -> AbstractContextManager[Any]:
    """Return the context in which a network runs."""
    # without autocast's cache: what it kept from outside would not be part of a CUDA graph
    return torch.autocast('cuda', torch.float16, cache_enabled=False) if half else nullcontext()


GRAPHS: dict[str, type[SegmentGraph] | type[TranslateGraph]] = {
    'segment': SegmentGraph,
    'translate': TranslateGraph,
}


def graph_of(weights: Weights) -> SegmentGraph | TranslateGraph:
    """Return the graph for the weights' task, in evaluation mode."""
    task = weights.metadata.task
    if task not in GRAPHS:
        raise WeightsError(f"weights '{weights.path}' are for '{task}', not {' or '.join(GRAPHS)}")
    graph = GRAPHS[task](weights)
    return graph.eval().requires_grad_(False)
