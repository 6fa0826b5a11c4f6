# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What a process holds at a moment, read from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf('SC_CLK_TCK')


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """Memory, file descriptors, threads and CPU time of one process."""

    rss_mb: float
    """Resident memory in MB (10^6 bytes), shared memory of the transport included."""
    anon_mb: float
    """The part of it that is the process's own and backed by no file."""
    fds: int
    threads: int
    cpu_s: float
    """CPU seconds of all its threads since it started."""


def resources(pid: int) -> Resources:
    """Read them; ``OSError`` where the process is gone."""
    folder = Path('/proc') / str(pid)
    status = dict(
        line.split(':', 1) for line in (folder / 'status').read_text().splitlines() if ':' in line
    )
    fields = (folder / 'stat').read_text().rpartition(')')[2].split()
    return Resources(
        rss_mb=_megabytes(status['VmRSS']),
        anon_mb=_megabytes(status['RssAnon']),
        fds=len(os.listdir(folder / 'fd')),
        threads=int(status['Threads']),
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS,
    )


def _megabytes(text: str) -> float:
    return int(text.split()[0]) * 1024 / 1e6
