# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
How much synthetic night helps: a trial for each ratio and seed, and the curve of them.

A trial is a folder with a training, its weights and an evaluation of them. It is done when that is
there, and its training goes on where it was killed. Several shards may work in one shared folder
(under the same path on every machine), each on trials of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import csv
from dataclasses import dataclass
import json
from pathlib import Path
import time
from typing import Any

from matplotlib.figure import Figure
from nightseg_ros.config import from_mapping, to_mapping
from nightseg_ros.data.datasets import open_all
from nightseg_ros.data.sample import labelled
from nightseg_ros.evaluation.evaluate import evaluate
from nightseg_ros.evaluation.metrics import number
from nightseg_ros.evaluation.sources import dataset_shards
from nightseg_ros.evaluation.variants import configurations, Variants
from nightseg_ros.files import partial_file, read_json, replace_file
from nightseg_ros.outputs import require_same
from nightseg_ros.perception.pipeline import PipelineConfig, WeightsConfig
from nightseg_ros.runtime.backend import Log
from nightseg_ros.taxonomy import TAXONOMIES
from nightseg_ros.training import SweepConfig
from nightseg_ros.training.run import data_hash, data_names, FREE, RunError
from nightseg_ros.training.segmenter import SegmenterConfig, train_segmenter
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Row = dict[str, Any]
METRICS = ('miou9', 'miou', 'pixel_acc')
COLUMNS = ('ratio', 'seed', 'data', 'use', 'source', 'frames', *METRICS)
#: A trial's settings.
NOTE = 'trial.json'
#: Source of the scores that average over the sources of a data set.
HEADLINE = 'mean'
#: Seconds between checks whether another shard has finished a day checkpoint.
POLL = 2.0


def sweep(config: SweepConfig, log: Log = print) -> tuple[str, tuple[Path, ...]]:
    """
    Train and score this shard's trials; return what the sweep says and the files it wrote.

    Trial number n belongs to shard I of N where n modulo N is I; once all shards are done, the
    curve is written. ``RunError`` where a trial was made with other settings; after an
    interruption the same command goes on.
    """
    trials = plan(config)
    for trial in trials:
        trial.require_same_settings()
    log(f'{len(trials)} trainings, {sum(trial.done() for trial in trials)} done already')
    index, count = config.shard_of()
    left = [trial for trial in trials[index::count] if not trial.done()]
    for done, trial in enumerate(left, start=1):
        start = Path(trial.settings.init)
        if trial.ratio is not None and not start.is_file():
            shards = f'another shard of {config.shard}'
            log(f"{trial.name}: waiting for '{start}', which {shards} trains")
            while not start.is_file():
                time.sleep(POLL)
        trial.run(lambda text, name=trial.name: log(f'{name}: {text}'))  # type: ignore[misc]
        log(f'{trial.name}: done; {len(left) - done} left here')
    elsewhere = sum(not trial.done() for trial in trials)
    if elsewhere:
        text = f'shard {config.shard} is done; other shards have {elsewhere} of {len(trials)} left'
        return f'{text}. The one that ends last writes the curve.', ()
    return write_report(config, [row for trial in trials for row in trial.rows()])


# -- trials --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One training: a day checkpoint or a fine-tuning of one."""

    ratio: float | None
    """Share of synthetic night; None for a day checkpoint."""
    seed: int
    settings: SegmenterConfig
    sets: tuple[str, ...]
    """Data sets to score."""
    files: str
    """``data_hash`` of what it is trained on."""

    @property
    def folder(self) -> Path:
        """Where it trains and keeps its scores."""
        return Path(self.settings.out)

    @property
    def weights(self) -> Path:
        return self.folder / 'weights.safetensors'

    @property
    def name(self) -> str:
        """Return what a line of progress calls it."""
        what = 'day checkpoint' if self.ratio is None else f'ratio {self.ratio:g}'
        return f'{what}, seed {self.seed}'

    def rows(self) -> list[Row]:
        """Return a row for each data set and source that was scored, and for their mean."""
        found = read_json(self.folder / 'metrics.json')
        rows = []
        for name, entry in found.get('sets', {}).items():
            run = found['runs'][name]
            sources = run['by_source'] or {'': run['all']}
            means: Row = {
                # None, where nothing was there to be scored, becomes NaN
                key: number(np.array([part[key] for part in sources.values()], float).mean())
                for key in METRICS
            }
            means['frames'] = entry['sources'][0]['frames']
            trial = {'ratio': self.ratio, 'seed': self.seed, 'spec': entry['sources'][0]['path']}
            for source, scores in {**sources, HEADLINE: means}.items():
                rows.append({**trial, 'source': source, **scores})
        return rows

    def done(self) -> bool:
        return self.weights.is_file() and {row['spec'] for row in self.rows()} >= {*self.sets}

    def require_same_settings(self) -> dict[str, Any]:
        """Return what the weights depend on; ``RunError`` where the folder has other ones."""
        settings = to_mapping(self.settings)
        now = {key: value for key, value in settings.items() if key not in FREE}
        if self.ratio is not None:
            now['init'] = 'day checkpoint'
        now['files'] = self.files
        if before := read_json(self.folder / NOTE):
            # earlier versions did not tell the files
            require_same(self.folder, {'files': self.files, **before}, now, RunError)
        return now

    def run(self, log: Log) -> None:
        """Train, or go on with it, and score by the graph that is deployed, on the day route."""
        note = json.dumps(self.require_same_settings(), indent=1) + '\n'
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(self.folder / NOTE, note.encode())
        if not self.weights.is_file():
            train_segmenter(self.settings, log)
        # the weights are all that the curve needs
        (self.folder / 'checkpoint.safetensors').unlink(missing_ok=True)
        if self.sets:
            log(f'scoring {data_names(self.sets)}')
            day = WeightsConfig(day=str(self.weights))
            config = PipelineConfig(route='day', backend='torch', device='cpu', weights=day)
            variants = Variants(configurations(config, ()))
            shards = dataset_shards(self.sets, variants.taxonomy)
            evaluate(shards, variants, self.folder, restart=True)


def plan(config: SweepConfig) -> list[Trial]:
    """Return the trials, day checkpoints first; what is not there is told before any training."""
    out = Path(config.out)
    sets = tuple(dict.fromkeys(config.select + config.report))
    taxonomy = TAXONOMIES[_settings(config, {}, out=config.out).taxonomy]
    files = data_hash(open_all(config.data, taxonomy))
    labelled(open_all(sets, taxonomy), 'trials are scored against labels')
    trials = []
    for seed in config.seeds:
        settings = _settings(config, config.day, out=str(out / 'day' / f'seed{seed}'), seed=seed)
        trials.append(Trial(ratio=None, seed=seed, settings=settings, sets=(), files=files))
    for day in trials[:]:
        for ratio in config.ratios:
            settings = _settings(
                config, config.trial, seed=1000 + day.seed, init=str(day.weights),
                out=str(out / 'trials' / f'{ratio:g}_seed{day.seed}'),
                augment={'night_share': ratio},
            )  # fmt: skip
            trials.append(
                Trial(ratio=ratio, seed=day.seed, settings=settings, sets=sets, files=files)
            )
    return trials


def _settings(config: SweepConfig, stage: Mapping[str, Any], **changes: Any) -> SegmenterConfig:
    mapping: dict[str, Any] = {'data': list(config.data), 'workers': 0, 'picture_every': 0}
    for layer in (config.segmenter, stage, changes):
        mapping = _merged(mapping, layer)
    return from_mapping(SegmenterConfig, mapping)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with the values of both, ``above`` wins; nested mappings are merged."""
    result = dict(below)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merged(result[key], value) if nested else value
    return result


# -- the curve -----------------------------------------------------------------------------------


def write_report(config: SweepConfig, rows: Sequence[Row]) -> tuple[str, tuple[Path, ...]]:
    """Write sweep.csv and sweep.png of ``rows``; return what they say and their paths."""
    out = Path(config.out)
    uses = {
        spec: '+'.join(name for name in ('select', 'report') if spec in getattr(config, name))
        for spec in config.select + config.report
    }
    with partial_file(out / 'sweep.csv') as partial, partial.open('w', encoding='utf-8') as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction='ignore', lineterminator='\n')
        writer.writeheader()
        for row in rows:
            if use := uses.get(row['spec']):
                writer.writerow({**row, 'data': data_names([row['spec']]), 'use': use})

    ratios = tuple(sorted(config.ratios))
    lines = [f'mIoU9, mean ± standard error over the seeds {", ".join(map(str, config.seeds))}:']
    panels = {spec: curve_of(config, rows, spec) for spec in uses}
    for spec, curve in panels.items():
        shown = ', '.join(f'{r:g}: {_shown(values)}' for r, values in zip(ratios, curve))
        lines.append(f'{data_names([spec])} ({uses[spec]}): {shown}')
    curve = np.mean([panels[spec] for spec in config.select], axis=0)
    best = int(curve.mean(axis=1).argmax())
    lines.append(
        f"On '{' + '.join(data_names([spec]) for spec in config.select)}' the best ratio is "
        f'{ratios[best]:g} with {_shown(curve[best])}; seed by seed that gains '
        f'{_shown(curve[best] - curve[0])} over {ratios[0]:g}.'
    )
    _draw(ratios, panels, out / 'sweep.png')
    return '\n'.join(lines), (out / 'sweep.csv', out / 'sweep.png')


def curve_of(config: SweepConfig, rows: Sequence[Row], spec: str) -> Floats:
    """Return the mIoU9 on a data set, float64 [sorted ratios, seeds]."""
    rows = [row for row in rows if row['spec'] == spec and row['source'] == HEADLINE]
    found = {(row['ratio'], row['seed']): row['miou9'] for row in rows}
    cells = [[found[r, seed] for seed in config.seeds] for r in sorted(config.ratios)]
    return np.array(cells, np.float64)


def standard_error(values: Floats) -> Floats:
    """Return the standard error over the last axis; 0 for a single value."""
    count = values.shape[-1]
    return np.asarray(values.std(axis=-1, ddof=min(1, count - 1)) / np.sqrt(count))


def _shown(values: Floats) -> str:
    error = f' ± {standard_error(values):.3f}' if len(values) > 1 else ''
    return f'{values.mean():.3f}{error}'


def _draw(ratios: Sequence[float], panels: Mapping[str, Floats], path: Path) -> None:
    """Write a figure with a panel for each data set; dots are seeds, bars standard errors."""
    figure = Figure(figsize=(3.6 * len(panels), 3.2), layout='constrained')
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for panel, (spec, values) in zip(axes, panels.items()):
        error = standard_error(values)
        panel.errorbar(ratios, values.mean(1), error, marker='o', markersize=4, capsize=3)
        panel.plot(np.repeat(ratios, values.shape[1]), values.ravel(), '.', color='C0', alpha=0.5)
        panel.set(title=data_names([spec]), xlabel='share of synthetic night')
        panel.grid(alpha=0.3)
    axes[0].set_ylabel('mIoU9')
    with partial_file(path) as partial:
        figure.savefig(partial, dpi=150)
