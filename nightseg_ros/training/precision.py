# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Mixed precision on CPUs: bfloat16 where it is fast, float32 where that is faster."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class _DepthwiseConv(torch.autograd.Function):
    """
    Depthwise convolution whose gradients are computed in float32.

    On CPUs the bfloat16 gradient kernels of depthwise convolutions are slower than the float32
    ones; bench/training_step.py measures what that is worth.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, conv: nn.Conv2d) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.conv = conv
        return F.conv2d(
            x, weight.to(x.dtype), None, conv.stride, conv.padding, conv.dilation, conv.groups
        )

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        x, weight = ctx.saved_tensors
        conv = ctx.conv
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grads[0].float(), x.float(), weight.float(), None, conv.stride, conv.padding,
            conv.dilation, False, (0, 0), conv.groups, (True, True, False),
        )  # fmt: skip
        return grad_x.to(x.dtype), grad_weight, None


def speed_up_cpu_training(network: nn.Module) -> None:
    """Replace, in place, the forward pass of depthwise convolutions; weights stay as they are."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1 and module.bias is None:
            module.forward = _Bound(module)  # type: ignore[assignment]


class _Bound:
    """The replaced forward pass of one convolution."""

    def __init__(self, conv: nn.Conv2d) -> None:
        self.conv = conv

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = _DepthwiseConv.apply(  # type: ignore[no-untyped-call]
            x, self.conv.weight, self.conv
        )
        return y
