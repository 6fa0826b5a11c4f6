# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
How much the libraries keep for every thread that calls them: why one thread runs the networks.

``GLIBC_TUNABLES=glibc.malloc.tcache_count=0 python bench/kept_memory.py`` counts what glibc's
``malloc`` holds, without the threads' own caches, so that the figures repeat to the byte.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from nightseg_ros.runtime.backends import OpenVINOBackend
from nightseg_ros.weights import load_weights

_ARENA_MAX = -8  # of mallopt: one heap for all threads, as in the node
_FIELDS = (
    'arena', 'ordblks', 'smblks', 'hblks', 'hblkhd',
    'usmblks', 'fsmblks', 'uordblks', 'fordblks', 'keepcost',
)  # fmt: skip


class _Account(ctypes.Structure):
    """``struct mallinfo2`` of malloc.h."""

    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS]


LIBC = ctypes.CDLL(None)
LIBC.mallinfo2.restype = _Account


def held() -> int:
    """Return the bytes that were allocated and not freed."""
    gc.collect()
    account = LIBC.mallinfo2()
    return int(account.uordblks + account.hblkhd)


def in_a_thread(work: Callable[[], object]) -> None:
    """Do it in a thread that ends."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def in_the_worker(work: Callable[[], object]) -> None:
    """Do it in the one thread that stays."""
    WORKER.submit(work).result()


def shrink() -> None:
    """Call OpenCV once."""
    cv2.resize(np.zeros((96, 160, 3), np.uint8), (80, 48), interpolation=cv2.INTER_AREA)


def compile_and_run(run: Callable[[Callable[[], object]], None]) -> None:
    """Compile a network here, as every configuration does, and let ``run`` say who calls it."""
    run_network = OpenVINOBackend(threads=1).load(WEIGHTS, lambda _: None)
    run_network(BATCH)  # compiles for this size
    run(lambda: run_network(BATCH))


WEIGHTS = load_weights('rendered_day')
BATCH = np.zeros((1, 96, 160, 3), np.uint8)
WORKER = ThreadPoolExecutor(1)
CASES: dict[str, Callable[[], None]] = {
    'a thread that does nothing': lambda: in_a_thread(lambda: None),
    'OpenCV called by the same thread': shrink,
    'OpenCV called by a new thread': lambda: in_a_thread(shrink),
    'a network run by the thread that compiled it': lambda: compile_and_run(lambda work: work()),
    'a network run by a new thread': lambda: compile_and_run(in_a_thread),
    'a network run by another thread that stays': lambda: compile_and_run(in_the_worker),
}


def main() -> int:
    """Print the bytes that each case keeps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--times', type=int, default=200)
    options = parser.parse_args()
    LIBC.mallopt(_ARENA_MAX, 1)
    if 'tcache_count=0' not in os.environ.get('GLIBC_TUNABLES', ''):
        print('the threads keep caches of their own: set GLIBC_TUNABLES as the docstring says')
    print(f'bytes kept a time, of {options.times} after {options.times // 4}')
    for name, case in CASES.items():
        for _ in range(options.times // 4):
            case()
        before = held()
        for _ in range(options.times):
            case()
        print(f'{(held() - before) / options.times:8.1f}  {name}')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
