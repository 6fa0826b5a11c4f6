# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What a sweep says: a row for each cell, the curve with its errors, and a reading of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nightseg_ros.files import replace_file
from nightseg_ros.training.cells import NO_NIGHT, Cell, set_name
from nightseg_ros.training.sweep_config import SweepConfig

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
    from nightseg_ros.training.sweep_figure import draw

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
