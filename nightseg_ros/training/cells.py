# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The cells of a sweep: each a folder with a training, its weights and its scores."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nightseg_ros.config import from_mapping, to_mapping
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import DataError, Sample, read_image, read_labels
from nightseg_ros.evaluation.confusion import ConfusionMatrix
from nightseg_ros.evaluation.segmentation import RARE
from nightseg_ros.files import replace_file
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline
from nightseg_ros.perception.pipeline_config import PipelineConfig, WeightsConfig
from nightseg_ros.taxonomy import TAXONOMIES, Taxonomy
from nightseg_ros.training.segmenter import SegmenterConfig, train_segmenter
from nightseg_ros.training.sweep_config import SweepConfig

SCORES = 'scores.json'
_CELL = 'cell.json'
#: Variant of the cells without any synthetic night, which all variants share.
NO_NIGHT = 'none'
#: Most copies of a data set in a mixture; more brings the ratio no nearer than 1 point.
_COPIES = 20


class SweepError(ValueError):
    """A sweep that contradicts what is in its folder, or cannot be finished."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One training: a day checkpoint (``variant`` '') or a fine-tuning of one."""

    folder: Path
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
    def weights(self) -> Path:
        """What the training writes at its end."""
        return self.folder / 'weights.safetensors'

    @property
    def name(self) -> str:
        """What a line of progress calls it."""
        if not self.variant:
            return f'day checkpoint, seed {self.seed}'
        return f'{self.variant} {self.ratio:g}, seed {self.seed}'

    def ready(self) -> bool:
        """Tell whether the weights that it starts from are there."""
        needs = self.settings.init
        return not self.variant or Path(needs).is_file()

    def scores(self) -> dict[str, Any]:
        """Return its scores by data set, empty before the training is done."""
        try:
            found = json.loads((self.folder / SCORES).read_text(encoding='utf-8'))
        except FileNotFoundError:
            return {}
        scores: dict[str, Any] = found['sets']
        return scores

    def done(self) -> bool:
        """Tell whether nothing is left to do."""
        if not self.variant:
            return self.weights.is_file()
        return self.weights.is_file() and set(self.sets) <= self.scores().keys()


def plan(config: SweepConfig) -> list[Cell]:
    """
    Return the cells in the order in which one process does them: day checkpoints first.

    ``ConfigError`` names a setting of the trainings that does not exist; ``DataError`` data that
    is not there.
    """
    out = Path(config.out)
    taxonomy = TAXONOMIES[_settings(config, {}, {'out': config.out}).taxonomy]
    days = sum(len(open_dataset(spec, taxonomy)) for spec in config.data)
    for spec in config.select + config.report:
        require_labels(spec, taxonomy)
    cells = []
    for seed in config.seeds:
        folder = out / 'day' / f'seed{seed}'
        settings = _settings(config, config.day, {'out': str(folder), 'seed': seed})
        cells.append(
            Cell(folder=folder, variant='', ratio=0.0, share=0.0, seed=seed, settings=settings,
                 sets=())
        )  # fmt: skip
    starts = {cell.seed: str(cell.weights) for cell in cells}
    mixtures: dict[tuple[str, float], tuple[tuple[str, ...], float]] = {}
    for name, spec in config.nights().items():
        nights = len(open_dataset(spec, taxonomy)) if spec else 0
        for ratio in config.ratios:
            if not ratio:
                mixtures[NO_NIGHT, 0.0] = (config.data, 0.0)
            elif spec:
                copies = mixture(days, nights, ratio)
                share = copies[1] * nights / (copies[0] * days + copies[1] * nights)
                mixtures[name, ratio] = (config.data * copies[0] + (spec,) * copies[1], share)
            else:
                mixtures[name, ratio] = (config.data, ratio)
    for seed in config.seeds:
        for (name, ratio), (data, share) in mixtures.items():
            folder = out / 'cells' / f'{name}_{ratio:g}_seed{seed}'
            online = share if data == config.data else 0.0
            changes = {
                'data': list(data), 'out': str(folder), 'seed': 1000 + seed,
                'init': starts[seed], 'augment': {'night_share': online},
            }  # fmt: skip
            settings = _settings(config, config.cell, changes)
            cells.append(
                Cell(folder=folder, variant=name, ratio=ratio, share=share, seed=seed,
                     settings=settings, sets=tuple(dict.fromkeys(config.select + config.report)))
            )  # fmt: skip
    return cells


def require_labels(spec: str, taxonomy: Taxonomy) -> list[Sample]:
    """Return a data set to score on; ``DataError`` names a picture without labels."""
    samples = open_dataset(spec, taxonomy)
    for sample in samples:
        if sample.label is None:
            raise DataError(f"'{sample.image}' has no labels to be scored against")
    return samples


def mixture(days: int, nights: int, ratio: float) -> tuple[int, int]:
    """Return how many copies of day and night images come nearest to a share of night."""
    if ratio >= 1.0:
        return 0, 1
    pairs = [(a, b) for a in range(1, _COPIES + 1) for b in range(1, _COPIES + 1)]
    return min(pairs, key=lambda p: (round(abs(_share(p, days, nights) - ratio), 3), sum(p)))


def _share(copies: tuple[int, int], days: int, nights: int) -> float:
    return copies[1] * nights / (copies[0] * days + copies[1] * nights)


def check(cell: Cell) -> None:
    """Raise ``SweepError`` where the cell's folder was made with other settings."""
    try:
        before = json.loads((cell.folder / _CELL).read_text(encoding='utf-8'))
    except FileNotFoundError:
        return
    now = _identity(cell)
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise SweepError(
                f"'{cell.folder}' was made with {key} = {before.get(key)!r}, now it is "
                f'{now.get(key)!r}; give the old setting, or another --out'
            )


def run(cell: Cell, say: Callable[[str], None]) -> None:
    """Train the cell, or go on with it, and score what is not scored yet."""
    check(cell)
    _write(cell.folder / _CELL, _identity(cell))
    started = time.monotonic()
    if not cell.weights.is_file():
        train_segmenter(cell.settings, say)
        # the weights are all that the curve needs
        (cell.folder / 'checkpoint.safetensors').unlink(missing_ok=True)
    trained = time.monotonic()
    if not cell.variant:
        return
    scores = cell.scores()
    for spec in cell.sets:
        if spec not in scores:
            say(f'scoring {set_name(spec)}')
            scores[spec] = score(cell.weights, spec)
            content = {
                'version': 1, 'variant': cell.variant, 'ratio': cell.ratio, 'share': cell.share,
                'seed': cell.seed, 'train_seconds': round(trained - started, 1), 'sets': scores,
            }  # fmt: skip
            _write(cell.folder / SCORES, content)


def score(weights: Path, spec: str) -> dict[str, dict[str, Any]]:
    """
    Return a segmenter's scores on a data set by source, and as 'mean' averaged over the sources.

    Every picture goes through the pipeline by itself. ``mean`` → ``miou9`` is the headline: on
    the night frames of two cameras it is night9.
    """
    pipeline = Pipeline.load(
        PipelineConfig(
            route='night', backend='torch', device='cpu',
            weights=WeightsConfig(day='', night=str(weights)),
        )
    )  # fmt: skip
    taxonomy = pipeline.taxonomy
    matrices: dict[str, ConfusionMatrix] = {}
    frames: dict[str, int] = {}
    for sample in require_labels(spec, taxonomy):
        assert sample.label is not None
        pipeline.reset('picture')
        (result,) = pipeline.process([Frame(image=read_image(sample.image), camera='picture')])
        assert result.labels is not None
        matrix = matrices.setdefault(sample.source, ConfusionMatrix(taxonomy))
        matrix.add(read_labels(sample.label), result.labels)
        frames[sample.source] = frames.get(sample.source, 0) + 1
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
    parts = list(scores.values())
    scores['mean'] = {
        'frames': sum(frames.values()),
        **{
            key: _number(float(np.mean([part[key] for part in parts])))
            for key in ('miou9', 'miou', 'pixel_acc')
        },
    }
    return scores


def set_name(spec: str) -> str:
    """Return a data set's name without the folder it lies in on this machine."""
    return Path(spec.partition(':')[2]).name


def _settings(
    config: SweepConfig, stage: Mapping[str, Any], changes: Mapping[str, Any]
) -> SegmenterConfig:
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


def _identity(cell: Cell) -> dict[str, Any]:
    """Return what the cell's weights depend on, without where it lies."""
    settings = to_mapping(cell.settings)
    for key in ('out', 'workers', 'checkpoint_every', 'picture_every'):
        settings.pop(key)
    settings['init'] = 'day checkpoint' if cell.variant else settings['init']
    loaded: dict[str, Any] = json.loads(json.dumps({'variant': cell.variant, **settings}))
    return loaded


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)


def _write(path: Path, content: dict[str, Any]) -> None:
    replace_file(path, (json.dumps(content, indent=1) + '\n').encode())
