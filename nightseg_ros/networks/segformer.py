# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""SegFormer: a hierarchical transformer with an all-MLP decoder (Xie et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F


class Segformer(nn.Module):
    """
    Float [B, 3, H, W], H and W multiples of 32 → logits float [B, classes, H / 4, W / 4].

    The defaults are B0; ``networks.segformer_checkpoint`` reads checkpoints of ``transformers``.
    """

    stride = 4

    def __init__(
        self,
        classes: int,
        depths: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (32, 64, 160, 256),
        heads: Sequence[int] = (1, 2, 5, 8),
        reductions: Sequence[int] = (8, 4, 2, 1),
        expansions: Sequence[int] = (4, 4, 4, 4),
        decoder_width: int = 256,
        dropout: float = 0.1,
    ) -> None:
        """Build it with random weights; four stages, each with its depth, width and so on."""
        super().__init__()
        self.stages = nn.ModuleList()
        channels = 3
        for index, (depth, width) in enumerate(zip(depths, widths)):
            self.stages.append(
                Stage(
                    channels,
                    width,
                    depth,
                    first=index == 0,
                    heads=heads[index],
                    reduction=reductions[index],
                    expansion=expansions[index],
                )  # fmt: skip
            )
            channels = width
        self.projections = nn.ModuleList(nn.Linear(width, decoder_width) for width in widths)
        self.fuse = nn.Conv2d(decoder_width * len(widths), decoder_width, 1, bias=False)
        self.norm = nn.BatchNorm2d(decoder_width)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Conv2d(decoder_width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits at stride 4."""
        levels: list[torch.Tensor] = []
        for stage, project in zip(self.stages, self.projections):
            x = stage(x)
            level = project(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            if levels:
                level = F.interpolate(level, size=levels[0].shape[2:], mode='bilinear')
            levels.append(level)
        y = torch.relu(self.norm(self.fuse(torch.cat(levels[::-1], 1))))
        logits: torch.Tensor = self.classify(self.dropout(y))
        return logits


class Stage(nn.Module):
    """A strided convolution with overlapping windows, then transformer blocks."""

    def __init__(
        self, channels: int, width: int, depth: int, *, first: bool, heads: int, reduction: int,
        expansion: int,
    ) -> None:  # fmt: skip
        """Build it; the first stage has stride 4, the others 2."""
        super().__init__()
        kernel, stride = (7, 4) if first else (3, 2)
        self.embed = nn.Conv2d(channels, width, kernel, stride, kernel // 2)
        self.embed_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            Block(width, heads=heads, reduction=reduction, expansion=expansion)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return float [B, width, H / stride, W / stride]."""
        x = self.embed(x)
        size = (x.shape[2], x.shape[3])
        tokens = self.embed_norm(_to_tokens(x))
        for block in self.blocks:
            tokens = block(tokens, size)
        return _to_map(self.norm(tokens), size)


class Block(nn.Module):
    """Attention and MLP, each with a norm before it and a shortcut around it."""

    def __init__(self, width: int, *, heads: int, reduction: int, expansion: int) -> None:
        """Build it with random weights."""
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads, reduction)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = MixMLP(width, width * expansion)

    def forward(self, tokens: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Take and return float [B, H · W, width]; ``size`` is H and W."""
        tokens = tokens + self.attention(self.attention_norm(tokens), size)
        mixed: torch.Tensor = tokens + self.mlp(self.mlp_norm(tokens), size)
        return mixed


class Attention(nn.Module):
    """Self-attention whose keys and values come from a map shrunk by ``reduction``."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        """Build it with random weights."""
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.query, self.key, self.value, self.mix = (nn.Linear(width, width) for _ in range(4))
        if reduction > 1:
            self.reduce = nn.Conv2d(width, width, reduction, reduction)
            self.reduce_norm = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Take and return float [B, H · W, width]."""
        context = tokens
        if self.reduction > 1:
            context = self.reduce_norm(_to_tokens(self.reduce(_to_map(tokens, size))))
        query, key, value = (
            projected.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projected in (self.query(tokens), self.key(context), self.value(context))
        )
        seen = F.scaled_dot_product_attention(query, key, value)
        mixed: torch.Tensor = self.mix(seen.transpose(1, 2).flatten(2))
        return mixed


class MixMLP(nn.Module):
    """MLP with a 3×3 depthwise convolution inside, which stands for position codes."""

    def __init__(self, width: int, inner: int) -> None:
        """Build it with random weights."""
        super().__init__()
        self.widen = nn.Linear(width, inner)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.narrow = nn.Linear(inner, width)

    def forward(self, tokens: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Take and return float [B, H · W, width]."""
        inner = _to_tokens(self.depthwise(_to_map(self.widen(tokens), size)))
        mixed: torch.Tensor = self.narrow(F.gelu(inner))
        return mixed


def _to_tokens(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(2).transpose(1, 2)


def _to_map(tokens: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    # reshape, and not unflatten, which would fix the size of an exported graph
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *size)
