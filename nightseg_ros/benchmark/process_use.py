# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What a process takes of the machine, as Linux tells it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessUse:
    """Of one process, since it began."""

    resident_mb: float
    """Memory in MB (10^6 bytes), shared pages included."""
    peak_mb: float
    """The most that it ever was."""
    cpu_s: float
    """Seconds of processor time, of all its threads."""


def process_use(pid: int) -> ProcessUse:
    """Return what process ``pid`` takes; ``OSError`` where it is gone or there is no /proc."""
    folder = Path('/proc') / str(pid)
    # the name, in brackets, may hold anything
    fields = (folder / 'stat').read_text().rpartition(')')[2].split()
    status = dict(
        line.split(':', 1) for line in (folder / 'status').read_text().splitlines() if ':' in line
    )
    return ProcessUse(
        resident_mb=_kilobytes(status, 'VmRSS') * 1024 / 1e6,
        peak_mb=_kilobytes(status, 'VmHWM') * 1024 / 1e6,
        cpu_s=(int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK'),
    )


def _kilobytes(status: dict[str, str], key: str) -> float:
    return float(status.get(key, '0').split()[0])
