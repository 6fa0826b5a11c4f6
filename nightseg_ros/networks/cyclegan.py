# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""CycleGAN's networks: the ResNet generator and the PatchGAN (Zhu et al. 2017)."""

from __future__ import annotations

import torch
from torch import nn


class ResnetGenerator(nn.Module):
    """
    Float [B, 3, H, W] in [-1, 1] → the same, H and W multiples of 4.

    Two downsampling convolutions, residual blocks, two upsampling ones. The published size is
    ``ngf`` 64 and 9 blocks: 11.38 M parameters, 98.7 GMAC at 480×272.
    """

    def __init__(self, ngf: int = 64, blocks: int = 9) -> None:
        """Build it with random weights."""
        super().__init__()
        layers = [nn.ReflectionPad2d(3), *_conv(3, ngf, 7)]
        for level in (1, 2):
            layers += _conv(ngf * level, ngf * level * 2, 3, stride=2, padding=1)
        layers += [ResnetBlock(ngf * 4) for _ in range(blocks)]
        for level in (4, 2):
            layers += [
                nn.ConvTranspose2d(ngf * level, ngf * level // 2, 3, 2, 1, output_padding=1),
                nn.InstanceNorm2d(ngf * level // 2),
                nn.ReLU(inplace=True),
            ]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the translated image in [-1, 1]."""
        y: torch.Tensor = self.layers(x)
        return y


class ResnetBlock(nn.Module):
    """Two reflected 3×3 convolutions with instance norm, and a shortcut."""

    def __init__(self, channels: int) -> None:
        """Build it with random weights."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            *_conv(channels, channels, 3),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return float of the input's shape."""
        y: torch.Tensor = x + self.layers(x)
        return y


class PatchGAN(nn.Module):
    """Discriminator: float [B, 3, H, W] → a realness score for each 70×70 patch."""

    def __init__(self, ndf: int = 64) -> None:
        """Build it with random weights."""
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, ndf, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for level, stride in ((1, 2), (2, 2), (4, 1)):
            layers += [
                nn.Conv2d(ndf * level, ndf * level * 2, 4, stride, 1),
                nn.InstanceNorm2d(ndf * level * 2),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        layers.append(nn.Conv2d(ndf * 8, 1, 4, 1, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return float [B, 1, H', W'] scores (least-squares GAN: 1 is real, 0 fake)."""
        y: torch.Tensor = self.layers(x)
        return y


def _conv(
    channels: int, out: int, kernel: int, *, stride: int = 1, padding: int = 0
) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, out, kernel, stride, padding),
        nn.InstanceNorm2d(out),
        nn.ReLU(inplace=True),
    ]
