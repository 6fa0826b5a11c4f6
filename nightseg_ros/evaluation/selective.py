# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Whether a score of trust is low where the answers are wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nightseg_ros.evaluation.bootstrap import BootstrapConfig, interval

#: Shares of the frames that are kept in ``selective``.
COVERAGES = (0.25, 0.5, 0.75, 0.9, 1.0)

Floats = npt.NDArray[np.float64]


def ranks(values: npt.ArrayLike) -> Floats:
    """Return the ranks of [N] values from 1 on, ties sharing their mean."""
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return np.asarray((last - (counts - 1) / 2)[inverse], np.float64)


def spearman(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Return Spearman's rank correlation of two [N]; NaN where one of them never changes."""
    a, b = (r - r.mean() for r in (ranks(first), ranks(second)))
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm else float('nan')


def auroc(bad: npt.ArrayLike, good: npt.ArrayLike) -> float:
    """Return how often a score of ``good`` [N] is above one of ``bad`` [M], ties counting half."""
    low, high = np.asarray(bad), np.asarray(good)
    if not low.size or not high.size:
        return float('nan')
    places = ranks(np.concatenate([high, low]))[: high.size]
    above = places.sum() - high.size * (high.size + 1) / 2
    return float(above / (high.size * low.size))


def auroc_of_counts(bad: npt.NDArray[Any], good: npt.NDArray[Any]) -> float:
    """Return the same for scores that are levels: counts [L] of each."""
    low, high = bad.astype(np.float64), good.astype(np.float64)
    if not low.sum() or not high.sum():
        return float('nan')
    below = low.cumsum() - low / 2
    return float(high @ below / (high.sum() * low.sum()))


def risk_coverage(scores: npt.ArrayLike, errors: npt.ArrayLike) -> tuple[Floats, Floats]:
    """
    Return the risk [N] at each coverage [N] (Geifman & El-Yaniv 2017).

    Coverage k / N keeps the k frames of the highest scores; the risk is their mean error.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind='stable')
    kept = np.arange(1, len(order) + 1)
    return kept / len(order), np.asarray(errors, np.float64)[order].cumsum() / kept


def spearman_interval(
    first: Floats, second: Floats, units: npt.NDArray[np.int64], config: BootstrapConfig
) -> list[float] | None:
    """Return the interval of Spearman's correlation over drawn units [N] of frames."""
    _, groups = np.unique(units, return_inverse=True)
    members = [np.flatnonzero(groups == index) for index in range(groups.max(initial=-1) + 1)]
    if len(members) < 2:
        return None
    rng = np.random.default_rng([config.seed, len(members)])
    draws = []
    for _ in range(config.resamples):
        drawn = rng.integers(len(members), size=len(members))
        chosen = np.concatenate([members[index] for index in drawn])
        draws.append(spearman(first[chosen], second[chosen]))
    return interval(np.array(draws), len(members), config)


def selective(
    scores: Floats, accuracy: Floats, units: npt.NDArray[np.int64], config: BootstrapConfig
) -> dict[str, Any]:
    """
    Return how a score [N] of frames goes with their accuracy [N], 0 to 1; None without frames.

    ``spearman`` with ``spearman_ci``, and ``risk``: the mean error of the frames of the highest
    scores, by the share of the frames that is kept; ``risk_area`` is its mean over all shares.
    """
    if not len(scores):
        return {'spearman': None, 'spearman_ci': None, 'risk': None, 'risk_area': None}
    coverage, risk = risk_coverage(scores, 1 - accuracy)
    at = np.minimum(np.searchsorted(coverage, COVERAGES), len(risk) - 1)
    return {
        'spearman': spearman(scores, accuracy),
        'spearman_ci': spearman_interval(scores, accuracy, units, config),
        'risk': {f'{share:g}': float(risk[i]) for share, i in zip(COVERAGES, at)},
        'risk_area': float(risk.mean()),
    }
