# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Eight cameras on one GPU: the time of a batch.

``python bench/gpu.py`` needs this package, torch with CUDA and the shipped weights: no ROS, no
data. Batches come at the cameras' rate; a batch is timed from the frames in host memory to labels
and confidence in host memory. The dry run: ``--device cpu --cameras 2 --size 96x160 --seconds 1``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
from pathlib import Path
import platform
import time
from typing import Any

from nightseg_ros.evaluation.agreement import made_up_images
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig
from nightseg_ros.perception.result import Want
import numpy as np
import torch

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
    pipeline = Pipeline.load(config, log=print)
    pipeline.warm_up([(height, width)])
    images = list(made_up_images(width, options.cameras))
    images = [np.ascontiguousarray(np.resize(image, (height, width, 3))) for image in images]
    batches = drive(pipeline, images, options.rate, options.seconds)
    times = np.array([batch['total'] for batch in batches])
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
