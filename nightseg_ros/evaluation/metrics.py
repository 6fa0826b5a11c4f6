# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Counts of frames, and the scores that follow from their sums: docs/metrics.md describes each.

Everything that is measured of a frame is a row of whole numbers, so that scores of any group of
frames, and of any bootstrap draw, are functions of summed rows. Confusion rows are int64 or
float64 [..., classes, classes + 1]: rows are the truth, columns the mask, the last column what the
mask abstained from. Leading axes are frames, groups or draws, so that a thousand resampled
matrices are scored at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
import math
from typing import Annotated, Any, Literal

import cv2
from nightseg_ros.config import ConfigError, did_you_mean, Limited, Limits, Natural
from nightseg_ros.perception.frame import Frame
from nightseg_ros.taxonomy import Taxonomy, UNLABELLED
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
#: Counts, or their sums over a bootstrap draw.
Rows = npt.NDArray[Any]
#: Of metrics.json.
VERSION = 2
#: Seconds between two frames from which on nothing is said of the time between them.
PAUSE_S = 10.0


def number(value: Any) -> float | None:
    """Return a score as JSON has it: four digits, None for NaN."""
    return round(float(value), 4) if math.isfinite(value) else None


# -- confusion -------------------------------------------------------------------------------


def confusion(truth: Image, labels: Image, taxonomy: Taxonomy) -> Counts:
    """
    Count the pixels of a mask; a truth of 255 counts nowhere, a label of 255 is a miss.

    Both are uint8 [H, W]; ``ValueError`` where sizes or ids do not fit.
    """
    if truth.shape != labels.shape:
        (height, width), (tall, wide) = truth.shape, labels.shape
        raise ValueError(
            f'the truth is {width}×{height}, the mask {wide}×{tall} pixels; sizes must agree'
        )
    classes = len(taxonomy)
    joint = joint_histogram(truth, labels)
    for name, ids in (('truth', joint), ('mask', joint.T)):
        strange = np.flatnonzero(ids[classes:UNLABELLED].any(1))
        if strange.size:
            raise ValueError(
                f'the {name} holds id {strange[0] + classes}; '
                f"'{taxonomy.name}' has ids 0–{classes - 1} and {UNLABELLED}"
            )
    return joint[:classes, [*range(classes), UNLABELLED]]


def joint_histogram(
    first: Image, second: Image, bins: tuple[int, int] = (256, 256), mask: Image | None = None
) -> Counts:
    """
    Count the pairs of values of two uint8 [H, W], int64 [bins], where ``mask`` is not 0.

    OpenCV lets other threads run meanwhile. It counts in float32, which is exact up to 2^24: huge
    pictures are counted in pieces.
    """
    counts = np.zeros(bins, np.int64)
    rows = max(1, (1 << 24) // first.shape[1])
    for top in range(0, first.shape[0], rows):
        piece = slice(top, top + rows)
        chosen = None if mask is None else mask[piece]
        counts += cv2.calcHist(
            [first[piece], second[piece]], [0, 1], chosen, bins, [0, 256, 0, 256]
        ).astype(np.int64)
    return counts


def iou(rows: Rows) -> Floats:
    """Return the IoU of each class, float64 [..., classes]; NaN where no side has it."""
    hits = _hits(rows)
    return _ratio(hits, rows.sum(-1) + rows[..., :-1].sum(-2) - hits)


def accuracy(rows: Rows) -> Floats:
    """Recall of each class, float64 [..., classes]; NaN where the truth lacks it."""
    return _ratio(_hits(rows), rows.sum(-1))


def miou(rows: Rows, keep: npt.NDArray[np.bool_] | None = None) -> Floats:
    """Mean IoU over the classes present in the truth (of those in ``keep``); NaN without any."""
    present = rows.sum(-1) > 0
    return _mean(iou(rows), present if keep is None else present & keep)


def miou_all(rows: Rows) -> Floats:
    """Mean IoU over the classes of truth or mask, as torchmetrics' macro average; or NaN."""
    values = iou(rows)
    return _mean(values, ~np.isnan(values))


def frequency_weighted_iou(rows: Rows) -> Floats:
    """Return the IoU weighted by the classes' shares of the pixels (Long et al. 2015); or NaN."""
    support = rows.sum(-1)
    return _ratio((np.nan_to_num(iou(rows)) * support).sum(-1), support.sum(-1))


def pixel_accuracy(rows: Rows) -> Floats:
    """Share of the labelled pixels that are right; NaN without any."""
    return _ratio(_hits(rows).sum(-1), rows.sum((-2, -1)))


def mean_accuracy(rows: Rows) -> Floats:
    """Mean recall over the classes present in the truth; NaN without any."""
    return _mean(accuracy(rows), rows.sum(-1) > 0)


def _hits(rows: Rows) -> Rows:
    return np.diagonal(rows[..., :-1], axis1=-2, axis2=-1)


def _mean(values: Floats, keep: npt.NDArray[np.bool_]) -> Floats:
    return _ratio(np.where(keep, values, 0.0).sum(-1), keep.sum(-1))


def _ratio(part: Rows, whole: Rows) -> Floats:
    with np.errstate(invalid='ignore', divide='ignore'):
        return np.asarray(np.where(whole > 0, part / np.maximum(whole, 1), np.nan))


# -- bootstrap -------------------------------------------------------------------------------

#: Draws that are held at a time.
_CHUNK = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class BootstrapConfig(Limited):
    """
    How intervals are made: percentile bootstrap (Efron 1979) of functions of summed counts.

    What is drawn is a unit: a frame, a block of neighbouring frames, or a source. Neighbouring
    frames of a drive show the same street: drawn one by one they make intervals far too narrow.
    One seed and number of units always draw the same units, which makes differences between two
    configurations over the same frames paired.
    """

    unit: Literal['auto', 'frames', 'blocks', 'sources'] = 'auto'
    """'auto' draws blocks of drives and single frames of anything else."""
    block_s: Annotated[float, Limits(0.001, 1e6)] = 5.0
    """Length of a block in seconds."""
    resamples: Annotated[int, Limits(10, 1_000_000)] = 1000
    seed: Natural = 0
    level: float = 0.95


def resampled(units: npt.NDArray[Any], config: BootstrapConfig, stratum: int = 0) -> Floats:
    """
    Return float64 [resamples, ...]: the sums over as many units [n, ...] as there are, drawn anew.

    Sums of counts below 2⁵³ are exact. ``stratum`` gives independent draws for another group.
    """
    count = len(units)
    flat = units.reshape(count, -1).astype(np.float64)
    rng = np.random.default_rng([config.seed, count, stratum])
    sums = np.empty((config.resamples, flat.shape[1]))
    for start in range(0, config.resamples, _CHUNK):
        part = sums[start:][:_CHUNK]
        part[:] = rng.multinomial(count, np.full(count, 1 / count), size=len(part)) @ flat
    return sums.reshape(config.resamples, *units.shape[1:])


def interval(values: Floats, units: int, config: BootstrapConfig) -> list[float | None] | None:
    """Return [low, high] of the values [resamples]; None for fewer than two units."""
    known = values[~np.isnan(values)]
    if units < 2 or not known.size:
        return None
    tail = 50 * (1 - config.level)
    return [number(value) for value in np.percentile(known, (tail, 100 - tail))]


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
        'difference': number(score - reference),
        'median': number(np.median(known)) if drawn else None,
        'ci': interval(gaps, units, config),
        'above_zero': number((known > 0).mean()) if drawn else None,
    }


# -- entries of segmentation scores ----------------------------------------------------------

#: Classes with too few pixels at night to be scored; mIoU9 is the mean over the other nine.
RARE = ('fence', 'bicyclist')


class SegmentationScores:
    """What is said of a confusion matrix: the entries of docs/metrics.md."""

    def __init__(
        self, taxonomy: Taxonomy, config: BootstrapConfig, subset: Sequence[str] = ()
    ) -> None:
        """Take the classes of ``miou_subset``; ``ConfigError`` names one that there is not."""
        for name in subset:
            if name not in taxonomy.classes:
                raise ConfigError(
                    f"'{taxonomy.name}' has no class '{name}'; it has "
                    f'{", ".join(taxonomy.classes)}{did_you_mean(name, taxonomy.classes)}'
                )
        self.taxonomy, self.config = taxonomy, config
        nine = np.array([name not in RARE for name in taxonomy.classes], np.bool_)
        chosen = np.array([name in subset for name in taxonomy.classes], np.bool_)
        self._miou9 = partial(miou, keep=nine)
        #: The scores that get intervals.
        self._headline: dict[str, Callable[[Rows], Floats]] = {
            'miou': miou,
            'miou9': self._miou9,
            'miou_subset': partial(miou, keep=chosen),
            'pixel_acc': pixel_accuracy,
        }

    def entry(self, units: Counts) -> tuple[dict[str, Any], dict[str, Floats]]:
        """Score and resample int64 [units, classes, classes + 1]; and the scores of every draw."""
        rows, count = units.sum(0), len(units)
        drawn = resampled(units, self.config) if count else np.zeros((1, *rows.shape))
        values = {name: score(drawn) for name, score in self._headline.items()}
        classes = self.taxonomy.classes
        entry = {
            'pixels': int(rows.sum()),
            'support': dict(zip(classes, rows.sum(-1).tolist())),
            **{name: number(score(rows)) for name, score in self._headline.items()},
            'miou_all': number(miou_all(rows)),
            'fw_iou': number(frequency_weighted_iou(rows)),
            'mean_acc': number(mean_accuracy(rows)),
            'iou': dict(zip(classes, map(number, iou(rows)))),
            'acc': dict(zip(classes, map(number, accuracy(rows)))),
            **{f'{name}_ci': interval(v, count, self.config) for name, v in values.items()},
            'iou_ci': {
                name: interval(column, count, self.config)
                for name, column in zip(classes, iou(drawn).T)
            },
            'confusion': rows[:, :-1].tolist(),
            'abstained': dict(zip(classes, rows[:, -1].tolist())),
        }
        return entry, values

    def mean_of_sources(self, sources: Sequence[Counts], unit: str) -> tuple[float, Floats, int]:
        """
        Return the mean of the sources' mIoU9, its values in every draw, and the units drawn from.

        Each source gives int64 [units, classes, classes + 1], of which as many are drawn; with the
        unit 'sources' whole sources are drawn instead. NaN where no source can be scored.
        """
        scores = np.array([self._miou9(units.sum(0)) for units in sources])
        known = np.flatnonzero(~np.isnan(scores)).tolist()
        if not known:
            return math.nan, np.full(1, np.nan), 0
        if unit == 'sources':
            pairs = np.stack([scores[known], np.ones(len(known))], axis=1)
            sums = resampled(pairs, self.config)
            return float(scores[known].mean()), sums[:, 0] / sums[:, 1], len(known)
        columns = [self._miou9(resampled(sources[i], self.config, 1 + i)) for i in known]
        # a draw may lack every class of a small source
        values = np.ma.masked_invalid(columns).mean(0).filled(np.nan)
        most = max(len(sources[index]) for index in known)
        return float(scores[known].mean()), np.asarray(values), most


# -- calibration: is a confidence of 80 % right in 80 % of the pixels? -----------------------

#: Bins of equal width over confidences from 0 to 1 (Guo et al. 2017, arXiv 1706.04599).
BINS = 15
#: The first confidence (0–255) of each bin.
_BEGIN = -(-np.arange(BINS) * 255 // BINS)


def reliability(truth: Image, labels: Image, confidence: Image) -> Counts:
    """Count by confidence, int64 [BINS, 3]: labelled pixels, right ones, sums of 0–255."""
    known = cv2.bitwise_and(
        cv2.compare(truth, UNLABELLED, cv2.CMP_NE),  # type: ignore[call-overload]
        cv2.compare(labels, UNLABELLED, cv2.CMP_NE),  # type: ignore[call-overload]
    )
    hit = np.asarray(cv2.compare(truth, labels, cv2.CMP_EQ), np.uint8)
    wrong, right = joint_histogram(hit, confidence, (2, 256), np.asarray(known, np.uint8))
    every = wrong + right
    levels = np.stack([every, right, every * np.arange(256)])
    return np.asarray(np.add.reduceat(levels, _BEGIN, axis=1).T, np.int64)


def calibration(counts: Counts) -> dict[str, Any] | None:
    """Return ``ece`` (Guo et al. 2017), ``bins`` and what they sum to; None without pixels."""
    pixels, right, sums = counts.astype(np.float64).T
    total = pixels.sum()
    if not total:
        return None
    confidence, edges = sums / 255, np.arange(BINS + 1) / BINS
    columns = edges, edges[1:], pixels, _ratio(confidence, pixels), _ratio(right, pixels)
    return {
        'ece': number(np.abs(right - confidence).sum() / total),
        'confidence': number(confidence.sum() / total),
        'accuracy': number(right.sum() / total),
        'pixels': int(total),
        'bins': [
            {
                'low': number(low),
                'high': number(high),
                'pixels': int(count),
                'confidence': number(sure),
                'accuracy': number(true),
            }
            for low, high, count, sure, true in zip(*columns)
        ],
    }


# -- reliability: is a frame's score low where its mask is wrong? ----------------------------

#: Shares of the frames that are kept in ``selective``.
COVERAGES = (0.25, 0.5, 0.75, 0.9, 1.0)


def ranks(values: npt.ArrayLike) -> Floats:
    """Return the ranks of [N] values from 1 on, ties sharing their mean."""
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return np.asarray((last - (counts - 1) / 2)[inverse], np.float64)


def spearman(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Return Spearman's rank correlation of two [N]; NaN where one of them never changes."""
    a, b = (r - r.mean() for r in (ranks(first), ranks(second)))
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm else math.nan


def spearman_interval(
    first: Floats, second: Floats, units: npt.NDArray[np.int64], config: BootstrapConfig
) -> list[float | None] | None:
    """Return the interval of Spearman's correlation over drawn units [N] of frames."""
    members = [np.flatnonzero(units == unit) for unit in np.unique(units)]
    if len(members) < 2:
        return None
    rng = np.random.default_rng([config.seed, len(members)])
    draws = []
    for _ in range(config.resamples):
        drawn = rng.integers(len(members), size=len(members))
        chosen = np.concatenate([members[index] for index in drawn])
        draws.append(spearman(first[chosen], second[chosen]))
    return interval(np.array(draws), len(members), config)


def risk_coverage(scores: npt.ArrayLike, errors: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return coverages k / N and mean errors of the k best, [N] (Geifman & El-Yaniv 2017)."""
    order = np.argsort(-np.asarray(scores, np.float64), kind='stable')
    kept = np.arange(1, len(order) + 1)
    return kept / len(order), np.asarray(errors, np.float64)[order].cumsum() / kept


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
        'spearman': number(spearman(scores, accuracy)),
        'spearman_ci': spearman_interval(scores, accuracy, units, config),
        'risk': {f'{share:g}': number(risk[i]) for share, i in zip(COVERAGES, at)},
        'risk_area': number(risk.mean()),
    }


# -- flicker: how much does a mask change from one frame to the next? ------------------------

#: Frames further apart are no neighbours: the scene itself has changed.
NEIGHBOURS_NS = 500_000_000
#: Width in pixels at which flow is computed and masks are compared.
WIDTH = 240
#: Fewer rows or columns hold no flow; of some such pictures OpenCV's raises an error.
SMALLEST = 12
#: Columns of the counts: pairs, pixels, changed ones; and behind the flow: pixels, changed ones.
FLICKER_COLUMNS = 5


class Flicker:
    """
    Compares each frame's masks with those of the frame before it.

    Flow is that of DIS (Kroeger et al. 2016, arXiv 1603.03590) from this frame back to the one
    before, on gray pictures ``WIDTH`` wide; the earlier mask is moved along it, nearest neighbour.
    """

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._before: tuple[Frame, Image, list[Image]] | None = None

    def add(self, frame: Frame, masks: Sequence[Image]) -> Counts:
        """Take the masks uint8 [H, W] of a frame; return int64 [masks, 5], 0 for no pair."""
        height, width = frame.image.shape[:2]
        size = (min(WIDTH, width), max(1, round(height * min(WIDTH, width) / width)))
        code = cv2.COLOR_BGR2GRAY if frame.order == 'bgr' else cv2.COLOR_RGB2GRAY
        # a plain step first: averaging a whole frame costs more than the flow
        picture = cv2.resize(frame.image, (2 * size[0], 2 * size[1]))
        small = cv2.resize(cv2.cvtColor(picture, code), size, interpolation=cv2.INTER_AREA)
        gray = np.asarray(small, np.uint8)
        reduced = [
            np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
            for mask in masks
        ]
        before, self._before = self._before, (frame, gray, reduced)
        counts = np.zeros((len(reduced), FLICKER_COLUMNS), np.int64)
        if (
            before is None
            or min(size) < SMALLEST
            or before[0].image.shape[:2] != (height, width)
            or not 0 < frame.stamp_ns - before[0].stamp_ns <= NEIGHBOURS_NS
        ):
            return counts
        found = self._flow.calc(gray, before[1], None)  # type: ignore[call-overload]
        flow = np.asarray(found, np.float32)
        # where each pixel was: column and row
        flow += np.mgrid[: size[1], : size[0]][::-1].transpose(1, 2, 0).astype(np.float32)
        inside = cv2.inRange(flow, (0.0, 0.0), (size[0] - 1.0, size[1] - 1.0))
        for row, mask, old in zip(counts, reduced, before[2]):
            moved = cv2.remap(old, flow, None, cv2.INTER_NEAREST)  # type: ignore[call-overload]
            changed = cv2.bitwise_and(cv2.compare(mask, moved, cv2.CMP_NE), inside)
            row[:] = (
                1, mask.size, cv2.countNonZero(cv2.absdiff(mask, old)),
                cv2.countNonZero(inside), cv2.countNonZero(changed),
            )  # fmt: skip
        return counts


def flicker(counts: Counts) -> dict[str, float | int | None] | None:
    """Return ``pairs`` and the shares ``plain`` and ``warped``; None where there is no pair."""
    pairs, pixels, changed, inside, moved = (int(value) for value in counts)
    if not pairs:
        return None
    return {
        'pairs': pairs,
        'plain': round(changed / pixels, 5),
        'warped': round(moved / inside, 5) if inside else None,
    }
