# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Several processes and a Ray cluster give what one gives, though a worker is killed."""

from __future__ import annotations

import os
from pathlib import Path

import doomed_part
import pytest
from doomed_part import Doomed
from evaluated_drive import LABEL_TOPIC, config, without_times, write_drive
from tiny_weights import write_all

from nightseg_ros.cli.main import main
from nightseg_ros.data.sample import DataError
from nightseg_ros.evaluation.evaluate import EvaluationSettings, evaluate
from nightseg_ros.evaluation.fleet import FleetError, measure_packed, unpack
from nightseg_ros.evaluation.lineup import Configuration, Lineup, configurations
from nightseg_ros.evaluation.part import Recording
from nightseg_ros.evaluation.plan import Plan

FRAMES = 40


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('fleet')


@pytest.fixture(scope='module')
def members(folder: Path) -> tuple[Configuration, ...]:
    (folder / 'weights').mkdir()
    base = config(write_all(folder / 'weights'), threads=1)
    return configurations(base, ('route=day', 'route=auto'))


@pytest.fixture(scope='module')
def lineup(members: tuple[Configuration, ...]) -> Lineup:
    return Lineup.load(members)


@pytest.fixture(scope='module')
def recordings(folder: Path) -> list[Recording]:
    return [
        Recording(
            set='drives', source=name, labels=LABEL_TOPIC,
            path=write_drive(folder / name, FRAMES, every=3, seed=seed),
        )
        for seed, name in enumerate(('first', 'second', 'third'))
    ]  # fmt: skip


@pytest.fixture(scope='module')
def alone(
    folder: Path, members: tuple[Configuration, ...], lineup: Lineup, recordings: list[Recording]
) -> dict:
    plan = Plan(configurations=members, parts=tuple(recordings))
    return evaluate(plan, lineup, folder / 'alone', EvaluationSettings())


def doomed(recording: Recording, mark: Path) -> Doomed:
    """Frames enough to be on disk when it dies."""
    return Doomed(
        set=recording.set, source=recording.source, path=recording.path, labels=recording.labels,
        mark=mark, after=FRAMES - 4,
    )  # fmt: skip


@pytest.mark.parametrize('fleet', ['processes', 'ray'])
def test_a_killed_worker_is_replaced_and_nothing_counts_twice(
    fleet: str, tmp_path: Path, members: tuple[Configuration, ...], lineup: Lineup,
    recordings: list[Recording], alone: dict, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if fleet == 'ray':
        reason = "Ray is not installed: pip install 'nightseg[fleet]'"
        cloudpickle = pytest.importorskip('ray.cloudpickle', reason=reason)
        # the workers do not know the tests' modules
        cloudpickle.register_pickle_by_value(doomed_part)
        monkeypatch.setenv('RAY_USAGE_STATS_ENABLED', '0')
    mark = tmp_path / 'killed'
    parts = (recordings[0], doomed(recordings[1], mark), recordings[2])
    plan = Plan(configurations=members, parts=parts)
    settings = EvaluationSettings(workers=2, ray='local' if fleet == 'ray' else '')
    found = evaluate(plan, lineup, tmp_path / 'out', settings)
    assert int(mark.read_text()) != os.getpid()
    assert without_times(found) == without_times(alone)
    lines = (tmp_path / 'out' / 'frames.jsonl').read_text().splitlines()
    assert len(lines) == 3 * FRAMES * len(members)


def test_an_error_in_a_worker_is_told_as_in_this_process(
    tmp_path: Path, members: tuple[Configuration, ...], lineup: Lineup, recordings: list[Recording]
) -> None:
    wrong = Recording(
        set='drives', source='wrong', path=recordings[0].path, labels=str(tmp_path / 'labels')
    )
    plan = Plan(configurations=members, parts=(wrong,))
    for workers in (1, 2):
        with pytest.raises(DataError, match='labels .* are no folder, and .* has no image topic'):
            evaluate(plan, lineup, tmp_path / str(workers), EvaluationSettings(workers=workers))


def test_a_part_travels_whole_or_not_at_all(
    tmp_path: Path, members: tuple[Configuration, ...], recordings: list[Recording]
) -> None:
    packed = measure_packed(recordings[0], members, True)
    with pytest.raises(Exception, match='.'):
        unpack(packed[: len(packed) // 2], tmp_path / 'parts' / '00000')
    assert list((tmp_path / 'parts').iterdir()) == []
    unpack(packed, tmp_path / 'parts' / '00000')
    names = {path.name for path in (tmp_path / 'parts' / '00000').iterdir()}
    assert {'frames.jsonl', 'counts.i64', 'done.json', 'samples', 'labels'} <= names


def test_without_ray_the_extra_is_named(
    tmp_path: Path, members: tuple[Configuration, ...], lineup: Lineup,
    recordings: list[Recording], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(__import__('sys').modules, 'ray', None)
    plan = Plan(configurations=members, parts=tuple(recordings))
    with pytest.raises(FleetError, match=r"pip install 'nightseg\[fleet\]'"):
        evaluate(plan, lineup, tmp_path, EvaluationSettings(ray='local'))


def test_no_worker_is_too_few(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['evaluate', str(tmp_path), '--out', str(tmp_path), '--workers', '0']) == 2
    assert '--workers' in capsys.readouterr().err
