# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Tiny labelled pictures whose colour tells the class: road below, sky above, a car between."""

from collections.abc import Callable
from dataclasses import replace
import multiprocessing
import os
from pathlib import Path
import shlex
import sys
from typing import Any

import cv2
from nightseg_ros.data.augment import AugmentConfig
import numpy as np
import pytest


def write_streets(root: Path, count: int = 4, cameras: str = '') -> str:
    """
    Write ``count`` pictures of 96×64 with labels and return the data set's name.

    Each is named after one of ``cameras``, a letter each, in turn.
    """
    rng = np.random.default_rng(0)
    colors = np.zeros((256, 3), np.uint8)
    colors[[0, 3, 8, 255]] = (200, 160, 120), (90, 90, 90), (30, 40, 200), (0, 0, 0)
    for index in range(count):
        labels = np.zeros((64, 96), np.uint8)
        ground, left = 30 + index, 20 + 5 * index
        labels[ground:] = 3
        labels[25:40, left:50] = 8
        labels[:4] = 255
        noise = rng.integers(-10, 10, (64, 96, 3))
        image = np.clip(colors[labels].astype(int) + noise, 0, 255).astype(np.uint8)
        name = f'{cameras[index % len(cameras)]}_{index}.png' if cameras else f'a{index}.png'
        imwrite(root / 'images' / name, image)
        imwrite(root / 'labels' / name, labels)
    return f'folder:{root}'


def tiny_config(data: str, out: Path, **changes: object) -> Any:
    """Return the settings of a segmenter's training that takes a second or two."""
    from nightseg_ros.training.segmenter import SegmenterConfig

    base = SegmenterConfig(
        data=(data,), out=str(out), init='random', batch=2, steps=6, workers=0, warm_up=1,
        arch={'variant': 'tiny', 'width': 16, 'fine_width': 16}, checkpoint_every=2, license='',
        augment=AugmentConfig(crop=(32, 64), night_share=0.5), picture_every=0,
        precision='32-true',
    )  # fmt: skip
    return replace(base, **changes)


def imwrite(path: Path, image: np.ndarray) -> None:
    """Write BGR or grey pixels, and the folder that they lie in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def files_of(folder: Path) -> dict[str, bytes]:
    """Return what every file holds, by its name within the folder."""
    files = (path for path in sorted(folder.rglob('*')) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def silent(_: str) -> None:
    """Say nothing."""


def _tool(arguments: list[str], log: Path, folder: Path) -> None:
    """Run ``nightseg`` in this child, what it says in a file, its cache beside that."""
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(stream, number)
    os.chdir(folder)
    os.environ['NIGHTSEG_CACHE'] = str(log.with_name(f'{log.stem}-cache'))
    from nightseg_ros.cli.main import main as nightseg

    sys.exit(nightseg(arguments))


def start_tool(arguments: list[str], log: Path, folder: Path = Path()) -> Any:
    """Start ``nightseg`` in a folder, in a process that has what it needs imported."""
    forks = multiprocessing.get_context('forkserver')
    modules = (
        'cli.options', 'data.convert', 'evaluation.agreement', 'evaluation.evaluate',
        'evaluation.report', 'training.calibrate', 'training.illumination', 'training.paired',
        'training.segmenter',
    )  # fmt: skip
    preload = [f'nightseg_ros.{name}' for name in modules]
    forks.set_forkserver_preload([*preload, 'torch.utils.tensorboard'])
    child = forks.Process(target=_tool, args=(arguments, log, folder.absolute()))
    child.start()
    return child


def run_tools(commands: list[list[str]], folder: Path) -> None:
    """Run the commands in a folder one after the other; each has to succeed."""
    log = folder.absolute() / 'tool.log'
    for words in commands:
        child = start_tool(words, log, folder)
        child.join()
        assert child.exitcode == 0, f'{shlex.join(words)}\n{log.read_text()}'


class Killed(BaseException):
    """What a training dies of in a test."""


def killed_after(step: int, monkeypatch: pytest.MonkeyPatch, train: Callable[[], object]) -> None:
    """Run a training that dies after it has written the checkpoint of ``step``."""
    from nightseg_ros.training.run import TrainingRun

    save = TrainingRun._save_checkpoint

    def once(self: Any, at: int) -> None:
        save(self, at)
        if at == step:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, '_save_checkpoint', once)
        with pytest.raises(Killed):
            train()
