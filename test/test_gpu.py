# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The way to a GPU, as far as a CPU can tell; the rest is marked ``gpu``."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
import json
from pathlib import Path
import subprocess
import sys
from typing import Any
from unittest.mock import Mock

from nightseg_ros.evaluation.agreement import made_up_images
from nightseg_ros.files import models_dir
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import load_part, Pipeline, PipelineConfig, WeightsConfig
from nightseg_ros.perception.result import Want
from nightseg_ros.runtime.backends import available_backends, open_backend
from nightseg_ros.runtime.torch_backend import (
    batch_length,
    BATCHES,
    CapturedGraph,
    TorchBackend,
    TorchPixels,
)
from nightseg_ros.weights import load_weights
import numpy as np
import pytest
from tiny_weights import write_fast_generator, write_translator
import torch

GPU = torch.cuda.is_available()
ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(('count', 'length'), [(1, 1), (3, 4), (8, 8), (9, 16), (17, 24)])
def test_the_next_longer_batch_is_taken(count, length):
    assert batch_length(count) == length
    assert length in BATCHES or length % BATCHES[-1] == 0


def stream(device: Any = None) -> Any:
    """Return a stream that has nothing to wait for: all is done at once."""
    return Mock(spec=['wait_stream', 'synchronize'])


@pytest.fixture
def captured(monkeypatch):
    """Let what torch.cuda is asked for happen on the CPU; return the images of each run."""
    runs: list[tuple[CapturedGraph, torch.Tensor, Any]] = []
    real, empty = CapturedGraph._run, torch.empty
    # torch looks up once which functions a device counts for
    with torch.device('meta'):
        empty(0)

    def run(self: CapturedGraph, images: torch.Tensor) -> Any:
        runs.append((self, images, real(self, images)))
        return runs[-1][2]

    class Graph:
        """One that computes anew."""

        def replay(self) -> None:
            owner, images, outputs = self.of
            for output, new in zip(outputs, real(owner, images)):
                output.copy_(new)

    @contextmanager
    def graph(into: Graph) -> Iterator[None]:
        yield
        into.of = runs[-1]

    def autocast(half: bool) -> Any:
        return torch.autocast('cpu', torch.float16) if half else nullcontext()

    monkeypatch.setattr(CapturedGraph, '_run', run)
    monkeypatch.setattr('nightseg_ros.runtime.graph.precision', autocast)
    monkeypatch.setattr(torch, 'empty', lambda *a, pin_memory=False, **k: empty(*a, **k))
    monkeypatch.setattr(torch.Tensor, 'record_stream', lambda self, stream: None)
    for name, value in (
        ('Stream', stream), ('current_stream', stream), ('stream', nullcontext),
        ('CUDAGraph', Graph), ('graph', graph),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    return runs


def test_a_dry_run_of_a_gpus_way(captured, tmp_path):
    """Every line but those that need the device; buffers are used again, results are not."""
    files = WeightsConfig(day='rendered_day', illumination='rendered_illumination')
    config = PipelineConfig(
        route='day', backend='torch', device='cpu', long_side=160, weights=files
    )
    plain, backend = Pipeline.load(config), TorchBackend('cpu')
    pixels = TorchPixels(torch.device('cpu'))
    pixels._on_gpu, pixels._up, pixels._down = True, stream(), stream()
    backend._on_host, backend.pixels = False, pixels
    day = load_part(load_weights('rendered_day'), backend, print, 'segment')
    pipeline = Pipeline(config, backend, {'day': day}, plain.estimator)
    want = Want(labels=True, confidence=True, color=True, overlay=True)
    pictures = np.stack(list(made_up_images(160, 13)))[:, :90]
    kept = []
    for count in (3, 1, 4, 2, 3):
        frames = [
            Frame(image=picture, camera=f'{index}', stamp_ns=len(kept) + 1)
            for index, picture in enumerate(islice(pictures, len(kept), len(kept) + count))
        ]
        kept += zip(pipeline.process(frames, want), plain.process(frames, want))
    for got, wanted in kept:
        assert (got.labels == wanted.labels).mean() >= 0.995
        assert np.abs(got.confidence.astype(int) - wanted.confidence).mean() < 2
        assert (got.color == wanted.color).mean() >= 0.99
        assert got.reliability == pytest.approx(wanted.reliability, abs=0.01)
    layers = [*captured[0][0]._graph.network.modules()]
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in layers)
    kinds = {layer.weight.dtype for layer in layers if isinstance(layer, torch.nn.Conv2d)}
    assert kinds == {torch.float16}
    # three runs before each capture
    shapes = [tuple(images.shape) for _, images, _ in captured]
    assert shapes == [(n, 96, 160, 3) for n in (4, 1, 2) for _ in range(4)]


@pytest.mark.parametrize('write', [write_fast_generator, write_translator])
def test_a_dry_run_of_a_translator(captured, tmp_path, write):
    weights = load_weights(write(tmp_path / 'translator.safetensors'))
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 160, 3), np.uint8)
    backend = TorchBackend('cpu')
    (wanted,) = backend.load(weights, print)(images)
    backend._on_host = False
    (got,) = backend.load(weights, print)(images)
    assert np.abs(got.numpy().astype(int) - wanted).mean() < 2


def test_the_benchmarks_dry_run(tmp_path):
    models = models_dir()
    done = subprocess.run(
        [
            sys.executable, ROOT / 'bench' / 'gpu.py', '--device', 'cpu', '--cameras', '1', '2',
            '--size', '96x160', '--seconds', '0.3', '--out', tmp_path / 'gpu.json',
            '--night', models / 'rendered_night.safetensors',
        ],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / 'gpu.json').read_text())
    assert result['what']['device'] == 'cpu' and [*result['cameras']] == ['1', '2']
    for found in result['cameras'].values():
        times = found['batch_ms']
        assert 0 < times['p50'] <= times['p95'] <= times['p99'] <= times['max']
        assert 0 < found['share_of_roofline'] < 1 and found['frames_per_second'] > 0
        assert found['agreement'] >= 0.995


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason='needs a CUDA device')
@pytest.mark.parametrize('name', ['torch', 'tensorrt'])
@pytest.mark.parametrize('count', [1, 3, 8])
def test_gpu_agrees_with_torch_on_the_cpu(name, count):
    if not available_backends()[name]:
        pytest.skip(f'{name} is not installed')
    weights = load_weights(models_dir() / 'night.safetensors')
    images = np.stack(list(made_up_images(480, count)))[:, :256]
    wanted, *_ = open_backend('torch', 'cpu').load(weights, print)(images)
    backend = open_backend(name, 'cuda')
    labels, *_ = backend.load(weights, print)(images)
    assert (backend.pixels.download(labels) == wanted).mean() >= 0.995
