# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Weights that bfloat16 holds exactly: a CPU that computes in it reads the same network."""

from __future__ import annotations

import torch
from torch import fx, nn

from nightseg_ros.networks import build_from
from nightseg_ros.weights import Weights, WeightsError


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
    calls = [node for node in graph.nodes if node.op == 'call_module']
    modules = {node: network.get_submodule(str(node.target)) for node in calls}
    convolutions = [node for node in calls if isinstance(modules[node], nn.Conv2d)]
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
    assert mean is not None
    assert variance is not None
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
