# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Weights files: what is written is read, and nothing else is."""

import pickle
import subprocess
from pathlib import Path

import pytest
import torch
from tiny_weights import write_segmenter

from nightseg_ros.networks import build, build_from
from nightseg_ros.taxonomy import CAMVID11, CITYSCAPES19
from nightseg_ros.weights import (
    MANIFEST,
    WeightsError,
    WeightsMetadata,
    load_weights,
    save_weights,
    write_manifest,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_segmenter(tmp_path / 'day.safetensors')


def test_round_trip(file: Path) -> None:
    weights = load_weights(file)
    assert weights.metadata.network == 'lite_segmenter'
    assert weights.metadata.taxonomy == CAMVID11.to_dict()
    assert len(weights.sha256) == 64
    assert build_from(weights).training is False


def test_half_storage_halves_the_file_and_reads_as_float32(file: Path, tmp_path: Path) -> None:
    weights = load_weights(file)
    half = tmp_path / 'half.safetensors'
    save_weights(half, weights.tensors, weights.metadata, half=True)
    assert half.stat().st_size < 0.6 * file.stat().st_size
    again = load_weights(half)
    for name, tensor in weights.tensors.items():
        assert again.tensors[name].dtype == tensor.dtype
        torch.testing.assert_close(again.tensors[name], tensor, rtol=1e-3, atol=1e-3)


def test_manifest_refuses_a_changed_file_and_is_sha256sums_own(file: Path) -> None:
    write_manifest(file.parent)
    load_weights(file)
    subprocess.run(['sha256sum', '-c', MANIFEST], cwd=file.parent, check=True)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError, match='SHA-256.*fetch it again'):
        load_weights(file)


@pytest.mark.parametrize('keep', [0, 4, 8, 100, 5000])
def test_truncated(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r'day\.safetensors'):
        load_weights(file)


class _Bomb:
    def __reduce__(self) -> tuple:
        return (pytest.fail, ('a pickle was executed',))


@pytest.mark.parametrize('kind', ['pickle', 'zip', 'text', 'foreign safetensors', 'folder'])
def test_foreign_files_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / 'foreign.safetensors'
    if kind == 'pickle':
        path.write_bytes(pickle.dumps(_Bomb()))
    elif kind == 'zip':
        torch.save({'a': torch.zeros(3)}, path)
    elif kind == 'text':
        path.write_text('version https://git-lfs.github.com/spec/v1\n' * 10)
    elif kind == 'folder':
        path.mkdir()
    else:
        from safetensors.torch import save_file

        save_file({'a': torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match='foreign'):
        load_weights(path)


def test_missing_file_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r'nothing.*not found; looked for .*models'):
        load_weights('nothing')


@pytest.mark.parametrize(
    'change', ['missing', 'extra', 'shape', 'network', 'arch'],
)  # fmt: skip
def test_what_does_not_fit_its_network_is_refused(file: Path, tmp_path: Path, change: str) -> None:
    weights = load_weights(file)
    tensors, metadata = dict(weights.tensors), weights.metadata
    first = 'classify.weight'
    fields = {'network': metadata.network, 'arch': metadata.arch}
    if change == 'missing':
        del tensors[first]
    elif change == 'extra':
        tensors['surplus'] = torch.zeros(1)
    elif change == 'shape':
        tensors[first] = torch.zeros(1)
    elif change == 'network':
        fields['network'] = 'unet'
    else:
        fields['arch'] = {'classes': len(CITYSCAPES19), 'variant': 'tiny'}
    path = tmp_path / 'unfit.safetensors'
    save_weights(path, tensors, WeightsMetadata(**fields))
    with pytest.raises(WeightsError, match='unfit'):
        build_from(load_weights(path))


def test_interrupted_write_leaves_the_old_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.replace', full)
    network = build('lite_segmenter', classes=3, variant='tiny')
    with pytest.raises(OSError, match='No space'):
        save_weights(file, network.state_dict(), WeightsMetadata(network='lite_segmenter'))
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_values_that_are_no_numbers_are_refused(file: Path, value: float) -> None:
    weights = load_weights(file)
    weights.tensors['classify.bias'][0] = value
    save_weights(file, weights.tensors, weights.metadata)
    with pytest.raises(WeightsError, match=r'classify\.bias.*diverged'):
        load_weights(file)
