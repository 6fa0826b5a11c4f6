# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
CycleGAN's networks: the ResNet generator and the PatchGAN (Zhu et al. 2017).

Both can be told the camera: nights differ more between cameras than from day to night, so that
one generator for several cameras needs to know whose night is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

#: Keeps the inverse of the last tanh finite.
_INSIDE = 0.97


class ResnetGenerator(nn.Module):
    """
    Float [B, 3, H, W] in [-1, 1] → the same, H and W multiples of 4.

    Two downsampling convolutions, residual blocks, two upsampling ones. The published size is
    ``ngf`` 64 and 9 blocks: 11.38 M parameters, 98.7 GMAC at 480×272. With ``styles``, names of
    cameras, each has instance norms of its own (Dumoulin et al. 2017), and 'any' has one more,
    for a camera that was not trained on or is not known. With ``residual`` the layers give a
    change of the picture instead of the picture, which a short training needs: it keeps the
    scene from the first step on.
    """

    def __init__(
        self,
        ngf: int = 64,
        blocks: int = 9,
        styles: Sequence[str] = (),
        style: str = '',
        residual: bool = False,
    ) -> None:
        """Build it with random weights; ``style`` is meant where a call names none, '' is any."""
        super().__init__()
        self.residual = residual
        self.styles = tuple(styles)
        self.style = self.index_of(style)
        count = len(self.styles)
        layers = [nn.ReflectionPad2d(3), *_conv(3, ngf, 7, styles=count)]
        for level in (1, 2):
            layers += _conv(ngf * level, ngf * level * 2, 3, stride=2, padding=1, styles=count)
        layers += [ResnetBlock(ngf * 4, count) for _ in range(blocks)]
        for level in (4, 2):
            layers += [
                nn.ConvTranspose2d(ngf * level, ngf * level // 2, 3, 2, 1, output_padding=1),
                _norm(ngf * level // 2, count),
                nn.ReLU(inplace=True),
            ]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor, style: torch.Tensor | None = None) -> torch.Tensor:
        """Return the translated image in [-1, 1]; ``style`` is int64 [B] of ``index_of``."""
        y = _run(self.layers, x, self.style if style is None else style)
        if self.residual:
            # atanh, which ONNX exporters do not know
            within = x * _INSIDE
            y = y + 0.5 * torch.log((1 + within) / (1 - within))
        return torch.tanh(y)

    def index_of(self, style: str) -> int:
        """Return a camera's number, that of 'any' for ''; ``ValueError`` lists the cameras."""
        if not style:
            return len(self.styles)
        if style not in self.styles:
            known = ', '.join(self.styles) or 'none'
            raise ValueError(f"no style '{style}'; the generator knows: {known}")
        return self.styles.index(style)


class ResnetBlock(nn.Module):
    """Two reflected 3×3 convolutions with instance norm, and a shortcut."""

    def __init__(self, channels: int, styles: int = 0) -> None:
        """Build it with random weights."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1),
            *_conv(channels, channels, 3, styles=styles),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            _norm(channels, styles),
        )

    def forward(self, x: torch.Tensor, style: torch.Tensor | int = 0) -> torch.Tensor:
        """Return float of the input's shape."""
        return x + _run(self.layers, x, style)


class StyleNorm(nn.Module):
    """Instance norm with a scale and an offset for each style, and for 'any'."""

    def __init__(self, channels: int, styles: int) -> None:
        """Build it with scale 1 and offset 0."""
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.scale = nn.Parameter(torch.ones(styles + 1, channels))
        self.offset = nn.Parameter(torch.zeros(styles + 1, channels))

    def forward(self, x: torch.Tensor, style: torch.Tensor | int) -> torch.Tensor:
        """Return float of the input's shape; ``style`` is one for all or int64 [B]."""
        scale, offset = self.scale[style], self.offset[style]
        if isinstance(style, int):
            scale, offset = scale[None], offset[None]
        y: torch.Tensor = self.norm(x) * scale[..., None, None] + offset[..., None, None]
        return y


class PatchGAN(nn.Module):
    """
    Discriminator: float [B, 3, H, W] → a realness score for each 70×70 patch.

    With ``styles``, a count of cameras, it sees the camera's number as one-hot maps beside the
    picture, so that another camera's night is no good night.
    """

    def __init__(self, ndf: int = 64, styles: int = 0) -> None:
        """Build it with random weights."""
        super().__init__()
        self.styles = styles
        layers: list[nn.Module] = [
            nn.Conv2d(3 + styles, ndf, 4, 2, 1),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for level, stride in ((1, 2), (2, 2), (4, 1)):
            layers += [
                nn.Conv2d(ndf * level, ndf * level * 2, 4, stride, 1),
                nn.InstanceNorm2d(ndf * level * 2),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        layers.append(nn.Conv2d(ndf * 8, 1, 4, 1, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor, style: torch.Tensor | None = None) -> torch.Tensor:
        """Return float [B, 1, H', W'] scores (least-squares GAN: 1 is real, 0 fake)."""
        if self.styles:
            if style is None:
                raise ValueError('this discriminator wants the number of the camera, int64 [B]')
            one_hot = nn.functional.one_hot(style, self.styles).to(x.dtype)
            maps = one_hot[..., None, None].expand(-1, -1, *x.shape[2:])
            x = torch.cat([x, maps], 1)
        y: torch.Tensor = self.layers(x)
        return y


def _run(layers: nn.Sequential, x: torch.Tensor, style: torch.Tensor | int) -> torch.Tensor:
    """Call layers one by one; those that know styles are told."""
    for layer in layers:
        x = layer(x, style) if isinstance(layer, (ResnetBlock, StyleNorm)) else layer(x)
    return x


def _norm(channels: int, styles: int) -> nn.Module:
    return StyleNorm(channels, styles) if styles else nn.InstanceNorm2d(channels)


def _conv(
    channels: int, out: int, kernel: int, *, stride: int = 1, padding: int = 0, styles: int = 0
) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, out, kernel, stride, padding),
        _norm(out, styles),
        nn.ReLU(inplace=True),
    ]
