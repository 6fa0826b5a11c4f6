# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
``report.html`` and ``report.md`` of a finished evaluation.

``metrics.json`` is read, each section makes plain blocks of it (texts, tables, figures, frames),
and two Jinja templates beside this file write the blocks as one HTML page, which needs no network
and runs no script, and as Markdown. Texts are plain until a template escapes them.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup

from nightseg_ros.evaluation.report_figures import (
    ERROR_COLORS,
    draw_frames,
    draw_intervals,
    draw_reliability,
    draw_timelines,
)
from nightseg_ros.files import replace_file
from nightseg_ros.taxonomy import Taxonomy, TaxonomyError

Block = dict[str, Any]
Interval = tuple[float, float]

VERSION = 2
#: What stands where there is no number: a class that does not occur, a score without labels.
ABSENT = '–'
#: Fewer units than this make a bootstrap interval a rough guess, and the report says so.
FEW_UNITS = 10
#: Mean confidence and accuracy further apart than this are remarked on.
FAR = 0.02
#: Rows of a table that lists sources, errors or changes; metrics.json holds the others.
MOST_ROWS = 60
STATES = ('day', 'dusk', 'night', 'glare')
SCORES = (
    ('miou', 'mIoU', 'mean IoU of the classes present'),
    ('miou9', 'mIoU9', 'without fence and bicyclist'),
    ('miou_subset', 'mIoU of the subset', 'classes chosen by --classes'),
    ('pixel_acc', 'pixel accuracy', 'labelled pixels that are right'),
)
SPLITS = (
    ('by_state', 'state', 'by the state that the router saw'),
    ('by_light', 'true light', 'by the true light'),
    ('by_route', 'route', 'by the route taken'),
    ('by_source', 'source', 'by source'),
)
STAGES = (
    'decode', 'estimate', 'shrink', 'network', 'post', 'render', 'pipeline', 'metrics', 'wall',
)  # fmt: skip
UNITS = {
    'frames': ('frame', 'frames'),
    'blocks': ('block of neighbouring frames', 'blocks of neighbouring frames'),
    'sources': ('source', 'sources'),
}
TERMS = (
    ('mIoU', 'Mean intersection over union over the classes that the labels hold.'),
    ('mIoU9', 'The same without fence and bicyclist, which have too few pixels at night.'),
    ('pixel accuracy', 'Share of the labelled pixels that are right.'),
    ('interval', 'Percentile bootstrap: the scores of many draws, with replacement, of frames or '
     'of blocks of neighbouring frames. It says how much depends on the choice of frames.'),
    ('difference', 'Score minus that of the first configuration, over the same draws. An interval '
     'that holds zero shows no clear difference.'),
    ('light score', '0 is dark, 1 is daylight; the router makes day, dusk and night of it.'),
    ('route', 'day: the segmenter for daylight. night: the one trained on synthetic night. '
     'translate: night is turned into day first. auto: what the router decides.'),
    ('not labelled', 'Pixels without a label are in no score.'),
)  # fmt: skip


class ReportError(ValueError):
    """A folder that holds no finished evaluation, or one of another version."""


def write_report(out: Path) -> None:
    """
    Write ``report.html`` and ``report.md`` into the folder of a finished evaluation.

    Reads only what lies in ``out``: ``metrics.json``, and ``frames.jsonl`` and ``samples/``
    where they are. ``ReportError`` says what is missing; ``OSError`` where nothing can be written.
    """
    page = make_page(Evaluation.read(out))
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=select_autoescape(['html.jinja'], default=False),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(plain=_plain, cell=_markdown_cell)
    # the style sheet is ours; every value is escaped
    css = Markup((folder / 'report.css').read_text(encoding='utf-8'))  # noqa: S704  # nosec
    for name in ('report.html', 'report.md'):
        text = environment.get_template(f'{name}.jinja').render(page=page, css=css)
        replace_file(out / name, f'{text}\n'.encode(errors='replace'))


# -- what metrics.json holds -------------------------------------------------------------------


def at(data: Any, path: str, *names: str) -> Any:
    """Return what lies under the keys of 'a.b.c' and then ``names``; None where one is missing."""
    for key in (*path.split('.'), *names):
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def real(data: Any, path: str, *names: str) -> float | None:
    """Return a finite number, else None."""
    value = at(data, path, *names)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    # a whole number of JSON may be larger than any float
    return float(value) if -1e300 < value < 1e300 else None


def whole(data: Any, path: str, *names: str) -> int:
    """Return a count; 0 where there is none."""
    return int(real(data, path, *names) or 0)


def ends(data: Any, path: str, *names: str) -> Interval | None:
    """Return an interval, None where it has no two finite ends."""
    value = listed(data, path, *names)
    low, high = (real({'': end}, '') for end in value) if len(value) == 2 else (None, None)
    return None if low is None or high is None else (low, high)


def members(data: Any, path: str, *names: str) -> dict[str, Any]:
    """Return a mapping, an empty one where there is none."""
    value = at(data, path, *names)
    return {str(k): v for k, v in value.items()} if isinstance(value, Mapping) else {}


def listed(data: Any, path: str, *names: str) -> list[Any]:
    """Return a list, an empty one where there is none."""
    value = at(data, path, *names)
    return value if isinstance(value, list) else []


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """A folder that ``nightseg evaluate`` has filled."""

    folder: Path
    metrics: dict[str, Any]
    taxonomy: Taxonomy
    sets: list[dict[str, Any]]
    """Entries of 'sets' with their 'name' and 'runs'; those have a 'name' and a 'label'."""

    @classmethod
    def read(cls, folder: Path) -> Evaluation:
        """Read ``metrics.json``; ``ReportError`` says what is wrong with it."""
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
        version = at(metrics, 'version')
        if version != VERSION:
            raise ReportError(
                f"'{path}' is of version {version!r}, a report is made of version {VERSION}: "
                'evaluate again'
            )
        try:
            taxonomy = Taxonomy.from_dict(metrics.get('taxonomy') or {})
        except TaxonomyError as error:
            raise ReportError(f"'{path}' has no readable taxonomy: {error}") from error
        sets: dict[str, dict[str, Any]] = {
            name: {**members({'': data}, ''), 'name': name, 'runs': []}
            for name, data in members(metrics, 'sets').items()
        }
        for key in members(metrics, 'runs'):
            run = members(metrics, 'runs', key)
            name = str(run.get('set') or '')
            entry = sets.setdefault(name, {'name': name, 'runs': []})
            label = _label(metrics, run.get('configuration'))
            entry['runs'].append({**run, 'name': key, 'label': label})
        return cls(folder=folder, metrics=metrics, taxonomy=taxonomy, sets=list(sets.values()))

    @property
    def labelled(self) -> list[dict[str, Any]]:
        """Sets with anything to score against."""
        return [entry for entry in self.sets if _labelled(entry)]


def _label(metrics: Any, name: Any) -> str:
    """Return a configuration in words; the only one has no name but its route."""
    return str(name or '') or f'route={at(metrics, "route") or "unknown"}'


def _labelled(entry: Any) -> bool:
    return any(whole(run, 'labelled') for run in entry['runs'])


def _drive(entry: Any) -> bool:
    """Whether frames follow one another in time."""
    return bool(at(entry, 'kind') == 'recordings')


# -- numbers as text ---------------------------------------------------------------------------


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with ``digits`` decimals; None, NaN and infinity are '–'."""
    if value is None or not math.isfinite(value):
        return ABSENT
    text = f'{value:.{digits}f}'
    return text.replace('-', '−') if float(text) else text.lstrip('-')


def num(data: Any, path: str, *names: str, digits: int = 3) -> str:
    """Return the number under ``path`` as text."""
    return number(real(data, path, *names), digits)


def signed(value: float | None) -> str:
    """Return a number with its sign; a rounded zero has none."""
    text = number(value)
    return text if text in (ABSENT, '0.000') or text[0] == '−' else f'+{text}'


def interval(bounds: Interval | None, write: Callable[[float], str] = number) -> str:
    """Return '[low, high]'; empty where there is none."""
    return '' if bounds is None else f'[{write(bounds[0])}, {write(bounds[1])}]'


def score(entry: Any, key: str) -> str:
    """Return '0.512 [0.471, 0.553]'; the interval is left out where there is none."""
    return f'{num(entry, key)} {interval(ends(entry, f"{key}_ci"))}'.strip()


def share(value: float | None, digits: int = 1) -> str:
    """Return 0–1 as a percentage."""
    text = number(None if value is None else 100 * value, digits)
    return text if text == ABSENT else f'{text} %'


def count(value: float | None) -> str:
    """Return a count with thin spaces between thousands."""
    return ABSENT if value is None else f'{int(value):,}'.replace(',', '\u202f')


def plural(value: int, one: str, many: str = '') -> str:
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


def flat(value: Any) -> str:
    """Return nested JSON as a line of words."""
    if isinstance(value, Mapping):
        return ', '.join(f'{name} {flat(item)}' for name, item in value.items())
    if isinstance(value, list):
        return ', '.join(map(flat, value))
    if isinstance(value, float) and not math.isfinite(value):
        return ABSENT
    return '' if value is None else str(value)


# -- blocks ------------------------------------------------------------------------------------


def paragraph(text: str, tone: str = '') -> Block:
    """``tone`` 'note' is a remark, 'warning' a reason to doubt the numbers."""
    return {'kind': 'text', 'text': text, 'tone': tone}


def fold(title: str, blocks: Iterable[Block]) -> Block:
    """Return blocks that are shown when somebody asks for them."""
    return {'kind': 'fold', 'title': title, 'blocks': list(blocks)}


def cell(text: str, **marks: Any) -> Block:
    """
    Return a cell of a table that is more than its text.

    ``tag`` is a word that judges the number, ``tone`` its colour; ``bar`` a length of 0 to 1;
    ``heat`` the strength of the background, 0 to 1; ``swatch`` a colour (#rrggbb); ``code`` a
    hash, a command or a file name, which may break anywhere.
    """
    return {'text': text, **marks}


def table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    words: int = 1,
    optional: Sequence[int] = (),
    most: int = MOST_ROWS,
    matrix: bool = False,
) -> Block:
    """
    Return a table; the first ``words`` columns hold words, the others numbers.

    Those of the ``optional`` columns that say one thing in every row are left out.
    """
    cells = [[c if isinstance(c, dict) else cell(c) for c in row] for row in rows]
    drop = {i for i in optional if len({row[i]['text'] for row in cells}) < 2}
    keep = [i for i in range(len(columns)) if i not in drop]
    more = len(cells) - most
    return {
        'kind': 'table',
        'caption': caption,
        'columns': [columns[i] for i in keep],
        'rows': [[row[i] for i in keep] for row in cells[:most]],
        'words': words - len(drop),
        'matrix': matrix,
        'note': f'{more} more in metrics.json.' if more > 0 else '',
    }


# -- sections ----------------------------------------------------------------------------------


def make_page(evaluation: Evaluation) -> dict[str, Any]:
    """Return everything that the report says; a section without blocks is left out."""
    sections = (
        ('result', 'Result', result(evaluation)),
        ('classes', 'Classes', classes(evaluation)),
        ('splits', 'By light, route and source', splits(evaluation)),
        ('timeline', 'Along the drive', timeline(evaluation)),
        ('frames', 'Frames', frames(evaluation)),
        ('confusion', 'Confusion', confusion(evaluation)),
        ('calibration', 'Calibration', calibration(evaluation)),
        ('flicker', 'Flicker', flicker(evaluation)),
        ('router', 'Router', router(evaluation)),
        ('speed', 'Speed', speed(evaluation)),
        ('read-errors', 'Read errors', read_errors(evaluation)),
        ('provenance', 'Provenance', provenance(evaluation)),
        ('terms', 'Terms', [table('Words of this report', ('word', 'meaning'), TERMS, words=2)]),
    )
    names = [entry['name'] for entry in evaluation.sets]
    return {
        'title': ', '.join(names) if 0 < len(names) <= 3 else f'{len(names)} sets',
        'lead': headline(evaluation),
        'facts': facts(evaluation),
        'sections': [
            {'name': name, 'title': title, 'blocks': blocks}
            for name, title, blocks in sections
            if blocks
        ],
        'colophon': 'Made by nightseg report from metrics.json, frames.jsonl and samples/ of '
        f'this evaluation, format {VERSION}. '
        'The numbers hold for these frames, these weights and this machine.',
    }


def headline(evaluation: Evaluation) -> str:
    """Return the result in a sentence."""
    if not evaluation.labelled:
        seen = sum(whole(entry['runs'][0], 'frames') for entry in evaluation.sets if entry['runs'])
        return (
            f'{plural(seen, "frame")} without labels: how accurate the masks are is not known. '
            'Shown is what needs no labels.'
        )
    entry = evaluation.labelled[0]
    runs = entry['runs']
    best = max(runs, key=lambda run: real(run, 'all.miou') or 0.0)
    equal = [run for run in runs if num(run, 'all.miou') == num(best, 'all.miou')]
    text = (
        f'On {plural(whole(runs[0], "labelled"), "labelled frame")} of {entry["name"]}, '
        f'{" and ".join(run["label"] for run in equal)} '
        f'{"reaches" if len(equal) == 1 else "reach"} mIoU {score(at(best, "all"), "miou")}'
    )
    if len(equal) == len(runs) > 1:
        text += ', all configurations the same'
    elif len(runs) > 1:
        text += f', the highest of {len(runs)} configurations'
        paired = _paired(evaluation).get(best['name'])
        if paired is not None and runs[0] not in equal:
            text += f'; {_difference(paired, "miou")["text"]} against {runs[0]["label"]}'
    more = len(evaluation.labelled) - 1
    return text + ('.' if not more else f'. {plural(more, "more set")} below.')


def facts(evaluation: Evaluation) -> list[str]:
    """Return what stands under the title: data, weights, program, day and machine."""
    found = []
    for entry in evaluation.sets:
        seen, labelled = (
            max((whole(run, key) for run in entry['runs']), default=0)
            for key in ('frames', 'labelled')
        )
        kind = 'drive' if _drive(entry) else 'pictures'
        dates = _dates(listed(entry, 'sources')) if _drive(entry) else ''
        found.append(
            f'Data: {entry["name"]}, {kind}, {plural(seen, "frame")}, {count(labelled)} labelled'
            + (f', {dates}' if dates else '')
        )
    weights = dict.fromkeys(
        f'{at(part, "file") or role} {str(at(part, "sha256") or "")[:12]}'
        for _, pipeline in _pipelines(evaluation)
        for role, part in members(pipeline, 'weights').items()
    )
    if weights:
        found.append(f'Weights: {", ".join(weights)}')
    version = flat(at(evaluation.metrics, 'nightseg'))
    runtime = [str(at(evaluation.metrics, 'pipeline', key) or '') for key in ('backend', 'device')]
    day = _date(at(evaluation.metrics, 'created'))
    parts = (
        f'nightseg {version}' if version else '',
        ' on '.join(filter(None, runtime)),
        f'evaluated {day}' if day else '',
    )
    return [*found, *filter(None, [', '.join(filter(None, parts))])]


def result(evaluation: Evaluation) -> list[Block]:
    """Return the headline numbers of every set, and configurations compared."""
    blocks: list[Block] = []
    paired = _paired(evaluation)
    for entry in evaluation.sets:
        name, runs = entry['name'], entry['runs']
        if not runs:
            continue
        frames_words = plural(whole(runs[0], 'labelled'), 'labelled frame')
        if not _labelled(entry):
            blocks.append(
                paragraph(
                    f'{name} has no labels. Accuracy, classes, confusion and calibration need '
                    'them and are left out; what follows needs none.',
                    'warning',
                )
            )
        found = [_numbers(entry, run) for run in runs]
        if len(runs) == 1:
            if _labelled(entry):
                blocks.append(paragraph(f'{name}, {runs[0]["label"]}: {frames_words}.'))
            blocks.append({'kind': 'cards', 'cards': list(found[0].values())})
        else:
            columns = list(dict.fromkeys(key for values in found for key in values))
            rows = [
                [run['label'], *(_card_text(values.get(key)) for key in columns)]
                for run, values in zip(runs, found)
            ]
            same = f'{frames_words}, the same' if _labelled(entry) else 'the same frames'
            caption = f'{name}: {same} for all'
            blocks.append(table(caption, ('configuration', *columns), rows))
            blocks += _differences(entry, paired)
        if _labelled(entry):
            blocks += _doubts(evaluation, entry)
        failed = max(whole(run, 'failed') for run in runs)
        if failed:
            blocks.append(
                paragraph(
                    f'{plural(failed, "frame")} of {name} got no mask; they are in no score. '
                    'See Read errors.',
                    'warning',
                )
            )
    return blocks or [paragraph('No frame was evaluated.', 'warning')]


def _numbers(entry: Any, run: Any) -> dict[str, Block]:
    """Return the headline numbers of a run by their names."""
    found = {}

    def add(name: str, about: str, value: str, bounds: Interval | None = None) -> None:
        if value != ABSENT:
            card = {'name': name, 'value': value, 'interval': interval(bounds), 'about': about}
            found[name] = card

    if _labelled(entry):
        for key, name, about in SCORES:
            add(name, about, num(run, 'all', key), ends(run, f'all.{key}_ci'))
        if len(members(run, 'by_source')) > 1:
            key = 'mean_of_sources_miou9'
            about = 'mIoU9, sources weigh equally'
            add('mean of sources', about, num(run, key), ends(run, f'{key}_ci'))
        about = 'confidence against accuracy'
        add('calibration error', about, num(run, 'calibration.all.ece'))
    else:
        add('frames', f'segmented, {run["label"]}', count(whole(run, 'frames')))
        about = 'pixels that change between neighbouring frames, motion compensated'
        add('label flicker', about, share(real(run, 'flicker.all.warped')))
        if _drive(entry):
            about = f'in {num(run, "routing.minutes", digits=1)} min'
            add('route switches', about, count(real(run, 'routing.switches')))
    # configurations share one pass and so its seconds
    if len(entry['runs']) == 1:
        rate = num(run, 'timing.frames_per_second', digits=1)
        add('speed', 'frames per second, this machine', rate)
    return found


def _card_text(card: Block | None) -> str:
    return ABSENT if card is None else f'{card["value"]} {card["interval"]}'.strip()


def _paired(evaluation: Evaluation) -> dict[str, Any]:
    """Return the paired differences by run."""
    return {str(at(item, 'run')): item for item in listed(evaluation.metrics, 'compare')}


def _differences(entry: Any, paired: Mapping[str, Any]) -> list[Block]:
    first, *others = entry['runs']
    rows = [run for run in others if run['name'] in paired]
    keys = {key: name for key, name, _ in SCORES}
    if any(len(members(run, 'by_source')) > 1 for run in entry['runs']):
        keys['mean_of_sources_miou9'] = 'mIoU9, mean of sources'
    shown = [k for k in keys if any(at(paired[run['name']], k) for run in rows)]
    if not shown:
        return []
    cells = [[run['label'], *(_difference(paired[run['name']], k) for k in shown)] for run in rows]
    caption = f'{entry["name"]}: difference to {first["label"]}'
    svg = draw_intervals(
        [
            (
                run['label'],
                real(run, 'all.miou'),
                ends(run, 'all.miou_ci'),
                real(paired.get(run['name']), 'miou', 'difference'),
                ends(paired.get(run['name']), 'miou', 'ci'),
            )
            for run in entry['runs']
        ],
        first['label'],
        f'mIoU of the configurations on {entry["name"]} with intervals',
    )
    figure = {'kind': 'figures', 'words': [], 'figures': [{'svg': svg, 'caption': ''}]}
    return [table(caption, ('configuration', *(keys[k] for k in shown)), cells), figure]


def _difference(item: Any, key: str) -> Block:
    value, bounds = real(item, key, 'difference'), ends(item, key, 'ci')
    tag, tone = '', ''
    if bounds is not None and value is not None:
        tag = 'no clear difference'
        if bounds[0] > 0:
            tag, tone = 'better', 'good'
        elif bounds[1] < 0:
            tag, tone = 'worse', 'bad'
    return cell(f'{signed(value)} {interval(bounds, signed)}'.strip(), tag=tag, tone=tone)


def _doubts(evaluation: Evaluation, entry: Any) -> list[Block]:
    """Say what the intervals are drawn from, and where that is too little."""
    name, runs = entry['name'], entry['runs']
    if all(ends(run, 'all.miou_ci') is None for run in runs):
        text = (
            f'{name}: no interval can be given, there is too little to draw from. '
            'Take the scores as an example, not as an estimate.'
        )
        return [paragraph(text, 'warning')]
    unit, units = str(at(entry, 'unit') or 'frames'), real(entry, 'units')
    what = UNITS.get(unit, (unit, unit))
    drawn = what[1] if units is None else plural(int(units), *what)
    seconds = real(evaluation.metrics, 'bootstrap.block_s')
    length = f' of {seconds:g} s' if unit == 'blocks' and seconds is not None else ''
    resamples = real(evaluation.metrics, 'bootstrap.resamples')
    times = f', {count(resamples)} times' if resamples else ''
    level = real(evaluation.metrics, 'bootstrap.level') or 0.95
    text = (
        f'[low, high]: {share(level, 0)} bootstrap interval, drawn over {drawn}{length}{times}. '
        'It covers the choice of frames, not other places, cameras or weather.'
    )
    if len(runs) > 1:
        text += ' Differences are paired: the same draws for both.'
    blocks = [paragraph(text, 'note')]
    if units is not None and units < FEW_UNITS:
        text = f'the intervals of {name} are rough and tend to be too narrow.'
        blocks.append(paragraph(f'Only {drawn} to draw from: {text}', 'warning'))
    return blocks


def classes(evaluation: Evaluation) -> list[Block]:
    """Return the IoU of each class, by configuration."""
    blocks = []
    for entry in evaluation.labelled:
        runs = entry['runs']
        single = [
            _class_table(evaluation, [run], f'Classes of {entry["name"]}, {run["label"]}')
            for run in runs
        ]
        if len(runs) > 1:
            blocks.append(_class_table(evaluation, runs, f'IoU on {entry["name"]}'))
            blocks.append(fold('Intervals and accuracy of each configuration', single))
        else:
            blocks += single
    if blocks:
        text = (
            'IoU: pixels that label and mask both call so, divided by those that either '
            'does. Accuracy: share of the labelled pixels of a class that the mask finds. '
            f'{ABSENT} stands for a class that neither holds; one that only masks hold has IoU 0 '
            'and does not count in the mean.'
        )
        blocks.append(paragraph(text, 'note'))
    return blocks


def _class_table(evaluation: Evaluation, runs: list[Any], caption: str) -> Block:
    one = len(runs) == 1
    all_ = at(runs[0], 'all')
    support = {name: whole(all_, 'support', name) for name in evaluation.taxonomy.classes}
    total = sum(support.values())
    rows: list[list[Any]] = []
    for name, color in zip(evaluation.taxonomy.classes, evaluation.taxonomy.colors):
        part = support[name] / total if total else None
        values = [real(run, 'all.iou', name) for run in runs]
        guessed = part == 0 and any(value is not None for value in values)
        head = cell(name, swatch=_hex(color), tag='only in masks' if guessed else '')
        row = [head, share(part), *(cell(number(value), bar=value) for value in values)]
        if one:
            row += [interval(ends(all_, 'iou_ci', name)) or ABSENT, num(all_, 'acc', name)]
        rows.append(row)
    if one:
        means = (
            ('mean of the classes labelled', 'miou', 'mean_acc'),
            ('weighted by pixels', 'fw_iou', 'pixel_acc'),
        )
        for words, iou, accuracy in means:
            bounds = interval(ends(all_, f'{iou}_ci'))
            rows.append([words, '', num(all_, iou), bounds, num(all_, accuracy)])
    else:
        rows.append(['mIoU', '', *(num(run, 'all.miou') for run in runs)])
    heads = ('IoU', 'interval', 'accuracy') if one else tuple(run['label'] for run in runs)
    return table(caption, ('class', 'labelled pixels', *heads), rows)


def _hex(color: Sequence[int]) -> str:
    return '#' + ''.join(f'{channel:02x}' for channel in color)


def splits(evaluation: Evaluation) -> list[Block]:
    """Return scores by state, light, route and source."""
    blocks = []
    for entry in evaluation.labelled:
        for key, head, words in SPLITS:
            runs = entry['runs']
            names = sorted({name for run in runs for name in members(run, key)})
            if key == 'by_route' and len(runs) > 1:
                # a fixed route has nothing to split
                runs = [run for run in runs if len(members(run, key)) > 1]
            if not runs or not names or (len(names) < 2 and key in ('by_source', 'by_route')):
                continue
            many = len(entry['runs']) > 1
            if many:
                views = [(run['label'], run, 'miou') for run in runs]
            else:
                views = [(name, runs[0], kind) for kind, name, _ in SCORES if 'subset' not in kind]
            if len(names) > MOST_ROWS:
                # the lowest are shown
                names.sort(key=lambda name: real(entry['runs'][0], key, name, 'miou') or 0.0)
            rows = []
            for name in names:
                sizes = {whole(run, key, name, 'frames') for _, run, _ in views}
                cells = []
                for _, run, kind in views:
                    value = score(at(run, key, name), kind)
                    bar = real(run, key, name, kind) if kind == 'miou' else None
                    tag = plural(whole(run, key, name, 'frames'), 'frame')
                    differ = len(sizes) > 1 and value != ABSENT
                    cells.append(cell(value, bar=bar, tag=tag if differ else ''))
                rows.append([name, count(min(sizes)) if len(sizes) == 1 else 'differ', *cells])
            columns = (head, 'frames', *(name for name, _, _ in views))
            suffix = ': mIoU' if many else ''
            blocks.append(table(f'{entry["name"]}, {words}{suffix}', columns, rows))
    return blocks


def timeline(evaluation: Evaluation) -> list[Block]:
    """Draw score, state, route and scores of single frames along each drive."""
    drives = [entry for entry in evaluation.sets if _drive(entry)]
    if not drives:
        return []
    drawn, left_out = draw_timelines(evaluation.folder / 'frames.jsonl', drives)
    blocks: list[Block] = [
        {
            'kind': 'figures',
            'title': f'{item["title"]}: {plural(item["frames"], "frame")}, {item["length"]}',
            'words': item['words'],
            'figures': [{'svg': item['svg'], 'caption': ''}],
        }
        for item in drawn
    ]
    if blocks:
        text = (
            'Time since the first frame. mIoU and confidence are of the single frame. Where '
            'there are more frames than can be drawn, a shaded band spans the lowest and the '
            'highest value of each moment.'
        )
        if left_out:
            text += f' {plural(left_out, "more drive")} in frames.jsonl, not drawn here.'
        blocks.append(paragraph(text, 'note'))
    return blocks


def frames(evaluation: Evaluation) -> list[Block]:
    """Show the sample frames of every set; a frame is shown once, with every configuration."""
    shots, problems = draw_frames(evaluation.folder, evaluation.taxonomy, evaluation.sets)
    blocks: list[Block] = []
    if shots:
        colors = zip(evaluation.taxonomy.classes, map(_hex, evaluation.taxonomy.colors))
        blocks.append({'kind': 'keys', 'title': 'Masks:', 'entries': list(colors)})
        if any(shot.truth for shot in shots):
            keys = list(zip(('right', 'wrong'), map(_hex, ERROR_COLORS.tolist())))
            keys.append(('not labelled, not scored', '#3a3a3a'))
            blocks.append({'kind': 'keys', 'title': 'Errors:', 'entries': keys})
        # the first of each kind, and the others for those who ask
        first = {(shot.set, shot.kind): shot for shot in reversed(shots)}
        shown = [s for s in shots if s.kind == 'spread' or first[s.set, s.kind] is s]
        folded = [shot for shot in shots if shot not in shown]
        several = len(evaluation.sets) > 1
        blocks.append({'kind': 'shots', 'shots': [_shot(shot, several) for shot in shown]})
        if folded:
            block = {'kind': 'shots', 'shots': [_shot(shot, several) for shot in folded]}
            blocks.append(fold(plural(len(folded), 'more frame'), [block]))
    return [*blocks, *(paragraph(problem, 'note') for problem in problems)]


def _shot(shot: Any, several: bool) -> Block:
    """Return a frame as the templates take it, with its words."""
    run, sample = shot.members[0]
    title = f'{shot.title}: {at(sample, "frame")}'
    stamp, source = at(sample, 'stamp'), at(sample, 'source')
    parts = [str(source)] if source and source != shot.set else []
    if shot.drive and isinstance(stamp, int):
        parts.append(moment(stamp))
    state, route = (str(at(sample, key) or 'unknown') for key in ('state', 'route'))
    parts.append(f'light score {num(sample, "score", digits=2)}, state {state}')
    if len(shot.members) == 1:
        parts.append(f'route {route}')
        if real(sample, 'miou') is not None:
            parts.append(f'mIoU {num(sample, "miou")}')
    else:
        for member, sample in shot.members:
            # a route that never changes is in the configuration's name
            if len(members(member, 'routes')) > 1:
                parts.append(
                    f'{member["label"]} took the route {at(sample, "route") or "unknown"}'
                )
        if shot.kind in ('best', 'median', 'worst'):
            parts.append(f'{shot.kind} by the mIoU of {run["label"]}')
    title = f'{shot.set}, {title}' if several else title
    return {'title': title, 'about': '; '.join(parts), 'pictures': shot.pictures}


def confusion(evaluation: Evaluation) -> list[Block]:
    """Show what is taken for what, in percent of the labelled pixels of a class."""
    blocks = []
    for entry in evaluation.labelled:
        for run in entry['runs']:
            block = _confusion_table(evaluation.taxonomy, entry, run)
            if block is not None and run is not entry['runs'][0]:
                block = fold(f'Confusion of {entry["name"]}, {run["label"]}', [block])
            blocks += [block] if block is not None else []
    if blocks:
        text = (
            'Each row shows, in percent, what the masks make of the labelled pixels of one '
            'class. Blue is right, orange is taken for another class.'
        )
        blocks.insert(0, paragraph(text))
    return blocks


def _confusion_table(taxonomy: Taxonomy, entry: Any, run: Any) -> Block | None:
    names = taxonomy.classes
    counts = np.zeros((len(names), len(names) + 1), np.float64)
    try:
        counts[:, :-1] = np.array(listed(run, 'all.confusion'), np.float64)
        counts[:, -1] = listed(run, 'all.abstained') or [
            real(run, 'all.abstained', name) or 0.0 for name in names
        ]
    except (TypeError, ValueError, OverflowError):
        return None
    heads = (*names, 'no mask') if counts[:, -1].any() else names
    rows = []
    for index, (name, color) in enumerate(zip(names, taxonomy.colors)):
        total = float(counts[index].sum())
        row = [cell(name, swatch=_hex(color))]
        for other in range(len(heads)):
            part = float(counts[index, other]) / total if total else 0.0
            text = '<1' if 0 < part < 0.005 else f'{100 * part:.0f}' if part else ''
            row.append(cell(text, heat=part, tone='hit' if other == index else 'miss'))
        rows.append([*row, count(total) if total else ABSENT])
    caption = f'{entry["name"]}, {run["label"]}: rows are the labels, columns the masks'
    return table(caption, ('labelled as', *heads, 'pixels'), rows, matrix=True)


def calibration(evaluation: Evaluation) -> list[Block]:
    """Show whether the confidence of a mask can be believed, whole and by state."""
    blocks: list[Block] = []
    for entry in evaluation.labelled:
        name, runs = entry['name'], entry['runs']
        found = [_calibrations(run) for run in runs]
        for run, parts in zip(runs, found):
            drawn = [
                {'svg': draw_reliability(bins, caption), 'caption': caption}
                for part, item in parts.items()
                if (bins := _bins(item)) is not None
                for caption in [f'{part}: calibration error {num(item, "ece")}']
            ]
            if drawn:
                title = (
                    f'{name}, {run["label"]}: share of right labels by confidence (bars); '
                    'orange where the confidence is above it, light blue where it is below'
                )
                words = [figure['caption'] for figure in drawn]
                block = {'kind': 'figures', 'title': title, 'words': words, 'figures': drawn}
                title = f'Reliability diagrams of {name}, {run["label"]}'
                blocks.append(block if run is runs[0] else fold(title, [block]))
        rows = [
            [run['label'], part, num(item, 'ece'), _confidence(item), num(item, 'accuracy')]
            for run, parts in zip(runs, found)
            for part, item in parts.items()
        ]
        columns = ('configuration', 'frames of', 'calibration error', 'mean confidence',
                 'pixel accuracy')  # fmt: skip
        whole_table = table(f'Calibration on {name}', columns, rows, words=2, optional=(0,))
        if len(runs) > 1:
            states = dict.fromkeys(part for parts in found for part in parts)
            errors = [[s, *(num(parts, s, 'ece') for parts in found)] for s in states]
            heads = ('frames of', *(run['label'] for run in runs))
            blocks.append(table(f'Calibration error on {name}', heads, errors))
            title = 'Confidence and accuracy of each configuration'
            blocks.append(fold(title, [whole_table]))
        elif rows:
            blocks.append(whole_table)
        trusted = [
            [
                run['label'],
                *(num(run, 'reliability', key) for key in ('mean', 'least')),
                score(at(run, 'reliability'), 'spearman'),
                *(num(run, 'reliability.risk', kept) for kept in ('0.5', '0.9', '1')),
            ]
            for run in runs
            if at(run, 'reliability')
        ]
        if trusted:
            caption = (
                f'Reliability of the frames of {name}: its rank correlation with the share of '
                'right pixels, and the wrong pixels of the most reliable frames'
            )
            heads = ('configuration', 'mean', 'least', 'correlation', 'wrong in 50 %', 'in 90 %',
                     'in all')  # fmt: skip
            blocks.append(table(caption, heads, trusted))
    if blocks:
        text = (
            'Calibration error (expected calibration error, Guo et al. 2017): the mean distance '
            'between the confidence of a label and how often such labels are right. Where the '
            'confidence is above the accuracy, the network trusts itself too much.'
        )
        blocks.append(paragraph(text, 'note'))
    return blocks


def _calibrations(run: Any) -> dict[str, Any]:
    """Return the entries by what they are over; one state only is all there is."""
    states = members(run, 'calibration.by_state')
    name = f'all ({next(iter(states))})' if len(states) == 1 else 'all'
    found = {
        name: at(run, 'calibration.all'),
        **(dict(sorted(states.items())) if len(states) > 1 else {}),
    }
    return {name: item for name, item in found.items() if item}


def _bins(item: Any) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """Return float64 [bins, 5]: low, high, pixels, confidence and accuracy."""
    keys = ('low', 'high', 'pixels', 'confidence', 'accuracy')
    rows = [[real(entry, key) or 0.0 for key in keys] for entry in listed(item, 'bins')]
    return np.array(rows, np.float64) if rows else None


def _confidence(item: Any) -> Block:
    trust, accuracy = real(item, 'confidence'), real(item, 'accuracy')
    if trust is None or accuracy is None or abs(trust - accuracy) < FAR:
        return cell(number(trust))
    sure = trust > accuracy
    tag = 'too sure' if sure else 'too modest'
    return cell(number(trust), tag=tag, tone='bad' if sure else '')


def flicker(evaluation: Evaluation) -> list[Block]:
    """Show how much the labels change between neighbouring frames."""
    rows = []
    for entry in evaluation.sets:
        for run in entry['runs']:
            states = members(run, 'flicker.by_state')
            parts = {'all': at(run, 'flicker.all')}
            parts |= dict(sorted(states.items())) if len(states) > 1 else {}
            for name, item in parts.items():
                if whole(item, 'pairs'):
                    changed = [share(real(item, key), 2) for key in ('plain', 'warped')]
                    pairs = count(real(item, 'pairs'))
                    rows.append([entry['name'], run['label'], name, pairs, *changed])
    if not rows:
        return []
    heads = ('set', 'configuration', 'frames of', 'pairs', 'as seen', 'motion compensated')
    caption = 'Pixels whose label changes from one frame to the next'
    text = (
        'Needs no labels. Motion compensated: the earlier labels are moved along the optical '
        'flow first, so that what is left is flicker and what moving objects uncover.'
    )
    return [table(caption, heads, rows, words=3, optional=(0, 2)), paragraph(text, 'note')]


#: Name of a measure of the router, whether it is of drives only, path, and how it is written.
MEASURES: tuple[tuple[str, bool, str, Callable[[float | None], str]], ...] = (
    ('minutes', True, 'minutes', lambda value: number(value, 1)),
    ('switches of the route', True, 'switches', count),
    ('switches per minute', True, 'switches_per_minute', lambda value: number(value, 2)),
    ('frames in a wrong state', False, 'wrong_state_share', share),
    ('seconds in a wrong state', True, 'wrong_state_s', lambda value: number(value, 1)),
    ('seconds until the state followed, median', True, 'delay_s.p50',
     lambda value: number(value, 2)),
    ('seconds until the state followed, longest', True, 'delay_s.max',
     lambda value: number(value, 2)),
    ('changes of light never followed', True, 'delay_s.missed', count),
)  # fmt: skip


def router(evaluation: Evaluation) -> list[Block]:
    """Show state and route over time, switches, and errors where the true light is known."""
    blocks = []
    for entry in evaluation.sets:
        name, drive = entry['name'], _drive(entry)
        runs = [run for run in entry['runs'] if at(run, 'routing')]
        if not runs:
            continue
        rows = [[kind, *(_held(run, kind, drive) for run in runs)] for kind in ('state', 'route')]
        rows += [
            [words, *(write(real(run, f'routing.{path}')) for run in runs)]
            for words, of_drives, path, write in MEASURES
            if drive or not of_drives
        ]
        heads = ('measure', *(run['label'] for run in runs))
        rows = [row for row in rows if set(row[1:]) != {ABSENT}]
        caption = f'What the router did on {name}'
        blocks.append(table(caption, heads, rows, words=len(heads)))
        for lights in _different(members(run, 'routing.by_light') for run in runs):
            caption = f'{name}: frames by true light and state'
            heads = ('true light', *(f'seen as {state}' for state in STATES))
            rows = [_light(light, lights) for light in sorted(lights, key=_place(STATES))]
            blocks.append(table(caption, heads, rows))
        for changes in _different(listed(run, 'routing.changes') for run in runs):
            heads = ('source', 'at', 'change', 'followed after, s')
            rows = [
                [
                    str(at(change, 'source') or ''),
                    moment(stamp) if isinstance(stamp := at(change, 'stamp'), int) else ABSENT,
                    f'{at(change, "from")} to {at(change, "to")}',
                    'never' if at(change, 'delay_s') is None else num(change, 'delay_s', digits=2),
                ]
                for change in changes
            ]
            caption = f'{name}: changes of the true light'
            block = table(caption, heads, rows, words=3)
            blocks.append(fold('Each change of the true light', [block]))
    if blocks:
        text = (
            'Whether a state is wrong, and how late it followed, can be told only where the true '
            'light is known (--light).'
        )
        blocks.append(paragraph(text, 'note'))
    return blocks


def _held(run: Any, kind: str, drive: bool) -> str:
    """Return how much of the time, or of the frames, each state or route held."""
    parts: dict[str, float] = {}
    for path in (f'routing.seconds_by_{kind}', f'{kind}s')[not drive :]:
        held = {name: real(run, path, name) or 0.0 for name in members(run, path)}
        parts = parts or {name: value for name, value in held.items() if value > 0}
    total = sum(parts.values())
    ranked = sorted(parts.items(), key=lambda pair: -pair[1])
    return ', '.join(f'{name} {share(part / total, 0)}' for name, part in ranked) or ABSENT


def _different(values: Iterable[Any]) -> list[Any]:
    """Return what is there, once where all configurations saw the same."""
    found: list[Any] = []
    for value in values:
        if value and value not in found:
            found.append(value)
    return found


def _light(light: str, lights: Any) -> list[Any]:
    seen = [whole(lights, light, state) for state in STATES]
    total = sum(whole(lights, light, state) for state in members(lights, light))
    right = {light, 'glare'} if light in ('dusk', 'night') else {light}
    return [
        light,
        *(
            cell(
                count(frames) if frames else '',
                heat=frames / total if total else 0.0,
                tone='hit' if state in right else 'miss',
            )
            for state, frames in zip(STATES, seen)
        ),
    ]


def _place(known: Sequence[str]) -> Callable[[str], tuple[int, str]]:
    """Return a key that sorts names by their place in ``known``, others last."""
    return lambda name: (known.index(name) if name in known else len(known), name)


def speed(evaluation: Evaluation) -> list[Block]:
    """Show frames per second, and milliseconds by stage."""
    blocks = []
    rates = [
        [entry['name'], run['label'], count(whole(run, 'frames')),
         *(num(run, 'timing', key, digits=1) for key in ('seconds', 'frames_per_second'))]
        for entry in evaluation.sets for run in entry['runs']
        if real(run, 'timing.frames_per_second') is not None
    ]  # fmt: skip
    if rates:
        heads = ('set', 'configuration', 'frames', 'seconds', 'frames per second')
        caption = 'Throughput of the evaluation'
        blocks.append(table(caption, heads, rates, words=2, optional=(0,)))
    for entry in evaluation.sets:
        runs = [run for run in entry['runs'] if members(run, 'timing.ms')]
        single = [
            _stages(entry, [run], ('mean', 'p50', 'p95', 'p99', 'max'), f', {run["label"]}')
            for run in runs
        ]
        if len(runs) > 1:
            blocks.append(_stages(entry, runs, ('mean', 'p95'), ''))
            blocks.append(fold('Median, 99 % and longest times', single))
        else:
            blocks += single
    if blocks:
        text = (
            'p95: 95 % of the frames took no longer. pipeline: estimate to render, what a frame '
            'of a camera waits for; it includes all that else ran on the machine, which is named '
            'under Provenance. decode and metrics belong to the evaluation, and stages run side '
            'by side. Configurations of one evaluation share one pass and so its seconds: how '
            'fast a vehicle is has to be measured there.'
        )
        blocks.append(paragraph(text, 'note'))
        streams = real(evaluation.metrics, 'streams') or 0
        if streams > 1:
            text = (
                f'{count(streams)} frames were in the networks at a time, so that each took '
                "longer than in a node: --streams 1 measures a node's times."
            )
            blocks.append(paragraph(text, 'note'))
    return blocks


def _stages(entry: Any, runs: list[Any], columns: Sequence[str], suffix: str) -> Block:
    """Return the milliseconds of each stage, of one run or of several side by side."""
    names = sorted({n for run in runs for n in members(run, 'timing.ms')}, key=_place(STAGES))
    pairs = [(run, name) for run in runs for name in names]
    most = max(real(run, 'timing.ms', name, 'mean') or 0.0 for run, name in pairs) or 1.0
    rows = []
    for name in names:
        row: list[Any] = [name]
        for run in runs:
            times = [num(run, 'timing.ms', name, key, digits=1) for key in columns]
            bar = (real(run, 'timing.ms', name, 'mean') or 0.0) / most
            if suffix:
                row += [cell(times[0], bar=bar), *times[1:]]
            else:
                text = ABSENT if times[0] == ABSENT else f'{times[0]} ({times[1]})'
                row.append(cell(text, bar=bar))
        rows.append(row)
    if suffix:
        caption = f'{entry["name"]}{suffix}: milliseconds a frame, by stage'
        return table(caption, ('stage', *columns), rows)
    caption = f'{entry["name"]}: milliseconds a frame, mean (p95)'
    return table(caption, ('stage', *(run['label'] for run in runs)), rows)


def read_errors(evaluation: Evaluation) -> list[Block]:
    """List what could not be read, and labels that belong to no frame."""
    rows = []
    clean = read = 0
    for source in (s for entry in evaluation.sets for s in listed(entry, 'sources')):
        errors = [str(error) for error in listed(source, 'losses')]
        failed, unused = whole(source, 'failed'), whole(source, 'labels_unused')
        seen = whole(source, 'frames')
        read += seen
        if unused:
            errors.append(f'{plural(unused, "label")} without a frame')
        if failed and not errors:
            errors.append(f'{plural(failed, "frame")} could not be decoded')
        clean += not errors
        name = str(at(source, 'name') or PurePath(str(at(source, 'path') or '')).name)
        topic = str(at(source, 'topic') or '')
        rows += [
            [cell(name, code=True), cell(topic, code=True), error, count(seen), count(failed)]
            for error in errors
        ]
    if not rows:
        text = f'No read errors: {plural(read, "frame")} of {plural(clean, "source")} were read.'
        return [paragraph(text)] if clean else []
    heads = ('source', 'topic', 'what', 'frames read', 'unreadable')
    blocks = [table('What could not be read', heads, rows, words=3, optional=(1,))]
    if clean:
        blocks.append(paragraph(f'{plural(clean, "other source")} had no read error.'))
    return blocks


def provenance(evaluation: Evaluation) -> list[Block]:
    """Name data, weights, command, machine and versions of the evaluation."""
    metrics = evaluation.metrics
    command = at(metrics, 'command')
    words = shlex.join(map(str, command)) if isinstance(command, list) else command
    rows: list[list[Any]] = [
        ['evaluated', _date(at(metrics, 'created')) or ABSENT],
        ['nightseg', flat(at(metrics, 'nightseg')) or ABSENT],
        ['command', cell(words if isinstance(words, str) else ABSENT, code=True)],
        ['took', f'{num(metrics, "wall_s", digits=1)} s'],
        ['bootstrap', flat(at(metrics, 'bootstrap')) or ABSENT],
    ]
    machine = at(metrics, 'machine')
    machine = machine if isinstance(machine, Mapping) else {'machine': machine}
    rows += [[str(name), flat(value)] for name, value in machine.items() if value is not None]
    blocks = [table('This evaluation', ('fact', 'value'), rows, words=2)]
    blocks += _weights(evaluation)
    blocks += _sources(evaluation)
    # the settings in which configurations differ, and all of them folded
    entries = listed(metrics, 'configurations')
    settings = [_settings(at(entry, 'options')) for entry in entries]
    heads = ('setting', *(_label(metrics, at(entry, 'name')) for entry in entries))
    rows = [
        [key, *(cell(found.get(key) or ABSENT, code=True) for found in settings)]
        for key in dict.fromkeys(key for found in settings for key in found)
    ]
    differing = [row for row in rows if any(c != row[1] for c in row[1:])]
    if differing:
        blocks.append(table('Settings that differ', heads, differing, words=len(heads)))
    if rows:
        block = table('All settings', heads, rows, words=len(heads), most=len(rows))
        blocks.append(fold('Settings of the pipeline', [block]))
    return blocks


def _settings(options: Any, prefix: str = '') -> dict[str, str]:
    """Return nested settings under dotted names, as --compare and the node's parameters have."""
    found: dict[str, str] = {}
    for name, value in members({'': options}, '').items():
        if isinstance(value, Mapping):
            found |= _settings(value, f'{prefix}{name}.')
        else:
            found[prefix + name] = flat(value)
    return found


def _pipelines(evaluation: Evaluation) -> list[tuple[str, Any]]:
    metrics = evaluation.metrics
    entries = listed(metrics, 'configurations') or [{'pipeline': at(metrics, 'pipeline')}]
    return [(_label(metrics, at(entry, 'name')), at(entry, 'pipeline')) for entry in entries]


def _weights(evaluation: Evaluation) -> list[Block]:
    """Return each weights file once, with the configurations that took it."""
    users: dict[tuple[str, ...], list[str]] = {}
    for name, pipeline in _pipelines(evaluation):
        about = ', '.join(
            f'{key} {value}'
            for key in ('backend', 'device', 'long_side')
            if (value := at(pipeline, key)) is not None
        )
        for role, part in members(pipeline, 'weights').items():
            facts_ = (str(at(part, key) or '') for key in ('file', 'sha256', 'license'))
            users.setdefault((role, *facts_, about), []).append(name)
    rows = [
        [', '.join(names), role, cell(file, code=True), cell(sha, code=True), licence, about]
        for (role, file, sha, licence, about), names in users.items()
    ]
    heads = ('configuration', 'part', 'file', 'SHA-256', 'licence', 'run by')
    return [table('Weights', heads, rows, words=6, optional=(0,))] if rows else []


def _sources(evaluation: Evaluation) -> list[Block]:
    rows = [
        [
            entry['name'],
            cell(str(at(source, 'path') or at(source, 'name') or ''), code=True),
            cell(str(at(source, 'topic') or ''), code=True),
            str(at(source, 'kind') or ''),
            _dates([source]) if _drive(entry) else '',
            count(whole(source, 'frames')),
            count(whole(source, 'labelled')),
        ]
        for entry in evaluation.sets
        for source in listed(entry, 'sources')
    ]
    heads = ('set', 'path', 'topic', 'kind', 'recorded', 'frames', 'labelled')
    texts = [[c['text'] if isinstance(c, dict) else c for c in row] for row in rows]
    empty = [index for index in (2, 3, 4) if not any(row[index] for row in texts)]
    return [table('Data', heads, rows, words=5, optional=(0, *empty))] if rows else []


def _dates(sources: Sequence[Any]) -> str:
    """Return from when to when the frames were taken, as their stamps say."""
    keys = ('first_stamp', 'last_stamp')
    stamps = [s for source in sources for key in keys if isinstance(s := at(source, key), int)]
    if not stamps:
        return ''
    first, last = moment(min(stamps), 0), moment(max(stamps), 0)
    if first[:10] == last[:10] and len(first) > 12:
        # one day need not be named twice
        first, last = first.removesuffix(' UTC'), last[11:]
    return f'{first} to {last}'


def _date(text: Any) -> str:
    """Return an ISO time as people write it; what is none stays as it is."""
    try:
        date = datetime.fromisoformat(str(text).replace('Z', '+00:00'))
    except ValueError:
        return str(text or '')
    zone = ' UTC' if date.utcoffset() == timedelta(0) else f' {date:%z}'.rstrip()
    return f'{date:%Y-%m-%d %H:%M}{zone}'


# -- Markdown ----------------------------------------------------------------------------------

#: What would start markup; underscores inside words and brackets of intervals would not.
_SPECIAL = re.compile(r'[\\`*<|~$]|(?<!\w)_|_(?!\w)|\[(?![+−\d])|\](?=[(\[:])|(?<![^\s])[#>]')


def _plain(text: str) -> str:
    """Return one line of text in which nothing is taken for Markdown or HTML."""
    return _SPECIAL.sub(r'\\\g<0>', ' '.join(text.split())).replace('&', '&amp;')


def _markdown_cell(entry: Block) -> str:
    text = f'{entry["text"]} ({entry["tag"]})' if entry.get('tag') else entry['text']
    if entry.get('code') and text and not re.search(r'[`|\\\n\r]', text):
        return f'`{text}`'
    return _plain(text)
