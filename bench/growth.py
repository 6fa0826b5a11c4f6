# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Whether a series of samples grows: medians of its first and last quarter after the warm-up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """What one series may do."""

    name: str
    growth: float
    """Largest (last - first) / first."""
    floor: float = 0.0
    """Growth up to this much, in the series' own unit, is none: it is below the noise."""
    quantile: float = 0.5
    """Which quantile of a quarter speaks for it; a low one hears less of a busy machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """What one series did."""

    limit: Limit
    first: float
    last: float

    @property
    def share(self) -> float:
        """The growth from the first quarter to the last one, as a share of the first."""
        return (self.last - self.first) / self.first if self.first else float(self.last > 0)

    @property
    def passed(self) -> bool:
        """Whether it kept within its limit."""
        if not np.isfinite([self.first, self.last]).all():
            return False
        return self.last - self.first <= max(self.limit.growth * self.first, self.limit.floor)

    def __str__(self) -> str:
        """Return a line of the verdict."""
        allowed = f'at most {self.limit.growth:.0%}'
        if self.limit.floor:
            allowed += f' or {self.limit.floor:g}'
        word = 'ok  ' if self.passed else 'FAIL'
        return (
            f'{word} {self.limit.name:18} {self.first:9.2f} → {self.last:9.2f} '
            f'({self.share:+.2%}, {allowed})'
        )


def growth(
    times: Sequence[float], values: Sequence[float], warm_up: float, limit: Limit
) -> Growth:
    """
    Compare the first and the last quarter of the samples later than ``warm_up``.

    ``times`` and ``warm_up`` share a unit; samples that are no number are left out. With fewer
    than eight samples nothing can be said, and ``first`` and ``last`` are NaN.
    """
    at, found = np.asarray(times, float), np.asarray(values, float)
    kept = found[(at >= warm_up) & np.isfinite(found)]
    if len(kept) < 8:
        return Growth(limit=limit, first=float('nan'), last=float('nan'))
    quarter = len(kept) // 4
    first, last = (
        float(np.quantile(part, limit.quantile)) for part in (kept[:quarter], kept[-quarter:])
    )
    return Growth(limit=limit, first=first, last=last)
