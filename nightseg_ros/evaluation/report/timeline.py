# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The section of a report that follows a drive: light, state, route and scores over time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nightseg_ros.evaluation.report.data import Evaluation, ScoredSet
from nightseg_ros.evaluation.report.document import (
    Block,
    Lane,
    Section,
    Text,
    Timeline,
    clock,
    plural,
    share,
)
from nightseg_ros.evaluation.report.figures import curve_lane, describe, step_lane
from nightseg_ros.evaluation.report.tracks import Floats, Track, Tracks

#: Timelines on one page; a fleet has more drives than anybody scrolls through.
MOST_TIMELINES = 12
_STATES = ('day', 'dusk', 'night', 'glare')
_ROUTES = ('day', 'translate', 'night')


def timeline_section(evaluation: Evaluation) -> Section | None:
    """Score, state, route and per-frame scores along each drive."""
    drives = [scored for scored in evaluation.sets if scored.drive]
    if not drives:
        return None
    tracks = Tracks(evaluation.lines())
    blocks: list[Block] = []
    left_out = 0
    for scored in drives:
        names = {run.name for run in scored.runs}
        places = dict.fromkeys(
            (source, camera) for run, source, camera in tracks.tracks if run in names
        )
        for source, camera in places:
            if len(blocks) >= MOST_TIMELINES:
                left_out += 1
                continue
            timeline = _timeline(scored, tracks, source, camera)
            if timeline is not None:
                blocks.append(timeline)
    if not blocks:
        return None
    if left_out:
        blocks.append(
            Text(
                tone='note',
                text=f'{plural(left_out, "more drive")} in frames.jsonl, not drawn here.',
            )
        )
    return Section(name='timeline', title='Along the drive', blocks=tuple(blocks))


def _timeline(scored: ScoredSet, tracks: Tracks, source: str, camera: str) -> Timeline | None:
    mine = [
        (run, tracks.tracks[run.name, source, camera])
        for run in scored.runs
        if (run.name, source, camera) in tracks.tracks
    ]
    first = mine[0][1]
    if len(first.stamps) < 2:
        return None
    seconds = first.seconds()
    length = float(seconds.max())
    if not length > 0:
        return None
    x = seconds / length
    lanes = [
        _curve('light score', '', first, 'score', x, 'score'),
        *_steps('state', '', first, 'state', _STATES, tracks, x),
        *_steps('true light', '', first, 'light', _STATES, tracks, x),
    ]
    several = len(mine) > 1
    for run, track in mine:
        by = run.label if several else ''
        # a route that never changes is in the configuration's name
        if not several or len(set(tracks.steps(track, 'route')) - {''}) > 1:
            x = track.seconds() / length
            lanes += _steps('route', by, track, 'route', _ROUTES, tracks, x)
    for run, track in mine:
        by = run.label if several else ''
        x = track.seconds() / length
        if np.isfinite(track.curve('miou')).any():
            lanes.append(_curve('mIoU', by, track, 'miou', x, ''))
        else:
            lanes.append(_curve('confidence', by, track, 'confidence', x, ''))
        lanes += _steps('lost', by, track, 'error', ('no mask',), tracks, x)
    title = ' '.join(part for part in (source, camera) if part) or scored.name
    frames = len(first.stamps)
    return Timeline(
        caption=f'{title}: {plural(frames, "frame")}, {clock(length)}',
        lanes=tuple(lane for lane in lanes if lane.markup),
        ticks=_ticks(length),
        axis='Time since the first frame. mIoU and confidence are of the single frame. Where '
        'there are more frames than can be drawn, a shaded band spans the lowest and the highest '
        'value of each moment.',
    )


def _curve(title: str, by: str, track: Track, name: str, x: Floats, tone: str) -> Lane:
    y = track.curve(name)
    order = np.argsort(x, kind='stable')
    about = describe(f'{title} {by}'.strip(), y)
    return curve_lane(title, by, x[order], y[order], tone=tone, about=about)


def _steps(
    title: str,
    by: str,
    track: Track,
    name: str,
    known: tuple[str, ...],
    tracks: Tracks,
    x: Floats,
) -> Iterator[Lane]:
    names = tracks.steps(track, name)
    order = np.argsort(x, kind='stable')
    names = [names[index] for index in order]
    seen = {text for text in names if text}
    levels = [text for text in known if text in seen] + sorted(seen - set(known))
    if not levels:
        return
    changes = sum(a != b for a, b in zip(names, names[1:]))
    shares = ', '.join(f'{text} {share(names.count(text) / len(names), 0)}' for text in levels)
    about = f'{f"{title} {by}".strip()}: {shares} of the frames; {plural(changes, "change")}'
    yield step_lane(title, by, x[order], names, levels, about=about)


def _ticks(length: float) -> tuple[tuple[float, str], ...]:
    """Return about six marks at round times, and the ends."""
    rough = length / 6
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
    step = next((step for step in steps if step >= rough), 14400)
    marks = np.arange(0, length - 0.6 * step, step).tolist()
    words = (lambda s: f'{s:.1f} s') if length < 10 else clock
    return tuple((mark / length, words(mark)) for mark in [*marks, length])
