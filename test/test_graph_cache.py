# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The cache of graphs keeps what was used last, within its limit."""

import os
from pathlib import Path

import pytest

from nightseg_ros.runtime.export import LIMIT, graph_folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a cache of four graphs of 100 bytes: written in this order, ``a`` read last."""
    monkeypatch.setenv('NIGHTSEG_CACHE', str(tmp_path))
    folder = tmp_path / 'openvino'
    folder.mkdir()
    for age, name in enumerate('dcba'):
        (folder / name).write_bytes(bytes(100))
        os.utime(folder / name, (1e9 - age, 1e9 - age))
    os.utime(folder / 'a', (2e9, 1e9 - 5))
    return folder


@pytest.mark.parametrize(
    ('limit', 'kept'), [(LIMIT, 'abcd'), (400, 'abcd'), (399, 'acd'), (200, 'ad'), (0, '')]
)
def test_the_longest_unused_go_first(folder: Path, limit: int, kept: str) -> None:
    assert graph_folder('openvino', limit) == folder
    assert ''.join(sorted(path.name for path in folder.iterdir())) == kept


def test_other_kinds_are_left_alone(folder: Path) -> None:
    graph_folder('onnx', 0)
    assert len(list(folder.iterdir())) == 4


def test_what_cannot_be_removed_costs_space_and_nothing_else(folder: Path) -> None:
    (folder / 'held').mkdir()
    (folder / 'held' / 'graph').write_bytes(bytes(100))
    graph_folder('openvino', 0)
    assert [path.name for path in folder.iterdir()] == ['held']
