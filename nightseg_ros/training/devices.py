# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Where a training runs: one process, or as many as torchrun started, on CPUs or GPUs."""

from __future__ import annotations

import os
from typing import Literal

from lightning_fabric import Fabric

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
