# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The backends by name: which are here, and opening one."""

from __future__ import annotations

import ctypes
import importlib.util
from typing import Literal

from nightseg_ros.runtime.backend import BACKENDS, ON_CPU, ON_GPU, Backend, BackendError

#: How OpenVINO computes a segmenter, by backend.
LAYERS: dict[str, Literal['f32', 'bf16', 'int8']] = {
    'openvino': 'f32', 'openvino-bf16': 'bf16', 'openvino-int8': 'int8',
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
    installed; ``choice.choose`` measures instead. ``threads`` 0 leaves the number to the backend.
    ``BackendError`` says what is missing and how to get it.
    """
    name, device = resolve(name, device)
    if name == 'tensorrt':
        from nightseg_ros.runtime.tensorrt_backend import TensorRTBackend

        return TensorRTBackend()
    if name in LAYERS:
        from nightseg_ros.runtime.openvino_backend import OpenVINOBackend

        return OpenVINOBackend(threads, LAYERS[name])
    if name == 'onnxruntime':
        from nightseg_ros.runtime.onnx_backend import OnnxBackend

        return OnnxBackend(threads)
    from nightseg_ros.runtime.torch_backend import TorchBackend

    return TorchBackend(device, threads)


def resolve(name: str, device: str) -> tuple[str, str]:
    """Return a backend and its device, 'cpu' or 'cuda', for names that may be 'auto'."""
    if name not in ('auto', *BACKENDS):
        raise BackendError(f"no backend '{name}'; there are auto, {', '.join(BACKENDS)}")
    if device not in ('auto', 'cpu', 'cuda'):
        raise BackendError(f"no device '{device}'; there are auto, cpu and cuda")
    on_gpu = device == 'cuda' or name == 'tensorrt'
    if device == 'auto' and name in ('auto', *ON_GPU):
        on_gpu = on_gpu or has_gpu()
    if on_gpu:
        return _on_gpu(name, device), 'cuda'
    present = available_backends()
    if name == 'auto':
        name = next(candidate for candidate in ON_CPU if present[candidate])
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
        raise BackendError(f"{asked} was asked for, but backend '{name}' runs on the CPU here")
    if not has_gpu():
        raise BackendError(f"{asked} was asked for, but torch finds no GPU; use device 'cpu'")
    if name == 'tensorrt' and not available_backends()[name]:
        raise BackendError("backend 'tensorrt' is not installed: pip install tensorrt")
    return 'torch' if name == 'auto' else name
