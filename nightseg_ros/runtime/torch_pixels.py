# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The same pixel work in torch, for devices whose memory the host does not share.

On a GPU, uploads and downloads have streams of their own and go through pinned memory: frame by
frame they overlap with the kernels of the frames before and after. Tried on torch's CPU device;
no GPU was at hand.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from nightseg_ros.runtime.geometry import NetworkSize

Image = npt.NDArray[np.uint8]


class TorchPixels:
    """Tensors on one device; nothing waits for the device before ``wait``."""

    def __init__(self, device: torch.device) -> None:
        """Work on ``device``."""
        self.device = device
        self._on_gpu = device.type == 'cuda'
        if self._on_gpu:
            self._up = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._down = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._palettes: dict[bytes, torch.Tensor] = {}
        self._nearest: dict[tuple[int, int], torch.Tensor] = {}
        #: By the id of the host's array, which is held so that no other gets this id.
        self._uploaded: dict[int, tuple[Image, torch.Tensor]] = {}

    def shrink(self, image: Image, order: str, size: NetworkSize) -> torch.Tensor:
        """See ``Pixels``; bilinear with antialiasing."""
        x = self._upload(image).permute(2, 0, 1)[None].float()
        x = F.interpolate(x, size=size.scaled, mode='bilinear', antialias=True)
        if order == 'bgr':
            x = x.flip(1)
        pad = (0, size.padded[1] - size.scaled[1], 0, size.padded[0] - size.scaled[0])
        x = F.pad(x, pad, mode='replicate')
        return x[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8)

    def stack(self, images: list[torch.Tensor]) -> torch.Tensor:
        """See ``Pixels``."""
        return torch.stack(images)

    def enlarge(self, plane: torch.Tensor, size: NetworkSize) -> torch.Tensor:
        """See ``Pixels``."""
        height, width = size.labels
        rows = self._sources(size.camera[0], height)
        columns = self._sources(size.camera[1], width)
        return plane[rows[:, None], columns[None, :]]

    def restore(self, image: torch.Tensor, size: NetworkSize) -> torch.Tensor:
        """See ``Pixels``."""
        x = image[: size.scaled[0], : size.scaled[1]].permute(2, 0, 1)[None].float()
        x = F.interpolate(x, size=size.camera, mode='bilinear')
        return x[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8)

    def colorize(self, labels: torch.Tensor, palette: Image) -> torch.Tensor:
        """See ``Pixels``."""
        key = palette.tobytes()
        if key not in self._palettes:
            self._palettes[key] = torch.from_numpy(palette.copy()).to(self.device)
        return self._palettes[key][labels.long()]

    def blend(self, image: Image, order: str, color: torch.Tensor, alpha: float) -> torch.Tensor:
        """See ``Pixels``."""
        x = self._upload(image)
        x = x.flip(2) if order == 'bgr' else x
        return torch.lerp(x.float(), color.float(), alpha).round().to(torch.uint8)

    def download(self, array: torch.Tensor) -> Image:
        """See ``Pixels``."""
        host = self.begin_download(array)
        self.wait()
        return host

    def begin_download(self, array: torch.Tensor) -> Image:
        """See ``Pixels``."""
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
        """See ``Pixels``."""
        self._uploaded.clear()
        if self._on_gpu:
            self._down.synchronize()

    def _upload(self, image: Image) -> torch.Tensor:
        """Return the image on the device; the overlay needs it a second time."""
        if id(image) not in self._uploaded:
            with warnings.catch_warnings():
                # a message's bytes are read only, and nothing here writes to them
                warnings.simplefilter('ignore', UserWarning)
                host = torch.from_numpy(np.ascontiguousarray(image))
            self._uploaded[id(image)] = (image, self._copied(host))
        return self._uploaded[id(image)][1]

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

    def _sources(self, length: int, source: int) -> torch.Tensor:
        """Return the source of each pixel by its centre: floor((i + 0.5) · source / length)."""
        key = (length, source)
        if key not in self._nearest:
            # a camera that changes its size with every frame must not fill the memory
            if len(self._nearest) > 64:
                self._nearest.clear()
            index = torch.arange(length, device=self.device)
            self._nearest[key] = torch.div(
                (2 * index + 1) * source, 2 * length, rounding_mode='floor'
            )
        return self._nearest[key]
