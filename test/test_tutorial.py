# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""docs/tutorial.md, executed: its commands in miniature, and what they promise."""

from __future__ import annotations

import json
from pathlib import Path
import re
import shlex
import subprocess
import sys
from typing import Any

from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import read_image
from nightseg_ros.taxonomy import CAMVID11
import numpy as np
import pytest
from tiny_data import run_tools
import yaml

ROOT = Path(__file__).parent.parent
PAGE = ROOT / 'docs' / 'tutorial.md'
PARAMETERS = ROOT / 'config' / 'tutorial.yaml'
NIGHT = 'out/tutorial/test'

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def commands(heading: str) -> list[list[str]]:
    """Return the commands of a section's sh blocks, as a shell would split them."""
    section = PAGE.read_text().split(f'\n## {heading}\n')[1].split('\n## ')[0]
    found = []
    for block in re.findall(r'^```sh\n(.*?)^```', section, re.DOTALL | re.MULTILINE):
        lines = block.replace('\\\n', ' ').splitlines()
        found += [shlex.split(line, comments=True) for line in lines]
    return [words for words in found if words]


#: What makes a command small, by its first words and by what its --out ends in.
SMALL = {
    'render day': '--count 24',
    # two steps from weights that know rendered streets by day
    'train day_weights': '--init rendered_day --steps 2 --warm-up 0',
    'train night_weights': '--steps 16 --warm-up 5',
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Return a folder in which every command of the page but the last has run."""
    folder = tmp_path_factory.mktemp('tutorial')
    (folder / 'config').symlink_to(ROOT / 'config')
    every = []
    for words in commands('The frames') + commands('Five commands')[:-1]:
        assert words[0] == 'nightseg', words
        out = Path(words[words.index('--out') + 1]).name
        small = SMALL.get(f'{words[1]} {out}', '')
        small += ' --workers 0' if words[1] == 'train' else ''
        every.append([*words[1:], *small.split()])
    run_tools(every, folder)
    return folder


def test_there_are_five_commands_and_only_the_last_two_see_a_real_night():
    five = commands('Five commands')
    assert [words[:2] for words in five] == [
        ['nightseg', 'train'], ['nightseg', 'synthesize'], ['nightseg', 'train'],
        ['nightseg', 'evaluate'], ['nightseg', 'run'],
    ]  # fmt: skip
    assert f'night_perception.launch.py params_file:={PARAMETERS.relative_to(ROOT)}' in (
        PAGE.read_text()
    )
    # both ways start the node with the same weights
    named = yaml.safe_load(PARAMETERS.read_text())['/**']['ros__parameters']['weights']
    for route in ('day', 'night', 'illumination'):
        assert five[4][five[4].index(f'--weights-{route}') + 1] == named[route]
    for words in five:
        for word in words:
            assert NIGHT not in word or words[1] in ('evaluate', 'run')


def test_the_new_night_weights_see_more_at_night(folder):
    metrics = json.loads((folder / 'out/tutorial/scores/metrics.json').read_text())
    runs: dict[str, Any] = {name.rpartition('=')[2]: run for name, run in metrics['runs'].items()}
    day, night = (runs[route]['all'] for route in ('day', 'night'))
    assert night['miou'] > day['miou'] + 0.03
    assert night['pixel_acc'] > day['pixel_acc'] + 0.05
    # a gain and no accident of these frames: the paired interval leaves out zero
    (gap,) = [item['miou'] for item in metrics['compare'] if 'miou' in item]
    assert gap['difference'] == pytest.approx(night['miou'] - day['miou'], abs=1e-3)
    assert gap['ci'][0] > 0.0
    # and the day segmenter is a fair one: by day it knows its streets
    assert runs['day']['by_source']['day']['miou'] > 0.25
    assert (folder / 'out/tutorial/scores/report.html').stat().st_size > 10_000
    assert (folder / 'out/tutorial/synthetic/sheet.jpg').is_file()
    # what the node's parameters name is there
    named = yaml.safe_load(PARAMETERS.read_text())['/**']['ros__parameters']['weights']
    for path in named.values():
        assert not path.endswith('.safetensors') or (folder / path).is_file(), path


@pytest.mark.ros
def test_the_last_command_runs_the_node_on_every_frame_that_it_can_serve(folder):
    pytest.importorskip('rclpy', reason='rclpy is not installed')
    done = subprocess.run(
        [sys.executable, '-m', 'nightseg_ros.cli.main', *commands('Five commands')[-1][1:]],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'watch it on http://127.0.0.1:' in done.stderr and 'frames in / out' in done.stdout


@pytest.mark.ros
def test_the_node_takes_the_parameters_of_the_page(folder, monkeypatch):
    harness = pytest.importorskip('ros_harness', reason='rclpy is not installed')
    monkeypatch.chdir(folder)
    image = read_image(open_dataset(f'folder:{NIGHT}')[0].image)
    arguments = ['--params-file', str(PARAMETERS), '-p', 'backend:=torch', '-p', 'route:=night']
    with harness.served(folder, {}, *arguments) as client:
        labels = harness.pixels_of(harness.Camera(client).connect().serve(image))
    assert labels.shape == image.shape[:2] and len(np.unique(labels)) >= 3
    assert labels.max() < len(CAMVID11)
