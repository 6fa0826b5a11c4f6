# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A trained segmenter as a judge of pictures: gradients pass through it, it never learns."""

from __future__ import annotations

from typing import Any

from nightseg_ros.networks import build_from
from nightseg_ros.taxonomy import Taxonomy
from nightseg_ros.weights import Weights, WeightsError
import torch
from torch import nn


class FrozenSegmenter(nn.Module):
    """Float [B, 3, H, W] in [-1, 1], H and W multiples of 32 → logits float [B, C, h, w]."""

    def __init__(self, weights: Weights) -> None:
        """Build the network; ``WeightsError`` where the weights are no segmenter's."""
        super().__init__()
        metadata = weights.metadata
        if metadata.task != 'segment' or metadata.taxonomy is None:
            raise WeightsError(
                f"weights '{weights.path}' are for '{metadata.task}' and cannot judge pictures; "
                'a segmenter is wanted'
            )
        self.weights = weights.described()
        self.network: Any = build_from(weights).requires_grad_(False)
        self.taxonomy = Taxonomy.from_dict(metadata.taxonomy)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (metadata.mean, metadata.std))
        self.scale = nn.Buffer(0.5 / std)
        self.shift = nn.Buffer((0.5 - mean) / std)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits at the network's stride."""
        return self.logits_and_features(x)[0]

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the encoder's feature maps, finest first; one map where it has one output."""
        y = (x * self.scale + self.shift).contiguous(memory_format=torch.channels_last)
        maps = self.network.encoder(y)
        return [maps] if isinstance(maps, torch.Tensor) else list(maps)

    def logits_and_features(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the logits and the encoder's feature maps of one pass."""
        maps = self.features(x)
        return self.network.decode(maps if len(maps) > 1 else maps[0]), maps

    def train(self, mode: bool = True) -> FrozenSegmenter:
        """Stay in evaluation mode."""
        return super().train(False)
