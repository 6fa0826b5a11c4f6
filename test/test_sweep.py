# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The sweep: trials that are done once, by as many shards as there are, and an honest reading."""

import csv
from dataclasses import replace
from pathlib import Path
import shutil

import cv2
from nightseg_ros.cli.main import main
from nightseg_ros.config import ConfigError
from nightseg_ros.data.sample import DataError
from nightseg_ros.training import sweep as sweeping
from nightseg_ros.training import SweepConfig
from nightseg_ros.training.run import RunError
from nightseg_ros.training.sweep import plan, sweep, write_report
import numpy as np
import pytest
from tiny_data import imwrite, Killed, silent, write_streets

RATIOS = (0.0, 0.3, 0.6, 1.0)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Two small data sets in which colour tells the class: 'day', and a darker 'night'."""
    root = tmp_path_factory.mktemp('data')
    for name in ('day', 'night'):
        write_streets(root / name, cameras='ab')
    for file in (root / 'night' / 'images').iterdir():
        imwrite(file, cv2.convertScaleAbs(cv2.imread(str(file)), alpha=0.3))
    return root


def config(root: Path, out: Path, **changes: object) -> SweepConfig:
    base = SweepConfig(
        data=(f'folder:{root}/day:day',), select=(f'folder:{root}/night',), out=str(out),
        ratios=(0.0, 0.5), seeds=(0, 1),
        segmenter={
            'arch': {'variant': 'tiny', 'width': 16, 'fine_width': 16}, 'init': 'random',
            'batch': 2, 'long_side': 96, 'license': '', 'checkpoint_every': 1, 'average': 0.5,
            'augment': {'crop': [32, 64]}, 'log_every': 1,
        },
        day={'steps': 3, 'warm_up': 1}, trial={'steps': 2, 'warm_up': 1},
    )  # fmt: skip
    return replace(base, **changes)


@pytest.fixture(scope='module')
def finished(root, tmp_path_factory):
    """Return the folder of a whole sweep; whoever changes it takes a copy."""
    out = tmp_path_factory.mktemp('sweep') / 'whole'
    sweep(config(root, out), silent)
    return out


def weights(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes() for path in out.rglob('weights.safetensors')
    }


def rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / 'sweep.csv').open()))


def test_a_sweep_trains_each_trial_and_writes_table_and_figure(finished):
    names = {path.name for path in (finished / 'trials').iterdir()}
    assert names == {f'{ratio}_seed{seed}' for ratio in ('0', '0.5') for seed in (0, 1)}
    table = rows(finished)
    assert len(table) == len(names) * 3 and {row['use'] for row in table} == {'select'}
    for name in names:
        mine = {r['source']: r for r in table if name == f'{float(r["ratio"]):g}_seed{r["seed"]}'}
        frames = {source: row['frames'] for source, row in mine.items()}
        assert frames == {'a': '2', 'b': '2', 'mean': '4'}, 'two sources and their mean'
        parts = [float(mine[source]['miou9']) for source in ('a', 'b')]
        assert float(mine['mean']['miou9']) == pytest.approx(np.mean(parts), abs=1e-4)
    assert cv2.imread(str(finished / 'sweep.png')).shape[1] > 300
    assert not list(finished.rglob('checkpoint.safetensors')), 'they are ten times the weights'


def test_shares_reach_the_trainings(root, finished):
    trials = [t for t in plan(config(root, finished)) if t.ratio is not None]
    assert all(t.settings.augment.night_share == t.ratio for t in trials)
    by_seed = {t.seed: t.settings.init for t in trials}
    assert len(set(by_seed.values())) == 2, 'each seed starts from a checkpoint of its own'


def test_a_finished_sweep_only_scores_new_data(root, finished, tmp_path, monkeypatch):
    out = tmp_path / 'again'
    shutil.copytree(finished, out)
    before = weights(out)

    def trained(*_: object) -> None:
        raise AssertionError('a finished trial was trained again')

    monkeypatch.setattr(sweeping, 'train_segmenter', trained)
    said: list[str] = []
    sweep(config(root, out), said.append)
    assert said == ['6 trainings, 6 done already']
    left = out / 'trials' / '0_seed0' / 'checkpoint.safetensors'
    left.touch()  # of one who was killed between
    text, _ = sweep(config(root, out, report=(f'folder:{root}/day',)), silent)
    assert weights(out) == before and not left.exists()
    uses = {(row['data'], row['use']) for row in rows(out)}
    assert uses == {('night', 'select'), ('day', 'report')}
    lines = text.splitlines()
    assert lines[1].startswith('night (select): 0: 0.')
    assert lines[2].startswith('day (report): 0: 0.')
    assert "On 'night' the best ratio is" in lines[3]


def test_the_curve_says_what_was_scored(root, tmp_path):
    settings = config(root, tmp_path, ratios=RATIOS, report=(f'folder:{root}/night',))
    scores = [0.2, 0.4, 0.41, 0.3]
    table = [
        {'ratio': ratio, 'seed': seed,
         'spec': settings.select[0], 'source': 'mean', 'frames': 4, 'miou9': score + 0.01 * seed,
         'miou': 0.1, 'pixel_acc': 0.5}
        for ratio, score in zip(RATIOS, scores) for seed in (0, 1)
    ]  # fmt: skip
    text, _ = write_report(settings, table)
    assert 'night (select+report): 0: 0.205 ± 0.005, 0.3: 0.405 ± 0.005, ' in text
    words = "On 'night' the best ratio is 0.6 with 0.415 ± 0.005; seed by seed that gains "
    assert f'{words}0.210 ± 0.000 over 0.' in text


def test_a_killed_sweep_goes_on_to_the_same_weights(root, finished, tmp_path):
    out = tmp_path / 'cut'

    def kill(text: str) -> None:
        # in the middle of the first trial after the day checkpoint, after its first step
        if text.startswith('ratio 0, seed 0: step 1'):
            raise Killed

    with pytest.raises(Killed):
        sweep(config(root, out, seeds=(0,)), kill)
    assert (out / 'trials' / '0_seed0' / 'checkpoint.safetensors').exists()
    assert not (out / 'sweep.csv').exists()
    said: list[str] = []
    sweep(config(root, out, seeds=(0,)), said.append)
    assert any('ratio 0, seed 0: resuming' in text for text in said)
    assert not any('day checkpoint' in text for text in said)
    whole, found = weights(finished), weights(out)
    assert len(found) == 3 and all(found[name] == whole[name] for name in found)


def test_shards_share_the_trials_and_the_last_writes_the_curve(
    root, finished, tmp_path, monkeypatch
):
    monkeypatch.setattr(sweeping, 'POLL', 0.01)
    # trials: a day checkpoint, ratio 0, ratio 0.5; the second shard waits for the first one's
    settings = config(root, tmp_path, seeds=(0,))
    first: list[str] = []
    second: list[str] = []

    def note(text: str) -> None:
        second.append(text)
        if 'waiting for' in text:
            said, files = sweep(replace(settings, shard='1/2'), first.append)
            assert not files and '1/2 is done; other shards have 1 of 3' in said

    _, files = sweep(replace(settings, shard='2/2'), note)
    done = [[t.split(':')[0] for t in said if ': done' in t] for said in (first, second)]
    assert done == [['day checkpoint, seed 0', 'ratio 0.5, seed 0'], ['ratio 0, seed 0']]
    assert files and (tmp_path / 'sweep.csv').exists()
    whole, found = weights(finished), weights(tmp_path)
    assert len(found) == 3 and all(found[name] == whole[name] for name in found)


def test_other_settings_are_refused(root, finished):
    with pytest.raises(RunError, match='steps = 2, now it is 4'):
        sweep(config(root, finished, trial={'steps': 4, 'warm_up': 1}), silent)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'trial': {'stepps': 1}}, "unknown key 'stepps'"),
        ({'data': ('folder:nowhere',)}, 'no folder'),
        ({'report': ('folder:nowhere',)}, 'no folder'),
        ({'report': ('images:{root}/night/images',)}, 'no labels; trials are scored'),
    ],
)
def test_what_is_missing_is_named_before_anything_is_trained(changes, words, root, tmp_path):
    if 'report' in changes:
        changes = {'report': tuple(name.format(root=root) for name in changes['report'])}
    with pytest.raises((ConfigError, DataError), match=words):
        sweep(config(root, tmp_path / 'out', **changes), silent)
    assert not (tmp_path / 'out').exists()


def test_the_command_takes_shipped_settings_and_flags_win(root, tmp_path, monkeypatch, capsys):
    seen: list[SweepConfig] = []

    def caught(options: SweepConfig, log: object) -> object:
        seen.append(options)
        raise RunError('far enough')

    monkeypatch.setattr(sweeping, 'sweep', caught)
    flags = ['--data', f'folder:{root}/day', '--select', f'folder:{root}/night', '--shard', '2/3']
    assert main(['sweep', *flags, '--out', str(tmp_path), '--trial.steps', '7']) == 2
    assert 'far enough' in capsys.readouterr().err
    (options,) = seen
    assert options.trial['steps'] == 7 and options.shard == '2/3'
    assert options.segmenter['augment']['crop'] == [192, 256]
    assert len(options.ratios) >= 6 and len(options.seeds) == 3
    assert len(plan(options)) == 3 + 3 * len(options.ratios)
