# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Training; here the settings of ``nightseg calibrate`` and ``nightseg sweep``.

Their help shows these, and is quick only as long as nothing here imports numpy or torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nightseg_ros.config import Limited, Natural, Positive


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationConfig(Limited):
    """Fit temperature and reliability and write them into weights; see docs/results.md."""

    weights: str
    """Weights of a segmenter: a file, or the name of a shipped one."""
    data: tuple[str, ...] = ()
    """Labelled frames for the temperature that were not trained on, ADAPTER:ROOT[:SPLIT]. Every
    place, a drive or camera as the data set names its sources, weighs the same."""
    faults_on: tuple[str, ...] = ()
    """Labelled day frames for the reliability; some are shown as they are, some as synthetic
    night, some through a faulty camera."""
    good: tuple[str, ...] = ()
    """More frames that show what a camera should give; their labels are not read."""
    out: str = ''
    """File to write; '' replaces the weights and renews SHA256SUMS beside them."""
    frames: Positive = 40
    """Frames of each data set at most, spread over it; of the good ones twice as many."""
    cameras: Natural = 2
    """Augmented copies of each good frame, by the photometric augmentation of training: a camera
    of another tone is not a blind one."""
    seed: Natural = 0

    def __post_init__(self) -> None:
        Limited.__post_init__(self)
        if not self.data and not self.faults_on:
            raise ValueError('name labelled frames: --data (temperature) or --faults-on')


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepConfig:
    """
    Train and score a trial for each ratio and seed; then write table and figure.

    Settings of the trainings come from --config FILE.yaml, without it from the package's
    config/training/sweep.yaml. The same command goes on after an interruption; --shard divides the
    trials among processes or machines that share the folder.
    """

    data: tuple[str, ...]
    """Labelled day images, ADAPTER:ROOT[:SPLIT]."""
    out: str
    """Folder of the sweep: day/, trials/, sweep.csv and sweep.png."""
    select: tuple[str, ...]
    """Labelled data sets that the best ratio is chosen on."""
    report: tuple[str, ...] = ()
    """Labelled data sets that are scored and shown, but choose nothing."""
    ratios: tuple[float, ...] = (0.0, 0.15, 0.3, 0.45, 0.6, 0.8, 1.0)
    """Shares of synthetic night among the crops."""
    seeds: tuple[int, ...] = (0, 1, 2)
    segmenter: dict[str, Any] = field(default_factory=dict)
    """Settings of `nightseg train segmenter` for all trainings."""
    day: dict[str, Any] = field(default_factory=dict)
    """Further ones for the day checkpoint of each seed, which its other trials start from."""
    trial: dict[str, Any] = field(default_factory=dict)
    """Further ones for the fine-tuning of each trial."""
    shard: str = '1/1'
    """I/N: train only trial number I of every N, I from 1 to N. Start the other shards in the same
    folder, here or on other machines; the one that ends last writes the curve."""

    def __post_init__(self) -> None:
        for name in ('data', 'select', 'ratios', 'seeds'):
            values = getattr(self, name)
            if not values:
                raise ValueError(f"'{name}' must name at least one")
            if len(set(values)) != len(values):
                raise ValueError(f"'{name}' names one twice: {list(values)}")
        if not all(0.0 <= ratio <= 1.0 for ratio in self.ratios):
            raise ValueError(f"'ratios' are 0 to 1, got {list(self.ratios)}")
        self.shard_of()

    def shard_of(self) -> tuple[int, int]:
        """Return I from 0 and N of ``shard``."""
        index, _, count = self.shard.partition('/')
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise ValueError(f"'shard' must be I/N with I from 1 to N, got '{self.shard}'")
        return int(index) - 1, int(count)
