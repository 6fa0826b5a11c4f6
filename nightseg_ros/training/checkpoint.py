# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that a killed training resumes from exactly; safetensors, never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from nightseg_ros.files import replace_file


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
