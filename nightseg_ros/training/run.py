# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What all recipes share: settings, devices, the loop, and a folder that a killed run resumes from.

A run's folder holds checkpoint.safetensors (never pickle), metrics.jsonl, tensorboard, pictures
and, at the end, the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
import fcntl
import hashlib
import json
import math
import os
from pathlib import Path
import platform
import time
from typing import Annotated, Any, IO, Literal

from lightning_fabric import Fabric
from nightseg_ros.config import Limited, Limits, Natural, NotNegative, Positive, Share, to_mapping
from nightseg_ros.data.augment import AugmentConfig
from nightseg_ros.data.pictures import write_picture
from nightseg_ros.data.sample import Bytes, Sample
from nightseg_ros.files import replace_file
from nightseg_ros.outputs import require_same
from nightseg_ros.runtime.backend import Log
from nightseg_ros.runtime.backends import has_bfloat16
from nightseg_ros.training.crops import load_batches
from nightseg_ros.training.losses import speed_up_cpu_training
from nightseg_ros.weights import save_weights, union, Weights, WeightsMetadata
from safetensors import safe_open, SafetensorError
from safetensors.torch import save
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Dataset

Precision = Literal['auto', '32-true', 'bf16-mixed', '16-mixed']
#: As of weights, which would refuse another one when the training is over.
LongSide = Annotated[int, Limits(32)]
#: Settings that change where and how often a run writes, but not what it computes.
FREE = ('out', 'workers', 'checkpoint_every', 'picture_every', 'log_every')
#: Settings that name places on this machine; weights tell what lies there in other words.
PLACES = ('data', 'init', 'segmenter', 'night_segmenter', 'unpaired', 'nights')


class RunError(ValueError):
    """A training that cannot start or go on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig(Limited):
    """Settings of every recipe that runs in a folder; a recipe sets its own defaults."""

    out: str
    """Folder of the run: checkpoint, metrics.jsonl, tensorboard, pictures and the weights."""
    steps: Positive
    batch: Positive
    """Crops a step of each process."""
    seed: Natural = 0
    precision: Precision = 'auto'
    """'auto' is bf16-mixed, on a CPU without bfloat16 32-true."""
    accelerator: str = 'cpu'
    """'cpu', 'cuda' or 'auto'; under torchrun each process has a device of its own."""
    workers: Natural = 2
    """Processes that load crops; 0 loads them in the training itself."""
    checkpoint_every: Positive = 100
    picture_every: Natural = 200
    """Steps between sample pictures; 0 draws none."""
    log_every: Positive = 10
    license: str = 'research, non-commercial'  # noqa: A003
    """What the training data allows; written into the weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CropRunConfig(RunConfig):
    """Settings of the recipes that learn from augmented crops of labelled pictures."""

    data: tuple[str, ...]
    """Labelled data sets, ADAPTER:ROOT[:SPLIT]; synthetic nights are made from those by day."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    rate: NotNegative
    """Peak learning rate; poly decay with power 0.9 after a warm-up."""
    warm_up: Natural
    """Steps in which the learning rate rises."""
    average: Share
    """Decay of the weight average, which is what the run writes."""

    def __post_init__(self) -> None:
        Limited.__post_init__(self)
        if any(side % 32 for side in self.augment.crop):
            raise ValueError(f"'augment.crop' must be multiples of 32, got {self.augment.crop}")

    def factor(self, step: int) -> float:
        """Return the factor of the peak rate: linear warm-up, then (1 - t)^0.9."""
        warm = min(1.0, (step + 1) / max(1, self.warm_up))
        return float(warm * (1 - step / self.steps) ** 0.9)


def open_fabric(accelerator: str, precision: Precision) -> Fabric:
    """Return a launched Fabric, a device a process; ``RunError`` without the accelerator."""
    world = int(os.environ.get('WORLD_SIZE', '1'))
    local = int(os.environ.get('LOCAL_WORLD_SIZE', str(world)))
    if precision == 'auto':
        on_cpu = accelerator == 'cpu' or not torch.cuda.is_available()
        slow = on_cpu and not has_bfloat16()
        precision = '32-true' if slow else 'bf16-mixed'
    try:
        fabric = Fabric(
            accelerator=accelerator, devices=local, num_nodes=world // local, precision=precision
        )
    except (ValueError, RuntimeError) as error:
        # lightning's MisconfigurationException, raised for a missing accelerator, is private
        raise RunError(f"accelerator '{accelerator}' cannot be used here: {error}") from error
    fabric.launch()
    return fabric


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """Return the moving average of a network's weights and BatchNorm statistics."""
    average = AveragedModel(network, use_buffers=True)

    def update(ours: Any, theirs: Any, count: torch.Tensor | int) -> None:
        # not ``count``: it is on the device of the tensors, and a GPU would have to wait for it
        done = int(average.n_averaged)
        # early on it is less, so that the random start is forgotten
        now = min(decay, (1 + done) / (10 + done))
        get_ema_multi_avg_fn(now)(ours, theirs, count)  # type: ignore[no-untyped-call]

    average.multi_avg_fn = update
    return average


class TrainingRun:
    """
    The loop of a training that may be killed at any moment and goes on when it is started again.

    Networks are given to ``add``, other state to ``keep``; then ``with run:`` the loop is over
    ``run.train(crops)``, and each step calls ``minimise`` and ``record``. Every random choice of
    the recipe has to be a function of seed and step, and so its learning rates; then a resumed
    run equals an uninterrupted one. Only rank 0 writes.
    """

    def __init__(
        self, config: RunConfig, log: Log = print, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Find the device, or ``RunError``."""
        self.fabric = open_fabric(config.accelerator, config.precision)
        self.device = self.fabric.device
        self.out = Path(config.out)
        self.first = 0
        # 'auto' is one thing here and another elsewhere
        precision: Any = self.fabric.strategy.precision.precision
        self._config = replace(config, accelerator=self.device.type, precision=precision)
        self._log, self._clock = log, clock
        self._causes: dict[str, Any] = {}
        self._rank = self.fabric.global_rank
        self._parts: dict[str, Any] = {}
        self._optimizers: dict[str, Any] = {}
        self._averages: dict[str, tuple[AveragedModel, nn.Module]] = {}
        self._path = self.out / 'checkpoint.safetensors'
        self._files = ExitStack()
        self._metrics: IO[str] | None = None
        self._board: Any = None

    def depend_on(self, samples: Sequence[Sample], **weights: str | list[str]) -> None:
        """
        Let a run go on with these samples, and hashes of weights that take part, only.

        It is called before ``__enter__``, and in one order.
        """
        self._causes |= weights
        self._causes['files'] = self._causes.get('files', '') + data_hash(samples)[:16]

    def place(self, network: nn.Module, *, channels_last: bool = True) -> nn.Module:
        """Move a network to the device, in the layout in which most convolutions are fast."""
        if self.device.type == 'cpu':
            speed_up_cpu_training(network)
        if channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network.to(self.device)

    def add(
        self, name: str, network: nn.Module, optimizer: Optimizer, *, channels_last: bool = True,
        average: float | None = None,
    ) -> Any:  # fmt: skip
        """Take a network to train, and perhaps the decay of its average; return what to call."""
        for group in optimizer.param_groups:
            group['peak'] = group['lr']
        self.place(network, channels_last=channels_last)
        wrapped, self._optimizers[name] = self.fabric.setup(network, optimizer)
        self.keep(name, network)
        self._parts[f'optimizer/{name}/'] = optimizer
        if average is not None:
            self._averages[name] = moving_average(network, average), network
            self.keep('average', self._averages[name][0])
        return wrapped

    def averaged(self, name: str) -> nn.Module:
        """Return the moving average of a network."""
        module: nn.Module = self._averages[name][0].module
        return module

    def keep(self, name: str, state: Any) -> None:
        """Let checkpoints hold what ``state.state_dict()`` returns, tensors by name."""
        self._parts[f'network/{name}/'] = state

    def __enter__(self) -> TrainingRun:
        """
        Open the folder and load its checkpoint, if there is one, into what was added.

        ``RunError`` names a setting that differs from the interrupted run's (those in ``FREE``
        may), a damaged checkpoint, or a folder that another training is writing.
        """
        with self._files as files:  # closed where this fails
            if self._rank == 0:
                self._lock_folder()
            self.fabric.barrier()
            if self._path.exists():
                self.first = self._load_checkpoint() + 1
                done = self.first >= self._config.steps
                self.log(f'{"all is done" if done else "resuming"} after step {self.first}')
            if self._rank == 0:
                self._open_logs()
            self._files = files.pop_all()
        self._started = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def load(self, crops: Dataset[Any], *, batch: int, workers: int) -> Iterator[Any]:
        """Return this process's batches of the steps that are left, as tensors on its device."""
        batches = load_batches(
            crops, batch=batch, steps=self._config.steps, first=self.first, rank=self._rank,
            world=self.fabric.world_size, workers=workers,
        )  # fmt: skip
        for tensors in batches:
            yield [tensor.to(self.device) for tensor in tensors]

    def train(self, crops: Dataset[Any]) -> Iterator[tuple[int, Any]]:
        """
        Yield each step that is left with its batch; write checkpoints after the loop's body.

        ``RunError`` where a tensor holds NaN or infinity, ``OSError`` where the disk is full; the
        checkpoint that was there stays.
        """
        batches = self.load(crops, batch=self._config.batch, workers=self._config.workers)
        for step, batch in enumerate(batches, start=self.first):
            yield step, batch
            if self.is_due(step, self._config.checkpoint_every):
                self._save_checkpoint(step)

    def minimise(self, name: str, loss: torch.Tensor, factor: float = 1.0) -> None:
        """Take a step of a network's optimiser at ``factor`` × its rate, and of its average."""
        wrapped = self._optimizers[name]
        # the wrapper's own groups are not those of an optimiser whose state was loaded
        for group in wrapped.optimizer.param_groups:
            group['lr'] = group['peak'] * factor
        wrapped.optimizer.zero_grad()
        self.fabric.backward(loss)
        wrapped.step()
        if name in self._averages:
            average, network = self._averages[name]
            average.update_parameters(network)

    def is_due(self, step: int, every: int) -> bool:
        """Tell whether rank 0 acts at this step: every so many and at the last; 0 is never."""
        done = step + 1
        return self._rank == 0 and every > 0 and (done % every == 0 or done == self._config.steps)

    def log(self, text: str) -> None:
        if self._rank == 0:
            self._log(text)

    def record(self, step: int, **values: float | torch.Tensor) -> None:
        """Write and log figures every ``log_every`` steps; ``RunError`` for NaN or infinity."""
        if step % self._config.log_every and step != self._config.steps - 1:
            return  # a GPU waits when a loss becomes a number
        figures = {
            name: value.item() if isinstance(value, torch.Tensor) else value
            for name, value in values.items()
        }
        for name, figure in figures.items():
            if not math.isfinite(figure):
                raise RunError(
                    f"{name} is {figure} at step {step}: the training in '{self.out}' diverged; "
                    'try a lower learning rate, or precision 32-true'
                )
        if self._metrics is None:
            return
        seconds = (self._clock() - self._started) / (step - self.first + 1)
        rounded = {name: float(f'{figure:.6g}') for name, figure in figures.items()}
        entry = {'step': step, **rounded, 's_per_step': round(seconds, 3)}
        self._metrics.write(json.dumps(entry) + '\n')
        self._metrics.flush()
        if self._board is not None:
            for name, figure in figures.items():
                self._board.add_scalar(name, figure, step)
        shown = ' '.join(f'{name} {figure:.4g}' for name, figure in figures.items())
        left = duration(seconds * (self._config.steps - 1 - step))
        self.log(f'step {step}/{self._config.steps} {shown}, {left} left')

    def picture(self, step: int, name: str, image: Bytes) -> None:
        """Write uint8 [H, W, 3] RGB as pictures/NAME_STEP.jpg and to tensorboard."""
        folder = self.out / 'pictures'
        folder.mkdir(exist_ok=True)
        write_picture(folder / f'{name}_{step:06d}.jpg', image, quality=88)
        if self._board is not None:
            self._board.add_image(name, image, step, dataformats='HWC')

    def metadata(
        self, training: Mapping[str, Any], *, start: Weights | None = None, **fields: Any
    ) -> WeightsMetadata:
        """
        Return ``fields``, ``training``, licence, machine and settings, without places.

        Data and terms of ``start``, the weights that the run begins with, hold for its own.
        """
        machine = f'{platform.machine()} CPU, {torch.get_num_threads()} threads'
        if self.device.type == 'cuda':
            machine = torch.cuda.get_device_name(self.device)
        if self.fabric.world_size > 1:
            machine = f'{self.fabric.world_size} processes, each {machine}'
        settings = _without(to_mapping(self._config), *FREE, *PLACES)
        training = {**settings, 'machine': machine, **_without(self._causes, 'files'), **training}
        fields |= {'license': self._config.license, 'training': training}
        if start is not None:
            for name, mark in (('data', ', '), ('license', '; ')):
                fields[name] = union([getattr(start.metadata, name), fields[name]], mark)
        return WeightsMetadata(**fields)

    def save(self, name: str, network: nn.Module, metadata: WeightsMetadata) -> Path:
        """Write the weights of a network to NAME.safetensors once every process is here."""
        path = self.out / f'{name}.safetensors'
        if self._rank == 0:
            save_weights(path, network.state_dict(), metadata)
        self.fabric.barrier()
        return path

    def _lock_folder(self) -> None:
        """Make the folder this training's own, and clear what a killed one left half-written."""
        self.out.mkdir(parents=True, exist_ok=True)
        lock = self._files.enter_context((self.out / '.lock').open('w', encoding='utf-8'))
        try:
            # held by this process alone: loader processes that outlive it must not keep it
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f"another training writes to '{self.out}'; wait for it, or give another --out"
            ) from error
        except OSError:
            pass  # a file system without locks
        for left in self.out.glob('.*-*.safetensors'):
            left.unlink(missing_ok=True)

    def _open_logs(self) -> None:
        """Open metrics.jsonl, without the lines of steps that are run again, and tensorboard."""
        path = self.out / 'metrics.jsonl'
        if path.exists():
            lines = path.read_text('utf-8', 'replace').splitlines()
            kept = [line for line in lines if self._is_past(line)]
            replace_file(path, ''.join(f'{line}\n' for line in kept).encode())
        self._metrics = self._files.enter_context(path.open('a', encoding='utf-8'))
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.log('tensorboard is not installed: figures go to metrics.jsonl only')
            return
        board = SummaryWriter(str(self.out / 'tensorboard'), purge_step=self.first)
        self._board = self._files.enter_context(board)

    def _is_past(self, line: str) -> bool:
        try:
            return int(json.loads(line)['step']) < self.first
        except (ValueError, KeyError, TypeError):
            return False  # cut off in the middle

    def _identity(self) -> dict[str, Any]:
        """Return what decides on the weights: a run goes on with the same only."""
        settings = _without(to_mapping(self._config), *FREE)
        return {**settings, **self._causes, 'processes': self.fabric.world_size}

    def _save_checkpoint(self, step: int) -> None:
        """Write all that the next step depends on, whole or not at all; rates follow from it."""
        tensors: dict[str, torch.Tensor] = {}
        for head, part in self._parts.items():
            state = part.state_dict()
            if isinstance(part, Optimizer):
                state = {
                    f'{index}/{key}': torch.as_tensor(value)
                    for index, values in state['state'].items()
                    for key, value in values.items()
                }
            for key, tensor in state.items():
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                    raise RunError(
                        f"'{head}{key}' is NaN or infinite after step {step}: the training "
                        f"diverged; '{self._path}' is left as it was. Try a lower learning rate"
                    )
                # a copy, since entries of a checkpoint must not share memory
                tensors[head + key] = tensor.detach().cpu().clone().contiguous()
        # one entry: safetensors writes several in any order, and the bytes would differ
        content = json.dumps({'step': step, 'config': self._identity()}, sort_keys=True)
        replace_file(self._path, save(tensors, metadata={'checkpoint': content}))

    def _load_checkpoint(self) -> int:
        """Restore what ``_save_checkpoint`` wrote and return its step."""
        try:
            with safe_open(self._path, framework='pt') as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            content = json.loads(metadata['checkpoint'])
            step, before = int(content['step']), content['config']
        except (SafetensorError, KeyError, ValueError) as error:
            raise RunError(
                f"checkpoint '{self._path}' is damaged or no checkpoint of nightseg ({error}); "
                'remove it to start from step 0'
            ) from error
        now, remedy = self._identity(), f"another --out, or remove '{self._path}' to start anew"
        # earlier versions did not tell the files
        require_same(self._path, {'files': now.get('files'), **before}, now, RunError, remedy)
        for head, part in self._parts.items():
            state = {k.removeprefix(head): t for k, t in tensors.items() if k.startswith(head)}
            if isinstance(part, Optimizer):
                states: dict[int, dict[str, torch.Tensor]] = {}
                for key, tensor in state.items():
                    index, _, leaf = key.partition('/')
                    states.setdefault(int(index), {})[leaf] = tensor
                state = {**part.state_dict(), 'state': states}
            try:
                part.load_state_dict(state)
            except RuntimeError as error:
                raise RunError(
                    f"checkpoint '{self._path}' is of other networks; give data of the same "
                    f'cameras, or another --out ({str(error).splitlines()[-1].strip()})'
                ) from error
        return step


def data_hash(samples: Sequence[Sample]) -> str:
    """Return a hash of names and sizes of the pictures, and of their labels and what they mean."""
    digest = hashlib.sha256()
    for sample in samples:
        text = f'{sample.image.name} {sample.image.stat().st_size} '
        for label in filter(None, (sample.label, sample.scene)):
            text += f'{label.path.name} {label.meaning} '
            # what is missing is named when it is read
            if label.path.is_file():
                digest.update(label.path.read_bytes())
        digest.update(text.encode(errors='surrogateescape'))
    return digest.hexdigest()


def _without(settings: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in names}


def duration(seconds: float) -> str:
    """Return seconds as people say them: '40 s', '12 min', '3 h 05 min'."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 60 else f'{minutes // 60} h {minutes % 60:02d} min'


def data_names(specifications: Sequence[str]) -> str:
    """Return data sets without the folders that they lie in on this machine."""
    roots = (name.partition(':')[2].replace('/:', ':') for name in specifications)
    return ', '.join(Path(root).name for root in roots)
