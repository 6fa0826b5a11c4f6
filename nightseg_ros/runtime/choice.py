# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Which backend is fastest on this machine: measured once, then remembered."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from nightseg_ros.config import ConfigError, from_mapping
from nightseg_ros.files import replace_file
from nightseg_ros.runtime.backend import BACKENDS, ENOUGH, ON_CPU, Run, Say
from nightseg_ros.runtime.int8 import has_int8
from nightseg_ros.runtime.registry import available_backends, open_backend, resolve
from nightseg_ros.share import cache_dir
from nightseg_ros.weights import Weights

#: Seconds that the candidates take turns, beside the time that their networks need to load.
BUDGET_S = 1.5
#: Seconds before the turn of another backend.
SETTLE_S = 0.05
_ROUNDS = 20
#: The preferred backend stays unless another one needs less than this share of its time: what is
#: measured on a busy machine must not decide by chance.
CLEARLY = 0.9
#: Choices that are remembered: weights, sizes and versions come and go.
_MOST = 64
_FILE = 'backends.json'


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A backend, and why it was taken."""

    backend: str
    device: str
    reason: str
    ms: dict[str, float]
    """Milliseconds of one image by candidate; empty where nothing was measured."""


def choose(
    weights: Sequence[Weights],
    size: tuple[int, int],
    *,
    backend: str = 'auto',
    device: str = 'auto',
    threads: int = 0,
    say: Say = lambda text: None,
) -> Choice:
    """
    Return what runs ``weights``, segmenters, fastest on images of ``size`` (rows, columns).

    A name other than 'auto' is taken as it is, and on a GPU torch is. On a CPU the exported graphs
    of the backends that are installed take turns for ``BUDGET_S``, once for these weights, size,
    threads, versions and processor; the answer lies in the cache. bfloat16 takes part where the
    CPU has it and all weights say that enough labels stay the same; int8 where all of them have an
    int8 graph, which nobody makes unasked. ``BackendError`` as ``open_backend`` raises it.
    """
    name, device = resolve(backend, device)
    if backend != 'auto':
        return Choice(backend=name, device=device, reason='asked for', ms={})
    if device == 'cuda':
        return Choice(backend=name, device=device, reason='there is a GPU', ms={})
    present = available_backends()
    # eager torch is the slowest everywhere, and importing it takes longer than all the rest
    candidates = [c for c in ON_CPU if c != 'torch' and present[c]]
    if 'openvino' in candidates:
        candidates += _coarser(weights)
    if len(candidates) < 2:
        return Choice(backend=name, device=device, reason='no other is installed', ms={})
    key = _key(candidates, weights[-1], size, threads)
    choice = _remembered().get(key)
    if choice is None:
        say('measuring which backend is fastest here, once …')
        runs = {c: open_backend(c, device, threads).load(weights[-1], say) for c in candidates}
        choice = _decide(measure(runs, size), size)
        _remember(key, choice, say)
    say(f'backend {choice.backend}: {choice.reason}')
    return choice


def measure(
    runs: Mapping[str, Run],
    size: tuple[int, int],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """
    Return the least milliseconds of each run for one uint8 image of ``size`` (rows, columns).

    They take turns of three, so that a busy machine slows all alike; the least is what it
    disturbed least. The pause before a turn is for the threads of the one before, which spin on.
    """
    image = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    least = dict.fromkeys(runs, float('inf'))
    for run in runs.values():
        run(image)
    started = clock()
    for _ in range(_ROUNDS):
        for name, run in runs.items():
            time.sleep(SETTLE_S)
            for _ in range(3):
                began = clock()
                run(image)
                least[name] = min(least[name], (clock() - began) * 1e3)
        if clock() - started > BUDGET_S:
            break
    return least


def _coarser(weights: Sequence[Weights]) -> list[str]:
    """Return OpenVINO's other arithmetics that all weights allow."""
    from nightseg_ros.runtime.openvino_backend import precisions

    found = []
    if 'bf16' in precisions() and all(one.metadata.bfloat16 >= ENOUGH for one in weights):
        found.append('openvino-bf16')
    if all(has_int8(one) for one in weights):
        found.append('openvino-int8')
    return found


def _decide(ms: dict[str, float], size: tuple[int, int]) -> Choice:
    """Take the first, or the fastest where it is clearly faster."""
    first, fastest = next(iter(ms)), min(ms, key=lambda name: ms[name])
    chosen = fastest if ms[fastest] < CLEARLY * ms[first] else first
    times = ', '.join(f'{name} {value:.1f} ms' for name, value in ms.items())
    why = 'the fastest' if chosen == fastest else 'no other is clearly faster'
    reason = f'{why} at {size[1]}×{size[0]} ({times})'
    rounded = {name: round(value, 2) for name, value in ms.items()}
    return Choice(backend=chosen, device='cpu', reason=reason, ms=rounded)


def _key(candidates: list[str], weights: Weights, size: tuple[int, int], threads: int) -> str:
    versions = {name: _version(BACKENDS[name]) for name in candidates}
    facts = [weights.sha256, size, threads, _processor(), versions]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # built from source, or under another name
        return ''


def _processor() -> str:
    """Return the processor's name and features; a cache may move between machines."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        return f'{platform.machine()} {platform.processor()}'
    wanted = ('model name', 'flags', 'Features', 'CPU part')
    kept = dict(line.split(':', 1) for line in lines if line.startswith(wanted) and ':' in line)
    cores = sum(line.startswith('processor') for line in lines)
    return f'{cores} × {sorted(kept.items())}'


def _remembered() -> dict[str, Choice]:
    """Return the choices in the cache; what cannot be read is measured again."""
    try:
        stored = json.loads((cache_dir() / _FILE).read_text(encoding='utf-8'))
        return {key: from_mapping(Choice, value) for key, value in stored.items()}
    except (OSError, ValueError, AttributeError, ConfigError):
        return {}


def _remember(key: str, choice: Choice, say: Say) -> None:
    kept = dict(list(_remembered().items())[1 - _MOST :])
    content = {name: asdict(value) for name, value in {**kept, key: choice}.items()}
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        replace_file(cache_dir() / _FILE, json.dumps(content, indent=1).encode())
    except OSError as error:
        say(f'the choice cannot be remembered: {error}')
