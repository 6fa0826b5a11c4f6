# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The temperature that makes a softmax honest (Guo et al. 2017), fitted place by place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightseg_ros.evaluation.calibration import reliability
from nightseg_ros.evaluation.confusion import Counts

Floats = npt.NDArray[np.float32]
#: Temperatures between which the best one is looked for.
LOW, HIGH = 0.1, 20.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Pixels:
    """Labelled pixels of one frame."""

    place: str
    light: str
    logits: Floats
    """Float32 [N, classes]."""
    truth: npt.NDArray[np.uint8]
    """uint8 [N] ids, none of them 255."""


def fit_temperature(frames: Iterable[Pixels]) -> float:
    """
    Return the temperature of the least negative log likelihood; every place weighs the same.

    ``ValueError`` where there is no pixel. The likelihood is convex in 1 / T, so that its slope
    is halved between ``LOW`` and ``HIGH``.
    """
    by_place: dict[str, list[Pixels]] = {}
    for frame in frames:
        if frame.truth.size:
            by_place.setdefault(frame.place, []).append(frame)
    if not by_place:
        raise ValueError('there is no labelled pixel to fit a temperature on')
    places = [
        (np.concatenate([f.logits for f in group]), np.concatenate([f.truth for f in group]))
        for group in by_place.values()
    ]
    cold, hot = 1 / HIGH, 1 / LOW
    for _ in range(40):
        middle = (cold + hot) / 2
        slope = np.mean([_slope(logits, truth, middle) for logits, truth in places])
        cold, hot = (cold, middle) if slope > 0 else (middle, hot)
    return float(2 / (cold + hot))


def cross_fit(frames: Sequence[Pixels]) -> dict[str, float]:
    """
    Return for each place the temperature fitted on all others.

    ``ValueError`` for a single place, which leaves nothing to fit on.
    """
    places = list(dict.fromkeys(frame.place for frame in frames))
    if len(places) < 2:
        raise ValueError(
            f'frames of {places[0] if places else "no place"} alone cannot be cross-fitted; '
            'name data of two places or more'
        )
    return {p: fit_temperature(frame for frame in frames if frame.place != p) for p in places}


def calibration_counts(frame: Pixels, temperature: float) -> Counts:
    """Return a frame's counts by confidence, as ``evaluation.calibration.reliability`` does."""
    scaled = (frame.logits - frame.logits.max(1, keepdims=True)) / temperature
    confidence = 255 / np.exp(scaled).sum(1)
    labels = frame.logits.argmax(1).astype(np.uint8)
    return reliability(frame.truth[None], labels[None], np.rint(confidence).astype(np.uint8)[None])


def _slope(logits: Floats, truth: npt.NDArray[np.uint8], cooling: float) -> float:
    """Return the derivative of the mean negative log likelihood by 1 / T."""
    p = np.exp((logits - logits.max(1, keepdims=True)) * cooling)
    p /= p.sum(1, keepdims=True)
    return float(((p * logits).sum(1) - logits[np.arange(len(truth)), truth]).mean())
