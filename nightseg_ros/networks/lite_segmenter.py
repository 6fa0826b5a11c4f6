# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The default real-time segmenter: EfficientNet-Lite encoder and a light top-down decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from nightseg_ros.networks.efficientnet_lite import EfficientNetLite


class LiteSegmenter(nn.Module):
    """
    Float [B, 3, H, W], H and W multiples of 32 → logits float [B, classes, H / 4, W / 4].

    The decoder costs about 0.16 GMAC at 480×288 with its default widths: everything at stride 4
    is depthwise separable, since one full 3×3 convolution of 128 channels there would cost more
    than the encoder.
    """

    stride = 4

    def __init__(
        self,
        classes: int,
        variant: str = 'lite0',
        width: int = 96,
        fine_width: int = 64,
        dropout: float = 0.1,
    ) -> None:
        """Build it with random weights; ``width`` is of strides 8–32, ``fine_width`` of 4."""
        super().__init__()
        self.encoder = EfficientNetLite(variant)
        c4, c8, c16, c32 = self.encoder.channels
        self.context = Context(c32, width)
        self.lateral16 = _pointwise(c16, width)
        self.merge16 = _separable(width, width)
        self.lateral8 = _pointwise(c8, width)
        self.merge8 = _separable(width, fine_width)
        self.lateral4 = _pointwise(c4, fine_width)
        self.merge4 = _separable(fine_width, fine_width)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(fine_width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits at stride 4."""
        return self.decode(self.encoder(x))

    def decode(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the logits of the encoder's features."""
        f4, f8, f16, f32 = features
        y = self.context(f32)
        y = self.merge16(_up(y) + self.lateral16(f16))
        y = self.merge8(_up(y) + self.lateral8(f8))
        y = self.merge4(_up(y) + self.lateral4(f4))
        logits: torch.Tensor = self.classify(self.dropout(y))
        return logits


class Context(nn.Module):
    """
    Pooled context at the coarsest stride: the whole image's mean, and each row's.

    A row's mean tells sky from road where both are black: cameras on vehicles are level.
    """

    def __init__(self, channels: int, out: int) -> None:
        """Build it with random weights."""
        super().__init__()
        self.local = _pointwise(channels, out)
        self.image = nn.Conv2d(channels, out, 1)
        self.rows = nn.Conv2d(channels, out, 1)
        self.mix = _separable(out, out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return float [B, out, H, W]."""
        rows = x.mean(dim=3, keepdim=True)
        y = self.local(x) + self.rows(rows) + self.image(rows.mean(dim=2, keepdim=True))
        mixed: torch.Tensor = self.mix(torch.relu(y))
        return mixed


def _up(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2.0, mode='bilinear', align_corners=False)


def _pointwise(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out))


def _separable(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, out, 1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    )
