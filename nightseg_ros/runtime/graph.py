# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What is exported: a network with its pre- and post-processing inside one graph."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from nightseg_ros.networks import build_from
from nightseg_ros.taxonomy import UNLABELLED
from nightseg_ros.weights import Weights, WeightsError

#: Part of the cache key: raise it when a graph's arithmetic changes.
VERSION = 2
#: No trained network's logits come near; NaN and infinity are not below it.
LARGEST = 1e30


class SegmentGraph(nn.Module):
    """uint8 [B, h, w, 3] RGB → labels and confidence, both uint8 [B, h / 2, w / 2]."""

    outputs = ('labels', 'confidence')

    def __init__(self, weights: Weights) -> None:
        """Build the network that the weights are for."""
        super().__init__()
        metadata = weights.metadata
        self.network = build_from(weights)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (metadata.mean, metadata.std))
        self.scale = nn.Buffer(1 / (255 * std))
        self.shift = nn.Buffer(-mean / std)
        self.cooling = 1 / metadata.temperature
        self.upsampling = float(self.network.stride) / 2  # type: ignore[arg-type]

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Return ids, and the softmax of the winning class times 255.

        Where the network gave no numbers, the id is 255 and the confidence 0.
        """
        x = images.permute(0, 3, 1, 2).float() * self.scale + self.shift
        logits = self.network(x)
        logits = F.interpolate(logits, scale_factor=self.upsampling, mode='bilinear')
        best, labels = logits.max(1)
        # the top of the softmax without the softmax: 1 / sum(exp(logit - best)), at least 1
        spread = torch.exp((logits - best[:, None]) * self.cooling).sum(1)
        # OpenVINO's exponential turns NaN into a number, its sum does not
        valid = logits.abs().sum(1) < LARGEST
        labels = torch.where(valid, labels, UNLABELLED)
        confidence = torch.where(valid, 255 / spread, 0.0)
        return labels.to(torch.uint8), confidence.round().to(torch.uint8)


class TranslateGraph(nn.Module):
    """uint8 [B, h, w, 3] RGB at night → the same by day."""

    outputs = ('images',)

    def __init__(self, weights: Weights) -> None:
        """Build the generator that the weights are for."""
        super().__init__()
        self.network = build_from(weights)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        """Return the translated images."""
        x = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        y = (self.network(x) + 1) * 127.5
        return (y.permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8),)


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
