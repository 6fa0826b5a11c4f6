# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Eight cameras on one GPU: time of a batch, and how much of the GPU that uses.

``python bench/gpu.py`` needs this package, torch with CUDA and the shipped weights: no ROS, no
data. Batches come at the cameras' rate; a batch is timed from the frames in host memory to labels
and confidence in host memory. The dry run: ``--device cpu --cameras 2 --size 96x160 --seconds 1``.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nightseg_ros.evaluation.agreement import made_up_images
from nightseg_ros.networks import build_from
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig
from nightseg_ros.perception.result import Want
from nightseg_ros.runtime.pixels import fit
from nightseg_ros.weights import Weights, load_weights

#: Milliseconds that 99 of 100 batches of eight 720p cameras may take.
GOAL_MS = 10.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the JSON."""
    options = _options(arguments)
    height, width = (int(side) for side in options.size.split('x'))
    config = PipelineConfig(
        route=options.route, backend=options.backend, device=options.device,
        weights=WeightsConfig(day=options.day, night=options.night),
    )  # fmt: skip
    pipeline = Pipeline.load(config, say=print)
    pipeline.warm_up([(height, width)])
    images = list(made_up_images(width, options.cameras))
    images = [np.ascontiguousarray(np.resize(image, (height, width, 3))) for image in images]
    batches = drive(pipeline, images, options.rate, options.seconds)
    times = np.array([batch['total'] for batch in batches])
    segmenter = pipeline.night if options.route == 'night' else pipeline.day
    assert segmenter is not None
    size = fit(*images[0].shape[:2], pipeline.long_side).padded
    p50, p95, p99 = (round(float(v), 3) for v in np.percentile(times, [50, 95, 99]))
    result = {
        'machine': machine(pipeline.backend.device),
        'what': {**vars(options), 'out': str(options.out), **pipeline.describe()},
        'batches': len(batches),
        'batch_ms': {'p50': p50, 'p95': p95, 'p99': p99, 'max': round(float(times.max()), 3)},
        'goal_ms': GOAL_MS,
        'late': int((times > 1e3 / options.rate).sum()),
        'stages_ms': {
            name: round(float(np.median([batch[name] for batch in batches])), 3)
            for name in batches[0]
        },
        'roofline': roofline(
            network_work(load_weights(segmenter.weights.path), *size),
            options.cameras, images[0].nbytes, p50,
            peaks(pipeline.backend.device),
        ),
    }  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
    print(json.dumps({k: v for k, v in result.items() if k != 'what'}, indent=1))
    print(f"written to '{options.out}'")


def drive(
    pipeline: Pipeline, images: list[Any], rate: float, seconds: float
) -> list[dict[str, float]]:
    """Process batches at ``rate`` and return milliseconds by stage, summed over the cameras."""
    want = Want(labels=True, confidence=True)
    measured = []
    began = time.perf_counter()
    count = max(5, round(rate * seconds))
    for number in range(-3, count):
        time.sleep(max(0.0, began + number / rate - time.perf_counter()))
        frames = [
            Frame(image=image, stamp_ns=round((number + 3) * 1e9 / rate), camera=f'camera{index}')
            for index, image in enumerate(images)
        ]
        started = time.perf_counter()
        results = pipeline.process(frames, want)
        total = (time.perf_counter() - started) * 1e3
        if number >= 0:
            stages = {name: sum(r.ms[name] for r in results) for name in results[0].ms}
            measured.append({'total': total, **stages})
    return measured


def machine(device: str) -> dict[str, Any]:
    """Return what the figures were measured on."""
    about: dict[str, Any] = {'torch': torch.__version__, 'cpu': platform.machine()}
    if device == 'cuda':
        gpu = torch.cuda.get_device_properties(0)
        about['gpu'] = gpu.name
        about['gpu_memory_gib'] = round(gpu.total_memory / 2**30, 1)
        about['used_mib'] = round(torch.cuda.max_memory_allocated() / 2**20)
        about['reserved_mib'] = round(torch.cuda.max_memory_reserved() / 2**20)
    return about


def network_work(weights: Weights, height: int, width: int) -> dict[str, float]:
    """
    Return ``gmac`` and ``megabytes`` (10^6) of one image of ``height`` × ``width`` pixels.

    The bytes are those of every convolution's input, output and weights in float16, as if no
    cache held what lies between.
    """
    network = build_from(weights).eval()
    moved = 0

    def count(layer: nn.Module, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> None:
        nonlocal moved
        weight = sum(parameter.numel() for parameter in layer.parameters())
        moved += 2 * (given[0].numel() + result.numel() + weight)

    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            layer.register_forward_hook(count)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, height, width))
    return {
        'gmac': round(counter.get_total_flops() / 2e9, 4),
        'megabytes': round(moved / 1e6, 2),
    }


def peaks(device: str) -> dict[str, float]:
    """
    Return what the device reaches: tera-multiply-adds, gigabytes a second in memory and across.

    A product of two square matrices, float16 on a GPU; a copy on the device, read and write
    counted; an upload from pinned memory.
    """
    on_gpu = device == 'cuda'
    side, length = (8192, 2**30) if on_gpu else (512, 2**24)
    kind = torch.float16 if on_gpu else torch.float32
    a = torch.ones(side, side, dtype=kind, device=device)
    source = torch.ones(length, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    host = torch.ones(length // 8, dtype=torch.uint8, pin_memory=on_gpu)
    product = _seconds(lambda: a @ a, on_gpu)
    copy = _seconds(lambda: target.copy_(source), on_gpu)
    upload = _seconds(lambda: target[: len(host)].copy_(host, non_blocking=True), on_gpu)
    return {
        'tmac_per_s': side**3 / product / 1e12,
        'gigabytes_per_s': 2 * length / copy / 1e9,
        'upload_gigabytes_per_s': len(host) / upload / 1e9,
    }


def roofline(
    work: dict[str, float], cameras: int, frame_bytes: int, batch_ms: float,
    peak: dict[str, float],
) -> dict[str, Any]:  # fmt: skip
    """Return the least milliseconds of a batch by each limit, and the share of its time."""
    compute = cameras * work['gmac'] / peak['tmac_per_s']
    memory = cameras * work['megabytes'] / peak['gigabytes_per_s']
    upload = cameras * frame_bytes / 1e6 / peak['upload_gigabytes_per_s']
    least = {'compute': compute, 'memory': memory, 'upload': upload}
    return {
        'network': work,
        'peaks': {name: round(value, 3) for name, value in peak.items()},
        'least_ms': {name: round(value, 6) for name, value in least.items()},
        'share': {name: round(value / batch_ms, 6) for name, value in least.items()},
    }


def _seconds(work: Callable[[], object], on_gpu: bool, rounds: int = 10) -> float:
    for _ in range(3):
        work()
    if on_gpu:
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(rounds):
        work()
    if on_gpu:
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / rounds


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--device', default='cuda', choices=('cuda', 'cpu'))
    parser.add_argument('--backend', default='torch', choices=('torch', 'tensorrt'))
    parser.add_argument('--route', default='night', choices=('auto', 'day', 'night'))
    parser.add_argument('--day', default='day', help='weights of the route day')
    parser.add_argument('--night', default='night', help='weights of the route night')
    parser.add_argument('--cameras', type=int, default=8)
    parser.add_argument('--size', default='720x1280', help='rows x columns of a frame')
    parser.add_argument('--rate', type=float, default=30.0, help='batches a second')
    parser.add_argument('--seconds', type=float, default=30.0)
    parser.add_argument('--out', type=Path, default=Path('out/bench/gpu.json'))
    return parser.parse_args(arguments)


if __name__ == '__main__':
    main()
