# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Trained weights learn how sure they may be: temperature of the confidence, reliability."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nightseg_ros.data.augment import PhotometricConfig, distort
from nightseg_ros.data.damage import damaged
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.night import synthesize_night
from nightseg_ros.data.sample import DataError, Sample, read_image, read_labels
from nightseg_ros.evaluation.calibration import calibration
from nightseg_ros.runtime.graph import SegmentGraph, graph_of
from nightseg_ros.runtime.trust import Observation
from nightseg_ros.taxonomy import UNLABELLED, Taxonomy
from nightseg_ros.training.calibration_config import CalibrationConfig
from nightseg_ros.training.temperature import (
    Pixels,
    calibration_counts,
    cross_fit,
    fit_temperature,
)
from nightseg_ros.training.trust import Look, fit_trust, look, stack
from nightseg_ros.weights import (
    MANIFEST,
    TRUST,
    Weights,
    WeightsError,
    load_weights,
    network_tensors,
    save_weights,
    write_manifest,
)

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibrated:
    """What a calibration wrote and found."""

    path: Path
    sha256: str
    temperature: float
    about: dict[str, Any]
    """What the metadata now says of it: temperature by place, errors by light, frames."""


def calibrate(
    config: CalibrationConfig, say: Callable[[str], None] = lambda text: None
) -> Calibrated:
    """
    Fit temperature and reliability and write them into the weights.

    Errors after calibration are out of fold: each place's is that of the temperature which was
    fitted on the others, while the one that is written was fitted on all. What is not asked for
    stays as it was. ``WeightsError`` for weights of another task, ``DataError`` for data without
    labels or of a single place.
    """
    weights = load_weights(config.weights)
    if weights.metadata.task != 'segment' or weights.metadata.taxonomy is None:
        raise WeightsError(
            f"weights '{weights.path}' are for '{weights.metadata.task}'; a segmenter has a "
            'confidence to calibrate'
        )
    taxonomy = Taxonomy.from_dict(weights.metadata.taxonomy)
    tensors = dict(weights.tensors)
    about: dict[str, Any] = dict(weights.metadata.training.get('calibration', {}))
    temperature = weights.metadata.temperature
    if config.data:
        pixels = collect_pixels(weights, config, say)
        temperature = fit_temperature(pixels)
        about['temperature'] = summary(pixels, temperature, weights.metadata.temperature)
    metadata = dataclasses.replace(
        weights.metadata,
        temperature=temperature,
        training={**weights.metadata.training, 'calibration': about},
    )
    if config.faults_on:
        # the doubt that is weighed is that of the calibrated confidence
        cooled = dataclasses.replace(weights, metadata=metadata, tensors=network_tensors(tensors))
        found, judged = _trust(cooled, config, taxonomy, say)
        tensors = network_tensors(tensors) | {TRUST + name: t for name, t in found.items()}
        about['reliability'] = judged
    path = Path(config.out) if config.out else weights.path
    sha256 = save_weights(path, tensors, metadata, half=config.half)
    if (path.parent / MANIFEST).exists():
        write_manifest(path.parent)
    return Calibrated(path=path, sha256=sha256, temperature=temperature, about=about)


def collect_pixels(
    weights: Weights, config: CalibrationConfig, say: Callable[[str], None] = lambda text: None
) -> list[Pixels]:
    """Return labelled pixels of the frames of ``config.data`` with their logits."""
    graph = _graph(weights)
    assert weights.metadata.taxonomy is not None
    taxonomy = Taxonomy.from_dict(weights.metadata.taxonomy)
    found = []
    samples = [
        (name, sample) for name in config.data for sample in _spread(name, taxonomy, config.frames)
    ]
    for number, (name, sample) in enumerate(samples):
        image, truth = _labelled(sample)
        view = look(graph, image, truth, weights.metadata.long_side)
        assert view.truth is not None
        known = np.flatnonzero(view.truth != UNLABELLED)
        rng = np.random.default_rng((config.seed, number))
        drawn = rng.choice(known, min(config.pixels, known.size), replace=False)
        logits = view.logits.reshape(len(view.logits), -1)[:, drawn].T
        found.append(
            Pixels(
                place=sample.source or name, light=sample.light or 'unknown', logits=logits,
                truth=view.truth.ravel()[drawn],
            )
        )  # fmt: skip
        if number % 50 == 49 or number + 1 == len(samples):
            say(f'temperature: {number + 1}/{len(samples)} frames')
    return found


def summary(frames: Sequence[Pixels], temperature: float, before: float) -> dict[str, Any]:
    """
    Return the temperatures, and the calibration errors by light and by place.

    ``before`` is the temperature until now; ``after`` is out of fold, ``DataError`` for a single
    place.
    """
    try:
        folds = cross_fit(frames)
    except ValueError as error:
        raise DataError(str(error)) from error
    table = {}
    for kind in ('light', 'place'):
        for name in dict.fromkeys(getattr(frame, kind) for frame in frames):
            group = [frame for frame in frames if getattr(frame, kind) == name]
            counts = {
                'before': [calibration_counts(frame, before) for frame in group],
                'after': [calibration_counts(frame, folds[frame.place]) for frame in group],
            }
            row: dict[str, Any] = {'frames': len(group)}
            for when, several in counts.items():
                measured = calibration(np.sum(several, 0))
                if measured is not None:
                    row[when] = {key: measured[key] for key in ('ece', 'confidence', 'accuracy')}
            table[f'{kind} {name}'] = row
    return {
        'shipped': round(temperature, 4),
        'before': before,
        'out_of_fold': {place: round(value, 4) for place, value in folds.items()},
        'errors': table,
    }


def _trust(
    weights: Weights, config: CalibrationConfig, taxonomy: Taxonomy, say: Callable[[str], None]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors of the reliability, and what it was fitted on."""
    graph = _graph(weights)
    if not hasattr(graph.network, 'decode'):
        raise WeightsError(
            f"'{weights.metadata.network}' has no encoder to look into: its frames keep the mean "
            'confidence as their reliability; leave out --faults-on'
        )
    long_side = weights.metadata.long_side
    good: list[Observation] = []
    judged: list[Look] = []
    other = PhotometricConfig()

    def through_other_cameras(image: Image) -> list[Observation]:
        rng = np.random.default_rng((config.seed, len(good), 11))
        return [
            look(graph, distort(image, rng, other), None, long_side).seen
            for _ in range(config.cameras)
        ]

    for specification in config.faults_on:
        samples = _spread(specification, taxonomy, config.frames)
        for number, sample in enumerate(samples):
            for kind, image, truth in _shown(sample, config, taxonomy, number):
                view = look(graph, image, truth, long_side)
                judged.append(view)
                if kind == 'as it is':
                    good.append(view.seen)
                    good += through_other_cameras(image)
        say(f'reliability: {len(samples)} frames of {specification}, with their faults')
    for specification in config.good:
        samples = _spread(specification, taxonomy, 2 * config.frames)
        for image in (read_image(sample.image) for sample in samples):
            good.append(look(graph, image, None, long_side).seen)
            good += through_other_cameras(image)
        say(f'reliability: {len(samples)} good frames of {specification}')
    accuracy = np.array([view.accuracy for view in judged])
    known = np.isfinite(accuracy)
    seen = [view.seen for view, fine in zip(judged, known) if fine]
    tensors = fit_trust(stack(good), stack(seen), accuracy[known])
    return tensors, {
        'good_frames': len(good),
        'cameras': config.cameras,
        'judged_frames': len(seen),
        'seed': config.seed,
    }


def _shown(
    sample: Sample, config: CalibrationConfig, taxonomy: Taxonomy, number: int
) -> Iterator[tuple[str, Image, Image]]:
    """Yield a labelled day frame as it is, by night and through faulty cameras."""
    image, truth = _labelled(sample)
    rng = np.random.default_rng((config.seed, number, 7))
    yield 'as it is', image, truth
    yield 'night', synthesize_night(image, truth, rng, taxonomy=taxonomy), truth
    for _ in range(config.faults):
        yield 'faulty', damaged(image, rng), truth


def _spread(specification: str, taxonomy: Taxonomy, count: int) -> list[Sample]:
    """Return at most ``count`` samples, evenly spread over a data set."""
    samples = open_dataset(specification, taxonomy)
    if len(samples) <= count:
        return samples
    return [samples[index] for index in np.linspace(0, len(samples) - 1, count).astype(int)]


def _labelled(sample: Sample) -> tuple[Image, Image]:
    if sample.label is None:
        raise DataError(f"'{sample.image}' has no labels; a calibration compares with labels")
    return read_image(sample.image), read_labels(sample.label)


def _graph(weights: Weights) -> SegmentGraph:
    graph = graph_of(weights)
    assert isinstance(graph, SegmentGraph)
    return graph
