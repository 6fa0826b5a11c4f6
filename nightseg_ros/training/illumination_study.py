# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The study behind the illumination estimator: every camera held out once.

Three ways to tell day from night are trained on all cameras but one and judged on that one: the
network, a logistic regression on the statistics, and a threshold on the mean luma. A camera with
frames of one class only gives that class's recall; the averages weight cameras equally.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    parse_sources,
    shrink,
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


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """Results on one camera that nothing was trained on."""

    camera: str
    day_frames: int
    night_frames: int
    recall: dict[str, tuple[float | None, float | None]]
    """Method → share of day and of night frames told right, None where there are none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """One row per camera."""

    rows: tuple[HeldOut, ...]

    def balanced(self, method: str, camera: str | None = None) -> float:
        """
        Return the balanced accuracy 0–1 of a method, on one camera or over all.

        Over all it is the mean of the cameras' mean day recall and their mean night recall; on a
        camera with one class, that class's recall.
        """
        rows = [row for row in self.rows if camera in (None, row.camera)]
        classes = [
            [value for row in rows if (value := row.recall[method][index]) is not None]
            for index in (0, 1)
        ]
        return float(np.mean([np.mean(values) for values in classes if values]))

    def table(self) -> str:
        """Return the study as a Markdown table, in percent."""
        lines = [
            '| camera held out | day | night | ' + ' | '.join(METHODS) + ' |',
            '|---|---|---|' + '---|' * len(METHODS),
        ]
        for row in self.rows:
            cells = [_cell(self.balanced(method, row.camera)) for method in METHODS]
            lines.append(
                f'| {row.camera} | {row.day_frames} | {row.night_frames} | '
                + ' | '.join(cells)
                + ' |'
            )
        cells = [f'**{_cell(self.balanced(method))}**' for method in METHODS]
        lines.append('| **all, cameras weighted equally** | | | ' + ' | '.join(cells) + ' |')
        return '\n'.join(lines)


def _cell(value: float) -> str:
    return f'{100 * value:.1f}'


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


def leave_one_camera_out(
    sets: Sequence[Thumbnails],
    config: IlluminationConfig,
    *,
    cameras: Sequence[str] | None = None,
    samples: int = 2000,
    say: Callable[[str], None] = lambda line: None,
) -> Study:
    """
    Train on all cameras but one and judge on that one, for each camera.

    Sets with ``train`` false are judged with their camera. A frame counts as day where its score
    is above 0.5. The logistic regression sees the network's augmented samples; the luma threshold
    is the best on the other cameras' frames, cameras of a class weighted equally. ``cameras``
    holds out only these, ``samples`` are what the regression is fitted to.
    """
    features = [_features(shrink(item.images)) for item in sets]
    rows = []
    for camera in cameras or dict.fromkeys(item.camera for item in sets):
        rest = without_camera(sets, camera)
        network = fit(rest, config)
        estimator = IlluminationEstimator(network.state_dict())
        logistic = _fit_statistics(rest, config, samples)
        threshold = _luma_threshold(rest, features)
        told: dict[str, list[tuple[bool, npt.NDArray[np.bool_]]]] = {m: [] for m in METHODS}
        for item, values in zip(sets, features):
            if item.camera != camera:
                continue
            scores = np.array([x.score for x in estimator.estimate(shrink(item.images))])
            luma = values[:, STATISTICS.index('mean_luma')]
            told['network'].append((item.day, scores > 0.5))
            told['statistics'].append((item.day, logistic.predict(values) > 0.5))
            told['mean luma'].append((item.day, luma > threshold))
        rows.append(
            HeldOut(
                camera=camera,
                day_frames=sum(len(day) for label, day in told['network'] if label),
                night_frames=sum(len(day) for label, day in told['network'] if not label),
                recall={
                    method: (_recall(results, day=True), _recall(results, day=False))
                    for method, results in told.items()
                },
            )
        )
        say(
            f'{camera}: '
            + ', '.join(f'{method} {_recalls(rows[-1].recall[method])}' for method in METHODS)
        )
    return Study(rows=tuple(rows))


def run_study(
    config: IlluminationConfig,
    *,
    samples: int = 2000,
    say: Callable[[str], None] = lambda line: None,
) -> Study:
    """Hold out every camera of ``config.data`` once and write the table to ``config.out``."""
    sources = [source for spec in config.data for source in parse_sources(spec)]
    sets = [load_thumbnails(source) for source in sources]
    study = leave_one_camera_out(sets, config, samples=samples, say=say)
    out = Path(config.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(study.table() + '\n', encoding='utf-8')
    return study


def _recalls(recall: tuple[float | None, float | None]) -> str:
    return '/'.join('–' if value is None else f'{100 * value:.1f}' for value in recall)


def _recall(results: Sequence[tuple[bool, npt.NDArray[np.bool_]]], *, day: bool) -> float | None:
    told = [is_day == day for label, is_day in results if label == day]
    return float(np.concatenate(told).mean()) if told else None


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


def _features(images: npt.NDArray[np.uint8]) -> Array:
    """Return float [N, F] of RGB uint8 [N, 64, 96, 3]."""
    rows = [statistics(image) for image in images]
    return np.array([[row[name] for name in STATISTICS] for row in rows])


def _fit_statistics(
    sets: Sequence[Thumbnails], config: IlluminationConfig, samples: int
) -> LogisticRegression:
    """Fit the logistic regression to samples drawn and augmented as for the network."""
    sampler = Sampler(sets, config.seed, relit=config.relit)
    features, labels = [], []
    for _ in range(0, samples, 50):
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
            column = values[:, STATISTICS.index('mean_luma')]
            luma[item.day].setdefault(item.camera, []).append(column)
    cameras = {day: [np.concatenate(values) for values in of.values()] for day, of in luma.items()}
    candidates = np.unique(np.concatenate([*cameras[False], *cameras[True]]))

    def balanced(threshold: float) -> float:
        bright = np.mean([np.mean(values > threshold) for values in cameras[True]])
        dark = np.mean([np.mean(values <= threshold) for values in cameras[False]])
        return float(bright + dark)

    return float(max(candidates, key=balanced))
