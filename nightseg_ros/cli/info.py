# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg info``: what is installed here, what it can run on, and which weights there are."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from nightseg_ros.cli.options import parse

PACKAGES = (
    'torch', 'onnxruntime', 'openvino', 'numpy', 'opencv-python-headless', 'opencv-python',
    'safetensors', 'rosbags', 'lightning-fabric',
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class InfoOptions:
    """Show versions, devices, backends and weights; the first thing to put into a bug report."""

    json: bool = False
    """Machine-readable, on stdout."""


def info(arguments: Sequence[str]) -> int:
    """Print the facts."""
    options = parse(InfoOptions, 'info', arguments)

    from nightseg_ros.files import models_dir
    from nightseg_ros.runtime.backends import available_backends

    facts = {
        'versions': versions(),
        'devices': _devices(),
        'backends': available_backends(),
        'models': str(models_dir()),
        'weights': [_weights(path) for path in sorted(models_dir().glob('*.safetensors'))],
    }
    if options.json:
        print(json.dumps(facts, indent=2))
    else:
        _show(facts)
    return 0


def versions() -> dict[str, str]:
    """Return the versions of this package and of what it runs on."""
    from nightseg_ros import __version__

    found = {'nightseg': __version__, 'python': platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    found['ros'] = _ros()
    return found


def _ros() -> str:
    """Return the ROS distribution without importing rclpy."""
    if os.environ.get('ROS_DISTRO'):
        return f'{os.environ["ROS_DISTRO"]} (sourced)'
    for distribution in ('jazzy', 'kilted', 'rolling', 'humble'):
        try:
            version = metadata.version(f'ros-{distribution}-rclpy')
        except metadata.PackageNotFoundError:
            continue
        return f'{distribution} (wheels, rclpy {version})'
    return 'none found: the node needs ROS 2, everything else works without'


def _devices() -> list[str]:
    import torch

    devices = [f'cpu: {platform.processor() or platform.machine()}, {os.cpu_count()} threads']
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        devices.append(f'cuda:{index}: {properties.name}, {memory:.0f} GiB')
    return devices


def _weights(path: Any) -> dict[str, Any]:
    from nightseg_ros.weights import WeightsError, load_weights, network_tensors

    try:
        weights = load_weights(path)
    except WeightsError as error:
        return {'name': path.stem, 'error': str(error)}
    about = weights.metadata
    return {
        'name': path.stem,
        'task': about.task,
        'network': about.network,
        'parameters': sum(tensor.numel() for tensor in network_tensors(weights.tensors).values()),
        'taxonomy': (about.taxonomy or {}).get('name', ''),
        'long_side': about.long_side,
        'data': about.data,
        'license': about.license,
        'sha256': weights.sha256,
        'metrics': about.metrics,
    }


def _show(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for title in ('versions', 'backends'):
        table = Table('name', 'value', title=title, title_justify='left')
        for name, value in facts[title].items():
            shown = {True: 'available', False: 'not installed'}.get(value, value)
            table.add_row(name, str(shown))
        console.print(table)
    for device in facts['devices']:
        console.print(f'device {device}', markup=False, highlight=False)
    columns = ('name', 'network', 'taxonomy', 'licence', 'sha256', 'metrics')
    table = Table(*columns, title=f'weights in {facts["models"]}', title_justify='left')
    for weights in facts['weights']:
        if 'error' in weights:
            table.add_row(weights['name'], f'[red]refused[/red]: {weights["error"]}')
            continue
        metrics = ', '.join(f'{name} {value}' for name, value in weights['metrics'].items())
        table.add_row(
            weights['name'], weights['network'], weights['taxonomy'], weights['license'],
            weights['sha256'][:12], metrics,
        )  # fmt: skip
    console.print(table)
