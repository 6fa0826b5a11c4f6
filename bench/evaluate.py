# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What `nightseg evaluate` costs on top of the network, in time and in memory.

``python bench/evaluate.py speed [ROUNDS]``: frames a second of the bare night segmenter at its own
input size, and of an evaluation of a bag (640×360 JPEGs with mono8 labels) by the same route on
the same backend; they take turns. ``python bench/evaluate.py memory``: peak memory of the process
that evaluates 100 and 10,000 tiny frames.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from nightseg_ros.bags.writer import BagWriter
from nightseg_ros.evaluation.evaluate import EvaluationSettings, evaluate
from nightseg_ros.evaluation.lineup import Lineup, configurations, stream_count
from nightseg_ros.evaluation.plan import Plan, recording_parts
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig
from nightseg_ros.simulation import Street, render

IMAGES = '/camera/image_raw/compressed'
LABELS = '/camera/labels_truth'
START = 1_700_000_000_000_000_000


def write_drive(path: Path, frames: int, size: tuple[int, int], scenes: int) -> Path:
    """Write a bag at 30 Hz in which a few rendered scenes follow one another."""
    drawn = [
        render(Street(1, 'demo'), 5.0 * index, 'night', seed=index, size=size)
        for index in range(scenes)
    ]
    contents = []
    for scene in drawn:
        image = cv2.cvtColor(np.asarray(scene.image, np.uint8), cv2.COLOR_RGB2BGR)
        contents.append((cv2.imencode('.jpg', image)[1].tobytes(), scene.labels))
    with BagWriter(path) as bag:
        for index in range(frames):
            stamp = START + index * 1_000_000_000 // 30
            picture, labels = contents[index % scenes]
            bag.write_compressed(IMAGES, picture, 'jpeg', stamp_ns=stamp)
            bag.write_labels(LABELS, labels, stamp_ns=stamp)
    return path


def speed(rounds: int, frames: int = 300) -> None:
    """Print both rates of every round and the median of their ratio."""
    config = PipelineConfig(route='night')
    members = configurations(config, ())
    pipeline = Pipeline.load(config)
    assert pipeline.night is not None
    streams = stream_count(config, 0)
    lineup = Lineup.load(members, streams=streams)
    rates = []
    with tempfile.TemporaryDirectory() as folder:
        drive = write_drive(Path(folder) / 'drive', frames, (640, 360), 16)
        plan = Plan(configurations=members, parts=tuple(recording_parts([drive], labels=[LABELS])))
        height, width = pipeline._size(Frame(image=np.zeros((360, 640, 3), np.uint8))).padded
        image = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
        pipeline.night(image)
        print(
            f'{pipeline.backend.name}, network input {width}×{height}, {frames} frames a round, '
            f'evaluated {streams} at a time'
        )
        for number in range(rounds):
            started, cpu = time.perf_counter(), time.process_time()
            for _ in range(frames):
                pipeline.night(image)
            bare = frames / (time.perf_counter() - started)
            alone, cpu = time.process_time() - cpu, time.process_time()
            out = Path(folder) / f'out{number}'
            result = evaluate(plan, lineup, out, EvaluationSettings())
            whole = time.process_time() - cpu
            timing = result['runs']['drive']['timing']
            rates.append((bare, timing['frames_per_second']))
            print(
                f'network {bare:.1f} Hz, {1e3 * alone / frames:.1f} ms of CPU a frame; '
                f'evaluate {rates[-1][1]:.1f} Hz, {1e3 * whole / frames:.1f} ms'
            )
        stages = {stage: values['p50'] for stage, values in timing['ms'].items()}
        print('ms of a frame, median:', stages)
    ratio = statistics.median(full / bare for bare, full in rates)
    print(f'evaluate reaches {100 * ratio:.0f} % of the network, median of {rounds} rounds')


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
    members = configurations(PipelineConfig(weights=weights, long_side=96), ())
    plan = Plan(configurations=members, parts=tuple(recording_parts([drive], labels=[LABELS])))
    evaluate(plan, Lineup.load(members), drive.parent / f'out_{drive.name}', EvaluationSettings())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == '__main__':
    if sys.argv[1:2] == ['speed']:
        speed(int(sys.argv[2]) if len(sys.argv) > 2 else 3)
    elif sys.argv[1:2] == ['memory']:
        memory()
    elif sys.argv[1:2] == ['peak']:
        peak(Path(sys.argv[2]))
    else:
        sys.exit(__doc__)
