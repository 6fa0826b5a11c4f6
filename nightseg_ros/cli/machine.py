# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg info`` and ``bench``: what this machine has, and how fast the pipeline is on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from importlib.util import find_spec
import json
import os
from pathlib import Path
import platform
import textwrap
import time
from typing import Any, Literal

from nightseg_ros.cli.options import AnyBackend, Progress, WeightsOptions
from nightseg_ros.files import models_dir, replace_file
from nightseg_ros.outputs import check_output

PACKAGES = (
    'torch', 'onnxruntime', 'openvino', 'numpy', 'opencv-python-headless', 'opencv-python',
    'safetensors', 'rosbags', 'lightning-fabric',
)  # fmt: skip
#: Raised when what a key of ``bench.json`` means changes.
FORMAT = 2
#: Instructions that decide how fast a network runs.
_INSTRUCTIONS = (
    'avx2', 'avx512f', 'avx512_vnni', 'avx512_bf16', 'amx_bf16', 'amx_int8', 'asimddp',
)  # fmt: skip
_STAGES = ('estimate', 'shrink', 'network', 'post', 'render')


@dataclass(frozen=True, kw_only=True, slots=True)
class InfoOptions:
    """Show versions, devices, backends and weights; the first thing to put into a bug report."""

    json: bool = False
    """Machine-readable, on stdout."""


def info(options: InfoOptions) -> int:
    from nightseg_ros.cli.main import EXTRAS
    from nightseg_ros.runtime.backend import BACKENDS

    facts: dict[str, Any] = {
        'versions': versions(),
        'devices': _devices(),
        'backends': {name: _runs(name) for name in BACKENDS},
        'extras': {
            extra: all(find_spec(name) is not None for name in EXTRAS if EXTRAS[name] == extra)
            for extra in sorted(set(EXTRAS.values()))
        },
        'models': str(models_dir()),
        'weights': [_weights(path) for path in sorted(models_dir().glob('*.safetensors'))],
    }
    if options.json:
        print(json.dumps(facts, indent=2))
        return 0
    # lines that fit 80 columns, and can be pasted
    for title in ('versions', 'backends'):
        print(f'{title}:')
        for name, value in facts[title].items():
            shown = {True: 'available', False: 'not available here'}.get(value, value)
            print(f'  {name:24}{shown}')
    for extra in [name for name, present in facts['extras'].items() if not present]:
        print(f"extra '{extra}' is not installed: pip install 'nightseg[{extra}]'")
    print('devices:', *facts['devices'], sep='\n  ')
    print(f'weights in {facts["models"]}:')
    for weights in facts['weights']:
        if 'error' in weights:
            print(f'  {weights["name"]}: refused: {weights["error"]}')
            continue
        words = [weights['network'], weights['taxonomy'], weights['license']]
        line = f'  {weights["name"]:16} {weights["sha256"][:12]} {" ".join(filter(None, words))}'
        for text in (line, *(f'    {name}: {v}' for name, v in weights['metrics'].items())):
            print(textwrap.fill(text, 80, subsequent_indent='      '))
    return 0


def versions() -> dict[str, str]:
    from nightseg_ros import __version__

    found = {'nightseg': __version__, 'python': platform.python_version()}
    found |= {name: version for name in PACKAGES if (version := _version(name))}
    return {**found, 'ros': _ros()}


def _ros() -> str:
    """Return the ROS distribution without importing rclpy."""
    if name := os.environ.get('ROS_DISTRO'):
        return f'{name} (sourced)'
    for name in ('jazzy', 'kilted'):
        if version := _version(f'ros-{name}-rclpy'):
            return f'{name} (wheels, rclpy {version})'
    return 'none found; node, run, view and demo need ROS 2'


def _version(package: str) -> str:
    """Return the version of a package, '' where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ''


def _runs(backend: str) -> bool:
    from nightseg_ros.runtime.backend import BackendError
    from nightseg_ros.runtime.backends import has_bfloat16, resolve

    try:
        resolve(backend, 'auto')
    except (BackendError, ImportError):
        return False
    return backend != 'openvino-bf16' or has_bfloat16()


def _devices() -> list[str]:
    from nightseg_ros.runtime.backends import has_gpu, processor

    model = processor().get('model name', platform.machine())
    devices = [f'cpu: {model}, {os.cpu_count()} threads']
    if not has_gpu():
        return devices
    import torch

    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        devices.append(f'cuda:{index}: {properties.name}, {memory:.0f} GiB')
    return devices


def _weights(path: Path) -> dict[str, Any]:
    from nightseg_ros.weights import load_weights, RELIABILITY, WeightsError

    try:
        weights = load_weights(path)
    except WeightsError as error:
        return {'name': path.stem, 'error': str(error)}
    about, arrays = weights.metadata, weights.arrays().items()
    return {
        'name': path.stem,
        **{name: getattr(about, name) for name in ('task', 'network')},
        'parameters': sum(a.size for name, a in arrays if not name.startswith(RELIABILITY)),
        'taxonomy': (about.taxonomy or {}).get('name', ''),
        **{name: getattr(about, name) for name in ('long_side', 'data', 'license')},
        'sha256': weights.sha256,
        'metrics': about.metrics,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchOptions(WeightsOptions):
    """
    Measure the pipeline without ROS by backend, camera size, route and number of cameras.

    The setups take turns, frame by frame, so that a busy machine slows them alike. Writes
    bench.json and bench.md into --out and prints bench.md. Let nothing else run meanwhile.
    """

    out: Path = Path('out/bench')
    """Folder to write; results of the same names are replaced."""
    short: bool = False
    """Take a third of the rounds."""
    backend: AnyBackend = 'auto'
    """Backend of the rows that do not compare backends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """One way to run the pipeline."""

    backend: str
    size: tuple[int, int] = (1280, 720)
    """Width and height of the cameras."""
    route: Literal['day', 'night', 'translate'] = 'night'
    cameras: int = 1
    draw: bool = False
    """Whether confidence, colours and overlay are wanted, and not the labels alone."""


def setups(backend: str, backends: Sequence[str], *, translate: bool = True) -> list[Setup]:
    """Return what is compared: ``backend``, varied in one thing at a time, and ``backends``."""
    changes: list[dict[str, Any]] = [
        {}, *({'backend': name} for name in backends if name != backend),
        {'size': (640, 360)}, {'size': (1920, 1080)}, {'route': 'day'},
        *([{'route': 'translate'}] if translate else []), {'cameras': 8}, {'draw': True},
    ]  # fmt: skip
    return [Setup(**{'backend': backend, **change}) for change in changes]


def bench(options: BenchOptions) -> int:
    from nightseg_ros.runtime.backends import available_backends

    for name in ('bench.json', 'bench.md'):
        check_output(options.out / name, 'a result')
    options.out.mkdir(parents=True, exist_ok=True)
    backends = [name for name, present in available_backends().items() if present]
    candidates = setups(options.backend, backends, translate=bool(options.weights_translator))
    result = {
        'format': FORMAT,
        'created': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'settings': {**dataclasses.asdict(options), 'out': str(options.out)},
        'machine': machine(),
        'versions': versions(),
        'pipelines': measure(candidates, options),
    }
    text = markdown(result)
    replace_file(options.out / 'bench.json', (json.dumps(result, indent=1) + '\n').encode())
    replace_file(options.out / 'bench.md', text.encode())
    print(text)
    return 0


def measure(candidates: Sequence[Setup], options: BenchOptions) -> list[dict[str, Any]]:
    """
    Let every setup label a frame of each of its cameras, round by round, in turns.

    Return of each setup its fields, what ran, frames a second of all cameras, milliseconds of a
    batch, and of a frame by stage. A backend that cannot run is left out and named, unless it is
    the first setup's.
    """
    import cv2
    from nightseg_ros.perception.frame import Frame
    from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig
    from nightseg_ros.perception.result import Want
    from nightseg_ros.runtime.backend import BackendError
    from nightseg_ros.simulation.drive import render
    from nightseg_ros.simulation.street import Street
    from nightseg_ros.weights import WeightsError
    import numpy as np

    weights = options.weights_config()
    scenes = [render(Street(1, 'demo'), 9.0 * k, 'night', seed=k).image for k in range(3)]
    rounds = 5 if options.short else 15
    pipelines: dict[tuple[str, str], Pipeline] = {}
    batches: dict[Setup, list[float]] = {}
    stages: dict[Setup, dict[str, list[float]]] = {}
    with Progress('loading the networks', None) as progress:
        for setup in candidates:
            key = (setup.backend, setup.route)
            try:
                if key not in pipelines:
                    config = PipelineConfig(route=key[1], backend=key[0], weights=weights)
                    pipelines[key] = Pipeline.load(config, log=progress.note)
                pipelines[key].warm_up([setup.size[::-1]])
            except (BackendError, WeightsError) as error:
                # a GPU that is not there is no reason to measure nothing
                if setup.backend == candidates[0].backend:
                    raise
                progress.note(f'{setup.backend} is not measured: {error}')
                continue
            batches[setup], stages[setup] = [], {}
        for number in range(rounds):
            progress.show(number, rounds, 'measuring')
            for setup in batches:
                images = [np.asarray(cv2.resize(s, setup.size), np.uint8) for s in scenes]
                frames = [
                    Frame(
                        image=images[(number + index) % len(images)],
                        stamp_ns=(number + 1) * 100_000_000,
                        # each setup has cameras of its own, whose time does not jump back
                        camera=f'{setup}/{index}',
                    )
                    for index in range(setup.cameras)
                ]
                want = Want(confidence=setup.draw, color=setup.draw, overlay=setup.draw)
                started = time.perf_counter()
                results = pipelines[setup.backend, setup.route].process(frames, want)
                batches[setup].append((time.perf_counter() - started) * 1e3)
                for stage, ms in (item for result in results for item in result.ms.items()):
                    stages[setup].setdefault(stage, []).append(ms)
    return [
        {
            **dataclasses.asdict(setup),
            'description': pipelines[setup.backend, setup.route].describe(),
            'hz': round(1e3 * setup.cameras / percentiles(times)['p50'], 1),
            'batch_ms': percentiles(times),
            'stages_ms': {name: percentiles(ms) for name, ms in stages[setup].items()},
        }
        for setup, times in batches.items()
    ]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return ``p50``, ``p95``, ``p99`` and ``count`` of at least one value."""
    import numpy as np

    numbers = zip(('p50', 'p95', 'p99'), np.percentile(values, (50, 95, 99)))
    return {**{name: round(float(value), 4) for name, value in numbers}, 'count': len(values)}


def machine() -> dict[str, Any]:
    """Return processor, cores that may be used, memory, system and how busy it is."""
    from nightseg_ros.runtime.backends import processor

    facts = processor()
    flags = facts.get('flags', facts.get('Features', '')).split()
    return {
        'processor': facts.get('model name', platform.machine()),
        'cores': len(os.sched_getaffinity(0)),
        'instructions': [name for name in _INSTRUCTIONS if name in flags],
        'memory_gb': round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9, 1),
        'system': platform.platform(terse=True),
        'load_at_start': round(os.getloadavg()[0], 2),
    }


def markdown(result: Mapping[str, Any]) -> str:
    here = result['machine']
    rows: list[Sequence[str]] = [
        ('Backend', 'Size', 'Route', 'Cameras', 'Drawn', 'Hz', 'p50', 'p95', 'p99', *_STAGES)
    ]
    rows.append(['---'] * len(rows[0]))
    for p in result['pipelines']:
        chosen = f' ({p["description"]["backend"]})' if p['backend'] == 'auto' else ''
        ms = [p['batch_ms'][name] for name in ('p50', 'p95', 'p99')]
        ms += [p['stages_ms'][stage]['p50'] for stage in _STAGES]
        rows.append([
            p['backend'] + chosen, '{}×{}'.format(*p['size']), p['route'], str(p['cameras']),
            'all' if p['draw'] else 'labels', f'{p["hz"]:.1f}',
            # three digits or more
            *(f'{value:.3g}' if value < 100 else f'{value:.0f}' for value in ms),
        ])  # fmt: skip
    table = '\n'.join(f'| {" | ".join(row)} |' for row in rows)
    return (
        f'# nightseg bench\n\n{result["created"][:10]}: {here["processor"]}, '
        f'{here["cores"]} cores ({", ".join(here["instructions"])}), load '
        f'{here["load_at_start"]} at the start. '
        'Milliseconds of a batch (stages: of a frame, p50); Hz: frames of all cameras.\n\n'
        f'{table}\n'
    )
