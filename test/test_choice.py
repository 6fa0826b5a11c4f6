# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""backend:=auto."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, settled
from nightseg_ros.runtime import backends
from nightseg_ros.runtime.backends import choose
from nightseg_ros.weights import load_weights
import numpy as np
import pytest
from tiny_weights import weights_config, write_segmenter


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
def test_auto_takes_bfloat16_only_where_all_weights_were_compared(
    able: bool, shares: tuple[float, ...], missing: tuple[str, ...], wanted: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    present = {name: name not in missing for name in backends.available_backends()}
    monkeypatch.setattr(backends, 'available_backends', lambda: present)
    monkeypatch.setattr(backends, 'has_bfloat16', lambda: able)
    weights = load_weights(write_segmenter(tmp_path / 'day.safetensors'))
    both = [
        dataclasses.replace(
            weights, metadata=dataclasses.replace(weights.metadata, bfloat16=share)
        )
        for share in shares
    ]
    assert choose(both, 'auto', 'cpu') == (wanted, 'cpu')
    if wanted != 'torch':
        assert choose(both, 'onnxruntime', 'cpu') == ('onnxruntime', 'cpu'), 'as asked'


def test_auto_labels_frames_and_settles(tmp_path: Path) -> None:
    config = PipelineConfig(weights=weights_config(tmp_path), device='cpu', route='night')
    pipeline = Pipeline.load(config)
    (result,) = pipeline.process([Frame(image=np.zeros((90, 160, 3), np.uint8))])
    assert result.labels is not None and result.labels.shape == (90, 160)
    assert settled(config).backend == pipeline.backend.name
