# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The backends by name: opening one, and choosing the fastest of this machine.

onnxruntime is the plain one, also on NVIDIA GPUs; OpenVINO is the fast one on CPUs, in float32 or
partly in bfloat16. A library is imported when its backend is opened.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nightseg_ros.config import ConfigError, from_mapping
from nightseg_ros.files import cache_dir, replace_file
from nightseg_ros.runtime.backend import (
    BACKENDS,
    ENOUGH,
    ON_CPU,
    ON_GPU,
    Backend,
    BackendError,
    Network,
    Say,
)
from nightseg_ros.runtime.export import exported_graph, graph_folder
from nightseg_ros.runtime.pixels import HostPixels, Pixels
from nightseg_ros.weights import Weights

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


def open_backend(name: str = 'auto', device: str = 'auto', threads: int = 0) -> Backend:
    """
    Open a backend: 'auto' or one of ``BACKENDS``; device 'auto', 'cpu' or 'cuda'.

    'auto' takes torch where CUDA is, else the first of OpenVINO, onnxruntime and torch that is
    installed; ``choose`` measures instead. ``threads`` 0 leaves the number to the backend.
    ``BackendError`` says what is missing and how to get it.
    """
    limit_threads()
    name, device = resolve(name, device)
    if name in ('openvino', 'openvino-bf16'):
        return OpenVINOBackend(threads, bfloat16=name == 'openvino-bf16')
    if (name, device) in PROVIDERS:
        return OnnxBackend(name, device, threads)
    from nightseg_ros.runtime.torch_backend import TorchBackend

    return TorchBackend(device, threads)


def limit_threads() -> None:
    """
    Give OpenBLAS one thread; calling it again is harmless.

    The estimator multiplies small matrices. OpenBLAS would wake a thread a core for each and let
    them spin on cores that the network needs. The package
    sets ``OPENBLAS_NUM_THREADS`` when it is imported, which is too late after numpy's import.
    """
    from threadpoolctl import ThreadpoolController

    for library in ThreadpoolController().lib_controllers:
        if library.internal_api == 'openblas' and library.num_threads != 1:
            library.set_num_threads(1)


def resolve(name: str, device: str) -> tuple[str, str]:
    """Return a backend and its device, 'cpu' or 'cuda', for names that may be 'auto'."""
    if name not in ('auto', *BACKENDS):
        raise BackendError(f"no backend '{name}'; there are auto, {', '.join(BACKENDS)}")
    if device not in ('auto', 'cpu', 'cuda'):
        raise BackendError(f"no device '{device}'; there are auto, cpu and cuda")
    on_gpu = device == 'cuda' or name == 'tensorrt'
    if device == 'auto' and name in ('auto', 'torch'):
        on_gpu = has_gpu()
    if on_gpu:
        return _on_gpu(name, device), 'cuda'
    present = available_backends()
    if name == 'auto':
        name = next(one for one in ON_CPU if present[one])
    if not present[name]:
        raise BackendError(f"backend '{name}' is not installed: pip install {BACKENDS[name]}")
    return name, 'cpu'


def has_gpu() -> bool:
    """Tell whether torch can use a GPU, without importing it where there is no driver."""
    try:
        ctypes.CDLL('libcuda.so.1')
    except OSError:
        return False
    import torch

    return torch.cuda.is_available()


def _on_gpu(name: str, device: str) -> str:
    """Return the backend for a GPU that somebody asked for, or say what is missing."""
    asked = f"device '{device}'" if device == 'cuda' else f"backend '{name}'"
    if device == 'cpu':
        raise BackendError(f"backend '{name}' runs on a GPU only, and device 'cpu' was asked for")
    if name not in ('auto', *ON_GPU):
        raise BackendError(f"{asked} was asked for, but backend '{name}' runs on the CPU only")
    if name in ('auto', 'torch'):
        if not has_gpu():
            raise BackendError(f"{asked} was asked for, but torch finds no GPU; use device 'cpu'")
        return 'torch'
    import onnxruntime

    wanted = PROVIDERS[name, 'cuda'][0]
    if wanted not in onnxruntime.get_available_providers():
        raise BackendError(
            f'{asked} was asked for, but this onnxruntime has no {wanted}: '
            "pip install onnxruntime-gpu, or use device 'cpu'"
        )
    return name


#: Seconds that the candidates take turns, beside the time that their networks need to load.
BUDGET_S = 1.5
#: Seconds before the turn of another backend.
SETTLE_S = 0.05
_ROUNDS = 20
#: The preferred backend stays unless another one needs less than this share of its time: what is
#: measured on a busy machine must not decide by chance.
CLEARLY = 0.9
#: Choices that are remembered: weights, sizes and versions come and go.
_MOST = 64
_FILE = 'backends.json'


@dataclass(frozen=True, kw_only=True, slots=True)
class BackendChoice:
    """A backend, and why it was taken."""

    backend: str
    device: str
    reason: str
    ms: dict[str, float]
    """Milliseconds of one image by candidate; empty where nothing was measured."""


def choose(
    weights: Sequence[Weights],
    size: tuple[int, int],
    *,
    backend: str = 'auto',
    device: str = 'auto',
    threads: int = 0,
    say: Say = lambda text: None,
) -> BackendChoice:
    """
    Return what runs ``weights``, segmenters, fastest on images of ``size`` (rows, columns).

    A name other than 'auto' is taken as it is, and on a GPU torch is. On a CPU the exported graphs
    of the backends that are installed take turns for ``BUDGET_S``, once for these weights, size,
    threads, versions and processor; the answer lies in the cache. bfloat16 takes part where the
    CPU has it and all weights say that enough labels stay the same. ``BackendError`` as
    ``open_backend`` raises it.
    """
    name, device = resolve(backend, device)
    if backend != 'auto':
        return BackendChoice(backend=name, device=device, reason='asked for', ms={})
    if device == 'cuda':
        return BackendChoice(backend=name, device=device, reason='there is a GPU', ms={})
    present = available_backends()
    # eager torch is the slowest everywhere, and importing it takes longer than all the rest
    candidates = [c for c in ON_CPU if c != 'torch' and present[c]]
    keeps = all(one.metadata.bfloat16 >= ENOUGH for one in weights)
    if 'openvino' in candidates and keeps and has_bfloat16():
        candidates.append('openvino-bf16')
    if len(candidates) < 2:
        return BackendChoice(backend=name, device=device, reason='no other is installed', ms={})
    key = _key(candidates, weights[-1], size, threads)
    choice = _remembered().get(key)
    if choice is None:
        say('measuring which backend is fastest here, once …')
        runs = {c: open_backend(c, device, threads).load(weights[-1], say) for c in candidates}
        choice = _decide(measure(runs, size), size)
        _remember(key, choice, say)
    say(f'backend {choice.backend}: {choice.reason}')
    return choice


def measure(
    runs: Mapping[str, Network],
    size: tuple[int, int],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """
    Return the least milliseconds of each run for one uint8 image of ``size`` (rows, columns).

    They take turns of three, so that a busy machine slows all alike; the least is what it
    disturbed least. The pause before a turn is for the threads of the one before, which spin on.
    """
    image = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    least = dict.fromkeys(runs, float('inf'))
    for run in runs.values():
        run(image)
    started = clock()
    for _ in range(_ROUNDS):
        for name, run in runs.items():
            time.sleep(SETTLE_S)
            for _ in range(3):
                began = clock()
                run(image)
                least[name] = min(least[name], (clock() - began) * 1e3)
        if clock() - started > BUDGET_S:
            break
    return least


def _decide(ms: dict[str, float], size: tuple[int, int]) -> BackendChoice:
    """Take the first, or the fastest where it is clearly faster."""
    first, fastest = next(iter(ms)), min(ms, key=lambda name: ms[name])
    chosen = fastest if ms[fastest] < CLEARLY * ms[first] else first
    times = ', '.join(f'{name} {value:.1f} ms' for name, value in ms.items())
    why = 'the fastest' if chosen == fastest else 'no other is clearly faster'
    reason = f'{why} at {size[1]}×{size[0]} ({times})'
    rounded = {name: round(value, 2) for name, value in ms.items()}
    return BackendChoice(backend=chosen, device='cpu', reason=reason, ms=rounded)


def _key(candidates: list[str], weights: Weights, size: tuple[int, int], threads: int) -> str:
    versions = {}
    for name in candidates:
        # one that is built from source, or under another name, has no version
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(BACKENDS[name])
    facts = [weights.sha256, size, threads, _processor(), versions]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _processor() -> str:
    """Return the processor's name and features; a cache may move between machines."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        return f'{platform.machine()} {platform.processor()}'
    facts = [line.partition(':') for line in lines]
    wanted = ('model name', 'flags', 'Features', 'CPU part')
    kept = sorted({key.strip(): value for key, _, value in facts if key.strip() in wanted}.items())
    return f'{sum(key.strip() == "processor" for key, _, _ in facts)} × {kept}'


def _remembered() -> dict[str, BackendChoice]:
    """Return the choices in the cache; what cannot be read is measured again."""
    try:
        stored = json.loads((cache_dir() / _FILE).read_text(encoding='utf-8'))
        return {key: from_mapping(BackendChoice, value) for key, value in stored.items()}
    except (OSError, ValueError, AttributeError, ConfigError):
        return {}


def _remember(key: str, choice: BackendChoice, say: Say) -> None:
    kept = dict(list(_remembered().items())[1 - _MOST :])
    content = {name: asdict(value) for name, value in {**kept, key: choice}.items()}
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        replace_file(cache_dir() / _FILE, json.dumps(content, indent=1).encode())
    except OSError as error:
        say(f'the choice cannot be remembered: {error}')


class OnnxBackend:
    """Exported graphs in onnxruntime; frames come from the host's memory and go back there."""

    batches: tuple[int, ...] = (1,)

    def __init__(self, name: str = 'onnxruntime', device: str = 'cpu', threads: int = 0) -> None:
        """Use ``threads`` threads, 0 for one a core; a key of ``PROVIDERS`` says where."""
        import onnxruntime

        self.name, self.device = name, device
        self.pixels: Pixels = HostPixels()
        self._session = onnxruntime.InferenceSession
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.log_severity_level = 3
        # threads that spin on for milliseconds keep the cores from the next network
        self._options.add_session_config_entry('session.intra_op.allow_spinning', '0')

    def load(self, weights: Weights, say: Say) -> Network:
        """See ``Backend``."""
        path = str(exported_graph(weights, say))
        session = self._session(path, self._options, providers=PROVIDERS[self.name, self.device])
        name = session.get_inputs()[0].name

        def run(images: Any) -> tuple[Any, ...]:
            return tuple(session.run(None, {name: images}))

        return run


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

    def __init__(self, threads: int = 0, *, bfloat16: bool = False, exact: int = EXACT) -> None:
        """
        Use ``threads`` threads, 0 for one a core.

        With ``bfloat16``, segmenters are computed in it behind their first ``exact`` convolutions.
        Translators, whose pixels need more than bfloat16's eight bits, run in float32.
        ``BackendError`` where the CPU has no bfloat16.
        """
        import openvino as ov

        self.name = 'openvino-bf16' if bfloat16 else 'openvino'
        self._bfloat16, self._exact = bfloat16, exact
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
        if bfloat16 and not has_bfloat16():
            raise BackendError(
                f"backend '{self.name}': this CPU has no bfloat16; take 'openvino' or 'auto'"
            )

    def load(self, weights: Weights, say: Say) -> Network:
        """See ``Backend``."""
        path = exported_graph(weights, say)
        name = weights.path.name
        bfloat16 = self._bfloat16 and weights.metadata.task == 'segment'
        requests: dict[tuple[int, ...], list[ov.InferRequest]] = {}

        def compiled(shape: tuple[int, ...]) -> list[ov.InferRequest]:
            model = self._core.read_model(path)
            model.reshape(list(shape))
            if not bfloat16:
                return [self._request(model, 'f32')]
            if not self._exact:
                return [self._request(model, 'bf16')]
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


def has_bfloat16() -> bool:
    """Tell whether this CPU computes in bfloat16."""
    import openvino as ov

    return 'BF16' in ov.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
