# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Networks in eager torch: the reference on a CPU, and the way to a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nightseg_ros.runtime.backend import Run, Say
from nightseg_ros.runtime.graph import graph_of
from nightseg_ros.runtime.pixels import HostPixels, Pixels
from nightseg_ros.runtime.torch_pixels import TorchPixels
from nightseg_ros.weights import Weights


class TorchBackend:
    """Float32 in channels-last layout on 'cpu' or 'cuda'."""

    name = 'torch'

    def __init__(self, device: str, threads: int = 0) -> None:
        """Use ``device``; on a CPU OpenCV does the pixel work, on a GPU the GPU."""
        if threads:
            torch.set_num_threads(threads)
        self.device = device
        self._device = torch.device(device)
        on_host = self._device.type == 'cpu'
        self.pixels: Pixels = HostPixels() if on_host else TorchPixels(self._device)

    def load(self, weights: Weights, say: Say) -> Run:
        """See ``Backend``."""
        graph = graph_of(weights).to(self._device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        on_host = self._device.type == 'cpu'

        def run(images: Any) -> tuple[Any, ...]:
            with torch.inference_mode():
                batch = torch.from_numpy(images) if isinstance(images, np.ndarray) else images
                outputs = graph(batch.to(self._device))
            return tuple(output.numpy() if on_host else output for output in outputs)

        return run
