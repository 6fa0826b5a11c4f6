# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A small drive from light into darkness with labels, and a shard that ends its process."""

from collections.abc import Generator
from dataclasses import dataclass
import os
from pathlib import Path
import signal
from typing import Any

from nightseg_ros.bags.writer import BagWriter, Storage
from nightseg_ros.evaluation.sources import LabelledFrame, Shard
from nightseg_ros.files import LOG
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import PipelineConfig, WeightsConfig
import numpy as np

IMAGE_TOPIC = '/camera/image_raw'
LABEL_TOPIC = '/camera/labels_truth'
START = 1_700_000_000_000_000_000
STEP = 100_000_000
SIZE = (36, 64)


def picture(index: int, count: int) -> np.ndarray:
    """Uint8 RGB [36, 64, 3]; the second half has a black ground: night to the tests' weights."""
    rng = np.random.default_rng(index)
    image = rng.integers(90, 250, (*SIZE, 3), np.uint8)
    if index >= count // 2:
        middle = SIZE[0] // 2
        image[middle:] = 0
    return image


def truth(index: int) -> np.ndarray:
    """Uint8 ids [36, 64], a fifth of them unlabelled."""
    rng = np.random.default_rng([index, 1])
    labels = np.repeat(np.repeat(rng.integers(0, 11, (9, 16), np.uint8), 4, 0), 4, 1)
    labels[rng.random(SIZE) < 0.2] = 255
    return labels


def write_drive(
    path: Path, count: int, *, every: int = 1, seed: int = 0, storage: Storage = 'mcap'
) -> Path:
    """Write the bag; every so many frames there are labels."""
    with BagWriter(path, storage=storage) as bag:
        for index in range(count):
            stamp = START + index * STEP
            frame = Frame(image=picture(index + 1000 * seed, count + 2000 * seed), stamp_ns=stamp)
            bag.write_frame(IMAGE_TOPIC, frame)
            if index % every == 0:
                bag.write_labels(LABEL_TOPIC, truth(index), stamp_ns=stamp)
    return path


def config(weights: WeightsConfig, **changes: Any) -> PipelineConfig:
    """Return a configuration of the tests' weights on torch."""
    settings: dict[str, Any] = {'backend': 'torch', 'device': 'cpu', **changes}
    return PipelineConfig(weights=weights, **settings)


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    """Return what has to be equal however a result came about."""
    runs = {name: {**run, 'timing': None} for name, run in result['runs'].items()}
    return {'sets': result['sets'], 'compare': result['compare'], 'runs': runs}


@dataclass(frozen=True, kw_only=True, slots=True)
class Doomed(Shard):
    """Kills the process that reads it after ``after`` frames, unless ``mark`` exists."""

    mark: Path
    after: int

    def read(self, note: dict[str, Any]) -> Generator[LabelledFrame, None, None]:
        for index, frame in enumerate(Shard.read(self, note)):
            if index == self.after and not self.mark.exists():
                self.mark.write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
            yield frame
        LOG.warning('read to its end')
