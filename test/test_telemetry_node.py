# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The node, with its networks loaded, speaks to ROS and to nobody else."""

from __future__ import annotations

from pathlib import Path
import time

from network_watch import HUSH, NetworkWatch
import pytest
from ros_harness import running
from test_telemetry import BUNDLE_S
from tiny_weights import write_illumination, write_segmenter

pytestmark = [pytest.mark.ros, pytest.mark.slow]


def test_the_node_opens_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = str(write_segmenter(tmp_path / 'segmenter.safetensors'))
    (tmp_path / 'watch').mkdir()
    watch = NetworkWatch(tmp_path / 'watch')
    for name in HUSH:
        monkeypatch.delenv(name, raising=False)
    for name, value in watch.environment().items():
        monkeypatch.setenv(name, value)
    parameters = {
        'backend': 'openvino', 'device': 'cpu', 'weights.day': segmenter,
        'weights.night': segmenter,
        'weights.illumination': str(write_illumination(tmp_path / 'illumination.safetensors')),
    }  # fmt: skip
    with running(tmp_path / 'node.log', parameters) as node, watch.sockets(node.process.pid):
        until = time.monotonic() + 60
        while 'active; waiting' not in node.text:
            assert node.process.poll() is None and time.monotonic() < until, node.text
            time.sleep(0.2)
        time.sleep(BUNDLE_S)
        assert node.process.poll() is None
    watch.close()
    assert watch.heard() == set()
