# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The sweep: claims that only one holds, cells that are done once, and an honest reading."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nightseg_ros.cli.main import main
from nightseg_ros.config import ConfigError
from nightseg_ros.data.sample import DataError
from nightseg_ros.training import sweep
from nightseg_ros.training import sweep as cells
from nightseg_ros.training.claims import ClaimLost, take
from nightseg_ros.training.sweep import (
    Curve,
    SweepError,
    markdown,
    mixture,
    plan,
    read,
    standard_error,
)
from nightseg_ros.training.sweep_config import SweepConfig

# -- claims ----------------------------------------------------------------------------------


def _win(folder: str, expiry: float, start: float) -> bool:
    time.sleep(max(0.0, start - time.time()))
    claim = take(Path(folder), expiry)
    if claim is not None:
        time.sleep(0.3)
        claim.release()
    return claim is not None


@pytest.mark.parametrize('stale', [False, True])
def test_one_of_many_wins_a_claim(stale: bool, tmp_path: Path) -> None:
    if stale:
        (tmp_path / 'claim.1').write_text('{"host": "gone"}')
        os.utime(tmp_path / 'claim.1', (1, 1))
    with ThreadPoolExecutor(8) as pool:
        claims = [c for c in pool.map(lambda _: take(tmp_path, 60.0), range(8)) if c is not None]
    assert len(claims) == 1
    claims[0].check()
    claims[0].release()


def test_one_of_several_processes_takes_over_a_stale_claim(tmp_path: Path) -> None:
    (tmp_path / 'claim.7').write_text('{}')
    os.utime(tmp_path / 'claim.7', (1, 1))
    with multiprocessing.get_context('fork').Pool(4) as pool:
        start = time.time() + 0.5
        won = pool.starmap(_win, [(str(tmp_path), 60.0, start)] * 4)
    assert won.count(True) == 1
    assert (tmp_path / 'claim.8').exists() and not (tmp_path / 'claim.9').exists()


def test_a_claim_lives_as_long_as_its_owner_and_is_lost_to_a_later_one(tmp_path: Path) -> None:
    claim = take(tmp_path, 0.5)
    assert claim is not None
    time.sleep(1.2)
    assert take(tmp_path, 0.5) is None, 'signs of life keep it'
    claim.check()
    # another machine saw no sign of life, for whatever reason
    (tmp_path / 'claim.2').write_text('{}')
    with pytest.raises(ClaimLost):
        claim.check()
    claim.release()
    assert take(tmp_path, 60.0) is None, 'to release what was lost gives nothing away'


def test_a_released_claim_is_free_at_once(tmp_path: Path) -> None:
    with take(tmp_path, 600.0):
        assert take(tmp_path, 600.0) is None
    with take(tmp_path, 600.0) as again:
        again.check()
    assert not list(tmp_path.glob('.clock*'))


# -- mixtures and the plan -------------------------------------------------------------------


@settings(deadline=None)
@given(
    days=st.integers(20, 2000),
    share=st.floats(0.5, 2.0),
    ratio=st.sampled_from([0.1, 0.15, 0.3, 0.45, 0.5, 0.6, 0.8, 0.9]),
)
def test_copies_of_two_sets_come_near_the_ratio(days: int, share: float, ratio: float) -> None:
    nights = max(1, round(days * share))
    a, b = mixture(days, nights, ratio)
    assert abs(b * nights / (a * days + b * nights) - ratio) < 0.03
    assert mixture(days, nights, 1.0) == (0, 1)


# -- the reading -----------------------------------------------------------------------------

RATIOS = (0.0, 0.3, 0.6, 1.0)


def curve(*rows: tuple[float, ...]) -> Curve:
    return Curve(variant='physical', data='night', ratios=RATIOS, values=np.array(rows))


@pytest.mark.parametrize(
    ('rows', 'spot', 'resolved', 'words'),
    [
        (((0.2, 0.21), (0.40, 0.42), (0.41, 0.42), (0.30, 0.32)), 0.3, True, 'sweet spot is 0.3'),
        (((0.2, 0.21), (0.30, 0.31), (0.50, 0.51), (0.1, 0.2)), 0.6, True, 'sweet spot is 0.6'),
        (((0.2, 0.21), (0.40, 0.44), (0.41, 0.44), (0.40, 0.44)), 0.3, False, 'a plateau'),
        (((0.2, 0.21), (0.30, 0.31), (0.40, 0.41), (0.50, 0.51)), 1.0, False, 'not come down'),
        (((0.30, 0.4), (0.31, 0.41), (0.32, 0.42), (0.1, 0.2)), 0.0, False, 'no gain over 0'),
        (((0.5, 0.51), (0.4, 0.41), (0.3, 0.31), (0.1, 0.11)), 0.0, False, 'no gain over 0'),
        # the mean falls at the end, but only that of one seed
        (((0.2, 0.21), (0.40, 0.41), (0.41, 0.42), (0.36, 0.42)), 0.6, False, 'a plateau'),
        # the last is behind by next to nothing, though by the same in both
        (((0.2, 0.21), (0.405, 0.42), (0.411, 0.421), (0.41, 0.42)), 0.3, False, 'a plateau'),
        # the mean rises, but only that of one seed
        (((0.2, 0.40), (0.39, 0.40), (0.41, 0.40), (0.1, 0.10)), 0.6, False, 'no gain over 0'),
        (((0.2,), (0.5,), (0.4,), (0.3,)), 0.3, False, 'one seed gives no error'),
    ],
)
def test_the_smallest_ratio_within_one_standard_error_of_the_best(
    rows: tuple[tuple[float, ...], ...], spot: float, resolved: bool, words: str
) -> None:
    reading = read(curve(*rows))
    assert (reading.spot, reading.resolved) == (spot, resolved)
    assert words in reading.text


def test_the_gain_is_taken_seed_by_seed() -> None:
    rows = ((0.1, 0.3), (0.31, 0.51), (0.4, 0.61), (0.2, 0.2))
    assert 'Seed by seed that gains 0.210 ± 0.000 over 0.' in read(curve(*rows)).text


def test_standard_error_is_that_of_the_mean() -> None:
    values = np.array([[1.0, 2.0, 4.0]])
    assert standard_error(values)[0] == pytest.approx(np.sqrt(7 / 3 / 3))
    assert np.isnan(standard_error(values[:, :1])[0])


# -- small sweeps ----------------------------------------------------------------------------


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small data sets in which colour tells the class: 'day', and a darker 'night'."""
    root = tmp_path_factory.mktemp('data')
    rng = np.random.default_rng(0)
    for name, light in (('day', 1.0), ('night', 0.3)):
        for kind in ('images', 'labels'):
            (root / name / kind).mkdir(parents=True)
        for index in range(4):
            labels = np.zeros((64, 96), np.uint8)
            labels[30 + index :] = 3
            labels[25:40, 20:50] = 8
            colors = np.zeros((256, 3), np.float32)
            colors[[0, 3, 8]] = (200, 160, 120), (90, 90, 90), (30, 40, 200)
            image = colors[labels] * light + rng.normal(0, 5, (64, 96, 1))
            picture = np.clip(image, 0, 255).astype(np.uint8)
            file = f'{"ab"[index % 2]}_{index}.png'
            cv2.imwrite(str(root / name / 'images' / file), picture)
            cv2.imwrite(str(root / name / 'labels' / file), labels)
    return root


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(root: Path, out: Path, **changes: object) -> SweepConfig:
    base = SweepConfig(
        data=(f'folder:{root}/day:day',), select=(f'folder:{root}/night',), out=str(out),
        ratios=(0.0, 0.5), seeds=(0, 1), poll=0.2,
        segmenter={
            'arch': {'variant': 'tiny', 'width': 16, 'fine_width': 16}, 'init': 'random',
            'batch': 2, 'long_side': 96, 'license': '', 'checkpoint_every': 1, 'average': 0.5,
            'augment': {'crop': [32, 64]},
        },
        day={'steps': 3, 'warm_up': 1}, cell={'steps': 2, 'warm_up': 1},
    )  # fmt: skip
    return replace(base, **changes)


def silent(_: str) -> None:
    """Say nothing."""


@pytest.fixture(scope='module')
def finished(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a whole sweep; whoever changes it takes a copy."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp('sweep') / 'whole'
    variants = ('physical', f'made=folder:{root}/night:night')
    sweep.sweep(config(root, out, variants=variants), silent)
    return out


def weights(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes() for path in out.rglob('weights.safetensors')
    }


def rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / 'sweep.csv').open()))


def test_a_sweep_trains_each_cell_and_writes_curve_and_figure(finished: Path) -> None:
    names = {path.name for path in (finished / 'cells').iterdir()}
    assert names == {
        f'{name}_seed{seed}' for name in ('none_0', 'physical_0.5', 'made_0.5') for seed in (0, 1)
    }
    table = rows(finished)
    assert len(table) == len(names) * 3, 'two sources and their mean'
    assert {row['use'] for row in table} == {'select'}
    for name in names:
        mine = {r['source']: r for r in table if name.startswith(f'{r["variant"]}_')
                and name.endswith(f'seed{r["seed"]}')}  # fmt: skip
        assert {source: row['frames'] for source, row in mine.items()} == {
            'a': '2', 'b': '2', 'mean': '4',
        }  # fmt: skip
        parts = [float(mine[source]['miou9']) for source in ('a', 'b')]
        assert float(mine['mean']['miou9']) == pytest.approx(np.mean(parts), abs=1e-4)
    text = (finished / 'sweep.md').read_text()
    assert '# Synthetic nights compared' in text
    lines = [line.split(' | ')[0] for line in text.splitlines() if line.startswith('| ')]
    assert lines == ['| night', '| none', '| physical', '| made']
    assert cv2.imread(str(finished / 'sweep.png')).shape[1] > 300
    assert ElementTree.parse(finished / 'sweep.svg').getroot().tag.endswith('svg')
    assert not list(finished.rglob('checkpoint.safetensors')), 'they are ten times the weights'


def test_shares_reach_the_trainings(root: Path, finished: Path) -> None:
    settings = config(
        root, finished, ratios=(0.0, 0.5, 1.0),
        variants=('physical', f'made=folder:{root}/night:night'),
    )  # fmt: skip
    shares = {(c.variant, c.ratio): c.settings for c in plan(settings) if c.variant}
    assert shares['none', 0.0].augment.night_share == 0.0
    assert shares['physical', 0.5].augment.night_share == 0.5
    assert shares['made', 0.5].augment.night_share == 0.0
    assert shares['made', 0.5].data == (*settings.data, f'folder:{root}/night:night')
    assert shares['made', 1.0].data == (f'folder:{root}/night:night',)
    by_seed = {c.seed: c.settings.init for c in plan(settings) if c.variant}
    assert len(set(by_seed.values())) == 2, 'each seed starts from a checkpoint of its own'


def test_a_finished_sweep_trains_nothing_and_new_data_is_only_scored(
    root: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / 'again'
    shutil.copytree(finished, out)
    before = weights(out)

    def trained(*_: object) -> None:
        raise AssertionError('a finished cell was trained again')

    monkeypatch.setattr(cells, 'train_segmenter', trained)
    said: list[str] = []
    sweep.sweep(config(root, out), said.append)
    assert said == ['6 trainings, 6 done already']
    day = f'folder:{root}/day'
    report = sweep.sweep(config(root, out, report=(day,)), silent)
    assert weights(out) == before
    uses = {(row['data'], row['use']) for row in rows(out)}
    assert uses == {('night', 'select'), ('day', 'report')}
    assert report.text.splitlines()[6] == '| night | night | day |'


def test_the_text_says_what_chose_and_what_is_reported(root: Path, finished: Path) -> None:
    night, day = f'folder:{root}/night', f'folder:{root}/day'
    curves = [
        Curve(variant='physical', data=name, ratios=RATIOS, values=np.ones((4, 2)))
        for name in ('night', 'day')
    ]
    settings = config(root, finished, ratios=RATIOS, report=(day,))
    text = markdown(settings, curves, curves[:1], [read(curves[0])])
    assert 'Chosen on: night.' in text and 'Reported on: day.' in text
    assert '| 0.3 | 1.000 ± 0.000 | 1.000 ± 0.000 |' in text
    text = markdown(replace(settings, report=(night,)), curves[:1], curves[:1], [read(curves[0])])
    assert 'night chose the spot and is reported' in text


def test_a_killed_sweep_goes_on_to_the_same_weights(
    root: Path, finished: Path, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    out = tmp_path / 'cut'
    seen: list[str] = []

    def kill(text: str) -> None:
        seen.append(text)
        # in the middle of the first cell, after its first checkpoint
        if text.startswith('none 0, seed 0: step 1'):
            raise Killed

    with pytest.raises(Killed):
        sweep.sweep(config(root, out, seeds=(0,)), kill)
    assert (out / 'cells' / 'none_0_seed0' / 'checkpoint.safetensors').exists()
    assert not (out / 'sweep.csv').exists()
    # a process that dies at once leaves its claim behind
    claim = out / 'cells' / 'none_0_seed0' / 'claim.2'
    claim.write_text('{}')
    said: list[str] = []
    sweep.sweep(config(root, out, seeds=(0,), expiry=1.0), said.append)
    assert any('none 0, seed 0: resuming' in text for text in said)
    assert not any('day checkpoint' in text for text in said)
    whole, found = weights(finished), weights(out)
    assert len(found) == 3 and all(found[name] == whole[name] for name in found)


def test_two_processes_share_the_cells(root: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / 'shared'
    sweep.sweep(config(root, out, ratios=(0.5,), workers=2), silent)
    whole = weights(finished)
    found = weights(out)
    assert len(found) == 4 and all(found[name] == whole[name] for name in found)
    claims = [json.loads(path.read_text())['pid'] for path in out.rglob('claim.*')]
    assert len(claims) == 4, 'no cell was begun twice'
    assert os.getpid() not in claims


def test_a_cell_that_is_lost_to_another_process_is_left_to_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / 'lost'
    settings = config(root, out, seeds=(0,), ratios=(0.5,))
    train = cells.train_segmenter
    taken: list[Path] = []

    def lose(config: cells.SegmenterConfig, say: object) -> Path:
        folder = Path(config.out)
        if not taken:
            taken.append(folder)
            (folder / 'claim.2').write_text('{}')
            os.utime(folder / 'claim.2', (1, 1))  # which then dies as well
        return train(config, say)

    monkeypatch.setattr(cells, 'train_segmenter', lose)
    said: list[str] = []
    sweep.sweep(settings, said.append)
    assert any('another process took over' in text for text in said)
    assert (taken[0] / 'claim.3').exists() and (out / 'sweep.csv').exists()


def test_other_settings_are_refused(root: Path, finished: Path) -> None:
    with pytest.raises(SweepError, match='steps = 2, now it is 4'):
        sweep.sweep(config(root, finished, cell={'steps': 4, 'warm_up': 1}), silent)
    other = (f'made=folder:{root}/day:night',)
    with pytest.raises(SweepError, match='made_0.5_seed0.*data = '):
        sweep.sweep(config(root, finished, variants=other), silent)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'ratios': (0.0, 1.2)}, '0 to 1'),
        ({'ratios': (0.5, 0.5)}, 'twice'),
        ({'seeds': ()}, "'seeds' must name at least one"),
        ({'variants': ('gan',)}, 'NAME=ADAPTER'),
        ({'variants': ('a b=folder:x',)}, 'letters'),
        ({'variants': ('a=folder:x', 'a=folder:y')}, 'twice'),
        ({'workers': 0}, "'workers'"),
        ({'expiry': 0.0}, "'expiry'"),
    ],
)
def test_settings_that_make_no_curve_are_named(
    changes: dict[str, object], words: str, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        config(root, tmp_path, **changes)


def test_what_is_missing_is_named_before_anything_is_trained(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key 'stepps'"):
        sweep.sweep(config(root, tmp_path / 'out', cell={'stepps': 1}), silent)
    with pytest.raises(DataError, match='no folder'):
        sweep.sweep(config(root, tmp_path / 'out', variants=('a=folder:nowhere',)), silent)
    with pytest.raises(DataError, match='no folder'):
        sweep.sweep(config(root, tmp_path / 'out', report=('folder:nowhere',)), silent)
    with pytest.raises(DataError, match='no labels to be scored'):
        unlabelled = f'images:{root}/night/images'
        sweep.sweep(config(root, tmp_path / 'out', report=(unlabelled,)), silent)
    assert not (tmp_path / 'out').exists()


def test_the_command_takes_the_packages_settings_and_flags_win(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[SweepConfig] = []

    def caught(options: SweepConfig, say: object) -> object:
        seen.append(options)
        raise SweepError('far enough')

    monkeypatch.setattr(sweep, 'sweep', caught)
    data = ['--data', f'folder:{root}/day', '--select', f'folder:{root}/night']
    assert main(['sweep', *data, '--out', str(tmp_path), '--cell.steps', '7']) == 2
    assert 'far enough' in capsys.readouterr().err
    (options,) = seen
    assert options.cell['steps'] == 7 and options.segmenter['augment']['crop'] == [192, 256]
    assert len(options.ratios) >= 6 and len(options.seeds) == 3
    assert len(plan(options)) == 3 + 3 * len(options.ratios)
