# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg evaluate``: scores of the pipeline on labelled data sets, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from nightseg_ros.cli.options import PipelineOptions, parse


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateOptions(PipelineOptions):
    """
    Score labelled data sets, every picture by itself, and write OUT/metrics.json.

    mIoU is the mean over the classes present; mIoU9 leaves out fence and bicyclist as well.
    'by source' is the mean of the mIoU9 of each camera: night9 where the data is night_dev.
    """

    dataset: tuple[str, ...]
    """Data sets as ADAPTER:ROOT[:SPLIT]: camvid:ROOT:SPLIT, folder:ROOT."""
    out: Path
    """Folder to write."""


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    options = parse(EvaluateOptions, 'evaluate', arguments)

    from nightseg_ros.cli.progress import Progress
    from nightseg_ros.data.datasets import open_dataset
    from nightseg_ros.evaluation.segmentation import score_samples
    from nightseg_ros.files import partial_file
    from nightseg_ros.perception.pipeline import Pipeline

    samples = {spec: open_dataset(spec) for spec in options.dataset}
    runs: dict[str, Any] = {}
    with Progress('loading the networks', sum(map(len, samples.values()))) as progress:
        pipeline = Pipeline.load(options.pipeline_config(), say=progress.say)
        done = count(1)
        for spec, members in samples.items():
            runs[Path(spec).name] = score_samples(
                pipeline, members, lambda: progress.set(next(done), text='scoring')
            ).to_dict()
    result = {
        'version': 1,
        'route': options.route,
        'pipeline': pipeline.describe(),
        'runs': runs,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    with partial_file(options.out / 'metrics.json') as partial:
        partial.write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')
    _print(options.route, runs)
    return 0


def _print(route: str, runs: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"route '{route}'")
    for column in ('data set', 'source', 'mIoU', 'mIoU9', 'pixel accuracy'):
        table.add_column(column, justify='left' if column in ('data set', 'source') else 'right')
    for name, run in runs.items():
        rows = {'all': run['all'], **run['by_source']}
        if len(run['by_source']) < 2:
            rows = {'all': run['all']}
        for source, entry in rows.items():
            values = (entry[key] for key in ('miou', 'miou9', 'pixel_acc'))
            table.add_row(
                name, source, *('–' if value is None else f'{value:.3f}' for value in values)
            )
        if len(rows) > 1:
            table.add_row(name, 'mean of sources', '', f'{run["mean_of_sources_miou9"]:.3f}', '')
    Console().print(table)
