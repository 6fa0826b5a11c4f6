# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""How the recipes go down: parameter groups of AdamW, and the learning rate over the steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer


def parameter_groups(
    network: nn.Module,
    rate: float,
    weight_decay: float,
    factor: Callable[[str], float] = lambda name: 1.0,
) -> list[dict[str, Any]]:
    """
    Split the parameters by learning rate, ``rate`` × ``factor(name)``.

    Normalisation and biases, all that has one dimension, decay nothing.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        decay = weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate * factor(name), decay), []).append(parameter)
    return [
        {'params': params, 'lr': peak, 'peak': peak, 'weight_decay': decay}
        for (peak, decay), params in groups.items()
    ]


def poly(step: int, *, steps: int, warm_up: int) -> float:
    """Return the learning rate's factor: linear warm-up, then (1 - t)^0.9."""
    warm = min(1.0, (step + 1) / max(1, warm_up))
    return float(warm * (1 - step / steps) ** 0.9)


def set_rate(optimizer: Optimizer, factor: float) -> None:
    """Set every group to its peak × ``factor``."""
    for group in optimizer.param_groups:
        group['lr'] = group['peak'] * factor
