# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Synthetic night on disk: what is written, what is refused, and what survives a kill."""

from dataclasses import replace
import fcntl
import hashlib
import json
import os
from pathlib import Path
import shutil

from nightseg_ros.cli.main import main
from nightseg_ros.data import SynthesisConfig
from nightseg_ros.data import synthesize as synthesis
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import DataError, read_image, read_labels
from nightseg_ros.data.synthesize import synthesize
from nightseg_ros.taxonomy import CAMVID11, CITYSCAPES19
from nightseg_ros.weights import WeightsError
import numpy as np
import pytest
from tiny_data import files_of, imwrite, write_streets
from tiny_weights import write_fast_generator, write_translator

METHODS = ('physical', 'generator')
SKY, ROAD = 0, 3


@pytest.fixture(scope='module')
def days(tmp_path_factory):
    return f'{write_streets(tmp_path_factory.mktemp("days") / "set", 8)}:day'


def config(data: str, out: Path, **changes: object) -> SynthesisConfig:
    return replace(SynthesisConfig(data=(data,), out=str(out), count=4), **changes)


@pytest.mark.parametrize('method', METHODS)
def test_each_method_makes_a_data_set_with_the_days_labels(method, days, tmp_path):
    out = tmp_path / 'out' / 'night'
    generator = method == 'generator'
    weights = write_translator(tmp_path / 'night.safetensors')
    wanted = config(
        days, out, method=method, long_side=96, backend='torch',
        weights=str(weights) if generator else '', seed=3,
    )  # fmt: skip
    steps: list[tuple[int, int]] = []
    assert synthesize(wanted, progress=lambda *step: steps.append(step)) == (4, 8)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert list(out.parent.iterdir()) == [out], 'a work folder was left behind'

    samples = open_dataset(f'folder:{out}:night')
    manifest = json.loads((out / 'manifest.json').read_text())
    assert {key: manifest[key] for key in ('method', 'seed', 'ratio', 'count', 'of')} == {
        'method': method, 'seed': 3, 'ratio': 0.5, 'count': 4, 'of': 8,
    }  # fmt: skip
    assert len(samples) == len(manifest['images']) == 4
    by_name = {sample.image.name: sample for sample in open_dataset(days)}
    for sample, entry in zip(samples, manifest['images']):
        source = by_name[Path(entry['source']).name]
        assert sample.light == 'night' and sample.source == source.source
        assert sample.label.path.read_bytes() == source.label.path.read_bytes()
        for key, path in (('sha256', sample.image), ('source_sha256', source.image)):
            assert entry[key] == hashlib.sha256(path.read_bytes()).hexdigest()
        night, day = read_image(sample.image), read_image(source.image)
        assert night.shape == day.shape
        # a random generator has no idea of night
        assert generator or night[5:20].mean() < 0.7 * day[5:20].mean(), 'the sky is that of day'
    if generator:
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        assert manifest['weights_sha256'] == digest


def test_bytes_depend_on_the_seed_and_not_on_the_number(days, tmp_path):
    one, more, other = (tmp_path / name for name in ('one', 'more', 'other'))
    synthesize(config(days, one, seed=1))
    synthesize(config(days, more, seed=1, count=None, ratio=1.0))
    synthesize(config(days, other, seed=2))
    pictures = {k: v for k, v in files_of(one).items() if k.startswith('images')}
    assert len(pictures) == 4 and pictures.items() <= files_of(more).items()
    assert set(pictures.values()).isdisjoint(files_of(other).values())


def test_sets_with_equal_names_and_another_vocabulary(tmp_path):
    specs = tuple(write_streets(tmp_path / name, 2) for name in ('a', 'b'))
    # named as the second picture of that name would be
    for file in (tmp_path / 'a').glob('*/*1.*'):
        file.rename(file.with_stem(f'{file.stem[:-1]}0-2'))
    (tmp_path / 'b' / 'taxonomy.json').write_text(json.dumps(CITYSCAPES19.to_dict()))
    sky, road = (CITYSCAPES19.id_of(name) for name in ('sky', 'road'))
    for path in (tmp_path / 'b' / 'labels').iterdir():
        imwrite(path, np.repeat(np.uint8([[sky], [road]]), 32, 0).repeat(96, 1))
    out = tmp_path / 'out'
    synthesize(SynthesisConfig(data=specs, out=str(out), ratio=1.0))
    manifest = json.loads((out / 'manifest.json').read_text())['images']
    assert len({entry['source'] for entry in manifest}) == 4
    assert len({entry['image'] for entry in manifest}) == len([*(out / 'images').iterdir()]) == 4
    entry = next(e for e in manifest if Path(e['source']).parts[-3] == 'b')
    for taxonomy, ids in ((CAMVID11, [SKY, ROAD]), (CITYSCAPES19, sorted([sky, road]))):
        samples = open_dataset(f'folder:{out}:night', taxonomy)
        assert len(samples) == 4
        (sample,) = [s for s in samples if s.image.name == Path(entry['image']).name]
        assert np.unique(read_labels(sample.label)).tolist() == ids


def test_a_full_disk_and_a_process_that_works_on_it_leave_no_folder(days, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    with monkeypatch.context() as patch:
        patch.setattr(synthesis, 'convert', lambda *_: (b'', Path('/dev/full').write_bytes(b'x')))
        with pytest.raises(DataError, match='No space left'):
            synthesize(config(days, out))
    assert not list(tmp_path.iterdir()), 'a folder that is not whole must not bear its name'
    partial = tmp_path / '.out.partial'
    partial.mkdir()
    handle = os.open(partial, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    with pytest.raises(DataError, match='another process'):
        synthesize(config(days, out))
    os.close(handle)


def test_a_folder_of_other_settings_or_without_a_file_is_refused_and_stays(days, tmp_path):
    out = tmp_path / 'out'
    synthesize(config(days, out))
    before = files_of(out)
    said: list[str] = []
    synthesize(config(days, out), log=said.append)
    assert 'there already, whole' in said[0]
    for changes, words in (
        ({'count': 5}, 'count = 4, now it is 5'),
        ({'quality': 90}, 'quality = 95, now it is 90'),
        ({'night': {'mixture': {'dark': 1.0}}}, 'night = '),
    ):
        # as a kill leaves it while the new one takes its place
        out.rename(out.with_name('.out.earlier'))
        with pytest.raises(DataError, match=words):
            synthesize(config(days, out, **changes))
    assert files_of(out) == before
    (out / next(name for name in before if name.startswith('labels'))).unlink()
    with pytest.raises(DataError, match='is gone; give --force'):
        synthesize(config(days, out))
    synthesize(config(days, out, seed=7, force=True))
    assert files_of(out) != before


def test_labels_of_another_meaning_and_other_guesses_are_noticed(tmp_path):
    days = tmp_path / 'days'
    own = config(write_streets(days, 2), tmp_path / 'own', count=2)
    shutil.copytree(days / 'labels', days / 'labels' / 'scene')
    guessed = config(f'paired:{days}/images:{days}/labels', tmp_path / 'guessed', count=2)
    for settings in (own, guessed):
        synthesize(settings)
    turned = replace(CAMVID11, name='turned', classes=CAMVID11.classes[::-1])
    (days / 'taxonomy.json').write_text(json.dumps(turned.to_dict()))
    imwrite(days / 'labels' / 'scene' / 'a1.png', np.full((64, 96), ROAD, np.uint8))
    for settings, words in ((own, 'meanings_sha256'), (guessed, 'meanings_sha256')):
        with pytest.raises(DataError, match=words):
            synthesize(settings)
        synthesize(replace(settings, force=True))
        # a manifest of an earlier version tells no meanings
        manifest = Path(settings.out, 'manifest.json')
        known = json.loads(manifest.read_text())
        del known['meanings_sha256']
        manifest.write_text(json.dumps(known))
        synthesize(settings)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'count': 9}, 'holds 8 day images'),
        ({'count': None}, "Give 'ratio' or 'count'"),
        ({'count': None, 'ratio': 0.05}, 'of 8 images is none'),
        ({'taxonomy': 'none'}, "no taxonomy 'none'"),
        ({'night': {'mixture': {'noon': 1.0}}}, "preset 'noon'"),
        ({'data': 'folder:nowhere'}, 'no folder'),
        ({'styles': ('street',)}, "'styles' are those of a generator"),
    ],
)
def test_what_cannot_work_is_named(changes, words, days, tmp_path):
    with pytest.raises(ValueError, match=words):
        synthesize(config(**{'data': days, 'out': tmp_path / 'out', **changes}))
    assert not list(tmp_path.iterdir())


def test_broken_data_is_named_and_nothing_is_left(tmp_path):
    data, out = write_streets(tmp_path / 'days', 2), tmp_path / 'out'
    with pytest.raises(DataError, match='has no labels'):
        synthesize(config(f'images:{tmp_path}/days/images', out, count=1))
    days = tmp_path / 'days'
    imwrite(days / 'labels' / 'scene' / 'a0.png', np.zeros((8, 8), np.uint8))
    with pytest.raises(DataError, match=r'scene/a0\.png.*sizes must agree'):
        synthesize(config(f'paired:{days}/images:{days}/labels', out, count=2))
    imwrite(tmp_path / 'days' / 'labels' / 'a1.png', np.zeros((8, 8), np.uint8))
    with pytest.raises(DataError, match=r'a1\.png.*sizes must agree'):
        synthesize(config(data, out, count=2))
    (tmp_path / 'days' / 'images' / 'a1.png').write_bytes(b'torn')
    with pytest.raises(DataError, match='cannot be read as an image'):
        synthesize(config(data, out, count=2, force=True))
    assert not out.exists()


def test_what_is_known_to_be_no_day_is_left_out(days, tmp_path):
    """As SegNet's drive at dusk is, or what BDD100K says by its hours."""
    write_streets(tmp_path / 'late', 2)
    specs, said = (days, f'folder:{tmp_path}/late:dusk'), list[str]()
    wanted = SynthesisConfig(data=specs, out=str(tmp_path / 'out'), ratio=0.5)
    assert synthesize(wanted, log=said.append) == (4, 8)
    assert said == ['left out, which are no day: 2 dusk']
    assert 'late/images' not in (tmp_path / 'out' / 'manifest.json').read_text()
    with pytest.raises(DataError, match='the data holds 2 dusk'):
        synthesize(replace(wanted, data=specs[1:]))


def test_a_generator_draws_from_the_nights_of_its_cameras(days, tmp_path):
    cameras = ('street', 'dark')
    weights = str(write_translator(tmp_path / 'w.safetensors', styles=cameras, way='day_to_night'))
    settings = config(
        days, tmp_path / 'one', method='generator', weights=weights, backend='torch',
        long_side=96, styles=('street',), ratio=1.0, count=None,
    )  # fmt: skip
    synthesize(settings)
    synthesize(replace(settings, out=str(tmp_path / 'two'), styles=cameras))
    one, two = (files_of(tmp_path / name / 'images') for name in ('one', 'two'))
    same = sum(one[name] == two[name] for name in one)
    assert 0 < same < len(one) == 8
    for other in (
        write_translator(tmp_path / 'n.safetensors', way='night_to_day'),
        write_fast_generator(tmp_path / 'f.safetensors'),
    ):
        with pytest.raises(WeightsError, match='turn night into day'):
            synthesize(replace(settings, out=str(tmp_path / 'three'), weights=str(other)))


def test_the_command_writes_a_sheet_and_reads_a_file(days, tmp_path, capsys):
    out, file = tmp_path / 'out', tmp_path / 'night.yaml'
    file.write_text('ratio: 0.25\nnight:\n  mixture: {dark: 1.0}\n')
    arguments = ['synthesize', '--config', str(file), '--data', days, '--out', str(out)]
    assert main([*arguments, '--sheet']) == 0
    shown = capsys.readouterr().out
    assert '2 nights of 8 day images' in shown and f'folder:{out}:night' in shown
    assert '20%' in shown
    assert read_image(out / 'sheet.jpg').shape[1] > 600
    manifest = json.loads((out / 'manifest.json').read_text())
    assert manifest['night']['mixture'] == {'dark': 1.0}
    assert all(read_labels(sample.label) is not None for sample in open_dataset(f'folder:{out}'))
    assert main([*arguments, '--seed', '9']) == 2
    assert 'seed = 0, now it is 9' in capsys.readouterr().err
