# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""How well masks fit their labels: the scores of some frames, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nightseg_ros.config import ConfigError
from nightseg_ros.evaluation import confusion
from nightseg_ros.evaluation.bootstrap import BootstrapConfig, Floats, interval, resampled
from nightseg_ros.evaluation.confusion import Counts, Rows
from nightseg_ros.taxonomy import Taxonomy

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
                    f'{", ".join(taxonomy.classes)}'
                )
        self.taxonomy, self.config = taxonomy, config
        self._nine = np.array([name not in RARE for name in taxonomy.classes], np.bool_)
        self._subset = np.array([name in subset for name in taxonomy.classes], np.bool_)
        self.headline: dict[str, Callable[[Rows], Floats]] = {
            'miou': confusion.miou,
            'miou9': self.miou9,
            'miou_subset': self.miou_subset,
            'pixel_acc': confusion.pixel_accuracy,
        }
        """The scores that get intervals."""

    def miou9(self, rows: Rows) -> Floats:
        """Mean IoU over the classes present in the truth, without ``RARE``."""
        return confusion.miou(rows, self._nine)

    def miou_subset(self, rows: Rows) -> Floats:
        """Mean IoU over those of the asked-for classes that the truth holds; else NaN."""
        return confusion.miou(rows, self._subset)

    def entry(self, units: Counts) -> tuple[dict[str, Any], dict[str, Floats]]:
        """
        Score the sum of int64 [units, classes, classes + 1] and resample the units.

        Returns the entry in JSON types, and the headline scores of every draw.
        """
        rows = units.sum(0)
        drawn = resampled(units, self.config) if len(units) else np.zeros((1, *rows.shape))
        values = {name: score(drawn) for name, score in self.headline.items()}
        classes = self.taxonomy.classes
        entry = {
            'pixels': int(rows.sum()),
            'support': dict(zip(classes, rows.sum(-1).tolist())),
            **{name: number(score(rows)) for name, score in self.headline.items()},
            'miou_all': number(confusion.miou_all(rows)),
            'fw_iou': number(confusion.frequency_weighted_iou(rows)),
            'mean_acc': number(confusion.mean_accuracy(rows)),
            'iou': self._by_class(confusion.iou(rows)),
            'acc': self._by_class(confusion.accuracy(rows)),
            **{f'{name}_ci': self.interval(values[name], len(units)) for name in self.headline},
            'iou_ci': {
                name: self.interval(column, len(units))
                for name, column in zip(classes, confusion.iou(drawn).T)
            },
            'confusion': rows[:, :-1].tolist(),
            'abstained': dict(zip(classes, rows[:, -1].tolist())),
        }
        return entry, values

    def mean_of_sources(self, sources: Sequence[Counts], unit: str) -> tuple[Floats, Floats, int]:
        """
        Return the mean of the sources' mIoU9, its values in every draw, and the units drawn from.

        Each source gives int64 [units, classes, classes + 1], of which as many are drawn; with the
        unit 'sources' whole sources are drawn instead. NaN where no source can be scored.
        """
        scores = np.array([self.miou9(units.sum(0)) for units in sources])
        known = [index for index, score in enumerate(scores) if not math.isnan(score)]
        if not known:
            return np.array(np.nan), np.full(1, np.nan), 0
        if unit == 'sources':
            pairs = np.stack([scores[known], np.ones(len(known))], axis=1)
            sums = resampled(pairs, self.config)
            return scores[known].mean(), sums[:, 0] / sums[:, 1], len(known)
        columns = [self.miou9(resampled(sources[i], self.config, 1 + i)) for i in known]
        # a draw may lack every class of a small source
        values = np.ma.masked_invalid(columns).mean(0).filled(np.nan)
        return scores[known].mean(), np.asarray(values), max(len(sources[i]) for i in known)

    def interval(self, values: Floats, units: int) -> list[float] | None:
        """Return the rounded interval of a score's draws."""
        return rounded(interval(values, units, self.config))  # type: ignore[no-any-return]

    def _by_class(self, values: Floats) -> dict[str, float | None]:
        return {name: number(value) for name, value in zip(self.taxonomy.classes, values)}


def number(value: Any) -> float | None:
    """Return a score as JSON has it: four digits, None for NaN."""
    return round(float(value), 4) if math.isfinite(value) else None


def rounded(value: Any) -> Any:
    """Return the same with every float inside as ``number`` gives it."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return number(value) if isinstance(value, float) else value
