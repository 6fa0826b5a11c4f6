# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A report as plain Markdown: the same words and tables, without drawings and pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator

from nightseg_ros.evaluation.report.document import (
    Block,
    Cards,
    Cell,
    Document,
    Figures,
    Fold,
    Shots,
    Table,
    Text,
    Timeline,
)

#: What would start markup; underscores inside words and brackets of intervals would not.
_SPECIAL = re.compile(r'[\\`*<|~$]|(?<!\w)_|_(?!\w)|\[(?![+−\d])|\](?=[(\[:])|(?<![^\s])[#>]')


def to_markdown(document: Document) -> str:
    """Return the report as GitHub-flavoured Markdown; names from outside are escaped."""
    lines = [f'# {_plain(document.title)}', '', _plain(document.lead), '']
    lines += [f'- {_plain(fact)}' for fact in document.facts]
    for section in document.sections:
        lines += ['', f'## {_plain(section.title)}']
        for block in section.blocks:
            lines += _block(block, 3)
    lines += ['', '---', '', _plain(document.colophon)]
    return '\n'.join(lines) + '\n'


def _block(block: Block, level: int) -> Iterator[str]:
    if isinstance(block, Text):
        yield from (
            '',
            f'> {_plain(block.text)}' if block.tone == 'warning' else _plain(block.text),
        )
    elif isinstance(block, Table):
        yield from _table(block)
    elif isinstance(block, Cards):
        yield ''
        for card in block.cards:
            value = f'**{_plain(card.value)}** {_plain(card.interval)}'.strip()
            yield f'- {_plain(card.name)}: {value} ({_plain(card.about)})'
    elif isinstance(block, Fold):
        yield from ('', f'{"#" * level} {_plain(block.title)}')
        for inner in block.blocks:
            yield from _block(inner, level + 1)
    elif isinstance(block, (Figures, Timeline)):
        words = (
            [lane.about for lane in block.lanes]
            if isinstance(block, Timeline)
            else [figure.caption for figure in block.figures]
        )
        if isinstance(block, Timeline):
            yield from ('', f'{_plain(block.caption)} (drawn in report.html):')
        yield ''
        yield from (f'- {_plain(text)}' for text in words)
    elif isinstance(block, Shots):
        yield ''
        for shot in block.shots:
            yield f'- {_plain(shot.title)}: {_plain(shot.about)}'


def _table(table: Table) -> Iterator[str]:
    yield from ('', f'**{_plain(table.caption)}**', '')
    yield '| ' + ' | '.join(_plain(name) for name in table.columns) + ' |'
    rules = ('---' if i < table.text_columns else '---:' for i in range(len(table.columns)))
    yield '|' + '|'.join(rules) + '|'
    for row in table.rows:
        yield '| ' + ' | '.join(_cell(cell) for cell in row) + ' |'
    if table.note:
        yield from ('', _plain(table.note))


def _cell(cell: Cell) -> str:
    text = f'{cell.text} ({cell.tag})' if cell.tag else cell.text
    if cell.code and text and not re.search(r'[`|\\\n\r]', text):
        return f'`{text}`'
    return _plain(text)


def _plain(text: str) -> str:
    """Return one line of text in which nothing is taken for Markdown or HTML."""
    return _SPECIAL.sub(r'\\\g<0>', ' '.join(text.split())).replace('&', '&amp;')
