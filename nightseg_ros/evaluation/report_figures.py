# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What a report shows beside its tables: reliability, drives over time, sample frames.

Figures are SVG by matplotlib whose colours are variables of the page's style sheet, so that they
follow a dark scheme. Frames are JPEGs inside the page.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
import io
import json
from pathlib import Path
import re
from typing import Any

import cv2
from markupsafe import escape, Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from nightseg_ros.data.sample import DataError, read_image, read_labels
from nightseg_ros.taxonomy import UNLABELLED
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]

#: Colours that matplotlib draws with, in the place of variables of the style sheet.
_VARIABLES = (
    'ink', 'soft', 'rule', 'accent', 'score', 'over', 'under', 'share',
    'day', 'dusk', 'night', 'glare', 'translate', 'bad',
)  # fmt: skip
_COLORS = {name: f'#fe01{index:02x}' for index, name in enumerate(_VARIABLES)}
_STYLE: Any = {
    'svg.fonttype': 'none', 'svg.hashsalt': 'nightseg', 'text.parse_math': False,
    'font.family': 'sans-serif', 'font.size': 9, 'axes.linewidth': 0.6, 'axes.titlesize': 9,
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.edgecolor': _COLORS['rule'],
    'text.color': _COLORS['soft'], 'axes.labelcolor': _COLORS['soft'],
    'xtick.color': _COLORS['rule'], 'ytick.color': _COLORS['rule'],
    'xtick.labelcolor': _COLORS['soft'], 'ytick.labelcolor': _COLORS['soft'],
    'xtick.labelsize': 8, 'ytick.labelsize': 8, 'grid.color': _COLORS['rule'],
    'grid.linewidth': 0.5, 'axes.axisbelow': True,
    # long curves lose the points that nobody sees, and no extreme
    'path.simplify': True, 'path.simplify_threshold': 0.5,
}  # fmt: skip


def _svg(figure: Figure, title: str) -> Markup:
    """Return a figure as inline SVG that says ``title`` to those who do not see it."""
    stream = io.StringIO()
    figure.savefig(stream, format='svg', transparent=True, metadata={'Date': None})
    text = '<svg' + stream.getvalue().partition('<svg')[2]
    text = re.sub(r'<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->', '', text, flags=re.S)
    # one page holds many figures, and nothing refers to these names
    text = re.sub(r' id="[\w.]+_\d+"| xmlns(:xlink)?="[^"]*"', '', text)
    for name, color in _COLORS.items():
        text = text.replace(color, f'var(--{name})')
    head = f' role="img"><title>{escape(title)}</title>'
    # matplotlib has escaped every name in it
    return Markup(text.replace('>', head, 1))  # noqa: S704  # nosec


def _short(name: str, most: int = 34) -> str:
    return name if len(name) <= most else f'{name[: most - 1]}…'


def draw_reliability(parts: Mapping[str, Any], label: str) -> Markup | None:
    """
    Draw how often labels of each confidence are right (Guo et al. 2017), a diagram for each part.

    ``parts`` are calibrations as ``metrics.calibration`` gives them. Below each diagram lies the
    share of the pixels in each bin. None without parts.
    """
    if not parts:
        return None
    columns = min(len(parts), 4)
    rows = -(-len(parts) // columns)
    with rc_context(_STYLE):
        figure = Figure(figsize=(2.9 * columns, 3.4 * rows))
        grid = figure.add_gridspec(
            2 * rows, columns, height_ratios=[5, 1] * rows, left=0.04, right=0.99,
            bottom=0.13 / rows, top=1 - 0.08 / rows, hspace=0.35, wspace=0.15,
        )  # fmt: skip
        for place, (name, part) in enumerate(parts.items()):
            row, column = divmod(place, columns)
            axes = figure.add_subplot(grid[2 * row, column])
            below = figure.add_subplot(grid[2 * row + 1, column], sharex=axes)
            bins = [[*one.values()] for one in part['bins'] if one['pixels']]
            low, high, pixels, confidence, accuracy = np.array(bins, np.float64).T
            width = high - low - 0.005
            axes.bar(low, accuracy, width, align='edge', color=_COLORS['accent'], alpha=0.5)
            gap = confidence - accuracy
            colors = [_COLORS['over'] if over > 0 else _COLORS['under'] for over in gap]
            axes.bar(low, gap, width, accuracy, align='edge', color=colors, alpha=0.75)
            axes.plot((0, 1), (0, 1), '--', color=_COLORS['ink'], linewidth=0.8)
            axes.set(xlim=(0, 1), ylim=(0, 1), title=_short(name, 40))
            axes.grid()
            axes.tick_params(labelbottom=False)
            below.bar(low, pixels / pixels.sum(), width, align='edge', color=_COLORS['share'])
            below.set_yticks([])
            below.set_xlabel('confidence; bars: share of the pixels')
        return _svg(figure, f'Reliability diagrams of {label}: {", ".join(parts)}')


# -- drives over time ----------------------------------------------------------------------------

#: Timelines on one page; a fleet has more drives than anybody scrolls through.
MOST_TIMELINES = 12
_DAY_S = 86_400.0
_CURVES = ('score', 'miou', 'confidence')
#: What is one of several words, with the words that have a place of their own.
_STEPS = {
    'state': ('day', 'dusk', 'night', 'glare'),
    'light': ('day', 'dusk', 'night', 'glare'),
    'route': ('day', 'translate', 'night'),
    'lost': ('no mask',),
}
_TITLES = {'score': 'light score', 'light': 'true light', 'miou': 'mIoU'}
#: Stamp (ns), and by curve and step what a frame says.
Track = list[dict[str, Any]]


def draw_timelines(path: Path, drives: Sequence[Any]) -> tuple[list[tuple[str, Markup]], int]:
    """
    Draw each camera of ``drives`` from ``frames.jsonl``, with its title.

    Return also how many cameras were left out.
    """
    tracks: dict[tuple[str, str, str], Track] = {}
    with path.open(encoding='utf-8') if path.is_file() else io.StringIO() as file:
        for line in map(json.loads, file):
            # a frame that could not be decoded has no time
            if line['stamp'] is not None:
                line['lost'] = 'no mask' if line['error'] else None
                frame = {name: line[name] for name in ('stamp', *_CURVES, *_STEPS)}
                key = (line['run'], line['source'], line['camera'])
                tracks.setdefault(key, []).append(frame)
    drawn: list[tuple[str, Markup]] = []
    left_out = 0
    for entry in drives:
        labels = {run.name: run.label for run in entry.runs}
        for place in dict.fromkeys(key[1:] for key in tracks if key[0] in labels):
            mine = {labels[run]: track for (run, *own), track in tracks.items()
                    if run in labels and tuple(own) == place}  # fmt: skip
            stamps = np.array([frame['stamp'] for frame in next(iter(mine.values()))])
            steps = np.diff(stamps, prepend=stamps[0]) / 1e9
            # where a clock was set, years would lie between two frames
            steps[(steps < 0) | (steps > _DAY_S)] = 1.0
            seconds = np.cumsum(steps)
            if not seconds[-1] > 0:
                continue
            if len(drawn) >= MOST_TIMELINES:
                left_out += 1
                continue
            frames = f'{len(seconds):,} frames'.replace(',', '\u202f')
            title = f'{" ".join(filter(None, place))}: {frames}, {clock(seconds[-1])}'
            drawn.append((title, _draw_lanes(_lanes(mine), seconds, title)))
    return drawn, left_out


def _lanes(tracks: Mapping[str, Track]) -> list[tuple[str, str, list[Any]]]:
    """Return name, configuration and values of the strips: what all share, routes, scores."""
    first = next(iter(tracks))
    several = len(tracks) > 1
    values = {
        (label, name): [frame[name] for frame in track]
        for label, track in tracks.items() for name in (*_CURVES, *_STEPS)
    }  # fmt: skip
    shown = [(first, name, '') for name in ('score', 'state', 'light')]
    for label in tracks:
        # a route that never changes is in the configuration's name
        if not several or len({*values[label, 'route']} - {None}) > 1:
            shown.append((label, 'route', label))
    for label in tracks:
        scored = any(value is not None for value in values[label, 'miou'])
        shown += [(label, name, label) for name in ('miou' if scored else 'confidence', 'lost')]
    return [
        (name, by if several else '', values[label, name])
        for label, name, by in shown
        if any(value is not None for value in values[label, name])
    ]


def _draw_lanes(
    lanes: Sequence[tuple[str, str, list[Any]]], seconds: Floats, title: str
) -> Markup:
    words = [_levels(name, values) for name, _, values in lanes]
    heights = [max(0.3, 0.17 * len(levels)) if levels else 0.85 for levels in words]
    with rc_context(_STYLE):
        total = sum(heights) + 0.14 * len(lanes) + 0.35
        figure = Figure(figsize=(10.5, total))
        grid = figure.subplots(
            len(lanes), 1, sharex=True, squeeze=False,
            gridspec_kw={
                'height_ratios': heights, 'left': 0.24, 'right': 0.98, 'top': 1 - 0.07 / total,
                'bottom': 0.3 / total, 'hspace': 0.14 * len(lanes) / sum(heights),
            },
        )  # fmt: skip
        for axes, (name, by, values), levels in zip(grid[:, 0], lanes, words):
            if levels:
                _draw_steps(axes, seconds, np.array(values, object), levels)
            else:
                color = _COLORS['score' if name == 'score' else 'accent']
                _draw_curve(axes, seconds, np.array(values, np.float64), color)
            axes.tick_params(length=0)
            axes.grid(axis='x')
            text = '\n'.join(filter(None, (_TITLES.get(name, name), _short(by))))
            axes.text(-0.32, 0.5, text, transform=axes.transAxes, va='center',
                      color=_COLORS['ink'])  # fmt: skip
        axes.set_xlim(0, seconds[-1])
        axes.xaxis.set_major_locator(MaxNLocator(9, steps=(1, 1.5, 3, 6, 10)))
        short = seconds[-1] < 10
        axes.xaxis.set_major_formatter(lambda s, _: f'{s:.1f} s' if short else clock(s))
        return _svg(figure, f'{title}. {", ".join(_TITLES.get(name, name) for name, *_ in lanes)}')


def _levels(name: str, values: Sequence[Any]) -> list[str]:
    """Return the words of a step in their order, no more than a lane holds; [] for a curve."""
    known, said = _STEPS.get(name, ()), {*values} - {None}
    rest = sorted(said - {*known}) if known else []
    return [*(word for word in known if word in said), *rest][:12]


def _draw_curve(axes: Axes, seconds: Floats, values: Floats, color: str) -> None:
    known = np.isfinite(values)
    x, y = seconds[known], values[known]
    # NaN breaks a curve where nothing was seen for long; a few frames are dots of their own
    cuts = np.flatnonzero(np.diff(x) > _pause(x)) + 1
    x, y = np.insert(x, cuts, np.nan), np.insert(y, cuts, np.nan)
    axes.plot(x, y, color=color, linewidth=1, marker='.' if len(x) <= 150 else '', markersize=4)
    axes.set_ylim(-0.04, 1.04)
    axes.set_yticks((0, 0.5, 1), ('0', '', '1'))
    axes.grid(axis='y')


def _draw_steps(
    axes: Axes, seconds: Floats, values: npt.NDArray[np.object_], levels: Sequence[str]
) -> None:
    """Draw where each level holds: up to the next frame, at least a moment, but no pause."""
    usual = float(np.median(np.diff(seconds)))
    ends = np.minimum(np.append(seconds[1:], np.inf), seconds + _pause(seconds))
    pauses = np.diff(seconds, append=np.inf) > _pause(seconds)
    ends[pauses] = seconds[pauses] + usual
    for row, level in enumerate(levels):
        held = values == level
        # a run of frames ends where the next frame has another level, or comes after a pause
        first = np.flatnonzero(held & ~np.append(False, held[:-1] & ~pauses[:-1]))
        last = np.flatnonzero(held & ~np.append(held[1:] & ~pauses[:-1], False))
        widths = np.maximum(ends[last] - seconds[first], seconds[-1] / 480)
        color = _COLORS.get(level, _COLORS['bad' if level == 'no mask' else 'accent'])
        spans = list(zip(seconds[first], widths))
        axes.broken_barh(spans, (row - 0.35, 0.7), color=color, linewidth=0)
    axes.set_ylim(len(levels) - 0.5, -0.5)
    axes.set_yticks(range(len(levels)), [_short(level, 12) for level in levels])


def _pause(seconds: Floats) -> float:
    """Return the step between frames that breaks a curve: six usual ones."""
    return 6.0 * float(np.median(np.diff(seconds))) if len(seconds) > 1 else np.inf


def clock(seconds: float) -> str:
    """Return seconds as m:ss, or h:mm:ss from an hour on."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02d}:{left:02d}' if hours else f'{minutes}:{left:02d}'


# -- sample frames -------------------------------------------------------------------------------

#: By how many pictures a page has at most, their long side in pixels and JPEG quality: phones
#: load it over slow networks.
_SIZES = ((30, 640, 84), (60, 480, 82), (120, 400, 78), (10**9, 320, 74))
#: Right, wrong and unlabelled pixels, RGB; blue and orange, which the colour-blind tell apart.
ERROR_COLORS = np.array(((0, 90, 181), (245, 130, 20), (0, 0, 0)), np.uint8)


def draw_sample(
    folder: Path, palette: Image, members: Sequence[tuple[str, Any]]
) -> list[dict[str, Any]]:
    """
    Return input, truth, and mask and errors of one frame by each configuration.

    ``members`` are (label, sample). Pictures are mappings of 'image' (uint8 RGB), 'title' and
    'alt'; ``DataError`` and ``OSError`` say which file cannot be shown.
    """
    first = members[0][1]
    image = read_image(_inside(folder, first.image))

    def labels_of(name: str) -> Image:
        labels = read_labels(_inside(folder, name))
        if labels.shape != image.shape[:2]:
            raise DataError(f"'{name}' of {labels.shape} does not fit one of {image.shape[:2]}")
        return labels

    shown = [(image, 'input', 'Camera picture of {}')]
    truth = labels_of(first.truth) if first.truth else None
    if truth is not None:
        alt = 'Labels of {} over the picture; darkened where not labelled'
        shown.append((_blend(image, palette[truth], 0.5), 'truth', alt))
    # configurations that took one route have the same mask
    masks: dict[bytes, tuple[Image, Any, list[str]]] = {}
    for label, sample in members:
        if sample.labels:
            labels = labels_of(sample.labels)
            masks.setdefault(labels.tobytes(), (labels, sample, []))[2].append(label)
    for labels, sample, by in masks.values():
        after = f', {" and ".join(by)}' if len(members) > 1 else ''
        mask = _blend(image, palette[labels], 0.5)
        shown.append((mask, f'mask{after}', 'Mask of {} over the picture'))
        if truth is not None:
            score = '–' if sample.miou is None else f'{sample.miou:.3f}'
            errors = draw_errors(image, labels, truth)
            shown.append((errors, f'errors{after}: mIoU {score}', 'Errors of {}'))
    # no more pixels than a page can show are kept
    return [
        {'image': _shrink(picture, _SIZES[0][1]), 'title': title,
         'alt': alt.format(f'frame {first.frame}')}
        for picture, title, alt in shown
    ]  # fmt: skip


def draw_errors(image: Image, labels: Image, truth: Image) -> Image:
    """Return right and wrong pixels over the greyed frame; what nobody labelled stays dark."""
    found = np.where(truth == UNLABELLED, 2, labels != truth)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return _blend(np.asarray(grey, np.uint8), ERROR_COLORS[found], 0.62)


def _blend(image: Image, colors: Image, alpha: float) -> Image:
    return np.asarray(cv2.addWeighted(image, 1 - alpha, colors, alpha, 0), np.uint8)


def _inside(folder: Path, name: str) -> Path:
    """Return the path of a file of the evaluation; a name that leads elsewhere is refused."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DataError(f"'{name}' lies outside the evaluation's folder")
    return path


def encode(pictures: Sequence[dict[str, Any]]) -> None:
    """Give the pictures JPEGs as 'uri', 'width' and 'height'; the more, the smaller."""
    _, side, quality = next(size for size in _SIZES if len(pictures) <= size[0])
    for picture in pictures:
        small = _shrink(picture['image'], side)
        flags = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
        _, content = cv2.imencode('.jpg', cv2.cvtColor(small, cv2.COLOR_RGB2BGR), flags)
        data = base64.b64encode(content.tobytes()).decode('ascii')
        picture['uri'] = f'data:image/jpeg;base64,{data}'
        picture['height'], picture['width'] = small.shape[:2]


def _shrink(image: Image, long_side: int) -> Image:
    height, width = image.shape[:2]
    factor = min(1.0, long_side / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
