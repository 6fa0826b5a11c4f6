# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Every backend gives torch's answer, and bfloat16 is taken where it may be."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
import itertools
from pathlib import Path
import subprocess
import sys
from typing import Any, get_args, get_type_hints

import cv2
from nightseg_ros.cli.main import main
from nightseg_ros.cli.options import PipelineOptions
from nightseg_ros.data.sample import read_image
from nightseg_ros.files import models_dir
from nightseg_ros.networks import build, build_from
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.illumination import IlluminationEstimator
from nightseg_ros.perception.pipeline import load_part, Pipeline, PipelineConfig, settled
from nightseg_ros.runtime import backends
from nightseg_ros.runtime.backend import BackendError, BACKENDS, ON_CPU, out_of_memory
from nightseg_ros.runtime.backends import (
    choose,
    has_bfloat16,
    OnnxBackend,
    open_backend,
    OpenVINOBackend,
)
from nightseg_ros.runtime.export import embed_graph
from nightseg_ros.runtime.pixels import fit, HostPixels
from nightseg_ros.simulation.drive import Drive
from nightseg_ros.training import average
from nightseg_ros.training.average import round_weights
from nightseg_ros.weights import load_weights, WeightsError
import numpy as np
import pytest
from tiny_data import imwrite
from tiny_weights import (
    weights_config,
    write_fast_generator,
    write_network,
    write_segmenter,
    write_translator,
)
import torch

pytestmark = pytest.mark.usefixtures('module_cache')
#: The project's real frames, which no package holds.
REAL = Path(__file__).parent.parent.parent / 'shared' / 'data'
OTHERS = [name for name in ON_CPU if name != 'torch']
needs_bf16 = pytest.mark.skipif(not has_bfloat16(), reason='this CPU has no bfloat16')
CPU = Path('/proc/cpuinfo')
simulates = pytest.mark.skipif(
    not CPU.is_file() or 'avx512f' not in CPU.read_text(), reason='no AVX-512 to simulate it with'
)
SIZE = (96, 160)
BF16 = pytest.param('openvino-bf16', marks=needs_bf16)
NETWORKS = {
    'erf_pspnet': partial(write_network, name='erf_pspnet', classes=11),
    'generator': write_translator,
    'residual generator': partial(write_translator, residual=True),
    'fast generator': write_fast_generator,
}


def pictures(count: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def frames() -> list[np.ndarray]:
    """Real frames by day, dusk and night where the project's data lie; else rendered ones."""
    if not REAL.is_dir():
        drive = Drive(seed=5, size=(480, 288), seconds=60)
        return [drive.frame(i).image for i in (10, 450)]
    folders = ('camvid/day_val/images', 'camvid/dusk/images', 'unlabelled/night')
    return [read_image(sorted((REAL / folder).glob('*.jpg'))[3]) for folder in folders]


@pytest.mark.parametrize('shipped', ['day', 'night'])
@pytest.mark.parametrize('name', [*OTHERS, BF16])
def test_labels_agree_with_torch(name, shipped):
    """Issue: ≥ 99.5 % of the pixels of real frames; batches and sizes from one export."""
    weights = load_weights(models_dir() / f'{shipped}.safetensors')
    assert weights.metadata.bfloat16 >= 0.995, 'that is what auto goes by'
    reference = open_backend('torch', 'cpu').load(weights, print)
    network = open_backend(name, 'cpu').load(weights, print)
    pixels, pictures = HostPixels(), frames()
    batches = []
    for image in pictures:
        size = fit(image.shape[0], image.shape[1], weights.metadata.long_side)
        batches.append(pixels.stack([pixels.shrink(image, 'rgb', size)]))
    small = [cv2.resize(image, (320, 192)) for image in pictures[:2]]
    shares = []
    for batch in (*batches, np.stack(small)):
        labels, confidence, reliability = network(batch)
        wanted, sure, reliable = reference(batch)
        assert labels.dtype == confidence.dtype == np.uint8
        assert labels.shape == (len(batch), batch.shape[1] // 2, batch.shape[2] // 2)
        assert np.abs(confidence.astype(int) - sure).mean() < 2
        assert name == 'openvino-bf16' or reliability == pytest.approx(reliable, abs=2e-3)
        shares.append(float((labels == wanted).mean()))
    assert np.mean(shares) >= 0.995, shares


@pytest.mark.parametrize('name', ['openvino', 'onnxruntime'])
def test_weights_that_hold_their_graph_run_without_torch(name, tmp_path, cache):
    """Torch is two seconds and some gigabytes that a vehicle does not need."""
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


@pytest.mark.parametrize('network', NETWORKS)
@pytest.mark.parametrize('name', OTHERS)
def test_networks_agree_with_torch_at_any_size(name, network, tmp_path):
    weights = load_weights(NETWORKS[network](tmp_path / 'network.safetensors'))
    reference, run = (open_backend(one, 'cpu').load(weights, print) for one in ('torch', name))
    for size in ((96, 160), (160, 96)):
        images = pictures(1, size)
        wanted, got = reference(images)[0], run(images)[0]
        assert got.dtype == np.uint8 and got.shape == wanted.shape
        if weights.metadata.task == 'segment':
            assert (got == wanted).mean() > 0.995
        else:
            assert got.shape == images.shape and np.abs(got.astype(int) - wanted).max() <= 2


def test_a_provider_that_does_not_start_is_no_reason_to_run_on_the_cpu(tmp_path):
    weights = load_weights(write_network(tmp_path / 'w.safetensors', 'erf_pspnet', classes=11))
    backend = OnnxBackend('onnxruntime', 'cuda')
    with pytest.raises(BackendError, match='CUDAExecutionProvider did not start'):
        backend.load(weights, print)


@pytest.mark.parametrize(
    ('text', 'memory'),
    [
        ('CUDA error: out of memory', True),
        ('CUDA failure 2: out of memory ; GPU=0 ; expr=cudaStreamCreateWithFlags', True),
        ('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`', True),
        ('Failed to allocate memory for requested buffer of size 1024', True),
        ('CUDA error: an illegal memory access was encountered', False),
    ],
)
def test_a_lack_of_memory_is_known_by_its_text(text, memory):
    assert out_of_memory(RuntimeError(text)) is memory


def by_day(backend: Any, part: Any, files: Any) -> Pipeline:
    """Return a pipeline of that segmenter, with the illumination of the files."""
    light = IlluminationEstimator(load_weights(files.illumination))
    return Pipeline(PipelineConfig(route='day'), backend, {'day': part}, light)


@pytest.mark.parametrize(('room', 'most'), [(0, None), (2, 2), (8, None)])
def test_no_memory_for_a_large_batch_makes_batches_smaller(room, most, tmp_path):
    files = weights_config(tmp_path)
    backend = open_backend('torch', 'cpu')
    backend.batches = (1, 2, 4, 8)
    part = load_part(load_weights(files.day), backend, print, 'segment')

    def run(images: Any) -> Any:
        if len(images) > room:
            raise MemoryError
        return part.run(images)

    pipeline = by_day(backend, replace(part, run=run), files)
    with nullcontext() if room else pytest.raises(MemoryError):
        pipeline.warm_up([(90, 160)])
    assert pipeline.most == most


@pytest.mark.parametrize('tie', [False, True])
@pytest.mark.parametrize('network', ['lite_segmenter', 'erf_pspnet'])
def test_what_openvino_computes_in_another_order_is_the_same(network, tie, tmp_path, monkeypatch):
    arch = {} if network == 'erf_pspnet' else {'variant': 'tiny', 'width': 16, 'fine_width': 16}
    weights = load_weights(write_network(tmp_path / 'w.safetensors', network, classes=11, **arch))
    weights.tensors['classify.weight'][:] *= 0 if tie else 50
    weights.tensors['classify.bias'][:] = 0
    found = []
    for way in (backends._rearrange, lambda model, argmax: None):
        monkeypatch.setattr(backends, '_rearrange', way)
        monkeypatch.setenv('NIGHTSEG_CACHE', str(tmp_path / f'{len(found)}'))
        found.append(OpenVINOBackend().load(weights, print)(pictures(2)))
    for got, wanted in zip(*found):
        np.testing.assert_array_equal(got, wanted)
    assert found[0][0].max() == 0 if tie else len(np.unique(found[0][0])) > 1


@pytest.mark.parametrize('name', ['torch', *OTHERS, BF16])
def test_a_network_without_numbers_is_withheld(name, tmp_path):
    files = weights_config(tmp_path)
    weights = load_weights(files.day)
    weights.tensors['classify.bias'][:] = float('nan')
    backend = open_backend(name, 'cpu')
    spoilt = replace(weights, sha256='0' * 64)
    pipeline = by_day(backend, load_part(spoilt, backend, print, 'segment'), files)
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
def test_what_is_not_there_is_named(name, device, words):
    with pytest.raises(BackendError, match=words):
        open_backend(name, device)


@pytest.mark.parametrize(
    ('name', 'device', 'package'),
    [
        ('onnxruntime', 'cpu', 'onnxruntime'), ('onnxruntime', 'cuda', 'onnxruntime-gpu'),
        ('tensorrt', 'auto', 'onnxruntime-gpu'), ('auto', 'cuda', r"'nightseg\[torch\]'"),
    ],
)  # fmt: skip
def test_the_light_set_up_names_the_package_of_a_backend(name, device, package, monkeypatch):
    light = {name: name.startswith('openvino') for name in backends.available_backends()}
    monkeypatch.setattr(backends, 'available_backends', lambda: light)
    with pytest.raises(BackendError, match=f'is not installed: pip install {package}$'):
        open_backend(name, device)


# -- bfloat16 behind the first layers -------------------------------------------------------


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return load_weights(write_segmenter(tmp_path_factory.mktemp('weights') / 'day.safetensors'))


@needs_bf16
def test_segmenters_are_not_float32_and_translators_are(weights, tmp_path):
    """Several batches and sizes; each picture has the labels that it has alone."""
    exact, coarse = OpenVINOBackend(), OpenVINOBackend(bfloat16=True)
    plain, run = exact.load(weights, print), coarse.load(weights, print)
    for size in (SIZE, (64, 96)):
        images = pictures(3, size)
        wanted, got = plain(images), run(images)
        assert [(a.shape, a.dtype) for a in got] == [(a.shape, a.dtype) for a in wanted]
        assert (got[1] != wanted[1]).any(), 'that was float32'
        assert (got[0] == wanted[0]).mean() > 0.9
        for index in (2, 0):
            np.testing.assert_array_equal(run(images[index, None])[0][0], got[0][index])
    translator = load_weights(write_translator(tmp_path / 'translator.safetensors'))
    [wanted] = exact.load(translator, print)(pictures(1))
    [got] = coarse.load(translator, print)(pictures(1))
    np.testing.assert_array_equal(got, wanted)


def test_a_signal_is_heard_after_backends_that_came_and_went():
    """In another order than they came: each of OpenVINO's cores lends its thread a stack."""
    code = """
import os, signal
import numpy as np
from nightseg_ros.runtime.backends import OpenVINOBackend
from nightseg_ros.weights import load_weights
weights, image = load_weights('rendered_day'), np.zeros((1, 96, 160, 3), np.uint8)
signal.signal(signal.SIGUSR1, lambda *_: print('heard'))
backends = [OpenVINOBackend(), OpenVINOBackend()]
for backend in backends:
    backend.load(weights, print)(image)
del backend
while backends:
    del backends[0]
os.kill(os.getpid(), signal.SIGUSR1)
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, 'heard\n'), done.stderr


@needs_bf16
def test_more_layers_in_float32_change_fewer_labels():
    """On a rendered night, as dark as the frames that bfloat16 is bad at."""
    night = load_weights(models_dir() / 'night.safetensors')
    frame = Drive(seed=5, size=(480, 288), seconds=60).frame(450).image
    image = cv2.convertScaleAbs(frame, alpha=0.3)[None]
    wanted = OpenVINOBackend().load(night, print)(image)[0]
    changed = [
        (OpenVINOBackend(bfloat16=True, exact=exact).load(night, print)(image)[0] != wanted).mean()
        for exact in (0, 6)
    ]
    assert changed[1] < changed[0]


@needs_bf16
def test_a_network_that_cannot_be_divided_is_refused_with_its_name(tmp_path):
    erf = load_weights(write_network(tmp_path / 'erf.safetensors', 'erf_pspnet', classes=11))
    assert OpenVINOBackend(bfloat16=True).load(erf, print)(pictures(1))[0].shape == (1, 48, 80)
    # amid a residual block
    run = OpenVINOBackend(bfloat16=True, exact=7).load(erf, print)
    with pytest.raises(BackendError, match="'erf.safetensors' cannot be divided.*'openvino'"):
        run(pictures(1))


def test_a_cpu_without_it_says_so(monkeypatch):
    monkeypatch.setattr(backends, 'has_bfloat16', lambda: False)
    with pytest.raises(BackendError, match="no bfloat16; take 'openvino'"):
        open_backend('openvino-bf16', 'cpu')
    hints = get_type_hints(PipelineOptions)
    assert set(get_args(hints['backend'])) == {'auto', *BACKENDS}, 'the command line knows them'


@simulates
def test_publish_writes_down_the_worst_folder(tmp_path, weights, capsys):
    folders = [tmp_path / 'plain', tmp_path / 'noise']
    for folder, image in zip(folders, (np.full((90, 160, 3), 90, np.uint8), pictures(1)[0])):
        imwrite(folder / 'a.png', image)
    flags = ['publish', str(weights.path), '--name', 'mine', '--models', str(tmp_path / 'models')]
    assert main([*flags, '--bf16', *map(str, folders)]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if 'bfloat16 keeps' in line]
    shares = [float(line.split('keeps ')[1].split('%')[0]) / 100 for line in told]
    assert len(shares) == 2
    written = load_weights(tmp_path / 'models' / 'mine.safetensors').metadata.bfloat16
    assert written == pytest.approx(min(shares), abs=1e-4)
    assert main(flags) == 0
    assert load_weights(tmp_path / 'models' / 'mine.safetensors').metadata.bfloat16 == 0
    assert main([*flags, '--bf16', str(folders[0]), '--frames', '0']) == 2


def test_rounded_weights_are_the_same_network(tmp_path):
    """With scales of its own in each channel, negative ones and a zero among them."""
    arch = {'classes': 11, 'variant': 'tiny', 'width': 32, 'fine_width': 16}
    network = build('lite_segmenter', **arch)
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, -1.5, 1.5), (module.bias, -0.5, 0.5),
                (module.running_mean, -0.3, 0.3), (module.running_var, 0.1, 1.0),
            ):  # fmt: skip
                tensor.data.uniform_(low, high, generator=generator)
            module.weight.data[0] = 0.0
    masks, tensors = [], network.state_dict()
    for name in 'ab':
        path = tmp_path / f'{name}.safetensors'
        weights = load_weights(write_network(path, 'lite_segmenter', tensors, **arch))
        masks.append(OpenVINOBackend().load(weights, print)(pictures(4))[0])
        tensors = round_weights(weights, 6)
    assert (masks[0] == masks[1]).mean() > 0.97


def test_every_folded_kernel_behind_the_first_is_exact_in_bfloat16(weights):
    network = build_from(replace(weights, tensors=round_weights(weights, 6)))
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


def test_weights_whose_layers_cannot_be_followed_are_refused_with_their_name(weights, monkeypatch):
    class Branching(torch.nn.Module):
        """Takes a path that depends on its input."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.mean() > 0 else -x

    monkeypatch.setattr(average, 'build_from', lambda _: Branching())
    with pytest.raises(WeightsError, match="'.*day.safetensors'.*cannot be followed"):
        round_weights(weights, 6)


# -- backend:=auto ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('able', 'shares', 'missing', 'wanted'),
    [
        (True, (0.995, 0.999), (), 'openvino-bf16'),
        (True, (0.995, 0.99), (), 'openvino'),
        (True, (0.0, 0.0), (), 'openvino'),
        (False, (1.0, 1.0), (), 'openvino'),
        (True, (1.0, 1.0), ('openvino',), 'onnxruntime'),
        (True, (1.0, 1.0), ('openvino', 'onnxruntime'), 'torch'),
    ],
)
def test_auto_wants_all_weights_compared_for_bfloat16(
    able, shares, missing, wanted, weights, monkeypatch
):
    present = {name: name not in missing for name in backends.available_backends()}
    monkeypatch.setattr(backends, 'available_backends', lambda: present)
    monkeypatch.setattr(backends, 'has_bfloat16', lambda: able)
    both = [
        replace(weights, metadata=replace(weights.metadata, bfloat16=share)) for share in shares
    ]
    assert choose(both, 'auto', 'cpu') == (wanted, 'cpu')
    if wanted != 'torch':
        assert choose(both, 'onnxruntime', 'cpu') == ('onnxruntime', 'cpu'), 'as asked'


def test_auto_labels_frames_and_settles(tmp_path):
    config = PipelineConfig(weights=weights_config(tmp_path), device='cpu', route='night')
    pipeline = Pipeline.load(config)
    (result,) = pipeline.process([Frame(image=np.zeros((90, 160, 3), np.uint8))])
    assert result.labels.shape == (90, 160)
    assert settled(config).backend == pipeline.backend.name
