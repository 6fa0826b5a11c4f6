# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Networks in OpenVINO: the fast one on CPUs."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov

from nightseg_ros.runtime.backend import Run, Say
from nightseg_ros.runtime.export import exported_graph
from nightseg_ros.runtime.pixels import HostPixels, Pixels
from nightseg_ros.share import cache_dir
from nightseg_ros.weights import Weights


class OpenVINOBackend:
    """
    Exported graphs on the CPU, compiled once for each size.

    OpenVINO takes bfloat16 without a word where the CPU has it; here it is asked for by name.
    """

    name = 'openvino'
    device = 'cpu'

    def __init__(self, threads: int = 0, precision: str = 'f32') -> None:
        """Use ``threads`` threads, 0 for one a core; ``precision`` is 'f32' or 'bf16'."""
        self.pixels: Pixels = HostPixels()
        self._core = ov.Core()
        self._config: dict[str, Any] = {
            'PERFORMANCE_HINT': 'LATENCY',
            'INFERENCE_PRECISION_HINT': precision,
            'CACHE_DIR': str(cache_dir() / 'openvino'),
        }
        if threads:
            self._config['INFERENCE_NUM_THREADS'] = threads
            # pinned, networks that share the cores out among them would wait for the same core
            # while another one is idle
            self._config['ENABLE_CPU_PINNING'] = False

    def load(self, weights: Weights, say: Say) -> Run:
        """See ``Backend``."""
        path = exported_graph(weights, say)
        requests: dict[tuple[int, ...], ov.InferRequest] = {}

        def run_one(image: Any) -> list[Any]:
            request = requests.get(image.shape)
            if request is None:
                model = self._core.read_model(path)
                model.reshape(list(image.shape))
                compiled = self._core.compile_model(model, 'CPU', self._config)
                request = requests[image.shape] = compiled.create_infer_request()
            outputs = request.infer(image, share_inputs=True, share_outputs=False)
            return [outputs[index] for index in range(len(outputs))]

        def run(images: Any) -> tuple[Any, ...]:
            # one by one: a batch is no faster on a CPU, and each length would be compiled anew
            parts = [run_one(images[index : index + 1]) for index in range(len(images))]
            return tuple(np.concatenate(column) for column in zip(*parts))

        return run
