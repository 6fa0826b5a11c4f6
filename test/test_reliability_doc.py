# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The fault table of docs/reliability.md names tests that exist, one at least in each row."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
import re

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / 'docs' / 'reliability.md'
#: What the table has to speak of, in its first column.
FAULTS = (
    'silent', 'slow', '200 Hz', 'duplicated', '±1 h', 'clock', 'resolution', 'encoding', '1×1',
    '8K', 'odd', 'zero length', 'step', 'padding', 'too short or long', 'truncated', 'corrupt',
    'bomb', 'black', 'white', 'NaN', '16 cameras', 'restart', 'QoS', 'never reads', 'SIGKILL',
    'SIGINT', 'SIGTERM', 'memory', 'worker', 'disk', 'one name', 'bit-flipped', 'foreign',
    'pickle', 'symlink', 'unreadable', 'replaced', 'YAML', 'command line', 'run time', '/dev/shm',
    'hangs', 'marker', '--force', 'UTF-8',
)  # fmt: skip


def rows() -> list[list[str]]:
    """Return the cells of the table's rows."""
    if not PAGE.is_file():
        pytest.skip('docs/ is not part of this copy')
    table = PAGE.read_text(encoding='utf-8').partition('<!-- faults -->')[2]
    lines = table.partition('<!-- /faults -->')[0].strip().splitlines()[2:]
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]


@cache
def defined_in(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text(encoding='utf-8'))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_row_says_what_happens_and_names_tests_that_exist() -> None:
    for cells in rows():
        assert len(cells) == 3 and all(cells), cells
        named = re.findall(r'`(test_\w+\.py)::(\w+)`', cells[2])
        assert named, f'no test: {cells[0]}'
        for file, test in named:
            assert (TESTS / file).is_file(), file
            assert test in defined_in(file), f'{file}::{test}'


def test_no_fault_is_missing() -> None:
    named = ' '.join(cells[0].lower() for cells in rows())
    assert not [fault for fault in FAULTS if fault.lower() not in named]
