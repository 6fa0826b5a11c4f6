# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
A network as CUDA graphs: one launch a batch instead of some hundred.

Written against torch's documentation and tried on a CPU as far as that goes; no GPU was at hand.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nightseg_ros.runtime.fixed_shapes import Prepared, Shape
from nightseg_ros.runtime.graph import SegmentGraph, TranslateGraph

#: Runs before a capture, in which libraries choose their kernels.
_WARM_UP = 3
_WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """Fold every batch norm that follows a convolution in a ``Sequential`` into it, in place."""
    for child in module.children():
        fold_batch_norm(child)
    if isinstance(module, nn.Sequential):
        for index in range(len(module) - 1):
            layer, norm = module[index], module[index + 1]
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[index] = fuse_conv_bn_eval(layer, norm)
                module[index + 1] = nn.Identity()
    return module


def halve_weights(module: nn.Module) -> nn.Module:
    """Store the weights of convolutions in float16, so that autocast converts none of them."""
    for layer in module.modules():
        if isinstance(layer, _WEIGHTED):
            layer.half()
    return module


class Capture:
    """Makes shapes ready by capturing the graph's kernels, convolutions in float16."""

    def __init__(self, graph: SegmentGraph | TranslateGraph, device: torch.device) -> None:
        """Take a graph in evaluation mode; it is changed and moved to ``device``."""
        halve_weights(fold_batch_norm(graph.network))
        graph.float16 = True
        self._graph = graph.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = device

    def __call__(self, shape: Shape) -> Prepared:
        """Capture the work for uint8 images of ``shape``."""
        images = torch.zeros(shape, dtype=torch.uint8, device=self._device)
        current = torch.cuda.current_stream(self._device)
        aside = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                self._run(images)
        current.wait_stream(aside)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            outputs = self._run(images)
        return Prepared(images=images, outputs=outputs, replay=captured.replay)

    def _run(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            return tuple(self._graph(images))
