# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""OpenVINO in bfloat16 behind the first layers: where it may, and what it leaves alone."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import get_args, get_type_hints

import cv2
import numpy as np
import pytest
import torch
from tiny_weights import write_segmenter, write_translator

from nightseg_ros.cli.main import main
from nightseg_ros.cli.options import PipelineOptions
from nightseg_ros.files import models_dir
from nightseg_ros.networks import build, build_from
from nightseg_ros.runtime import backends
from nightseg_ros.runtime.backend import BACKENDS, BackendError
from nightseg_ros.runtime.backends import OpenVINOBackend, has_bfloat16, open_backend
from nightseg_ros.simulation.drive import Drive
from nightseg_ros.taxonomy import CAMVID11
from nightseg_ros.training import average
from nightseg_ros.training.average import round_weights
from nightseg_ros.weights import (
    Weights,
    WeightsError,
    WeightsMetadata,
    load_weights,
    save_weights,
)

needs_bf16 = pytest.mark.skipif(not has_bfloat16(), reason='this CPU has no bfloat16')
SIZE = (96, 160)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('NIGHTSEG_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    return load_weights(write_segmenter(tmp_path / 'day.safetensors'))


def pictures(count: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)


@needs_bf16
def test_it_is_not_float32_and_gives_the_same_shapes(weights: Weights) -> None:
    """Several batches and sizes; each picture has the labels that it has alone."""
    exact = OpenVINOBackend().load(weights, print)
    coarse = OpenVINOBackend(bfloat16=True).load(weights, print)
    for size in (SIZE, (64, 96)):
        images = pictures(3, size)
        wanted, got = exact(images), coarse(images)
        assert [(a.shape, a.dtype) for a in got] == [(a.shape, a.dtype) for a in wanted]
        assert (got[1] != wanted[1]).any(), 'that was float32'
        assert (got[0] == wanted[0]).mean() > 0.9
        for index in (2, 0):
            alone = coarse(images[index : index + 1])
            np.testing.assert_array_equal(alone[0][0], got[0][index])


@needs_bf16
def test_more_layers_in_float32_change_fewer_labels() -> None:
    """On a rendered night, where all layers in bfloat16 change the most."""
    night = load_weights(models_dir() / 'night.safetensors')
    frame = Drive(seed=5, size=(480, 288), seconds=60, split='demo').frame(450).image
    # as dark as the frames that bfloat16 is bad at
    image = cv2.convertScaleAbs(frame, alpha=0.3)[None]
    wanted = OpenVINOBackend().load(night, print)(image)[0]
    changed = [
        (OpenVINOBackend(bfloat16=True, exact=exact).load(night, print)(image)[0] != wanted).mean()
        for exact in (0, 6)
    ]
    assert changed[1] < changed[0]


@needs_bf16
def test_translators_stay_in_float32(tmp_path: Path) -> None:
    weights = load_weights(write_translator(tmp_path / 'translator.safetensors'))
    (wanted,) = open_backend('openvino', 'cpu').load(weights, print)(pictures(1))
    (got,) = open_backend('openvino-bf16', 'cpu').load(weights, print)(pictures(1))
    np.testing.assert_array_equal(got, wanted)


@needs_bf16
def test_a_network_that_cannot_be_divided_is_refused_with_its_name(tmp_path: Path) -> None:
    network = build('erf_pspnet', classes=11)
    metadata = WeightsMetadata(
        network='erf_pspnet', arch={'classes': 11}, taxonomy=CAMVID11.to_dict()
    )
    save_weights(tmp_path / 'erf.safetensors', network.state_dict(), metadata)
    erf = load_weights(tmp_path / 'erf.safetensors')
    assert OpenVINOBackend(bfloat16=True).load(erf, print)(pictures(1))[0].shape == (1, 48, 80)
    # amid a residual block
    run = OpenVINOBackend(bfloat16=True, exact=7).load(erf, print)
    with pytest.raises(BackendError, match="'erf.safetensors' cannot be divided.*'openvino'"):
        run(pictures(1))


def test_a_cpu_without_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, 'has_bfloat16', lambda: False)
    with pytest.raises(BackendError, match="no bfloat16; take 'openvino'"):
        open_backend('openvino-bf16', 'cpu')


@needs_bf16
def test_publish_writes_down_the_worst_folder(
    tmp_path: Path, weights: Weights, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / 'plain', tmp_path / 'noise']
    for folder, image in zip(folders, (np.full((90, 160, 3), 90, np.uint8), pictures(1)[0])):
        folder.mkdir()
        cv2.imwrite(str(folder / 'a.png'), image)
    flags = ['publish', str(weights.path), '--name', 'mine', '--models', str(tmp_path / 'models')]
    assert main([*flags, '--bf16', *map(str, folders)]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if 'bfloat16 keeps' in line]
    shares = [float(line.split('keeps ')[1].split('%')[0]) / 100 for line in told]
    assert len(shares) == 2
    written = load_weights(tmp_path / 'models' / 'mine.safetensors').metadata.bfloat16
    assert written == pytest.approx(min(shares), abs=1e-4)
    assert main(flags) == 0
    assert load_weights(tmp_path / 'models' / 'mine.safetensors').metadata.bfloat16 == 0


def test_rounded_weights_are_the_same_network(tmp_path: Path) -> None:
    """With scales of its own in each channel, negative ones and a zero among them."""
    network = build('lite_segmenter', classes=11, variant='tiny', width=32, fine_width=16)
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, -1.5, 1.5), (module.bias, -0.5, 0.5),
                (module.running_mean, -0.3, 0.3), (module.running_var, 0.1, 1.0),
            ):  # fmt: skip
                tensor.data.uniform_(low, high, generator=generator)
            module.weight.data[0] = 0.0
    metadata = WeightsMetadata(
        network='lite_segmenter', taxonomy=CAMVID11.to_dict(),
        arch={'classes': 11, 'variant': 'tiny', 'width': 32, 'fine_width': 16},
    )  # fmt: skip
    save_weights(tmp_path / 'a.safetensors', network.state_dict(), metadata)
    weights = load_weights(tmp_path / 'a.safetensors')
    save_weights(tmp_path / 'b.safetensors', round_weights(weights, 6), metadata)
    rounded = load_weights(tmp_path / 'b.safetensors')
    images = pictures(4)
    exact = OpenVINOBackend().load(weights, print)(images)[0]
    assert (OpenVINOBackend().load(rounded, print)(images)[0] == exact).mean() > 0.97


def test_every_folded_kernel_behind_the_first_is_exact_in_bfloat16(weights: Weights) -> None:
    network = build_from(dataclasses.replace(weights, tensors=round_weights(weights, 6)))
    count = 0
    for module in network.modules():
        children = list(module) if isinstance(module, torch.nn.Sequential) else []
        for conv, norm in itertools.pairwise(children):
            if isinstance(conv, torch.nn.Conv2d) and isinstance(norm, torch.nn.BatchNorm2d):
                folded = torch.nn.utils.fuse_conv_bn_eval(conv, norm).weight
                count += 1
                # the runtime rounds to the nearest: float32's last bit does not matter
                error = (folded.bfloat16().float() - folded).abs().max()
                assert (error <= 1e-6 * folded.abs().max()) == (count > 6), count
    assert count > 20


def test_weights_whose_layers_cannot_be_followed_are_refused_with_their_name(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Branching(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.mean() > 0 else -x

    monkeypatch.setattr(average, 'build_from', lambda _: Branching())
    with pytest.raises(WeightsError, match="'.*day.safetensors'.*cannot be followed"):
        round_weights(weights, 6)


def test_publish_wants_a_frame(tmp_path: Path, weights: Weights) -> None:
    flags = ['publish', str(weights.path), '--name', 'mine', '--models', str(tmp_path / 'models')]
    assert main([*flags, '--bf16', str(tmp_path), '--frames', '0']) == 2


def test_shipped_weights_allow_it() -> None:
    """What ``auto`` goes by; test_backends.py holds them to it on real frames."""
    for name in ('day', 'night'):
        assert load_weights(models_dir() / f'{name}.safetensors').metadata.bfloat16 >= 0.995


def test_the_command_line_knows_every_backend() -> None:
    hints = get_type_hints(PipelineOptions)
    assert set(get_args(hints['backend'])) == {'auto', *BACKENDS}
