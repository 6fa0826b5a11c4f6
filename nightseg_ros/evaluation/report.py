# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
``report.html`` and ``report.md`` of a finished evaluation.

``read_evaluation`` takes of ``metrics.json`` what is of the kind it should be. The functions below
make tables of it, ``report.jinja`` says in which order and in which words they come, and the
macros of ``report.html.jinja`` or ``report.md.jinja`` write that as a page that needs no network
and runs no script, or as Markdown.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from nightseg_ros.data.sample import DataError
from nightseg_ros.evaluation import report_figures as figures
from nightseg_ros.files import replace_file
from nightseg_ros.taxonomy import Taxonomy, TaxonomyError

Cell = dict[str, Any]
Table = dict[str, Any]
Rows = list[list[Any]]
Interval = tuple[float, float]

FOLDER = Path(__file__).parent
VERSION = 2
#: What stands where there is no number: a class that does not occur, a score without labels.
ABSENT = '–'
#: Mean confidence and accuracy further apart than this are remarked on.
FAR = 0.02
#: Rows of a table that lists sources, errors or changes; metrics.json holds the others.
MOST_ROWS = 60
#: Frames that are shown.
MOST_FRAMES = 18
STATES = ('day', 'dusk', 'night', 'glare')
SCORES = {
    'miou': ('mIoU', 'mean IoU of the classes present'),
    'miou9': ('mIoU9', 'without fence and bicyclist'),
    'miou_subset': ('mIoU of the subset', 'classes chosen by --classes'),
    'pixel_acc': ('pixel accuracy', 'labelled pixels that are right'),
}
SPLITS = {
    'by_state': ('state', 'by the state that the router saw'),
    'by_light': ('true light', 'by the true light'),
    'by_route': ('route', 'by the route taken'),
    'by_source': ('source', 'by source'),
}
STAGES = (
    'decode', 'estimate', 'shrink', 'network', 'post', 'render', 'pipeline', 'metrics', 'wall',
)  # fmt: skip
UNITS = {
    'frames': ('frame', 'frames'),
    'blocks': ('block of neighbouring frames', 'blocks of neighbouring frames'),
    'sources': ('source', 'sources'),
}
#: Kinds of sample frames in the order in which they are shown.
SAMPLES = {
    'best': 'Best frame',
    'median': 'Median frame',
    'worst': 'Worst frame',
    'different': 'Configurations differ',
    'spread': 'Frame',
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
    drawn, left_out = figures.draw_timelines(out / 'frames.jsonl', drives)
    shots, problems = draw_shots(out, evaluation)
    for entry in evaluation.sets:
        entry.figure = interval_figure(entry)
        for run in entry.runs:
            run.figure = reliability_figure(entry, run)
    # the style sheet is ours; every value is escaped
    css = Markup((FOLDER / 'report.css').read_text(encoding='utf-8'))  # noqa: S704  # nosec
    page = {
        # the template calls the functions below
        **{name: value for name, value in globals().items() if callable(value)},
        'evaluation': evaluation, 'timelines': drawn, 'left_out': left_out,
        'shots': shots, 'problems': problems, 'css': css,
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
    return environment


# -- what metrics.json holds -------------------------------------------------------------------


def real(value: Any) -> float | None:
    """Return a finite number, else None."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    # a whole number of JSON may be larger than any float
    return float(value) if good and -1e300 < value < 1e300 else None


def whole(value: Any) -> int:
    """Return a count; 0 where there is none."""
    return int(real(value) or 0)


def stamp(value: Any) -> int | None:
    """Return a time in ns, which no float holds."""
    return value if isinstance(value, int) and abs(value) < 2**63 else None


def word(value: Any) -> str:
    """Return a name; '' where there is none."""
    return value if isinstance(value, str) else ''


def pair(value: Any) -> Interval | None:
    """Return an interval, None where it has no two finite ends."""
    low, high = map(real, value) if isinstance(value, list) and len(value) == 2 else (None, None)
    return None if low is None or high is None else (low, high)


def anything(value: Any) -> Any:
    """Return what no number is made of."""
    return value


_SCORES = {
    'frames': whole, 'mean_acc': real, 'confusion': [[whole]], 'abstained': {str: whole},
    'support': {str: whole}, 'iou': {str: real}, 'iou_ci': {str: pair}, 'acc': {str: real},
    **dict.fromkeys((*SCORES, 'fw_iou'), real),
    **dict.fromkeys((f'{key}_ci' for key in (*SCORES, 'fw_iou')), pair),
}  # fmt: skip
_CALIBRATION = {
    'ece': real, 'confidence': real, 'accuracy': real,
    'bins': [dict.fromkeys(('low', 'high', 'pixels', 'confidence', 'accuracy'), real)],
}  # fmt: skip
_FLICKER = {'pairs': whole, 'plain': real, 'warped': real}
_RUN = {
    'set': word, 'configuration': word, 'frames': whole, 'failed': whole, 'labelled': whole,
    'all': _SCORES, **{key: {str: _SCORES} for key in SPLITS},
    'mean_of_sources_miou9': real, 'mean_of_sources_miou9_ci': pair,
    'routes': {str: whole}, 'states': {str: whole},
    'calibration': {'all': _CALIBRATION, 'by_state': {str: _CALIBRATION}},
    'reliability': {'mean': real, 'least': real, 'spearman': real, 'spearman_ci': pair,
                    'risk': {str: real}},
    'flicker': {'all': _FLICKER, 'by_state': {str: _FLICKER}},
    'routing': {
        **dict.fromkeys(('switches', 'minutes', 'switches_per_minute', 'wrong_state_share',
                         'wrong_state_s'), real),
        'seconds_by_state': {str: real}, 'seconds_by_route': {str: real},
        'by_light': {str: {str: whole}}, 'delay_s': {'p50': real, 'max': real, 'missed': real},
        'changes': [{'source': word, 'stamp': stamp, 'from': word, 'to': word, 'delay_s': real}],
    },
    'timing': {'frames_per_second': real, 'seconds': real,
               'ms': {str: dict.fromkeys(('mean', 'p50', 'p95', 'p99', 'max'), real)}},
    'samples': [
        {**dict.fromkeys(('kind', 'source', 'frame', 'state', 'route', 'image', 'labels', 'truth'),
                         word), 'miou': real, 'score': real, 'stamp': stamp}
    ],
}  # fmt: skip
_SOURCE = {
    **dict.fromkeys(('name', 'path', 'topic', 'kind'), word),
    **dict.fromkeys(('frames', 'failed', 'labelled', 'labels_unused'), whole),
    'first_stamp': stamp, 'last_stamp': stamp, 'losses': [str],
}  # fmt: skip
_PIPELINE = {
    'weights': {str: dict.fromkeys(('file', 'sha256', 'license'), word)},
    'backend': word, 'device': word, 'long_side': anything,
}  # fmt: skip
#: The kinds of what a report reads; {str: kind} is a mapping of any names, [kind] a list.
_METRICS: dict[str, Any] = {
    'created': word, 'command': anything, 'nightseg': anything, 'machine': anything,
    'wall_s': real, 'streams': whole, 'route': word, 'pipeline': _PIPELINE,
    'bootstrap': {'unit': word, 'block_s': real, 'resamples': whole, 'seed': whole, 'level': real},
    'configurations': [{'name': word, 'options': {str: anything}, 'pipeline': _PIPELINE}],
    'sets': {str: {'kind': word, 'unit': word, 'units': real, 'sources': [_SOURCE]}},
    'runs': {str: _RUN},
    'compare': [
        {'run': word, **dict.fromkeys((*SCORES, 'mean_of_sources_miou9'),
                                      {'difference': real, 'ci': pair})}
    ],
}  # fmt: skip


def fit(kind: Any, value: Any) -> Any:
    """Return what ``value`` holds of ``kind``; None, 0, '' or nothing where it is of another."""
    if callable(kind):
        return kind(value)
    if isinstance(kind, list):
        return [fit(kind[0], item) for item in value] if isinstance(value, list) else []
    given = value if isinstance(value, Mapping) else {}
    if str in kind:
        return {str(key): fit(kind[str], item) for key, item in given.items()}
    return SimpleNamespace(**{key: fit(inner, given.get(key)) for key, inner in kind.items()})


def read_evaluation(folder: Path) -> Any:
    """
    Return ``metrics.json`` as namespaces; ``ReportError`` says what is wrong with it.

    'sets' is a list, each with its 'name', 'runs', 'labelled' and whether it is a 'drive'. A run
    has a 'name', a 'label' and, where it was compared to the first one, 'paired'.
    """
    path = folder / 'metrics.json'
    try:
        metrics = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise ReportError(
            f"'{path}' does not exist: a report is made of a folder that "
            '`nightseg evaluate` has finished'
        ) from None
    except (OSError, ValueError) as error:
        raise ReportError(f"'{path}' cannot be read: {error}") from error
    version = metrics.get('version') if isinstance(metrics, dict) else None
    if version != VERSION:
        raise ReportError(
            f"'{path}' is of version {version!r}, a report is made of version {VERSION}: "
            'evaluate again'
        )
    found = fit(_METRICS, metrics)
    try:
        found.taxonomy = Taxonomy.from_dict(metrics.get('taxonomy') or {})
    except TaxonomyError as error:
        raise ReportError(f"'{path}' has no readable taxonomy: {error}") from error
    # the only configuration has no name but its route
    unnamed = f'route={found.route or "unknown"}'
    for entry in found.configurations:
        entry.label = entry.name or unnamed
    if not found.configurations:
        found.configurations = [
            SimpleNamespace(label=unnamed, options={}, pipeline=found.pipeline)
        ]
    paired = {item.run: item for item in found.compare}
    for name, run in found.runs.items():
        run.name, run.label, run.paired = name, run.configuration or unnamed, paired.get(name)
        found.sets.setdefault(run.set, fit(_METRICS['sets'][str], {}))
    for name, entry in found.sets.items():
        for source in entry.sources:
            source.errors = list(source.losses)
            if source.labels_unused:
                source.errors.append(f'{plural(source.labels_unused, "label")} without a frame')
            if source.failed and not source.errors:
                source.errors.append(f'{plural(source.failed, "frame")} could not be decoded')
        entry.name, entry.drive = name, entry.kind == 'recordings'
        entry.runs = [run for run in found.runs.values() if run.set == name]
        entry.unit = entry.unit or 'frames'
        entry.labelled = max((run.labelled for run in entry.runs), default=0)
    found.sets = list(found.sets.values())
    return found


# -- values as text ----------------------------------------------------------------------------


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with ``digits`` decimals; None, NaN and infinity are '–'."""
    if value is None or not math.isfinite(value):
        return ABSENT
    text = f'{value:.{digits}f}'
    return text.replace('-', '−') if float(text) else text.lstrip('-')


def signed(value: float | None) -> str:
    """Return a number with its sign; a rounded zero has none."""
    text = number(value)
    return text if text in (ABSENT, '0.000') or text[0] == '−' else f'+{text}'


def interval(bounds: Interval | None, write: Callable[[float], str] = number) -> str:
    """Return '[low, high]'; empty where there is none."""
    return '' if bounds is None else f'[{write(bounds[0])}, {write(bounds[1])}]'


def score(entry: Any, key: str) -> str:
    """Return '0.512 [0.471, 0.553]'; the interval is left out where there is none."""
    return f'{number(getattr(entry, key))} {interval(getattr(entry, f"{key}_ci"))}'.strip()


def share(value: float | None, digits: int = 1) -> str:
    """Return 0–1 as a percentage."""
    text = number(None if value is None else 100 * value, digits)
    return text if text == ABSENT else f'{text} %'


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
    first = [source.first_stamp for source in sources if source.first_stamp is not None]
    last = [source.last_stamp for source in sources if source.last_stamp is not None]
    return f'{moment(min(first), 0)} to {moment(max(last), 0)}' if first and last else ''


def date_of(created: str) -> str:
    """Return the ISO time (UTC) at which an evaluation was made, in minutes."""
    return f'{created[:16].replace("T", " ")} UTC' if created else ''


def flat(value: Any) -> str:
    """Return nested JSON as a line of words."""
    if isinstance(value, Mapping):
        return ', '.join(f'{name} {flat(item)}' for name, item in value.items())
    if isinstance(value, list):
        return ', '.join(map(flat, value))
    if isinstance(value, float) and not math.isfinite(value):
        return ABSENT
    return '' if value is None else str(value)


#: What would start markup; underscores inside words and brackets of intervals would not.
_SPECIAL = re.compile(r'[\\`*<|~$]|(?<!\w)_|_(?!\w)|\[(?![+−\d])|\](?=[(\[:])|(?<![^\s])[#>]')


def _plain(text: str) -> str:
    """Return one line of text in which nothing is taken for Markdown or HTML."""
    return _SPECIAL.sub(r'\\\g<0>', ' '.join(text.split())).replace('&', '&amp;')


def _markdown(entry: Cell) -> str:
    """Return a cell of a table."""
    text = f'{entry["text"]} ({entry["tag"]})' if entry.get('tag') else entry['text']
    if entry['code'] and text and not re.search(r'[`|\\\n\r]', text):
        return f'`{text}`'
    return _plain(text)


# -- tables ------------------------------------------------------------------------------------


def cell(text: str, **marks: Any) -> Cell:
    """
    Return a cell of a table that is more than its text.

    ``tag`` is a word that judges the number, ``tone`` its colour; ``bar`` a length of 0 to 1;
    ``heat`` the strength of the background, 0 to 1; ``swatch`` a colour (#rrggbb); ``code`` a
    hash, a command or a file name, which may break anywhere.
    """
    plain = {'tag': '', 'tone': '', 'bar': None, 'heat': None, 'swatch': '', 'code': False}
    return {'text': text, **plain, **marks}


def code(text: str) -> Cell:
    """Return a cell of a name or a hash."""
    return cell(text, code=True)


def table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    words: int = 1,
    optional: Sequence[int] = (),
    matrix: bool = False,
) -> Table | None:
    """
    Return a table, None without rows; the first ``words`` columns hold words, the others numbers.

    Empty columns are left out, and ``optional`` ones that say one thing in every row.
    """
    cells = [[c if isinstance(c, dict) else cell(c) for c in row] for row in rows]
    if not cells:
        return None
    keep = []
    for place in range(len(columns)):
        texts = {row[place]['text'] for row in cells}
        if matrix or (texts != {''} and (len(texts) > 1 or place not in optional)):
            keep.append(place)
    return {
        'caption': caption,
        'columns': [columns[i] for i in keep],
        'rows': [[row[i] for i in keep] for row in cells[:MOST_ROWS]],
        'words': sum(i < words for i in keep),
        'matrix': matrix,
        'more': max(len(cells) - MOST_ROWS, 0),
    }


def _known(names: Iterable[str], order: Sequence[str] = ()) -> list[str]:
    """Return each name once, those of ``order`` first, the others sorted."""
    found = set(names)
    return [*(name for name in order if name in found), *sorted(found - set(order))]


def best_runs(entry: Any) -> list[Any]:
    """Return the runs of the highest mIoU, as far as it is shown."""
    best = max(number(run.all.miou) for run in entry.runs)
    return [run for run in entry.runs if number(run.all.miou) == best]


def headline_numbers(entry: Any, run: Any) -> dict[str, tuple[str, str, str]]:
    """Return by name the value, the interval and what is to be said of a run's main numbers."""
    found = {}
    if entry.labelled:
        for key, (name, about) in SCORES.items():
            bounds = interval(getattr(run.all, f'{key}_ci'))
            found[name] = (number(getattr(run.all, key)), bounds, about)
        if len(run.by_source) > 1:
            value, bounds = run.mean_of_sources_miou9, interval(run.mean_of_sources_miou9_ci)
            found['mean of sources'] = (number(value), bounds, 'mIoU9, sources weigh equally')
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
    """Return the main numbers of the configurations."""
    found = [headline_numbers(entry, run) for run in entry.runs]
    columns = list(dict.fromkeys(name for values in found for name in values))
    rows = [
        [run.label, *(' '.join(values.get(key, (ABSENT, ''))[:2]).strip() for key in columns)]
        for run, values in zip(entry.runs, found)
    ]
    frames = 'the same frames'
    if entry.labelled:
        frames = f'{plural(entry.labelled, "labelled frame")}, the same'
    return table(f'{entry.name}: {frames} for all', ('configuration', *columns), rows)


def differences(entry: Any) -> Table | None:
    """Return the paired differences to the first configuration."""
    runs = [run for run in entry.runs[1:] if run.paired is not None]
    names = {key: name for key, (name, _) in SCORES.items()}
    names['mean_of_sources_miou9'] = 'mIoU9, mean of sources'
    several = any(len(run.by_source) > 1 for run in entry.runs)
    shown = [
        key
        for key in names
        if (several or key in SCORES)
        and any(getattr(run.paired, key).difference is not None for run in runs)
    ]
    rows = [[run.label, *(difference(getattr(run.paired, key)) for key in shown)] for run in runs]
    caption = f'{entry.name}: difference to {entry.runs[0].label}'
    columns = ('configuration', *(names[key] for key in shown))
    return table(caption, columns, rows if shown else ())


def difference(item: Any) -> Cell:
    """Return a difference with its interval, and whether it is one."""
    tag, tone = '', ''
    if item.ci is not None and item.difference is not None:
        tag = 'no clear difference'
        if item.ci[0] > 0:
            tag, tone = 'better', 'good'
        elif item.ci[1] < 0:
            tag, tone = 'worse', 'bad'
    text = f'{signed(item.difference)} {interval(item.ci, signed)}'.strip()
    return cell(text, tag=tag, tone=tone)


def interval_figure(entry: Any) -> dict[str, Any] | None:
    """Return scores and differences with their intervals, where there are differences."""
    if not any(run.paired for run in entry.runs):
        return None
    title = f'mIoU of the configurations on {entry.name} with intervals'
    return {'title': '', 'words': [], 'svg': figures.draw_intervals(entry.runs, title)}


def drawn_from(entry: Any) -> str:
    """Return what the bootstrap of a set draws: '6 blocks of neighbouring frames'."""
    one, many = UNITS.get(entry.unit, (entry.unit, entry.unit))
    return many if entry.units is None else plural(int(entry.units), one, many)


def class_table(taxonomy: Taxonomy, caption: str, runs: Sequence[Any]) -> Table | None:
    """Return the IoU of each class; of one run with intervals and accuracies."""
    scores = runs[0].all
    total = sum(scores.support.get(name, 0) for name in taxonomy.classes)
    rows: list[list[Any]] = []
    for name, color in zip(taxonomy.classes, taxonomy.colors):
        part = scores.support.get(name, 0) / total if total else None
        values = [run.all.iou.get(name) for run in runs]
        guessed = part == 0 and any(value is not None for value in values)
        head = cell(name, swatch=hex_color(color), tag='only in masks' if guessed else '')
        row = [head, share(part), *(cell(number(value), bar=value) for value in values)]
        if len(runs) == 1:
            bounds = interval(scores.iou_ci.get(name)) or ABSENT
            row += [bounds, number(scores.acc.get(name))]
        rows.append(row)
    if len(runs) > 1:
        rows.append(['mIoU', '', *(number(run.all.miou) for run in runs)])
        return table(caption, ('class', 'labelled pixels', *(run.label for run in runs)), rows)
    for words, iou, bounds, accuracy in (
        ('mean of the classes labelled', scores.miou, scores.miou_ci, scores.mean_acc),
        ('weighted by pixels', scores.fw_iou, scores.fw_iou_ci, scores.pixel_acc),
    ):
        rows.append([words, '', number(iou), interval(bounds), number(accuracy)])
    return table(caption, ('class', 'labelled pixels', 'IoU', 'interval', 'accuracy'), rows)


def hex_color(color: Sequence[int]) -> str:
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
        runs = [run for run in entry.runs if len(getattr(run, key)) >= least]
        found = sorted(
            (
                (name, run.label, scores)
                for run in runs
                for name, scores in getattr(run, key).items()
            ),
            key=lambda item: item[0],
        )
        if len(found) > MOST_ROWS:
            # the lowest are shown
            found.sort(key=lambda item: item[2].miou or 0.0)
        rows = [
            [name, label, count(scores.frames), cell(score(scores, 'miou'), bar=scores.miou),
             score(scores, 'miou9'), score(scores, 'pixel_acc')]
            for name, label, scores in found
        ]  # fmt: skip
        columns = (head, 'configuration', 'frames', 'mIoU', 'mIoU9', 'pixel accuracy')
        caption = f'{entry.name}, {words}'
        tables.append(table(caption, columns, rows, words=2, optional=(1,)))
    return tables


def confusion_table(taxonomy: Taxonomy, entry: Any, run: Any) -> Table | None:
    """Return what is taken for what, in percent of the labelled pixels of a class."""
    names = taxonomy.classes
    counts = np.zeros((len(names), len(names) + 1), np.float64)
    try:
        counts[:, :-1] = np.array(run.all.confusion, np.float64)
        counts[:, -1] = [run.all.abstained.get(name, 0) for name in names]
    except (TypeError, ValueError, OverflowError):
        return None
    heads = (*names, 'no mask') if counts[:, -1].any() else names
    rows = []
    for index, (name, color) in enumerate(zip(names, taxonomy.colors)):
        total = float(counts[index].sum())
        row: list[Any] = [cell(name, swatch=hex_color(color))]
        for other in range(len(heads)):
            part = float(counts[index, other]) / total if total else 0.0
            text = '<1' if 0 < part < 0.005 else f'{100 * part:.0f}' if part else ''
            row.append(cell(text, heat=part, tone='hit' if other == index else 'miss'))
        rows.append([*row, count(total) if total else ABSENT])
    caption = f'{entry.name}, {run.label}: rows are the labels, columns the masks'
    return table(caption, ('labelled as', *heads, 'pixels'), rows, matrix=True)


def calibrations(run: Any) -> dict[str, Any]:
    """Return the calibrations by what they are over; one state only is all there is."""
    states = run.calibration.by_state
    name = f'all ({next(iter(states))})' if len(states) == 1 else 'all'
    found = {name: run.calibration.all}
    if len(states) > 1:
        found |= {state: states[state] for state in sorted(states)}
    return {name: item for name, item in found.items() if item.ece is not None or item.bins}


def reliability_figure(entry: Any, run: Any) -> dict[str, Any] | None:
    """Return the reliability diagrams of a run as one figure."""
    keys = ('low', 'high', 'pixels', 'confidence', 'accuracy')
    parts = {
        f'{name}: calibration error {number(item.ece)}': np.array(
            [[getattr(row, key) or 0.0 for key in keys] for row in item.bins], np.float64
        )
        for name, item in calibrations(run).items()
        if item.bins
    }
    if not parts or not entry.labelled:
        return None
    title = (
        f'{entry.name}, {run.label}: share of right labels by confidence (bars); '
        'orange where the confidence is above it, light blue where it is below'
    )
    svg = figures.draw_reliability(parts, f'Reliability diagrams of {entry.name}, {run.label}')
    return {'title': title, 'words': list(parts), 'svg': svg}


def calibration_rows(entry: Any) -> Rows:
    """Return calibration error, confidence and accuracy of each configuration."""
    rows = []
    for run in entry.runs:
        for part, item in calibrations(run).items():
            trust, tag, tone = item.confidence, '', ''
            if None not in (trust, item.accuracy) and abs(trust - item.accuracy) >= FAR:
                tag, tone = ('too sure', 'bad') if trust > item.accuracy else ('too modest', '')
            confidence = cell(number(trust), tag=tag, tone=tone)
            rows.append([run.label, part, number(item.ece), confidence, number(item.accuracy)])
    return rows


def reliability_rows(entry: Any) -> Rows:
    """Return how well the reliability of a frame tells which masks are right."""
    return [
        [run.label, number(found.mean), number(found.least), score(found, 'spearman'),
         *(number(found.risk.get(kept)) for kept in ('0.5', '0.9', '1'))]
        for run in entry.runs if (found := run.reliability).mean is not None
    ]  # fmt: skip


def flicker_rows(sets: Sequence[Any]) -> Rows:
    """Return how much the labels change between neighbouring frames."""
    rows = []
    for entry in sets:
        for run in entry.runs:
            states = run.flicker.by_state
            parts = {'all': run.flicker.all, **(states if len(states) > 1 else {})}
            rows += [
                [entry.name, run.label, name, count(item.pairs), share(item.plain, 2),
                 share(item.warped, 2)]
                for name, item in parts.items() if item.pairs
            ]  # fmt: skip
    return rows


def routing_rows(entry: Any) -> Rows:
    """Return what the router did, in the measures that are known of any configuration."""
    routing = [run.routing for run in entry.runs]
    late = 'seconds until the state followed'
    rows = [
        ['state', *(_held(run.routing.seconds_by_state, run.states) for run in entry.runs)],
        ['route', *(_held(run.routing.seconds_by_route, run.routes) for run in entry.runs)],
        ['minutes', *(number(item.minutes, 1) for item in routing)],
        ['switches of the route', *(count(item.switches) for item in routing)],
        ['switches per minute', *(number(item.switches_per_minute, 2) for item in routing)],
        ['frames in a wrong state', *(share(item.wrong_state_share) for item in routing)],
        ['seconds in a wrong state', *(number(item.wrong_state_s, 1) for item in routing)],
        [f'{late}, median', *(number(item.delay_s.p50, 2) for item in routing)],
        [f'{late}, longest', *(number(item.delay_s.max, 2) for item in routing)],
        ['changes of light never followed', *(count(item.delay_s.missed) for item in routing)],
    ]
    if not entry.drive:
        # only drives have durations, switches and delays
        rows = [rows[0], rows[1], rows[5]]
    return [row for row in rows if set(row[1:]) != {ABSENT}]


def _held(seconds: Mapping[str, float | None], frames: Mapping[str, int]) -> str:
    """Return how much of the time, or of the frames, each state or route held."""
    parts = {name: value for name, value in seconds.items() if value} or frames
    ranked = sorted(parts.items(), key=lambda item: -(item[1] or 0))
    total = sum(value or 0 for value in parts.values()) or 1
    shares = (f'{name} {share((value or 0) / total, 0)}' for name, value in ranked)
    return ', '.join(shares) or ABSENT


def light_rows(lights: Mapping[str, Mapping[str, int]]) -> Rows:
    """Return frames by true light and state."""
    rows: Rows = []
    for light in _known(lights, STATES):
        seen, total = lights[light], sum(lights[light].values())
        right = {light, 'glare'} if light in ('dusk', 'night') else {light}
        cells = [
            cell(count(seen[state]) if seen.get(state) else '',
                 heat=seen.get(state, 0) / total if total else 0.0,
                 tone='hit' if state in right else 'miss')
            for state in STATES
        ]  # fmt: skip
        rows.append([light, *cells])
    return rows


def change_rows(changes: Sequence[Any]) -> Rows:
    """Return each change of the true light, and when the state followed."""
    return [
        [item.source, ABSENT if item.stamp is None else moment(item.stamp),
         f'{getattr(item, "from")} to {item.to}',
         'never' if item.delay_s is None else number(item.delay_s, 2)]
        for item in changes
    ]  # fmt: skip


def different(values: Iterable[Any]) -> list[Any]:
    """Return what is there, each once."""
    found: list[Any] = []
    for value in values:
        if value and value not in found:
            found.append(value)
    return found


def rate_rows(sets: Sequence[Any]) -> Rows:
    """Return the frames per second of the evaluation."""
    return [
        [entry.name, run.label, count(run.frames), number(run.timing.seconds, 1),
         number(run.timing.frames_per_second, 1)]
        for entry in sets for run in entry.runs if run.timing.frames_per_second is not None
    ]  # fmt: skip


def stage_rows(entry: Any) -> Rows:
    """Return the milliseconds of each stage, by configuration."""
    stages = _known((stage for run in entry.runs for stage in run.timing.ms), STAGES)
    found = [
        (stage, run.label, run.timing.ms[stage])
        for stage in stages for run in entry.runs if stage in run.timing.ms
    ]  # fmt: skip
    most = max((times.mean or 0.0 for _, _, times in found), default=0.0) or 1.0
    return [
        [stage, label, cell(number(times.mean, 1), bar=(times.mean or 0.0) / most),
         *(number(ms, 1) for ms in (times.p50, times.p95, times.p99, times.max))]
        for stage, label, times in found
    ]  # fmt: skip


def error_rows(sources: Sequence[Any]) -> Rows:
    """Return what could not be read, and labels that belong to no frame."""
    return [
        [code(source.name or PurePath(source.path).name), code(source.topic), error,
         count(source.frames), count(source.failed)]
        for source in sources for error in source.errors
    ]  # fmt: skip


def fact_rows(evaluation: Any) -> Rows:
    """Return command, machine and versions."""
    command = evaluation.command
    words = shlex.join(map(str, command)) if isinstance(command, list) else word(command)
    machine = evaluation.machine
    machine = machine if isinstance(machine, Mapping) else {'machine': machine}
    return [
        ['evaluated', date_of(evaluation.created) or ABSENT],
        ['nightseg', flat(evaluation.nightseg) or ABSENT],
        ['command', code(words or ABSENT)],
        ['took', f'{number(evaluation.wall_s, 1)} s'],
        ['bootstrap', flat(vars(evaluation.bootstrap)) or ABSENT],
        *([str(name), flat(value)] for name, value in machine.items() if value is not None),
    ]


def weights_in_short(evaluation: Any) -> str:
    """Return the files of all configurations and how their hashes begin."""
    parts = [
        item for entry in evaluation.configurations for item in entry.pipeline.weights.items()
    ]
    return ', '.join(dict.fromkeys(f'{p.file or role} {p.sha256[:12]}' for role, p in parts))


def weights_rows(evaluation: Any) -> Rows:
    """Return each weights file once, with the configurations that took it."""
    users: dict[tuple[str, ...], list[str]] = {}
    for entry in evaluation.configurations:
        about = ', '.join(
            f'{key} {value}'
            for key in ('backend', 'device', 'long_side')
            if (value := getattr(entry.pipeline, key))
        )
        for role, part in entry.pipeline.weights.items():
            key = (role, part.file, part.sha256, part.license, about)
            users.setdefault(key, []).append(entry.label)
    return [
        [', '.join(names), role, code(file), code(sha), licence, about]
        for (role, file, sha, licence, about), names in users.items()
    ]


def data_rows(sets: Sequence[Any]) -> Rows:
    """Return what was evaluated."""
    return [
        [entry.name, code(source.path or source.name), code(source.topic), source.kind,
         period([source]) if entry.drive else '', count(source.frames), count(source.labelled)]
        for entry in sets for source in entry.sources
    ]  # fmt: skip


def setting_rows(evaluation: Any) -> Rows:
    """Return the settings of the pipeline by configuration."""
    found = [_dotted(entry.options) for entry in evaluation.configurations]
    return [
        [key, *(code(settings.get(key) or ABSENT) for settings in found)]
        for key in dict.fromkeys(key for settings in found for key in settings)
    ]


def differing(rows: Rows) -> Rows:
    """Return the rows in which configurations differ."""
    return [row for row in rows if any(entry != row[1] for entry in row[2:])]


def _dotted(options: Mapping[str, Any], prefix: str = '') -> dict[str, str]:
    """Return nested settings under dotted names, as --compare and the node's parameters have."""
    found: dict[str, str] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            found |= _dotted(value, f'{prefix}{name}.')
        else:
            found[f'{prefix}{name}'] = flat(value)
    return found


# -- sample frames -----------------------------------------------------------------------------


def draw_shots(folder: Path, evaluation: Any) -> tuple[list[Any], list[str]]:
    """
    Draw the sample frames of every set, each once with every configuration.

    A shot has a 'title', what to say 'about' it, 'pictures', whether its labels are known
    ('truth'), and whether it is 'folded' away: the first of each kind is not. Return also what
    cannot be shown, in sentences.
    """
    found: dict[tuple[str, ...], list[tuple[Any, Any, Any]]] = {}
    for entry in evaluation.sets:
        keyed: list[tuple[tuple[str, ...], tuple[Any, Any, Any]]]
        keyed = [
            ((entry.name, sample.kind, sample.source, sample.frame), (entry, run, sample))
            for run in entry.runs
            for sample in run.samples
        ]
        order = [*SAMPLES]
        keyed.sort(key=lambda item: order.index(k) if (k := item[0][1]) in order else len(order))
        for key, member in keyed:
            found.setdefault(key, []).append(member)
    shots: list[dict[str, Any]] = []
    problems: list[str] = []
    palette = evaluation.taxonomy.palette()
    shown = set()
    for (name, kind, *_), members in list(found.items())[:MOST_FRAMES]:
        try:
            labelled = [(run.label, sample) for _, run, sample in members]
            pictures = figures.draw_sample(folder, palette, labelled)
        except (DataError, OSError) as error:
            problems.append(f'A frame of {name} cannot be shown: {error}')
            continue
        title = f'{SAMPLES.get(kind, "Frame")}: {members[0][2].frame}'
        shots.append(
            {
                'title': f'{name}, {title}' if len(evaluation.sets) > 1 else title,
                'about': _about(members),
                'pictures': pictures,
                'truth': any(sample.truth for _, _, sample in members),
                'folded': kind != 'spread' and (name, kind) in shown,
            }
        )
        shown.add((name, kind))
    if not figures.encode([p for shot in shots for p in shot['pictures']], figures.BUDGET):
        shots = []
        problems.append('The pictures are too many for one page; they lie in samples/.')
    if len(found) > MOST_FRAMES:
        problems.append(f'{plural(len(found) - MOST_FRAMES, "more frame")} in samples/.')
    return shots, problems


def _about(members: Sequence[tuple[Any, Any, Any]]) -> str:
    """Return what is said of a frame: place, time, light, and route by configuration."""
    entry, reference, first = members[0]
    parts = [first.source] if first.source not in ('', entry.name) else []
    if entry.drive and first.stamp is not None:
        parts.append(moment(first.stamp))
    parts.append(f'light score {number(first.score, 2)}, state {first.state or "unknown"}')
    if len(members) == 1:
        parts.append(f'route {first.route or "unknown"}')
        if first.miou is not None:
            parts.append(f'mIoU {number(first.miou)}')
        return '; '.join(parts)
    # a route that never changes is in the configuration's name
    parts += [
        f'{run.label} took the route {sample.route or "unknown"}'
        for _, run, sample in members
        if len(run.routes) > 1
    ]
    if first.kind in ('best', 'median', 'worst'):
        parts.append(f'{first.kind} by the mIoU of {reference.label}')
    return '; '.join(parts)
