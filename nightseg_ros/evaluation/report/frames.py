# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The section of a report that shows frames: the best, the median and the worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nightseg_ros.data.sample import DataError, read_image, read_labels
from nightseg_ros.evaluation.report.data import (
    Evaluation,
    Run,
    ScoredSet,
    find,
    items,
    members,
    real,
)
from nightseg_ros.evaluation.report.document import (
    Block,
    Fold,
    Key,
    Keys,
    Section,
    Shot,
    Shots,
    Text,
    hexadecimal,
    moment,
    number,
    plural,
)
from nightseg_ros.evaluation.report.pictures import (
    ERRORS,
    Drawing,
    Painter,
    PictureSizeError,
    encode,
)

Image = npt.NDArray[np.uint8]

#: Bytes that all pictures of a page may take; phones load it over slow networks.
BUDGET = 3_200_000
#: Frames on one page.
MOST_SHOTS = 18
#: Kinds of samples in the order in which they are shown, and what is said of them.
_KINDS = {
    'best': 'Best frame',
    'median': 'Median frame',
    'worst': 'Worst frame',
    'different': 'Configurations differ',
    'spread': 'Frame',
}


def frames_section(evaluation: Evaluation) -> Section | None:
    """Draw the sample frames of every set; a frame is shown once, with every configuration."""
    found = [
        (scored, group) for scored in evaluation.sets for group in _groups(scored)
    ]  # fmt: skip
    if not found:
        return None
    painter = Painter(evaluation.taxonomy)
    titled: list[tuple[tuple[str, str], str, str, list[Drawing]]] = []
    problems: list[str] = []
    for scored, group in found[:MOST_SHOTS]:
        try:
            drawings = _draw(evaluation.folder, painter, scored, group)
        except (DataError, OSError, PictureSizeError) as error:
            problems.append(f'A frame of {scored.name} cannot be shown: {error}')
            continue
        several = len(evaluation.sets) > 1
        key = (scored.name, group.kind)
        titled.append((key, *_words(scored, group, several), drawings))
    pictures = encode([drawing for *_, drawings in titled for drawing in drawings], BUDGET)
    blocks: list[Block] = []
    if pictures is None:
        problems.append('The pictures are too many for one page; they lie in samples/.')
    elif titled:
        colors = zip(evaluation.taxonomy.classes, evaluation.taxonomy.colors)
        blocks.append(
            Keys(
                title='Masks:',
                keys=tuple(Key(name=name, color=hexadecimal(color)) for name, color in colors),
            )
        )
        if any(find(sample, 'truth') for _, group in found for _, sample in group.members):
            right, wrong = (hexadecimal(color) for color in ERRORS.colors)
            blocks.append(
                Keys(
                    title='Errors:',
                    keys=(
                        Key(name='right', color=right),
                        Key(name='wrong', color=wrong),
                        Key(name='not labelled, not scored', color='#3a3a3a'),
                    ),
                )
            )
        shown: list[Shot] = []
        folded: list[Shot] = []
        rest = iter(pictures)
        seen: set[tuple[str, str]] = set()
        for key, title, about, drawings in titled:
            mine = tuple(next(rest) for _ in drawings)
            shot = Shot(title=title, about=about, pictures=mine)
            # the first of each kind, and the others for those who ask
            (folded if key in seen and key[1] != 'spread' else shown).append(shot)
            seen.add(key)
        blocks.append(Shots(shots=tuple(shown)))
        if folded:
            title = plural(len(folded), 'more frame')
            blocks.append(Fold(title=title, blocks=(Shots(shots=tuple(folded)),)))
    if len(found) > MOST_SHOTS:
        problems.append(f'{plural(len(found) - MOST_SHOTS, "more frame")} in samples/.')
    blocks += [Text(tone='note', text=problem) for problem in problems]
    return Section(name='frames', title='Frames', blocks=tuple(blocks))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Group:
    """One frame as each configuration labelled it."""

    kind: str
    members: Sequence[tuple[Run, Any]]


def _groups(scored: ScoredSet) -> list[_Group]:
    groups: dict[tuple[str, str, str], _Group] = {}
    for run in scored.runs:
        for sample in items(run.data, 'samples'):
            kind = str(find(sample, 'kind') or '')
            key = (kind, str(find(sample, 'source') or ''), str(find(sample, 'frame') or ''))
            group = groups.setdefault(key, _Group(kind=kind, members=[]))
            groups[key] = _Group(kind=kind, members=[*group.members, (run, sample)])
    order = {kind: place for place, kind in enumerate(_KINDS)}
    return sorted(groups.values(), key=lambda group: order.get(group.kind, len(order)))


def _draw(folder: Path, painter: Painter, scored: ScoredSet, group: _Group) -> list[Drawing]:
    first = group.members[0][1]
    image = read_image(_inside(folder, find(first, 'image')))
    name = str(find(first, 'frame') or '')
    drawings = [Drawing.of(image, 'input', f'Camera picture of frame {name}')]
    truth = None
    if find(first, 'truth'):
        truth = read_labels(_inside(folder, find(first, 'truth')))
        drawings.append(
            Drawing.of(
                painter.overlay(image, truth),
                'truth',
                f'Labels of frame {name} over the picture; darkened where not labelled',
            )
        )
    several = len(scored.runs) > 1
    for labels, sample, runs in _masks(folder, group):
        after = f', {" and ".join(run.label for run in runs)}' if several else ''
        drawings.append(
            Drawing.of(
                painter.overlay(image, labels),
                f'mask{after}',
                f'Mask of frame {name} over the picture{after}',
            )
        )
        if truth is not None:
            score = number(real(sample, 'miou'))
            drawings.append(
                Drawing.of(
                    painter.errors(image, labels, truth),
                    f'errors{after}: mIoU {score}',
                    f'Errors of frame {name}{after}: '
                    f'{number(real(sample, "pixel_acc"))} of the labelled pixels are right',
                )
            )
    return drawings


def _masks(folder: Path, group: _Group) -> list[tuple[Image, Any, list[Run]]]:
    """Return each mask once: configurations that took one route have the same."""
    found: list[tuple[Image, Any, list[Run]]] = []
    for run, sample in group.members:
        if not find(sample, 'labels'):
            continue
        labels = read_labels(_inside(folder, find(sample, 'labels')))
        runs = next((runs for mask, _, runs in found if np.array_equal(mask, labels)), None)
        if runs is None:
            found.append((labels, sample, [run]))
        else:
            runs.append(run)
    return found


def _words(scored: ScoredSet, group: _Group, several_sets: bool) -> tuple[str, str]:
    run, sample = group.members[0]
    title = f'{_KINDS.get(group.kind, "Frame")}: {find(sample, "frame")}'
    if several_sets:
        title = f'{scored.name}, {title}'
    parts = []
    source = find(sample, 'source')
    if source and source != scored.name:
        parts.append(str(source))
    stamp = find(sample, 'stamp')
    if scored.drive and isinstance(stamp, int):
        parts.append(moment(stamp))
    score = real(sample, 'score')
    parts.append(f'light score {number(score, 2)}, state {find(sample, "state") or "unknown"}')
    if len(group.members) == 1:
        parts.append(f'route {find(sample, "route") or "unknown"}')
        miou = real(sample, 'miou')
        if miou is not None:
            parts.append(f'mIoU {number(miou)}')
        return title, '; '.join(parts)
    for member, sample in group.members:
        # a route that never changes is in the configuration's name
        if len(members(member.data, 'routes')) > 1:
            parts.append(f'{member.label} took the route {find(sample, "route") or "unknown"}')
    if group.kind in ('best', 'median', 'worst'):
        parts.append(f'{group.kind} by the mIoU of {run.label}')
    return title, '; '.join(parts)


def _inside(folder: Path, name: Any) -> Path:
    """Return the path of a file of the evaluation; a name that leads elsewhere is refused."""
    path = (folder / str(name)).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DataError(f"'{name}' lies outside the evaluation's folder")
    return path
