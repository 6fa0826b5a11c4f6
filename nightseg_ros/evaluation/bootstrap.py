# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Percentile bootstrap (Efron 1979) of scores that are functions of summed counts.

What is drawn is a unit: a frame, a block of neighbouring frames, or a source. Neighbouring frames
of a drive show the same street, so that drawing them one by one would make intervals far too
narrow. All scores with one seed and number of units draw the same units, which makes differences
between two configurations over the same frames paired.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Unit = Literal['frames', 'blocks', 'sources']
#: Draws that are held at a time.
_CHUNK = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class BootstrapConfig:
    """How intervals are made."""

    unit: Literal['auto', 'frames', 'blocks', 'sources'] = 'auto'
    """'auto' draws blocks of drives and single frames of anything else."""
    block_s: float = 5.0
    """Length of a block in seconds."""
    resamples: int = 1000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        """Name the value that is out of range."""
        if self.unit not in ('auto', 'frames', 'blocks', 'sources'):
            raise ValueError(f"unit is auto, frames, blocks or sources, got '{self.unit}'")
        if not 0 < self.block_s < 1e6:
            raise ValueError(f'block_s is above 0 seconds, got {self.block_s}')
        if not 10 <= self.resamples <= 1_000_000:
            raise ValueError(f'resamples is 10 to 1000000, got {self.resamples}')
        if not 0 < self.level < 1:
            raise ValueError(f'level is between 0 and 1, got {self.level}')


def resampled(units: npt.NDArray[Any], config: BootstrapConfig, stratum: int = 0) -> Floats:
    """
    Return float64 [resamples, ...]: the sums over as many units [n, ...] as there are, drawn anew.

    Sums of counts below 2⁵³ are exact. ``stratum`` gives independent draws for another group.
    """
    count = len(units)
    flat = units.reshape(count, -1).astype(np.float64)
    sums = np.concatenate([draw @ flat for draw in _draws(count, config, stratum)])
    return sums.reshape(config.resamples, *units.shape[1:])


def interval(values: Floats, units: int, config: BootstrapConfig) -> list[float] | None:
    """Return [low, high] of the values [resamples]; None for fewer than two units."""
    known = values[~np.isnan(values)]
    if units < 2 or not known.size:
        return None
    tail = 50 * (1 - config.level)
    low, high = np.percentile(known, (tail, 100 - tail))
    return [float(low), float(high)]


def difference(
    score: float, reference: float, values: Floats, references: Floats, units: int,
    config: BootstrapConfig,
) -> dict[str, Any]:  # fmt: skip
    """
    Compare two configurations by a score and its values [resamples] over the same draws.

    Returns ``difference`` of the scores, and of the draws the ``median``, the interval ``ci`` and
    the share ``above_zero``; None where there is nothing to draw from.
    """
    gaps = values - references
    known = gaps[~np.isnan(gaps)]
    drawn = units >= 2 and known.size > 0
    return {
        'difference': score - reference,
        'median': float(np.median(known)) if drawn else None,
        'ci': interval(gaps, units, config),
        'above_zero': float((known > 0).mean()) if drawn else None,
    }


def _draws(count: int, config: BootstrapConfig, stratum: int) -> Iterator[Floats]:
    """Yield float64 [b, count]: how often each unit was drawn."""
    rng = np.random.default_rng([config.seed, count, stratum])
    shares = np.full(count, 1 / count)
    for start in range(0, config.resamples, _CHUNK):
        rows = min(_CHUNK, config.resamples - start)
        yield rng.multinomial(count, shares, size=rows).astype(np.float64)
