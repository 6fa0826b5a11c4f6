# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Networks of other libraries as weights: the labels of their own pipelines; clear refusals."""

import json
from pathlib import Path
import re
from typing import Any

import cv2
from nightseg_ros.cli.main import main
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig
from nightseg_ros.runtime.backends import choose, open_backend
from nightseg_ros.simulation.drive import render
from nightseg_ros.simulation.street import Street
from nightseg_ros.weights import load_weights, Weights, WeightsError
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

pytestmark = pytest.mark.usefixtures('module_cache')
SIZE = (192, 320)
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
CITY = {
    'road': 'road', 'sidewalk': 'pavement', 'building': 'building', 'wall': 'fence',
    'truck': 'car', 'car': 'car',
}  # fmt: skip


@pytest.fixture(scope='module')
def street():
    image = render(Street(1, 'demo'), 9.0, 'night', seed=0).image
    return np.asarray(cv2.resize(image, SIZE[::-1]), np.uint8)


class Network(nn.Module):
    """Pools over the whole picture, and gives logits as large as the picture."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 4, 1), nn.BatchNorm2d(32), nn.Hardswish())
        self.scale = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 32, 1), nn.Sigmoid())
        self.classify = nn.Conv2d(32, classes, 1)
        nn.init.normal_(self.classify.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x)
        y = self.classify(y * self.scale(y))
        return F.interpolate(y, size=x.shape[2:], mode='bilinear')


class ChannelsLast(nn.Module):
    """As TensorFlow's exporters lay it out: [B, H, W, 3] in, a softmax [B, h, w, C] or ids out."""

    def __init__(self, network: nn.Module, ids: bool) -> None:
        super().__init__()
        self.network, self.ids = network, ids

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.network(x.permute(0, 3, 1, 2))
        return y.argmax(1) if self.ids else y.softmax(1).permute(0, 2, 3, 1)


def write_onnx(
    path: Path, network: nn.Module, *, last: bool = False, fixed: bool = False, opset: int = 18,
    names: tuple[str, str] = ('x', 'y'),
) -> Path:  # fmt: skip
    example = torch.zeros(1, *SIZE, 3) if last else torch.zeros(1, 3, *SIZE)
    axes = {0: 'b', 1: 'h', 2: 'w'} if last else {0: 'b', 2: 'h', 3: 'w'}
    torch.onnx.export(
        network.eval(), (example,), str(path), dynamo=False, opset_version=opset,
        input_names=[names[0]], output_names=[names[1]],
        dynamic_axes=None if fixed else {names[0]: axes},
    )  # fmt: skip
    return path


def normalised(image: np.ndarray) -> torch.Tensor:
    scaled = (image.astype(np.float32) / 255 - MEAN) / STD
    return torch.from_numpy(scaled).permute(2, 0, 1)[None]


def command_of(folder: Path, network: nn.Module, labels: Any, **how: Any) -> list[str]:
    """Write a network and the names of its ids; return the command that imports it."""
    model, file = write_onnx(folder / 'model.onnx', network, **how), folder / 'labels.yaml'
    file.write_text(json.dumps(labels))  # JSON is YAML
    return ['import', 'onnx', str(model), '--labels', str(file)]


def imported(folder: Path, network: nn.Module, labels: Any, *flags: str, **how: Any) -> Weights:
    out = folder / 'other.safetensors'
    command = command_of(folder, network, labels, **how)
    assert main([*command, *flags, '--out', str(out)]) == 0
    return load_weights(out)


CASES = {
    'dynamic logits, old opset': ({'opset': 13}, 'logits from pictures of any size'),
    'fixed NHWC softmax': ({'last': True, 'fixed': True}, 'probabilities from pictures of 192'),
    'names of our own': ({'names': ('images', 'labels')}, 'logits from pictures of any size'),
    'dynamic NHWC ids': ({'last': True}, 'ids from pictures of any size, channels last'),
}


@pytest.mark.parametrize('case', CASES)
@torch.inference_mode()
def test_labels_are_those_of_the_librarys_own_pipeline(case, street, tmp_path, capsys):
    how, told = CASES[case]
    network = Network(len(CITY)).eval()
    wrapped = ChannelsLast(network, 'ids' in case) if how.get('last') else network
    weights = imported(tmp_path, wrapped, CITY, **how)
    assert told in capsys.readouterr().out
    logits = network(normalised(street))
    names = list(CITY.values())
    order = weights.metadata.taxonomy['classes']
    wanted = np.array([order.index(name) for name in names])[logits.argmax(1)[0]]
    assert len(np.unique(wanted)) > 3
    for name in ('openvino', 'onnxruntime'):
        # two at once, though the model may take one
        batch = np.stack([street, street[:, ::-1]])
        got, confidence, reliability = open_backend(name, 'cpu').load(weights, print)(batch)
        assert (got[0] == wanted[::2, ::2]).mean() >= 0.995
        assert got.shape == (2, SIZE[0] // 2, SIZE[1] // 2) and reliability.shape == (2,)
        if 'ids' in case:
            assert (confidence == 255).all()
        else:
            sure = logits.softmax(1).amax(1)[0, ::2, ::2].numpy()
            assert np.abs(confidence[0] / 255 - sure).max() < 0.01
            assert abs(reliability[0] - sure.mean()) < 0.01


@torch.inference_mode()
def test_segformer_by_its_own_library(street, tmp_path, capsys):
    import transformers

    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[16, 16, 32, 32], num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=32, id2label=dict(enumerate(CITY)),
    )  # fmt: skip
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    nn.init.normal_(network.decode_head.classifier.weight)
    network.save_pretrained(tmp_path / 'segformer')
    processor = transformers.SegformerImageProcessor(size={'height': SIZE[0], 'width': SIZE[1]})
    processor.save_pretrained(tmp_path / 'segformer')
    file = tmp_path / 'other.safetensors'
    # its head would be random
    network.segformer.save_pretrained(tmp_path / 'encoder')
    assert main(['import', 'segformer', str(tmp_path / 'encoder'), '--out', str(file)]) == 2
    assert 'not an encoder' in capsys.readouterr().err
    (tmp_path / 'encoder' / 'config.json').write_text('{"model_type": "vit"}')
    assert main(['import', 'segformer', str(tmp_path / 'encoder'), '--out', str(file)]) == 2
    assert 'holds a vit' in capsys.readouterr().err and not file.exists()
    assert main(['import', 'segformer', str(tmp_path / 'segformer'), '--out', str(file)]) == 0
    weights = load_weights(file)
    assert weights.metadata.taxonomy['classes'] == list(CITY)
    assert weights.metadata.long_side == SIZE[1]
    assert 'ImageNet' not in capsys.readouterr().out
    # another size than the one of the export
    for image in (street, street[:128, :256]):
        pixels = normalised(image)
        found = network(pixels)
        half = (image.shape[0] // 2, image.shape[1] // 2)
        [wanted] = processor.post_process_semantic_segmentation(found, target_sizes=[half])
        assert len(wanted.unique()) > 1
        for name in ('openvino', 'onnxruntime'):
            got, *_ = open_backend(name, 'cpu').load(weights, print)(image[None])
            assert (got[0] == wanted.numpy()).mean() >= 0.995
    (tmp_path / 'segformer' / 'preprocessor_config.json').unlink()
    assert main(['import', 'segformer', str(tmp_path / 'segformer'), '--out', str(file)]) == 0
    assert 'ImageNet' in capsys.readouterr().out


class Coarse(nn.Module):
    """Ids 0 and 8 in cells of four pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (F.avg_pool2d(x, 4).mean(1, keepdim=True) > 0).long() * 8


def test_between_two_ids_lies_no_third_one(street, tmp_path):
    weights = imported(tmp_path, Coarse(), {'classes': list('abcdefghi')})
    found, *_ = open_backend('onnxruntime', 'cpu').load(weights, print)(street[None])
    assert np.unique(found).tolist() == [0, 8]


@torch.inference_mode()
def test_a_generator_and_a_segmenter_serve_the_routes(street, tmp_path):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 64, 5, 1, 2), nn.ReLU(), nn.Conv2d(64, 3, 1), nn.Tanh()
    generator = nn.Sequential(*layers)
    # from black to white
    nn.init.normal_(generator[2].weight)
    model = write_onnx(tmp_path / 'day.onnx', generator, fixed=True)
    day = tmp_path / 'generator.safetensors'
    half = ['0.5', '0.5', '0.5']
    command = ['import', 'onnx', str(model), '--out', str(day), '--license', 'ours']
    assert main([*command, '--mean', *half, '--std', *half]) == 0
    x = torch.from_numpy(street).permute(2, 0, 1)[None] / 127.5 - 1
    wanted = ((generator(x)[0].permute(1, 2, 0) + 1) * 127.5).round().numpy()
    for name in ('openvino', 'onnxruntime'):
        (got,) = open_backend(name, 'cpu').load(load_weights(day), print)(street[None])
        assert np.abs(got[0] - wanted).max() <= 1
    labels = {'classes': list(CITY), 'name': 'city'}
    night = imported(tmp_path, Network(len(CITY)), labels, '--size', *map(str, SIZE)).path
    for route in ('night', 'translate'):
        weights = WeightsConfig(day=str(night), night=str(night), translator=str(day))
        pipeline = Pipeline.load(PipelineConfig(route=route, backend='openvino', weights=weights))
        [result] = pipeline.process([Frame(image=cv2.resize(street, (1280, 720)))])
        assert result.labels.shape == (720, 1280) and pipeline.taxonomy.name == 'city'


def test_torch_cannot_run_it_and_says_so(tmp_path, monkeypatch):
    weights = imported(tmp_path, Network(2), {'classes': ['a', 'b']})
    with pytest.raises(WeightsError, match='imported.*onnxruntime'):
        open_backend('torch', 'cpu').load(weights, print)
    monkeypatch.setattr('nightseg_ros.runtime.backends.has_gpu', lambda: True)
    assert choose([weights], 'auto', 'auto')[1] == 'cpu'
    assert open_backend('auto', 'auto', weights=[weights]).device == 'cpu'


@pytest.mark.parametrize(
    ('labels', 'flags', 'words'),
    [
        ({'classes': ['a', 'b', 'c']}, [], 'gives .*; logits of 3 classes'),
        ({'x': 'road', 'y': 'moon'}, [], "has no class 'moon'"),
        ({'classes': {'0': 'a', '1': 'b'}}, [], "'classes' is a list of names"),
        ({'classes': ['a', 'b']}, ['--size', '100', '100'], r'of \[192, 320\] only'),
        ({'classes': ['a', 'b']}, [], 'ids are whole numbers'),
        ({'classes': ['a', 'b']}, [], 'ids from 0 to 8; --labels names 0 to 1'),
        ({'classes': ['a', 'b']}, ['--size', '-5', '7'], r'got \(-5, 7\)'),
        ({'classes': ['a', 'b']}, ['--mean', 'nan', '0', '0'], 'finite.*nan'),
        ({'classes': ['a', 'b']}, ['--output-range', '1', '1'], 'black is not white'),
    ],
)
def test_what_does_not_fit_is_named(labels, flags, words, tmp_path, capsys):
    network = nn.Conv2d(3, 1, 1) if 'whole' in words else Network(2)
    network = Coarse() if 'from 0' in words else network
    command = [*command_of(tmp_path, network, labels, fixed=True), *flags, '--out']
    out, model = tmp_path / 'other.safetensors', tmp_path / 'model.onnx'
    assert main([*command, str(out)]) == 2 and not out.exists()
    assert re.search(words, capsys.readouterr().err)
    for own in (model, tmp_path / 'labels.yaml'):
        before = own.read_bytes()
        assert main([*command, str(own)]) == 2
        assert 'is the input' in capsys.readouterr().err and own.read_bytes() == before
    model.write_bytes(b'no model')
    assert main([*command, str(out)]) == 2 and 'is no ONNX model' in capsys.readouterr().err
