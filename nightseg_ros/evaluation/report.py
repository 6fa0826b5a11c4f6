# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
``report.html`` of a finished evaluation.

The functions below make tables of ``metrics.json``; ``report.jinja`` writes them, in its order and
words, as a page that needs no network and runs no script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
import json
from pathlib import Path, PurePath
import re
import shlex
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from nightseg_ros.data.sample import DataError
from nightseg_ros.evaluation import report_figures as figures
from nightseg_ros.files import replace_file
from nightseg_ros.taxonomy import Taxonomy, TaxonomyError

FOLDER = Path(__file__).parent
VERSION = 2
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
SCORES = {
    'miou': 'mIoU',
    'miou9': 'mIoU9',
    'miou_subset': 'mIoU of --classes',
    'pixel_acc': 'pixel accuracy',
    'mean_of_sources_miou9': 'mIoU9, mean of the sources',
}
SPLITS = {
    'by_state': ('state', 'by the state that the router saw'),
    'by_light': ('true light', 'by the true light'),
    'by_route': ('route', 'by the route taken'),
    'by_source': ('source', 'by source'),
}


class ReportError(ValueError):
    """A folder that holds no finished evaluation, or one of another version."""


def write_report(out: Path) -> None:
    """
    Write ``report.html`` into the folder of a finished evaluation.

    Reads only what lies in ``out``: ``metrics.json``, and ``frames.jsonl`` and ``samples/``
    where they are. ``ReportError`` says what is missing; ``OSError`` where nothing can be written.
    """
    evaluation = read_evaluation(out)
    drives = [entry for entry in evaluation.sets if entry.drive]
    timelines, left_out = figures.draw_timelines(out / 'frames.jsonl', drives)
    shots, problems = draw_shots(out, evaluation)
    for run in evaluation.runs.values():
        run.diagram = figures.draw_reliability(run.calibration.all, run.label)
    # the style sheet is ours; every value is escaped
    css = Markup((FOLDER / 'report.css').read_text(encoding='utf-8'))  # noqa: S704  # nosec
    page = {
        'evaluation': evaluation, 'timelines': timelines, 'left_out': left_out, 'shots': shots,
        'problems': problems, 'css': css, 'errors': error_colors(), 'present': [],
    }  # fmt: skip
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=StrictUndefined,
    )  # fmt: skip
    environment.globals.update(globals())
    text = environment.get_template('report.jinja').render(page).strip()
    text = re.sub(r'\n\s*\n\s*', '\n\n', text)
    replace_file(out / 'report.html', f'{text}\n'.encode(errors='replace'))


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

    'sets' becomes a list, each with its 'name', 'runs', 'labelled' and whether it is a 'drive'.
    A run gets a 'label' and, where it was compared to the first one, 'paired'.
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
        entry.name, entry.drive = name, entry.kind == 'recordings'
        entry.runs = [run for run in found.runs.values() if run.set == name]
        entry.labelled = max((run.labelled for run in entry.runs), default=0)
        for source in entry.sources:
            source.errors = list(source.losses)
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


# -- tables ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table that is more than its text."""

    text: str
    tag: str = ''
    """A word that judges the number."""
    tone: str = ''
    """The tag's colour, 'good' or 'bad', or the heat's, 'hit' or 'miss'."""
    bar: float | None = None
    """A length from 0 to 1."""
    heat: float | None = None
    """Strength of the background, 0 to 1."""
    swatch: str = ''
    """A colour as #rrggbb."""
    code: bool = False
    """A hash, a command or a file name, which may break anywhere."""


@dataclass(frozen=True, slots=True)
class Table:
    """What the macro ``show`` writes."""

    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    words: list[bool]
    """By column whether it holds words, and no numbers."""
    matrix: bool
    more: int
    """Rows that are left out."""


Value = str | Cell
#: A column of these names that says one thing in every row is left out.
_OPTIONAL = ('set', 'configuration')


def code(text: str | None) -> Cell:
    return Cell(text or '', code=True)


def table(
    caption: str, columns: Sequence[str], rows: Iterable[Sequence[Value]], *, matrix: bool = False
) -> Table | None:
    """Return a table without its empty columns; None without rows."""
    cells = [[c if isinstance(c, Cell) else Cell(c) for c in row] for row in rows]
    if not cells:
        return None
    by_column = list(zip(*cells))
    keep = []
    for place, (name, column) in enumerate(zip(columns, by_column)):
        texts = {c.text for c in column}
        if matrix or (texts != {''} and (len(texts) > 1 or name not in _OPTIONAL)):
            keep.append(place)
    return Table(
        caption=caption,
        columns=[columns[i] for i in keep],
        rows=[[row[i] for i in keep] for row in cells[:MOST_ROWS]],
        words=[
            place == 0 or any(c.code or re.match(r'[^\W\d]', c.text) for c in by_column[i])
            for place, i in enumerate(keep)
        ],
        matrix=matrix,
        more=max(len(cells) - MOST_ROWS, 0),
    )


Measure = Callable[[Any], str]


def measures(caption: str, runs: Sequence[Any], by_name: Mapping[str, Measure]) -> Table | None:
    """Return a table with a row for each measure that a run has, and a column for each run."""
    rows = [[name, *map(measure, runs)] for name, measure in by_name.items()]
    rows = [row for row in rows if {*row[1:]} != {ABSENT}]
    return table(caption, ('measure', *(run.label for run in runs)), rows)


def _held(seconds: Mapping[str, float], frames: Mapping[str, int]) -> str:
    """Return the shares of the time, or of pictures, which hold no time, the largest first."""
    parts = seconds or frames
    ranked = sorted(parts.items(), key=lambda item: -item[1])
    whole = sum(parts.values())
    return ', '.join(f'{name} {share(value / whole, 0)}' for name, value in ranked) or ABSENT


def _risk(kept: str) -> Measure:
    return lambda run: number((run.reliability.risk or {}).get(kept))


CONFIDENCE: dict[str, Measure] = {
    'calibration error': lambda run: number(run.calibration.all.ece),
    'mean confidence of the labels': lambda run: number(run.calibration.all.confidence),
    'share of them that is right': lambda run: number(run.calibration.all.accuracy),
    'mean reliability of the frames': lambda run: number(run.reliability.mean),
    'least reliability': lambda run: number(run.reliability.least),
    'rank correlation with the share of right pixels': lambda r: score(r.reliability, 'spearman'),
    'wrong pixels in the most reliable half': _risk('0.5'),
    'wrong pixels in the most reliable 90 %': _risk('0.9'),
    'wrong pixels in all frames': _risk('1'),
}
LATE = 'seconds until the state followed the light'
ROUTING: dict[str, Measure] = {
    'frames': lambda run: count(run.frames),
    'state': lambda run: _held(run.routing.seconds_by_state, run.states),
    'route': lambda run: _held(run.routing.seconds_by_route, run.routes),
    'minutes': lambda run: number(run.routing.minutes, 1),
    'switches of the route': lambda run: count(run.routing.switches),
    'switches per minute': lambda run: number(run.routing.switches_per_minute, 2),
    'frames in a wrong state': lambda run: share(run.routing.wrong_state_share),
    'seconds in a wrong state': lambda run: number(run.routing.wrong_state_s, 1),
    f'{LATE}, median': lambda run: number(run.routing.delay_s.p50, 2),
    f'{LATE}, longest': lambda run: number(run.routing.delay_s.max, 2),
    'changes of light never followed': lambda run: count(run.routing.delay_s.missed or None),
    'labels that change from frame to frame': lambda run: share(run.flicker.all.plain, 2),
    'the same, motion compensated': lambda run: share(run.flicker.all.warped, 2),
}


def score_table(entry: Any) -> Table | None:
    """Return the scores of each configuration, and below it its differences to the first one."""
    heads = [key for key in SCORES if any(run.all.get(key) is not None for run in entry.runs)]
    rows: list[list[Value]] = []
    for run in entry.runs:
        rows.append([run.label, *(score(run.all, key) for key in heads)])
        if run.paired:
            gaps = (run.paired.get(key) for key in heads)
            name = f'{run.label} − {entry.runs[0].label}'
            rows.append([name, *(difference(gap) if gap else '' for gap in gaps)])
    caption = f'{entry.name}: {plural(entry.labelled, "labelled frame")}'
    return table(caption, ('configurations', *(SCORES[key] for key in heads)), rows)


def difference(gap: Any) -> Cell:
    """Return a difference with its interval, and whether it is one."""
    text = f'{signed(gap.difference)} {interval(gap.ci, signed)}'.strip()
    if not gap.ci:
        return Cell(text)
    if gap.ci[0] > 0:
        return Cell(text, tag='better', tone='good')
    if gap.ci[1] < 0:
        return Cell(text, tag='worse', tone='bad')
    return Cell(text, tag='no clear difference')


def best_runs(entry: Any) -> list[Any]:
    """Return the runs of the highest mIoU, as far as it is shown."""
    best = max(number(run.all.miou) for run in entry.runs)
    return [run for run in entry.runs if number(run.all.miou) == best]


def class_table(taxonomy: Taxonomy, entry: Any) -> Table | None:
    support = entry.runs[0].all.support
    total = sum(support.values())
    rows: list[list[Value]] = []
    for name, color in class_colors(taxonomy):
        guessed = not support[name] and any(run.all.iou[name] is not None for run in entry.runs)
        row: list[Value] = [Cell(name, swatch=color, tag='only in masks' if guessed else '')]
        row.append(share(support[name] / total if total else None))
        for run in entry.runs:
            value, bounds = run.all.iou[name], run.all.iou_ci[name]
            row.append(Cell(f'{number(value)} {interval(bounds)}'.strip(), bar=value))
        rows.append(row)
    heads = ('class', 'labelled pixels', *(run.label for run in entry.runs))
    return table(f'IoU on {entry.name}', heads, rows)


def hex_color(color: Iterable[int]) -> str:
    return '#' + ''.join(f'{channel:02x}' for channel in color)


def class_colors(taxonomy: Taxonomy) -> list[tuple[str, str]]:
    """Return the classes with the colours of their masks."""
    return list(zip(taxonomy.classes, map(hex_color, taxonomy.colors)))


def error_colors() -> list[tuple[str, str]]:
    """Return what is drawn of the errors with its colours."""
    keys = zip(('right', 'wrong'), map(hex_color, figures.ERROR_COLORS.tolist()))
    return [*keys, ('not labelled, not scored', '#3a3a3a')]


def split_table(entry: Any, key: str) -> Table | None:
    """Return the scores of a set by one of ``SPLITS``; None where there is nothing to split."""
    head, words = SPLITS[key]
    found = [
        (name, run.label, scores)
        for run in entry.runs if len(run[key]) > 1
        for name, scores in run[key].items()
    ]  # fmt: skip
    # of too many the lowest are shown
    many = len(found) > MOST_ROWS
    found.sort(key=lambda item: (item[2].miou or 0.0) if many else item[0])
    rows = [
        [name, label, count(scores.frames), Cell(score(scores, 'miou'), bar=scores.miou),
         score(scores, 'miou9'), score(scores, 'pixel_acc')]
        for name, label, scores in found
    ]  # fmt: skip
    columns = (head, 'configuration', 'frames', 'mIoU', 'mIoU9', 'pixel accuracy')
    return table(f'{entry.name}, {words}', columns, rows)


def confusion_table(taxonomy: Taxonomy, entry: Any, run: Any) -> Table | None:
    """Return what is taken for what, in percent of the labelled pixels of a class."""
    abstained = run.all.abstained
    rows: list[list[Value]] = []
    for (name, color), masks in zip(class_colors(taxonomy), run.all.confusion):
        counts = [*masks, *([abstained[name]] if any(abstained.values()) else [])]
        total = sum(counts)
        row: list[Value] = [Cell(name, swatch=color)]
        for part, other in zip(
            (value / max(total, 1) for value in counts), (*taxonomy.classes, '')
        ):
            text = '<1' if 0 < part < 0.005 else f'{100 * part:.0f}' if part else ''
            row.append(Cell(text, heat=part, tone='hit' if other == name else 'miss'))
        rows.append([*row, count(total or None)])
    heads = [*taxonomy.classes, *(['no mask'] if any(abstained.values()) else [])]
    caption = f'{entry.name}, {run.label}: rows are the labels, columns the masks'
    return table(caption, ('labelled as', *heads, 'pixels'), rows, matrix=True)


def error_table(sources: Sequence[Any]) -> Table | None:
    """Return what could not be read, and labels that belong to no frame."""
    rows = [
        [code(source.name or PurePath(source.path).name), code(source.topic), error,
         count(source.frames), count(source.failed)]
        for source in sources for error in source.errors
    ]  # fmt: skip
    heads = ('source', 'topic', 'what', 'frames read', 'unreadable')
    return table('What could not be read', heads, rows)


def provenance(evaluation: Any) -> list[Table | None]:
    """Return command and machine, weights and data."""
    settings = ', '.join(f'{name} {value}' for name, value in evaluation.bootstrap.items())
    return [
        table('Evaluation', ('what', 'value'), [
            ['command', code(shlex.join(evaluation.command))],
            ['took', f'{number(evaluation.wall_s, 1)} s'],
            ['bootstrap', settings],
            *([name, str(value)] for name, value in evaluation.machine.items() if value),
        ]),
        table('Weights', ('configuration', 'as', 'file', 'SHA-256', 'licence', 'run by'), [
            [entry.label, role, code(part.file), code(part.sha256), part.license,
             f'{entry.pipeline.backend} on {entry.pipeline.device}']
            for entry in evaluation.configurations
            for role, part in entry.pipeline.weights.items()
        ]),
        table('Data', ('set', 'path', 'topic', 'kind', 'recorded', 'frames', 'labelled'), [
            [entry.name, code(source.path), code(source.topic), source.kind,
             period([source]) if entry.drive else '', count(source.frames), count(source.labelled)]
            for entry in evaluation.sets for source in entry.sources
        ]),
    ]  # fmt: skip


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
    side = figures.picture_side(sum(2 + 2 * len(samples) for _, samples in frames))
    shown = set()
    for entry, samples in frames:
        first = samples[0]
        labelled = [(run.label, sample) for run, sample in zip(entry.runs, samples)]
        try:
            pictures = figures.draw_sample(folder, palette, labelled, side)
        except (DataError, OSError) as error:
            problems.append(f'A frame of {entry.name} cannot be shown: {error}')
            continue
        title = f'{SAMPLES[first.kind]}: {first.frame}'
        shots.append(
            {
                'title': f'{entry.name}, {title}' if len(evaluation.sets) > 1 else title,
                'about': _about(entry, samples),
                'pictures': pictures,
                'truth': bool(first.truth),
                'folded': first.kind != 'spread' and (entry.name, first.kind) in shown,
            }
        )
        shown.add((entry.name, first.kind))
    return shots, problems


def _about(entry: Any, samples: Sequence[Any]) -> str:
    """Return what is said of a frame: place, time, light, and route by configuration."""
    first = samples[0]
    parts = [first.source] if first.source != entry.name else []
    if entry.drive and first.stamp is not None:
        parts.append(moment(first.stamp))
    parts.append(f'light score {number(first.score, 2)}, state {first.state}')
    # a route that never changes is in the configuration's name
    parts += [
        f'{run.label} took the route {sample.route}'
        for run, sample in zip(entry.runs, samples)
        if len(run.routes) > 1 or len(samples) == 1
    ]
    return '; '.join(parts)
