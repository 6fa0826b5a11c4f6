# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Networks in OpenVINO: the fast one on CPUs, in float32, or partly in bfloat16 or int8."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from nightseg_ros.runtime.backend import BackendError, Run, Say
from nightseg_ros.runtime.export import exported_graph
from nightseg_ros.runtime.graph_cache import graph_folder
from nightseg_ros.runtime.int8 import read_int8
from nightseg_ros.runtime.pixels import HostPixels, Pixels
from nightseg_ros.weights import Weights, WeightsError

#: Convolutions at the begin of a segmenter that bfloat16 leaves alone: of the default network the
#: stem, the block at stride 2 and the first one at stride 4. With eight bits of mantissa they
#: would lose what little a dark picture holds (bench/precision.py).
EXACT = 6
CONVOLUTIONS = ('Convolution', 'GroupConvolution')


class OpenVINOBackend:
    """
    Exported graphs on the CPU, compiled once for each size.

    OpenVINO takes bfloat16 without a word where the CPU has it; here it is asked for by name.
    """

    device = 'cpu'
    batches: tuple[int, ...] = (1,)

    def __init__(
        self, threads: int = 0, layers: Literal['f32', 'bf16', 'int8'] = 'f32', exact: int = EXACT
    ) -> None:
        """
        Use ``threads`` threads, 0 for one a core.

        ``layers`` is how segmenters are computed: all in float32; behind the first ``exact``
        convolutions in bfloat16; or by their int8 graphs, which say how the rest of them is
        computed. Translators, whose pixels need more than bfloat16's eight bits, run in float32.
        ``BackendError`` where the CPU has no bfloat16.
        """
        self.name = 'openvino' if layers == 'f32' else f'openvino-{layers}'
        self._layers, self._exact = layers, exact
        self.pixels: Pixels = HostPixels()
        self._core = ov.Core()
        self._config: dict[str, Any] = {
            'PERFORMANCE_HINT': 'LATENCY',
            'CACHE_DIR': str(graph_folder('openvino')),
        }
        if threads:
            self._config['INFERENCE_NUM_THREADS'] = threads
            # pinned, networks that share the cores out among them would wait for the same core
            # while another one is idle
            self._config['ENABLE_CPU_PINNING'] = False
        if layers == 'bf16' and 'bf16' not in precisions():
            raise BackendError(
                f"backend '{self.name}': this CPU has no bfloat16; take 'openvino' or 'auto'"
            )

    def load(self, weights: Weights, say: Say) -> Run:
        """See ``Backend``."""
        layers = self._layers if weights.metadata.task == 'segment' else 'f32'
        source: tuple[Any, ...]
        rest: str = layers
        if layers == 'int8':
            try:
                xml, constants, about = read_int8(weights)
            except WeightsError as error:
                raise BackendError(f"backend '{self.name}': {error}") from error
            source = (xml.decode(), ov.Tensor(np.frombuffer(constants, np.uint8)))
            rest = about.rest if about.rest in precisions() else 'f32'
        else:
            source = (exported_graph(weights, say),)
        name = weights.path.name
        requests: dict[tuple[int, ...], list[ov.InferRequest]] = {}

        def compiled(shape: tuple[int, ...]) -> list[ov.InferRequest]:
            model = self._core.read_model(*source)
            model.reshape(list(shape))
            if layers != 'bf16' or not self._exact:
                return [self._request(model, rest)]
            first, second = _divide(model, self._exact, name)
            begin, end = self._request(first, 'f32'), self._request(second, 'bf16')
            end.set_input_tensor(begin.get_output_tensor(0))
            return [begin, end]

        def run_one(image: Any) -> list[Any]:
            found = requests.get(image.shape)
            if found is None:
                found = requests[image.shape] = compiled(image.shape)
            *begin, end = found
            for request in begin:
                request.infer(image, share_inputs=True, share_outputs=True)
            outputs = end.infer(None if begin else image, share_inputs=True, share_outputs=False)
            return [outputs[index] for index in range(len(outputs))]

        def run(images: Any) -> tuple[Any, ...]:
            # one by one: a batch is no faster on a CPU, and each length would be compiled anew
            parts = [run_one(images[index : index + 1]) for index in range(len(images))]
            return tuple(np.concatenate(column) for column in zip(*parts))

        return run

    def _request(self, model: ov.Model, precision: str) -> ov.InferRequest:
        config = {**self._config, 'INFERENCE_PRECISION_HINT': precision}
        try:
            compiled = self._core.compile_model(model, 'CPU', config)
        except RuntimeError:
            # The cache, which is not needed: seen where several compile the same new graph at
            # once and the file is gone. What is wrong with the graph itself is raised here.
            config['CACHE_DIR'] = ''
            compiled = self._core.compile_model(model, 'CPU', config)
        return compiled.create_infer_request()


def _divide(model: ov.Model, convolutions: int, name: str) -> tuple[ov.Model, ov.Model]:
    """Return the model up to what its next convolution gets, and the rest of it."""
    found = [op for op in model.get_ordered_ops() if op.get_type_name() in CONVOLUTIONS]
    try:
        edge = found[convolutions].input_value(0)
        entry = ops.parameter(edge.get_partial_shape().to_shape(), edge.get_element_type())
        for target in edge.get_target_inputs():
            target.replace_source_output(entry.output(0))
        first = ov.Model([ops.result(edge)], model.get_parameters())
        return first, ov.Model(model.get_results(), [entry])
    except (IndexError, RuntimeError) as error:
        raise BackendError(
            f"backend 'openvino-bf16': the network of '{name}' cannot be divided "
            f"before its convolution number {convolutions + 1}; take 'openvino' or 'auto'"
        ) from error


def precisions() -> tuple[Literal['f32', 'bf16'], ...]:
    """Return what this CPU can compute in beside int8, the fastest first."""
    able = ov.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
    return ('bf16', 'f32') if 'BF16' in able else ('f32',)
