# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The machine that a benchmark ran on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

#: Instructions that decide how fast a network runs.
_TELLING = ('avx2', 'avx512f', 'avx512_vnni', 'avx512_bf16', 'amx_bf16', 'amx_int8', 'asimddp')


def machine() -> dict[str, Any]:
    """Return processor, cores that may be used, memory, system and how busy it is."""
    try:
        text = Path('/proc/cpuinfo').read_text()
        memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9
    except (OSError, ValueError):
        text, memory = '', 0.0
    facts = {
        key.strip(): value.strip()
        for key, colon, value in (line.partition(':') for line in text.splitlines())
        if colon
    }
    flags = facts.get('flags', facts.get('Features', '')).split()
    return {
        'processor': facts.get('model name', platform.machine()),
        'cores': len(os.sched_getaffinity(0)),
        'instructions': [name for name in _TELLING if name in flags],
        'memory_gb': round(memory, 1),
        'system': platform.platform(terse=True),
        'load_at_start': round(os.getloadavg()[0], 2),
    }
