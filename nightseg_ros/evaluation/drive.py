# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Scores of a rendered drive: what the node published, against the day route on its own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from nightseg_ros.data.rendered_drive import IMAGE_TOPIC, TRUTH_TOPIC
from nightseg_ros.data.source import open_source
from nightseg_ros.evaluation.confusion import ConfusionMatrix
from nightseg_ros.evaluation.live import aligned, recorded_labels
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline
from nightseg_ros.perception.pipeline_config import PipelineConfig


def score_drive(
    drive: Path,
    recorded: Path,
    lit: Mapping[int, bool],
    config: PipelineConfig,
    *,
    progress: Callable[[int, int | None, str], None],
) -> dict[str, dict[str, float | None]]:
    """
    Return mIoU over present classes of the lit ('day') and the dark ('night') part of a drive.

    'auto' is what the node published (whatever its route was), 'day' the day route forced over
    the same frames by the same pipeline. Frames without a mask from the node count in neither.
    None where a part has no such frame.
    """
    pipeline = Pipeline.load(dataclasses.replace(config, route='day'))
    matrices = {
        (name, part): ConfusionMatrix(pipeline.taxonomy)
        for name in ('auto', 'day')
        for part in ('day', 'night')
    }
    truths = recorded_labels(drive, TRUTH_TOPIC)
    masks = aligned(_frames(drive), recorded_labels(recorded))
    both = aligned(((stamp, (frame, mask)) for stamp, frame, mask in masks), truths)
    for number, (stamp, (frame, mask), truth) in enumerate(both):
        progress(number + 1, len(lit), 'scoring against the day route')
        if mask is None or truth is None:
            continue
        part = 'day' if lit[stamp] else 'night'
        [result] = pipeline.process([frame])
        assert result.labels is not None
        for name, labels in (('auto', mask), ('day', result.labels)):
            matrices[name, part].add(truth, labels)
    return {
        name: {part: _finite(matrices[name, part].miou()) for part in ('day', 'night')}
        for name in ('auto', 'day')
    }


def _frames(drive: Path) -> Iterator[tuple[int, Frame]]:
    for _, frame in open_source(drive, IMAGE_TOPIC):
        if isinstance(frame, Frame):
            yield frame.stamp_ns, frame


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
