# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The folder of a training: what is in it after a run, a stop, a full disk or damage."""

from dataclasses import dataclass
import json
from pathlib import Path
import resource
import subprocess
import sys
from typing import Any

from nightseg_ros.training import run
from nightseg_ros.training.run import duration, open_fabric, RunConfig, RunError, TrainingRun
import numpy as np
import pytest
from safetensors.torch import load_file
from tiny_data import silent
import torch

STEPS = 9


@dataclass(frozen=True, kw_only=True, slots=True)
class LineConfig(RunConfig):
    steps: int = STEPS
    batch: int = 1
    rate: float = 0.1
    checkpoint_every: int = 2
    picture_every: int = 4
    log_every: int = 1
    workers: int = 0
    precision: Any = '32-true'


POINTS = torch.randn(STEPS, 4, 3, generator=torch.Generator().manual_seed(0))


def train(
    out: Path, stop: int = STEPS, break_at: int = STEPS, *, rate: float = 0.1, width: int = 2,
    log: Any = silent, weights: dict[str, str] | None = None, **options: Any,
) -> tuple[int, dict[str, torch.Tensor]]:  # fmt: skip
    """
    Fit a line, up to but not including step ``stop``; return the first step and the state.

    ``break_at`` is the step after which the network holds infinity.
    """
    torch.manual_seed(0)
    network, counter = torch.nn.Linear(3, width), torch.nn.Module()
    # a state beside the networks, as that of an image pool
    counter.register_buffer('value', torch.tensor(0))
    run = TrainingRun(LineConfig(out=str(out), rate=rate), log, **options)
    run.depend_on([], **(weights or {}))
    wrapped = run.add('line', network, torch.optim.AdamW(network.parameters(), lr=0.1))
    run.keep('counter', counter)
    with run:
        for step, (points,) in run.train(torch.utils.data.TensorDataset(POINTS)):
            if step == stop:
                break
            loss = wrapped(points).square().sum()
            run.minimise('line', loss, 1 - step / STEPS)
            counter.value += step
            run.record(step, loss=loss)
            if run.is_due(step, 4):
                run.picture(step, 'noise', np.full((8, 12, 3), step, np.uint8))
            if step == break_at:
                network.weight.data[0, 0] = float('inf')
    return run.first, {**network.state_dict(), 'counter': counter.value}


def losses(out: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (out / 'metrics.jsonl').read_text().splitlines()]
    assert [line['step'] for line in lines] == list(range(len(lines)))
    return {line['step']: line['loss'] for line in lines}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp('whole')
    return out, train(out)[1]


@pytest.mark.parametrize('stop', [1, 2, 3, 8, 9])
def test_a_run_that_stops_anywhere_goes_on_to_the_same_end(tmp_path, stop, whole):
    train(tmp_path, stop)
    with (tmp_path / 'metrics.jsonl').open('ab') as file:
        file.write(b'{"step": 5, "lo\xff')  # cut off in the middle
    said: list[str] = []
    first, state = train(tmp_path, log=said.append)
    assert first == (stop if stop == STEPS else stop // 2 * 2)
    what = 'all is done' if first == STEPS else 'resuming'
    assert (f'{what} after step {first}' in said) == (first > 0)
    assert same(state, whole[1])
    assert losses(tmp_path) == losses(whole[0])
    assert same(*(load_file(out / 'checkpoint.safetensors') for out in (tmp_path, whole[0])))


def test_pictures_and_events_are_where_people_look(whole, tmp_path):
    names = sorted(path.name for path in (whole[0] / 'pictures').iterdir())
    assert names == ['noise_000003.jpg', 'noise_000007.jpg', 'noise_000008.jpg']
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # killed before its first checkpoint
    train(tmp_path, 1)
    [first] = (tmp_path / 'tensorboard').iterdir()
    first.rename(first.with_name('events.out.tfevents.0'))
    train(tmp_path)
    for out in (whole[0], tmp_path):
        events = EventAccumulator(str(out / 'tensorboard')).Reload()
        assert [event.step for event in events.Scalars('loss')] == list(range(STEPS))
        assert [event.step for event in events.Images('noise')] == [3, 7, 8]


def test_time_left_and_a_missing_tensorboard_are_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', None)
    ticks = iter(range(0, 10_000, 600))
    said: list[str] = []
    train(tmp_path, 3, log=said.append, clock=lambda: float(next(ticks)))
    assert sum('tensorboard is not installed' in text for text in said) == 1
    assert said[-1].startswith('step 2/9 loss ')
    assert said[-1].endswith('1 h 00 min left')  # 6 steps of 600 s
    assert [duration(seconds) for seconds in (5, 119, 3540, 11_100)] == [
        '5 s', '2 min', '59 min', '3 h 05 min',
    ]  # fmt: skip


def test_another_setting_is_named_and_a_damaged_checkpoint_refused(tmp_path):
    (tmp_path / '.left-over.safetensors').touch()
    train(tmp_path, 3)
    assert not list(tmp_path.glob('.left-*'))
    for words, changes in {
        r'rate = 0\.1, now it is 0\.2': {'rate': 0.2},
        "segmenter = None, now it is 'a1'": {'weights': {'segmenter': 'a1'}},
        'of other networks; give data of the same cameras': {'width': 3},
    }.items():
        with pytest.raises(RunError, match=words):
            train(tmp_path, **changes)
    # the lock of a folder goes with its process
    with subprocess.Popen(
        [sys.executable, '-c', HOLD, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdout is not None and other.stdout.readline() == b'held\n'
        with pytest.raises(RunError, match='another training writes'):
            train(tmp_path)
        other.kill()
    path = tmp_path / 'checkpoint.safetensors'
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RunError, match='damaged.*remove it'):
        train(tmp_path)


def test_a_full_disk_leaves_the_old_checkpoint_whole(tmp_path, monkeypatch, whole):
    train(tmp_path, 3)
    before = (tmp_path / 'checkpoint.safetensors').read_bytes()
    # the other files of a run are shorter, but for those of tensorboard
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', None)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match='File too large'):
            train(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / 'checkpoint.safetensors').read_bytes() == before
    assert not list(tmp_path.glob('.checkpoint*'))
    assert same(train(tmp_path)[1], whole[1])


def test_a_diverged_training_stops_and_its_checkpoint_is_not_kept(tmp_path):
    train(tmp_path, 4)
    before = (tmp_path / 'checkpoint.safetensors').read_bytes()
    with pytest.raises(RunError, match="'network/line/weight' is NaN or infinite.*diverged"):
        train(tmp_path, break_at=5)
    with pytest.raises(RunError, match='loss is (nan|inf) at step 5.*lower'):
        train(tmp_path, break_at=4)
    assert (tmp_path / 'checkpoint.safetensors').read_bytes() == before


#: Takes the lock of the folder that is its argument, as a training in another process does.
HOLD = """
import fcntl, sys
file = open(sys.argv[1] + '/.lock', 'w')
fcntl.lockf(file, fcntl.LOCK_EX)
print('held', flush=True)
sys.stdin.read()
"""


def test_an_accelerator_that_is_not_here_is_named():
    missing = 'mps' if torch.cuda.is_available() else 'cuda'
    with pytest.raises(RunError, match=f"'{missing}' cannot be used"):
        open_fabric(missing, '32-true')


@pytest.mark.parametrize('accelerator', ['cpu', 'auto'])
@pytest.mark.parametrize(('has', 'wanted'), [(True, 'bf16-mixed'), (False, '32-true')])
def test_the_precision_suits_the_cpu_and_is_written_down(accelerator, has, wanted, monkeypatch):
    monkeypatch.setattr(run, 'has_bfloat16', lambda: has)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    here = TrainingRun(LineConfig(out='', precision='auto', accelerator=accelerator))
    for said in (here._identity(), here.metadata({}, network='').training):
        assert (said['accelerator'], said['precision']) == ('cpu', wanted)


def test_data_sets_are_named_without_their_folders():
    specs = ['camvid:/d/camvid/:day_train', 'paired:/d/day/:/d/pseudo/:day', 'folder:/d/mine/']
    assert run.data_names(specs) == 'camvid:day_train, pseudo:day, mine'
