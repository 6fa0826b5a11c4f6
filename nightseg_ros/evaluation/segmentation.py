# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Scores of a pipeline on a labelled data set: every frame by itself, nothing dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nightseg_ros.data.sample import DataError, Sample, read_image, read_labels
from nightseg_ros.evaluation.confusion import ConfusionMatrix
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline
from nightseg_ros.taxonomy import Taxonomy

#: Classes with too few pixels at night to be scored; mIoU9 is the mean over the other nine.
RARE = ('fence', 'bicyclist')


@dataclass(kw_only=True)
class Scores:
    """Counts of one run over a data set, whole and split."""

    taxonomy: Taxonomy
    all: ConfusionMatrix
    by_source: dict[str, ConfusionMatrix] = field(default_factory=dict)
    by_state: dict[str, ConfusionMatrix] = field(default_factory=dict)
    routes: dict[str, int] = field(default_factory=dict)
    """Frames by route."""

    def to_dict(self) -> dict[str, Any]:
        """Return the scores in JSON types; absent classes are null."""
        return {
            'all': _entry(self.all),
            'by_source': {name: _entry(m) for name, m in sorted(self.by_source.items())},
            'by_state': {name: _entry(m) for name, m in sorted(self.by_state.items())},
            'routes': dict(sorted(self.routes.items())),
            'mean_of_sources_miou9': float(
                np.mean([_without_rare(m) for m in self.by_source.values()])
            ),
        }


def score_samples(
    pipeline: Pipeline, samples: Iterable[Sample], advance: Callable[[], None] = lambda: None
) -> Scores:
    """
    Run labelled samples through the pipeline, each with a router of its own.

    ``DataError`` names a sample without labels. ``advance`` is called after each frame.
    """
    taxonomy = pipeline.taxonomy
    scores = Scores(taxonomy=taxonomy, all=ConfusionMatrix(taxonomy))
    for sample in samples:
        if sample.label is None:
            raise DataError(f"'{sample.image}' has no labels to be scored against")
        # unrelated pictures: no frame may carry its light over to the next
        pipeline.reset('picture', 'a picture by itself')
        frame = Frame(image=read_image(sample.image), camera='picture')
        (result,) = pipeline.process([frame])
        assert result.labels is not None
        truth = read_labels(sample.label)
        one = ConfusionMatrix(taxonomy)
        one.add(truth, result.labels)
        scores.all.merge(one)
        for split, name in (
            (scores.by_source, sample.source),
            (scores.by_state, result.decision.state),
        ):
            split.setdefault(name, ConfusionMatrix(taxonomy)).merge(one)
        route = result.decision.route
        scores.routes[route] = scores.routes.get(route, 0) + 1
        advance()
    return scores


def _without_rare(matrix: ConfusionMatrix) -> float:
    return matrix.miou(without=[name for name in RARE if name in matrix.taxonomy.classes])


def _entry(matrix: ConfusionMatrix) -> dict[str, Any]:
    iou = matrix.iou()
    return {
        'miou': _number(matrix.miou()),
        'miou9': _number(_without_rare(matrix)),
        'pixel_acc': _number(matrix.pixel_accuracy()),
        'iou': {name: _number(value) for name, value in zip(matrix.taxonomy.classes, iou)},
        'pixels': int(matrix.support.sum()),
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
