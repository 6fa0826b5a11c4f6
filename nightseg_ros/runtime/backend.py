# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The one interface to whatever runs a network."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import ctypes
import sys
from typing import Any, Protocol

from nightseg_ros.runtime.pixels import HostPixels
from nightseg_ros.weights import Weights

Network = Callable[[Any], tuple[Any, ...]]
"""uint8 [B, h, w, 3] RGB on the backend's device → the graph's outputs, there as well."""
Log = Callable[[str], None]

#: Those that compute in float32 on a CPU, in the order of preference.
ON_CPU = ('openvino', 'onnxruntime', 'torch')
ON_GPU = ('torch', 'onnxruntime', 'tensorrt')
#: The module of each backend.
BACKENDS = {
    'torch': 'torch', 'onnxruntime': 'onnxruntime', 'openvino': 'openvino',
    'openvino-bf16': 'openvino', 'tensorrt': 'onnxruntime',
}  # fmt: skip
#: Share of the pixels of real frames to which a backend must give torch's labels.
MIN_AGREEMENT = 0.995
#: Shapes of a batch that a network stays ready for, those used last: each takes some 70 MB.
MOST_SHAPES = 12


class BackendError(RuntimeError):
    """A backend or device that is not there, or that failed."""


def out_of_memory(error: Exception) -> bool:
    """Tell whether an error says that memory, most often the device's, has run out."""
    # torch's error is known by its name, as torch may be absent; others by their text: CUDA's,
    # cuBLAS's, those of onnxruntime's arena
    texts = ('out of memory', 'out_of_memory', 'alloc_failed', 'failed to allocate memory')
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == 'OutOfMemoryError'
        or any(text in str(error).lower() for text in texts)
    )


def release_memory() -> None:
    """
    Return freed memory to the system, where the C library is glibc, and to the GPU.

    Compiling a network takes tens of megabytes for a moment, which would stay with the process:
    without this and the one heap of ``node.main``, thirty cycles of bench/lifecycle_cycles.py take
    its own memory from 70 to 92 MB.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    torch = sys.modules.get('torch')
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


class Backend(Protocol):
    """A way to run networks on one device."""

    name: str
    device: str
    pixels: HostPixels
    batches: tuple[int, ...]
    """Lengths of a batch that have to be made ready one by one."""

    def load(self, weights: Weights, log: Log) -> Network:
        """Make the weights' graph ready; ``log`` takes what takes long."""
