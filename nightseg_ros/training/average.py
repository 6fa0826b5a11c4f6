# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Weights made of finished weights: the mean of several, and ones that bfloat16 holds exactly."""

from __future__ import annotations

from collections import Counter
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightseg_ros.config import Limited, Natural
from nightseg_ros.networks import build_from
from nightseg_ros.outputs import check_output
from nightseg_ros.weights import (
    load_weights,
    network_tensors,
    save_weights,
    union,
    Weights,
    WeightsError,
)
import torch
from torch import fx, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class AverageConfig(Limited):
    """Settings of ``nightseg train average``."""

    weights: tuple[str, ...]
    """Weights of one network, fine-tuned from one another: only then is their mean a network. A
    file that is named twice counts twice."""
    out: str
    """File to write. It says how each of them was trained, and names the data and the licences of
    all."""
    long_side: Natural = 0
    """Long side of the pictures at which the mean will be used; 0 keeps that of the last."""

    def __post_init__(self) -> None:
        Limited.__post_init__(self)
        if len(self.weights) < 2:
            raise ValueError(f"'weights' must be two files or more, got {list(self.weights)}")
        if 0 < self.long_side < 32:
            raise ValueError(f"'long_side' must be 0 or at least 32, got {self.long_side}")


def average_weights(config: AverageConfig) -> Path:
    """Write the mean of the tensors (a model soup, Wortsman et al. 2022); return its path."""
    parts = [load_weights(name) for name in config.weights]
    path = Path(config.out)
    check_output(path, 'weights', Path.is_file, inputs=[part.path for part in parts])
    last = parts[-1]
    for part in parts:
        mine, other = _kind(last), _kind(part)
        for key, value in mine.items():
            if other[key] != value:
                raise WeightsError(
                    f"'{part.path}' has {key} {other[key]}, '{last.path}' {value}; "
                    'they have no mean'
                )
        build_from(part)  # tensors that do not fit are named here
    mean = network_tensors(last.tensors)
    for name, tensor in mean.items():
        if tensor.is_floating_point():
            mean[name] = torch.stack([part.tensors[name] for part in parts]).mean(0)
    counts = Counter(part.sha256 for part in parts)
    each = {part.sha256: part for part in parts}
    metadata = dataclasses.replace(
        last.metadata,
        training={
            **{key: value for key, value in last.metadata.training.items() if key == 'way'},
            'mean_of': [_run_of(part, counts[part.sha256]) for part in each.values()],
        },
        long_side=config.long_side or last.metadata.long_side,
        data=union([part.metadata.data for part in parts], ', '),
        ratio=sum(part.metadata.ratio for part in parts) / len(parts),
        license=union([part.metadata.license for part in parts], '; '),
        # the mean was neither calibrated, nor compared in bfloat16, nor scored
        temperature=1.0, bfloat16=0.0, metrics={}, commit='',
    )  # fmt: skip
    save_weights(path, mean, metadata)
    return path


def _kind(weights: Weights) -> dict[str, Any]:
    """Return what weights must have in common to have a mean."""
    about = weights.metadata
    common = ('network', 'arch', 'task', 'taxonomy', 'mean', 'std')
    return {**{key: getattr(about, key) for key in common}, 'way': about.training.get('way')}


def _run_of(part: Weights, count: int) -> dict[str, Any]:
    """Return what the mean says of a part that counts ``count`` times."""
    about = part.metadata
    training = {key: value for key, value in about.training.items() if key != 'calibration'}
    return {
        'sha256': part.sha256, 'count': count, 'data': about.data, 'ratio': about.ratio, **training
    }  # fmt: skip


def round_weights(weights: Weights, exact: int) -> dict[str, torch.Tensor]:
    """
    Return the network's tensors with every convolution behind the first ``exact`` rounded.

    A runtime folds the BatchNorm behind a convolution into its kernel and rounds the product, one
    scale for each output channel. Here each channel's kernel takes on as much of the scale as
    leaves BatchNorm a power of two, and is rounded then: what the runtime folds is exact, and
    float32 computes with the same numbers as bfloat16. BatchNorm does not mind the scale of what
    it normalises, so that the network can be trained on as before.

    ``WeightsError`` where the network's layers cannot be followed.
    """
    network = build_from(weights)
    try:
        graph = fx.symbolic_trace(network).graph
    except (RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(
            f"the layers of '{weights.path}' ({weights.metadata.network}) cannot be followed, "
            f'so that its weights cannot be rounded to bfloat16: {error}'
        ) from error
    modules = {
        node: network.get_submodule(str(node.target))
        for node in graph.nodes
        if node.op == 'call_module'
    }
    convolutions = [node for node, module in modules.items() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        for node in convolutions[exact:]:
            convolution = modules[node]
            assert isinstance(convolution, nn.Conv2d)
            norms = [modules.get(user) for user in node.users]
            if len(norms) == 1 and isinstance(norms[0], nn.BatchNorm2d):
                _leave_power_of_two(convolution, norms[0])
            convolution.weight.copy_(convolution.weight.bfloat16())
    return network.state_dict()


def _leave_power_of_two(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Move BatchNorm's scale into the kernel, but for a power of two; the output is the same."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    deviation = (variance.double() + norm.eps).sqrt()
    scale = (norm.weight / deviation).abs()
    # a channel that is switched off has none to move; the factor lies between 1 and 2, so that
    # the variance without eps cannot become negative
    factor = torch.where(scale > 0, scale / 2.0 ** scale.log2().floor(), 1.0)
    convolution.weight.mul_(factor[:, None, None, None])
    if convolution.bias is not None:
        convolution.bias.mul_(factor)
    mean.mul_(factor)
    variance.copy_((deviation * factor).square() - norm.eps)
