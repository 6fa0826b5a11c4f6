# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Networks in torch: eager on a CPU, which is the reference; on a GPU everything stays on the device.

On a GPU, networks run as CUDA graphs, one launch a batch. Uploads and downloads have streams of
their own and go through pinned memory: frame by frame they overlap with the kernels of the frames
before and after. Written against torch's documentation and tried on its CPU device only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any
import warnings

from nightseg_ros.runtime.backend import Log, MOST_SHAPES, Network
from nightseg_ros.runtime.graph import graph_of, SegmentGraph, TranslateGraph
from nightseg_ros.runtime.pixels import HostPixels, NetworkSize
from nightseg_ros.weights import Weights
import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

Image = npt.NDArray[np.uint8]

#: Batch lengths that are made ready; one camera more must not cost a capture on the road.
BATCHES = (1, 2, 4, 8)
#: Runs before a capture, in which libraries choose their kernels.
_WARM_UP = 3
_WEIGHTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)

#: Input and output buffers, which keep their place in the device's memory, and the work between
#: them; calling it waits for nothing.
_Captured = tuple[torch.Tensor, tuple[torch.Tensor, ...], Callable[[], None]]


class TorchBackend:
    """Channels-last layout: float32 on 'cpu', float16 convolutions on 'cuda'."""

    name = 'torch'

    def __init__(self, device: str, threads: int = 0) -> None:
        """Use ``device``; on a CPU OpenCV does the pixel work, on a GPU the GPU."""
        if threads:
            torch.set_num_threads(threads)
        self.device = device
        self._device = torch.device(device)
        self._on_host = self._device.type == 'cpu'
        self.pixels = HostPixels() if self._on_host else TorchPixels(self._device)
        self.batches: tuple[int, ...] = (1,) if self._on_host else BATCHES

    def load(self, weights: Weights, log: Log) -> Network:
        """See ``Backend``."""
        graph = graph_of(weights)
        if not self._on_host:
            captured = CapturedGraph(graph, self._device)
            return lambda images: captured(_tensor(images).to(self._device))
        graph = graph.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

        def run(images: Any) -> tuple[Any, ...]:
            with torch.inference_mode():
                return tuple(output.numpy() for output in graph(_tensor(images)))

        return run


def _tensor(images: Any) -> torch.Tensor:
    return torch.from_numpy(images) if isinstance(images, np.ndarray) else images


class CapturedGraph:
    """A network as CUDA graphs, one for each shape, with convolutions in float16."""

    def __init__(self, graph: SegmentGraph | TranslateGraph, device: torch.device) -> None:
        """Take a graph in evaluation mode; it is changed and moved to ``device``."""
        halve_weights(fold_batch_norm(graph.network))
        graph.float16 = True
        moved = graph.to(device)
        self._graph = moved.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._device = device
        #: By shape; a cache of a method would keep the device's memory until cycles are searched.
        self._ready: dict[tuple[int, ...], _Captured] = {}

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs of uint8 [B, h, w, 3], in memory of their own."""
        count = len(images)
        shape = (batch_length(count), *images.shape[1:])
        ready = self._ready.pop(shape) if shape in self._ready else self.capture(shape)
        # behind the others: what was used longest ago comes first
        inputs, outputs, replay = self._ready[shape] = ready
        if len(self._ready) > 2 * MOST_SHAPES:
            del self._ready[next(iter(self._ready))]
        inputs[:count].copy_(images)
        replay()
        # the next replay overwrites the buffers
        return tuple(output[:count].clone() for output in outputs)

    def capture(self, shape: tuple[int, ...]) -> _Captured:
        """Capture the kernels for uint8 images of ``shape``."""
        images = torch.zeros(shape, dtype=torch.uint8, device=self._device)
        current = torch.cuda.current_stream(self._device)
        aside = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        aside.wait_stream(current)
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                self._run(images)
        current.wait_stream(aside)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            outputs = self._run(images)
        return images, outputs, captured.replay

    def _run(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            return tuple(self._graph(images))


def batch_length(count: int) -> int:
    """Return the batch length, at least ``count``, that is made ready for so many images."""
    longest = BATCHES[-1]
    return next((n for n in BATCHES if n >= count), -(-count // longest) * longest)


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """Fold every batch norm that follows a convolution in a ``Sequential`` into it, in place."""
    for child in module.children():
        fold_batch_norm(child)
    if isinstance(module, nn.Sequential):
        for index in range(len(module) - 1):
            layer, norm = module[index], module[index + 1]
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[index] = fuse_conv_bn_eval(layer, norm)
                module[index + 1] = nn.Identity()
    return module


def halve_weights(module: nn.Module) -> nn.Module:
    """Store the weights of convolutions in float16, so that autocast converts none of them."""
    exact = {
        layer
        for parent in module.modules()
        for name in getattr(parent, 'float32_parts', ())
        for layer in parent.get_submodule(name).modules()
    }
    for layer in module.modules():
        if isinstance(layer, _WEIGHTED) and layer not in exact:
            layer.half()
    return module


class TorchPixels(HostPixels):
    """Tensors on one device; nothing waits for the device before ``wait``."""

    def __init__(self, device: torch.device) -> None:
        """Work on ``device``."""
        self.device = device
        self._on_gpu = device.type == 'cuda'
        if self._on_gpu:
            self._up = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._down = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        #: By the id of the host's array, which is held so that no other gets this id.
        self._uploaded: dict[int, tuple[Image, torch.Tensor]] = {}

    def shrink(self, image: Image, order: str, size: NetworkSize) -> torch.Tensor:
        """See ``HostPixels``; bilinear with antialiasing."""
        x = self._upload(image).permute(2, 0, 1)[None].float()
        x = F.interpolate(x, size=size.scaled, mode='bilinear', antialias=True)
        if order == 'bgr':
            x = x.flip(1)
        pad = (0, size.padded[1] - size.scaled[1], 0, size.padded[0] - size.scaled[0])
        x = F.pad(x, pad, mode='replicate')
        return x[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8)

    def stack(self, images: list[torch.Tensor]) -> torch.Tensor:
        """See ``HostPixels``."""
        return torch.stack(images)

    def enlarge(self, plane: torch.Tensor, size: NetworkSize) -> torch.Tensor:
        """See ``HostPixels``."""
        height, width = size.labels
        rows = _sources(size.camera[0], height, self.device)
        columns = _sources(size.camera[1], width, self.device)
        return plane[rows[:, None], columns[None, :]]

    def restore(self, image: torch.Tensor, size: NetworkSize) -> torch.Tensor:
        """See ``HostPixels``."""
        x = image[: size.scaled[0], : size.scaled[1]].permute(2, 0, 1)[None].float()
        x = F.interpolate(x, size=size.camera, mode='bilinear')
        return x[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8)

    def colorize(self, labels: torch.Tensor, palette: Image) -> torch.Tensor:
        """See ``HostPixels``."""
        return _on_device(palette.tobytes(), self.device)[labels.long()]

    def blend(self, image: Image, order: str, color: torch.Tensor, alpha: float) -> torch.Tensor:
        """See ``HostPixels``."""
        x = self._upload(image)
        x = x.flip(2) if order == 'bgr' else x
        return torch.lerp(x.float(), color.float(), alpha).round().to(torch.uint8)

    def begin_download(self, array: torch.Tensor) -> Image:
        """See ``HostPixels``."""
        if not self._on_gpu:
            return np.asarray(array.contiguous().numpy())
        self._down.wait_stream(torch.cuda.current_stream(self.device))
        # its memory is not given away before the copy is done
        array.record_stream(self._down)
        with torch.cuda.stream(self._down):
            host = torch.empty(array.shape, dtype=array.dtype, pin_memory=True)
            host.copy_(array.contiguous(), non_blocking=True)
        return np.asarray(host.numpy())

    def wait(self) -> None:
        """See ``HostPixels``."""
        self._uploaded.clear()
        if self._on_gpu:
            self._down.synchronize()

    def _upload(self, image: Image) -> torch.Tensor:
        """Return the image on the device; the overlay needs it a second time."""
        held = self._uploaded.get(id(image))
        if held is None:
            if len(self._uploaded) >= 4 * BATCHES[-1]:
                # of batches that failed before their wait
                self._uploaded.clear()
            with warnings.catch_warnings():
                # a message's bytes are read only, and nothing here writes to them
                warnings.simplefilter('ignore', UserWarning)
                host = torch.from_numpy(np.ascontiguousarray(image))
            held = self._uploaded[id(image)] = (image, self._copied(host))
        return held[1]

    def _copied(self, host: torch.Tensor) -> torch.Tensor:
        if not self._on_gpu:
            return host.to(self.device)
        # torch's allocator keeps a pinned block until the copy from it is done
        pinned = torch.empty(host.shape, dtype=host.dtype, pin_memory=True)
        pinned.copy_(host)
        current = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._up):
            there = pinned.to(self.device, non_blocking=True)
        current.wait_stream(self._up)
        there.record_stream(current)
        return there


@lru_cache(maxsize=8)
def _on_device(palette: bytes, device: torch.device) -> torch.Tensor:
    return torch.frombuffer(bytearray(palette), dtype=torch.uint8).view(-1, 3).to(device)


@lru_cache(maxsize=64)
def _sources(length: int, source: int, device: torch.device) -> torch.Tensor:
    """Return the source of each pixel by its centre: floor((i + 0.5) · source / length)."""
    index = torch.arange(length, device=device)
    return torch.div((2 * index + 1) * source, 2 * length, rounding_mode='floor')
