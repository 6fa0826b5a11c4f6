# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The cache of graphs: whatever lies in it, the same masks come out and the node starts."""

from __future__ import annotations

from collections.abc import Callable
import errno
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

from nightseg_ros.files import replace_file
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig
from nightseg_ros.runtime.backends import OnnxBackend, OpenVINOBackend
from nightseg_ros.runtime.export import cached, LIMIT, tidy
from nightseg_ros.weights import load_weights
import numpy as np
import pytest
from tiny_weights import weights_config, write_segmenter

IMAGES = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ('kind', 'spoil', 'words'),
    [
        ('onnx', lambda file: file.write_bytes(file.read_bytes()[:1000]), 'is damaged: it is'),
        ('openvino', flip, 'is damaged: it is made anew'),
    ],
    ids=['cut off', 'flipped'],
)
def test_whatever_lies_in_it_the_masks_are_the_same(
    kind: str, spoil: Callable[[Path], None], words: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Of two starts, the first finds the damage."""
    monkeypatch.setenv('NIGHTSEG_CACHE', str(tmp_path / 'cache'))
    weights = load_weights(write_segmenter(tmp_path / 'day.safetensors'))
    backend = OnnxBackend if kind == 'onnx' else OpenVINOBackend
    said: list[str] = []
    wanted = backend().load(weights, said.append)(IMAGES)
    assert said == ['exporting day.safetensors for the first time …']
    [file] = (tmp_path / 'cache' / kind).iterdir()
    spoil(file)
    for complaints in (1, 0):
        said.clear()
        for got, want in zip(backend().load(weights, said.append)(IMAGES), wanted):
            np.testing.assert_array_equal(got, want)
        found = [text for text in said if 'exporting' not in text]
        assert len(found) == complaints and all(words in text for text in found), said


@pytest.mark.parametrize('where', ['a file', 'not to be made', 'no home', 'a full disk'])
def test_a_temporary_folder_takes_the_place_of_a_cache_that_cannot_be_written(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
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
    made: list[bytes] = []
    said: list[str] = []
    make = lambda: made.append(b'graph') or b'graph'  # noqa: E731
    for _ in range(3):
        assert cached('onnx', 'key', make, said.append) == b'graph'
    assert (made, said) == ([b'graph'], [])
    [record] = caplog.records
    assert record.levelname == 'WARNING' and 'set NIGHTSEG_CACHE' in record.getMessage()
    # what others may have written there is not trusted
    [folder] = (tmp_path / 'tmp').iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert cached('onnx', 'key', make, said.append) == b'graph' and len(made) == 2
    assert len(said) == 1 and 'cannot be used' in said[0]


def test_a_cache_that_can_only_be_read_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv('NIGHTSEG_CACHE', str(tmp_path))
    assert cached('onnx', 'key', lambda: b'graph', print) == b'graph'
    monkeypatch.setattr('nightseg_ros.files.replace_file', None)
    assert cached('onnx', 'key', lambda: b'', print) == b'graph' and not caplog.records


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    for name in ('fsync', 'replace'):
        real: Callable[..., None] = getattr(os, name)

        def noted(*given: Any, real: Callable[..., None] = real) -> None:
            done.append(real.__name__)
            real(*given)

        monkeypatch.setattr(os, name, noted)
    monkeypatch.setenv('NIGHTSEG_CACHE', str(tmp_path))
    assert cached('onnx', 'key', lambda: b'graph', print) == b'graph'
    assert done == ['fsync', 'replace']


def test_the_next_start_finds_what_this_one_compiled(tmp_path: Path) -> None:
    """Also in bfloat16, and whatever order Python gives to sets."""
    path = write_segmenter(tmp_path / 'day.safetensors')
    code = (
        'from nightseg_ros.runtime.backends import has_bfloat16, OpenVINOBackend\n'
        'from nightseg_ros.weights import load_weights\n'
        'import numpy as np\n'
        'backend = OpenVINOBackend(bfloat16=has_bfloat16())\n'
        f'backend.load(load_weights({str(path)!r}), print)(np.zeros((1, 64, 96, 3), "u1"))'
    )
    files = []
    for seed in '12':
        environment = {'NIGHTSEG_CACHE': str(tmp_path / 'cache'), 'PYTHONHASHSEED': seed}
        subprocess.run([sys.executable, '-c', code], env=os.environ | environment, check=True)
        files.append(sorted((tmp_path / 'cache' / 'openvino').iterdir()))
    assert files[0] == files[1] != []


def test_sizes_that_differ_by_padding_alone_share_a_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('NIGHTSEG_CACHE', str(tmp_path / 'cache'))
    config = PipelineConfig(
        weights=weights_config(tmp_path), route='night', backend='openvino', long_side=160
    )
    pipeline = Pipeline.load(config)
    for rows, graphs in ((90, 1), (86, 1), (120, 2)):
        image = np.zeros((rows, 160, 3), np.uint8)
        pipeline.process([Frame(image=image, camera=f'{rows}')])
        assert len(list((tmp_path / 'cache' / 'openvino').iterdir())) == graphs


def test_a_runtime_that_cannot_read_what_it_wrote_compiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError('requirements_magic == runtime_requirements_magic')

    monkeypatch.setenv('NIGHTSEG_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr('openvino.Core.import_model', refuse)
    weights = load_weights(write_segmenter(tmp_path / 'day.safetensors'))
    assert OpenVINOBackend().load(weights, print)(IMAGES)[0].shape == (1, 32, 48)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
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
def test_the_longest_unused_go_first(folder: Path, limit: int, kept: str) -> None:
    tidy(folder, limit)
    assert ''.join(sorted(path.name for path in folder.glob('*/*'))) == kept
    assert (folder / 'other').exists()


def test_what_cannot_be_removed_costs_space_and_nothing_else(folder: Path) -> None:
    (folder / 'onnx' / 'held').mkdir()
    tidy(folder, 0)
    assert [path.name for path in folder.glob('*/*')] == ['held']
