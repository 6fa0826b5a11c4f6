# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""No process of ours opens a connection that nobody asked for, or a pool of idle threads."""

from __future__ import annotations

from importlib.util import find_spec
import json
import os
import subprocess
import sys

from network_watch import NetworkWatch, SWITCHES
from nightseg_ros.config import to_mapping
import pytest
from tiny_data import tiny_config, write_streets
from tiny_weights import weight_flags, write_all
import yaml

#: What openvino and nncf report with.
REPORTER = 'openvino_telemetry'
PATIENCE = 120.0
#: onnxruntime sends nine seconds after it was loaded.
BUNDLE_S = 12.0


@pytest.fixture
def watch(tmp_path):
    folder = tmp_path / 'watch'
    folder.mkdir()
    found = NetworkWatch(folder)
    yield found
    found.close()


def run(watch: NetworkWatch, *arguments: str) -> str:
    """Run Python to its end, fail where it fails, and return what it says."""
    process = subprocess.Popen(
        [sys.executable, *arguments], env=watch.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    with watch.sockets(process.pid):
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 0, output[-2000:]
    return output


@pytest.mark.skipif(find_spec('openvino') is None, reason='openvino is not installed')
def test_the_watch_hears_what_openvino_sends_on_its_import(watch):
    spec = 'import importlib.util as u; assert u.find_spec("openvino_telemetry")'
    run(watch, '-c', f'import openvino, time; {spec}; time.sleep(2)')
    heard = watch.heard()
    assert any('google-analytics' in text or text.startswith('socket.') for text in heard), heard
    assert any('openvino_ga_cid' in text for text in heard), heard


def test_the_watch_hears_a_connection(watch):
    connect = 'import socket; socket.socket().connect(("192.0.2.1", 80))'
    run(watch, '-c', f'try:\n  {connect}\nexcept OSError: pass')
    assert watch.heard() == {'socket.connect 192.0.2.1'}


def test_the_package_sets_the_switches_on_its_import_but_for_those_of_the_user():
    code = (
        'import json, os, sys, nightseg_ros; '
        f'assert sys.modules["{REPORTER}"] is None; '
        'assert not {"numpy", "cv2", "torch"} & set(sys.modules); '
        'print(json.dumps(dict(os.environ)))'
    )
    kept = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    for own in ({}, {'RAY_USAGE_STATS_ENABLED': '1'}):
        said = subprocess.check_output([sys.executable, '-c', code], env=kept | own)
        found = json.loads(said)
        assert {name: found.get(name) for name in SWITCHES} == SWITCHES | own


@pytest.mark.slow
def test_predict_by_onnxruntime_opens_no_connection(watch, tmp_path):
    write_streets(tmp_path / 'streets')
    options = ['--out', str(tmp_path / 'out'), '--backend', 'onnxruntime', '--device', 'cpu']
    arguments = [str(tmp_path / 'streets' / 'images'), *weight_flags(tmp_path), *options]
    code = (
        'import sys, time; from nightseg_ros.cli.main import main; '
        f'code = main(sys.argv[1:]); time.sleep({BUNDLE_S}); sys.exit(code)'
    )
    run(watch, '-c', code, 'predict', *arguments)
    assert watch.heard() == set()


@pytest.mark.parametrize('verb', ['info', pytest.param('train', marks=pytest.mark.slow)])
def test_verbs_open_no_connection(watch, tmp_path, verb):
    arguments = ['info']
    if verb == 'train':
        data = write_streets(tmp_path / 'streets')
        config = tiny_config(data, tmp_path / 'run', steps=1, warm_up=0, checkpoint_every=1)
        file = tmp_path / 'train.yaml'
        file.write_text(yaml.safe_dump(to_mapping(config)))
        arguments = ['train', 'segmenter', '--config', str(file)]
    run(watch, '-m', 'nightseg_ros.cli.main', *arguments)
    assert watch.heard() == set()


HUB = """
import {first}ray, transformers
from huggingface_hub.utils import send_telemetry
from ray._common.usage.usage_lib import usage_stats_enabled
import time
send_telemetry('nightseg')
# a thread sends it
time.sleep(3)
print('Ray reports:', usage_stats_enabled())
"""


@pytest.mark.slow
@pytest.mark.skipif(
    None in map(find_spec, ('ray', 'transformers', 'huggingface_hub')), reason='not all are there'
)
def test_ray_and_huggingface_hub_report_nothing_behind_the_package(watch):
    assert 'Ray reports: False' in run(watch, '-c', HUB.format(first='nightseg_ros, '))
    assert watch.heard() == set()
    assert 'Ray reports: True' in run(watch, '-c', HUB.format(first=''))
    assert any('huggingface.co' in text for text in watch.heard())


@pytest.mark.ros
@pytest.mark.slow
def test_the_node_with_openvino_opens_no_connection(watch, tmp_path, monkeypatch):
    harness = pytest.importorskip('ros_harness')
    files = {name: str(path) for name, path in write_all(tmp_path).items()}
    environment = watch.environment()
    for name in set(os.environ) - set(environment):
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    parameters = {**files, 'backend': 'openvino', 'device': 'cpu'}
    with harness.running(tmp_path / 'log', parameters) as node, watch.sockets(node.process.pid):
        node.until('active; waiting')
        with pytest.raises(subprocess.TimeoutExpired):
            node.process.wait(BUNDLE_S)
    assert watch.heard() == set()


POOLS = """
import {first}
import json
from nightseg_ros.runtime.backends import open_backend
import cv2
import numpy
open_backend('onnxruntime')
import threadpoolctl
pools = [p for p in threadpoolctl.threadpool_info() if p['internal_api'] == 'openblas']
print(json.dumps([cv2.getNumThreads(), *(p['num_threads'] for p in pools)]))
"""


@pytest.mark.parametrize('first', ['nightseg_ros', 'numpy'])
def test_openblas_and_opencv_have_one_thread_once_a_backend_is_open(first):
    named = ('OPENBLAS_NUM_THREADS', 'OMP_NUM_THREADS')
    environment = {name: value for name, value in os.environ.items() if name not in named}
    command = [sys.executable, '-c', POOLS.format(first=first)]
    said = subprocess.check_output(command, env=environment, text=True, timeout=120)
    pools = json.loads(said.splitlines()[-1])
    assert len(pools) > 1 and set(pools) == {1}
