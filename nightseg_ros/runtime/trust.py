# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
How far a frame's mask can be trusted, computed in the segmenter's own graph.

A softmax is sure of itself in front of a covered lens as well. So four signs are weighed, each of
them larger for a worse frame: doubt of the pixels; how far the encoder's pooled features lie from
those of good frames, within their principal components (a Mahalanobis distance) and beside them;
and how far the classes lie from the rows where good frames have them. The three distances count
from where one good frame in twenty lies: nearer, they say nothing of the accuracy. A logistic
function of the signs estimates the share of right pixels. ``training.trust`` fits it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from nightseg_ros.weights import TRUST, Weights

#: Bands of rows in which the classes are compared with those of the training.
BANDS = 8
#: Side in pixels of the tiles in which classes are counted; every input is a multiple of it.
TILE = 32
SIGNS = ('doubt', 'features_within', 'features_beside', 'rows')
TENSORS = (
    'pooled_mean', 'pooled_scale', 'components', 'variances', 'residual', 'rows_mean',
    'start', 'scale', 'weight', 'bias',
)  # fmt: skip
#: Standard deviations of good frames beyond which a sign says no more.
MOST = 8.0


@dataclass(frozen=True, slots=True)
class Observation:
    """What is seen of a batch of frames, before anything is compared with good ones."""

    confidence: torch.Tensor
    """Float [B], the mean of the softmax's top, 0 to 1."""
    pooled: torch.Tensor
    """Float [B, D], see ``pooled``."""
    rows: torch.Tensor
    """Float [B, classes · BANDS], see ``rows``."""


def pooled(features: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    """Return float [B, D], the mean over the picture of every channel of the encoder's maps."""
    maps = [features] if isinstance(features, torch.Tensor) else features
    return torch.cat([level.mean(dim=(2, 3)) for level in maps], 1)


def rows(logits: torch.Tensor, stride: int) -> torch.Tensor:
    """Return float [B, classes · BANDS], the share of each class in each band of rows."""
    coarse = F.avg_pool2d(logits, TILE // stride).softmax(1).mean(3)
    return F.interpolate(coarse, size=BANDS, mode='linear').flatten(1)


class TrustHead(nn.Module):
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
        """Take what ``training.trust.fit_trust`` returns."""
        super().__init__()
        for name in TENSORS:
            self.register_buffer(name, tensors[name].float())

    @classmethod
    def of(cls, weights: Weights) -> TrustHead | None:
        """Return the head that travels with the weights, None where there is none."""
        tensors = {
            name[len(TRUST) :]: tensor
            for name, tensor in weights.tensors.items()
            if name.startswith(TRUST)
        }
        return cls(tensors) if tensors else None

    def forward(self, seen: Observation) -> torch.Tensor:
        """Return the share of right pixels to expect."""
        return torch.sigmoid(self.bias - self.scaled(self.signs(seen)) @ self.weight)

    def scaled(self, signs: torch.Tensor) -> torch.Tensor:
        """Return signs [B, SIGNS] in units of good frames; distances count from ``start`` on."""
        z = (signs - self.start) / self.scale
        return torch.cat([z[:, :1].clamp(-MOST, MOST), z[:, 1:].clamp(0, MOST)], 1)

    def signs(self, seen: Observation) -> torch.Tensor:
        """Return float [B, SIGNS]; of each, more is worse."""
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
