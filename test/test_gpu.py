# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The way to a GPU, as far as a CPU can tell; the rest is marked ``gpu``."""

import copy
import json
from pathlib import Path
import subprocess
import sys
from typing import Any

from nightseg_ros.evaluation.agreement import made_up_images
from nightseg_ros.files import models_dir
from nightseg_ros.runtime.backends import available_backends, open_backend
from nightseg_ros.runtime.graph import graph_of
from nightseg_ros.runtime.torch_backend import (
    batch_length,
    BATCHES,
    CapturedGraph,
    fold_batch_norm,
    halve_weights,
)
from nightseg_ros.weights import load_weights
import numpy as np
import pytest
from tiny_weights import write_segmenter
import torch

GPU = torch.cuda.is_available()
ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(('count', 'length'), [(1, 1), (3, 4), (8, 8), (9, 16), (17, 24)])
def test_the_next_longer_batch_is_taken(count, length):
    assert batch_length(count) == length
    assert length in BATCHES or length % BATCHES[-1] == 0


def test_buffers_are_used_again_and_results_are_not(tmp_path, monkeypatch):
    prepared: list[tuple[int, ...]] = []

    def capture(self: CapturedGraph, shape: tuple[int, ...]) -> Any:
        prepared.append(shape)
        images = torch.zeros(shape, dtype=torch.uint8)
        total = torch.zeros(shape[0], dtype=torch.int64)

        def replay() -> None:
            total.copy_(images.long().sum(dim=(1, 2, 3)))

        return images, (total,), replay

    monkeypatch.setattr(CapturedGraph, 'capture', capture)
    graph = graph_of(load_weights(write_segmenter(tmp_path / 'day.safetensors')))
    run = CapturedGraph(graph, torch.device('cpu'))
    rng = np.random.default_rng(0)
    kept = []
    for count in (3, 1, 4, 2, 3):
        images = torch.from_numpy(rng.integers(0, 256, (count, 4, 6, 3), dtype=np.uint8))
        (total,) = run(images)
        kept.append((total, images.long().sum(dim=(1, 2, 3))))
    for got, wanted in kept:
        torch.testing.assert_close(got, wanted)
    assert prepared == [(4, 4, 6, 3), (1, 4, 6, 3), (2, 4, 6, 3)]


def test_folded_batch_norm_and_half_precision_keep_the_labels():
    """What autocast does on a GPU, done by hand: convolutions in float16, the rest in float32."""
    graph = graph_of(load_weights(models_dir() / 'rendered_day.safetensors'))
    images = torch.from_numpy(np.stack(list(made_up_images(160, 2)))[:, :64])
    folded = copy.deepcopy(graph)
    fold_batch_norm(folded.network)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    halved = copy.deepcopy(folded)
    halve_weights(halved.network)
    for layer in halved.network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            assert layer.weight.dtype == torch.float16
            layer.register_forward_pre_hook(lambda layer, args: (args[0].half(),))
            layer.register_forward_hook(lambda layer, args, out: out.float())
    with torch.inference_mode():
        wanted, sure, _ = graph(images)
        for other, least in ((folded, 0.999), (halved, 0.995)):
            labels, confidence, _ = other(images)
            assert (labels == wanted).float().mean() >= least
    assert (folded(images)[1].int() - sure.int()).abs().float().mean() < 0.1


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
    labels, *_ = backend.load(weights, print)(torch.from_numpy(images).cuda())
    assert (backend.pixels.download(labels) == wanted).mean() >= 0.995
