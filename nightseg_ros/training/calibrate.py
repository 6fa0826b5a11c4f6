# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Trained weights learn how sure they may be.

A temperature makes the softmax honest (Guo et al. 2017). A reliability head
(``runtime.graph``) tells frames in which nothing can be seen: here it learns what good frames look
like and what its features say of the share of right pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from pathlib import Path
from typing import Any

import cv2
from nightseg_ros.data.augment import distort, PhotometricConfig
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.night import synthesize_night
from nightseg_ros.data.photometric import corrupted
from nightseg_ros.data.sample import DataError, labelled, labels_of, read_image, read_pair, Sample
from nightseg_ros.outputs import check_output
from nightseg_ros.runtime.backend import Log
from nightseg_ros.runtime.export import replace_weights
from nightseg_ros.runtime.graph import (
    FEATURES,
    graph_of,
    Observation,
    ReliabilityHead,
    SegmentGraph,
)
from nightseg_ros.runtime.pixels import fit, HostPixels
from nightseg_ros.taxonomy import Taxonomy, UNLABELLED
from nightseg_ros.training import CalibrationConfig
from nightseg_ros.weights import (
    has_reliability,
    load_weights,
    network_tensors,
    RELIABILITY,
    Weights,
    WeightsError,
)
import numpy as np
import numpy.typing as npt
import torch

Image = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]
#: Logits float32 [N, classes] of labelled pixels and their ids uint8 [N], none of them 255.
Pixels = tuple[Logits, Image]
Doubles = npt.NDArray[np.float64]
#: Temperatures between which the best one is looked for; pixels drawn of each frame for it.
LOW, HIGH, PIXELS = 0.1, 20.0, 2000
#: Faults shown on each labelled day frame.
FAULTS = 3
#: Principal components of the pooled features.
COMPONENTS = 16
#: Least variance that float16 keeps well.
LEAST = 1e-3
#: Share of the good frames below which a distance says nothing.
START = 0.95
#: Weight that every feature has before a frame is seen, and the L2 penalty of another one: the
#: faults that are fitted on are not all that there are.
PRIOR_WEIGHT, L2 = 0.1, 30.0


def calibrate(config: CalibrationConfig, log: Log = lambda text: None) -> Weights:
    """
    Fit temperature and reliability, write them into the weights, and return these.

    What was found is 'calibration' in the metadata's ``training``; what is not asked for stays as
    it was. ``WeightsError`` for weights of another task, ``DataError`` for data without labels.
    """
    weights = load_weights(config.weights)
    path = Path(config.out) if config.out else weights.path
    check_output(path, 'weights', Path.is_file)
    metadata = weights.metadata
    if metadata.task != 'segment' or metadata.taxonomy is None:
        raise WeightsError(
            f"weights '{weights.path}' are for '{metadata.task}'; a segmenter has a confidence "
            'to calibrate'
        )
    about: dict[str, Any] = dict(metadata.training.get('calibration', {}))
    metadata = dataclasses.replace(metadata, training={**metadata.training, 'calibration': about})
    floats = [t for t in weights.tensors.values() if t.is_floating_point()]
    # those in float32 stay so
    half = all(torch.equal(t.half().float(), t) for t in floats)
    if config.data and has_reliability(weights) and not config.faults_on:
        raise WeightsError(
            f"the reliability of '{weights.path}' was fitted with its temperature; give "
            '--faults-on as well, to fit both anew'
        )
    if config.data:
        places = collect_pixels(weights, config, log)
        temperature = fit_temperature([*places.values()])
        about['temperature'] = {
            'shipped': round(temperature, 4), 'before': metadata.temperature, 'places': [*places],
        }  # fmt: skip
        metadata = dataclasses.replace(metadata, temperature=temperature)
    weights = dataclasses.replace(weights, metadata=metadata)
    if config.faults_on:
        tensors = network_tensors(weights.tensors)
        weights = dataclasses.replace(weights, tensors=tensors)
        # the doubt that is weighed is that of the calibrated confidence
        head, about['reliability'] = _reliability_head(weights, config, log)
        tensors |= {RELIABILITY + name: tensor for name, tensor in head.items()}
    return replace_weights(path, weights, half=half, graph=bool(weights.graph))


# -- frames --------------------------------------------------------------------------------------


@torch.inference_mode()
def predict(graph: SegmentGraph, image: Image, long_side: int) -> tuple[Observation, Logits]:
    """Show uint8 RGB to the graph; logits are float32 [classes, h, w] at half its size."""
    size = fit(image.shape[0], image.shape[1], long_side)
    images = torch.from_numpy(HostPixels().shrink(image, 'rgb', size)[None])
    coarse, features = graph.logits_and_features(images)
    logits = graph.enlarge(coarse)
    top = (logits * graph.cooling).softmax(1).amax(1).mean(dim=(1, 2))
    height, width = size.labels
    return graph.observe(features, coarse, top), logits[0, :, :height, :width].numpy()


def _resized(truth: Image, logits: Logits) -> Image:
    size = logits.shape[:0:-1]
    return np.asarray(cv2.resize(truth, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def _graph(weights: Weights) -> tuple[SegmentGraph, Taxonomy]:
    graph = graph_of(weights)
    assert isinstance(graph, SegmentGraph) and weights.metadata.taxonomy is not None
    return graph, Taxonomy.from_dict(weights.metadata.taxonomy)


def _spread(specification: str, taxonomy: Taxonomy, count: int) -> list[Sample]:
    """Return at most ``count`` samples, evenly spread over a data set."""
    samples = open_dataset(specification, taxonomy)
    places = np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int)
    return [samples[place] for place in places]


# -- temperature ---------------------------------------------------------------------------------


def collect_pixels(weights: Weights, config: CalibrationConfig, log: Log) -> dict[str, Pixels]:
    """Return labelled pixels of the frames of ``config.data``, by place."""
    graph, taxonomy = _graph(weights)
    found: dict[str, list[Pixels]] = {}
    samples = [(spec, s) for spec in config.data for s in _spread(spec, taxonomy, config.frames)]
    labelled([sample for _, sample in samples], 'a calibration compares with labels')
    for number, (spec, sample) in enumerate(samples, start=1):
        image, truth = read_pair(sample)
        _, logits = predict(graph, image, weights.metadata.long_side)
        ids = _resized(truth, logits).ravel()
        known = np.flatnonzero(ids != UNLABELLED)
        rng = np.random.default_rng((config.seed, number - 1))
        drawn = rng.choice(known, min(PIXELS, known.size), replace=False)
        chosen = logits.reshape(len(logits), -1)[:, drawn].T, ids[drawn]
        found.setdefault(sample.source or spec, []).append(chosen)
        if number % 50 == 0 or number == len(samples):
            log(f'temperature: {number}/{len(samples)} frames')
    places = {}
    for place, group in found.items():
        all_logits, all_ids = zip(*group)
        places[place] = np.concatenate(all_logits), np.concatenate(all_ids)
    return places


def fit_temperature(places: Sequence[Pixels]) -> float:
    """
    Return the temperature of the least negative log likelihood; every place weighs the same.

    ``DataError`` where there is no pixel. The likelihood is convex in 1 / T, so that its slope
    is halved between ``LOW`` and ``HIGH``.
    """
    places = [(logits, truth) for logits, truth in places if truth.size]
    if not places:
        raise DataError('there is no labelled pixel to fit a temperature on')
    cold, hot = 1 / HIGH, 1 / LOW
    for _ in range(40):
        middle = (cold + hot) / 2
        slope = np.mean([_slope(logits, truth, middle) for logits, truth in places])
        cold, hot = (cold, middle) if slope > 0 else (middle, hot)
    return float(2 / (cold + hot))


def _slope(logits: Logits, truth: Image, cooling: float) -> float:
    """Return the derivative of the mean negative log likelihood by 1 / T."""
    p = np.exp((logits - logits.max(1, keepdims=True)) * cooling)
    p /= p.sum(1, keepdims=True)
    return float(((p * logits).sum(1) - logits[np.arange(len(truth)), truth]).mean())


# -- reliability ---------------------------------------------------------------------------------


def _reliability_head(
    weights: Weights, config: CalibrationConfig, log: Log
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors of the reliability head, and what they were fitted on."""
    graph, taxonomy = _graph(weights)
    long_side = weights.metadata.long_side
    good: list[Observation] = []
    judged: list[Observation] = []
    accuracy: list[float] = []

    def show_good(image: Image, seen: Observation) -> None:
        """Add a good frame, and what other cameras would have made of it."""
        good.append(seen)
        rng = np.random.default_rng((config.seed, len(good), 11))
        others = [distort(image, rng, PhotometricConfig()) for _ in range(config.cameras)]
        good.extend(predict(graph, other, long_side)[0] for other in others)

    for specification in config.faults_on:
        samples = _spread(specification, taxonomy, config.frames)
        labelled(samples, 'a calibration compares with labels')
        for number, sample in enumerate(samples):
            image, truth = read_pair(sample)
            rng = np.random.default_rng((config.seed, number, 7))
            others = []
            if sample.light not in ('dusk', 'night') and 'sky' in taxonomy.classes:
                scene = labels_of(sample.scene, image) if sample.scene else truth
                others.append(synthesize_night(image, scene, rng, taxonomy=taxonomy))
            others += [corrupted(image, rng) for _ in range(FAULTS)]
            for shown in (image, *others):
                seen, logits = predict(graph, shown, long_side)
                ids = _resized(truth, logits)
                known = ids != UNLABELLED
                if known.any():
                    judged.append(seen)
                    accuracy.append(float((logits.argmax(0) == ids)[known].mean()))
                if shown is image:
                    show_good(image, seen)
        log(f'reliability: {len(samples)} frames of {specification}, with their faults')
    for specification in config.good:
        samples = _spread(specification, taxonomy, 2 * config.frames)
        for sample in samples:
            image = read_image(sample.image)
            show_good(image, predict(graph, image, long_side)[0])
        log(f'reliability: {len(samples)} good frames of {specification}')
    if len(good) < 2 or not judged:
        raise DataError(
            f'a reliability is fitted on two good frames or more and labelled ones; there are '
            f'{len(good)} and {len(judged)}: give more --frames, --good or --faults-on'
        )
    return fit_reliability(stack(good), stack(judged), np.array(accuracy)), {
        'good_frames': len(good), 'cameras': config.cameras, 'judged_frames': len(judged),
        'seed': config.seed,
    }  # fmt: skip


def stack(seen: Sequence[Observation]) -> Observation:
    parts = zip(*((one.confidence, one.pooled, one.rows) for one in seen))
    return Observation(*(torch.cat(part) for part in parts))


def fit_reliability(
    good: Observation, judged: Observation, accuracy: Doubles
) -> dict[str, torch.Tensor]:
    """
    Return the tensors of a reliability head.

    ``good`` are frames that a camera should give; the distances are to them. ``accuracy``, float64
    [N] from 0 to 1, is the share of right pixels of the frames ``judged``, good and bad ones.
    """
    mean, scale = good.pooled.mean(0), good.pooled.std(0) + 1e-3
    z = ((good.pooled - mean) / scale).double()
    _, sizes, directions = torch.linalg.svd(z, full_matrices=False)
    # a few frames span few directions, and something has to lie beside them
    count = max(1, min(COMPONENTS, len(z) // 4))
    beside = (z**2).sum(1) - ((z @ directions[:count].T) ** 2).sum(1)
    zeros = torch.zeros(len(FEATURES))
    tensors = {
        'pooled_mean': mean, 'pooled_scale': scale, 'components': directions[:count],
        'variances': (sizes[:count] ** 2 / (len(z) - 1)).clamp(min=LEAST),
        'residual': beside.mean().clamp(min=LEAST), 'rows_mean': good.rows.mean(0),
        'start': zeros, 'scale': zeros + 1, 'weight': zeros, 'bias': zeros[0],
    }  # fmt: skip
    features = ReliabilityHead(tensors).features(good).double()
    # doubt counts everywhere, around its mean
    start = torch.quantile(features, START, dim=0)
    start[0] = features[:, 0].mean()
    tensors |= {'start': start, 'scale': features.std(0) + LEAST}
    head = ReliabilityHead(tensors)
    weight, bias = fit_logistic(head.scaled(head.features(judged)).double().numpy(), accuracy)
    return tensors | {'weight': torch.from_numpy(weight), 'bias': torch.tensor(bias)}


def fit_logistic(features: Doubles, share: Doubles) -> tuple[Doubles, float]:
    """
    Fit ``share`` ≈ σ(bias − features · weight) with weights ≥ 0 by Newton's method.

    ``features`` is [N, K]. More of a feature must never mean more reliability: one whose weight
    would be negative, for want of frames that tell it, is left out.
    """
    used = np.ones(features.shape[1], bool)
    while True:
        x = np.column_stack([-features[:, used], np.ones(len(features))])
        penalty = np.r_[np.full(used.sum(), L2), 0.0]
        beta = np.zeros(x.shape[1])
        for _ in range(50):
            p = 1 / (1 + np.exp(-np.clip(x @ beta, -30, 30)))
            slope = x.T @ (share - p) - penalty * (beta - PRIOR_WEIGHT)
            curve = (x * (p * (1 - p))[:, None]).T @ x + np.diag(penalty + 1e-9)
            step = np.linalg.solve(curve, slope)
            beta += step / max(1.0, float(np.abs(step).max()))
        if (beta[:-1] >= 0).all():
            weight = np.zeros(features.shape[1])
            weight[used] = beta[:-1]
            return weight, float(beta[-1])
        worst = np.flatnonzero(used)[beta[:-1].argmin()]
        used[worst] = False
