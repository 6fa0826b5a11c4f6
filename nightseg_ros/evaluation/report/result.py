# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The first section of a report: headline numbers with intervals, and configurations compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nightseg_ros.evaluation.report.data import (
    Evaluation,
    Run,
    ScoredSet,
    ends,
    find,
    items,
    members,
    real,
    whole,
)
from nightseg_ros.evaluation.report.document import (
    ABSENT,
    Block,
    Card,
    Cards,
    Cell,
    Fold,
    Section,
    Table,
    Text,
    Tone,
    Whisker,
    bounded,
    count,
    interval,
    number,
    plural,
    share,
    signed,
)

#: Fewer units than this make a bootstrap interval a rough guess, and the report says so.
FEW_UNITS = 10
_UNITS = {
    'frames': ('frame', 'frames'),
    'blocks': ('block of neighbouring frames', 'blocks of neighbouring frames'),
    'sources': ('source', 'sources'),
}


def result_section(evaluation: Evaluation) -> Section:
    """Headline numbers of every set, with intervals."""
    blocks: list[Block] = []
    for scored in evaluation.sets:
        if not scored.runs:
            continue
        if not scored.labelled:
            blocks += _without_labels(scored)
        elif len(scored.runs) == 1:
            blocks += _cards(scored, scored.runs[0])
        else:
            blocks += _comparison(evaluation, scored)
        if scored.labelled:
            blocks += _doubts(evaluation, scored)
        failed = max(whole(run.data, 'failed') for run in scored.runs)
        if failed:
            blocks.append(
                Text(
                    tone='warning',
                    text=f'{plural(failed, "frame")} of {scored.name} got no mask; '
                    'they are in no score. See Losses.',
                )
            )
    if not blocks:
        blocks.append(Text(tone='warning', text='No frame was evaluated.'))
    return Section(name='result', title='Result', blocks=tuple(blocks))


def headline(evaluation: Evaluation) -> str:
    """Return the result in a sentence."""
    labelled = evaluation.labelled
    if not labelled:
        frames = sum(scored.runs[0].frames for scored in evaluation.sets if scored.runs)
        return (
            f'{plural(frames, "frame")} without labels: how accurate the masks are is not known. '
            'Shown is what needs no labels.'
        )
    scored = labelled[0]
    first = scored.runs[0]
    scores = {run.name: number(real(run.data, 'all', 'miou')) for run in scored.runs}
    # of equals the first one, and the others are named with it
    best = max(scored.runs, key=lambda run: real(run.data, 'all', 'miou') or 0.0)
    equal = [run for run in scored.runs if scores[run.name] == scores[best.name]]
    text = (
        f'On {plural(first.labelled, "labelled frame")} of {scored.name}, '
        f'{" and ".join(run.label for run in equal)} '
        f'{"reaches" if len(equal) == 1 else "reach"} mIoU {_score(best.data, "miou")}'
    )
    if len(equal) == len(scored.runs) > 1:
        text += ', all configurations the same'
    elif len(scored.runs) > 1:
        text += f', the highest of {len(scored.runs)} configurations'
        reference = _difference(evaluation, best)
        if reference is not None and first not in equal:
            text += (
                f'; {signed(real(reference, "miou", "difference"))} '
                f'{interval(ends(reference, "miou", "ci"), sign=True)} against {first.label}'
            )
    text += '.'
    if len(labelled) > 1:
        text += f' {plural(len(labelled) - 1, "more set")} below.'
    return text


def _without_labels(scored: ScoredSet) -> Iterator[Block]:
    yield Text(
        tone='warning',
        text=f'{scored.name} has no labels. Accuracy, classes, confusion and calibration need '
        'them and are left out; what follows needs none.',
    )
    if len(scored.runs) == 1:
        yield Cards(cards=tuple(_unlabelled_cards(scored, scored.runs[0])))
        return
    found = [{card.name: card.value for card in _unlabelled_cards(scored, r)} for r in scored.runs]
    names = list(dict.fromkeys(name for values in found for name in values))
    yield Table(
        caption=f'{scored.name}: the same frames for all',
        columns=('configuration', *names),
        rows=tuple(
            (Cell(text=run.label), *(Cell(text=values.get(name, ABSENT)) for name in names))
            for run, values in zip(scored.runs, found)
        ),
    )


def _unlabelled_cards(scored: ScoredSet, run: Run) -> Iterator[Card]:
    yield Card(name='frames', value=count(run.frames), about=f'segmented, {run.label}')
    yield from _speed_card(run)
    flicker = real(run.data, 'flicker', 'all', 'warped')
    if flicker is not None:
        about = 'pixels that change between neighbouring frames, motion compensated'
        yield Card(name='label flicker', value=share(flicker), about=about)
    switches = real(run.data, 'routing', 'switches')
    if switches is not None and scored.drive:
        about = f'in {number(real(run.data, "routing", "minutes"), 1)} min'
        yield Card(name='route switches', value=count(switches), about=about)


def _cards(scored: ScoredSet, run: Run) -> Iterator[Block]:
    entry = find(run.data, 'all')
    cards = [
        _score_card(entry, 'miou', 'mIoU', 'mean IoU of the classes present'),
        _score_card(entry, 'miou9', 'mIoU9', 'without fence and bicyclist'),
        _score_card(entry, 'miou_subset', 'mIoU of the subset', 'classes chosen by --classes'),
        _score_card(entry, 'pixel_acc', 'pixel accuracy', 'labelled pixels that are right'),
        _score_card(
            run.data, 'mean_of_sources_miou9', 'mean of sources', 'mIoU9, sources weigh equally'
        )
        if len(members(run.data, 'by_source')) > 1
        else None,
        _score_card(
            find(run.data, 'calibration', 'all'), 'ece', 'calibration error',
            'confidence against accuracy',
        ),
    ]  # fmt: skip
    yield Text(text=f'{scored.name}, {run.label}: {plural(run.labelled, "labelled frame")}.')
    yield Cards(cards=tuple(card for card in [*cards, *_speed_card(run)] if card is not None))


def _score_card(entry: Any, key: str, name: str, about: str) -> Card | None:
    value = real(entry, key)
    if value is None:
        return None
    bounds = interval(ends(entry, f'{key}_ci'))
    return Card(name=name, value=number(value), interval=bounds, about=about)


def _speed_card(run: Run) -> Iterator[Card]:
    rate = real(run.data, 'timing', 'frames_per_second')
    if rate is not None:
        yield Card(name='speed', value=number(rate, 1), about='frames per second, this machine')


def _comparison(evaluation: Evaluation, scored: ScoredSet) -> Iterator[Block]:
    first = scored.runs[0]
    several = any(
        len(members(run.data, 'by_source')) > 1
        and real(run.data, 'mean_of_sources_miou9') is not None
        for run in scored.runs
    )
    scale = _scale([_extent(find(run.data, 'all'), 'miou') for run in scored.runs])
    paired = {run.name: _difference(evaluation, run) for run in scored.runs}
    reach = _scale([(0.0, 0.0, 0.0), *(_paired_extent(item) for item in paired.values() if item)])
    columns = ['configuration', 'mIoU', 'mIoU9', 'pixel accuracy']
    if several:
        columns.append('mIoU9, mean of sources')
    columns.append(f'mIoU minus that of {first.label}')
    rows = []
    for run in scored.runs:
        entry = find(run.data, 'all')
        row = [
            Cell(text=run.label),
            Cell(text=_score(run.data, 'miou'), whisker=_whisker(_extent(entry, 'miou'), scale)),
            Cell(text=_bounded(entry, 'miou9')),
            Cell(text=_bounded(entry, 'pixel_acc')),
        ]
        if several:
            row.append(Cell(text=_bounded(run.data, 'mean_of_sources_miou9')))
        item = paired[run.name]
        if run is first:
            row.append(Cell(text='reference'))
        else:
            row.append(_difference_cell(item, 'miou', reach))
        rows.append(tuple(row))
    yield Table(
        caption=f'{scored.name}: {plural(first.labelled, "labelled frame")}, the same for all',
        columns=tuple(columns),
        rows=tuple(rows),
    )
    others = _other_differences(evaluation, scored, several)
    if others is not None:
        yield Fold(title='Differences in the other scores', blocks=(others,))


def _other_differences(evaluation: Evaluation, scored: ScoredSet, several: bool) -> Table | None:
    keys = [('miou9', 'mIoU9'), ('pixel_acc', 'pixel accuracy')]
    if several:
        keys.append(('mean_of_sources_miou9', 'mIoU9, mean of sources'))
    rows = []
    for run in scored.runs[1:]:
        item = _difference(evaluation, run)
        if item is not None:
            cells = (_difference_cell(item, key, None) for key, _ in keys)
            rows.append((Cell(text=run.label), *cells))
    if not rows:
        return None
    return Table(
        caption=f'{scored.name}: difference to {scored.runs[0].label}',
        columns=('configuration', *(words for _, words in keys)),
        rows=tuple(rows),
    )


def _difference(evaluation: Evaluation, run: Run) -> Any:
    for item in items(evaluation.metrics, 'compare'):
        if find(item, 'run') == run.name:
            return item
    return None


def _difference_cell(item: Any, key: str, reach: tuple[float, float] | None) -> Cell:
    value = real(item, key, 'difference')
    if value is None:
        return Cell(text=ABSENT)
    bounds = ends(item, key, 'ci')
    tag, tone = _judged(bounds)
    whisker = None
    if reach is not None:
        whisker = _whisker(_paired_extent(item), reach, zero=True)
    text = f'{signed(value)} {interval(bounds, sign=True)}'.strip()
    return Cell(text=text, tag=tag, tone=tone, whisker=whisker)


def _judged(bounds: tuple[float, float] | None) -> tuple[str, Tone]:
    if bounds is None:
        return '', ''
    if bounds[0] > 0:
        return 'better', 'good'
    if bounds[1] < 0:
        return 'worse', 'bad'
    return 'no clear difference', ''


def _doubts(evaluation: Evaluation, scored: ScoredSet) -> Iterator[Block]:
    unit = str(find(scored.data, 'unit') or 'frames')
    units = real(scored.data, 'units')
    level = real(evaluation.metrics, 'bootstrap', 'level') or 0.95
    if all(ends(run.data, 'all', 'miou_ci') is None for run in scored.runs):
        yield Text(
            tone='warning',
            text=f'{scored.name}: no interval can be given, there is too little to draw from. '
            'Take the scores as an example, not as an estimate.',
        )
        return
    what = _UNITS.get(unit, (unit, unit))
    drawn = what[1]
    seconds = real(evaluation.metrics, 'bootstrap', 'block_s')
    length = f' of {seconds:g} s' if unit == 'blocks' and seconds is not None else ''
    if units is not None:
        drawn = plural(int(units), *what)
    resamples = real(evaluation.metrics, 'bootstrap', 'resamples')
    times = f', {count(resamples)} times' if resamples else ''
    yield Text(
        tone='note',
        text=f'[low, high]: {share(level, 0)} bootstrap interval, drawn over '
        f'{drawn}{length}{times}. It covers the choice of frames, not other places, cameras or '
        'weather.'
        + (' Differences are paired: the same draws for both.' if len(scored.runs) > 1 else ''),
    )
    if units is not None and units < FEW_UNITS:
        yield Text(
            tone='warning',
            text=f'Only {drawn} to draw from: the intervals of {scored.name} are '
            'rough and tend to be too narrow.',
        )


def _score(data: Any, key: str) -> str:
    return _bounded(find(data, 'all'), key)


def _bounded(entry: Any, key: str) -> str:
    return bounded(real(entry, key), ends(entry, f'{key}_ci'))


Extent = tuple[float, float, float]


def _extent(entry: Any, key: str) -> Extent | None:
    value, bounds = real(entry, key), ends(entry, f'{key}_ci')
    return None if value is None or bounds is None else (bounds[0], value, bounds[1])


def _paired_extent(item: Any) -> Extent | None:
    value, bounds = real(item, 'miou', 'difference'), ends(item, 'miou', 'ci')
    return None if value is None or bounds is None else (bounds[0], value, bounds[1])


def _scale(extents: Sequence[Extent | None]) -> tuple[float, float]:
    known = [extent for extent in extents if extent is not None]
    if not known:
        return 0.0, 1.0
    low, high = min(min(e) for e in known), max(max(e) for e in known)
    margin = max(0.06 * (high - low), 1e-6)
    return low - margin, high + margin


def _whisker(
    extent: Extent | None, scale: tuple[float, float], *, zero: bool = False
) -> Whisker | None:
    if extent is None:
        return None
    low, middle, high = ((value - scale[0]) / (scale[1] - scale[0]) for value in extent)
    place = -scale[0] / (scale[1] - scale[0]) if zero else None
    return Whisker(low=low, middle=middle, high=high, zero=place)
