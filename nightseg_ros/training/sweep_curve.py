# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What a sweep says: its scores as CSV, the curve with its errors, and whether it has a peak."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nightseg_ros.files import partial_file, replace_file
from nightseg_ros.training.run import data_names
from nightseg_ros.training.sweep_config import SweepConfig

Floats = npt.NDArray[np.float64]
METRICS = ('frames', 'miou9', 'miou', 'pixel_acc')
COLUMNS = ('variant', 'ratio', 'share', 'seed', 'data', 'use', 'source', *METRICS)
#: Variant of the trials without any synthetic night, which all variants share.
NO_NIGHT = 'none'
#: Source of the scores that average over the sources of a data set.
HEADLINE = 'mean'
#: Standard errors beyond which a difference counts as resolved.
CLEAR = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepReport:
    """What was written and what it says."""

    files: tuple[Path, ...]
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepCurve:
    """mIoU9 of one variant on one data set, or on the mean of several."""

    variant: str
    spec: str
    """The data set, or the first of several."""
    data: str
    """What the data sets are called."""
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
class SweetSpot:
    """What the selection data says of one variant."""

    ratio: float
    """Smallest ratio within one standard error of the best."""
    resolved: bool
    """Whether it stands out against the smallest ratio and the curve falls after it."""
    text: str


def write_report(config: SweepConfig, rows: Sequence[Mapping[str, Any]]) -> SweepReport:
    """
    Write sweep.csv, sweep.png and sweep.svg.

    A row has the ``COLUMNS`` but for 'data' and 'use', and 'spec', the data set that was scored.
    """
    out = Path(config.out)
    uses = {
        spec: '+'.join(name for name in ('select', 'report') if spec in getattr(config, name))
        for spec in config.select + config.report
    }
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, extrasaction='ignore', lineterminator='\n')
    writer.writeheader()
    for row in rows:
        if row['spec'] in uses:
            writer.writerow({**row, 'data': data_names([row['spec']]), 'use': uses[row['spec']]})
    replace_file(out / 'sweep.csv', stream.getvalue().encode())

    curves = [curve_of(config, rows, name, [spec]) for spec in uses for name in config.nights()]
    spots = {
        name: sweet_spot(curve_of(config, rows, name, config.select)) for name in config.nights()
    }
    figures = _draw(curves, spots, out / 'sweep')
    lines = [f'mIoU9, mean ± standard error over the seeds {", ".join(map(str, config.seeds))}:']
    for curve in curves:
        points = zip(curve.ratios, curve.mean, curve.error)
        shown = ', '.join(f'{ratio:g}: {_shown(*point)}' for ratio, *point in points)
        lines.append(f'{curve.data} ({uses[curve.spec]}), {curve.variant}: {shown}')
    lines += [f'{name}: {spot.text}' for name, spot in spots.items()]
    return SweepReport(files=(out / 'sweep.csv', *figures), text='\n'.join(lines))


def curve_of(
    config: SweepConfig, rows: Sequence[Mapping[str, Any]], variant: str, specs: Sequence[str]
) -> SweepCurve:
    """Return a variant's headline by ratio and seed, averaged over data sets."""
    ratios = tuple(sorted(config.ratios))
    found: dict[tuple[float, int], list[float]] = {}
    for row in rows:
        if (
            row['variant'] in (variant, NO_NIGHT)
            and row['source'] == HEADLINE
            and row['spec'] in specs
        ):
            # None, where nothing was there to be scored, becomes NaN
            value = float('nan') if row['miou9'] is None else float(row['miou9'])
            found.setdefault((row['ratio'], row['seed']), []).append(value)
    values = [[np.mean(found[ratio, seed]) for seed in config.seeds] for ratio in ratios]
    return SweepCurve(
        variant=variant, spec=specs[0], data=' + '.join(data_names([spec]) for spec in specs),
        ratios=ratios, values=np.array(values),
    )  # fmt: skip


def standard_error(values: Floats) -> Floats:
    """Return the standard error over the last axis; NaN for a single value."""
    count = values.shape[-1]
    if count < 2:
        return np.full(values.shape[:-1], np.nan)
    return np.asarray(values.std(axis=-1, ddof=1) / np.sqrt(count))


def sweet_spot(curve: SweepCurve) -> SweetSpot:
    """
    Apply the one-standard-error rule (Breiman et al. 1984) to a curve.

    The spot is the smallest ratio whose mean is within one standard error of the best mean. That
    rule always names one, so it is called resolved only where, seed by seed, it gains more than
    ``CLEAR`` standard errors over the smallest ratio, and where some larger ratio is outside of
    that one error again and behind the best by more than ``CLEAR`` errors of its own, seed by
    seed: else there may be a gain or a plateau, but no spot.
    """
    mean, error, values = curve.mean, curve.error, curve.values
    top = int(mean.argmax())
    best = f"on '{curve.data}' the best ratio is {curve.ratios[top]:g}"
    if values.shape[1] < 2:
        text = f'{best}, but one seed gives no error: no sweet spot is resolved.'
        return SweetSpot(ratio=curve.ratios[top], resolved=False, text=text)
    within = mean >= mean[top] - error[top]
    place = int(within.argmax())
    spot = curve.ratios[place]
    gain = values[place] - values[0]
    rises = place > 0 and _clear(gain)
    falls = any(
        not within[index] and _clear(values[top] - values[index])
        for index in range(place + 1, len(values))
    )
    text = (
        f'{best} with {_shown(mean[top], error[top])}; the smallest within one standard error of '
        f'it is {spot:g}. Seed by seed that gains {_shown(gain.mean(), standard_error(gain))} '
        f'over {curve.ratios[0]:g}. '
    )
    if rises and falls:
        text += f'The sweet spot is {spot:g}.'
    elif not rises:
        text += f'No sweet spot is resolved: no gain over {curve.ratios[0]:g} is clear.'
    elif place == len(values) - 1:
        text += f'No sweet spot is resolved: up to {spot:g} the curve does not come down.'
    else:
        text += f'No sweet spot is resolved: from {spot:g} on it is a plateau.'
    text += f' (Clear: more than {CLEAR} standard errors.)'
    return SweetSpot(ratio=spot, resolved=rises and falls, text=text)


def _clear(differences: Floats) -> bool:
    """Tell whether differences seed by seed are above 0 by more than their error allows."""
    return bool(differences.mean() > CLEAR * standard_error(differences))


def _shown(mean: Any, error: Any) -> str:
    return f'{mean:.3f}' if np.isnan(error) else f'{mean:.3f} ± {error:.3f}'


def _draw(curves: Sequence[SweepCurve], spots: Mapping[str, SweetSpot], path: Path) -> list[Path]:
    """
    Write ``path``.png and .svg and return them: a panel for each data set.

    A line is a variant, dots are seeds, bars standard errors; a dashed line marks a sweet spot
    that is resolved.
    """
    import matplotlib

    matplotlib.use('Agg')
    # the same curve gives the same bytes
    matplotlib.rcParams['svg.hashsalt'] = 'nightseg'
    from matplotlib import pyplot

    specs = list(dict.fromkeys(curve.spec for curve in curves))
    figure, axes = pyplot.subplots(
        1, len(specs), figsize=(3.6 * len(specs), 3.2), squeeze=False, constrained_layout=True,
        sharey=True,
    )  # fmt: skip
    for panel, spec in zip(axes[0], specs):
        for curve in (curve for curve in curves if curve.spec == spec):
            (line, *_) = panel.errorbar(
                curve.ratios, curve.mean, yerr=np.nan_to_num(curve.error), marker='o',
                markersize=4, capsize=3, label=curve.variant,
            )  # fmt: skip
            places = np.repeat(curve.ratios, curve.values.shape[1])
            panel.plot(places, curve.values.ravel(), '.', color=line.get_color(), alpha=0.5)
            if spots[curve.variant].resolved:
                panel.axvline(spots[curve.variant].ratio, color=line.get_color(), ls='--', lw=1)
        panel.set(title=data_names([spec]), xlabel='share of synthetic night')
        panel.grid(alpha=0.3)
    axes[0][0].set_ylabel('mIoU9')
    axes[0][-1].legend(fontsize=8, frameon=False)
    written = []
    for suffix in ('.png', '.svg'):
        file = path.with_suffix(suffix)
        with partial_file(file) as partial:
            figure.savefig(partial, dpi=150, metadata={'Date': None} if suffix == '.svg' else None)
        written.append(file)
    pyplot.close(figure)
    return written
