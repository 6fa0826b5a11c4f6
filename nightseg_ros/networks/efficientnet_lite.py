# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite encoders: squeeze-free, ReLU6, made for fixed-point and small machines."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

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
_BN_EPS = 1e-3  # TensorFlow's default, which the published weights were trained with


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
        stem = round_channels(STEM_CHANNELS, min(width, 1.0))
        self.stem = _conv_bn(3, stem, kernel=3, stride=2, act=True)
        self.stages = nn.ModuleList()
        channels = stem
        outputs = []
        self.repeats: list[int] = []
        for index, (repeats, kernel, stride, expansion, base) in enumerate(STAGES):
            out = round_channels(base, width)
            # the Lite family keeps the first and last stage at their base depth
            fixed = index in (0, len(STAGES) - 1)
            count = repeats if fixed else max(1, math.ceil(repeats * depth))
            blocks = []
            for repeat in range(count):
                blocks.append(
                    InvertedResidual(
                        channels, out, kernel, stride if repeat == 0 else 1, expansion
                    )
                )
                channels = out
            self.stages.append(nn.Sequential(*blocks))
            outputs.append(out)
            self.repeats.append(count)
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
            for place, count in enumerate(self.repeats)
            for block in range(count)
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
        self.expand = _conv_bn(channels, wide, act=True) if expansion > 1 else nn.Identity()
        self.depthwise = _conv_bn(wide, wide, kernel=kernel, stride=stride, groups=wide, act=True)
        self.project = _conv_bn(wide, out, act=False)
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return float [B, out, H / stride, W / stride]."""
        y: torch.Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


def round_channels(channels: int, width: float, divisor: int = 8) -> int:
    """Scale a channel count, rounded to a multiple of 8 but never down by over 10 %."""
    scaled = channels * width
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded


def _conv_bn(
    channels: int, out: int, *, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out, eps=_BN_EPS, momentum=0.01),
    ]
    if act:
        layers.append(nn.ReLU6(inplace=True))
    return nn.Sequential(*layers)
