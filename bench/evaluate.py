# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What `nightseg evaluate` costs on top of the network, in time and in memory.

``python bench/evaluate.py speed [ROUNDS]``: frames a second of the bare night segmenter on noise
of its own input size, frame by frame on all cores as in a node and side by side as the evaluation
does it, and of evaluations of a bag (640×360 JPEGs with labels as mono8 or PNG) by the same route
on the same backend; they take turns. ``python bench/evaluate.py memory``: peak memory of the
process that evaluates 100 and 10,000 tiny frames.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from nightseg_ros.bags.writer import BagWriter
from nightseg_ros.evaluation.evaluate import EvaluationSettings, evaluate
from nightseg_ros.evaluation.sources import Plan, sequence_shards
from nightseg_ros.evaluation.variants import Variants, configurations, stream_count
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig
from nightseg_ros.simulation import Street, render

IMAGES = '/camera/image_raw/compressed'
LABELS = '/camera/labels_truth'
START = 1_700_000_000_000_000_000


def write_drive(
    path: Path, frames: int, size: tuple[int, int], scenes: int, labels: str = 'mono8'
) -> Path:
    """Write a bag at 30 Hz in which a few rendered scenes follow one another."""
    contents = []
    for index in range(scenes):
        scene = render(Street(1, 'demo'), 5.0 * index, 'night', seed=index, size=size)
        image = cv2.cvtColor(np.asarray(scene.image, np.uint8), cv2.COLOR_RGB2BGR)
        png = cv2.imencode('.png', scene.labels)[1].tobytes()
        contents.append((cv2.imencode('.jpg', image)[1].tobytes(), scene.labels, png))
    with BagWriter(path) as bag:
        for index in range(frames):
            stamp = START + index * 1_000_000_000 // 30
            picture, ids, png = contents[index % scenes]
            bag.write_compressed(IMAGES, picture, 'jpeg', stamp_ns=stamp)
            if labels == 'png':
                bag.write_compressed(LABELS, png, 'png', stamp_ns=stamp)
            else:
                bag.write_labels(LABELS, ids, stamp_ns=stamp)
    return path


def bare_rate(pipelines: list[Pipeline], frames: int) -> tuple[float, float]:
    """Run the night segmenter of each pipeline in a thread; return Hz and ms of CPU a frame."""
    height, width = pipelines[0]._size(Frame(image=np.zeros((360, 640, 3), np.uint8))).padded
    image = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)

    def run(pipeline: Pipeline) -> None:
        assert pipeline.night is not None
        for _ in range(frames // len(pipelines)):
            pipeline.night(image)

    with ThreadPoolExecutor(len(pipelines)) as pool:
        started, cpu = time.perf_counter(), time.process_time()
        list(pool.map(run, pipelines))
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return frames / seconds, 1e3 * cpu / frames


def evaluation_rate(plan: Plan, variants: Variants, out: Path) -> tuple[float, float]:
    """Evaluate; return Hz without the scores at the end, and ms of CPU a frame with them."""
    cpu = time.process_time()
    [run] = evaluate(plan, variants, out, EvaluationSettings(restart=True))['runs'].values()
    return run['timing']['frames_per_second'], 1e3 * (time.process_time() - cpu) / run['frames']


def speed(rounds: int, frames: int = 100) -> None:
    """Print the rates, whose order turns around every round, and the medians of their ratios."""
    config = PipelineConfig(route='night')
    members = configurations(config, ())
    streams = stream_count(config, 0)
    alone = [Pipeline.load(config)]
    variants = Variants.load(members, streams=streams)
    beside = [stream[0] for stream in variants._streams]
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Callable[[], tuple[float, float]]] = {
            'network alone': partial(bare_rate, alone, frames),
            'network side by side': partial(bare_rate, beside, frames),
        }
        for kind in ('mono8', 'png'):
            drive = write_drive(Path(folder) / kind, frames, (640, 360), 8, kind)
            parts = tuple(sequence_shards([drive], labels=[LABELS]))
            plan = Plan(configurations=members, shards=parts)
            out = Path(folder) / f'out-{kind}'
            ways[f'evaluate {kind}'] = partial(evaluation_rate, plan, variants, out)
        bare_rate(alone, 4)
        bare_rate(beside, 4)
        print(f'{alone[0].backend.name}, {frames} frames a round, {streams} at a time')
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for number in range(rounds):
            for name in list(ways)[:: -1 if number % 2 else 1]:
                found[name].append(ways[name]())
            text = (f'{name} {values[-1][0]:.1f} Hz' for name, values in found.items())
            print('; '.join(text), flush=True)
    for name, values in found.items():
        hz, ms = (statistics.median(column) for column in zip(*values))
        print(f'{name}: {hz:.1f} Hz, {ms:.1f} ms of CPU a frame')
        for bare in ('network alone', 'network side by side'):
            if not name.startswith('network'):
                pairs = zip(values, found[bare])
                ratio = statistics.median(full[0] / own[0] for full, own in pairs)
                print(f'  {100 * ratio:.0f} % of the {bare}, median of the rounds')


def memory() -> None:
    """Print the peak of a process for each length and their ratio."""
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for frames in (100, 10_000):
            drive = write_drive(Path(folder) / str(frames), frames, (96, 54), 4)
            done = subprocess.run(
                [sys.executable, __file__, 'peak', str(drive)], capture_output=True, text=True,
                check=True,
            )  # fmt: skip
            peaks.append(int(done.stdout.split()[-1]))
            print(f'{frames} frames: {peaks[-1] / 1024:.0f} MiB')
    print(f'ratio {peaks[1] / peaks[0]:.3f}')


def peak(drive: Path) -> None:
    """Evaluate one bag and print this process's peak of resident memory in KiB."""
    weights = WeightsConfig(day='rendered_day', night='rendered_night')
    config = PipelineConfig(weights=weights, long_side=96)
    members = configurations(config, ())
    variants = Variants.load(members, streams=stream_count(config, 0))
    plan = Plan(configurations=members, shards=tuple(sequence_shards([drive], labels=[LABELS])))
    evaluate(plan, variants, drive.parent / f'out_{drive.name}', EvaluationSettings())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == '__main__':
    if sys.argv[1:2] == ['speed']:
        speed(int(sys.argv[2]) if len(sys.argv) > 2 else 5)
    elif sys.argv[1:2] == ['memory']:
        memory()
    elif sys.argv[1:2] == ['peak']:
        peak(Path(sys.argv[2]))
    else:
        sys.exit(__doc__)
