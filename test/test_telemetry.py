# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""No process of ours opens a connection that nobody asked for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.util import find_spec
import os
from pathlib import Path
import subprocess
import sys

from network_watch import NetworkWatch, SWITCHES
from nightseg_ros.config import to_mapping
import pytest
from tiny_data import tiny_config, write_streets
from tiny_weights import write_illumination, write_segmenter
import yaml

ROOT = Path(__file__).parent.parent
#: What openvino and nncf report with.
REPORTER = 'openvino_telemetry'
PATIENCE = 120.0
#: onnxruntime sends nine seconds after it was loaded.
BUNDLE_S = 12.0
#: Libraries that report, or bring one along that does.
REPORTERS = {
    'openvino', 'openvino_telemetry', 'onnxruntime', 'nncf', 'ray', 'transformers',
    'huggingface_hub',
}  # fmt: skip
SCRIPTS = [
    path
    for folder in ('bench', 'launch', 'nightseg_ros')
    for path in sorted((ROOT / folder).rglob('*.py'))
]


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[NetworkWatch]:
    folder = tmp_path / 'watch'
    folder.mkdir()
    found = NetworkWatch(folder)
    yield found
    found.close()


def run(watch: NetworkWatch, *arguments: str) -> None:
    """Run Python to its end, and fail where it fails."""
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


@pytest.mark.skipif(find_spec('openvino') is None, reason='openvino is not installed')
def test_the_watch_hears_what_openvino_sends_on_its_import(watch: NetworkWatch) -> None:
    spec = 'import importlib.util as u; assert u.find_spec("openvino_telemetry")'
    run(watch, '-c', f'import openvino, time; {spec}; time.sleep(2)')
    heard = watch.heard()
    assert any('google-analytics' in text or text.startswith('socket.') for text in heard), heard
    assert any('openvino_ga_cid' in text for text in heard), heard


def test_the_watch_hears_a_connection(watch: NetworkWatch) -> None:
    connect = 'import socket; socket.socket().connect(("192.0.2.1", 80))'
    run(watch, '-c', f'try:\n  {connect}\nexcept OSError: pass')
    assert watch.heard() == {'socket.connect 192.0.2.1'}


def test_the_package_sets_the_switches_on_its_import() -> None:
    code = (
        'import os, sys, nightseg_ros; '
        f'assert sys.modules["{REPORTER}"] is None; '
        f'assert {{n: os.environ.get(n) for n in {list(SWITCHES)}}} == {SWITCHES}; '
        'assert not {"numpy", "cv2", "torch"} & set(sys.modules)'
    )
    kept = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    subprocess.run([sys.executable, '-c', code], check=True, env=kept)


def test_a_switch_that_the_user_has_set_stays() -> None:
    code = 'import os, nightseg_ros; assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"'
    environment = {**os.environ, 'RAY_USAGE_STATS_ENABLED': '1'}
    subprocess.run([sys.executable, '-c', code], check=True, env=environment)


def test_no_script_imports_a_reporter_before_the_package() -> None:
    package = ROOT / 'nightseg_ros'
    found = {str(path): reporters(path) for path in SCRIPTS if not path.is_relative_to(package)}
    assert not {path for path, imported in found.items() if imported}
    assert not reporters(package / '__init__.py')


def reporters(path: Path) -> list[str]:
    """Return the reporters that a script imports on its top level before nightseg_ros."""
    found = []
    for node in ast.parse(path.read_text('utf-8')).body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or '']
        tops = [name.partition('.')[0] for name in names]
        if 'nightseg_ros' in tops:
            break
        found += [top for top in tops if top in REPORTERS]
    return found


@pytest.mark.slow
@pytest.mark.parametrize('backend', ['openvino', 'onnxruntime'])
def test_predict_opens_no_connection(watch: NetworkWatch, tmp_path: Path, backend: str) -> None:
    write_streets(tmp_path / 'streets')
    segmenter = str(write_segmenter(tmp_path / 'segmenter.safetensors'))
    illumination = str(write_illumination(tmp_path / 'illumination.safetensors'))
    options = {
        'out': str(tmp_path / 'out'), 'backend': backend, 'device': 'cpu',
        'weights-day': segmenter, 'weights-night': segmenter,
        'weights-illumination': illumination,
    }  # fmt: skip
    arguments = [part for name, value in options.items() for part in (f'--{name}', value)]
    code = (
        'import sys, time; from nightseg_ros.cli.main import main; '
        f'code = main(sys.argv[1:]); time.sleep({BUNDLE_S}); sys.exit(code)'
    )
    run(watch, '-c', code, 'predict', str(tmp_path / 'streets' / 'images'), *arguments)
    assert watch.heard() == set()


@pytest.mark.parametrize('verb', ['info', pytest.param('train', marks=pytest.mark.slow)])
def test_verbs_open_no_connection(watch: NetworkWatch, tmp_path: Path, verb: str) -> None:
    arguments = ['info']
    if verb == 'train':
        data = write_streets(tmp_path / 'streets')
        config = tiny_config(data, tmp_path / 'run', steps=1, warm_up=0, checkpoint_every=1)
        file = tmp_path / 'train.yaml'
        file.write_text(yaml.safe_dump(to_mapping(config)))
        arguments = ['train', 'segmenter', '--config', str(file)]
    run(watch, '-m', 'nightseg_ros.cli.main', *arguments)
    assert watch.heard() == set()
