# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Weights files: what is written is read, and nothing else is."""

from contextlib import nullcontext
import dataclasses
import json
import os
from pathlib import Path
import pickle
import shutil
import struct
import subprocess

from nightseg_ros.networks import build_from
from nightseg_ros.taxonomy import CAMVID11, CITYSCAPES19
from nightseg_ros.weights import (
    list_weights,
    load_weights,
    MANIFEST,
    read_manifest,
    save_weights,
    WeightsError,
)
import pytest
from safetensors.torch import save_file
from tiny_data import files_of
from tiny_weights import write_segmenter
import torch


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    return write_segmenter(tmp_path_factory.mktemp('weights') / 'day.safetensors')


@pytest.fixture
def file(written, tmp_path):
    return Path(shutil.copy(written, tmp_path))


def test_half_storage_halves_the_file_and_reads_as_float32(file, tmp_path):
    weights = load_weights(file)
    assert weights.metadata.network == 'lite_segmenter'
    assert weights.metadata.taxonomy == CAMVID11.to_dict()
    assert build_from(weights).training is False
    half = tmp_path / 'half.safetensors'
    save_weights(half, weights.tensors, weights.metadata, half=True)
    assert half.stat().st_size < 0.6 * file.stat().st_size
    again = load_weights(half)
    for name, tensor in weights.tensors.items():
        assert again.tensors[name].dtype == tensor.dtype
        torch.testing.assert_close(again.tensors[name], tensor, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('lead', ['', './'])
def test_manifest_refuses_a_changed_file_and_is_sha256sums_own(file, lead):
    list_weights(file)
    manifest = file.parent / MANIFEST
    manifest.write_text(manifest.read_text().replace(file.name, lead + file.name))
    load_weights(file)
    subprocess.run(['sha256sum', '-c', MANIFEST], cwd=file.parent, check=True)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError, match='SHA-256.*fetch it again'):
        load_weights(file)


def test_truncated(file):
    content = file.read_bytes()
    for keep in (0, 4, 8, 100, 5000, len(content) // 2):
        file.write_bytes(content[:keep])
        words = 'are damaged' if keep > 5000 else 'not a safetensors file, or a truncated one'
        with pytest.raises(WeightsError, match=rf'day\.safetensors.*{words}'):
            load_weights(file)


class _Bomb:
    """What runs code where it is unpickled."""

    def __reduce__(self) -> tuple:
        return (pytest.fail, ('a pickle was executed',))


def write_deep(path: Path) -> None:
    """Write a header whose metadata would overflow the stack of a JSON reader."""
    header = json.dumps({'__metadata__': {'nightseg': '[' * 100_000}}).encode()
    path.write_bytes(struct.pack('<Q', len(header)) + header)


@pytest.mark.parametrize(
    ('write', 'words'),
    [
        (lambda path: path.write_bytes(pickle.dumps(_Bomb())), 'not a safetensors file'),
        (lambda path: torch.save({'a': torch.zeros(3)}, path), 'not a safetensors file'),
        (lambda path: path.write_text('version https://git-lfs\n' * 10), 'not a safetensors file'),
        (lambda path: save_file({'a': torch.zeros(3)}, path), 'carries no nightseg metadata'),
        (write_deep, 'carries no nightseg metadata'),
        (Path.mkdir, 'not found'),
        (lambda path: path.symlink_to(path.name), 'not found'),
        # even root may not read it
        (lambda path: path.symlink_to('/proc/self/mem'), 'cannot be read'),
    ],
    ids=['pickle', 'zip', 'text', 'foreign', 'deep metadata', 'folder', 'loop', 'forbidden'],
)
def test_foreign_files_are_refused(tmp_path, write, words):
    write(tmp_path / 'foreign.safetensors')
    with pytest.raises(WeightsError, match=rf'foreign\.safetensors.*{words}'):
        load_weights(tmp_path / 'foreign.safetensors')
    with pytest.raises(WeightsError, match=r'nothing.*not found; looked for .*models'):
        load_weights('nothing')


@pytest.mark.parametrize(
    ('tensors', 'fields', 'words'),
    [
        ({'classify.weight': None}, {}, r'Missing key.*classify\.weight'),
        ({'surplus': torch.zeros(1)}, {}, 'Unexpected key.*surplus'),
        ({'classify.weight': torch.zeros(1)}, {}, r'size mismatch for classify\.weight'),
        ({}, {'network': 'unet'}, "no network 'unet'"),
        ({}, {'arch': {'classes': len(CITYSCAPES19), 'variant': 'tiny'}}, 'size mismatch'),
    ],
    ids=['missing', 'extra', 'shape', 'network', 'arch'],
)
def test_what_does_not_fit_its_network_is_refused(file, tmp_path, tensors, fields, words):
    weights, path = load_weights(file), tmp_path / 'unfit.safetensors'
    given = {name: t for name, t in {**weights.tensors, **tensors}.items() if t is not None}
    save_weights(path, given, dataclasses.replace(weights.metadata, **fields))
    with pytest.raises(WeightsError, match=rf"(?s)unfit\.safetensors' do not fit .*{words}"):
        build_from(load_weights(path))


@pytest.mark.parametrize('listed', [False, True])
def test_a_disk_without_room_leaves_the_old_weights_and_their_line(file, listed, monkeypatch):
    if listed:
        list_weights(file)
    before, weights, move = files_of(file.parent), load_weights(file), os.replace

    def full(partial: Path, path: Path) -> None:
        if path.name == file.name:
            raise OSError(28, 'No space left on device')
        move(partial, path)

    monkeypatch.setattr('os.replace', full)
    with pytest.raises(OSError, match='No space'):
        save_weights(file, weights.tensors, dataclasses.replace(weights.metadata, data='other'))
    assert files_of(file.parent) == before


@pytest.mark.parametrize('moves', range(4))
def test_weights_can_be_loaded_wherever_their_writer_was_killed(file, moves, monkeypatch):
    list_weights(file)
    weights, left, move = load_weights(file), [None] * moves, os.replace

    def killed(*names: Path) -> None:
        left.pop()
        move(*names)

    monkeypatch.setattr('os.replace', killed)
    metadata = dataclasses.replace(weights.metadata, data='other')
    with pytest.raises(IndexError) if moves < 3 else nullcontext():
        save_weights(file, weights.tensors, metadata)
    found = load_weights(file)
    assert found.metadata.data == ('other' if moves > 1 else '')
    assert read_manifest(file.parent).get(file.name) == (None if moves in (1, 2) else found.sha256)


@pytest.mark.parametrize('end', ['\n', ''])
@pytest.mark.parametrize('listed', [True, False])
def test_writing_weights_changes_no_other_line_of_a_manifest(file, listed, end):
    weights = load_weights(file)
    others = f'{"0" * 64}  damaged.safetensors\n{"1" * 64} *archive.tar'
    own = f'{weights.sha256}  {file.name}\n'
    (file.parent / 'SHA256SUMS').write_text((own if listed else '') + others + end)
    save_weights(file, weights.tensors, dataclasses.replace(weights.metadata, data='other'))
    own = f'{load_weights(file).sha256}  {file.name}\n'
    text = (file.parent / 'SHA256SUMS').read_text()
    assert text == others + (f'\n{own}' if listed else end)


def test_values_that_are_no_numbers_are_refused(file):
    weights = load_weights(file)
    for value in (float('nan'), float('inf')):
        weights.tensors['classify.bias'][0] = value
        save_weights(file, weights.tensors, weights.metadata)
        with pytest.raises(WeightsError, match=r'classify\.bias.*diverged'):
            load_weights(file)
