# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Seconds a training step of the default network by precision; the candidates take turns."""

from __future__ import annotations

import statistics
import time

import torch
from torch.nn import functional as F

from nightseg_ros.networks import build
from nightseg_ros.training.losses import speed_up_cpu_training

ROUNDS = 6


def main() -> None:
    """Measure 8 crops of 480×352, forward and backward; the first round warms up."""
    networks = {}
    for name in ('float32', 'bf16', 'bf16, depthwise gradients in float32'):
        torch.manual_seed(0)
        networks[name] = build('lite_segmenter', classes=11).train()
        networks[name].to(memory_format=torch.channels_last)
    speed_up_cpu_training(networks['bf16, depthwise gradients in float32'])
    images = torch.rand(8, 3, 352, 480).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 11, (8, 176, 240))
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(ROUNDS):
        for name, network in networks.items():
            started = time.perf_counter()
            with torch.autocast('cpu', torch.bfloat16, enabled=name != 'float32'):
                logits = network(images)
            half = F.interpolate(logits.float(), scale_factor=2, mode='bilinear')
            network.zero_grad()
            F.cross_entropy(half, labels).backward()
            seconds[name].append(time.perf_counter() - started)
    for name, measured in seconds.items():
        print(f'{name}: {statistics.median(measured[1:]):.2f} s')


if __name__ == '__main__':
    main()
