# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A finished evaluation as its folder holds it: ``metrics.json``, ``frames.jsonl``, samples."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightseg_ros.taxonomy import Taxonomy, TaxonomyError

VERSION = 2


class ReportError(ValueError):
    """A folder that holds no finished evaluation, or one of another version."""


def find(data: Any, *keys: str) -> Any:
    """Return ``data[keys[0]][keys[1]]…``, None where a key is missing on the way."""
    for key in keys:
        if not isinstance(data, Mapping):
            return None
        data = data.get(key)
    return data


def real(data: Any, *keys: str) -> float | None:
    """Return a finite number found under ``keys``, else None."""
    value = find(data, *keys)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def whole(data: Any, *keys: str) -> int:
    """Return a count found under ``keys``; 0 where there is none."""
    return int(real(data, *keys) or 0)


def ends(data: Any, *keys: str) -> tuple[float, float] | None:
    """Return an interval found under ``keys``, None where it has no two finite ends."""
    value = find(data, *keys)
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        return None
    low, high = (real({'': end}, '') for end in value)
    return None if low is None or high is None else (low, high)


def members(data: Any, *keys: str) -> dict[str, Any]:
    """Return the mapping found under ``keys``, an empty one where there is none."""
    value = find(data, *keys)
    return {str(k): v for k, v in value.items()} if isinstance(value, Mapping) else {}


def items(data: Any, *keys: str) -> list[Any]:
    """Return the list found under ``keys``, an empty one where there is none."""
    value = find(data, *keys)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One configuration over one set."""

    name: str
    label: str
    """The configuration in words: its name, or the route where there is only one."""
    data: Mapping[str, Any]

    @property
    def labelled(self) -> int:
        """Frames that were scored against labels."""
        return whole(self.data, 'labelled')

    @property
    def frames(self) -> int:
        """Frames that were segmented."""
        return whole(self.data, 'frames')


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredSet:
    """Frames, and every configuration that was run over them; the first one is the reference."""

    name: str
    data: Mapping[str, Any]
    runs: tuple[Run, ...]

    @property
    def drive(self) -> bool:
        """Whether frames follow one another in time."""
        return bool(find(self.data, 'kind') == 'recordings')

    @property
    def labelled(self) -> bool:
        """Whether there is anything to score against."""
        return any(run.labelled for run in self.runs)

    def named(self, run: Run) -> str:
        """Return set and configuration in words."""
        return f'{self.name}, {run.label}'


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """A folder that ``nightseg evaluate`` has filled."""

    folder: Path
    metrics: Mapping[str, Any]
    taxonomy: Taxonomy
    sets: tuple[ScoredSet, ...]

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
        try:
            return cls.of(folder, metrics)
        except ReportError as error:
            raise ReportError(f"'{path}' {error}") from error

    @classmethod
    def of(cls, folder: Path, metrics: Any) -> Evaluation:
        """Take what ``metrics.json`` of ``folder`` holds."""
        version = find(metrics, 'version')
        if version != VERSION:
            raise ReportError(
                f'is of version {version!r}, a report is made of version {VERSION}: evaluate again'
            )
        try:
            taxonomy = Taxonomy.from_dict(metrics.get('taxonomy') or {})
        except TaxonomyError as error:
            raise ReportError(f'has no readable taxonomy: {error}') from error
        return cls(folder=folder, metrics=metrics, taxonomy=taxonomy, sets=tuple(_sets(metrics)))

    @property
    def labelled(self) -> list[ScoredSet]:
        """Sets with labels."""
        return [scored for scored in self.sets if scored.labelled]

    @property
    def runs(self) -> list[tuple[ScoredSet, Run]]:
        """Every run, with its set."""
        return [(scored, run) for scored in self.sets for run in scored.runs]

    def lines(self) -> Iterator[Mapping[str, Any]]:
        """Yield the lines of ``frames.jsonl``; torn ones, and a missing file, give none."""
        return _lines(self.folder / 'frames.jsonl')


def configuration_name(metrics: Any, entry: Any = None) -> str:
    """Return a configuration in words; the only one has no name but its route."""
    return str(find(entry, 'name') or '') or f'route={find(metrics, "route") or "unknown"}'


def _sets(metrics: Mapping[str, Any]) -> Iterator[ScoredSet]:
    runs = members(metrics, 'runs')
    names = members(metrics, 'sets')
    for run in runs.values():
        names.setdefault(str(find(run, 'set') or ''), {})
    for name, data in names.items():
        mine = []
        for key, run in runs.items():
            if str(find(run, 'set') or '') == name:
                label = configuration_name(metrics, {'name': find(run, 'configuration')})
                mine.append(Run(name=key, label=label, data=run or {}))
        yield ScoredSet(name=name, data=data or {}, runs=tuple(mine))


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    if not path.is_file():
        return
    with path.open(encoding='utf-8', errors='replace') as stream:
        for text in stream:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, Mapping):
                yield line
