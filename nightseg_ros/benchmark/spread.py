# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Many measurements of one thing, in a few numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def percentiles(values: Iterable[float]) -> dict[str, Any]:
    """Return ``p50``, ``p95``, ``p99`` and ``count``; None for the percentiles of nothing."""
    known = np.asarray(list(values), float)
    if not len(known):
        return {'p50': None, 'p95': None, 'p99': None, 'count': 0}
    found = np.percentile(known, (50, 95, 99))
    names = ('p50', 'p95', 'p99')
    return {
        **{name: round(float(value), 4) for name, value in zip(names, found)},
        'count': len(known),
    }


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, Any] | None:
    """
    Divide measurements that were taken in turns, round by round.

    Return the median of the rounds as ``value``, their 10th and 90th percentile as ``low`` and
    ``high``, and how many ``rounds`` there were; None where there was none.
    """
    rounds = [a / b for a, b in zip(above, below) if b > 0]
    if not rounds:
        return None
    low, value, high = (float(number) for number in np.percentile(rounds, (10, 50, 90)))
    return {
        'value': round(value, 4), 'low': round(low, 4), 'high': round(high, 4),
        'rounds': len(rounds),
    }  # fmt: skip
