# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The same pixel work in torch, for devices whose memory the host does not share."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from nightseg_ros.runtime.geometry import NetworkSize

Image = npt.NDArray[np.uint8]


class TorchPixels:
    """Tensors on one device; nothing waits for the device before ``download``."""

    def __init__(self, device: torch.device) -> None:
        """Work on ``device``."""
        self.device = device
        self._palettes: dict[bytes, torch.Tensor] = {}

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
        rows = self._nearest(size.camera[0], height)
        columns = self._nearest(size.camera[1], width)
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
        return np.asarray(array.cpu().numpy())

    def _upload(self, image: Image) -> torch.Tensor:
        with warnings.catch_warnings():
            # a message's bytes are read only, and nothing here writes to them
            warnings.simplefilter('ignore', UserWarning)
            host = torch.from_numpy(np.ascontiguousarray(image))
        return host.to(self.device, non_blocking=True)

    def _nearest(self, length: int, source: int) -> torch.Tensor:
        """Return the source of each pixel by its centre: floor((i + 0.5) · source / length)."""
        index = torch.arange(length, device=self.device)
        return torch.div((2 * index + 1) * source, 2 * length, rounding_mode='floor')
