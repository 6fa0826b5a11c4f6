# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Drawings of a report: inline SVG whose colours come from the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

from nightseg_ros.evaluation.report.document import Lane, number

Floats = npt.NDArray[np.float64]

#: Points of one curve; a longer drive is drawn as the range of each of so many moments.
POINTS = 480
#: A pause of so many usual steps between frames breaks a curve.
_GAP = 6.0
#: Up to so many frames each is a dot of its own.
_DOTS = 150


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A quantity along a drive, thinned; NaN where a moment has no value."""

    x: Floats
    """Middle of each moment, 0 to 1, rising."""
    low: Floats
    mean: Floats
    high: Floats

    @classmethod
    def thin(cls, x: Floats, y: Floats, points: int = POINTS) -> Curve:
        """
        Keep at most ``points`` moments of y(x); x is sorted in [0, 1], NaNs of y are left out.

        The lowest and the highest value of each moment stay, so that no dip disappears.
        """
        good = np.isfinite(y)
        x, y = x[good], y[good]
        if len(x) <= points:
            return cls(x=x, low=y, mean=y, high=y)
        place = np.minimum((x * points).astype(np.int64), points - 1)
        first = np.flatnonzero(np.diff(place, prepend=-1))
        size = np.diff(first, append=len(x))
        return cls(
            x=np.add.reduceat(x, first) / size,
            low=np.minimum.reduceat(y, first),
            mean=np.add.reduceat(y, first) / size,
            high=np.maximum.reduceat(y, first),
        )


def curve_lane(title: str, by: str, x: Floats, y: Floats, *, tone: str, about: str) -> Lane:
    """Draw a quantity in [0, 1] over x in [0, 1], both float64 [frames]; NaN is not drawn."""
    curve = Curve.thin(x, y)
    parts = [Markup('<path class="grid" d="M0 50H1000"/>')]
    for piece in _pieces(curve.x):
        left, right = curve.x[piece] * 1000, curve.x[piece][::-1] * 1000
        low, high = _down(curve.low[piece])[::-1], _down(curve.high[piece])
        if np.any(low[::-1] != high):
            band = _path(np.r_[left, right], np.r_[high, low])
            parts.append(Markup('<path class="band {}" d="{}Z"/>').format(tone, band))
        line = _path(left, _down(curve.mean[piece]))
        parts.append(Markup('<path class="line {}" d="{}"/>').format(tone, line))
    if len(curve.x) <= _DOTS:
        dots = ''.join(f'M{a:.1f} {b:.1f}h0' for a, b in zip(curve.x * 1000, _down(curve.mean)))
        parts.append(Markup('<path class="dots {}" d="{}"/>').format(tone, dots))
    return Lane(title=title, by=by, markup=Markup().join(parts), about=about, levels=('1', '0'))


def step_lane(
    title: str,
    by: str,
    x: Floats,
    names: Sequence[str],
    levels: Sequence[str],
    *,
    about: str,
) -> Lane:
    """
    Draw which of ``levels`` held when: x float64 [frames] in [0, 1], one name a frame.

    Each level is a band of its own. Where a drive is longer than what can be drawn, a band is
    filled wherever its level held for at least one frame.
    """
    height = 100 / max(len(levels), 1)
    parts = []
    code = np.array([levels.index(name) if name in levels else -1 for name in names], np.int64)
    edges = _edges(x)
    for row, name in enumerate(levels):
        mine = code == row
        starts = np.flatnonzero(mine & ~np.r_[False, mine[:-1]])
        ends = np.flatnonzero(mine & ~np.r_[mine[1:], False])
        spans = _merge(edges[starts, 0], edges[ends, 1])
        path = ''.join(f'M{a:.1f} 0H{b:.1f}' for a, b in spans * 1000)
        if path:
            parts.append(
                Markup('<path class="step s-{}" transform="translate(0 {})" d="{}"/>').format(
                    name, f'{(row + 0.5) * height:.1f}', path
                )
            )
    return Lane(
        title=title,
        by=by,
        markup=Markup().join(parts),
        about=about,
        levels=tuple(levels),
        rows=True,
    )


def reliability(
    title: str, low: Floats, high: Floats, pixels: Floats, confidence: Floats, accuracy: Floats
) -> Markup:
    """
    Draw how often labels of each confidence are right (Guo et al. 2017), as inline SVG.

    All float64 [bins] in [0, 1] except ``pixels``, a count; empty bins are left out. Below lies
    the share of the pixels in each bin.
    """
    left, top, side, foot = 34, 8, 220, 34
    whole = max(float(pixels.sum()), 1.0)
    most = max(float(pixels.max(initial=0.0)) / whole, 1e-9)
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y, x = top + side * (1 - tick), left + side * tick
        parts.append(Markup('<path class="grid" d="M{0} {1}h{2}"/>').format(left, _short(y), side))
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(
                left - 5, _short(y + 4), f'{tick:g}'
            )
        )
        parts.append(
            Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
                _short(x), top + side + foot + 22, f'{tick:g}'
            )
        )
    for index in np.flatnonzero(pixels > 0):
        x, width = left + side * low[index], side * (high[index] - low[index]) - 1
        right, said = side * accuracy[index], side * confidence[index]
        parts.append(
            Markup('<rect class="right" x="{}" y="{}" width="{}" height="{}"/>').format(
                _short(x), _short(top + side - right), _short(width), _short(right)
            )
        )
        over = said > right
        parts.append(
            Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
                'over' if over else 'under',
                _short(x),
                _short(top + side - max(right, said)),
                _short(width),
                _short(abs(said - right)),
            )
        )
        tall = foot * float(pixels[index]) / whole / most
        parts.append(
            Markup('<rect class="share" x="{}" y="{}" width="{}" height="{}"/>').format(
                _short(x), _short(top + side + 6 + foot - tall), _short(width), _short(tall)
            )
        )
    parts.append(
        Markup('<path class="diagonal" d="M{} {}L{} {}"/>').format(
            left, top + side, left + side, top
        )
    )
    parts.append(
        Markup('<text x="{}" y="{}" text-anchor="middle">confidence</text>').format(
            left + side // 2, top + side + foot + 40
        )
    )
    size = (left + side + 12, top + side + foot + 46)
    return Markup(
        '<svg class="reliability" role="img" viewBox="0 0 {} {}" width="{}" height="{}">'
        '<title>{}</title>{}</svg>'
    ).format(*size, *size, title, Markup().join(parts))


def describe(name: str, y: Floats) -> str:
    """Say a curve in words."""
    good = y[np.isfinite(y)]
    if not len(good):
        return f'{name}: no values'
    return (
        f'{name}: {len(good)} values from {number(float(good.min()))} '
        f'to {number(float(good.max()))}, mean {number(float(good.mean()))}'
    )


def _pieces(x: Floats) -> list[slice]:
    """Cut x where a pause is much longer than the usual step."""
    if len(x) < 2:
        return [slice(0, len(x))]
    steps = np.diff(x)
    cuts = np.flatnonzero(steps > max(_GAP * float(np.median(steps)), 1e-9)) + 1
    bounds = [0, *cuts.tolist(), len(x)]
    return [slice(a, b) for a, b in zip(bounds[:-1], bounds[1:])]


def _edges(x: Floats) -> Floats:
    """Return where each frame begins and ends to count, float64 [frames, 2], in [0, 1]."""
    edges = np.empty((len(x), 2))
    for piece in _pieces(x):
        part = x[piece]
        usual = float(np.median(np.diff(part))) if len(part) > 1 else 0.004
        edges[piece, 0] = part
        edges[piece, 1] = np.r_[part[1:], part[-1:] + usual]
    return np.clip(edges, 0, 1)


def _merge(starts: Floats, ends: Floats) -> Floats:
    """Join spans that are nearer to each other than can be seen; float64 [spans, 2]."""
    if not len(starts):
        return np.empty((0, 2))
    apart = np.r_[True, starts[1:] - ends[:-1] > 1 / (4 * POINTS)]
    first = np.flatnonzero(apart)
    last = np.r_[first[1:] - 1, len(starts) - 1]
    ends = np.maximum(ends[last], starts[first] + 1 / POINTS)
    return np.stack([starts[first], np.minimum(ends, 1.0)], axis=1)


def _down(y: Floats) -> Floats:
    """Return y in [0, 1] as a place in a box of 100, whose y axis points down."""
    return np.asarray(100 * (1 - np.clip(y, 0, 1)), np.float64)


def _path(x: Floats, y: Floats) -> Markup:
    return escape('M' + 'L'.join(f'{a:.1f} {b:.1f}' for a, b in zip(x, y)))


def _short(value: float) -> str:
    return f'{value:.1f}'
