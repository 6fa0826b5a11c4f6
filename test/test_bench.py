# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg bench``: what is compared, and a tiny run; the scripts of bench/ can be imported."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path

from nightseg_ros.cli import machine
from nightseg_ros.cli.machine import Setup, setups
from nightseg_ros.cli.main import main
import pytest
from tiny_weights import weight_flags

SCRIPTS = sorted((Path(__file__).parent.parent / 'bench').glob('*.py'))


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.stem)
def test_scripts_find_what_they_import(script):
    try:
        importlib.import_module(script.stem)
    except ModuleNotFoundError as error:
        if error.name != 'rclpy':
            raise
        pytest.skip('rclpy is not installed')


def test_setups_vary_one_thing_at_a_time():
    base, *others = setups('openvino', ['torch', 'openvino'])
    names = [field.name for field in dataclasses.fields(Setup)]
    for other in others:
        assert sum(getattr(base, n) != getattr(other, n) for n in names) == 1, other
    assert [setup.backend for setup in others].count('torch') == 1
    assert {setup.route for setup in setups('torch', [], translate=False)} == {'night', 'day'}


def test_a_tiny_run(tmp_path, monkeypatch, capsys):
    weights = weight_flags(tmp_path, 'day', 'night', 'translator', 'illumination')
    tiny = [
        Setup(backend='torch', size=(80, 46)),
        Setup(backend='torch', size=(80, 46), cameras=3),
        Setup(backend='torch', size=(64, 36), route='translate', draw=True),
        # there is no such GPU here: it is left out, and the rest is measured
        Setup(backend='tensorrt', size=(64, 36)),
    ]
    monkeypatch.setattr(machine, 'setups', lambda *_, **__: tiny)
    out = tmp_path / 'out'
    arguments = ['bench', '--out', str(out), '--short', '--backend', 'torch', *weights]
    assert main(arguments) == 0
    assert {path.name for path in out.iterdir()} == {'bench.json', 'bench.md'}
    result = json.loads((out / 'bench.json').read_text())
    assert result['machine']['cores'] >= 1 and result['versions']['nightseg']
    one, three, drawn = result['pipelines']
    assert one['description']['backend'] == 'torch'
    assert [p['batch_ms']['count'] for p in (one, three, drawn)] == [5, 5, 5]
    assert [p['stages_ms']['network']['count'] for p in (one, three, drawn)] == [5, 15, 5]
    assert (drawn['route'], drawn['size'], drawn['draw']) == ('translate', [64, 36], True)
    for p in (one, three, drawn):
        assert 0 < p['batch_ms']['p50'] <= p['batch_ms']['p95'] <= p['batch_ms']['p99']
        assert p['hz'] == pytest.approx(1e3 * p['cameras'] / p['batch_ms']['p50'], abs=0.06)
    page = (out / 'bench.md').read_text()
    assert page in capsys.readouterr().out
    assert page.count('| torch |') == 3 and '| 80×46 | night | 3 | labels |' in page


def test_an_unknown_backend_is_named(tmp_path, capsys):
    assert main(['bench', '--out', str(tmp_path / 'out'), '--backend', 'nonsense']) == 2
    assert 'nonsense' in capsys.readouterr().err and not (tmp_path / 'out').exists()
