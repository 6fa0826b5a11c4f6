# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""int8 graphs: made from frames, let through by a gate, bound to their weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
from nightseg_ros.evaluation.int8_gate import Gate, Verdict
from tiny_weights import write_segmenter

from nightseg_ros.cli.main import main
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.evaluation import int8_gate
from nightseg_ros.evaluation.agreement import made_up_images
from nightseg_ros.runtime import quantization
from nightseg_ros.runtime.backend import BackendError
from nightseg_ros.runtime.backends import open_backend
from nightseg_ros.runtime.int8 import Int8Metadata, has_int8, int8_path, read_int8, write_int8
from nightseg_ros.taxonomy import CAMVID11
from nightseg_ros.weights import WeightsError, load_weights, write_manifest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('NIGHTSEG_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / 'frames'
    folder.mkdir()
    for index, image in enumerate(made_up_images(160, 5)):
        cv2.imwrite(str(folder / f'{index}.png'), image)
    return folder


def test_a_file_belongs_to_its_weights(tmp_path: Path) -> None:
    weights = load_weights(write_segmenter(tmp_path / 'day.safetensors', seed=1))
    path = int8_path(weights)
    assert path == tmp_path / 'day.int8' and not has_int8(weights)
    with pytest.raises(WeightsError, match='no int8 graph.*nightseg quantize'):
        read_int8(weights)
    with pytest.raises(BackendError, match='openvino-int8.*nightseg quantize'):
        open_backend('openvino-int8', 'cpu').load(weights, print)

    about = Int8Metadata(
        weights=weights.sha256, kept=3, rest='f32', frames=7, agreement={'night': 0.99}
    )
    write_int8(path, b'<net/>', b'numbers', about)
    assert read_int8(weights) == (b'<net/>', b'numbers', about)
    assert has_int8(weights)
    assert not has_int8(dataclasses.replace(weights, sha256='0' * 64)), 'other weights'
    write_int8(path, b'', b'', dataclasses.replace(about, graph=0))
    with pytest.raises(WeightsError, match='old graph'):
        read_int8(weights)

    write_int8(path, b'<net/>', b'numbers', about)
    write_manifest(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b'!')
    with pytest.raises(WeightsError, match='damaged or replaced'):
        read_int8(weights)
    (tmp_path / 'SHA256SUMS').unlink()
    for length in (0, 7, 40, len(content) - 3):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError, match='damaged'):
            read_int8(weights)


@pytest.mark.parametrize(
    ('agreement', 'loss', 'passed'),
    [
        ({'a': 0.99, 'b': 0.98}, {}, True),
        ({'a': 0.99, 'b': 0.979}, {}, False),
        ({'a': 0.99}, {'dusk': 0.005}, True),
        ({'a': 0.99}, {'dusk': 0.0051}, False),
        ({'a': 0.99}, {'dusk': -0.02}, True),
        ({}, {}, False),
    ],
)
def test_the_gate(agreement: dict, loss: dict, passed: bool) -> None:
    assert Verdict(agreement=agreement, miou_loss=loss).passed is passed


def test_agreement_is_counted(tmp_path: Path, frames: Path) -> None:
    samples = open_dataset(f'images:{frames}')

    def exact(image: np.ndarray) -> tuple[np.ndarray, ...]:
        return (np.zeros((1, image.shape[1] // 2, image.shape[2] // 2), np.uint8),)

    def coarse(image: np.ndarray) -> tuple[np.ndarray, ...]:
        (labels,) = exact(image)
        labels[:, : labels.shape[1] // 4] = 3
        return (labels,)

    gate = Gate(exact, 160, {'frames': samples}, {}, CAMVID11)
    assert gate.judge(exact).agreement == {'frames': 1.0}
    verdict = gate.judge(coarse)
    assert verdict.agreement == pytest.approx({'frames': 0.75})
    assert '75.00% of frames' in str(verdict)


def test_quantize_makes_what_the_backend_runs(
    tmp_path: Path, frames: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pytest.importorskip('nncf')
    monkeypatch.setattr(quantization, 'KEPT', (3,))
    path = write_segmenter(tmp_path / 'day.safetensors', seed=1)
    arguments = ['quantize', str(path), '--calibration', str(frames), '--frames', '2']
    monkeypatch.setattr(int8_gate, 'AGREEMENT', 1.1)
    assert main([*arguments, '--checked', '2']) == 1
    assert 'loses too much' in capfd.readouterr().err
    assert not (tmp_path / 'day.int8').exists()
    # layers drawn at random have no margins: how well int8 does is not the question here
    monkeypatch.setattr(int8_gate, 'AGREEMENT', 0.5)
    assert main([*arguments, '--checked', '2']) == 0
    weights = load_weights(path)
    _, _, about = read_int8(weights)
    assert about.kept == 3 and about.frames == 2 and about.agreement[str(frames)] >= 0.5

    image = np.random.default_rng(0).integers(0, 256, (1, 96, 160, 3), dtype=np.uint8)
    backend = open_backend('openvino-int8', 'cpu')
    labels, confidence, _ = backend.load(weights, print)(image)
    wanted, sure, _ = open_backend('torch', 'cpu').load(weights, print)(image)
    assert labels.shape == wanted.shape and labels.dtype == confidence.dtype == np.uint8
    assert (labels == wanted).mean() > 0.5
    assert (confidence != sure).any(), 'it would be float32'


def test_quantize_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['quantize', 'day']) == 2
    assert '--calibration' in capsys.readouterr().err
