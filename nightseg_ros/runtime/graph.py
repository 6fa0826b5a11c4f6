# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What is exported: a network with its pre- and post-processing inside one graph."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from nightseg_ros.networks import build_from
from nightseg_ros.runtime.trust import Observation, TrustHead, pooled, rows
from nightseg_ros.taxonomy import UNLABELLED
from nightseg_ros.weights import Weights, WeightsError

#: No trained network's logits come near; NaN and infinity are not below it.
LARGEST = 1e30


class SegmentGraph(nn.Module):
    """
    uint8 [B, h, w, 3] RGB → labels, confidence, both uint8 [B, h / 2, w / 2], and reliability [B].

    The reliability, float 0 to 1, is that of each whole frame: what the weights' ``TrustHead``
    says, or where they have none, the mean confidence.
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
        self.trust = TrustHead.of(weights)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Return ids, the softmax of the winning class times 255, and the frames' reliability.

        Where the network gave no numbers, the id is 255 and the confidence 0.
        """
        logits, features = self.look(images)
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
        if self.trust is not None:
            reliability = self.trust(self.observe(features, coarse, reliability))
        return labels.to(torch.uint8), (255 * sure).round().to(torch.uint8), reliability

    def look(self, images: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Return logits at the network's stride and its encoder's features, None without one."""
        x = images.permute(0, 3, 1, 2).float() * self.scale + self.shift
        if not hasattr(self.network, 'decode'):
            with precision(self.float16):
                return self.network(x).float(), None
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
        return Observation(
            confidence=confidence,
            pooled=pooled(features),
            rows=rows(logits, int(self.network.stride)),
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
