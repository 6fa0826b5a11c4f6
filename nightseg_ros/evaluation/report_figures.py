# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What a report shows beside its tables: drives over time, sample frames.

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
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from nightseg_ros.data.pictures import encode_picture
from nightseg_ros.data.sample import DataError, read_image, read_labels
from nightseg_ros.evaluation.metrics import Floats, Image, PAUSE_S
from nightseg_ros.taxonomy import UNLABELLED
import numpy as np
import numpy.typing as npt

#: Colours that matplotlib draws with, in the place of variables of the style sheet.
_VARIABLES = (
    'ink', 'soft', 'rule', 'accent', 'score',
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


# -- drives over time ----------------------------------------------------------------------------

#: Timelines on one page; a fleet has more drives than anybody scrolls through.
MOST_TIMELINES = 12
#: Least share of a drive that a level is drawn over, so that one frame is seen.
_LEAST = 1 / 480
_STRIPS = {'state': 'state', 'true light': 'light', 'route': 'route', 'no mask': 'lost'}
#: Stamp (ns), curves from 0 to 1, and words.
_KEYS = ('stamp', 'score', 'miou', 'confidence', 'state', 'light', 'route', 'lost')
Track = list[dict[str, Any]]


def draw_timelines(path: Path, drives: Sequence[Any]) -> tuple[list[tuple[str, Markup]], int]:
    """Draw each camera of ``drives`` with its title; return also how many were left out."""
    labels = {run.name: run.label for entry in drives for run in entry.runs}
    # pictures by themselves have no time
    untimed = {s.name for e in drives for s in e.sources if s.first_stamp is None}
    cameras: dict[tuple[str, ...], dict[str, Track]] = {}
    with path.open(encoding='utf-8') if path.is_file() else io.StringIO() as file:
        for line in map(json.loads, file):
            # a frame that could not be decoded has no time
            known = line['stamp'] is not None and line['source'] not in untimed
            if line['run'] in labels and known:
                line['lost'] = 'no mask' if line['error'] else None
                frame = {name: line[name] for name in _KEYS}
                camera = cameras.setdefault((line['source'], line['camera']), {})
                camera.setdefault(labels[line['run']], []).append(frame)
    drawn: list[tuple[str, Markup]] = []
    left_out = 0
    for place, tracks in cameras.items():
        stamps = np.array([frame['stamp'] for frame in next(iter(tracks.values()))])
        steps = np.diff(stamps, prepend=stamps[0]) / 1e9
        # a pause, or a clock that was set, is drawn as one second
        steps[(steps < 0) | (steps > PAUSE_S)] = 1.0
        seconds = np.cumsum(steps)
        if not seconds[-1] > 0:
            continue
        if len(drawn) >= MOST_TIMELINES:
            left_out += 1
            continue
        frames = f'{len(seconds):,} frames'.replace(',', '\u202f')
        title = f'{" ".join(filter(None, place))}: {frames}, {clock(seconds[-1])}'
        drawn.append((title, _draw_drive(tracks, seconds, title)))
    return drawn, left_out


def _draw_drive(tracks: Mapping[str, Track], seconds: Floats, title: str) -> Markup:
    """Draw what all configurations share once, and what differs for each."""

    def rows(names: Mapping[str, str]) -> dict[str, list[Any]]:
        found = {}
        for name, key in names.items():
            each = [[frame[key] for frame in track] for track in tracks.values()]
            for place, (label, values) in enumerate(zip(tracks, each), 1):
                # long names may begin alike
                by = label if len(label) < 35 else f'{place}: {label[:30]}…'
                shared = all(values == others for others in each)
                # a route that never changes is in the configuration's name
                if key != 'route' or len(tracks) == 1 or len({*values} - {None}) > 1:
                    found[name if shared else f'{name}, {by}'] = values
        return found

    labelled = any(frame['miou'] is not None for frame in next(iter(tracks.values())))
    scored = {'mIoU': 'miou'} if labelled else {'confidence': 'confidence'}
    curves = rows({'light score': 'score', **scored})
    strips = {name: words for name, words in rows(_STRIPS).items() if {*words} - {None}}
    with rc_context(_STYLE):
        tall = 0.2 * max(1, len(strips))
        figure = Figure(figsize=(10.5, 2.6 + tall), layout='constrained')
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, tall))
        for number, (name, numbers) in enumerate(curves.items()):
            values = np.array(numbers, np.float64)
            known = np.isfinite(values)
            # a few frames are dots of their own
            few, color = known.sum() <= 150, f'C{number - 1}' if number else _COLORS['score']
            above.plot(seconds[known], values[known], color=color, linewidth=1, label=name,
                       marker='.' if few else '', markersize=4)  # fmt: skip
        above.set_ylim(-0.04, 1.04)
        above.set_yticks((0, 0.5, 1), ('0', '', '1'))
        for row, words in enumerate(strips.values()):
            _draw_strip(below, row, seconds, np.array(words, object))
        below.set_ylim(len(strips) - 0.5, -0.5)
        below.set_yticks(range(len(strips)), list(strips))
        for axes in (above, below):
            axes.tick_params(length=0)
            axes.grid()
        below.set_xlim(0, seconds[-1] * (1 + _LEAST))
        below.xaxis.set_major_locator(MaxNLocator(9, steps=(1, 1.5, 3, 6, 10)))
        short = seconds[-1] < 10
        below.xaxis.set_major_formatter(lambda s, _: f'{s:.1f} s' if short else clock(s))
        used = {word for words in strips.values() for word in words}
        patches = [Patch(color=_COLORS[word], label=word) for word in _COLORS if word in used]
        handles = [*above.get_lines(), *patches]
        figure.legend(handles=handles, loc='outside lower center', ncols=6, frameon=False)
        return _svg(figure, f'{title}. {", ".join((*curves, *strips))}')


def _draw_strip(axes: Axes, row: int, seconds: Floats, words: npt.NDArray[np.object_]) -> None:
    """Draw where each word holds, up to the next frame, at least a moment."""
    first = np.flatnonzero(np.append(True, words[1:] != words[:-1]))
    ends = np.append(seconds[first[1:]], seconds[-1])
    widths = np.maximum(ends - seconds[first], seconds[-1] * _LEAST)
    for word in sorted({*words.tolist()} - {None}):
        held = words[first] == word
        spans = list(zip(seconds[first][held], widths[held]))
        color = _COLORS.get(word, _COLORS['bad'])
        axes.broken_barh(spans, (row - 0.35, 0.7), color=color, linewidth=0)


def clock(seconds: float) -> str:
    """Return seconds as m:ss, or h:mm:ss from an hour on."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02d}:{left:02d}' if hours else f'{minutes}:{left:02d}'


# -- sample frames -------------------------------------------------------------------------------

#: Right, wrong and unlabelled pixels, RGB; blue and orange, which the colour-blind tell apart.
ERROR_COLORS = np.array(((0, 90, 181), (245, 130, 20), (0, 0, 0)), np.uint8)


def draw_sample(
    folder: Path, palette: Image, members: Sequence[tuple[str, Any]], side: int
) -> list[dict[str, Any]]:
    """
    Return input, truth, and mask and errors of one frame by each configuration.

    ``members`` are (label, sample), ``side`` is the long side of the pictures, which are JPEGs as
    'uri', with 'width', 'height', 'title' and 'alt'. ``DataError`` and ``OSError`` say which file
    cannot be shown.
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
    return [
        {'title': title, 'alt': alt.format(f'frame {first.frame}'), **_encoded(picture, side)}
        for picture, title, alt in shown
    ]


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


def _encoded(image: Image, side: int) -> dict[str, Any]:
    """Return a JPEG of at most ``side`` pixels, for a page that phones load over slow networks."""
    height, width = image.shape[:2]
    factor = min(1.0, side / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    content = base64.b64encode(encode_picture('shot.jpg', small, quality=80)).decode('ascii')
    return {'uri': f'data:image/jpeg;base64,{content}', 'width': size[0], 'height': size[1]}
