# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
``report.html`` of a finished evaluation.

``report.jinja`` writes ``metrics.json`` in its order and words, as a page that needs no network
and runs no script; here is what it needs beside: numbers as text, and sample frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
import json
import math
from pathlib import Path
import re
import shlex
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from nightseg_ros.data.sample import DataError
from nightseg_ros.evaluation.metrics import VERSION
from nightseg_ros.evaluation.report_figures import draw_sample, draw_timelines, ERROR_COLORS
from nightseg_ros.files import replace_file
from nightseg_ros.taxonomy import Taxonomy, TaxonomyError

FOLDER = Path(__file__).parent
#: What stands where there is no number: a class that does not occur, a score without labels.
ABSENT = '–'
#: Kinds of sample frames in the order in which they are shown.
SAMPLES = {
    'best': 'Best frame',
    'median': 'Median frame',
    'worst': 'Worst frame',
    'different': 'Configurations differ',
    'spread': 'Frame',
}
#: Frames of a set that are shown.
MOST_FRAMES = 18
#: Rows of a table that lists sources or errors; metrics.json holds the others.
MOST_ROWS = 60
#: Scores of the first table.
SCORES = {
    'miou': 'mIoU', 'miou9': 'mIoU9', 'miou_subset': 'mIoU of --classes',
    'pixel_acc': 'pixel accuracy', 'mean_of_sources_miou9': 'mIoU9, mean of the sources',
}  # fmt: skip


class ReportError(ValueError):
    """A folder that holds no finished evaluation, or one of another version."""


def write_report(out: Path) -> None:
    """Write ``report.html`` of what lies in ``out``; ``ReportError`` says what is missing."""
    evaluation = read_evaluation(out)
    drives = [entry for entry in evaluation.sets if entry.drive]
    timelines, left_out = draw_timelines(out / 'frames.jsonl', drives)
    shots, problems = draw_shots(out, evaluation)
    taxonomy = evaluation.taxonomy
    # the style sheet is ours; every value is escaped
    css = Markup((FOLDER / 'report.css').read_text(encoding='utf-8'))  # noqa: S704  # nosec
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    words = (number, signed, interval, score, share, count, plural, moment, period, held, split)
    environment.globals |= {function.__name__: function for function in words}
    text = environment.get_template('report.jinja').render(
        evaluation=evaluation, timelines=timelines, left_out=left_out, shots=shots,
        problems=problems, css=css, command=shlex.join(evaluation.command),
        colors=dict(zip(taxonomy.classes, map(_hex, taxonomy.colors))),
        errors=dict(zip(('right', 'wrong'), map(_hex, ERROR_COLORS.tolist()))),
    )  # fmt: skip
    text = re.sub(r'\n\s*\n\s*', '\n\n', text.strip())
    replace_file(out / 'report.html', f'{text}\n'.encode(errors='replace'))


def _hex(color: Sequence[int]) -> str:
    return '#' + ''.join(f'{channel:02x}' for channel in color)


# -- what metrics.json holds -------------------------------------------------------------------


class Record(dict[str, Any]):
    """A mapping whose values are attributes as well; None where there is none."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return self.get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def read_evaluation(folder: Path) -> Any:
    """
    Return ``metrics.json``; ``ReportError`` says why it is none of a finished evaluation.

    'sets' becomes a list, each with its 'name', 'runs', the 'best' of them, 'labelled', whether it
    is a 'drive', the 'heads' of the scores that it has, and the classes that are 'guessed': in
    masks alone. A run gets a 'label' and, where it was compared to the first one, 'paired'.
    """
    path = folder / 'metrics.json'
    try:
        found = json.loads(path.read_text(encoding='utf-8'), object_hook=Record)
    except FileNotFoundError:
        raise ReportError(
            f"'{path}' does not exist: a report is made of a folder that "
            '`nightseg evaluate` has finished'
        ) from None
    except (OSError, ValueError) as error:
        raise ReportError(f"'{path}' cannot be read: {error}") from error
    version = found.version if isinstance(found, Record) else None
    if version != VERSION:
        raise ReportError(
            f"'{path}' is of version {version!r}, a report is made of version {VERSION}: "
            'evaluate again'
        )
    try:
        found.taxonomy = Taxonomy.from_dict(found.taxonomy or {})
    except TaxonomyError as error:
        raise ReportError(f"'{path}' has no readable taxonomy: {error}") from error
    # the only configuration has no name but its route
    unnamed = f'route={found.route}'
    for entry in found.configurations:
        entry.label = entry.name or unnamed
    paired = {item.run: item for item in found.compare}
    for name, run in found.runs.items():
        run.name, run.label, run.paired = name, run.configuration or unnamed, paired.get(name)
        # a score of several sources only
        if len(run.by_source) > 1:
            run.all.mean_of_sources_miou9 = run.mean_of_sources_miou9
            run.all.mean_of_sources_miou9_ci = run.mean_of_sources_miou9_ci
        run.reliability = run.reliability or Record()
        for part in (run.calibration, run.flicker):
            part.all = part.all or Record()
    for name, entry in found.sets.items():
        entry.name = name
        entry.runs = [run for run in found.runs.values() if run.set == name]
        # pictures of a folder without a rate have no time
        timed = any(run.routing.minutes is not None for run in entry.runs)
        entry.drive = entry.kind == 'recordings' and timed
        entry.labelled = max((run.labelled for run in entry.runs), default=0)
        scores = [run.all for run in entry.runs]
        top = max((number(score.miou) for score in scores), default='')
        entry.best = [run for run in entry.runs if number(run.all.miou) == top]
        known = {key for score in scores for key in SCORES if score.get(key) is not None}
        entry.heads = {key: SCORES[key] for key in SCORES if key in known}
        entry.guessed = {
            name for score in scores for name, value in score.iou.items()
            if value is not None and not score.support[name]
        }  # fmt: skip
        for source in entry.sources:
            source.errors = source.losses[:MOST_ROWS]
            if source.labels_unused:
                source.errors.append(f'{plural(source.labels_unused, "label")} without a frame')
            if source.failed and not source.errors:
                source.errors.append(f'{plural(source.failed, "frame")} could not be decoded')
    found.sets = list(found.sets.values())
    return found


# -- values as text ----------------------------------------------------------------------------


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with ``digits`` decimals; None is '–'."""
    if value is None:
        return ABSENT
    text = f'{value:.{digits}f}'
    return text.replace('-', '−') if float(text) else text.lstrip('-')


def signed(value: float | None) -> str:
    """Return a number with its sign; a rounded zero has none."""
    text = number(value)
    return text if text in (ABSENT, '0.000') or text[0] == '−' else f'+{text}'


def interval(bounds: Sequence[float] | None, write: Callable[[float | None], str] = number) -> str:
    """Return '[low, high]'; empty where there is none."""
    return f'[{write(bounds[0])}, {write(bounds[1])}]' if bounds else ''


def score(entry: Any, key: str) -> str:
    """Return '0.512 [0.471, 0.553]'; the interval is left out where there is none."""
    return f'{number(entry.get(key))} {interval(entry.get(f"{key}_ci"))}'.strip()


def share(value: float | None, digits: int = 1) -> str:
    """Return 0–1 as a percentage."""
    return ABSENT if value is None else f'{number(100 * value, digits)} %'


def count(value: float | None) -> str:
    """Return a count with thin spaces between thousands."""
    return ABSENT if value is None else f'{int(value):,}'.replace(',', '\u202f')


def plural(value: float, one: str) -> str:
    """Return '1 frame' or '2 frames'."""
    return f'{count(value)} {one}{"" if value == 1 else "s"}'


def moment(stamp_ns: int, digits: int = 2) -> str:
    """Return a stamp as date and time (UTC) where it can be one, else as seconds."""
    # clocks of simulations and videos begin at zero
    if not 10**17 < stamp_ns < 10**20:
        return f'{stamp_ns / 1e9:.{digits}f} s'
    date = datetime.fromtimestamp(stamp_ns // 10**9, timezone.utc)
    fraction = f'.{stamp_ns % 10**9:09d}'[: digits + 1] if digits else ''
    return f'{date:%Y-%m-%d %H:%M:%S}{fraction} UTC'


def period(sources: Sequence[Any]) -> str:
    """Return from when to when the frames were taken, as their stamps say."""
    known = [source for source in sources if source.first_stamp is not None]
    if not known:
        return ''
    first, last = min(s.first_stamp for s in known), max(s.last_stamp for s in known)
    return f'{moment(first, 0)} to {moment(last, 0)}'


def held(seconds: Mapping[str, float], frames: Mapping[str, int]) -> str:
    """Return the shares of the time, or of pictures, which hold no time, the largest first."""
    parts = seconds or frames
    ranked = sorted(parts.items(), key=lambda item: -item[1])
    whole = sum(parts.values())
    return ', '.join(f'{name} {share(value / whole, 0)}' for name, value in ranked) or ABSENT


def split(entry: Any, key: str) -> tuple[list[tuple[str, str, Any]], int]:
    """Return (part, run, scores) of a split of a set, or the lowest ones; and how many more."""
    runs = [run for run in entry.runs if len(run[key]) > 1]
    rows = [(name, run.label, scores) for run in runs for name, scores in run[key].items()]
    left_out = len(rows) - MOST_ROWS
    rows.sort(key=lambda row: row[2].miou or 0 if left_out > 0 else row[0].lower())
    return rows[:MOST_ROWS], left_out


# -- sample frames -----------------------------------------------------------------------------


def draw_shots(folder: Path, evaluation: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """
    Draw the sample frames of every set, each once with every configuration.

    A shot has a 'title', what to say 'about' it, 'pictures', whether its labels are known
    ('truth'), and whether it is 'folded' away: the first of each kind is not. Return also what
    cannot be shown, in sentences.
    """
    shots: list[dict[str, Any]] = []
    problems: list[str] = []
    palette, kinds = evaluation.taxonomy.palette(), list(SAMPLES)
    frames: list[tuple[Any, tuple[Any, ...]]] = []
    for entry in evaluation.sets:
        # all configurations show the same frames
        every = zip(*(run.samples for run in entry.runs))
        ranked = sorted(every, key=lambda samples: kinds.index(samples[0].kind))
        frames += [(entry, samples) for samples in ranked[:MOST_FRAMES]]
    # the more pictures a page has, the smaller they are
    total = sum(2 + 2 * len(samples) for _, samples in frames)
    side = min(640, max(320, round(3500 / math.sqrt(max(1, total)))))
    shown = set()
    for entry, samples in frames:
        first = samples[0]
        labelled = [(run.label, sample) for run, sample in zip(entry.runs, samples)]
        try:
            pictures = draw_sample(folder, palette, labelled, side)
        except (DataError, OSError) as error:
            problems.append(f'A frame of {entry.name} cannot be shown: {error}')
            continue
        title = f'{SAMPLES[first.kind]}: {first.frame}'
        about = [first.source] if first.source != entry.name else []
        if entry.drive and first.stamp is not None:
            about.append(moment(first.stamp))
        about.append(f'light score {number(first.score, 2)}, state {first.state}')
        # a route that never changes is in the configuration's name
        about += [
            f'{run.label} took the route {sample.route}'
            for run, sample in zip(entry.runs, samples)
            if len(run.routes) > 1 or len(samples) == 1
        ]
        shots.append(
            {
                'title': f'{entry.name}, {title}' if len(evaluation.sets) > 1 else title,
                'about': '; '.join(about),
                'pictures': pictures,
                'truth': bool(first.truth),
                'folded': first.kind != 'spread' and (entry.name, first.kind) in shown,
            }
        )
        shown.add((entry.name, first.kind))
    return shots, problems
