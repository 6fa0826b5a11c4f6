# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The figure of a sweep: a panel for each data set, bands of one standard error, every seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nightseg_ros.files import partial_file

if TYPE_CHECKING:
    from nightseg_ros.training.sweep_report import Curve

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
