# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The segmenters: a real-time one on an EfficientNet-Lite encoder, and ERF-PSPNet.

EfficientNet-Lite is squeeze-free with ReLU6, made for fixed-point and small machines (Tan & Le
2019); its decoder is a light top-down one. ERF-PSPNet is ERFNet's encoder with a pyramid pooling
decoder (Yang et al. 2018).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

#: Stages as data: repeats, kernel, stride, expansion, channels (Tan & Le 2019, table 1).
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
#: Width and depth multipliers of the published variants, and our own small one.
VARIANTS = {'lite0': (1.0, 1.0), 'lite1': (1.0, 1.1), 'lite2': (1.1, 1.2), 'tiny': (0.35, 0.5)}
STEM_CHANNELS = 32
#: Stages whose output leaves the encoder: strides 4, 8, 16 and 32.
TAPS = (1, 2, 4, 6)


def conv_bn(
    channels: int, out: int, kernel: int = 1, *, stride: int = 1, groups: int = 1,
    act: nn.Module | None = None, **norm: Any,
) -> nn.Sequential:  # fmt: skip
    """Return a convolution that keeps H and W at stride 1, its BatchNorm, and ``act``."""
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    layers = nn.Sequential(conv, nn.BatchNorm2d(out, **norm))
    return layers if act is None else layers.append(act)


class EfficientNetLite(nn.Module):
    """
    Encoder without classifier: float [B, 3, H, W] → features at strides 4, 8, 16 and 32.

    The published networks pad like TensorFlow, one pixel more at the right and bottom. Symmetric
    padding, used here, gives the same features of an image shifted by a pixel, at less cost.
    """

    def __init__(self, variant: str = 'lite0') -> None:
        """Build a variant by name, with random weights."""
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"no EfficientNet variant '{variant}'; there are {list(VARIANTS)}")
        width, depth = VARIANTS[variant]
        channels = round_channels(STEM_CHANNELS, min(width, 1.0))
        self.stem = _lite_conv(3, channels, 3, stride=2)
        self.stages = nn.ModuleList()
        outputs = []
        for index, (repeats, kernel, stride, expansion, base) in enumerate(STAGES):
            out = round_channels(base, width)
            # the Lite family keeps the first and last stage at their base depth
            fixed = index in (0, len(STAGES) - 1)
            count = repeats if fixed else max(1, math.ceil(repeats * depth))
            blocks = [InvertedResidual(channels, out, kernel, stride, expansion)]
            blocks += [InvertedResidual(out, out, kernel, 1, expansion) for _ in range(1, count)]
            self.stages.append(nn.Sequential(*blocks))
            outputs.append(out)
            channels = out
        self.channels = tuple(outputs[tap] for tap in TAPS)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the features at strides 4, 8, 16 and 32."""
        features = []
        x = self.stem(x)
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in TAPS:
                features.append(x)
        return features

    def load_published(self, state: Mapping[str, torch.Tensor]) -> None:
        """Load a state dict with the keys of the published PyTorch port (``_blocks.N…``)."""
        own = self.state_dict()
        blocks = [
            f'stages.{place}.{block}.'
            for place, stage in enumerate(self.stages)
            for block in range(len(stage))  # type: ignore[arg-type]
        ]
        layers = {
            '_expand_conv': 'expand.0', '_bn0': 'expand.1', '_depthwise_conv': 'depthwise.0',
            '_bn1': 'depthwise.1', '_project_conv': 'project.0', '_bn2': 'project.1',
        }  # fmt: skip
        renamed = {}
        for key, tensor in state.items():
            head, _, rest = key.partition('.')
            if head == '_conv_stem':
                renamed[f'stem.0.{rest}'] = tensor
            elif head == '_bn0':
                renamed[f'stem.1.{rest}'] = tensor
            elif head == '_blocks':
                number, layer, leaf = rest.split('.', 2)
                renamed[f'{blocks[int(number)]}{layers[layer]}.{leaf}'] = tensor
        missing = own.keys() - renamed.keys()
        if missing:
            raise ValueError(f'the published weights lack {sorted(missing)[:3]}… of this variant')
        self.load_state_dict({key: renamed[key] for key in own})


class InvertedResidual(nn.Module):
    """Expand 1×1, depthwise k×k, project 1×1, with a shortcut where shapes allow (MBConv)."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        """Build the block; ``expansion`` 1 leaves out the first convolution."""
        super().__init__()
        wide = channels * expansion
        self.expand = _lite_conv(channels, wide) if expansion > 1 else nn.Identity()
        self.depthwise = _lite_conv(wide, wide, kernel, stride=stride, groups=wide)
        self.project = _lite_conv(wide, out, act=False)
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return float [B, out, H / stride, W / stride]."""
        y: torch.Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


def round_channels(channels: int, width: float) -> int:
    """Scale a channel count, rounded to a multiple of 8 but never down by over 10 %."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _lite_conv(
    channels: int, out: int, kernel: int = 1, *, act: bool = True, **conv: int
) -> nn.Sequential:
    last = nn.ReLU6(inplace=True) if act else None
    # eps is TensorFlow's default, which the published weights were trained with
    return conv_bn(channels, out, kernel, act=last, eps=1e-3, momentum=0.01, **conv)


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
        self.lateral16 = conv_bn(c16, width)
        self.merge16 = _separable(width, width)
        self.lateral8 = conv_bn(c8, width)
        self.merge8 = _separable(width, fine_width)
        self.lateral4 = conv_bn(c4, fine_width)
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
        y = self.merge16(enlarged(y) + self.lateral16(f16))
        y = self.merge8(enlarged(y) + self.lateral8(f8))
        y = self.merge4(enlarged(y) + self.lateral4(f4))
        logits: torch.Tensor = self.classify(self.dropout(y))
        return logits


class Context(nn.Module):
    """
    Pooled context at the coarsest stride: the whole image's mean, and each row's.

    A row's mean tells sky from road where both are black: cameras on vehicles are level.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.local = conv_bn(channels, out)
        self.image = nn.Conv2d(channels, out, 1)
        self.rows = nn.Conv2d(channels, out, 1)
        self.mix = _separable(out, out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return float [B, out, H, W]."""
        rows = x.mean(dim=3, keepdim=True)
        y = self.local(x) + self.rows(rows) + self.image(rows.mean(dim=2, keepdim=True))
        mixed: torch.Tensor = self.mix(torch.relu(y))
        return mixed


def enlarged(x: torch.Tensor) -> torch.Tensor:
    """Return float [B, C, 2 H, 2 W], bilinear."""
    return F.interpolate(x, scale_factor=2.0, mode='bilinear', align_corners=False)


def _separable(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        *conv_bn(channels, channels, 3, groups=channels, act=nn.ReLU(inplace=True)),
        *conv_bn(channels, out, act=nn.ReLU(inplace=True)),
    )


BINS = (1, 2, 4, 8)


class ERFPSPNet(nn.Module):
    """
    Float [B, 3, H, W], H and W multiples of 8 → logits float [B, classes, H / 8, W / 8].

    The published code fixes 512×1024; pooling by bins of the feature map frees the size. 2.5 M
    parameters with 19 classes.
    """

    stride = 8

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            Downsampler(3, 16),
            Downsampler(16, 64),
            *(NonBottleneck1D(64, 1, 0.03) for _ in range(5)),
            Downsampler(64, 128),
            *(NonBottleneck1D(128, dilation, 0.3) for _ in range(2) for dilation in (2, 4, 8, 16)),
        )
        self.pyramid = nn.ModuleList(_erf_conv(128, 32, 1) for _ in BINS)
        self.fuse = _erf_conv(256, 256, 3)
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


def _erf_conv(channels: int, out: int, kernel: int) -> nn.Sequential:
    return conv_bn(channels, out, kernel, act=nn.ReLU(inplace=True), eps=1e-3)
