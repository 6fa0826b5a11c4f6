# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Cameras on one GPU: time of a batch, frames a second, share of the roofline, labels as on the CPU.

``python bench/gpu.py`` needs this package, torch with CUDA and the shipped weights: no ROS, no
data. Batches come at the cameras' rate, then one after another; a batch is timed from the frames
in host memory to labels and confidence in host memory. The dry run: ``--device cpu --cameras 1 2
--size 96x160 --seconds 1``; ``--device cpu --backend openvino --cameras 1`` tells a CPU's share.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
import json
from pathlib import Path
import time
from typing import Any, Literal

from nightseg_ros.cli.machine import machine, percentiles, versions
from nightseg_ros.evaluation.agreement import made_up_images
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig
from nightseg_ros.perception.result import Want
from nightseg_ros.runtime.backend import BACKENDS, MIN_AGREEMENT
from nightseg_ros.runtime.graph import graph_of
from nightseg_ros.runtime.pixels import fit
from nightseg_ros.weights import load_weights
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
import tyro

#: Milliseconds that 99 of 100 batches of eight 720p cameras may take, and the share of the pixels
#: that must have the labels of float32 on the CPU.
GOALS = {'p99_ms of 8': 10.0, 'agreement': MIN_AGREEMENT}


def main(
    *, device: Literal['cuda', 'cpu'] = 'cuda', backend: Literal[tuple(BACKENDS)] = 'torch',
    night: str = 'night', cameras: tuple[int, ...] = (1, 4, 8), size: str = '720x1280',
    rate: float = 30.0, seconds: float = 10.0, out: Path = Path('out/bench/gpu.json'),
) -> None:  # fmt: skip
    """Measure, print and write the JSON; ``rate`` is in batches a second, ``size`` in rows."""
    settings = {**locals(), 'out': str(out)}
    height, width = (int(side) for side in size.split('x'))
    weights = WeightsConfig(night=night)
    config = PipelineConfig(route='night', backend=backend, device=device, weights=weights)
    pipeline = Pipeline.load(config, log=print)
    pipeline.warm_up([(height, width)])
    images = list(made_up_images(width, max(cameras)))
    images = [np.ascontiguousarray(np.resize(image, (height, width, 3))) for image in images]
    exact = Pipeline.load(replace(config, backend='onnxruntime', device='cpu'))
    rows, columns = fit(height, width, pipeline.long_side).padded
    with FlopCounterMode(display=False) as counter:
        graph_of(load_weights(night))(torch.zeros(1, rows, columns, 3, dtype=torch.uint8))
    operations, peak = counter.get_total_flops(), peak_flops(pipeline.backend.device)
    if pipeline.backend.device == 'cuda':
        # of the frames, not of the products above
        torch.cuda.reset_peak_memory_stats()
    result: dict[str, Any] = {
        'machine': machine(), 'versions': versions(), 'what': {**settings, **pipeline.describe()},
        'gflop_a_frame': operations / 1e9, 'peak_tflops': peak / 1e12, 'goals': GOALS,
        'cameras': {},
    }  # fmt: skip
    number = max(5, round(rate * seconds))
    for count in cameras:
        paced = drive(pipeline, images[:count], rate, number)
        flat_out = drive(pipeline, images[:count], float('inf'), number)
        times = paced['total']
        hz = 1e3 * count / float(np.median(flat_out['total']))
        result['cameras'][count] = {
            'batch_ms': {**percentiles(times), 'max': round(max(times), 3)},
            'frames_per_second': round(hz, 1),
            'share_of_roofline': round(hz * operations / peak, 4),
            'stages_ms': {name: round(float(np.median(ms)), 3) for name, ms in paced.items()},
            'agreement': agreement(pipeline, exact, images[:count]),
        }
    if pipeline.backend.device == 'cuda':
        used = torch.cuda.max_memory_allocated() >> 20
        result['gpu'] = {'name': torch.cuda.get_device_name(), 'used_mib': used}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
    print(json.dumps({k: v for k, v in result.items() if k != 'what'}, indent=1))
    print(f"written to '{out}'")


def drive(
    pipeline: Pipeline, images: list[Any], rate: float, count: int
) -> dict[str, list[float]]:
    """Process batches at ``rate`` and return milliseconds by stage, summed over the cameras."""
    want = Want(labels=True, confidence=True)
    measured = defaultdict(list)
    pipeline.reset()
    began = time.perf_counter()
    for number in range(-3, count):
        time.sleep(max(0.0, began + number / rate - time.perf_counter()))
        frames = cameras_frames(images, number + 3)
        started = time.perf_counter()
        results = pipeline.process(frames, want)
        total = (time.perf_counter() - started) * 1e3
        if number >= 0:
            measured['total'].append(total)
            for name in results[0].ms:
                measured[name].append(sum(r.ms[name] for r in results))
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


if __name__ == '__main__':
    tyro.cli(main)
