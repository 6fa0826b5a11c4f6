# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The study behind the illumination estimator: every camera held out once.

Three ways to tell day from night are trained on all cameras but one and judged on that one: the
network, a logistic regression on the statistics, and a threshold on the mean luma. A camera with
frames of one class only gives that class's recall; the averages weight cameras equally.

python bench/illumination_study.py out/study.md shared:DATA
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from nightseg_ros.perception.illumination import (
    IlluminationEstimator,
    cumulative,
    ground_light,
    quantile,
)
from nightseg_ros.training.illumination import (
    IlluminationConfig,
    Sampler,
    Thumbnails,
    fit,
    load_thumbnails,
    shrink,
    sources,
    without_camera,
)

Array = npt.NDArray[np.float64]
#: The statistics that a logistic regression gets in the comparison, in this order.
STATISTICS = (
    'mean_luma',
    'sky_darkness',
    'halo_blobs',
    'light_share',
    'chroma_noise',
    'cast_red_blue',
    'cast_green',
    'saturated_share',
    'contrast',
    'skew',
    'dark_share',
    'ground_light',
)
_LEVELS = np.arange(256)
METHODS = ('network', 'statistics', 'mean luma')
#: Augmented thumbnails that the regression is fitted to.
SAMPLES = 2000
LUMA = STATISTICS.index('mean_luma')


def main(out: str, *data: str) -> None:
    """Hold out every camera of ``data`` once and write the table, in percent, to ``out``."""
    config = IlluminationConfig(data=data, out=out, steps=500)
    sets = load_thumbnails(sources(data))
    features = [_features(shrink(item.images)) for item in sets]
    lines = ['| camera held out | day | night | ' + ' | '.join(METHODS) + ' |',
             '|---|---|---|' + '---|' * len(METHODS)]  # fmt: skip
    recalls: dict[str, list[tuple[float | None, float | None]]] = {m: [] for m in METHODS}
    for camera in dict.fromkeys(item.camera for item in sets):
        told = hold_out(sets, features, camera, config)
        sizes = [sum(len(day) for label, day in told['network'] if label == d) for d in (1, 0)]
        for method in METHODS:
            recalls[method].append((_recall(told[method], True), _recall(told[method], False)))
        cells = [_cell(balanced(recalls[method][-1:])) for method in METHODS]
        lines.append(f'| {camera} | {sizes[0]} | {sizes[1]} | ' + ' | '.join(cells) + ' |')
        print(lines[-1], flush=True)
    cells = [f'**{_cell(balanced(recalls[method]))}**' for method in METHODS]
    lines.append('| **all, cameras weighted equally** | | | ' + ' | '.join(cells) + ' |')
    Path(out).write_text('\n'.join(lines) + '\n', encoding='utf-8')


def hold_out(
    sets: Sequence[Thumbnails], features: Sequence[Array], camera: str, config: IlluminationConfig
) -> dict[str, list[tuple[bool, npt.NDArray[np.bool_]]]]:
    """
    Train on all cameras but one; return for each method (is day, told day) of each set of its own.

    Sets with ``train`` false are judged with their camera. A frame counts as day where its score
    is above 0.5. The regression sees the network's augmented samples; the luma threshold is the
    best on the other cameras' frames, cameras of a class weighted equally.
    """
    rest = without_camera(sets, camera)
    estimator = IlluminationEstimator(fit(rest, config).state_dict())
    logistic = _fit_statistics(rest, config)
    threshold = _luma_threshold(rest, features)
    told: dict[str, list[tuple[bool, npt.NDArray[np.bool_]]]] = {m: [] for m in METHODS}
    for item, values in zip(sets, features):
        if item.camera == camera:
            scores = np.array([x.score for x in estimator.estimate(shrink(item.images))])
            told['network'].append((item.day, scores > 0.5))
            told['statistics'].append((item.day, logistic.predict(values) > 0.5))
            told['mean luma'].append((item.day, values[:, LUMA] > threshold))
    return told


def balanced(recalls: Sequence[tuple[float | None, float | None]]) -> float:
    """Return the mean over day and night of the cameras' mean recall, where there is one."""
    classes = [[pair[i] for pair in recalls if pair[i] is not None] for i in (0, 1)]
    return float(np.mean([np.mean(np.array(values)) for values in classes if values]))


def _cell(value: float) -> str:
    return f'{100 * value:.1f}'


def _recall(results: Sequence[tuple[bool, npt.NDArray[np.bool_]]], day: bool) -> float | None:
    told = [is_day == day for label, is_day in results if label == day]
    return float(np.concatenate(told).mean()) if told else None


class LogisticRegression:
    """Logistic regression on standardised features, L2-penalised, fitted by Newton's method."""

    def __init__(self, features: Array, labels: Array, penalty: float = 1e-2) -> None:
        """Fit float [N, F] to labels [N] of 0 and 1."""
        self._mean, self._scale = features.mean(axis=0), features.std(axis=0) + 1e-6
        inputs = self._inputs(features)
        self._weights: Array = np.zeros(inputs.shape[1])
        for _ in range(25):
            share = self._sigmoid(inputs @ self._weights)
            hessian = (inputs * (share * (1 - share))[:, None]).T @ inputs / len(inputs)
            hessian += penalty * np.eye(len(self._weights))
            gradient = inputs.T @ (share - labels) / len(inputs) + penalty * self._weights
            self._weights -= np.linalg.solve(hessian, gradient)

    def predict(self, features: Array) -> Array:
        """Return the probability of label 1, float [N]."""
        return self._sigmoid(self._inputs(features) @ self._weights)

    def _inputs(self, features: Array) -> Array:
        ones = np.ones((len(features), 1))
        return np.concatenate(((features - self._mean) / self._scale, ones), axis=1)

    @staticmethod
    def _sigmoid(values: Array) -> Array:
        result: Array = 1 / (1 + np.exp(-np.clip(values, -60, 60)))
        return result


def _features(images: npt.NDArray[np.uint8]) -> Array:
    """Return float [N, F] of RGB uint8 [N, 64, 96, 3]."""
    rows = [statistics(image) for image in images]
    return np.array([[row[name] for name in STATISTICS] for row in rows])


def _fit_statistics(sets: Sequence[Thumbnails], config: IlluminationConfig) -> LogisticRegression:
    """Fit the logistic regression to samples drawn and augmented as for the network."""
    sampler = Sampler(sets, config.seed, relit=config.relit)
    features, labels = [], []
    for _ in range(0, SAMPLES, 50):
        images, truth = sampler.draw(50)
        pixels = images.permute(0, 2, 3, 1).numpy().astype(np.uint8)
        features.append(_features(np.ascontiguousarray(pixels)))
        labels.append(truth.numpy().astype(np.float64))
    return LogisticRegression(np.concatenate(features), np.concatenate(labels))


def _luma_threshold(sets: Sequence[Thumbnails], features: Sequence[Array]) -> float:
    """Return the mean luma that best parts the training frames, cameras weighted equally."""
    luma: dict[bool, dict[str, list[Array]]] = {False: {}, True: {}}
    for item, values in zip(sets, features):
        if item.train:
            column = values[:, LUMA]
            luma[item.day].setdefault(item.camera, []).append(column)
    cameras = {day: [np.concatenate(values) for values in of.values()] for day, of in luma.items()}
    candidates = np.unique(np.concatenate([*cameras[False], *cameras[True]]))

    def balanced(threshold: float) -> float:
        bright = np.mean([np.mean(values > threshold) for values in cameras[True]])
        dark = np.mean([np.mean(values <= threshold) for values in cameras[False]])
        return float(bright + dark)

    return float(max(candidates, key=balanced))


def statistics(image: npt.NDArray[np.uint8]) -> dict[str, float]:
    """
    Measure RGB uint8 [64, 96, 3]; every value is a ratio, a share or a logarithm.

    ``mean_luma`` 0–1 (Rec. 601); ``sky_darkness`` 1 − median of the upper third over the 95th
    percentile of the frame; ``halo_blobs`` local lights: blobs more than twice as bright as the
    15 × 15 pixels around them, counted and divided by ten; ``light_share`` of the pixels in them;
    ``chroma_noise`` RMS of the high-passed chroma in the darker half over the mean luma;
    ``cast_red_blue`` and ``cast_green`` log ratios of the channel means; ``saturated_share`` of
    pixels at 250 and above; ``contrast`` log of the 99th percentile over the median; ``skew``
    (mean − median) / deviation; ``dark_share`` of pixels under 15 % of the 99th percentile;
    ``ground_light`` median of the lower half over the 99th percentile of the frame.
    """
    ycc = cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)
    luma = np.ascontiguousarray(ycc[:, :, 0])
    counts = np.bincount(luma.ravel(), minlength=256)
    up_to = np.cumsum(counts)
    mean = float(counts @ _LEVELS) / luma.size
    deviation = math.sqrt(max(float(counts @ (_LEVELS - mean) ** 2) / luma.size, 0.0))
    median, p95, p99 = (quantile(up_to, share) for share in (0.5, 0.95, 0.99))
    sky = quantile(cumulative(luma[: luma.shape[0] // 3]), 0.5)

    around = cv2.blur(luma, (15, 15))
    # the sum saturates at 255, above which no pixel lies anyway
    above = cv2.subtract(luma, cv2.add(around, around))
    lights = cv2.threshold(above, 16, 1, cv2.THRESH_BINARY)[1]
    blobs = cv2.connectedComponents(lights, connectivity=8)[0] - 1

    chroma = ycc[:, :, 1:]
    dark = cv2.threshold(luma, median, 255, cv2.THRESH_BINARY_INV)[1]
    rough = cv2.norm(cv2.absdiff(chroma, cv2.blur(chroma, (3, 3))), cv2.NORM_L2SQR, dark)
    noise = math.sqrt(rough / max(2 * cv2.countNonZero(dark), 1))
    red, green, blue = (float(value) + 2.0 for value in cv2.mean(image)[:3])
    return {
        'mean_luma': mean / 255,
        'sky_darkness': 1 - min(sky / max(p95, 1.0), 1.0),
        'halo_blobs': blobs / 10,
        'light_share': cv2.countNonZero(lights) / luma.size,
        'chroma_noise': noise / (mean + 4),
        'cast_red_blue': math.log(red / blue),
        'cast_green': math.log(green / math.sqrt(red * blue)),
        'saturated_share': float(counts[250:].sum()) / luma.size,
        'contrast': math.log((p99 + 2) / (median + 2)),
        'skew': (mean - median) / (deviation + 2),
        'dark_share': float(up_to[int(0.15 * p99)]) / luma.size,
        'ground_light': ground_light(image),
    }


if __name__ == '__main__':
    main(*sys.argv[1:])
