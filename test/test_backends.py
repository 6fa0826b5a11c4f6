# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Every backend gives torch's answer."""

import dataclasses
from pathlib import Path
import subprocess
import sys
from typing import Any

import cv2
from nightseg_ros.data.sample import read_image
from nightseg_ros.files import models_dir
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.illumination import IlluminationEstimator
from nightseg_ros.perception.pipeline import load_part, Pipeline, PipelineConfig
from nightseg_ros.runtime.backend import BackendError, ON_CPU
from nightseg_ros.runtime.backends import available_backends, has_bfloat16, open_backend
from nightseg_ros.runtime.export import embed_graph
from nightseg_ros.runtime.pixels import fit, HostPixels
from nightseg_ros.simulation.drive import Drive
from nightseg_ros.weights import load_weights
import numpy as np
import pytest
from tiny_weights import weights_config, write_network, write_translator
import torch

#: The project's real frames, which no package holds.
REAL = Path(__file__).parent.parent.parent / 'shared' / 'data'


@pytest.fixture(scope='module')
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('cache')


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('NIGHTSEG_CACHE', str(cache))


def _others() -> list:
    present = available_backends()
    return [
        pytest.param(
            name, marks=[] if present[name] else pytest.mark.skip(reason=f'{name} not installed')
        )
        for name in ON_CPU
        if name != 'torch'
    ]


def _bf16() -> Any:
    able = available_backends()['openvino'] and has_bfloat16()
    return pytest.param(
        'openvino-bf16', marks=pytest.mark.skipif(not able, reason='this CPU has no bfloat16')
    )


def _pictures() -> list[np.ndarray]:
    """Real frames by day, dusk and night where the project's data lie; else rendered ones."""
    if not REAL.is_dir():
        drive = Drive(seed=5, size=(480, 288), seconds=60)
        return [drive.frame(i).image for i in (10, 450)]
    folders = ('camvid/day_val/images', 'camvid/dusk/images', 'unlabelled/night')
    return [read_image(sorted((REAL / folder).glob('*.jpg'))[3]) for folder in folders]


@pytest.mark.parametrize('shipped', ['day', 'night'])
@pytest.mark.parametrize('name', [*_others(), _bf16()])
def test_labels_agree_with_torch(name: str, shipped: str) -> None:
    """Issue: ≥ 99.5 % of the pixels of real frames; batches and sizes from one export."""
    weights = load_weights(models_dir() / f'{shipped}.safetensors')
    reference = open_backend('torch', 'cpu').load(weights, print)
    network = open_backend(name, 'cpu').load(weights, print)
    pixels, pictures = HostPixels(), _pictures()
    batches = []
    for image in pictures:
        size = fit(image.shape[0], image.shape[1], weights.metadata.long_side)
        batches.append(pixels.stack([pixels.shrink(image, 'rgb', size)]))
    small = [cv2.resize(image, (320, 192)) for image in pictures[:2]]
    shares = []
    for batch in (*batches, np.stack(small)):
        labels, confidence, _ = network(batch)
        wanted, sure, _ = reference(batch)
        assert labels.dtype == confidence.dtype == np.uint8
        assert labels.shape == (len(batch), batch.shape[1] // 2, batch.shape[2] // 2)
        assert np.abs(confidence.astype(int) - sure).mean() < 2
        shares.append(float((labels == wanted).mean()))
    assert np.mean(shares) >= 0.995, shares


@pytest.mark.parametrize('name', ['openvino', 'onnxruntime'])
def test_weights_that_hold_their_graph_run_without_torch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch is two seconds and some gigabytes that a vehicle does not need."""
    monkeypatch.setenv('NIGHTSEG_CACHE', str(tmp_path / 'cache'))
    files = weights_config(tmp_path)
    for part in (files.day, files.night, files.translator):
        embed_graph(Path(part))
    code = (
        'import sys, numpy as np\n'
        'sys.modules["torch"] = sys.modules["onnx"] = None\n'
        'from nightseg_ros.perception.frame import Frame\n'
        'from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig\n'
        f'pipeline = Pipeline.load(PipelineConfig(weights={files!r}, backend={name!r}))\n'
        '[result] = pipeline.process([Frame(image=np.zeros((90, 160, 3), np.uint8))])\n'
        'print(result.labels.shape)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == '(90, 160)', done.stderr


@pytest.mark.parametrize('name', _others())
def test_erf_pspnet_exports_at_any_size(name: str, tmp_path: Path) -> None:
    weights = load_weights(write_network(tmp_path / 'erf.safetensors', 'erf_pspnet', classes=11))
    reference = open_backend('torch', 'cpu').load(weights, print)
    run = open_backend(name, 'cpu').load(weights, print)
    for size in ((96, 160), (160, 96)):
        images = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
        assert (run(images)[0] == reference(images)[0]).mean() > 0.995


@pytest.mark.parametrize('residual', [False, True])
@pytest.mark.parametrize('name', _others())
def test_translators_agree_with_torch(name: str, residual: bool, tmp_path: Path) -> None:
    path = write_translator(tmp_path / 'translator.safetensors', residual=residual)
    weights = load_weights(path)
    images = np.random.default_rng(0).integers(0, 256, (1, 96, 160, 3), dtype=np.uint8)
    (wanted,) = open_backend('torch', 'cpu').load(weights, print)(images)
    (got,) = open_backend(name, 'cpu').load(weights, print)(images)
    assert got.shape == images.shape and got.dtype == np.uint8
    assert np.abs(got.astype(int) - wanted).max() <= 2


@pytest.mark.parametrize('name', ['torch', *_others(), _bf16()])
def test_a_network_without_numbers_is_withheld(name: str, tmp_path: Path) -> None:
    files = weights_config(tmp_path)
    weights = load_weights(files.day)
    weights.tensors['classify.bias'][:] = float('nan')
    backend = open_backend(name, 'cpu')
    spoilt = dataclasses.replace(weights, sha256='0' * 64)
    pipeline = Pipeline(
        PipelineConfig(route='day'),
        backend,
        {'day': load_part(spoilt, backend, print, 'segment')},
        IlluminationEstimator.load(files.illumination),
    )
    with pytest.raises(RuntimeError, match='NaN.*withheld'):
        pipeline.process([Frame(image=np.zeros((90, 160, 3), np.uint8))])


@pytest.mark.parametrize(
    ('name', 'device', 'words'),
    [
        ('tensorflow', 'auto', 'no backend'), ('torch', 'tpu', 'no device'),
        ('onnxruntime', 'cuda', 'has no CUDAExecutionProvider'), ('openvino', 'cuda', 'CPU only'),
        ('torch', 'cuda', 'finds no GPU'), ('tensorrt', 'cpu', 'runs on a GPU only'),
        ('tensorrt', 'auto', 'has no TensorrtExecutionProvider'),
    ],
)  # fmt: skip
@pytest.mark.skipif(torch.cuda.is_available(), reason='this machine has a GPU')
def test_what_is_not_there_is_named(name: str, device: str, words: str) -> None:
    with pytest.raises(BackendError, match=words):
        open_backend(name, device)
