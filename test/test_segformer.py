# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""SegFormer: what transformers computes from a checkpoint, our network computes as well."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_weights import write_illumination

from nightseg_ros.cli.main import main
from nightseg_ros.networks import build
from nightseg_ros.networks.segformer_checkpoint import read_segformer
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig
from nightseg_ros.perception.result import Want
from nightseg_ros.taxonomy import CITYSCAPES19
from nightseg_ros.weights import WeightsError, load_weights


@pytest.fixture(scope='module')
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    """Return a checkpoint folder that transformers wrote, and its network."""
    transformers = pytest.importorskip('transformers', reason='compares with transformers')
    config = transformers.SegformerConfig(
        depths=[1, 2, 1, 1], hidden_sizes=[8, 16, 24, 32], num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=32, id2label=dict(enumerate(CITYSCAPES19.classes)),
        label2id={name: index for index, name in enumerate(CITYSCAPES19.classes)},
    )  # fmt: skip
    torch.manual_seed(0)
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    for parameter in network.parameters():
        parameter.data.normal_(0, 0.3)
    network.decode_head.batch_norm.running_mean.normal_()
    folder = tmp_path_factory.mktemp('segformer') / 'tiny'
    network.save_pretrained(folder)
    (folder / 'preprocessor_config.json').write_text(
        json.dumps({'image_mean': [0.4, 0.5, 0.6], 'image_std': [0.2, 0.25, 0.3]})
    )
    return folder, network


@pytest.mark.parametrize('size', [(64, 96), (96, 160), (32, 32)])
def test_same_logits_as_transformers(
    reference: tuple[Path, torch.nn.Module], size: tuple[int, int]
) -> None:
    folder, theirs = reference
    checkpoint = read_segformer(folder)
    network = build('segformer', **checkpoint.arch).eval()
    network.load_state_dict(checkpoint.tensors)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = theirs(pixel_values=x).logits
        got = network(x)
    assert got.shape == (2, 19, size[0] // network.stride, size[1] // network.stride)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_imported_weights_run_in_the_pipeline(
    reference: tuple[Path, torch.nn.Module], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'segformer.safetensors'
    arguments = ['segformer', str(reference[0]), '--taxonomy', 'cityscapes19', '--out', str(out)]
    assert main(['import', *arguments, '--long-side', '160', '--license', 'ours']) == 0
    assert 'SHA-256' in capsys.readouterr().out
    metadata = load_weights(out).metadata
    assert metadata.mean == (0.4, 0.5, 0.6) and metadata.std == (0.2, 0.25, 0.3)
    assert (metadata.license, metadata.long_side) == ('ours', 160)
    light = write_illumination(tmp_path / 'illumination.safetensors')
    image = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    labels = {}
    for backend in ('torch', 'onnxruntime'):
        weights = WeightsConfig(day=str(out), night='', illumination=str(light))
        config = PipelineConfig(route='day', weights=weights, backend=backend, device='cpu')
        (result,) = Pipeline.load(config).process([Frame(image=image)], Want(labels=True))
        labels[backend] = result.labels
        assert result.labels is not None and result.labels.shape == (90, 160)
    assert (labels['torch'] == labels['onnxruntime']).mean() >= 0.995


def damaged(folder: Path, copy: Path, **changes: object) -> Path:
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    config = json.loads((copy / 'config.json').read_text())
    (copy / 'config.json').write_text(json.dumps({**config, **changes}))
    return copy


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'model_type': 'unet'}, "a 'unet', not a segformer"),
        ({'hidden_act': 'relu'}, 'hidden_act must be gelu'),
        ({'depths': [1, 1, 1, 1]}, 'do not fit'),
        ({'id2label': {str(i): f'thing {i}' for i in range(19)}}, "'thing 0'.*'road'"),
    ],
)
def test_checkpoints_that_are_something_else_are_refused(
    reference: tuple[Path, torch.nn.Module], tmp_path: Path,
    capsys: pytest.CaptureFixture[str], changes: dict[str, object], message: str,
) -> None:  # fmt: skip
    folder = damaged(reference[0], tmp_path / 'copy', **changes)
    out = tmp_path / 'out.safetensors'
    arguments = ['segformer', str(folder), '--taxonomy', 'cityscapes19', '--out', str(out)]
    assert main(['import', *arguments]) == 2
    import re

    assert re.search(message, capsys.readouterr().err)
    assert not out.exists()


def test_pickles_and_names_are_not_read(
    reference: tuple[Path, torch.nn.Module], tmp_path: Path
) -> None:
    folder = damaged(reference[0], tmp_path / 'copy')
    (folder / 'model.safetensors').rename(folder / 'pytorch_model.bin')
    with pytest.raises(WeightsError, match='pickles are not read'):
        read_segformer(folder)
    (folder / 'model.safetensors').write_bytes(b'no tensors')
    with pytest.raises(WeightsError, match='cannot be read'):
        read_segformer(folder)
    with pytest.raises(WeightsError, match='fetch the checkpoint first'):
        read_segformer(Path('someone/segformer-b0'))
    (folder / 'config.json').write_text('{')
    with pytest.raises(WeightsError, match='no JSON'):
        read_segformer(folder)


def test_published_parameter_count() -> None:
    count = sum(p.numel() for p in build('segformer', classes=19).parameters())
    assert count / 1e6 == pytest.approx(3.72, rel=0.01)  # B0 with 19 classes


@pytest.mark.parametrize(
    ('taxonomy', 'message'), [('ade150', "no taxonomy 'ade150'"), ('camvid11', '19 classes')]
)
def test_a_taxonomy_that_does_not_fit_is_refused(
    reference: tuple[Path, torch.nn.Module], tmp_path: Path,
    capsys: pytest.CaptureFixture[str], taxonomy: str, message: str,
) -> None:  # fmt: skip
    arguments = ['segformer', str(reference[0]), '--taxonomy', taxonomy]
    assert main(['import', *arguments, '--out', str(tmp_path / 'out.safetensors')]) == 2
    assert message in capsys.readouterr().err
