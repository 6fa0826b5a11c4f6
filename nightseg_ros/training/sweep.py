# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The figure of a sweep: a panel for each data set, bands of one standard error, every seed.

The cells of a sweep: each a folder with a training, its weights and its scores.

What a sweep says: a row for each cell, the curve with its errors, and a reading of it.

The sweep: every cell trained and scored once, by as many processes and machines as there are.

A cell is a folder. It is done when its scores are there, its training goes on where it was
killed, and a claim file says who is at it, so that several sweeps of the same settings may run
in one shared folder (under the same path on every machine).
"""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nightseg_ros.config import from_mapping, to_mapping
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import DataError, Sample, read_image, read_labels
from nightseg_ros.evaluation.metrics import RARE, ConfusionMatrix
from nightseg_ros.files import partial_file, replace_file
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig
from nightseg_ros.taxonomy import TAXONOMIES, Taxonomy
from nightseg_ros.training.claims import Claim, ClaimLost, take
from nightseg_ros.training.segmenter import SegmenterConfig, train_segmenter
from nightseg_ros.training.sweep_config import SweepConfig

#: Colours that colour-blind readers tell apart (Okabe and Ito 2008).
COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
_PANEL = (3.6, 3.2)


def draw(curves: Sequence[Curve], spots: Mapping[str, float], path: Path) -> list[Path]:
    """
    Write ``path``.png and .svg and return them.

    With several ratios beside 0 a panel holds a line for each variant; with one, a row for each.
    ``spots`` are the sweet spots by variant, marked by a dashed line.
    """
    import matplotlib

    matplotlib.use('Agg')
    # the same curve gives the same bytes
    matplotlib.rcParams['svg.hashsalt'] = 'nightseg'
    from matplotlib import pyplot

    sets = list(dict.fromkeys(curve.data for curve in curves))
    variants = list(dict.fromkeys(curve.variant for curve in curves))
    several = len([ratio for ratio in curves[0].ratios if ratio]) > 1
    figure, axes = pyplot.subplots(
        1, len(sets), figsize=(_PANEL[0] * len(sets), _PANEL[1]), squeeze=False,
        constrained_layout=True, sharey=not several,
    )  # fmt: skip
    for panel, name in zip(axes[0], sets):
        members = [curve for curve in curves if curve.data == name]
        if several:
            _lines(panel, members, variants, spots)
        else:
            _rows(panel, members)
        panel.set_title(name, fontsize=10)
        panel.grid(alpha=0.3)
        panel.spines[['top', 'right']].set_visible(False)
    if several:
        axes[0][0].set_ylabel('mIoU9')
        if len(variants) > 1:
            axes[0][-1].legend(fontsize=8, frameon=False)
    seeds = curves[0].values.shape[1]
    figure.suptitle(f'mean and standard error of {seeds} seeds; dots are seeds', fontsize=9)
    written = []
    for suffix in ('.png', '.svg'):
        file = path.with_suffix(suffix)
        with partial_file(file) as partial:
            figure.savefig(partial, dpi=150, metadata={'Date': None} if suffix == '.svg' else None)
        written.append(file)
    pyplot.close(figure)
    return written


def _lines(
    panel: Any, curves: Sequence[Curve], variants: Sequence[str], spots: Mapping[str, float]
) -> None:
    for curve in curves:
        color = COLORS[variants.index(curve.variant) % len(COLORS)]
        mean, error = curve.mean, np.nan_to_num(curve.error)
        panel.fill_between(curve.ratios, mean - error, mean + error, color=color, alpha=0.2, lw=0)
        panel.plot(curve.ratios, mean, color=color, marker='o', ms=4, label=curve.variant)
        places = np.repeat(curve.ratios, curve.values.shape[1])
        panel.plot(places, curve.values.ravel(), '.', color=color, ms=4, alpha=0.6)
        if curve.variant in spots:
            panel.axvline(spots[curve.variant], color=color, ls='--', lw=1)
    panel.set_xlabel('share of synthetic night')


def _rows(panel: Any, curves: Sequence[Curve]) -> None:
    rows = [('no night', curves[0].values[0])] if curves[0].ratios[0] == 0.0 else []
    rows += [(curve.variant, curve.values[-1]) for curve in curves]
    for place, (_, values) in enumerate(reversed(rows)):
        color = COLORS[(len(rows) - 1 - place) % len(COLORS)]
        spread = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
        panel.errorbar(
            values.mean(), place, xerr=spread, fmt='o', color=color, ms=5, capsize=3, lw=1.5
        )
        panel.plot(values, np.full(len(values), place), '.', color=color, ms=5, alpha=0.6)
    panel.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)])
    panel.set_xlabel('mIoU9')


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


Floats = npt.NDArray[np.float64]
COLUMNS = (
    'variant', 'ratio', 'share', 'seed', 'data', 'use', 'source', 'frames', 'miou9', 'miou',
    'pixel_acc',
)  # fmt: skip
#: Standard errors beyond which a difference counts as resolved.
CLEAR = 2
#: Source of the rows that average over the sources of a data set.
HEADLINE = 'mean'


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """mIoU9 of one variant on one data set, or on the mean of several."""

    variant: str
    data: str
    ratios: tuple[float, ...]
    values: Floats
    """float64 [ratios, seeds]."""

    @property
    def mean(self) -> Floats:
        """Mean over the seeds, float64 [ratios]."""
        return np.asarray(self.values.mean(axis=1))

    @property
    def error(self) -> Floats:
        """Standard error over the seeds, float64 [ratios]; NaN with one seed."""
        return standard_error(self.values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What the selection data says of one variant."""

    variant: str
    best: float
    """Ratio with the highest mean."""
    spot: float
    """Smallest ratio within one standard error of the best."""
    resolved: bool
    """Whether the spot stands out against the smallest ratio and the curve falls after it."""
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was written and what it says."""

    files: tuple[Path, ...]
    readings: tuple[Reading, ...]
    text: str


def write_report(config: SweepConfig, cells: Sequence[Cell]) -> Report:
    """Write sweep.csv, sweep.md, sweep.png and sweep.svg from the cells' scores."""
    from nightseg_ros.training.sweep import draw

    out = Path(config.out)
    selection = [selection_curve(config, cells, name) for name in config.nights()]
    readings = tuple(read(curve) for curve in selection)
    curves = [
        curve_of(config, cells, name, (spec,))
        for spec in dict.fromkeys(config.select + config.report)
        for name in config.nights()
    ]
    text = markdown(config, curves, selection, readings)
    replace_file(out / 'sweep.csv', table(config, cells).encode())
    replace_file(out / 'sweep.md', text.encode())
    spots = {reading.variant: reading.spot for reading in readings if reading.resolved}
    pictures = draw(curves, spots, out / 'sweep')
    return Report(
        files=(out / 'sweep.csv', out / 'sweep.md', *pictures), readings=readings, text=text
    )


def table(config: SweepConfig, cells: Sequence[Cell]) -> str:
    """Return every cell's scores as CSV, a line for each data set and source."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator='\n')
    writer.writeheader()
    for cell in cells:
        for spec, sources in cell.scores().items():
            if spec not in config.select + config.report:
                continue
            for source, entry in sources.items():
                writer.writerow(
                    {
                        'variant': cell.variant, 'ratio': cell.ratio,
                        'share': round(cell.share, 4), 'seed': cell.seed,
                        'data': set_name(spec), 'use': _use(config, spec), 'source': source,
                        **{key: entry[key] for key in ('frames', 'miou9', 'miou', 'pixel_acc')},
                    }
                )  # fmt: skip
    return stream.getvalue()


def curve_of(
    config: SweepConfig, cells: Sequence[Cell], variant: str, specs: Sequence[str]
) -> Curve:
    """Return a variant's headline by ratio and seed, averaged over data sets."""
    found: dict[tuple[float, int], float] = {}
    for cell in cells:
        if cell.variant in (variant, NO_NIGHT):
            scores = cell.scores()
            headlines = [_value(scores[spec][HEADLINE]) for spec in specs]
            found[cell.ratio, cell.seed] = float(np.mean(headlines))
    ratios = tuple(sorted(set(config.ratios)))
    values = np.array([[found[ratio, seed] for seed in config.seeds] for ratio in ratios])
    return Curve(
        variant=variant, data=' + '.join(map(set_name, specs)), ratios=ratios, values=values
    )


def selection_curve(config: SweepConfig, cells: Sequence[Cell], variant: str) -> Curve:
    """Return the curve that the sweet spot is read from."""
    return curve_of(config, cells, variant, config.select)


def standard_error(values: Floats) -> Floats:
    """Return the standard error over the last axis; NaN for a single value."""
    count = values.shape[-1]
    if count < 2:
        return np.full(values.shape[:-1], np.nan)
    return np.asarray(values.std(axis=-1, ddof=1) / np.sqrt(count))


def read(curve: Curve) -> Reading:
    """
    Apply the one-standard-error rule (Breiman et al. 1984) to a curve.

    The spot is the smallest ratio whose mean is within one standard error of the best mean. That
    rule always names one, so it is called resolved only where, seed by seed, it gains more than
    ``CLEAR`` standard errors over the smallest ratio, and where some larger ratio is outside of
    that one error again and behind the best by more than ``CLEAR`` errors of its own, seed by
    seed: else there may be a gain or a plateau, but no spot.
    """
    mean, error = curve.mean, curve.error
    top = int(mean.argmax())
    best = curve.ratios[top]
    if curve.values.shape[1] < 2:
        return Reading(
            variant=curve.variant, best=best, spot=best, resolved=False,
            text=f"on '{curve.data}' the best ratio is {best:g} with {mean[top]:.3f}, but one "
            'seed gives no error: no sweet spot is resolved.',
        )  # fmt: skip
    within = mean >= mean[top] - error[top]
    place = int(within.argmax())
    spot = curve.ratios[place]
    text = (
        f"on '{curve.data}' the best ratio is {best:g} with {_cell(mean[top], error[top])}; the "
        f'smallest within one standard error of it is {spot:g} with {mean[place]:.3f}.'
    )
    if place > 0:
        gain = curve.values[place] - curve.values[0]
        text += (
            f' Seed by seed that gains {_cell(float(gain.mean()), standard_error(gain))} over '
            f'{curve.ratios[0]:g}.'
        )
    worse = [
        f'{ratio:g}'
        for ratio, values, near in zip(curve.ratios, curve.values, within)
        if ratio > spot and not near and _clear(curve.values[top] - values)
    ]
    resolved = place > 0 and _clear(curve.values[place] - curve.values[0]) and bool(worse)
    if resolved:
        text += (
            f' The sweet spot is {spot:g}: of the larger ratios, {", ".join(worse)} fall clearly '
            'behind the best.'
        )
    elif place == 0 or not _clear(curve.values[place] - curve.values[0]):
        text += f' No sweet spot is resolved: no gain over {curve.ratios[0]:g} is clear.'
    elif place == len(curve.ratios) - 1:
        text += f' No sweet spot is resolved: up to {spot:g} the curve does not come down.'
    else:
        text += (
            ' No sweet spot is resolved: no larger ratio falls clearly behind the best, seed by '
            f'seed, so that from {spot:g} on it is a plateau.'
        )
    return Reading(
        variant=curve.variant, best=best, spot=spot, resolved=resolved,
        text=f'{text} (Clear: more than {CLEAR} standard errors.)',
    )  # fmt: skip


def _clear(differences: Floats) -> bool:
    """Tell whether differences seed by seed are above 0 by more than their error allows."""
    return bool(differences.mean() > CLEAR * standard_error(differences))


def markdown(
    config: SweepConfig,
    curves: Sequence[Curve],
    selection: Sequence[Curve],
    readings: Sequence[Reading],
) -> str:
    """Return the tables and the reading, with what was chosen and reported on."""
    several = len([ratio for ratio in config.ratios if ratio]) > 1
    seeds = ', '.join(map(str, config.seeds))
    lines = [
        '# Sweep: how much synthetic night helps' if several else '# Synthetic nights compared',
        '',
        f'mIoU9, mean ± standard error over {len(config.seeds)} seeds ({seeds}); a data set of '
        'several sources is the mean of theirs. The error is that of the seeds alone: it says '
        'nothing about other frames or other places.',
        '',
    ]
    if not several:
        return '\n'.join([*lines, *_comparison(config, curves)]) + '\n'
    both = [set_name(spec) for spec in config.select if spec in config.report]
    lines += [
        f'- Chosen on: {", ".join(map(set_name, config.select))}.',
        f'- Reported on: {", ".join(map(set_name, config.report)) or "nothing else"}.',
    ]
    if both:
        lines.append(
            f'- {", ".join(both)} chose the spot and is reported: its own figures at the spot '
            'are a little too good.'
        )
    for curve, reading in zip(selection, readings):
        lines += ['', f'## {reading.variant}', '', *_table(config, curve, curves)]
        lines += ['', f'{reading.text[0].upper()}{reading.text[1:]}']
    return '\n'.join(lines) + '\n'


def _comparison(config: SweepConfig, curves: Sequence[Curve]) -> list[str]:
    """Return a row for each variant at the one ratio that there is, and its gain over no night."""
    sets = list(dict.fromkeys(curve.data for curve in curves))
    ratio = curves[0].ratios[-1]
    lines = [
        f'Every variant at ratio {ratio:g}; in brackets its gain over no night, seed by seed.',
        '',
        '| night | ' + ' | '.join(sets) + ' |',
        '|---|' + '---|' * len(sets),
    ]
    without = curves[0].ratios[0] == 0.0
    if without:
        firsts = [next(curve for curve in curves if curve.data == name) for name in sets]
        cells = [_cell(curve.mean[0], curve.error[0]) for curve in firsts]
        lines.append(f'| {NO_NIGHT} | ' + ' | '.join(cells) + ' |')
    for name in config.nights():
        cells = []
        for curve in (curve for curve in curves if curve.variant == name):
            cell = _cell(curve.mean[-1], curve.error[-1])
            if without:
                gain = curve.values[-1] - curve.values[0]
                cell += f' ({_cell(float(gain.mean()), standard_error(gain), signed=True)})'
            cells.append(cell)
        lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
    return lines


def _table(config: SweepConfig, selection: Curve, curves: Sequence[Curve]) -> list[str]:
    columns = [curve for curve in curves if curve.variant == selection.variant]
    if len(config.select) > 1:
        columns = [selection, *columns]
    lines = [
        '| ratio | ' + ' | '.join(curve.data for curve in columns) + ' |',
        '|---|' + '---|' * len(columns),
    ]
    for index, ratio in enumerate(selection.ratios):
        cells = [_cell(curve.mean[index], curve.error[index]) for curve in columns]
        lines.append(f'| {ratio:g} | ' + ' | '.join(cells) + ' |')
    return lines


def _cell(mean: float, error: Any, *, signed: bool = False) -> str:
    shown = f'{mean:+.3f}' if signed else f'{mean:.3f}'
    return shown if np.isnan(error) else f'{shown} ± {error:.3f}'


def _use(config: SweepConfig, spec: str) -> str:
    uses = (('select', config.select), ('report', config.report))
    return '+'.join(name for name, specs in uses if spec in specs)


def _value(entry: dict[str, Any]) -> float:
    value = entry['miou9']
    return float('nan') if value is None else float(value)


Say = Callable[[str], None]


def sweep(config: SweepConfig, say: Say = print) -> Report:
    """
    Train and score what is missing, and write the curve: sweep.csv, sweep.md, .png and .svg.

    ``SweepError`` where a finished cell was made with other settings, or where a process died
    with cells left; what is finished stays, and the same command goes on.
    """
    cells = plan(config)
    for cell in cells:
        check(cell)
        cell.folder.mkdir(parents=True, exist_ok=True)
    left = sum(not cell.done() for cell in cells)
    say(f'{len(cells)} trainings, {len(cells) - left} done already')
    if config.workers == 1:
        work(config, cells, say)
    elif left:
        _spread(config)
    missing = [cell.name for cell in cells if not cell.done()]
    if missing:
        raise SweepError(
            f'{len(missing)} of {len(cells)} trainings are not done, the first is '
            f"'{missing[0]}': see above for what ended a process, then give the command again"
        )
    return write_report(config, cells)


def work(config: SweepConfig, cells: list[Cell], say: Say) -> None:
    """Do cells that nobody else is at until all are done, by whomever."""
    started, done_here = time.monotonic(), 0
    while True:
        left = [cell for cell in cells if not cell.done()]
        if not left:
            return
        claimed = _claim(left, config.expiry)
        if claimed is None:
            time.sleep(config.poll)
            continue
        cell, claim = claimed
        say(f'{cell.name}: {len(left)} of {len(cells)} trainings left')
        with claim:
            try:
                run(cell, _telling(cell, claim, say))
            except ClaimLost as lost:
                say(f'{cell.name}: {lost}')
                continue
        done_here += 1
        each = (time.monotonic() - started) / done_here
        rest = sum(not other.done() for other in cells)
        minutes = each * rest / config.workers / 60
        say(f'{cell.name}: done; {rest} of {len(cells)} left, about {minutes:.0f} min')


def _claim(left: list[Cell], expiry: float) -> tuple[Cell, Claim] | None:
    for cell in left:
        if not cell.ready():
            continue
        claim = take(cell.folder, expiry)
        if claim is None:
            continue
        # it may have been finished between the look and the claim
        if cell.done():
            claim.release()
            continue
        return cell, claim
    return None


def _telling(cell: Cell, claim: Claim, say: Say) -> Say:
    def tell(text: str) -> None:
        claim.check()
        say(f'{cell.name}: {text}')

    return tell


def _spread(config: SweepConfig) -> None:
    """Run the cells in processes of their own and wait for them."""
    context = multiprocessing.get_context('spawn')
    threads = max(1, (os.cpu_count() or 1) // config.workers)
    processes = [
        context.Process(target=_process, args=(config, threads, os.getpid()))
        for _ in range(config.workers)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join()
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
                process.join()


def _process(config: SweepConfig, threads: int, parent: int) -> None:
    torch.set_num_threads(threads)

    def say(text: str) -> None:
        if os.getppid() != parent:
            raise SystemExit('the sweep that started this process is gone')
        print(text, flush=True)

    work(config, plan(replace(config)), say)
