# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The backends by name: opening one, and choosing one for this machine.

onnxruntime is the plain one, also on NVIDIA GPUs; OpenVINO is the fast one on CPUs, in float32 or
partly in bfloat16. A library is imported when its backend is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
import ctypes
from functools import lru_cache, partial
import hashlib
from importlib import metadata
import importlib.util
import io
import json
import os
from pathlib import Path
import platform
import re
from typing import Any, TYPE_CHECKING

import cv2
from nightseg_ros.runtime.backend import (
    Backend,
    BackendError,
    BACKENDS,
    Log,
    MIN_AGREEMENT,
    MOST_SHAPES,
    Network,
    ON_CPU,
    ON_GPU,
)
from nightseg_ros.runtime.export import (
    bare_graph,
    cached,
    exported_graph,
    graph_key,
    with_tensors,
)
from nightseg_ros.runtime.pixels import HostPixels
from nightseg_ros.taxonomy import UNLABELLED
from nightseg_ros.weights import IMPORTED, Weights
import numpy as np

if TYPE_CHECKING:
    import openvino as ov

#: Execution providers of onnxruntime by backend and device; the first that can runs a layer.
PROVIDERS = {
    ('onnxruntime', 'cpu'): ['CPUExecutionProvider'],
    ('onnxruntime', 'cuda'): ['CUDAExecutionProvider', 'CPUExecutionProvider'],
    ('tensorrt', 'cuda'): [
        'TensorrtExecutionProvider', 'CUDAExecutionProvider', 'CPUExecutionProvider'
    ],
}  # fmt: skip


def available_backends() -> dict[str, bool]:
    """Return which backends can be imported."""
    return {
        name: importlib.util.find_spec(module) is not None for name, module in BACKENDS.items()
    }


def open_backend(
    name: str = 'auto', device: str = 'auto', threads: int = 0, weights: Sequence[Weights] = ()
) -> Backend:
    """
    Open a backend: 'auto' or one of ``BACKENDS``; device 'auto', 'cpu' or 'cuda'.

    'auto' takes torch where CUDA is, else the first of OpenVINO, onnxruntime and torch that is
    installed; ``weights`` is as of ``resolve``. ``threads`` 0 leaves the number to the backend.
    ``BackendError`` says what is missing and how to get it.
    """
    limit_threads()
    name, device = resolve(name, device, weights)
    if name in ('openvino', 'openvino-bf16'):
        return OpenVINOBackend(threads, bfloat16=name == 'openvino-bf16')
    if (name, device) in PROVIDERS:
        return OnnxBackend(name, device, threads)
    from nightseg_ros.runtime.torch_backend import TorchBackend

    return TorchBackend(device, threads)


def limit_threads() -> None:
    """
    Give OpenBLAS and OpenCV one thread: idle ones would spin on cores that the network needs.

    OpenBLAS's took a third of a frame; OpenCV's yields to the network 480 times a frame. The
    package sets environment variables on its import, which is too late after numpy's and OpenCV's.
    """
    from threadpoolctl import ThreadpoolController

    cv2.setNumThreads(1)
    for library in ThreadpoolController().lib_controllers:
        if library.internal_api == 'openblas' and library.num_threads != 1:
            library.set_num_threads(1)


def resolve(name: str, device: str, weights: Sequence[Weights] = ()) -> tuple[str, str]:
    """
    Return a backend and its device, 'cpu' or 'cuda', for names that may be 'auto'.

    'auto' is the CPU for imported ``weights``: torch, the choice on a GPU, has no such network.
    """
    if name == device == 'auto' and any(one.metadata.network == IMPORTED for one in weights):
        device = 'cpu'
    if name not in ('auto', *BACKENDS):
        raise BackendError(f"no backend '{name}'; there are auto, {', '.join(BACKENDS)}")
    if device not in ('auto', 'cpu', 'cuda'):
        raise BackendError(f"no device '{device}'; there are auto, cpu and cuda")
    asked = f"device '{device}'" if device == 'cuda' else f"backend '{name}'"
    if name == 'tensorrt' and device == 'cpu':
        raise BackendError(f"backend '{name}' runs on a GPU only, and device 'cpu' was asked for")
    if device == 'cuda' and name not in ('auto', *ON_GPU):
        raise BackendError(f"{asked} was asked for, but backend '{name}' runs on the CPU only")
    wanted = device == 'cuda' or name == 'tensorrt'
    if name in ('auto', 'torch') and device != 'cpu':
        if has_gpu():
            return 'torch', 'cuda'
        if wanted and not available_backends()['torch']:
            raise BackendError("backend 'torch' is not installed: pip install 'nightseg[torch]'")
        if wanted:
            raise BackendError(f"{asked} was asked for, but torch finds no GPU; use device 'cpu'")
    present = available_backends()
    if name == 'auto':
        name = next(one for one in ON_CPU if present[one])
    if not present[name]:
        package = BACKENDS[name] + '-gpu' * wanted
        raise BackendError(f"backend '{name}' is not installed: pip install {package}")
    if not wanted:
        return name, 'cpu'
    import onnxruntime

    provider = PROVIDERS[name, 'cuda'][0]
    if provider not in onnxruntime.get_available_providers():
        raise BackendError(
            f'{asked} was asked for, but this onnxruntime has no {provider}: '
            "pip install onnxruntime-gpu, or use device 'cpu'"
        )
    return name, 'cuda'


def choose(weights: Sequence[Weights], backend: str, device: str) -> tuple[str, str]:
    """
    Return what runs ``weights`` and its device, for names that may be 'auto'.

    That is torch on a GPU; on a CPU OpenVINO, in bfloat16 where the CPU has it and all segmenters
    say that enough labels stay the same; else onnxruntime. ``BackendError`` as of
    ``open_backend``.
    """
    name, device = resolve(backend, device, weights)
    segmenters = [one.metadata for one in weights if one.metadata.task == 'segment']
    keeps = all(one.bfloat16 >= MIN_AGREEMENT for one in segmenters)
    if backend == 'auto' and name == 'openvino' and keeps and has_bfloat16():
        name = 'openvino-bf16'
    return name, device


def has_gpu() -> bool:
    """Tell whether torch, if it is there, can use a GPU; it is imported where a driver is."""
    try:
        ctypes.CDLL('libcuda.so.1')
    except OSError:
        return False
    if not available_backends()['torch']:
        return False
    import torch

    return torch.cuda.is_available()


class OnnxBackend:
    """Exported graphs in onnxruntime; frames come from the host's memory and go back there."""

    batches: tuple[int, ...] = (1,)

    def __init__(self, name: str = 'onnxruntime', device: str = 'cpu', threads: int = 0) -> None:
        """Use ``threads`` threads, 0 for one a core; a key of ``PROVIDERS`` says where."""
        import onnxruntime

        self.name, self.device, self.pixels = name, device, HostPixels()
        self._session = onnxruntime.InferenceSession
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.log_severity_level = 3
        # threads that spin on for milliseconds keep the cores from the next network
        self._options.add_session_config_entry('session.intra_op.allow_spinning', '0')

    def load(self, weights: Weights, log: Log) -> Network:
        """See ``Backend``."""
        graph = exported_graph(weights, log)
        providers = PROVIDERS[self.name, self.device]
        # where the device fails, the library would go on on the CPU, and only print so
        session = self._session(graph, self._options, providers=providers, enable_fallback=0)
        if providers[0] not in session.get_providers():
            raise BackendError(
                f"backend '{self.name}': {providers[0]} did not start; install the CUDA and cuDNN "
                "that this onnxruntime wants, or use device 'cpu'"
            )
        name = session.get_inputs()[0].name
        if weights.metadata.network == IMPORTED:
            # it may be made for a batch of one
            return _one_by_one(lambda image: session.run(None, {name: image}))
        return lambda images: tuple(session.run(None, {name: images}))


def _one_by_one(run_one: Callable[[Any], Sequence[Any]]) -> Network:
    def run(images: Any) -> tuple[Any, ...]:
        parts = [run_one(images[index, None]) for index in range(len(images))]
        return tuple(np.concatenate(column) for column in zip(*parts))

    return run


#: Convolutions at the begin of a segmenter that bfloat16 leaves alone: of the default network the
#: stem, the block at stride 2 and the first one at stride 4. With eight bits of mantissa they
#: would lose what little a dark picture holds (bench/precision.py).
FLOAT32_LAYERS = 6
CONVOLUTIONS = ('Convolution', 'GroupConvolution')


class OpenVINOBackend:
    """
    Exported graphs on the CPU, compiled once for each size.

    OpenVINO takes bfloat16 without a word where the CPU has it; here it is asked for by name.
    """

    device = 'cpu'
    batches: tuple[int, ...] = (1,)

    def __init__(
        self, threads: int = 0, *, bfloat16: bool = False, exact: int = FLOAT32_LAYERS,
        simulated: bool = False,
    ) -> None:  # fmt: skip
        """
        Use ``threads`` threads, 0 for one a core.

        With ``bfloat16``, segmenters are computed in it behind their first ``exact`` convolutions.
        Translators, whose pixels need more than bfloat16's eight bits, run in float32.
        ``BackendError`` where the CPU has no bfloat16, unless it may be ``simulated``, which is
        slow and has the same results.
        """
        if bfloat16 and not simulated and not has_bfloat16():
            raise BackendError(
                "backend 'openvino-bf16': this CPU has no bfloat16; take 'openvino' or 'auto'"
            )
        self.name = 'openvino-bf16' if bfloat16 else 'openvino'
        self.pixels = HostPixels()
        self._bfloat16, self._exact = bfloat16, exact
        self._core = _core()
        self._config: dict[str, Any] = {'PERFORMANCE_HINT': 'LATENCY'}
        if threads:
            self._config['INFERENCE_NUM_THREADS'] = threads
            # pinned, networks that share the cores out among them would wait for the same core
            # while another one is idle
            self._config['ENABLE_CPU_PINNING'] = False

    def load(self, weights: Weights, log: Log) -> Network:
        """See ``Backend``."""
        graph = bare_graph(weights, log)
        described = weights.described()
        bfloat16 = self._bfloat16 and weights.metadata.task == 'segment'
        # first layers, if any, and the others
        precisions = ['f32'] * (self._exact > 0 or not bfloat16) + ['bf16'] * bfloat16

        def model(part: int, shape: tuple[int, ...]) -> ov.Model:
            whole = self._core.read_model(with_tensors(graph, weights))
            whole.reshape(list(shape))
            if weights.metadata.task == 'segment' and weights.metadata.network != IMPORTED:
                _rearrange(whole, argmax=not bfloat16)
            if len(precisions) == 1:
                return whole
            return _divide(whole, self._exact, described.path.name)[part]

        @lru_cache(maxsize=MOST_SHAPES)
        def requests(shape: tuple[int, ...]) -> list[ov.InferRequest]:
            found = []
            for part, precision in enumerate(precisions):
                config = {**self._config, 'INFERENCE_PRECISION_HINT': precision}
                # the number stands for what _rearrange does
                facts = [2, shape, part, precisions, self._exact, config, _installation()]
                key = f'{graph_key(described)}-{_hash(facts)}'
                request = self._compiled(key, config, partial(model, part, shape), log)
                taken = request.get_compiled_model().get_property('INFERENCE_PRECISION_HINT')
                if precision == 'bf16' and taken.get_type_name() != 'bf16':
                    raise BackendError('this CPU can neither compute in bfloat16 nor simulate it')
                found.append(request)
            if len(found) > 1:
                found[1].set_input_tensor(found[0].get_output_tensor(0))
            return found

        def run_one(image: Any) -> list[Any]:
            *begin, end = requests(image.shape)
            for request in begin:
                request.infer(image, share_inputs=True, share_outputs=True)
            outputs = end.infer(None if begin else image, share_inputs=True, share_outputs=False)
            return [outputs[index] for index in range(len(outputs))]

        # a batch is no faster on a CPU, and each length would be compiled anew
        return _one_by_one(run_one)

    def _compiled(
        self, key: str, config: dict[str, Any], make: Callable[[], ov.Model], log: Log
    ) -> ov.InferRequest:
        """Return what runs a model: compiling takes twice as long as reading from the cache."""

        def compiled() -> bytes:
            return bytes(self._core.compile_model(make(), 'CPU', config).export_model().getvalue())

        try:
            content = io.BytesIO(cached('openvino', key, compiled, log))
            return self._core.import_model(content, 'CPU', config).create_infer_request()
        except RuntimeError:
            # it cannot read what it wrote; what is wrong with the graph itself is raised here
            return self._core.compile_model(make(), 'CPU', config).create_infer_request()


def _rearrange(model: ov.Model, argmax: bool) -> None:
    """
    Take 6 % off a segmenter's CPU time; what it gives stays the same to the bit.

    Colours are scaled as they lie in the picture, which is how the first convolution wants them,
    and the best class is found by comparisons: OpenVINO's TopK takes 5 % of the time. Not in
    bfloat16, where the largest logit and its own might be rounded apart.
    """
    from openvino import opset13 as ops

    [image] = model.get_parameters()
    [first] = image.output(0).get_target_inputs()
    turn = last = first.get_node()
    while True:
        [*targets] = last.output(0).get_target_inputs()
        node = targets[0].get_node()
        if len(targets) > 1 or node.get_type_name() not in ('Convert', 'Multiply', 'Add'):
            break
        for index in range(1, node.get_input_size()):
            # [1, 3, 1, 1]
            node.set_argument(
                index, ops.transpose(node.input_value(index), [0, 2, 3, 1]).output(0)
            )
        last = node
    next(iter(turn.output(0).get_target_inputs())).replace_source_output(image.output(0))
    turned = ops.transpose(last.output(0), turn.input_value(1))
    for target in targets:
        target.replace_source_output(turned.output(0))
    for node in [op for op in model.get_ordered_ops() if op.get_type_name() == 'TopK' and argmax]:
        logits, chosen = node.input_value(0), node.output(1)
        count = logits.get_partial_shape()[1].get_length()
        ids = np.arange(count, dtype=np.float32).reshape(1, count, 1, 1)
        best = ops.equal(logits, ops.reduce_max(logits, [1], keep_dims=True))
        label = ops.reduce_min(ops.select(best, ids, np.float32(UNLABELLED)), [1], keep_dims=True)
        for target in chosen.get_target_inputs():
            target.replace_source_output(ops.convert(label, chosen.get_element_type()).output(0))
    model.validate_nodes_and_infer_types()


def _divide(model: ov.Model, convolutions: int, name: str) -> tuple[ov.Model, ov.Model]:
    """Return the model up to what its next convolution gets, and the rest of it."""
    import openvino as ov
    from openvino import opset13 as ops

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


@lru_cache(maxsize=1)
def _core() -> ov.Core:
    """
    Return the only one of this process.

    Each gives its thread a stack for signals, and unmaps it at its end. With two that end in
    another order than they began, the thread is left with one that is gone, and the next signal
    ends the process.
    """
    import openvino as ov

    return ov.Core()


def has_bfloat16() -> bool:
    """Tell whether this CPU computes in bfloat16."""
    return 'BF16' in _core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')


def processor() -> dict[str, str]:
    """Return what the system says of its first core, such as 'model name' and 'flags'."""
    with suppress(OSError):
        first = Path('/proc/cpuinfo').read_text(encoding='utf-8').partition('\n\n')[0]
        return dict(re.findall(r'^(.+?)\s*: (.*)$', first, re.MULTILINE))
    return {}


@lru_cache(maxsize=1)
def _installation() -> str:
    """Return the processor and the versions of the runtimes; a cache may move between machines."""
    wanted = ('model name', 'flags', 'Features', 'CPU part')
    facts = {platform.machine(), f'{os.cpu_count()} cores'}
    facts |= {value for name, value in processor().items() if name in wanted}
    for module in set(BACKENDS.values()):
        # one that is built from source, or under another name, has no version
        with suppress(metadata.PackageNotFoundError):
            facts.add(f'{module} {metadata.version(module)}')
    return _hash(sorted(facts))


def _hash(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
