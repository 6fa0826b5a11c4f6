# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Ten seconds of fuzzing of each reader; ``make fuzz`` goes on for a million inputs each."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache
from pathlib import Path

import fuzz_targets
import pytest

HERE = Path(__file__).parent
#: For each reader.
SECONDS = 10.0


@cache
def seeds(name: str) -> list[bytes]:
    return fuzz_targets.samples(name)


@pytest.mark.parametrize('name', fuzz_targets.TARGETS)
def test_whole_samples_are_read(name: str) -> None:
    for content in seeds(name):
        fuzz_targets.TARGETS[name][0](content)


def damage(name: str) -> int:
    """Read samples with wrong bytes for ``SECONDS``; return how many."""
    chance = random.Random(name)
    target, _ = fuzz_targets.TARGETS[name]
    until = time.monotonic() + SECONDS
    tries = 0
    while time.monotonic() < until or not tries:
        content = bytearray(chance.choice(seeds(name)))
        for _ in range(chance.randint(1, 4)):
            at = chance.randint(0, len(content))
            length = chance.choice((0, 1, 2, 4, 8, 64))
            content[at : at + length] = chance.randbytes(chance.choice((0, 1, 2, 4, 8)))
        try:
            target(bytes(content))
        except Exception as error:
            raise AssertionError(f'{name}: {bytes(content)!r}') from error
        tries += 1
    return tries


@pytest.fixture(scope='module')
def damaged() -> Iterator[dict[str, Future[int]]]:
    """Damage samples of all readers, as many at a time as there are cores."""
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context('spawn')) as pool:
        yield {name: pool.submit(damage, name) for name in fuzz_targets.TARGETS}


@pytest.mark.parametrize('name', fuzz_targets.TARGETS)
def test_samples_with_wrong_bytes_do_no_harm(name: str, damaged: dict[str, Future[int]]) -> None:
    assert damaged[name].result() > 100


@pytest.mark.skipif(
    importlib.util.find_spec('atheris') is None,
    reason='atheris is not installed: pip install -r requirements/fuzz.txt',
)
def test_the_fuzzer_itself_runs(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / 'fuzz.py'), 'raw', '--runs', '500', '--out', tmp_path]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'Done 500 runs' in done.stderr
