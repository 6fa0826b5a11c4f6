# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Tools that are killed end with what they end with undisturbed; ``make crash`` kills more."""

from __future__ import annotations

from pathlib import Path

import crash
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return crash.commands(tmp_path_factory.mktemp('inputs'))


@pytest.mark.parametrize('tool', crash.TOOLS)
def test_a_killed_tool_ends_with_the_same_result(
    tool: str, commands: dict[str, list[str]], tmp_path: Path
) -> None:
    assert crash.crash(tool, commands[tool], tmp_path, kills=2, seed=1) > 0


def test_the_harness_finds_a_difference(
    commands: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(crash.TOOLS, 'bag', lambda out: {'bag': out.parent.name})
    with pytest.raises(AssertionError, match='bag after 0 kills differs'):
        crash.crash('bag', commands['bag'], tmp_path, kills=0)
