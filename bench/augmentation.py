# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Whether joint augmentation keeps ahead of training: processor seconds a crop against a step's need.

``python bench/augmentation.py [SPEC…]`` reads, decodes and augments crops of 480×352 as a loading
process of a training does, by day, as synthetic night, and mixed; without data sets it renders
eight streets. Processor time of one thread, so that a busy machine changes little.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import torch
from torch.nn import functional as F

from nightseg_ros.data.augment import AugmentConfig
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import Sample
from nightseg_ros.networks import build
from nightseg_ros.simulation.drive import RenderedConfig, write_rendered
from nightseg_ros.taxonomy import CAMVID11
from nightseg_ros.training.crops import TrainingCrops
from nightseg_ros.training.losses import speed_up_cpu_training

CROPS = 32
BATCH = 8
STEPS = 4


def main() -> None:
    """Print crops a second of one process, and how many processes feed a training."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        specs = sys.argv[1:]
        if not specs:
            config = RenderedConfig(count=8, light='day', size=(640, 480))
            specs = [f'folder:{write_rendered(Path(folder) / "day", config)}']
        samples = [sample for spec in specs for sample in open_dataset(spec)]
        step = training_step()
        print(f'training step of {BATCH} crops: {step:.2f} s of one core')
        for share in (0.0, 0.6, 1.0):
            crop = seconds_a_crop(samples, AugmentConfig(night_share=share))
            print(
                f'night share {share:.1f}: {1000 * crop:.1f} ms a crop, {1 / crop:.0f} crops a '
                f'second; loading takes {100 * BATCH * crop / step:.0f} % of the processor time '
                'of training'
            )


def seconds_a_crop(samples: list[Sample], config: AugmentConfig) -> float:
    """Return the mean over ``CROPS`` crops; eight before them warm caches and tables."""
    light = [replace(sample, light='day') for sample in samples]
    crops = TrainingCrops(light, config, taxonomy=CAMVID11, seed=0)
    for number in range(8):
        crops[number]
    started = time.process_time()
    for number in range(8, 8 + CROPS):
        crops[number]
    return (time.process_time() - started) / CROPS


def training_step() -> float:
    """Return the least seconds of a step of the default network as it is trained on CPUs."""
    torch.manual_seed(0)
    network = build('lite_segmenter', classes=11).train()
    network.to(memory_format=torch.channels_last)
    speed_up_cpu_training(network)
    images = torch.rand(BATCH, 3, 352, 480).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 11, (BATCH, 176, 240))
    seconds = []
    for _ in range(STEPS):
        started = time.process_time()
        with torch.autocast('cpu', torch.bfloat16):
            logits = network(images)
        half = F.interpolate(logits.float(), scale_factor=2, mode='bilinear')
        network.zero_grad()
        F.cross_entropy(half, labels).backward()
        seconds.append(time.process_time() - started)
    return min(seconds)


if __name__ == '__main__':
    main()
