# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Cameras on one GPU: time of a batch, frames a second, share of the roofline, labels as on the CPU.

``python bench/gpu.py`` needs this package, torch with CUDA and the shipped weights: no ROS, no
data. Batches come at the cameras' rate, then one after another; a batch is timed from the frames
in host memory to labels and confidence in host memory. The dry run: ``--device cpu --cameras 1 2
--size 96x160 --seconds 1``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
import json
from pathlib import Path
import time
from typing import Any

from nightseg_ros.cli.machine import machine, percentiles, versions
from nightseg_ros.evaluation.agreement import made_up_images
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig
from nightseg_ros.perception.result import Want
from nightseg_ros.runtime.backend import MIN_AGREEMENT, ON_GPU
from nightseg_ros.runtime.graph import graph_of
from nightseg_ros.runtime.pixels import fit
from nightseg_ros.weights import load_weights
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

#: Milliseconds that 99 of 100 batches of eight 720p cameras may take, and the share of the pixels
#: that must have the labels of float32 on the CPU.
GOALS = {'p99_ms of 8': 10.0, 'agreement': MIN_AGREEMENT}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the JSON."""
    options = _options(arguments)
    height, width = (int(side) for side in options.size.split('x'))
    config = PipelineConfig(
        route='night', backend=options.backend, device=options.device,
        weights=WeightsConfig(night=options.night),
    )  # fmt: skip
    pipeline = Pipeline.load(config, log=print)
    pipeline.warm_up([(height, width)])
    images = list(made_up_images(width, max(options.cameras)))
    images = [np.ascontiguousarray(np.resize(image, (height, width, 3))) for image in images]
    exact = Pipeline.load(replace(config, backend='onnxruntime', device='cpu'))
    rows, columns = fit(height, width, pipeline.long_side).padded
    with FlopCounterMode(display=False) as counter:
        graph_of(load_weights(options.night))(torch.zeros(1, rows, columns, 3, dtype=torch.uint8))
    operations, peak = counter.get_total_flops(), peak_flops(pipeline.backend.device)
    result: dict[str, Any] = {
        'machine': machine(), 'versions': versions(),
        'what': {**vars(options), 'out': str(options.out), **pipeline.describe()},
        'gflop_a_frame': operations / 1e9, 'peak_tflops': peak / 1e12,
        'goals': GOALS, 'cameras': {},
    }  # fmt: skip
    count = max(5, round(options.rate * options.seconds))
    for cameras in options.cameras:
        paced = drive(pipeline, images[:cameras], options.rate, count)
        flat_out = drive(pipeline, images[:cameras], float('inf'), count)
        times = [batch['total'] for batch in paced]
        hz = 1e3 * cameras / float(np.median([batch['total'] for batch in flat_out]))
        result['cameras'][cameras] = {
            'batch_ms': {**percentiles(times), 'max': round(max(times), 3)},
            'frames_per_second': round(hz, 1),
            'share_of_roofline': round(hz * operations / peak, 4),
            'stages_ms': {
                name: round(float(np.median([batch[name] for batch in paced])), 3)
                for name in paced[0]
            },
            'agreement': agreement(pipeline, exact, images[:cameras]),
        }
    if pipeline.backend.device == 'cuda':
        used = torch.cuda.max_memory_allocated() >> 20
        result['gpu'] = {'name': torch.cuda.get_device_name(), 'used_mib': used}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
    print(json.dumps({k: v for k, v in result.items() if k != 'what'}, indent=1))
    print(f"written to '{options.out}'")


def drive(
    pipeline: Pipeline, images: list[Any], rate: float, count: int
) -> list[dict[str, float]]:
    """Process batches at ``rate`` and return milliseconds by stage, summed over the cameras."""
    want = Want(labels=True, confidence=True)
    measured = []
    pipeline.reset()
    began = time.perf_counter()
    for number in range(-3, count):
        time.sleep(max(0.0, began + number / rate - time.perf_counter()))
        frames = cameras_frames(images, number + 3)
        started = time.perf_counter()
        results = pipeline.process(frames, want)
        total = (time.perf_counter() - started) * 1e3
        if number >= 0:
            stages = {name: sum(r.ms[name] for r in results) for name in results[0].ms}
            measured.append({'total': total, **stages})
    return measured


def agreement(pipeline: Pipeline, exact: Pipeline, images: list[Any]) -> float:
    """Return the share of pixels that get the labels of float32 on the CPU."""
    pairs = zip(*(p.process(cameras_frames(images, 10**6)) for p in (pipeline, exact)))
    return float(np.mean([(a.labels == b.labels).mean() for a, b in pairs]))


def cameras_frames(images: list[Any], number: int) -> list[Frame]:
    """Return a frame of each camera, a tenth of a second after those before."""
    return [
        Frame(image=image, stamp_ns=number * 10**8, camera=f'camera{index}')
        for index, image in enumerate(images)
    ]


def peak_flops(device: str) -> float:
    """Return the operations a second of a large product, in float16 on a GPU."""
    side, kind = (8192, torch.float16) if device == 'cuda' else (512, torch.float32)
    matrix = torch.zeros(side, side, device=device, dtype=kind)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(4):
            torch.mm(matrix, matrix)
        if device == 'cuda':
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - started) / 4)
    return 2 * side**3 / min(seconds)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--device', default='cuda', choices=('cuda', 'cpu'))
    parser.add_argument('--backend', default='torch', choices=ON_GPU)
    parser.add_argument('--night', default='night', help='weights of its one route')
    parser.add_argument('--cameras', type=int, nargs='+', default=[1, 4, 8])
    parser.add_argument('--size', default='720x1280', help='rows x columns of a frame')
    parser.add_argument('--rate', type=float, default=30.0, help='batches a second')
    parser.add_argument('--seconds', type=float, default=10.0)
    parser.add_argument('--out', type=Path, default=Path('out/bench/gpu.json'))
    return parser.parse_args(arguments)


if __name__ == '__main__':
    main()
