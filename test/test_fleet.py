# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Several processes and a Ray cluster give what one gives, though a worker is killed."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import evaluated_drive
from evaluated_drive import config, Doomed, LABEL_TOPIC, without_times, write_drive
from nightseg_ros.data.sample import DataError
from nightseg_ros.evaluation.evaluate import evaluate, EvaluationSettings
from nightseg_ros.evaluation.sources import Plan, sequence_shards, Shard
from nightseg_ros.evaluation.variants import Configuration, configurations, Variants
from nightseg_ros.evaluation.workers import WorkerError
import pytest
from tiny_weights import write_all

FRAMES = 24


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('fleet')


@pytest.fixture(scope='module')
def members(folder: Path) -> tuple[Configuration, ...]:
    (folder / 'weights').mkdir()
    base = config(write_all(folder / 'weights'), threads=1)
    return configurations(base, ('route=day', 'route=auto'))


@pytest.fixture(scope='module')
def variants(members: tuple[Configuration, ...]) -> Variants:
    return Variants(members)


@pytest.fixture(scope='module')
def shards(folder: Path) -> list[Shard]:
    paths = [
        write_drive(folder / name, FRAMES, every=3, seed=seed)
        for seed, name in enumerate(('first', 'second', 'third'))
    ]
    return sequence_shards(paths, labels=[LABEL_TOPIC], name='drives')


@pytest.fixture(scope='module')
def alone(
    folder: Path, members: tuple[Configuration, ...], variants: Variants, shards: list[Shard]
) -> dict:
    plan = Plan(configurations=members, shards=tuple(shards))
    return evaluate(plan, variants, folder / 'alone', EvaluationSettings())


@pytest.mark.parametrize('fleet', ['processes', 'ray'])
def test_a_killed_worker_is_replaced_and_nothing_counts_twice(
    fleet, tmp_path, members, variants, shards, alone, monkeypatch
):
    if fleet == 'ray':
        reason = "Ray is not installed: pip install 'nightseg[fleet]'"
        cloudpickle = pytest.importorskip('ray.cloudpickle', reason=reason)
        # the workers do not know the tests' modules
        cloudpickle.register_pickle_by_value(evaluated_drive)
        monkeypatch.setenv('RAY_USAGE_STATS_ENABLED', '0')
    mark = tmp_path / 'killed'
    fields = {field.name: getattr(shards[1], field.name) for field in dataclasses.fields(Shard)}
    # near its end
    changed = (shards[0], Doomed(**fields, mark=mark, after=FRAMES - 4), shards[2])
    plan = Plan(configurations=members, shards=changed, save_labels=fleet == 'ray')
    settings = EvaluationSettings(workers=2, ray='local' if fleet == 'ray' else '')
    found = evaluate(plan, variants, tmp_path / 'out', settings)
    assert int(mark.read_text()) != os.getpid()
    assert without_times(found) == without_times(alone)
    lines = (tmp_path / 'out' / 'frames.jsonl').read_text().splitlines()
    assert len(lines) == 3 * FRAMES * len(members)
    masks = list((tmp_path / 'out' / 'labels').rglob('*.png'))
    assert len(masks) == (3 * FRAMES * len(members) if fleet == 'ray' else 0)


def test_an_error_in_a_worker_is_told_as_in_this_process(tmp_path, members, variants, shards):
    wrong = dataclasses.replace(shards[0], labels=str(tmp_path / 'labels'))
    plan = Plan(configurations=members, shards=(wrong,))
    for workers in (1, 2):
        with pytest.raises(DataError, match='labels .* are no folder, and .* has no image topic'):
            evaluate(plan, variants, tmp_path / str(workers), EvaluationSettings(workers=workers))


def test_without_ray_the_extra_is_named(tmp_path, members, variants, shards, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'ray', None)
    plan = Plan(configurations=members, shards=tuple(shards))
    with pytest.raises(WorkerError, match=r"pip install 'nightseg\[fleet\]'"):
        evaluate(plan, variants, tmp_path, EvaluationSettings(ray='local'))
