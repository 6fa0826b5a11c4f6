# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""backend:=auto: measured once, remembered, and never by chance."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_weights import write_all, write_segmenter

from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig, settled
from nightseg_ros.runtime import backends as choice
from nightseg_ros.runtime.backends import BackendChoice, choose, measure
from nightseg_ros.weights import Weights, load_weights

SIZE = (96, 160)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv('NIGHTSEG_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.fixture
def weights(tmp_path: Path) -> list[Weights]:
    return [load_weights(write_segmenter(tmp_path / 'day.safetensors'))]


def clock_of(seconds: list[float]) -> Callable[[], float]:
    values: Iterator[float] = iter(np.cumsum(seconds))
    return lambda: float(next(values))


def test_the_least_time_of_turns_counts() -> None:
    calls: list[str] = []
    runs = {name: lambda image, name=name: (calls.append(name),) for name in 'ab'}
    # one start; then three runs of each: begin, end; and a look at the clock
    slow_a, slow_b, fast_a = (
        [0, 0.03] * 3,
        [0, 0.04, 0, 0.02, 0, 0.03],
        [0, 0.02, 0, 0.01, 0, 0.02],
    )
    busy = [0.0, *slow_a, *slow_b, 0, *fast_a, *slow_b, 2.0]
    assert measure(runs, SIZE, clock_of(busy)) == pytest.approx({'a': 10.0, 'b': 20.0})
    assert ''.join(calls) == 'ab' + 'aaabbb' * 2, 'one warm run each, then turns of three'


@pytest.mark.parametrize(
    ('ms', 'wanted', 'why'),
    [
        ({'openvino': 20.0, 'onnxruntime': 25.0}, 'openvino', 'the fastest'),
        ({'openvino': 20.0, 'onnxruntime': 19.0}, 'openvino', 'no other is clearly faster'),
        ({'openvino': 20.0, 'onnxruntime': 15.0}, 'onnxruntime', 'the fastest'),
    ],
)
def test_what_is_clearly_faster_is_taken_and_remembered(
    ms: dict[str, float], wanted: str, why: str, weights: list[Weights],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(choice, 'measure', lambda runs, size: ms)
    said: list[str] = []
    first = choose(weights, SIZE, device='cpu', say=said.append)
    assert first.backend == wanted and first.device == 'cpu' and first.ms == ms
    assert first.reason.startswith(why) and 'at 160×96' in first.reason
    assert any('measuring' in text for text in said)
    assert said[-1] == f'backend {wanted}: {first.reason}'

    monkeypatch.setattr(choice, 'measure', lambda runs, size: pytest.fail('measured twice'))
    said.clear()
    assert choose(weights, SIZE, device='cpu', say=said.append) == first
    assert said == [f'backend {wanted}: {first.reason}']


def test_another_size_or_number_of_threads_is_another_question(
    weights: list[Weights], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def fake(runs: object, size: tuple[int, int]) -> dict[str, float]:
        asked.append(size)
        return {'openvino': 1.0, 'onnxruntime': 2.0}

    monkeypatch.setattr(choice, 'measure', fake)
    for size, threads in ((SIZE, 1), (SIZE, 1), (SIZE, 2), ((64, 96), 1)):
        choose(weights, size, device='cpu', threads=threads)
    assert asked == [SIZE, SIZE, (64, 96)]


@pytest.mark.parametrize('content', ['', '{', '[]', '{"x": {"backend": 1}}'])
def test_a_damaged_memory_is_measured_again(
    content: str, cache: Path, weights: list[Weights], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir()
    (cache / 'backends.json').write_text(content)
    monkeypatch.setattr(
        choice, 'measure', lambda runs, size: {'openvino': 1.0, 'onnxruntime': 9.0}
    )
    assert choose(weights, SIZE, device='cpu').backend == 'openvino'
    assert len(json.loads((cache / 'backends.json').read_text())) == 1


def test_a_name_is_taken_as_it_is(weights: list[Weights], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, 'measure', lambda runs, size: pytest.fail('measured'))
    found = choose(weights, SIZE, backend='onnxruntime', device='cpu')
    assert found == BackendChoice(backend='onnxruntime', device='cpu', reason='asked for', ms={})


def test_auto_labels_frames_and_settles(tmp_path: Path) -> None:
    """No fakes: the pipeline says what it took, and the settled config names it."""
    paths = write_all(tmp_path)
    files = WeightsConfig(**{key.removeprefix('weights.'): str(p) for key, p in paths.items()})
    config = PipelineConfig(weights=files, device='cpu', route='night')
    said: list[str] = []
    pipeline = Pipeline.load(config, say=said.append)
    name = pipeline.backend.name
    assert any(text.startswith(f'backend {name}: ') and ' ms' in text for text in said)
    (result,) = pipeline.process([Frame(image=np.zeros((90, 160, 3), np.uint8))])
    assert result.labels is not None and result.labels.shape == (90, 160)
    assert settled(config).backend == name
