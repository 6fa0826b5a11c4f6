# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Networks in TensorRT on an NVIDIA GPU: exported graphs, built into engines once.

Written against the documentation of TensorRT 10 and never run: no GPU was at hand.
"""

from __future__ import annotations

from typing import Any

import tensorrt as trt
import torch

from nightseg_ros.files import replace_file
from nightseg_ros.runtime.backend import BackendError, Run, Say
from nightseg_ros.runtime.export import VERSION, exported_graph, graph_folder
from nightseg_ros.runtime.pixels import Pixels
from nightseg_ros.runtime.torch_backend import BATCHES, FixedShapes, Prepared, Shape, TorchPixels
from nightseg_ros.weights import Weights

_TYPES = {trt.uint8: torch.uint8, trt.float32: torch.float32, trt.int64: torch.int64}


class TensorRTBackend:
    """Engines for one shape each, in float16 where TensorRT thinks that pays."""

    name = 'tensorrt'
    device = 'cuda'
    batches: tuple[int, ...] = BATCHES

    def __init__(self) -> None:
        """Use the current CUDA device; torch holds its memory and its streams."""
        self._device = torch.device('cuda')
        self.pixels: Pixels = TorchPixels(self._device)
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._runtime = trt.Runtime(self._logger)

    def load(self, weights: Weights, say: Say) -> Run:
        """See ``Backend``; an engine is built at the first use of a shape, within minutes."""
        path = exported_graph(weights, say)

        def prepare(shape: Shape) -> Prepared:
            return self._prepared(self._engine(path.read_bytes(), weights, shape, say), shape)

        run = FixedShapes(prepare)
        return lambda images: run(images)

    def _engine(self, content: bytes, weights: Weights, shape: Shape, say: Say) -> Any:
        """Return the engine, from the cache or built."""
        gpu = torch.cuda.get_device_properties(self._device)
        name = '-'.join(
            [
                weights.sha256[:32], f'v{VERSION}', 'x'.join(map(str, shape[:3])),
                f'{gpu.name} {gpu.major}.{gpu.minor}'.replace(' ', '_'), f'trt{trt.__version__}',
            ]
        )  # fmt: skip
        path = graph_folder('tensorrt') / f'{name}.engine'
        if path.is_file():
            engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
            if engine is not None:
                return engine
            say(f'{path.name} cannot be read and is built again')
        say(f'TensorRT builds {weights.path.name} for {shape}, once; this can take minutes …')
        plan = self._build(content, shape, say)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, bytes(plan))
        return self._runtime.deserialize_cuda_engine(plan)

    def _build(self, content: bytes, shape: Shape, say: Say) -> Any:
        builder = trt.Builder(self._logger)
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse(content):
            reasons = '; '.join(str(parser.get_error(i)) for i in range(parser.num_errors))
            raise BackendError(f'TensorRT does not take this graph: {reasons}')
        config = builder.create_builder_config()
        if hasattr(trt.BuilderFlag, 'FP16'):
            config.set_flag(trt.BuilderFlag.FP16)
        profile = builder.create_optimization_profile()
        profile.set_shape(network.get_input(0).name, shape, shape, shape)
        config.add_optimization_profile(profile)
        config.progress_monitor = _Progress(say)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise BackendError("TensorRT built no engine; take backend 'torch'")
        return plan

    def _prepared(self, engine: Any, shape: Shape) -> Prepared:
        context = engine.create_execution_context()
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        context.set_input_shape(inputs[0], shape)
        buffers = {
            name: torch.zeros(
                tuple(context.get_tensor_shape(name)),
                dtype=_TYPES[engine.get_tensor_dtype(name)], device=self._device,
            )
            for name in names
        }  # fmt: skip
        for name, buffer in buffers.items():
            context.set_tensor_address(name, buffer.data_ptr())

        def replay() -> None:
            stream = torch.cuda.current_stream(self._device).cuda_stream
            if not context.execute_async_v3(stream):
                raise BackendError('TensorRT refused to run the engine')

        outputs = tuple(buffers[name] for name in names if name not in inputs)
        return Prepared(images=buffers[inputs[0]], outputs=outputs, replay=replay)


class _Progress(trt.IProgressMonitor):  # type: ignore[misc]
    """Says each tenth of the outermost phase."""

    def __init__(self, say: Say) -> None:
        super().__init__()
        self._say = say
        self._steps: dict[str, int] = {}

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        if parent_phase is None:
            self._steps[phase_name] = max(1, num_steps)

    def step_complete(self, phase_name: str, step: int) -> bool:
        count = self._steps.get(phase_name)
        if count and step * 10 // count > (step - 1) * 10 // count:
            self._say(f'TensorRT: {phase_name}, {100 * step // count} %')
        return True

    def phase_finish(self, phase_name: str) -> None:
        self._steps.pop(phase_name, None)
