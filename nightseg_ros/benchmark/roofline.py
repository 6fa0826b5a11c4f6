# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What a frame costs in arithmetic and memory traffic, and what this machine can do at most."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nightseg_ros.networks import build_from
from nightseg_ros.weights import Weights


def network_work(weights: Weights, height: int, width: int) -> dict[str, float]:
    """
    Return ``gmac`` and ``megabytes`` (10^6) of one frame of ``height`` × ``width`` pixels.

    The bytes are those of every convolution's input, output and weights in float32: what goes
    through memory where no layer is fused with the next and no cache holds what lies between.
    """
    network = build_from(weights).eval()
    moved = 0

    def count(layer: nn.Module, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
        nonlocal moved
        sizes = [given[0].numel(), result.numel(), *(p.numel() for p in layer.parameters())]
        moved += 4 * sum(sizes)

    hooks = [
        layer.register_forward_hook(count)
        for layer in network.modules()
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))
    ]
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, height, width))
    for hook in hooks:
        hook.remove()
    return {
        'gmac': round(counter.get_total_flops() / 2e9, 3),
        'megabytes': round(moved / 1e6, 1),
    }


def machine_peaks(repeats: int = 8) -> dict[str, float]:
    """
    Return what the CPU reaches at best: ``gmac_per_s`` of float32, ``gigabytes_per_s``.

    The arithmetic is that of a 3 × 3 convolution of 128 channels to as many, 128 × 128 pixels, by
    torch; the traffic that of a copy of 128 MB, read and write counted.
    """
    layer = nn.Conv2d(128, 128, 3, padding=1, bias=False)
    layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.zeros(1, 128, 128, 128).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        seconds = _best(lambda: layer(images), repeats)
    source = np.ones(128_000_000, np.uint8)
    target = np.empty_like(source)
    copy = _best(lambda: np.copyto(target, source), repeats)
    return {
        'gmac_per_s': round(128 * 128 * 9 * 128 * 128 / 1e9 / seconds, 1),
        'gigabytes_per_s': round(2 * source.nbytes / 1e9 / copy, 1),
    }


def shares(work: dict[str, float], peaks: dict[str, float], network_ms: float) -> dict[str, Any]:
    """Return the least milliseconds that ``work`` can take, and how much of its time that is."""
    compute = work['gmac'] / peaks['gmac_per_s'] * 1e3
    memory = work['megabytes'] / peaks['gigabytes_per_s']
    return {
        'compute_ms': round(compute, 2),
        'memory_ms': round(memory, 2),
        'network_ms': round(network_ms, 2),
        'share': round(max(compute, memory) / network_ms, 3),
    }


def _best(work: Callable[[], object], repeats: int) -> float:
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)
