# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""AdaBN: statistics of other frames, everything else as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_data import silent, write_streets
from tiny_weights import write_segmenter, write_translator

from nightseg_ros.data.sample import read_image
from nightseg_ros.networks import build_from
from nightseg_ros.runtime.pixels import HostPixels, fit
from nightseg_ros.training.adabn import AdaBNConfig, adapt_norm
from nightseg_ros.weights import WeightsError, load_weights

STATISTICS = ('running_mean', 'running_var')


@pytest.fixture(scope='module')
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('frames') / 'streets'
    write_streets(root, count=3)
    return root / 'images'


def adapt(weights: Path, frames: Path, out: Path, **options: object) -> dict[str, torch.Tensor]:
    config = AdaBNConfig(weights=str(weights), data=(f'images:{frames}',), out=str(out), **options)
    return load_weights(adapt_norm(config, silent)).tensors


def test_only_statistics_change_and_they_are_those_of_the_frames(
    frames: Path, tmp_path: Path
) -> None:
    source = write_segmenter(tmp_path / 'source.safetensors')
    before = load_weights(source)
    after = adapt(source, frames, tmp_path / 'out.safetensors', batch=8)
    for name, tensor in before.tensors.items():
        assert torch.equal(tensor, after[name]) != name.endswith(STATISTICS), name
    # the first layer sees the frames themselves: its statistics can be computed by hand
    network = build_from(before)
    metadata, pixels = before.metadata, HostPixels()
    images = np.stack(
        [pixels.shrink(read_image(path), 'rgb', fit(64, 96, 160)) for path in frames.iterdir()]
    )
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (metadata.mean, metadata.std))
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std
    with torch.no_grad():
        features = network.encoder.stem[0](x)
    torch.testing.assert_close(
        after['encoder.stem.1.running_mean'], features.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        after['encoder.stem.1.running_var'], features.var(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5
    )


def test_frames_weigh_alike_whatever_their_batch(frames: Path, tmp_path: Path) -> None:
    source = write_segmenter(tmp_path / 'source.safetensors')
    key = 'encoder.stem.1.running_mean'
    whole = adapt(source, frames, tmp_path / 'whole.safetensors', batch=3)[key]
    # batches of 2 and 1 frames
    parts = adapt(source, frames, tmp_path / 'parts.safetensors', batch=2)[key]
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-5)


def test_blend_mixes_old_and_new(frames: Path, tmp_path: Path) -> None:
    source = write_segmenter(tmp_path / 'source.safetensors')
    old = load_weights(source).tensors
    new, half, none = (
        adapt(source, frames, tmp_path / f'{blend}.safetensors', blend=blend)
        for blend in (1.0, 0.5, 0.0)
    )
    for name in (name for name in old if name.endswith(STATISTICS)):
        torch.testing.assert_close(none[name], old[name])
        torch.testing.assert_close(half[name], (old[name] + new[name]) / 2)


def test_the_file_says_what_was_done(frames: Path, tmp_path: Path) -> None:
    source = write_segmenter(tmp_path / 'source.safetensors')
    adapt(source, frames, tmp_path / 'out.safetensors', blend=0.5)
    told = load_weights(tmp_path / 'out.safetensors').metadata.training['adabn']
    assert told['from'] == load_weights(source).sha256
    assert (told['frames'], told['blend']) == (3, 0.5)


def test_what_cannot_work_is_refused(frames: Path, tmp_path: Path) -> None:
    # instance norms have no statistics
    generator = write_translator(tmp_path / 'translator.safetensors')
    with pytest.raises(WeightsError, match='no BatchNorm'):
        adapt(generator, frames, tmp_path / 'out.safetensors')
    with pytest.raises(ValueError, match='blend is 0 to 1'):
        AdaBNConfig(weights='a', data=('b',), out='c', blend=2.0)
