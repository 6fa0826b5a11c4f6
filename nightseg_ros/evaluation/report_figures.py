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
from nightseg_ros.taxonomy import UNLABELLED, Taxonomy

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]

#: Colours that matplotlib draws with, in the place of variables of the style sheet.
_VARIABLES = (
    'ink', 'soft', 'rule', 'accent', 'score', 'over', 'under', 'share', 'panel',
    'day', 'dusk', 'night', 'glare', 'translate', 'bad',
)  # fmt: skip
_COLORS = {name: f'#fe01{index:02x}' for index, name in enumerate(_VARIABLES)}
_STYLE: Any = {
    'svg.fonttype': 'none', 'svg.hashsalt': 'nightseg', 'text.parse_math': False,
    'font.family': 'sans-serif', 'font.size': 9, 'axes.linewidth': 0.6,
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


# -- intervals and reliability -------------------------------------------------------------------

Row = tuple[
    str, float | None, tuple[float, float] | None, float | None, tuple[float, float] | None
]


def draw_intervals(rows: Sequence[Row], reference: str, title: str) -> Markup:
    """Draw scores, and differences to ``reference``, with their intervals."""
    with rc_context(_STYLE):
        height = 0.8 + 0.26 * len(rows)
        figure = Figure(figsize=(9.5, height))
        left, right = figure.subplots(1, 2, sharey=True)
        figure.subplots_adjust(0.24, 0.5 / height, 0.98, 1 - 0.1 / height, wspace=0.08)
        for axes, value, bounds in ((left, 1, 2), (right, 3, 4)):
            for place, row in enumerate(rows):
                if row[bounds] is not None:
                    axes.plot(row[bounds], (place, place), color=_COLORS['accent'], linewidth=1.6)
                if row[value] is not None:
                    axes.plot(row[value], place, 'o', color=_COLORS['accent'], markersize=5)
            axes.grid(axis='x')
            axes.tick_params(axis='y', length=0)
            axes.locator_params(axis='x', nbins=6)
        left.set_xlabel('mIoU')
        right.set_xlabel(f'mIoU minus that of {_short(reference)}')
        right.axvline(0, color=_COLORS['ink'], linewidth=0.8)
        left.set_yticks(range(len(rows)), [_short(row[0]) for row in rows])
        left.set_ylim(len(rows) - 0.5, -0.5)
        return _svg(figure, title)


def draw_reliability(bins: Floats, title: str) -> Markup:
    """
    Draw how often labels of each confidence are right (Guo et al. 2017).

    ``bins`` are float64 [bins, 5]: low, high, pixels, confidence, accuracy; empty ones are left
    out. Below lies the share of the pixels in each bin.
    """
    low, high, pixels, confidence, accuracy = bins[bins[:, 2] > 0].T
    with rc_context(_STYLE):
        figure = Figure(figsize=(2.9, 3.2))
        axes = figure.add_axes((0.14, 0.31, 0.82, 0.66))
        below = figure.add_axes((0.14, 0.13, 0.82, 0.12), sharex=axes)
        width = np.maximum(high - low - 0.005, 0.0)
        axes.bar(low, accuracy, width, align='edge', color=_COLORS['accent'], alpha=0.5)
        gap = confidence - accuracy
        colors = [_COLORS['over'] if over > 0 else _COLORS['under'] for over in gap]
        axes.bar(low, gap, width, accuracy, align='edge', color=colors, alpha=0.75)
        axes.plot((0, 1), (0, 1), '--', color=_COLORS['ink'], linewidth=0.8)
        below.bar(low, pixels / max(pixels.sum(), 1.0), width, align='edge',
                  color=_COLORS['share'])  # fmt: skip
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.grid()
        axes.tick_params(labelbottom=False)
        below.set_yticks([])
        below.set_xlabel('confidence; below: share of the pixels')
        return _svg(figure, f'Reliability diagram of {title}')


# -- drives over time ----------------------------------------------------------------------------

#: Timelines on one page; a fleet has more drives than anybody scrolls through.
MOST_TIMELINES = 12
#: Moments of one drive; a longer one is drawn as the range of each moment.
POINTS = 480
#: A pause of so many usual steps between frames breaks a curve.
_PAUSE = 6.0
#: Up to so many frames each is a dot of its own.
_DOTS = 150
#: Names down the left edge of one lane.
_MOST_LEVELS = 12
_CURVES = ('score', 'miou', 'confidence')
_STEPS = {
    'state': ('day', 'dusk', 'night', 'glare'),
    'light': ('day', 'dusk', 'night', 'glare'),
    'route': ('day', 'translate', 'night'),
    'error': ('no mask',),
}
_TITLES = {'score': 'light score', 'light': 'true light', 'miou': 'mIoU', 'error': 'lost'}


class _Track:
    """One configuration along one drive, about 30 bytes a frame: there may be millions."""

    def __init__(self) -> None:
        self.stamps = array('q')
        self.curves = {name: array('f') for name in _CURVES}
        self.codes = {name: array('h') for name in _STEPS}

    def add(self, stamp: int, line: Mapping[str, Any], codes: dict[str, int]) -> None:
        self.stamps.append(stamp)
        for name, values in self.curves.items():
            value = line.get(name)
            good = isinstance(value, (int, float)) and abs(value) < 1e30
            values.append(float(value) if good and value is not None else float('nan'))
        for name, numbers in self.codes.items():
            text = 'no mask' if name == 'error' and line.get(name) else line.get(name)
            text = text if isinstance(text, str) else ''
            if len(codes) < 1000:
                codes.setdefault(text, len(codes))
            numbers.append(codes.get(text, 0))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lane:
    name: str
    by: str
    """The configuration that it shows, '' where it is the same for all."""
    seconds: Floats
    values: Floats
    """Of a curve, one a frame; NaN where there is none."""
    names: list[str]
    """Of steps, one a frame."""
    levels: list[str]

    @property
    def title(self) -> str:
        return f'{_TITLES.get(self.name, self.name)} {self.by}'.strip()

    @property
    def height(self) -> float:
        """Inches."""
        return max(0.3, 0.17 * len(self.levels)) if self.levels else 0.85

    def words(self) -> str:
        """Say what is seen."""
        if not self.levels:
            good = self.values[np.isfinite(self.values)]
            if not len(good):
                return f'{self.title}: no values'
            low, high, mean = good.min(), good.max(), good.mean()
            text = (
                f'{self.title}: {len(good)} values from {low:.3f} to {high:.3f}, mean {mean:.3f}'
            )
            return text.replace('-', '−')
        count = len(self.names)
        shares = ', '.join(f'{n} {100 * self.names.count(n) / count:.0f} %' for n in self.levels)
        changes = sum(a != b for a, b in zip(self.names, self.names[1:]))
        return f'{self.title}: {shares} of the frames; {changes} change{"s" * (changes != 1)}'


def draw_timelines(path: Path, drives: Sequence[Any]) -> tuple[list[dict[str, Any]], int]:
    """
    Draw each camera of ``drives`` from ``frames.jsonl``; return also how many were left out.

    A drive has a 'title', a count of 'frames', a 'length' as text, 'words' by lane and an 'svg'.
    """
    codes = {'': 0}
    tracks = _read_tracks(path, codes)
    names = list(codes)
    drawn: list[dict[str, Any]] = []
    left_out = 0
    for entry in drives:
        runs = {run['name']: run['label'] for run in entry['runs']}
        for place in dict.fromkeys(key[1:] for key in tracks if key[0] in runs):
            mine = {
                label: tracks[(run, *place)]
                for run, label in runs.items()
                if (run, *place) in tracks
            }
            first = next(iter(mine.values()))
            length = (max(first.stamps) - min(first.stamps)) / 1e9
            if not length > 0:
                continue
            if len(drawn) >= MOST_TIMELINES:
                left_out += 1
                continue
            lanes = _lanes(mine, names)
            words = [lane.words() for lane in lanes]
            title = ' '.join(filter(None, place)) or entry['name']
            svg = _draw_lanes(lanes, length, f'{title}. {". ".join(words)}')
            frames = len(first.stamps)
            found = {'title': title, 'frames': frames, 'length': clock(length)}
            drawn.append({**found, 'words': words, 'svg': svg})
    return drawn, left_out


def _read_tracks(path: Path, codes: dict[str, int]) -> dict[tuple[str, ...], _Track]:
    """Return the frames by (run, source, camera); torn lines, and a missing file, give none."""
    tracks: dict[tuple[str, ...], _Track] = {}
    if not path.is_file():
        return tracks
    with path.open(encoding='utf-8', errors='replace') as stream:
        for text in stream:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            stamp = line.get('stamp') if isinstance(line, dict) else None
            if isinstance(stamp, int) and abs(stamp) < 2**63:
                key = tuple(str(line.get(name) or '') for name in ('run', 'source', 'camera'))
                tracks.setdefault(key, _Track()).add(stamp, line, codes)
    return tracks


def _lanes(tracks: Mapping[str, _Track], names: Sequence[str]) -> list[_Lane]:
    """Return the strips from top to bottom: what all share, then routes, then scores."""
    start = min(next(iter(tracks.values())).stamps)

    def lane(track: _Track, name: str, by: str = '') -> list[_Lane]:
        seconds = (np.frombuffer(track.stamps, np.int64) - start) / 1e9
        order = np.argsort(seconds, kind='stable')
        values, texts, levels = np.empty(0), [], []
        if name in _CURVES:
            values = np.frombuffer(track.curves[name], np.float32).astype(np.float64)[order]
        else:
            codes = np.frombuffer(track.codes[name], np.int16)[order]
            texts = [names[code] for code in codes.tolist()]
            seen = set(texts) - {''}
            levels = [level for level in _STEPS[name] if level in seen]
            levels = [*levels, *sorted(seen - set(levels))][:_MOST_LEVELS]
            if not levels:
                return []
        return [
            _Lane(name=name, by=by, seconds=seconds[order], values=values, names=texts,
                  levels=levels)
        ]  # fmt: skip

    first = next(iter(tracks.values()))
    several = len(tracks) > 1
    found = [*lane(first, 'score'), *lane(first, 'state'), *lane(first, 'light')]
    for label, track in tracks.items():
        # a route that never changes is in the configuration's name
        if not several or len(set(track.codes['route']) - {0}) > 1:
            found += lane(track, 'route', label if several else '')
    for label, track in tracks.items():
        by = label if several else ''
        scored = bool(np.isfinite(np.frombuffer(track.curves['miou'], np.float32)).any())
        found += lane(track, 'miou' if scored else 'confidence', by) + lane(track, 'error', by)
    return found


def _draw_lanes(lanes: Sequence[_Lane], length: float, title: str) -> Markup:
    between, foot, left, width = 0.14, 0.35, 2.5, 10.5
    total = foot + sum(lane.height + between for lane in lanes)
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, total))
        top = total
        for lane in lanes:
            top -= lane.height + between
            box = (left / width, top / total, 1 - left / width - 0.02, lane.height / total)
            axes = figure.add_axes(box)
            axes.set_xlim(0, length)
            (_draw_steps if lane.levels else _draw_curve)(axes, lane, length)
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
    dots = '.' if len(x) <= _DOTS else ''
    # NaN breaks a curve where a pause is much longer than the usual step
    cuts = np.flatnonzero(np.diff(x) > _pause(x)) + 1
    x, low, mean, high = (np.insert(values, cuts, np.nan) for values in (x, low, mean, high))
    if np.any(low != high):
        axes.fill_between(x * length, low, high, color=color, alpha=0.3, linewidth=0)
    axes.plot(x * length, mean, color=color, linewidth=1.1, marker=dots, markersize=4)
    axes.set_ylim(-0.04, 1.04)
    axes.set_yticks((0, 0.5, 1), ('0', '', '1'))
    axes.grid(axis='y')


def _draw_steps(axes: Axes, lane: _Lane, length: float) -> None:
    for row, level in enumerate(lane.levels):
        held = np.array([name == level for name in lane.names])
        spans = [(a * length, b * length) for a, b in runs_of(lane.seconds / length, held)]
        color = _COLORS.get(level, _COLORS['bad' if lane.name == 'error' else 'accent'])
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
    mean = np.add.reduceat(y, first) / size
    return (
        np.add.reduceat(x, first) / size, np.minimum.reduceat(y, first), mean,
        np.maximum.reduceat(y, first),
    )  # fmt: skip


def runs_of(x: Floats, held: npt.NDArray[np.bool_]) -> list[tuple[float, float]]:
    """
    Return (start, length) of the stretches in which ``held`` was so; x is sorted in [0, 1].

    A frame counts until the next one, after a pause for a usual step. Ends lie on a grid of
    ``POINTS`` moments, so that a single frame stays visible.
    """
    steps = np.diff(x)
    usual = float(np.median(steps)) if len(steps) else 1 / POINTS
    until = x + np.append(np.where(steps > _pause(x), usual, steps), usual)
    first = np.clip(np.floor(x * POINTS), 0, POINTS - 1).astype(np.int64)
    last = np.clip(np.ceil(until * POINTS - 1e-6), first + 1, POINTS).astype(np.int64)
    change = np.zeros(POINTS + 1, np.int64)
    np.add.at(change, first[held], 1)
    np.add.at(change, last[held], -1)
    edges = np.flatnonzero(np.diff(np.cumsum(change) > 0, prepend=False))
    return [(a / POINTS, (b - a) / POINTS) for a, b in zip(edges[::2], edges[1::2])]


def _pause(x: Floats) -> float:
    return max(_PAUSE * float(np.median(np.diff(x))), 1e-9) if len(x) > 1 else 1.0


def clock(seconds: float) -> str:
    """Return seconds as m:ss, or h:mm:ss from an hour on."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02d}:{left:02d}' if hours else f'{minutes}:{left:02d}'


# -- sample frames -------------------------------------------------------------------------------

#: Frames on one page.
MOST_FRAMES = 18
#: Bytes that all pictures of a page may take; phones load it over slow networks.
BUDGET = 3_200_000
#: Long side in pixels and JPEG quality, best first; the first that fits the budget is taken.
_SIZES = ((640, 84), (480, 82), (400, 78), (320, 74), (240, 70), (160, 66))
#: Kinds of samples in the order in which they are shown, and what is said of them.
_KINDS = {
    'best': 'Best frame',
    'median': 'Median frame',
    'worst': 'Worst frame',
    'different': 'Configurations differ',
    'spread': 'Frame',
}
#: Right, wrong and unlabelled pixels, RGB; blue and orange, which the colour-blind tell apart.
ERROR_COLORS = np.array(((0, 90, 181), (245, 130, 20), (0, 0, 0)), np.uint8)


@dataclass(kw_only=True, slots=True)
class FramePictures:
    """One sample frame with every configuration."""

    set: str
    drive: bool
    kind: str
    members: list[tuple[Any, Any]]
    """(run, sample) of each configuration."""
    pictures: list[Any]
    """Mappings of 'image', then 'uri', 'title', 'alt', 'width', 'height'."""

    @property
    def title(self) -> str:
        """What is said of its kind."""
        return _KINDS.get(self.kind, 'Frame')

    @property
    def truth(self) -> bool:
        """Whether it has labels."""
        return any(sample.get('truth') for _, sample in self.members)


def draw_frames(
    folder: Path, taxonomy: Taxonomy, sets: Sequence[Any]
) -> tuple[list[FramePictures], list[str]]:
    """Draw the sample frames of every set; return also what cannot be shown, in sentences."""
    found = [shot for entry in sets for shot in _samples(entry)]
    shots, problems = [], []
    for shot in found[:MOST_FRAMES]:
        try:
            shot.pictures = _draw_frame(folder, taxonomy.palette(), shot)
            shots.append(shot)
        except (DataError, OSError) as error:
            problems.append(f'A frame of {shot.set} cannot be shown: {error}')
    if not encode([picture for shot in shots for picture in shot.pictures], BUDGET):
        shots = []
        problems.append('The pictures are too many for one page; they lie in samples/.')
    more = len(found) - MOST_FRAMES
    if more > 0:
        problems.append(f'{more} more frame{"s" * (more != 1)} in samples/.')
    return shots, problems


def _samples(entry: Any) -> list[FramePictures]:
    """Return the samples of a set, one for all configurations."""
    found: dict[tuple[str, ...], FramePictures] = {}
    for run in entry['runs']:
        samples = run.get('samples')
        for sample in samples if isinstance(samples, list) else ():
            if isinstance(sample, dict):
                key = tuple(str(sample.get(name) or '') for name in ('kind', 'source', 'frame'))
                shot = FramePictures(
                    set=entry['name'], drive=entry.get('kind') == 'recordings', kind=key[0],
                    members=[], pictures=[],
                )  # fmt: skip
                found.setdefault(key, shot).members.append((run, sample))
    order = list(_KINDS)
    return sorted(found.values(), key=lambda s: order.index(s.kind) if s.kind in order else 99)


def _draw_frame(folder: Path, palette: Image, shot: FramePictures) -> list[dict[str, Any]]:
    """Return input, truth, and mask and errors of each configuration."""
    first = shot.members[0][1]
    name = first.get('frame')
    image = read_image(_inside(folder, first.get('image')))
    pictures = [_picture(image, 'input', f'Camera picture of frame {name}')]
    truth = None
    if first.get('truth'):
        truth = _labels(folder, first.get('truth'), image)
        alt = f'Labels of frame {name} over the picture; darkened where not labelled'
        pictures.append(_picture(_blend(image, palette[truth], 0.5), 'truth', alt))
    # configurations that took one route have the same mask
    masks: list[tuple[Image, Any, list[str]]] = []
    for run, sample in shot.members:
        if not sample.get('labels'):
            continue
        labels = _labels(folder, sample.get('labels'), image)
        same = next((by for mask, _, by in masks if np.array_equal(mask, labels)), None)
        if same is None:
            masks.append((labels, sample, [run['label']]))
        else:
            same.append(run['label'])
    for labels, sample, by in masks:
        after = f', {" and ".join(by)}' if len(shot.members) > 1 else ''
        alt = f'Mask of frame {name} over the picture{after}'
        pictures.append(_picture(_blend(image, palette[labels], 0.5), f'mask{after}', alt))
        if truth is not None:
            miou = sample.get('miou')
            score = f'{miou:.3f}' if isinstance(miou, float) else '–'
            title, alt = f'errors{after}: mIoU {score}', f'Errors of frame {name}{after}'
            pictures.append(_picture(draw_errors(image, labels, truth), title, alt))
    return pictures


def draw_errors(image: Image, labels: Image, truth: Image) -> Image:
    """Return right and wrong pixels over the greyed frame; what nobody labelled stays dark."""
    found = np.where(truth == UNLABELLED, 2, labels != truth)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return _blend(np.asarray(grey, np.uint8), ERROR_COLORS[found], 0.62)


def _labels(folder: Path, name: Any, image: Image) -> Image:
    labels = read_labels(_inside(folder, name))
    if labels.shape != image.shape[:2]:
        raise DataError(f"'{name}' of {labels.shape} does not fit a picture of {image.shape[:2]}")
    return labels


def _blend(image: Image, colors: Image, alpha: float) -> Image:
    return np.asarray(cv2.addWeighted(image, 1 - alpha, colors, alpha, 0), np.uint8)


def _inside(folder: Path, name: Any) -> Path:
    """Return the path of a file of the evaluation; a name that leads elsewhere is refused."""
    path = (folder / str(name)).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DataError(f"'{name}' lies outside the evaluation's folder")
    return path


def _picture(image: Image, title: str, alt: str) -> dict[str, Any]:
    # no more pixels than a page can show are kept
    return {'image': _shrink(image, _SIZES[0][0]), 'title': title, 'alt': alt}


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
