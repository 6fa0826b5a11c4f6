# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
How much synthetic night helps: a trial for each ratio, variant and seed, and the curve of them.

A trial is a folder with a training, its weights and its scores. It is done when its scores are
there, and its training goes on where it was killed. Several shards may work in one shared folder
(under the same path on every machine), each on trials of its own.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nightseg_ros.config import from_mapping, to_mapping
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.evaluation.metrics import RARE
from nightseg_ros.files import replace_file
from nightseg_ros.runtime.torch_backend import TorchBackend
from nightseg_ros.taxonomy import TAXONOMIES, Taxonomy
from nightseg_ros.training.crops import labelled
from nightseg_ros.training.run import FREE, data_names, require_same
from nightseg_ros.training.segmenter import (
    SegmenterConfig,
    confusion_by_source,
    train_segmenter,
)
from nightseg_ros.training.sweep_config import SweepConfig
from nightseg_ros.training.sweep_curve import (
    HEADLINE,
    METRICS,
    NO_NIGHT,
    SweepReport,
    write_report,
)
from nightseg_ros.weights import load_weights

SCORES = 'scores.json'
_SETTINGS = 'cell.json'
#: Why a data set needs labels.
SCORED = 'trials are scored against labels'
#: Most copies of a data set in a mixture; more brings the ratio no nearer than 1 point.
_COPIES = 20
#: Seconds between checks whether another shard has finished a day checkpoint.
POLL = 2.0


class SweepError(ValueError):
    """A sweep that contradicts what is in its folder."""


def sweep(config: SweepConfig, say: Callable[[str], None] = print) -> SweepReport:
    """
    Train and score this shard's trials; write sweep.csv, .png and .svg once all shards are done.

    Trial number n belongs to shard I of N where n modulo N is I. ``SweepError`` where a trial was
    made with other settings; after an interruption the same command goes on.
    """
    trials = plan(config)
    for trial in trials:
        trial.require_same_settings()
    say(f'{len(trials)} trainings, {sum(trial.done() for trial in trials)} done already')
    index, count = config.shard_of()
    left = [trial for trial in trials[index::count] if not trial.done()]
    started = time.monotonic()
    for number, trial in enumerate(left, start=1):
        _wait_for(trial, config, say)
        trial.run(lambda text, name=trial.name: say(f'{name}: {text}'))  # type: ignore[misc]
        minutes = (time.monotonic() - started) / number * (len(left) - number) / 60
        say(f'{trial.name}: done; {len(left) - number} left here, about {minutes:.0f} min')
    elsewhere = sum(not trial.done() for trial in trials)
    if elsewhere:
        text = f'shard {config.shard} is done; other shards have {elsewhere} of {len(trials)} left'
        return SweepReport(files=(), text=f'{text}. The one that ends last writes the curve.')
    return write_report(config, [row for trial in trials for row in trial.rows()])


def _wait_for(trial: Trial, config: SweepConfig, say: Callable[[str], None]) -> None:
    """Wait for the day checkpoint that a trial starts from, where another shard trains it."""
    start = Path(trial.settings.init)
    if not trial.variant or start.is_file():
        return
    say(f"{trial.name}: waiting for '{start}', which another shard of {config.shard} trains")
    while not start.is_file():
        time.sleep(POLL)


# -- trials --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One training: a day checkpoint (``variant`` '') or a fine-tuning of one."""

    variant: str
    ratio: float
    """Share of synthetic night that was asked for."""
    share: float
    """Share that the mixture has; differs a little where the nights are a data set."""
    seed: int
    settings: SegmenterConfig
    sets: tuple[str, ...]
    """Data sets to score."""

    @property
    def folder(self) -> Path:
        """Where it trains and keeps its scores."""
        return Path(self.settings.out)

    @property
    def weights(self) -> Path:
        """What the training writes at its end."""
        return self.folder / 'weights.safetensors'

    @property
    def name(self) -> str:
        """What a line of progress calls it."""
        if not self.variant:
            return f'day checkpoint, seed {self.seed}'
        return f'{self.variant} {self.ratio:g}, seed {self.seed}'

    def scores(self) -> dict[str, Any]:
        """Return its scores by data set, empty before the training is done."""
        try:
            found = json.loads((self.folder / SCORES).read_text(encoding='utf-8'))
        except FileNotFoundError:
            return {}
        scores: dict[str, Any] = found['sets']
        return scores

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each data set and source that was scored."""
        return [
            {
                'variant': self.variant, 'ratio': self.ratio, 'share': round(self.share, 4),
                'seed': self.seed, 'spec': spec, 'source': source,
                **{key: entry[key] for key in METRICS},
            }
            for spec, sources in self.scores().items()
            for source, entry in sources.items()
        ]  # fmt: skip

    def done(self) -> bool:
        """Tell whether nothing is left to do."""
        return self.weights.is_file() and set(self.sets) <= self.scores().keys()

    def require_same_settings(self) -> dict[str, Any]:
        """Return what the weights depend on; ``SweepError`` where the folder has other ones."""
        settings = to_mapping(self.settings)
        now = {key: value for key, value in settings.items() if key not in FREE}
        now |= {'variant': self.variant, 'init': 'day checkpoint' if self.variant else now['init']}
        try:
            before = json.loads((self.folder / _SETTINGS).read_text(encoding='utf-8'))
        except FileNotFoundError:
            return now
        require_same(self.folder, before, now, SweepError)
        return now

    def run(self, say: Callable[[str], None]) -> None:
        """Train, or go on with it, and score what is not scored yet."""
        settings = self.require_same_settings()
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.folder / _SETTINGS, settings)
        started = time.monotonic()
        if not self.weights.is_file():
            train_segmenter(self.settings, say)
            # the weights are all that the curve needs
            (self.folder / 'checkpoint.safetensors').unlink(missing_ok=True)
        trained = time.monotonic()
        scores = self.scores()
        for spec in self.sets:
            if spec not in scores:
                say(f'scoring {data_names([spec])}')
                scores[spec] = score(self.weights, spec)
                content = {
                    'version': 1, 'variant': self.variant, 'ratio': self.ratio,
                    'share': self.share, 'seed': self.seed,
                    'train_seconds': round(trained - started, 1), 'sets': scores,
                }  # fmt: skip
                _write(self.folder / SCORES, content)


def plan(config: SweepConfig) -> list[Trial]:
    """
    Return the trials in the order in which one process does them: day checkpoints first.

    ``ConfigError`` names a setting of the trainings that does not exist; ``DataError`` data that
    is not there.
    """
    out = Path(config.out)
    taxonomy = TAXONOMIES[_settings(config, {}, out=config.out).taxonomy]
    days = sum(len(open_dataset(spec, taxonomy)) for spec in config.data)
    for spec in config.select + config.report:
        labelled(open_dataset(spec, taxonomy), SCORED)
    trials = []
    for seed in config.seeds:
        settings = _settings(config, config.day, out=str(out / 'day' / f'seed{seed}'), seed=seed)
        trials.append(
            Trial(variant='', ratio=0.0, share=0.0, seed=seed, settings=settings, sets=())
        )
    starts = {trial.seed: str(trial.weights) for trial in trials}
    mixtures: dict[tuple[str, float], tuple[tuple[str, ...], float]] = {}
    for name, spec in config.nights().items():
        nights = len(open_dataset(spec, taxonomy)) if spec else 0
        for ratio in config.ratios:
            if not ratio:
                mixtures[NO_NIGHT, 0.0] = (config.data, 0.0)
            elif spec:
                copies = mixture(days, nights, ratio)
                share = _share(copies, days, nights)
                mixtures[name, ratio] = (config.data * copies[0] + (spec,) * copies[1], share)
            else:
                mixtures[name, ratio] = (config.data, ratio)
    for seed in config.seeds:
        for (name, ratio), (data, share) in mixtures.items():
            settings = _settings(
                config, config.cell, data=list(data), seed=1000 + seed, init=starts[seed],
                out=str(out / 'cells' / f'{name}_{ratio:g}_seed{seed}'),
                augment={'night_share': share if data == config.data else 0.0},
            )  # fmt: skip
            trials.append(
                Trial(
                    variant=name, ratio=ratio, share=share, seed=seed, settings=settings,
                    sets=tuple(dict.fromkeys(config.select + config.report)),
                )
            )  # fmt: skip
    return trials


def _settings(config: SweepConfig, stage: Mapping[str, Any], **changes: Any) -> SegmenterConfig:
    mapping = {'data': list(config.data), 'workers': 0, 'picture_every': 0}
    for layer in (config.segmenter, stage, changes):
        mapping = _merged(mapping, layer)
    return from_mapping(SegmenterConfig, mapping)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with the values of both, ``above`` wins; nested mappings are merged."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = _merged(old, value) if both else value  # type: ignore[arg-type]
    return result


def mixture(days: int, nights: int, ratio: float) -> tuple[int, int]:
    """Return how many copies of day and night images come nearest to a share of night."""
    if ratio >= 1.0:
        return 0, 1
    pairs = [(a, b) for a in range(1, _COPIES + 1) for b in range(1, _COPIES + 1)]
    return min(pairs, key=lambda p: (round(abs(_share(p, days, nights) - ratio), 3), sum(p)))


def _share(copies: tuple[int, int], days: int, nights: int) -> float:
    return copies[1] * nights / (copies[0] * days + copies[1] * nights)


def _write(path: Path, content: dict[str, Any]) -> None:
    replace_file(path, (json.dumps(content, indent=1) + '\n').encode())


# -- scores --------------------------------------------------------------------------------------


def score(weights: Path, spec: str) -> dict[str, dict[str, Any]]:
    """
    Return a segmenter's scores on a data set by source, and as 'mean' averaged over the sources.

    ``mean`` → ``miou9`` is the headline: on the night frames of two cameras it is night9.
    """
    loaded = load_weights(weights)
    assert loaded.metadata.taxonomy is not None
    taxonomy = Taxonomy.from_dict(loaded.metadata.taxonomy)
    samples = labelled(open_dataset(spec, taxonomy), SCORED)
    matrices = confusion_by_source(loaded, samples, TorchBackend('cpu'))
    frames = Counter(sample.source for sample in samples)
    rare = [name for name in RARE if name in taxonomy.classes]
    scores = {}
    for source, matrix in sorted(matrices.items()):
        scores[source] = {
            'frames': frames[source],
            'miou9': _number(matrix.miou(without=rare)),
            'miou': _number(matrix.miou()),
            'pixel_acc': _number(matrix.pixel_accuracy()),
            'iou': dict(zip(taxonomy.classes, map(_number, matrix.iou().tolist()))),
        }
    means = {
        key: _number(float(np.mean([entry[key] for entry in scores.values()])))
        for key in ('miou9', 'miou', 'pixel_acc')
    }
    return {**scores, HEADLINE: {'frames': len(samples), **means}}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)
