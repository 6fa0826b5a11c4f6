# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What a report consists of, before it is HTML or Markdown; all text is plain, never markup."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import ClassVar, Literal

from markupsafe import Markup

#: What stands where there is no number: a class that does not occur, a score without labels.
ABSENT = '–'

Tone = Literal['', 'hit', 'miss', 'good', 'bad']


@dataclass(frozen=True, kw_only=True, slots=True)
class Whisker:
    """An interval drawn under its numbers; places are 0 to 1 along the axis of the column."""

    low: float
    middle: float
    high: float
    zero: float | None = None
    """Where no difference would be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One cell of a table."""

    text: str
    tag: str = ''
    """A word or two that judge the number; ``tone`` colours it."""
    whisker: Whisker | None = None
    bar: float | None = None
    """Length of a bar under the text, 0 to 1."""
    heat: float | None = None
    """Strength of the background, 0 to 1; ``tone`` says of which colour."""
    tone: Tone = ''
    swatch: str = ''
    """A colour (#rrggbb) shown before the text."""
    code: bool = False
    """A hash, a command or a file name: fixed width, may break anywhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows of equal length; the first column names its row."""

    kind: ClassVar[str] = 'table'
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    text_columns: int = 1
    """How many columns from the left hold words; the others hold numbers."""
    matrix: bool = False
    """Narrow cells with headings that stand upright."""
    note: str = ''

    def __post_init__(self) -> None:
        """Refuse rows that do not fit the columns."""
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table '{self.caption}': {len(row)} cells for {len(self.columns)} columns"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """A paragraph; ``tone`` 'note' is a remark, 'warning' a reason to doubt the numbers."""

    kind: ClassVar[str] = 'text'
    text: str
    tone: Literal['', 'note', 'warning'] = ''


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A headline number."""

    name: str
    value: str
    interval: str = ''
    about: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Cards:
    """Headline numbers side by side."""

    kind: ClassVar[str] = 'cards'
    cards: tuple[Card, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A drawing; a reader of Markdown gets its caption only."""

    markup: Markup
    """Inline SVG with its own title, made by ``report.figures``."""
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Small drawings side by side."""

    kind: ClassVar[str] = 'figures'
    figures: tuple[Figure, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """One entry of a legend."""

    name: str
    color: str = ''
    """#rrggbb, or empty where ``tone`` names a colour of the style sheet."""
    tone: str = ''


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """A legend."""

    kind: ClassVar[str] = 'keys'
    title: str
    keys: tuple[Key, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Lane:
    """One strip of a timeline, drawn in a box of 1000 × 100 that is stretched to fit."""

    title: str
    by: str
    """The configuration that it shows, empty where it is the same for all."""
    markup: Markup
    about: str
    """What is seen, for those who do not see it."""
    levels: tuple[str, ...]
    """Names down the left edge, evenly spread from top to bottom."""
    rows: bool = False
    """The levels are names of bands instead of ends of a scale."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """What happened along a drive; all lanes share one axis."""

    kind: ClassVar[str] = 'timeline'
    caption: str
    lanes: tuple[Lane, ...]
    ticks: tuple[tuple[float, str], ...]
    """Place from 0 to 1 and text of each mark of the axis."""
    axis: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture as a data URI."""

    uri: str
    title: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """One frame, as several pictures of it."""

    title: str
    about: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shots:
    """Frames to look at."""

    kind: ClassVar[str] = 'shots'
    shots: tuple[Shot, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """Blocks that are shown when somebody asks for them."""

    kind: ClassVar[str] = 'fold'
    title: str
    blocks: tuple[Block, ...]


Block = Table | Text | Cards | Figures | Keys | Timeline | Shots | Fold


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A heading and what stands under it."""

    name: str
    """Anchor; letters, digits and '-' only."""
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """The whole report."""

    title: str
    lead: str
    facts: tuple[str, ...]
    """What was measured, by what and when; one fact a line, under the title."""
    sections: tuple[Section, ...]
    colophon: str


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with ``digits`` decimals; None, NaN and infinity are '–'."""
    if value is None or not math.isfinite(value):
        return ABSENT
    text = f'{value:.{digits}f}'
    return text.replace('-', '−') if float(text) else text.lstrip('-')


def signed(value: float | None, digits: int = 3) -> str:
    """Return a number with its sign; a rounded zero has none."""
    text = number(value, digits)
    return text if text in (ABSENT, f'{0:.{digits}f}') or text[0] == '−' else f'+{text}'


def interval(ends: Sequence[float | None] | None, digits: int = 3, *, sign: bool = False) -> str:
    """Return '[low, high]'; empty where either end is missing."""
    if ends is None or len(ends) != 2:
        return ''
    low, high = (signed(end, digits) if sign else number(end, digits) for end in ends)
    return '' if ABSENT in (low, high) else f'[{low}, {high}]'


def share(value: float | None, digits: int = 1) -> str:
    """Return 0–1 as a percentage."""
    text = number(None if value is None else 100 * value, digits)
    return text if text == ABSENT else f'{text} %'


def count(value: int | float | None) -> str:
    """Return a count with thin spaces between thousands."""
    if value is None or not math.isfinite(value):
        return ABSENT
    return f'{int(value):,}'.replace(',', '\u202f')


def plural(value: int, one: str, many: str = '') -> str:
    """Return '1 frame' or '2 frames'."""
    return f'{count(value)} {one if value == 1 else many or one + "s"}'


def clock(seconds: float) -> str:
    """Return seconds as m:ss, or h:mm:ss from an hour on."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f'{hours}:{minutes:02d}:{left:02d}' if hours else f'{minutes}:{left:02d}'


def moment(stamp_ns: int, digits: int = 2) -> str:
    """Return a stamp as date and time (UTC) where it can be one, else as seconds."""
    seconds = stamp_ns / 1e9
    # clocks of simulations and videos begin at zero
    if not 10**8 < seconds < 10**11:
        return f'{seconds:.{digits}f} s'
    date = datetime.fromtimestamp(stamp_ns // 10**9, timezone.utc)
    fraction = f'{stamp_ns % 10**9:09d}'[:digits]
    return f'{date:%Y-%m-%d %H:%M:%S}{"." if digits else ""}{fraction} UTC'


def bounded(value: float | None, bounds: Sequence[float | None] | None) -> str:
    """Return '0.512 [0.471, 0.553]'; the interval is left out where there is none."""
    return f'{number(value)} {interval(bounds)}'.strip()


def hexadecimal(color: Sequence[int]) -> str:
    """Return an RGB colour as '#rrggbb'."""
    return '#' + ''.join(f'{channel:02x}' for channel in color)


def trimmed(table: Table, *columns: int) -> Table:
    """Return the table without those of ``columns`` that say one thing in every row."""
    drop: list[int] = []
    for index in columns:
        same = len({row[index].text for row in table.rows}) < 2
        if same and table.text_columns - len(drop) > 1:
            drop.append(index)
    keep = [index for index in range(len(table.columns)) if index not in drop]
    return replace(
        table,
        columns=tuple(table.columns[index] for index in keep),
        rows=tuple(tuple(row[index] for index in keep) for row in table.rows),
        text_columns=table.text_columns - len(drop),
    )
