# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Networks in torch: eager on a CPU, which is the reference, and as CUDA graphs on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nightseg_ros.runtime.backend import Run, Say
from nightseg_ros.runtime.cuda_graphs import Capture
from nightseg_ros.runtime.fixed_shapes import BATCHES, FixedShapes
from nightseg_ros.runtime.graph import graph_of
from nightseg_ros.runtime.pixels import HostPixels, Pixels
from nightseg_ros.runtime.torch_pixels import TorchPixels
from nightseg_ros.weights import Weights


class TorchBackend:
    """Channels-last layout: float32 on 'cpu', float16 convolutions on 'cuda'."""

    name = 'torch'

    def __init__(self, device: str, threads: int = 0) -> None:
        """Use ``device``; on a CPU OpenCV does the pixel work, on a GPU the GPU."""
        if threads:
            torch.set_num_threads(threads)
        self.device = device
        self._device = torch.device(device)
        self._on_host = self._device.type == 'cpu'
        self.pixels: Pixels = HostPixels() if self._on_host else TorchPixels(self._device)
        self.batches: tuple[int, ...] = (1,) if self._on_host else BATCHES

    def load(self, weights: Weights, say: Say) -> Run:
        """See ``Backend``."""
        graph = graph_of(weights)
        if not self._on_host:
            captured = FixedShapes(Capture(graph, self._device))
            return lambda images: captured(_tensor(images).to(self._device))
        graph = graph.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

        def run(images: Any) -> tuple[Any, ...]:
            with torch.inference_mode():
                return tuple(output.numpy() for output in graph(_tensor(images)))

        return run


def _tensor(images: Any) -> torch.Tensor:
    return torch.from_numpy(images) if isinstance(images, np.ndarray) else images
