# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Networks in OpenVINO: the fast one on CPUs, in float32 or with int8 layers."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import openvino as ov

from nightseg_ros.runtime.backend import BackendError, Run, Say
from nightseg_ros.runtime.export import exported_graph
from nightseg_ros.runtime.int8 import read_int8
from nightseg_ros.runtime.pixels import HostPixels, Pixels
from nightseg_ros.share import cache_dir
from nightseg_ros.weights import Weights, WeightsError


class OpenVINOBackend:
    """
    Exported graphs on the CPU, compiled once for each size.

    OpenVINO takes bfloat16 without a word where the CPU has it; here it is asked for by name.
    """

    device = 'cpu'
    batches: tuple[int, ...] = (1,)

    def __init__(self, threads: int = 0, precision: str = 'f32', int8: bool = False) -> None:
        """
        Use ``threads`` threads, 0 for one a core; ``precision`` is 'f32' or 'bf16'.

        ``int8`` takes the segmenters' int8 graphs, which say how the rest of them is computed;
        translators run in ``precision``.
        """
        self.name = 'openvino-int8' if int8 else 'openvino'
        self._int8 = int8
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
        config = dict(self._config)
        if self._int8 and weights.metadata.task == 'segment':
            try:
                xml, constants, about = read_int8(weights)
            except WeightsError as error:
                raise BackendError(f"backend '{self.name}': {error}") from error
            source: tuple[Any, ...] = (xml.decode(), ov.Tensor(np.frombuffer(constants, np.uint8)))
            if about.rest in precisions():
                config['INFERENCE_PRECISION_HINT'] = about.rest
        else:
            source = (exported_graph(weights, say),)
        requests: dict[tuple[int, ...], ov.InferRequest] = {}

        def run_one(image: Any) -> list[Any]:
            request = requests.get(image.shape)
            if request is None:
                model = self._core.read_model(*source)
                model.reshape(list(image.shape))
                compiled = self._core.compile_model(model, 'CPU', config)
                request = requests[image.shape] = compiled.create_infer_request()
            outputs = request.infer(image, share_inputs=True, share_outputs=False)
            return [outputs[index] for index in range(len(outputs))]

        def run(images: Any) -> tuple[Any, ...]:
            # one by one: a batch is no faster on a CPU, and each length would be compiled anew
            parts = [run_one(images[index : index + 1]) for index in range(len(images))]
            return tuple(np.concatenate(column) for column in zip(*parts))

        return run


def precisions() -> tuple[Literal['f32', 'bf16'], ...]:
    """Return what this CPU can compute in beside int8, the fastest first."""
    able = ov.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
    return ('bf16', 'f32') if 'BF16' in able else ('f32',)
