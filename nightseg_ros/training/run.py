# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The folder of a training: checkpoint, metrics.jsonl, tensorboard, pictures and progress."""

from __future__ import annotations

import fcntl
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric

from nightseg_ros.evaluation.pictures import write_picture
from nightseg_ros.files import replace_file
from nightseg_ros.training.checkpoint import Stateful, load_checkpoint, save_checkpoint

#: Settings that change where and how often a run writes, but not what it computes.
FREE = ('out', 'workers', 'checkpoint_every', 'picture_every', 'log_every')


class RunError(ValueError):
    """A training that cannot go on."""


class Run:
    """
    A training that may be killed at any moment and goes on when it is started again.

    Use it as ``with Run(…) as run: for step in range(run.first, steps): …`` and call ``log``,
    ``picture`` and ``checkpoint`` after each step. Every random choice of the recipe has to be a
    function of the seed and the step, and its learning rates functions of the step; then a
    resumed run equals an uninterrupted one. Only rank 0 writes.
    """

    def __init__(
        self,
        out: Path,
        *,
        config: Mapping[str, Any],
        steps: int,
        fabric: Fabric,
        networks: Mapping[str, Stateful],
        optimizers: Mapping[str, torch.optim.Optimizer],
        extra: Stateful | None = None,
        checkpoint_every: int = 100,
        picture_every: int = 0,
        log_every: int = 10,
        say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Open ``out`` and load its checkpoint, if there is one, into the parts given.

        ``networks`` and ``optimizers`` are the bare ones, not Fabric's wrappers; ``extra`` is
        whatever else the next step depends on. ``CheckpointError`` names a setting of ``config``
        that differs from the interrupted run's (those in ``FREE`` may), ``RunError`` a folder
        that another training is writing.
        """
        self.out, self.steps = out, steps
        self.first = 0
        self._rank = fabric.global_rank
        self._fabric = fabric
        self._every = (checkpoint_every, picture_every, log_every)
        self._say, self._clock = say, clock
        self._log: IO[str] | None = None
        self._lock: IO[str] | None = None
        self._board: Any = None
        self._path = out / 'checkpoint.safetensors'
        self._parts: dict[str, Any] = {
            'config': {
                **{key: value for key, value in config.items() if key not in FREE},
                'processes': fabric.world_size,
            },
            'networks': dict(networks) if extra is None else {**networks, 'extra': extra},
            'optimizers': dict(optimizers),
        }
        if self._rank == 0:
            self._open()
        if fabric.world_size > 1:
            fabric.barrier()
        if self._path.exists():
            self.first = load_checkpoint(self._path, **self._parts) + 1
            self._tell(f'resuming after step {self.first}')
        if self._rank == 0:
            self._start_logs()
        self._started = clock()

    def __enter__(self) -> Run:
        """Use it in a ``with`` block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files."""
        self.close()

    def close(self) -> None:
        """Close the files; what was written stays."""
        for file in (self._log, self._board, self._lock):
            if file is not None:
                file.close()
        self._log = self._board = self._lock = None

    def wants_log(self, step: int) -> bool:
        """Tell whether it is time for figures; a GPU waits when a loss becomes a number."""
        return step % self._every[2] == 0 or step == self.steps - 1

    def wants_picture(self, step: int) -> bool:
        """Tell whether it is time for pictures, which only rank 0 makes."""
        every = self._every[1]
        due = every > 0 and ((step + 1) % every == 0 or step == self.steps - 1)
        return due and self._rank == 0

    def log(self, step: int, **values: float) -> None:
        """
        Write figures to metrics.jsonl and tensorboard, and a line with the time left.

        ``RunError`` where a figure is NaN or infinite: the training has diverged.
        """
        for name, value in values.items():
            if not math.isfinite(value):
                raise RunError(
                    f"{name} is {value} at step {step}: the training in '{self.out}' diverged; "
                    'try a lower learning rate, or precision 32-true'
                )
        if self._log is None:
            return
        seconds = (self._clock() - self._started) / (step - self.first + 1)
        figures = {name: float(f'{value:.6g}') for name, value in values.items()}
        entry = {'step': step, **figures, 's_per_step': round(seconds, 3)}
        self._log.write(json.dumps(entry) + '\n')
        self._log.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        shown = ' '.join(f'{name} {value:.4g}' for name, value in values.items())
        left = duration(seconds * (self.steps - 1 - step))
        self._tell(f'step {step}/{self.steps} {shown}, {left} left')

    def picture(self, step: int, name: str, image: npt.NDArray[np.uint8]) -> None:
        """Write uint8 [H, W, 3] RGB as pictures/NAME_STEP.jpg and to tensorboard."""
        if self._rank:
            return
        folder = self.out / 'pictures'
        folder.mkdir(exist_ok=True)
        write_picture(folder / f'{name}_{step:06d}.jpg', image, quality=88)
        if self._board is not None:
            self._board.add_image(name, image, step, dataformats='HWC')

    def checkpoint(self, step: int) -> None:
        """
        Write a checkpoint every ``checkpoint_every`` steps and after the last one.

        ``CheckpointError`` and ``OSError`` as in ``save_checkpoint``.
        """
        if self._rank == 0 and ((step + 1) % self._every[0] == 0 or step == self.steps - 1):
            save_checkpoint(self._path, step=step, **self._parts)

    def _open(self) -> None:
        """Make the folder this training's own, and clear what a killed one left half-written."""
        self.out.mkdir(parents=True, exist_ok=True)
        self._lock = (self.out / '.lock').open('w', encoding='utf-8')
        try:
            # held by this process alone: loader processes that outlive it must not keep it
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f"another training writes to '{self.out}'; wait for it, or give another --out"
            ) from error
        except OSError:
            pass  # a file system without locks
        for left in self.out.glob('.*-*.safetensors'):
            left.unlink(missing_ok=True)

    def _start_logs(self) -> None:
        """Open metrics.jsonl, without the lines of steps that are run again, and tensorboard."""
        path = self.out / 'metrics.jsonl'
        if path.exists():
            kept = [line for line in path.read_text('utf-8').splitlines() if self._is_past(line)]
            replace_file(path, ''.join(f'{line}\n' for line in kept).encode())
        self._log = path.open('a', encoding='utf-8')
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._tell('tensorboard is not installed: figures go to metrics.jsonl only')
            return
        self._board = SummaryWriter(str(self.out / 'tensorboard'), purge_step=self.first or None)

    def _is_past(self, line: str) -> bool:
        try:
            return int(json.loads(line)['step']) < self.first
        except (ValueError, KeyError, TypeError):
            return False  # cut off in the middle

    def _tell(self, text: str) -> None:
        if self._rank == 0:
            self._say(text)


def duration(seconds: float) -> str:
    """Return seconds as people say them: '40 s', '12 min', '3 h 05 min'."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 60 else f'{minutes // 60} h {minutes % 60:02d} min'
