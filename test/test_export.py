# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Exports: files that say what they are, graphs that agree with torch; the cache of graphs."""

from dataclasses import replace
import errno
import os
from pathlib import Path
import subprocess
import sys
from unittest.mock import Mock

from nightseg_ros.cli.main import main
from nightseg_ros.evaluation import agreement as agreement_module
from nightseg_ros.evaluation.agreement import agreement, made_up_images, model_card
from nightseg_ros.files import models_dir, replace_file
from nightseg_ros.runtime import export as export_module
from nightseg_ros.runtime.backend import BackendError
from nightseg_ros.runtime.backends import OnnxBackend, OpenVINOBackend
from nightseg_ros.runtime.export import (
    cached,
    embed_graph,
    embedded,
    export_graph,
    exported_graph,
    LIMIT,
    tidy,
)
from nightseg_ros.weights import load_weights, read_manifest, set_graph, WeightsError
import numpy as np
import onnxruntime
import pytest
from tiny_data import imwrite
from tiny_weights import write_illumination, write_segmenter, write_translator
import torch

pytestmark = pytest.mark.usefixtures('cache')


@pytest.fixture
def day(tmp_path):
    """Return the weights of a segmenter."""
    return load_weights(write_segmenter(tmp_path / 'day.safetensors'))


def test_export_writes_checked_files_and_fills_the_cache(day, tmp_path, capsys):
    files = [
        day.path,
        write_translator(tmp_path / 'translator.safetensors'),
        write_illumination(tmp_path / 'illumination.safetensors'),
    ]
    out = tmp_path / 'out'
    # another file there, damaged since it was listed
    write_segmenter(out / 'other.safetensors')
    other = f'{"0" * 64}  other.safetensors\n'
    (out / 'SHA256SUMS').write_text(other)
    assert main(['export', *map(str, files), '--out', str(out), '--frames', '2']) == 0
    assert main(['publish', str(day.path), '--name', 'mine', '--models', str(out)]) == 0
    assert (out / 'SHA256SUMS').read_text().startswith(other)
    for extra in ('other', 'mine'):
        (out / f'{extra}.safetensors').unlink()
    told = capsys.readouterr().out
    assert told.count('agrees with torch on') == 4  # two networks, two runtimes
    assert 'made-up pictures' in told
    names = {path.name for path in out.iterdir()}
    assert names == {
        *(f'{name}.{kind}' for name in ('day', 'translator') for kind in ('onnx', 'md')),
        'illumination.md', *(file.name for file in files), 'SHA256SUMS',
    }  # fmt: skip
    for file in files:
        given, written = load_weights(file), load_weights(out / file.name)
        assert written.metadata == given.metadata
        for name, array in given.arrays().items():
            np.testing.assert_array_equal(written.arrays()[name], array)
        assert bool(written.graph) == (written.metadata.task != 'illumination')
        assert read_manifest(out)[file.name] == written.sha256
        assert written.sha256 in (out / f'{file.stem}.md').read_text()
    session = onnxruntime.InferenceSession(str(out / 'day.onnx'))
    labels, confidence, _ = session.run(None, {'images': np.zeros((1, 64, 96, 3), np.uint8)})
    assert labels.shape == confidence.shape == (1, 32, 48)

    # the node's first frame builds nothing
    said: list[str] = []
    exported_graph(load_weights(files[0]), said.append)
    assert not said


def test_weights_of_one_name_do_not_replace_each_other(tmp_path, capsys):
    files = [tmp_path / name / 'weights.safetensors' for name in 'ab']
    for seed, file in enumerate(files):
        file.parent.mkdir()
        write_segmenter(file, seed=seed)
    out = tmp_path / 'out'
    assert main(['export', *map(str, files), '--out', str(out)]) == 2
    assert "2 weights are called 'weights'" in capsys.readouterr().err and not out.exists()


def test_given_frames_are_checked(day, tmp_path, capsys):
    folder = tmp_path / 'frames'
    for index, image in enumerate(made_up_images(120, 5)):
        imwrite(folder / f'{index}.png', image)
    assert main(['export', str(day.path), '--check', str(folder), '--frames', '2']) == 0
    assert f'(2 frames of {folder})' in capsys.readouterr().out
    assert main(['export', str(day.path), '--check', str(tmp_path / 'none')]) == 2
    assert 'does not exist' in capsys.readouterr().err


def test_a_graph_that_computes_something_else_fails(day, monkeypatch, capsys):
    metadata = replace(day.metadata, mean=(9.0, -9.0, 9.0))
    wrong = export_graph(replace(day, metadata=metadata))
    monkeypatch.setattr(export_module, 'export_graph', lambda weights: wrong)
    assert main(['export', str(day.path), '--frames', '1']) == 1
    assert '99.5% are wanted' in capsys.readouterr().err


def test_a_runtime_that_is_not_installed_is_not_compared(day, monkeypatch):
    monkeypatch.setattr(
        agreement_module, 'available_backends', lambda: {'torch': True, 'openvino': False}
    )
    assert agreement(day, list(made_up_images(96, 1)), lambda text: None) == {}


def test_the_card_says_what_the_file_says(day):
    bare = model_card(day)
    assert 'metrics' not in bare and 'training' not in bare
    metadata = replace(
        day.metadata,
        data='ten streets',
        ratio=0.29,
        commit='abc123',
        metrics={'night': {'miou': 0.4321, 'miou_ci': [0.4, 0.45]}, 'route': 'day'},
        training={'seed': 7},
    )
    card = model_card(replace(day, metadata=metadata), {'openvino': 0.9987})
    for wanted in (
        '# day', 'data: ten streets', 'ratio: 0.29', 'commit: abc123', 'free for all',
        day.sha256, '0: sky', '255: unlabelled', 'miou: 0.4321', 'openvino: 0.9987', 'seed: 7',
    ):  # fmt: skip
        assert wanted in card, wanted


SHIPPED = sorted(path.stem for path in models_dir().glob('*.safetensors'))
#: The exporter of other versions may write the same graph in other words.
PINNED = f'torch=={torch.__version__.partition("+")[0]}' in (
    models_dir().parent / 'requirements' / 'constraints.txt'
).read_text(encoding='utf-8')


@pytest.mark.parametrize('name', [name for name in SHIPPED if not name.endswith('illumination')])
def test_shipped_weights_hold_the_graph_of_this_code(name):
    weights = load_weights(name)
    again = 'nightseg publish models/NAME.safetensors NAME'
    assert embedded(weights), f'{name} holds no graph, or one of another VERSION: {again}'
    if PINNED:
        assert embedded(weights) == export_graph(weights), f'graph.py has changed: {again}'


def test_graphs_are_bound_to_tensors_and_metadata(day, tmp_path, monkeypatch):
    size = day.path.stat().st_size
    embed_graph(day.path)
    assert day.path.stat().st_size < size + 20_000  # tensors are stored once
    weights = load_weights(day.path)
    assert embedded(weights)
    # what is read is what runs: another file's graph, other tensors, another temperature
    other = load_weights(write_segmenter(tmp_path / 'other.safetensors', seed=1))
    cooler = replace(weights.metadata, temperature=2.0)
    stale = replace(other, graph=weights.graph), replace(weights, metadata=cooler)
    assert [embedded(one) for one in stale] == [b'', b'']
    monkeypatch.setattr(export_module, 'VERSION', export_module.VERSION + 1)
    assert embedded(weights) == b''
    monkeypatch.setitem(sys.modules, 'torch', None)
    with pytest.raises(BackendError, match=r"pip install 'nightseg\[torch\]', or run `nightseg"):
        exported_graph(weights, print)


@pytest.mark.parametrize('spoil', ['no base64', 'not zipped', 'cut off', 'reads a file'])
def test_hostile_graphs_are_refused(spoil, day):
    bound, good = export_module.pack_graph(day, b'\0' * 1000).split()
    _, reads = export_module.pack_graph(day, b'\x0a\x08location\x12\x06/dev/x').split()
    packed = {
        'no base64': '###', 'not zipped': 'AAAA', 'cut off': good[:8], 'reads a file': reads
    }[spoil]  # fmt: skip
    set_graph(day.path, f'{bound} {packed}')
    with pytest.raises(WeightsError, match=r'graph in weights .*day\.safetensors'):
        embedded(load_weights(day.path))


# -- the cache -------------------------------------------------------------------------------

IMAGES = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ('kind', 'backend', 'spoil'),
    [
        ('onnx', OnnxBackend, lambda content: content[:1000]),
        # one bit is another one
        ('openvino', OpenVINOBackend, lambda content: content[:-1] + bytes([content[-1] ^ 1])),
    ],
)
def test_whatever_lies_in_it_the_masks_are_the_same(kind, backend, spoil, day, cache):
    """Of two starts, the first finds the damage."""
    said: list[str] = []
    wanted = backend().load(day, said.append)(IMAGES)
    assert said == ['exporting day.safetensors for the first time …']
    [file] = (cache / kind).iterdir()
    file.write_bytes(spoil(file.read_bytes()))
    for complaints in (1, 0):
        said.clear()
        for got, want in zip(backend().load(day, said.append)(IMAGES), wanted):
            np.testing.assert_array_equal(got, want)
        assert sum('is damaged: it is made anew' in text for text in said) == complaints, said


@pytest.mark.parametrize('where', ['a file', 'not to be made', 'no home', 'a full disk'])
def test_a_temporary_folder_takes_the_place_of_a_cache_that_cannot_be_written(
    where, tmp_path, monkeypatch, caplog
):
    """It is said once, and what was made serves the next start."""
    (tmp_path / 'file').touch()
    (tmp_path / 'tmp').mkdir()
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path / 'tmp'))
    caches = {'a file': tmp_path / 'file', 'not to be made': Path('/proc/nightseg')}
    monkeypatch.setenv('NIGHTSEG_CACHE', str(caches.get(where, tmp_path / 'full')))
    if where == 'no home':
        for name in ('NIGHTSEG_CACHE', 'XDG_CACHE_HOME', 'HOME'):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr('pwd.getpwuid', {}.__getitem__)

    def full(path: Path, content: bytes, *, durable: bool) -> None:
        if path.is_relative_to(tmp_path / 'full'):
            raise OSError(errno.ENOSPC, 'No space left on device')
        replace_file(path, content, durable=durable)

    monkeypatch.setattr('nightseg_ros.files.replace_file', full)
    said: list[str] = []
    make = Mock(return_value=b'graph')
    for _ in range(3):
        assert cached('onnx', 'key', make, said.append) == b'graph'
    assert make.call_count == 1 and not said
    [record] = caplog.records
    assert record.levelname == 'WARNING' and 'set NIGHTSEG_CACHE' in record.getMessage()
    # what others may have written there is not trusted
    [folder] = (tmp_path / 'tmp').iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert cached('onnx', 'key', make, said.append) == b'graph' and make.call_count == 2
    assert len(said) == 1 and 'cannot be used' in said[0]


def test_a_cache_that_can_only_be_read_is_enough(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv('NIGHTSEG_CACHE', str(tmp_path))
    assert cached('onnx', 'key', lambda: b'graph', print) == b'graph'
    monkeypatch.setattr('nightseg_ros.files.replace_file', None)
    assert cached('onnx', 'key', lambda: b'', print) == b'graph' and not caplog.records


def test_a_file_is_on_the_disk_before_it_has_its_name(cache, monkeypatch):
    done = Mock()
    for name in ('fsync', 'replace'):
        done.attach_mock(Mock(wraps=getattr(os, name)), name)
        monkeypatch.setattr(os, name, getattr(done, name))
    assert cached('onnx', 'key', lambda: b'graph', print) == b'graph'
    assert [name for name, *_ in done.mock_calls] == ['fsync', 'replace']


def test_the_next_start_finds_what_this_one_compiled(day, cache):
    """Also in bfloat16, and whatever order Python gives to sets."""
    code = (
        'from nightseg_ros.runtime.backends import has_bfloat16, OpenVINOBackend\n'
        'from nightseg_ros.weights import load_weights\n'
        'import numpy as np\n'
        'backend = OpenVINOBackend(bfloat16=has_bfloat16())\n'
        f'backend.load(load_weights({str(day.path)!r}), print)(np.zeros((1, 64, 96, 3), "u1"))'
    )
    files = []
    for seed in '12':
        environment = os.environ | {'PYTHONHASHSEED': seed}
        subprocess.run([sys.executable, '-c', code], env=environment, check=True)
        files.append(sorted((cache / 'openvino').iterdir()))
    assert files[0] == files[1] != []


def test_a_runtime_that_cannot_read_what_it_wrote_compiles(day, monkeypatch):
    refuse = Mock(side_effect=RuntimeError('requirements_magic == runtime_requirements_magic'))
    monkeypatch.setattr('openvino.Core.import_model', refuse)
    assert OpenVINOBackend().load(day, print)(IMAGES)[0].shape == (1, 32, 48)


@pytest.fixture
def folder(tmp_path):
    """Return a cache of four graphs of 100 bytes: written in this order, ``a`` read last."""
    for age, kind in enumerate(('onnx', 'openvino', 'onnx', 'openvino')):
        path = tmp_path / kind / 'dcba'[age]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 - age, 1e9 - age))
    os.utime(tmp_path / 'openvino' / 'a', (2e9, 1e9 - 5))
    (tmp_path / 'other').write_bytes(bytes(100))
    return tmp_path


@pytest.mark.parametrize(
    ('limit', 'kept'), [(LIMIT, 'abcd'), (400, 'abcd'), (399, 'acd'), (200, 'ad'), (0, '')]
)
def test_the_longest_unused_go_first(folder, limit, kept):
    tidy(folder, limit)
    assert ''.join(sorted(path.name for path in folder.glob('*/*'))) == kept
    assert (folder / 'other').exists()


def test_what_cannot_be_removed_costs_space_and_nothing_else(folder):
    (folder / 'onnx' / 'held').mkdir()
    tidy(folder, 0)
    assert [path.name for path in folder.glob('*/*')] == ['held']
