# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The memory that the C library holds for the process, where it is glibc."""

from __future__ import annotations

import contextlib
import ctypes

#: mallopt(3), from malloc.h.
M_ARENA_MAX = -8


def use_one_heap() -> None:
    """
    Let all threads share one heap.

    Each would have its own, and what is freed in one does not serve the others: with every
    configure the process would grow or shrink by some megabytes.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def give_back() -> None:
    """
    Return freed memory to the system.

    Compiling a network takes tens of megabytes for a moment, which would stay with the process
    for good.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
