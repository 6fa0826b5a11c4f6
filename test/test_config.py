# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Strict configs: every wrong key or type is named."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nightseg_ros.config import ConfigError, from_mapping, read_yaml, to_mapping
import pytest


@dataclass(frozen=True, kw_only=True)
class Inner:
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f'share is 0 to 1, got {self.share}')


@dataclass(frozen=True, kw_only=True)
class Outer:
    count: int
    mode: Literal['a', 'b'] = 'a'
    size: tuple[int, int] = (1, 2)
    names: tuple[str, ...] = ()
    flag: bool = False
    limit: float | None = None
    inner: Inner = field(default_factory=Inner)


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_a_file_of_windows_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / 'a.yaml').write_bytes('count: 3\r\nnames: [ü]\r\n'.encode(encoding))
    assert read_yaml(tmp_path / 'a.yaml') == {'count': 3, 'names': ['ü']}


def test_values_of_every_kind() -> None:
    config = from_mapping(
        Outer,
        {
            'count': 3, 'mode': 'b', 'size': [4, 5], 'names': ['x'], 'flag': True, 'limit': 2,
            'inner': {'share': 1},
        },
    )  # fmt: skip
    assert config == Outer(
        count=3, mode='b', size=(4, 5), names=('x',), flag=True, limit=2.0, inner=Inner(share=1.0)
    )
    assert from_mapping(Outer, to_mapping(config)) == config


@pytest.mark.parametrize(
    ('mapping', 'words'),
    [
        ({}, "'count' is missing"),
        ({'count': 1, 'cuont': 2}, "unknown key 'cuont'.*known keys.*count"),
        ({'count': 1.5}, "'count' must be int, got 1.5"),
        ({'count': True}, "'count' must be int"),
        ({'count': '1'}, "'count' must be int"),
        ({'count': 1, 'flag': 1}, "'flag' must be bool"),
        ({'count': 1, 'mode': 'c'}, "'mode' must be one of"),
        ({'count': 1, 'size': [1]}, "'size' must have 2 items"),
        ({'count': 1, 'size': 7}, "'size' must be a list"),
        ({'count': 1, 'names': ['a', 2]}, r"'names\[1\]' must be str"),
        ({'count': 1, 'inner': {'shore': 1}}, "unknown key 'inner.shore'"),
        ({'count': 1, 'inner': {'share': 2.0}}, "'inner': share is 0 to 1, got 2.0"),
        ({'count': 1, 'inner': 3}, "'inner' must be a mapping"),
    ],
)
def test_mistakes_are_named(mapping: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        from_mapping(Outer, mapping)
