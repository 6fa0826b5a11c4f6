# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The backends by name: which are here, and opening one."""

from __future__ import annotations

import importlib.util

from nightseg_ros.runtime.backend import BACKENDS, Backend, BackendError


def available_backends() -> dict[str, bool]:
    """Return which backends can be imported."""
    return {name: importlib.util.find_spec(name) is not None for name in BACKENDS}


def open_backend(name: str = 'auto', device: str = 'auto', threads: int = 0) -> Backend:
    """
    Open a backend: 'auto', 'torch', 'onnxruntime' or 'openvino'; device 'auto', 'cpu' or 'cuda'.

    'auto' takes torch where CUDA is, else the first of OpenVINO, onnxruntime and torch that is
    installed. ``threads`` 0 leaves the number to the backend. ``BackendError`` says what is
    missing and how to get it.
    """
    if name not in ('auto', *BACKENDS):
        raise BackendError(f"no backend '{name}'; there are auto, {', '.join(BACKENDS)}")
    if device not in ('auto', 'cpu', 'cuda'):
        raise BackendError(f"no device '{device}'; there are auto, cpu and cuda")
    present = available_backends()
    if device != 'cpu' and name in ('auto', 'torch'):
        import torch

        if torch.cuda.is_available():
            name, device = 'torch', 'cuda'
    if device == 'cuda' and name != 'torch':
        raise BackendError(
            "device 'cuda' was asked for, but "
            + (
                f"backend '{name}' runs on the CPU here"
                if name != 'auto'
                else 'torch finds no GPU'
            )
        )
    if device == 'cuda':
        import torch

        if not torch.cuda.is_available():
            raise BackendError("device 'cuda' was asked for, but torch finds no GPU; use 'cpu'")
    if name == 'auto':
        name = next(n for n in ('openvino', 'onnxruntime', 'torch') if present[n])
    if not present[name]:
        raise BackendError(f"backend '{name}' is not installed: pip install {name}")
    if name == 'openvino':
        from nightseg_ros.runtime.openvino_backend import OpenVINOBackend

        return OpenVINOBackend(threads)
    if name == 'onnxruntime':
        from nightseg_ros.runtime.onnx_backend import OnnxBackend

        return OnnxBackend(threads)
    from nightseg_ros.runtime.torch_backend import TorchBackend

    return TorchBackend('cuda' if device == 'cuda' else 'cpu', threads)
