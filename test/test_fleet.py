# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Several processes and a Ray cluster give what one gives, though a worker is killed."""

from collections.abc import Sequence
import dataclasses
import os
from pathlib import Path
import sys
from typing import Any

import evaluated_drive
from evaluated_drive import config, Doomed, LABEL_TOPIC, without_times, write_drive
from nightseg_ros.data.sample import DataError
from nightseg_ros.evaluation.evaluate import evaluate, EvaluationSettings
from nightseg_ros.evaluation.sources import Plan, sequence_shards, Shard
from nightseg_ros.evaluation.variants import configurations, Variants
from nightseg_ros.evaluation.workers import WorkerError
import pytest
from tiny_weights import write_all

FRAMES = 24


class Drives:
    """Three drives, what is evaluated on them, and what one process finds."""

    def __init__(self, folder: Path) -> None:
        (folder / 'weights').mkdir()
        base = config(write_all(folder / 'weights'), threads=1)
        self.members = configurations(base, ('route=day', 'route=auto'))
        self.variants = Variants(self.members)
        paths = [write_drive(folder / f'drive{n}', FRAMES, every=3, seed=n) for n in range(3)]
        self.shards = sequence_shards(paths, labels=[LABEL_TOPIC], name='drives')
        self.alone = self.evaluate(folder / 'alone', self.shards)

    def evaluate(
        self, out: Path, shards: Sequence[Shard], save_labels: bool = False, **settings: Any
    ) -> dict[str, Any]:
        plan = Plan(configurations=self.members, shards=tuple(shards), save_labels=save_labels)
        return evaluate(plan, self.variants, out, EvaluationSettings(**settings))


@pytest.fixture(scope='module')
def drives(tmp_path_factory):
    return Drives(tmp_path_factory.mktemp('fleet'))


@pytest.mark.parametrize('fleet', ['processes', 'ray'])
def test_a_killed_worker_is_replaced_and_nothing_counts_twice(
    fleet, tmp_path, drives, monkeypatch
):
    if fleet == 'ray':
        reason = "Ray is not installed: pip install 'nightseg[fleet]'"
        cloudpickle = pytest.importorskip('ray.cloudpickle', reason=reason)
        # the workers do not know the tests' modules
        cloudpickle.register_pickle_by_value(evaluated_drive)
        monkeypatch.setenv('RAY_USAGE_STATS_ENABLED', '0')
    mark, out = tmp_path / 'killed', tmp_path / 'out'
    first, second, third = drives.shards
    fields = {field.name: getattr(second, field.name) for field in dataclasses.fields(Shard)}
    # near its end
    doomed = Doomed(**fields, mark=mark, after=FRAMES - 4)
    settings = {'save_labels': True, 'ray': 'local'} if fleet == 'ray' else {}
    found = drives.evaluate(out, (first, doomed, third), workers=2, **settings)
    assert int(mark.read_text()) != os.getpid()
    assert without_times(found) == without_times(drives.alone)
    count = 3 * FRAMES * len(drives.members)
    assert len((out / 'frames.jsonl').read_text().splitlines()) == count
    masks = list((out / 'labels').rglob('*.png'))
    assert len(masks) == (count if fleet == 'ray' else 0)


def test_an_error_in_a_worker_is_told_as_in_this_process(tmp_path, drives):
    wrong = dataclasses.replace(drives.shards[0], labels=str(tmp_path / 'labels'))
    for workers in (1, 2):
        with pytest.raises(DataError, match='labels .* are no folder, and .* has no image topic'):
            drives.evaluate(tmp_path / str(workers), [wrong], workers=workers)


def test_without_ray_the_extra_is_named(tmp_path, drives, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ray', None)
    with pytest.raises(WorkerError, match=r"pip install 'nightseg\[fleet\]'"):
        drives.evaluate(tmp_path, drives.shards, ray='local')
