# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What a report shows beside its tables: drives over time, intervals, reliability, sample frames.

Figures are SVG by matplotlib whose colours are variables of the page's style sheet, so that they
follow a dark scheme. Frames are JPEGs inside the page.
"""

from __future__ import annotations

import base64
import io
import json
import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from nightseg_ros.data.sample import DataError, read_image, read_labels
from nightseg_ros.taxonomy import UNLABELLED

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
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
}  # fmt: skip


def _svg(figure: Figure, title: str) -> Markup:
    """Return a figure as inline SVG that says ``title`` to those who do not see it."""
    stream = io.StringIO()
    figure.savefig(stream, format='svg', transparent=True, metadata={'Date': None})
    text = stream.getvalue()
    text = text[text.index('<svg') :]
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


def draw_intervals(runs: Sequence[Any], title: str) -> Markup:
    """Draw the mIoU of runs, and their differences to the first, with their intervals."""
    rows = [
        (
            (run.all.miou, run.all.miou_ci),
            (run.paired.miou.difference, run.paired.miou.ci) if run.paired else (None, None),
        )
        for run in runs
    ]
    with rc_context(_STYLE):
        height = 0.8 + 0.26 * len(runs)
        figure = Figure(figsize=(9.5, height))
        left, right = figure.subplots(1, 2, sharey=True)
        figure.subplots_adjust(0.24, 0.5 / height, 0.98, 1 - 0.1 / height, wspace=0.08)
        for axes, values in zip((left, right), zip(*rows)):
            for place, (value, bounds) in enumerate(values):
                if bounds is not None:
                    axes.plot(bounds, (place, place), color=_COLORS['accent'], linewidth=1.6)
                if value is not None:
                    axes.plot(value, place, 'o', color=_COLORS['accent'], markersize=5)
            axes.grid(axis='x')
            axes.tick_params(axis='y', length=0)
            axes.locator_params(axis='x', nbins=6)
        left.set_xlabel('mIoU')
        right.set_xlabel(f'mIoU minus that of {_short(runs[0].label)}')
        right.axvline(0, color=_COLORS['ink'], linewidth=0.8)
        left.set_yticks(range(len(runs)), [_short(run.label) for run in runs])
        left.set_ylim(len(runs) - 0.5, -0.5)
        return _svg(figure, title)


def draw_reliability(parts: Mapping[str, Floats], title: str) -> Markup:
    """
    Draw how often labels of each confidence are right (Guo et al. 2017), a diagram for each part.

    The bins are float64 [bins, 5]: low, high, pixels, confidence, accuracy; empty ones are left
    out. Below each diagram lies the share of the pixels in each bin.
    """
    columns = min(len(parts), 4)
    rows = -(-len(parts) // columns)
    with rc_context(_STYLE):
        figure = Figure(figsize=(2.9 * columns, 3.4 * rows))
        grid = figure.add_gridspec(
            2 * rows, columns, height_ratios=[5, 1] * rows, left=0.04, right=0.99,
            bottom=0.13 / rows, top=1 - 0.08 / rows, hspace=0.35, wspace=0.15,
        )  # fmt: skip
        for place, (name, bins) in enumerate(parts.items()):
            row, column = divmod(place, columns)
            axes = figure.add_subplot(grid[2 * row, column])
            below = figure.add_subplot(grid[2 * row + 1, column], sharex=axes)
            low, high, pixels, confidence, accuracy = bins[bins[:, 2] > 0].T
            width = np.maximum(high - low - 0.005, 0.0)
            axes.bar(low, accuracy, width, align='edge', color=_COLORS['accent'], alpha=0.5)
            gap = confidence - accuracy
            colors = [_COLORS['over'] if over > 0 else _COLORS['under'] for over in gap]
            axes.bar(low, gap, width, accuracy, align='edge', color=colors, alpha=0.75)
            axes.plot((0, 1), (0, 1), '--', color=_COLORS['ink'], linewidth=0.8)
            axes.set(xlim=(0, 1), ylim=(0, 1), title=_short(name, 40))
            axes.grid()
            axes.tick_params(labelbottom=False)
            shares = pixels / max(pixels.sum(), 1.0)
            below.bar(low, shares, width, align='edge', color=_COLORS['share'])
            below.set_yticks([])
            below.set_xlabel('confidence; bars: share of the pixels')
        return _svg(figure, title)


# -- drives over time ----------------------------------------------------------------------------

#: Timelines on one page; a fleet has more drives than anybody scrolls through.
MOST_TIMELINES = 12
#: Moments of one drive; a longer one is drawn as the range of each moment.
POINTS = 480
_CURVES = ('score', 'miou', 'confidence')
#: What is one of several words, with the words that have a place of their own.
_STEPS = {
    'state': ('day', 'dusk', 'night', 'glare'),
    'light': ('day', 'dusk', 'night', 'glare'),
    'route': ('day', 'translate', 'night'),
    'error': ('no mask',),
}
_FIELDS = ('stamp', *_CURVES, *_STEPS)
_TITLES = {'score': 'light score', 'light': 'true light', 'miou': 'mIoU', 'error': 'lost'}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lane:
    """One strip of a timeline: a curve, or steps between levels."""

    name: str
    by: str
    """The configuration that it shows, '' where it is the same for all."""
    seconds: Floats
    values: Floats
    """One a frame; NaN where there is none, and an index of ``words`` for steps."""
    levels: dict[str, Flags]
    """Of steps: where each word holds."""

    @property
    def height(self) -> float:
        """Inches."""
        return max(0.3, 0.17 * len(self.levels)) if self.levels else 0.85

    def says(self) -> str:
        """Return what is seen."""
        title = f'{_TITLES.get(self.name, self.name)} {self.by}'.strip()
        if self.levels:
            shares = ', '.join(f'{n} {100 * f.mean():.0f} %' for n, f in self.levels.items())
            changes = int(np.count_nonzero(np.diff(self.values)))
            return f'{title}: {shares} of the frames; {changes} change{"s" * (changes != 1)}'
        known = self.values[np.isfinite(self.values)]
        if not len(known):
            return f'{title}: no values'
        low, high, mean = known.min(), known.max(), known.mean()
        text = f'{title}: {len(known)} values from {low:.3f} to {high:.3f}, mean {mean:.3f}'
        return text.replace('-', '−')


def draw_timelines(path: Path, drives: Sequence[Any]) -> tuple[list[dict[str, Any]], int]:
    """
    Draw each camera of ``drives`` from ``frames.jsonl``; return also how many were left out.

    A drive has a 'title', 'words' by lane and an 'svg'.
    """
    tracks, words = _read_tracks(path)
    drawn: list[dict[str, Any]] = []
    left_out = 0
    for entry in drives:
        labels = {run.name: run.label for run in entry.runs}
        for place in dict.fromkeys(key[1:] for key in tracks if key[0] in labels):
            mine = {
                label: tracks[(name, *place)]
                for name, label in labels.items()
                if (name, *place) in tracks
            }
            first = next(iter(mine.values()))
            length = float(np.ptp(first[:, 0])) / 1e9
            if not length > 0:
                continue
            if len(drawn) >= MOST_TIMELINES:
                left_out += 1
                continue
            lanes = _lanes(mine, words)
            title = ' '.join(filter(None, place)) or entry.name
            said = [lane.says() for lane in lanes]
            svg = _draw_lanes(lanes, length, f'{title}. {". ".join(said)}')
            frames = f'{len(first):,} frames'.replace(',', '\u202f')
            title = f'{title}: {frames}, {clock(length)}'
            drawn.append({'title': title, 'words': said, 'svg': svg})
    return drawn, left_out


def _read_tracks(path: Path) -> tuple[dict[tuple[str, ...], Floats], list[str]]:
    """
    Return float64 [frames, fields] by (run, source, camera), in the order of their stamps.

    Steps are indices of the words that are returned, too. Torn lines, and a missing file, give
    none.
    """
    words = {'': 0}
    # 64 bytes a frame: there may be millions
    tracks: dict[tuple[str, ...], array[float]] = {}
    with (
        path.open(encoding='utf-8', errors='replace') if path.is_file() else io.StringIO() as file
    ):
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            stamp = line.get('stamp') if isinstance(line, dict) else None
            if not isinstance(stamp, int) or abs(stamp) >= 2**63:
                continue
            track = tracks.setdefault(
                tuple(str(line.get(name) or '') for name in ('run', 'source', 'camera')),
                array('d'),
            )
            track.append(stamp)
            for value in map(line.get, _CURVES):
                good = isinstance(value, (int, float)) and abs(value) < 1e30
                track.append(value if good and value is not None else float('nan'))
            for name in _STEPS:
                said = 'no mask' if name == 'error' and line.get(name) else line.get(name)
                said = said if isinstance(said, str) else ''
                track.append(words.setdefault(said, len(words)))
    tables = {key: np.array(track).reshape(-1, len(_FIELDS)) for key, track in tracks.items()}
    return {k: t[np.argsort(t[:, 0], kind='stable')] for k, t in tables.items()}, list(words)


def _lanes(tracks: Mapping[str, Floats], words: Sequence[str]) -> list[_Lane]:
    """Return the strips from top to bottom: what all share, then routes, then scores."""
    first = next(iter(tracks.values()))
    several = len(tracks) > 1
    wanted = [('', first, name) for name in ('score', 'state', 'light')]
    for label, track in tracks.items():
        # a route that never changes is in the configuration's name
        if not several or len(set(track[:, _FIELDS.index('route')]) - {0}) > 1:
            wanted.append((label if several else '', track, 'route'))
    for label, track in tracks.items():
        scored = bool(np.isfinite(track[:, _FIELDS.index('miou')]).any())
        wanted += [
            (label if several else '', track, name)
            for name in ('miou' if scored else 'confidence', 'error')
        ]
    lanes = []
    for by, track, name in wanted:
        values = track[:, _FIELDS.index(name)]
        levels = {}
        if name in _STEPS:
            seen = {words[int(code)]: code for code in np.unique(values) if code}
            order = [*(word for word in _STEPS[name] if word in seen), *sorted(seen)]
            # no more names than one lane holds
            levels = {word: values == seen[word] for word in list(dict.fromkeys(order))[:12]}
        if levels or name in _CURVES:
            seconds = (track[:, 0] - first[0, 0]) / 1e9
            lanes.append(_Lane(name=name, by=by, seconds=seconds, values=values, levels=levels))
    return lanes


def _draw_lanes(lanes: Sequence[_Lane], length: float, title: str) -> Markup:
    between, foot, left, width = 0.14, 0.35, 2.5, 10.5
    total = top = foot + sum(lane.height + between for lane in lanes)
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, total))
        for lane in lanes:
            top -= lane.height + between
            box = (left / width, top / total, 1 - left / width - 0.02, lane.height / total)
            axes = figure.add_axes(box)
            (_draw_steps if lane.levels else _draw_curve)(axes, lane, length)
            axes.set_xlim(0, length)
            axes.tick_params(labelbottom=False, length=0)
            axes.grid(axis='x')
            text = '\n'.join(filter(None, (_TITLES.get(lane.name, lane.name), _short(lane.by))))
            place = (-(left - 0.05) / (width - left - 0.02 * width), 0.5)
            axes.text(*place, text, transform=axes.transAxes, va='center', color=_COLORS['ink'])
        steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
        step = next((step for step in steps if step >= length / 8), 14400)
        for axes in figure.axes:
            axes.xaxis.set_major_locator(MultipleLocator(max(step, length / 50)))
        axes.tick_params(labelbottom=True)
        axes.xaxis.set_major_formatter(
            FuncFormatter(lambda s, _: f'{s:.1f} s' if length < 10 else clock(s))
        )
        return _svg(figure, title)


def _draw_curve(axes: Axes, lane: _Lane, length: float) -> None:
    color = _COLORS['score' if lane.name == 'score' else 'accent']
    x, low, mean, high = thin(lane.seconds / length, lane.values)
    # a few frames are dots of their own; NaN breaks a curve where nothing was seen for long
    dots = '.' if len(x) <= 150 else ''
    cuts = np.flatnonzero(np.diff(x) > _pause(x)) + 1
    x, low, mean, high = (np.insert(values, cuts, np.nan) for values in (x, low, mean, high))
    if np.any(low != high):
        axes.fill_between(x * length, low, high, color=color, alpha=0.3, linewidth=0)
    axes.plot(x * length, mean, color=color, linewidth=1.1, marker=dots, markersize=4)
    axes.set_ylim(-0.04, 1.04)
    axes.set_yticks((0, 0.5, 1), ('0', '', '1'))
    axes.grid(axis='y')


def _draw_steps(axes: Axes, lane: _Lane, length: float) -> None:
    for row, (level, held) in enumerate(lane.levels.items()):
        shown = moments(lane.seconds / length, held)
        ends = np.flatnonzero(np.diff(shown, prepend=False, append=False)) * length / POINTS
        color = _COLORS.get(level, _COLORS['bad' if lane.name == 'error' else 'accent'])
        spans = [(start, end - start) for start, end in zip(ends[::2], ends[1::2])]
        axes.broken_barh(spans, (row - 0.35, 0.7), color=color, linewidth=0)
    axes.set_ylim(len(lane.levels) - 0.5, -0.5)
    axes.set_yticks(range(len(lane.levels)), [_short(level, 12) for level in lane.levels])


def thin(x: Floats, y: Floats, points: int = POINTS) -> tuple[Floats, Floats, Floats, Floats]:
    """
    Return x, lowest, mean and highest y of at most ``points`` moments; x is sorted in [0, 1].

    NaNs of y are left out. The lowest and the highest value of each moment stay, so that no dip
    disappears.
    """
    good = np.isfinite(y)
    x, y = x[good], y[good]
    if len(x) <= points:
        return x, y, y, y
    place = np.clip((x * points).astype(np.int64), 0, points - 1)
    first = np.flatnonzero(np.diff(place, prepend=-1))
    size = np.diff(first, append=len(x))
    mean_x, mean = np.add.reduceat(x, first) / size, np.add.reduceat(y, first) / size
    return mean_x, np.minimum.reduceat(y, first), mean, np.maximum.reduceat(y, first)


def moments(x: Floats, held: Flags) -> Flags:
    """
    Return in which of ``POINTS`` moments ``held`` was so for any frame; x is sorted in [0, 1].

    A frame counts until the next one, after a pause for a usual step, and for one moment at least.
    """
    steps = np.diff(x)
    usual = float(np.median(steps)) if len(steps) else 1 / POINTS
    until = x + np.append(np.where(steps > _pause(x), usual, steps), usual)
    first = np.clip(np.floor(x * POINTS), 0, POINTS - 1).astype(np.int64)
    last = np.clip(np.ceil(until * POINTS - 1e-6), first + 1, POINTS).astype(np.int64)
    change = np.zeros(POINTS + 1, np.int64)
    np.add.at(change, first[held], 1)
    np.add.at(change, last[held], -1)
    return np.asarray(np.cumsum(change)[:-1] > 0)


def _pause(x: Floats) -> float:
    """Return the step between frames that breaks a curve: six usual ones."""
    return max(6.0 * float(np.median(np.diff(x))), 1e-9) if len(x) > 1 else 1.0


def clock(seconds: float) -> str:
    """Return seconds as m:ss, or h:mm:ss from an hour on."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02d}:{left:02d}' if hours else f'{minutes}:{left:02d}'


# -- sample frames -------------------------------------------------------------------------------

#: Bytes that all pictures of a page may take; phones load it over slow networks.
BUDGET = 3_200_000
#: Long side in pixels and JPEG quality, best first; the first that fits the budget is taken.
_SIZES = ((640, 84), (480, 82), (400, 78), (320, 74), (240, 70), (160, 66))
#: Right, wrong and unlabelled pixels, RGB; blue and orange, which the colour-blind tell apart.
ERROR_COLORS = np.array(((0, 90, 181), (245, 130, 20), (0, 0, 0)), np.uint8)


def draw_sample(
    folder: Path, palette: Image, members: Sequence[tuple[str, Any]]
) -> list[dict[str, Any]]:
    """
    Return input, truth, and mask and errors of one frame by each configuration.

    ``members`` are (label, sample). Pictures are mappings of 'image', 'title' and 'alt';
    ``DataError`` and ``OSError`` say which file cannot be shown.
    """
    first = members[0][1]
    image = read_image(_inside(folder, first.image))
    pictures: list[dict[str, Any]] = []

    def add(picture: Image, title: str, alt: str) -> None:
        # no more pixels than a page can show are kept
        small = _shrink(picture, _SIZES[0][0])
        pictures.append(
            {'image': small, 'title': title, 'alt': alt.format(f'frame {first.frame}')}
        )

    def labels_of(name: str) -> Image:
        labels = read_labels(_inside(folder, name))
        if labels.shape != image.shape[:2]:
            raise DataError(f"'{name}' of {labels.shape} does not fit one of {image.shape[:2]}")
        return labels

    add(image, 'input', 'Camera picture of {}')
    truth = labels_of(first.truth) if first.truth else None
    if truth is not None:
        alt = 'Labels of {} over the picture; darkened where not labelled'
        add(_blend(image, palette[truth], 0.5), 'truth', alt)
    # configurations that took one route have the same mask
    masks: dict[bytes, tuple[Image, Any, list[str]]] = {}
    for label, sample in members:
        if sample.labels:
            labels = labels_of(sample.labels)
            masks.setdefault(labels.tobytes(), (labels, sample, []))[2].append(label)
    for labels, sample, by in masks.values():
        after = f', {" and ".join(by)}' if len(members) > 1 else ''
        add(_blend(image, palette[labels], 0.5), f'mask{after}', 'Mask of {} over the picture')
        if truth is not None:
            score = '–' if sample.miou is None else f'{sample.miou:.3f}'
            errors = draw_errors(image, labels, truth)
            add(errors, f'errors{after}: mIoU {score}', 'Errors of {}')
    return pictures


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


def encode(pictures: Sequence[dict[str, Any]], budget: int) -> bool:
    """
    Give the pictures JPEGs as 'uri' of at most ``budget`` bytes in all, 'width' and 'height'.

    They shrink until they fit; False where even the smallest size is too large.
    """
    for long_side, quality in _SIZES:
        spent = 0
        for picture in pictures:
            small = _shrink(picture['image'], long_side)
            flags = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
            _, content = cv2.imencode('.jpg', cv2.cvtColor(small, cv2.COLOR_RGB2BGR), flags)
            data = base64.b64encode(content.tobytes()).decode('ascii')
            picture['uri'] = f'data:image/jpeg;base64,{data}'
            picture['height'], picture['width'] = small.shape[:2]
            spent += len(picture['uri'])
            if spent > budget:
                break
        else:
            return True
    return False


def _shrink(image: Image, long_side: int) -> Image:
    height, width = image.shape[:2]
    factor = min(1.0, long_side / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
