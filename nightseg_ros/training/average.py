# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Exponential moving average of a network's weights and statistics."""

from __future__ import annotations

import copy

import torch
from torch import nn


class WeightAverage:
    """
    Keep ``average ← decay · average + (1 - decay) · weights`` (Polyak averaging).

    Early on the decay is (1 + n) / (10 + n), so that the random start is forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Start from the network's present weights."""
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after step ``step`` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for ours, theirs in zip(self.network.state_dict().values(), network.state_dict().values()):
            if ours.is_floating_point():
                ours.lerp_(theirs.to(ours.dtype), 1 - decay)
            else:
                ours.copy_(theirs)
