# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that a killed training resumes from exactly; safetensors, never pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from nightseg_ros.files import partial_file


def save_checkpoint(
    path: Path,
    *,
    step: int,
    config: Mapping[str, Any],
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> None:
    """Write everything that step ``step`` + 1 depends on, whole or not at all."""
    tensors: dict[str, torch.Tensor] = {}
    for name, network in networks.items():
        for key, tensor in network.state_dict().items():
            tensors[f'network/{name}/{key}'] = tensor.detach().cpu().clone().contiguous()
    for name, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()['state'].items():
            for key, tensor in state.items():
                value = torch.as_tensor(tensor).detach().cpu().clone().contiguous()
                tensors[f'optimizer/{name}/{index}/{key}'] = value
    metadata = {'step': str(step), 'config': json.dumps(config, sort_keys=True)}
    with partial_file(path) as partial:
        save_file(tensors, partial, metadata=metadata)


def load_checkpoint(
    path: Path,
    *,
    config: Mapping[str, Any],
    networks: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> int:
    """
    Restore what ``save_checkpoint`` wrote and return its step.

    ``ValueError`` names the first setting that differs from the interrupted run's.
    """
    with safe_open(path, framework='pt') as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    before = json.loads(metadata['config'])
    now = json.loads(json.dumps(config))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise ValueError(
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
    return int(metadata['step'])
