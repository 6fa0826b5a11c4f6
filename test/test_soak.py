# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``bench/``: the soak's rule, and short forms of what runs real processes."""

from __future__ import annotations

from collections.abc import Callable
import csv
import importlib
from importlib.util import find_spec
import json
from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest

BENCH = Path(__file__).parent.parent / 'bench'


STEADY = np.full(1200, 500.0)
NOISE = np.random.default_rng(0).normal(0, 5, 1200)
WARM_UP = np.where(np.arange(1200) < 150, np.linspace(100, 3300, 1200), STEADY)
PEAK = np.where((np.arange(1200) >= 1000) & (np.arange(1200) < 1010), 900.0, WARM_UP)
STEP = np.where(np.arange(1200) >= 700, PEAK + 10, PEAK)
GAPS = np.where(np.arange(100) % 2, 500.0, np.nan)
SMALL = np.where(np.arange(100) < 60, 4.0, 4.5)


@pytest.mark.parametrize(
    ('series', 'more', 'passed'),
    [
        (STEADY + NOISE, {}, True),
        # a hundredth of a megabyte a sample
        (STEADY + NOISE + 0.02 * np.arange(1200), {}, False),
        # a rise in the warm-up and single peaks do not count, but one step that stays does
        (PEAK, {}, True),
        (STEP, {}, False),
        # too few samples are no proof
        ([500.0] * 8, {}, False),
        (GAPS, {}, True),
        ([np.nan] * 100, {}, False),
        (SMALL, {}, False),
        (SMALL, {'floor': 1.0}, True),
    ],
)
def test_growth_is_told_from_noise(series, more, passed):
    watch = pytest.importorskip('watch', reason='rclpy is not installed')
    rows = [{'at': index, 'x': value} for index, value in enumerate(series)]
    found = watch.growth(rows, 'at', len(rows) / 6, watch.Limit('x', 0.01, **more))
    assert found[0] == passed


@pytest.mark.parametrize(
    ('values', 'goal', 'busy', 'verdict'),
    [
        ([1.0, 1.1, 1.2], '≤ 1.3', False, 'met'), ([1.0, 1.1, 1.2], '≤ 0.9', False, 'missed'),
        ([1.0, 1.1, 1.2], '≥ 0.9', False, 'met'), ([1.0, 1.1, 1.2], '≥ 1.3', False, 'missed'),
        ([1.0, 1.1, 1.2], '≤ 1.1', False, 'not resolved'), ([1.0], '≤ 2', True, 'not resolved'),
        ([], '≤ 1', False, 'not resolved'), ([1.0], '', False, ''),
    ],
)  # fmt: skip
def test_a_goal_is_judged_where_the_rounds_agree(
    values: list[float], goal: str, busy: bool, verdict: str
) -> None:
    pytest.importorskip('rclpy', reason='rclpy is not installed')
    assert importlib.import_module('live').judged(values, goal, busy)['verdict'] == verdict


def real(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that runs real nodes."""
    skipped = pytest.mark.skipif(find_spec('rclpy') is None, reason='rclpy is not installed')
    return pytest.mark.ros(pytest.mark.slow(skipped(test)))


def run(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / script), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)


@pytest.fixture
def weights(parameters):
    day, night = parameters['weights.day'], parameters['weights.night']
    return ('--day', day, '--night', night, '--backend', 'torch')


@real
def test_lifecycle_cycles_under_a_flood_leave_nothing_behind(weights, tmp_path):
    out = tmp_path / 'cycles.csv'
    done = run(
        'lifecycle_cycles.py', '--cycles', '12', '--flood', '100', '--growth', '0.1', *weights,
        '--out', str(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'ok   12 of 12 cycles' in done.stdout
    with out.open() as file:
        assert all(int(row['masks']) > 0 for row in csv.DictReader(file))


@real
def test_a_short_live_run_times_the_node_and_a_peer(weights, parameters, tmp_path):
    done = run(
        'live.py', '--rounds', '4', '--only', 'one_camera', 'starts', 'peers',
        '--peers', 'plain_node', *weights, '--translator', parameters['weights.translator'],
        '--out', str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / 'live.json').read_text())
    closed, paced = (result['sessions']['one_camera'][name] for name in ('closed', '10_hz'))
    assert closed['sent'] == closed['answered'] == 4
    assert closed['end_to_end_ms']['p50'] > closed['stages_ms']['total']['p50'] > 0
    assert paced['sent'] >= 10 and paced['use']['ours']['resident_mb'] > 50
    names = {figure['name'] for figure in result['figures']}
    assert names >= {'network_in_node', 'p99_over_p50', 'start_to_first_mask_s', 'vs_plain_node'}
    assert 'vs_plain_node' in done.stdout
