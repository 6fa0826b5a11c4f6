# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
``report.html`` and ``report.md`` of a finished evaluation.

The functions below make tables of ``metrics.json``, ``report.jinja`` says in which order and in
which words they come, and the macros of ``report.html.jinja`` or ``report.md.jinja`` write that
as a page that needs no network and runs no script, or as Markdown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
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
#: Mean confidence and accuracy further apart than this are remarked on.
FAR = 0.02
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
    'miou': ('mIoU', 'mean IoU of the classes present'),
    'miou9': ('mIoU9', 'without fence and bicyclist'),
    'miou_subset': ('mIoU of the subset', 'classes chosen by --classes'),
    'pixel_acc': ('pixel accuracy', 'labelled pixels that are right'),
    'mean_of_sources_miou9': ('mean of sources', 'mIoU9, sources weigh equally'),
}
SPLITS = {
    'by_state': ('state', 'by the state that the router saw'),
    'by_light': ('true light', 'by the true light'),
    'by_route': ('route', 'by the route taken'),
    'by_source': ('source', 'by source'),
}
UNITS = {
    'frames': ('frame', 'frames'),
    'blocks': ('block of neighbouring frames', 'blocks of neighbouring frames'),
    'sources': ('source', 'sources'),
}


class ReportError(ValueError):
    """A folder that holds no finished evaluation, or one of another version."""


def write_report(out: Path) -> None:
    """
    Write ``report.html`` and ``report.md`` into the folder of a finished evaluation.

    Reads only what lies in ``out``: ``metrics.json``, and ``frames.jsonl`` and ``samples/``
    where they are. ``ReportError`` says what is missing; ``OSError`` where nothing can be written.
    """
    evaluation = read_evaluation(out)
    drives = [entry for entry in evaluation.sets if entry.drive]
    timelines, left_out = figures.draw_timelines(out / 'frames.jsonl', drives)
    shots, problems = draw_shots(out, evaluation)
    for run in evaluation.runs.values():
        run.diagram = figures.draw_reliability(calibrations(run), run.label)
    # the style sheet is ours; every value is escaped
    css = Markup((FOLDER / 'report.css').read_text(encoding='utf-8'))  # noqa: S704  # nosec
    page = {
        'evaluation': evaluation, 'timelines': timelines, 'left_out': left_out, 'shots': shots,
        'problems': problems, 'css': css, 'errors': error_colors(),
    }  # fmt: skip
    for kind in ('html', 'md'):
        template = _environment(escape=kind == 'html').get_template('report.jinja')
        text = template.render(page, kind=kind, present=[]).strip()
        text = re.sub(r'\n\s*\n\s*', '\n\n', text)
        replace_file(out / f'report.{kind}', f'{text}\n'.encode(errors='replace'))


@lru_cache
def _environment(*, escape: bool) -> Environment:
    """Return where the templates are; those of Markdown escape by filters."""
    environment = Environment(  # nosec
        loader=FileSystemLoader(FOLDER),
        autoescape=escape,  # noqa: S701
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(plain=_plain, markdown=_markdown)
    for function in (
        best_runs, class_colors, class_table, comparison, confusion_table, count, date_of,
        difference, drawn_from, error_table, headline_numbers, period, plural,
        provenance, reliability_table, routing_table, score, share, split_tables,
        table, weights_in_short,
    ):  # fmt: skip
        environment.globals[function.__name__] = function
    return environment


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
    return f'{number(entry[key])} {interval(entry[f"{key}_ci"])}'.strip()


def share(value: float | None, digits: int = 1) -> str:
    """Return 0–1 as a percentage."""
    return ABSENT if value is None else f'{number(100 * value, digits)} %'


def count(value: float | None) -> str:
    """Return a count with thin spaces between thousands."""
    return ABSENT if value is None else f'{int(value):,}'.replace(',', '\u202f')


def plural(value: float, one: str, many: str = '') -> str:
    """Return '1 frame' or '2 frames'."""
    return f'{count(value)} {one if value == 1 else many or one + "s"}'


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


def flat(value: Any) -> str:
    """Return nested JSON as a line of words."""
    if isinstance(value, Mapping):
        return ', '.join(f'{name} {flat(item)}' for name, item in value.items())
    if isinstance(value, list):
        return ', '.join(map(flat, value))
    return '' if value is None else str(value)


#: What would start markup; underscores inside words and brackets of intervals would not.
_SPECIAL = re.compile(r'[\\`*<|~$]|(?<!\w)_|_(?!\w)|\[(?![+−\d])|\](?=[(\[:])|(?<![^\s])[#>]')


def _plain(text: str) -> str:
    """Return one line of text in which nothing is taken for Markdown or HTML."""
    return _SPECIAL.sub(r'\\\g<0>', ' '.join(text.split())).replace('&', '&amp;')


def _markdown(entry: Cell) -> str:
    """Return a cell of a table."""
    text = f'{entry.text} ({entry.tag})' if entry.tag else entry.text
    if entry.code and text and not re.search(r'[`|\\\n\r]', text):
        return f'`{text}`'
    return _plain(text)


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
    """What the macro ``table`` writes."""

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
    """Return a cell of a name or a hash."""
    return Cell(text or '', code=True)


def table(
    caption: str, columns: Sequence[str], rows: Iterable[Sequence[Value]], *, matrix: bool = False
) -> Table | None:
    """Return a table without its empty columns; None without rows."""
    cells = [[c if isinstance(c, Cell) else Cell(c) for c in row] for row in rows]
    if not cells:
        return None
    by_column = list(zip(*cells))
    keep = [
        place
        for place, (name, column) in enumerate(zip(columns, by_column))
        if matrix
        or (
            (texts := {c.text for c in column}) != {''}
            and (len(texts) > 1 or name not in _OPTIONAL)
        )
    ]
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


def best_runs(entry: Any) -> list[Any]:
    """Return the runs of the highest mIoU, as far as it is shown."""
    best = max(number(run.all.miou) for run in entry.runs)
    return [run for run in entry.runs if number(run.all.miou) == best]


def headline_numbers(entry: Any, run: Any) -> dict[str, tuple[str, str, str]]:
    """Return by name the value, the interval and what is to be said of a run's main numbers."""
    found = {}
    if entry.labelled:
        for key, (name, about) in SCORES.items():
            if key != 'mean_of_sources_miou9' or len(run.by_source) > 1:
                bounds = interval(run.all[f'{key}_ci'])
                found[name] = (number(run.all[key]), bounds, about)
        ece = number(run.calibration.all.ece)
        found['calibration error'] = (ece, '', 'confidence against accuracy')
    else:
        found['frames'] = (count(run.frames), '', f'segmented, {run.label}')
        about = 'pixels that change between neighbouring frames, motion compensated'
        found['label flicker'] = (share(run.flicker.all.warped), '', about)
        if entry.drive:
            about = f'in {number(run.routing.minutes, 1)} min'
            found['route switches'] = (count(run.routing.switches), '', about)
    # configurations share one pass and so its seconds
    if len(entry.runs) == 1:
        rate = number(run.timing.frames_per_second, 1)
        found['speed'] = (rate, '', 'frames per second, this machine')
    return {name: values for name, values in found.items() if values[0] != ABSENT}


def comparison(entry: Any) -> Table | None:
    """Return the main numbers of the configurations, and their differences to the first one."""
    found = [headline_numbers(entry, run) for run in entry.runs]
    columns = list(dict.fromkeys(name for values in found for name in values))
    keys = {name: key for key, (name, _) in SCORES.items()}
    rows: list[list[Value]] = []
    for run, values in zip(entry.runs, found):
        cells = (' '.join(values.get(name, (ABSENT, ''))[:2]).strip() for name in columns)
        rows.append([run.label, *cells])
        if run.paired and entry.labelled:
            gaps = (run.paired.get(keys.get(name)) for name in columns)
            name = f'{run.label} − {entry.runs[0].label}'
            rows.append([name, *(difference(gap) if gap else '' for gap in gaps)])
    frames = f'{plural(entry.labelled, "labelled frame")}, the same'
    caption = f'{entry.name}: {frames if entry.labelled else "the same frames"} for all'
    return table(caption, ('configurations', *columns), rows)


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


def drawn_from(entry: Any) -> str:
    """Return what the bootstrap of a set draws: '6 blocks of neighbouring frames'."""
    return plural(entry.units, *UNITS[entry.unit])


def class_table(taxonomy: Taxonomy, entry: Any) -> Table | None:
    """Return the IoU of each class in every configuration; of the only one its accuracies, too."""
    support = entry.runs[0].all.support
    total = sum(support.values())
    single = entry.runs[0].all if len(entry.runs) == 1 else None
    rows: list[list[Value]] = []
    for name, color in class_colors(taxonomy):
        values = [run.all.iou[name] for run in entry.runs]
        guessed = not support[name] and any(value is not None for value in values)
        row: list[Value] = [Cell(name, swatch=color, tag='only in masks' if guessed else '')]
        row.append(share(support[name] / total if total else None))
        for run, value in zip(entry.runs, values):
            text = f'{number(value)} {interval(run.all.iou_ci[name])}'.strip()
            row.append(Cell(text, bar=value))
        rows.append([*row, number(single.acc[name])] if single else row)
    mean: list[Value] = ['mean of the classes labelled', '']
    mean += [score(run.all, 'miou') for run in entry.runs]
    rows.append([*mean, number(single.mean_acc)] if single else mean)
    heads = ['class', 'labelled pixels', *(run.label for run in entry.runs)]
    if single:
        heads[2:] = ['IoU', 'accuracy']
    return table(f'IoU on {entry.name}', heads, rows)


def hex_color(color: Iterable[int]) -> str:
    """Return #rrggbb."""
    return '#' + ''.join(f'{channel:02x}' for channel in color)


def class_colors(taxonomy: Taxonomy) -> list[tuple[str, str]]:
    """Return the classes with the colours of their masks."""
    return list(zip(taxonomy.classes, map(hex_color, taxonomy.colors)))


def error_colors() -> list[tuple[str, str]]:
    """Return what is drawn of the errors with its colours."""
    keys = zip(('right', 'wrong'), map(hex_color, figures.ERROR_COLORS.tolist()))
    return [*keys, ('not labelled, not scored', '#3a3a3a')]


def split_tables(entry: Any) -> list[Table | None]:
    """Return the scores of a set by state, light, route and source."""
    tables = []
    for key, (head, words) in SPLITS.items():
        # a fixed route has nothing to split, and neither has the only source
        least = 2 if key in ('by_route', 'by_source') else 1
        found = [
            (name, run.label, scores)
            for run in entry.runs if len(run[key]) >= least
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
        tables.append(table(f'{entry.name}, {words}', columns, rows))
    return tables


def confusion_table(taxonomy: Taxonomy, entry: Any, run: Any) -> Table | None:
    """Return what is taken for what, in percent of the labelled pixels of a class."""
    abstained = run.all.abstained
    rows: list[list[Value]] = []
    for (name, color), masks in zip(class_colors(taxonomy), run.all.confusion):
        counts = [*masks, *([abstained[name]] if any(abstained.values()) else [])]
        total = sum(counts)
        parts = [value / total if total else 0.0 for value in counts]
        rows.append([
            Cell(name, swatch=color),
            *(
                Cell('<1' if 0 < part < 0.005 else f'{100 * part:.0f}' if part else '',
                     heat=part, tone='hit' if other == name else 'miss')
                for part, other in zip(parts, (*taxonomy.classes, ''))
            ),
            count(total or None),
        ])  # fmt: skip
    heads = [*taxonomy.classes, *(['no mask'] if any(abstained.values()) else [])]
    caption = f'{entry.name}, {run.label}: rows are the labels, columns the masks'
    return table(caption, ('labelled as', *heads, 'pixels'), rows, matrix=True)


def calibrations(run: Any) -> dict[str, Any]:
    """Return the calibrations that have pixels by what they are over."""
    states = run.calibration.by_state
    # one state only is all there is
    parts = {'all': run.calibration.all, **(states if len(states) > 1 else {})}
    return {f'{k}: calibration error {number(v.ece)}': v for k, v in parts.items() if v.bins}


def reliability_table(entry: Any) -> Table | None:
    """Return how far confidences, and the reliability of frames, tell what is right."""
    rows: list[list[Value]] = []
    for run in entry.runs:
        found, frames = run.calibration.all, run.reliability
        gap = found.confidence - found.accuracy if found.pixels else 0.0
        tag = '' if abs(gap) < FAR else 'too sure' if gap > 0 else 'too modest'
        risk = frames.risk or {}
        rows.append([
            run.label, number(found.ece),
            Cell(number(found.confidence), tag=tag, tone='bad' if gap > 0 else ''),
            number(found.accuracy), number(frames.mean), number(frames.least),
            score(frames, 'spearman') if frames else ABSENT,
            *(number(risk.get(kept)) for kept in ('0.5', '0.9', '1')),
        ])  # fmt: skip
    return table(
        f'Confidence and reliability on {entry.name}',
        ('configurations', 'calibration error', 'mean confidence', 'pixel accuracy',
         'mean reliability', 'least', 'correlation', 'wrong in 50 %', 'in 90 %', 'in all'),
        rows,
    )  # fmt: skip


def routing_table(entry: Any) -> Table | None:
    """Return what the router did, and how much labels change between neighbouring frames."""

    def held(seconds: Mapping[str, float], frames: Mapping[str, int]) -> str:
        # pictures by themselves hold no time
        parts = seconds or frames
        ranked = sorted(parts.items(), key=lambda item: -item[1])
        whole = sum(parts.values())
        return ', '.join(f'{name} {share(value / whole, 0)}' for name, value in ranked) or ABSENT

    late = 'seconds until the state followed the light'
    measures: dict[str, Callable[[Any], str]] = {
        'state': lambda run: held(run.routing.seconds_by_state, run.states),
        'route': lambda run: held(run.routing.seconds_by_route, run.routes),
        'minutes': lambda run: number(run.routing.minutes, 1),
        'switches of the route': lambda run: count(run.routing.switches),
        'switches per minute': lambda run: number(run.routing.switches_per_minute, 2),
        'frames in a wrong state': lambda run: share(run.routing.wrong_state_share),
        'seconds in a wrong state': lambda run: number(run.routing.wrong_state_s, 1),
        f'{late}, median': lambda run: number(run.routing.delay_s.p50, 2),
        f'{late}, longest': lambda run: number(run.routing.delay_s.max, 2),
        'changes of light never followed': lambda run: count(run.routing.delay_s.missed or None),
        'labels that change from frame to frame': lambda run: share(run.flicker.all.plain, 2),
        'the same, motion compensated': lambda run: share(run.flicker.all.warped, 2),
    }
    rows = [[name, *map(measure, entry.runs)] for name, measure in measures.items()]
    heads = ('measure', *(run.label for run in entry.runs))
    return table(
        f'Over the frames of {entry.name}', heads, [row for row in rows if {*row[1:]} != {ABSENT}]
    )


def error_table(sources: Sequence[Any]) -> Table | None:
    """Return what could not be read, and labels that belong to no frame."""
    rows = [
        [code(source.name or PurePath(source.path).name), code(source.topic), error,
         count(source.frames), count(source.failed)]
        for source in sources for error in source.errors
    ]  # fmt: skip
    heads = ('source', 'topic', 'what', 'frames read', 'unreadable')
    return table('What could not be read', heads, rows)


# -- where the numbers come from -----------------------------------------------------------------


def date_of(created: str) -> str:
    """Return the ISO time (UTC) at which an evaluation was made, in minutes."""
    return f'{created[:16].replace("T", " ")} UTC'


def weights_in_short(evaluation: Any) -> str:
    """Return the files of all configurations and how their hashes begin."""
    parts = [
        part for entry in evaluation.configurations for part in entry.pipeline.weights.values()
    ]
    return ', '.join(dict.fromkeys(f'{part.file} {part.sha256[:12]}' for part in parts))


def provenance(evaluation: Any) -> list[Table | None]:
    """Return command and machine, weights and data."""
    users: dict[tuple[str, ...], list[str]] = {}
    for entry in evaluation.configurations:
        about = ', '.join(
            f'{key} {entry.pipeline[key]}' for key in ('backend', 'device', 'long_side')
        )
        for role, part in entry.pipeline.weights.items():
            key = (role, part.file, part.sha256, part.license, about)
            users.setdefault(key, []).append(entry.label)
    return [
        table('Evaluation', ('what', 'value'), [
            ['evaluated', date_of(evaluation.created)],
            ['nightseg', evaluation.nightseg],
            ['command', code(shlex.join(evaluation.command))],
            ['took', f'{number(evaluation.wall_s, 1)} s'],
            ['bootstrap', flat(evaluation.bootstrap)],
            *([name, flat(value)] for name, value in evaluation.machine.items() if value),
        ]),
        table('Weights', ('used by', 'as', 'file', 'SHA-256', 'licence', 'run by'), [
            [', '.join(names), role, code(file), code(sha), licence, about]
            for (role, file, sha, licence, about), names in users.items()
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
    for entry in evaluation.sets:
        # all configurations show the same frames
        frames = list(zip(*(run.samples for run in entry.runs)))
        frames.sort(key=lambda samples: kinds.index(samples[0].kind))
        shown = set()
        for samples in frames[:MOST_FRAMES]:
            first = samples[0]
            labelled = [(run.label, sample) for run, sample in zip(entry.runs, samples)]
            try:
                pictures = figures.draw_sample(folder, palette, labelled)
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
                    'folded': first.kind != 'spread' and first.kind in shown,
                }
            )
            shown.add(first.kind)
    figures.encode([picture for shot in shots for picture in shot['pictures']])
    return shots, problems


def _about(entry: Any, samples: Sequence[Any]) -> str:
    """Return what is said of a frame: place, time, light, and route by configuration."""
    first = samples[0]
    parts = [first.source] if first.source != entry.name else []
    if entry.drive and first.stamp is not None:
        parts.append(moment(first.stamp))
    parts.append(f'light score {number(first.score, 2)}, state {first.state}')
    if len(samples) == 1:
        parts.append(f'route {first.route}')
        parts += [f'mIoU {number(first.miou)}'] if first.miou is not None else []
        return '; '.join(parts)
    # a route that never changes is in the configuration's name
    parts += [
        f'{run.label} took the route {sample.route}'
        for run, sample in zip(entry.runs, samples)
        if len(run.routes) > 1
    ]
    if first.kind in ('best', 'median', 'worst'):
        parts.append(f'{first.kind} by the mIoU of {entry.runs[0].label}')
    return '; '.join(parts)
