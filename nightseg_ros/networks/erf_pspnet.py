# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""ERF-PSPNet: ERFNet's encoder with a pyramid pooling decoder (Yang et al. 2018)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

BINS = (1, 2, 4, 8)


class ERFPSPNet(nn.Module):
    """
    Float [B, 3, H, W], H and W multiples of 8 → logits float [B, classes, H / 8, W / 8].

    The published code fixes 512×1024; pooling by bins of the feature map frees the size. 2.5 M
    parameters with 19 classes.
    """

    stride = 8

    def __init__(self, classes: int) -> None:
        """Build it with random weights."""
        super().__init__()
        self.encoder = nn.Sequential(
            Downsampler(3, 16),
            Downsampler(16, 64),
            *(NonBottleneck1D(64, 1, 0.03) for _ in range(5)),
            Downsampler(64, 128),
            *(NonBottleneck1D(128, dilation, 0.3) for _ in range(2) for dilation in (2, 4, 8, 16)),
        )
        self.pyramid = nn.ModuleList(_conv_bn(128, 32, 1) for _ in BINS)
        self.fuse = _conv_bn(256, 256, 3)
        self.dropout = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(256, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits at stride 8."""
        return self.decode(self.encoder(x))

    def decode(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits of the encoder's features."""
        size = features.shape[2:]
        levels = [features]
        for bins, convolve in zip(BINS, self.pyramid):
            level = convolve(pool_to_bins(features, bins))
            levels.append(F.interpolate(level, size=size, mode='bilinear', align_corners=False))
        logits: torch.Tensor = self.classify(self.dropout(self.fuse(torch.cat(levels, 1))))
        return logits


def pool_to_bins(x: torch.Tensor, bins: int) -> torch.Tensor:
    """
    Average float [B, C, H, W] over ``bins`` × ``bins`` windows, of any H and W.

    It gives what ``adaptive_avg_pool2d`` gives, from running sums, because exported graphs know
    that operation for fixed sizes only.
    """
    for dim in (2, 3):
        length = x.shape[dim]
        index = torch.arange(bins + 1, device=x.device)
        first = index[:-1] * length // bins
        last = (index[1:] * length + bins - 1) // bins
        pad = (0, 0, 1, 0) if dim == 2 else (1, 0)
        sums = F.pad(x.cumsum(dim), pad)
        shape = (1, 1, bins, 1) if dim == 2 else (1, 1, 1, bins)
        count = (last - first).to(x.dtype).view(shape)
        x = (sums.index_select(dim, last) - sums.index_select(dim, first)) / count
    return x


class Downsampler(nn.Module):
    """Halve the size: a strided convolution beside a max-pool (ENet's initial block)."""

    def __init__(self, channels: int, out: int) -> None:
        """Build it; the convolution gives the channels that pooling does not."""
        super().__init__()
        self.convolve = nn.Conv2d(channels, out - channels, 3, 2, 1)
        self.pool = nn.MaxPool2d(2)
        self.normalise = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return float [B, out, H / 2, W / 2]."""
        y = torch.cat([self.convolve(x), self.pool(x)], 1)
        return torch.relu(self.normalise(y))


class NonBottleneck1D(nn.Module):
    """Residual block of two factorised 3×3 convolutions (Romera et al. 2018)."""

    def __init__(self, channels: int, dilation: int, dropout: float) -> None:
        """Build it; only the second pair is dilated."""
        super().__init__()
        self.first_column = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        self.first_row = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1))
        self.first_norm = nn.BatchNorm2d(channels, eps=1e-3)
        self.second_column = nn.Conv2d(
            channels, channels, (3, 1), padding=(dilation, 0), dilation=(dilation, 1)
        )
        self.second_row = nn.Conv2d(
            channels, channels, (1, 3), padding=(0, dilation), dilation=(1, dilation)
        )
        self.second_norm = nn.BatchNorm2d(channels, eps=1e-3)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return float of the input's shape."""
        y = torch.relu(self.first_column(x))
        y = torch.relu(self.first_norm(self.first_row(y)))
        y = torch.relu(self.second_column(y))
        y = self.dropout(self.second_norm(self.second_row(y)))
        return torch.relu(y + x)


def _conv_bn(channels: int, out: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out, eps=1e-3),
        nn.ReLU(inplace=True),
    )
