# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""backend:=auto: measured once, remembered, and never by chance."""

from collections.abc import Callable, Iterator
import dataclasses
import json
import os

from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, settled
from nightseg_ros.runtime import backends
from nightseg_ros.runtime.backends import choose, measure
from nightseg_ros.weights import load_weights
import numpy as np
import pytest
from tiny_weights import weights_config, write_segmenter

SIZE = (96, 160)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('NIGHTSEG_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp('weights')
    return [load_weights(write_segmenter(folder / 'day.safetensors'))]


@pytest.fixture
def measured(monkeypatch):
    """Return the milliseconds that are measured, to be filled, and the sizes asked for."""
    ms: dict[str, float] = {}
    asked: list[tuple[int, int]] = []

    def fake(networks: dict[str, object], size: tuple[int, int]) -> dict[str, float]:
        asked.append(size)
        return {name: ms.get(name, 30.0) for name in networks}

    monkeypatch.setattr(backends, 'measure', fake)
    monkeypatch.setattr(backends.os, 'getloadavg', lambda: (0.0, 0.0, 0.0))
    for backend in (backends.OpenVINOBackend, backends.OnnxBackend):
        monkeypatch.setattr(backend, 'load', lambda self, weights, log: lambda images: ())
    return ms, asked


def clock_of(seconds: list[float]) -> Callable[[], float]:
    values: Iterator[float] = iter(np.cumsum(seconds))
    return lambda: float(next(values))


def test_the_least_time_of_turns_counts():
    calls: list[str] = []
    runs = {name: lambda image, name=name: (calls.append(name),) for name in 'ab'}
    # one start; then three runs of each: begin, end; and a look at the clock
    slow_a, slow_b = [0, 0.03] * 3, [0, 0.04, 0, 0.02, 0, 0.03]
    fast_a = [0, 0.02, 0, 0.01, 0, 0.02]
    busy = [0.0, *slow_a, *slow_b, 0, *fast_a, *slow_b, 2.0]
    assert measure(runs, SIZE, clock_of(busy)) == pytest.approx({'a': 10.0, 'b': 20.0})
    assert ''.join(calls) == 'ab' + 'aaabbb' * 2, 'one warm run each, then turns of three'


@pytest.mark.parametrize(
    ('onnxruntime', 'wanted', 'why', 'content'),
    [
        (25.0, 'openvino', 'the fastest', '{'),
        (19.0, 'openvino', 'no other is clearly faster', '[]'),
        (15.0, 'onnxruntime', 'the fastest', '{"x": {"backend": "a"}}'),
        (15.0, 'onnxruntime', 'the fastest', None),
    ],
)
def test_what_is_clearly_faster_is_taken_and_remembered(
    onnxruntime, wanted, why, content, cache, weights, measured
):
    """With no memory, and with a damaged one."""
    if content is not None:
        cache.mkdir()
        (cache / 'backends.json').write_text(content)
    measured[0].update(openvino=20.0, onnxruntime=onnxruntime)
    said: list[str] = []
    for _ in range(2):
        assert choose(weights, SIZE, device='cpu', log=said.append) == (wanted, 'cpu')
    assert sum('measuring' in text for text in said) == len(measured[1]) == 1
    assert said[-1] == said[-2]
    assert said[-1].startswith(f'backend {wanted}: {why} at 160×96 (')
    assert len(json.loads((cache / 'backends.json').read_text())) == 1


@pytest.mark.parametrize('ms', [15.0, 17.0])
def test_what_was_measured_on_a_busy_machine_is_measured_anew_once_it_is_idle(
    weights, measured, monkeypatch, ms
):
    said: list[str] = []
    cores = os.cpu_count() or 1
    # under load, twice; then idle, twice; then under load again
    turns = [(3, 1, 'onnxruntime')] * 2 + [(0, 2, 'openvino')] * 2 + [(3, 2, 'openvino')]
    if ms == 17.0:
        # clearly faster only for an idle machine
        turns = [(3, 1, 'openvino')] * 2
    for load, times, name in turns:
        measured[0].update(openvino=20.0, onnxruntime=ms if times == 1 else 25.0)
        monkeypatch.setattr(backends.os, 'getloadavg', lambda load=load: (load * cores, 0, 0))
        assert choose(weights, SIZE, device='cpu', log=said.append) == (name, 'cpu')
        assert len(measured[1]) == times
        assert ('under a load of 3.0 a core' in said[-1]) == (times == 1)


def test_another_size_or_number_of_threads_is_another_question(weights, measured):
    for size, threads in ((SIZE, 1), (SIZE, 1), (SIZE, 2), ((64, 96), 1)):
        choose(weights, size, device='cpu', threads=threads)
    assert measured[1] == [SIZE, SIZE, (64, 96)]
    assert choose(weights, SIZE, backend='torch', device='cpu') == ('torch', 'cpu'), 'as asked'
    assert len(measured[1]) == 3


@pytest.mark.parametrize(
    ('able', 'shares', 'takes_part'),
    [
        (True, (0.995, 0.999), True), (True, (0.995, 0.99), False), (True, (0.0, 0.0), False),
        (False, (1.0, 1.0), False),
    ],
)  # fmt: skip
def test_bfloat16_takes_part_only_where_all_weights_were_compared(
    able, shares, takes_part, weights, measured, monkeypatch
):
    monkeypatch.setattr(backends, 'has_bfloat16', lambda: able)
    measured[0]['openvino-bf16'] = 1.0
    both = [
        dataclasses.replace(
            weights[0], metadata=dataclasses.replace(weights[0].metadata, bfloat16=share)
        )
        for share in shares
    ]
    assert (choose(both, SIZE, device='cpu')[0] == 'openvino-bf16') == takes_part


def test_auto_labels_frames_and_settles(tmp_path):
    """No fakes: the pipeline says what it took, and the settled config names it."""
    config = PipelineConfig(weights=weights_config(tmp_path), device='cpu', route='night')
    said: list[str] = []
    pipeline = Pipeline.load(config, log=said.append)
    name = pipeline.backend.name
    assert any(text.startswith(f'backend {name}: ') and ' ms' in text for text in said)
    (result,) = pipeline.process([Frame(image=np.zeros((90, 160, 3), np.uint8))])
    assert result.labels is not None and result.labels.shape == (90, 160)
    assert settled(config).backend == name
