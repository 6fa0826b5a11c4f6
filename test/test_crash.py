# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Tools that are killed at random moments end with what they end with undisturbed.

A tool runs once undisturbed. Then it is started again and again with one command, and each time
killed by SIGKILL at a moment drawn between its start and its end; a run that comes to its end
between two kills is compared, and the next one begins with nothing. Labels, manifests, bags and
weights must be the same bytes, scores the same but for times. ``make crash`` kills more often.
"""

from collections.abc import Callable
import json
import os
from pathlib import Path
import random
import shutil
import time

from evaluated_drive import without_times
from nightseg_ros.config import to_mapping
import pytest
import tiny_data
import tiny_weights
import yaml

pytestmark = pytest.mark.slow

KILLS, SEED = (int(os.environ.get(name, default)) for name, default in (('KILLS', 2), ('SEED', 1)))
#: Seconds that one undisturbed run may take on a machine that is busy.
TIMEOUT = 300.0
Results = dict[str, object]


@pytest.fixture(scope='module')
def commands(tmp_path_factory):
    """Write small pictures with labels, weights and settings; return commands without --out."""
    folder = tmp_path_factory.mktemp('inputs')
    data = tiny_data.write_streets(folder / 'streets', 24)
    training = tiny_data.tiny_config(
        data, folder / 'nowhere', steps=6, checkpoint_every=1, picture_every=3,
    )  # fmt: skip
    mapping = {key: value for key, value in to_mapping(training).items() if key != 'out'}
    (folder / 'train.yaml').write_text(yaml.safe_dump(mapping), encoding='utf-8')
    weights = str(tiny_weights.write_segmenter(folder / 'tiny.safetensors'))
    return {
        'training': ['train', 'segmenter', '--config', str(folder / 'train.yaml')],
        'synthesis': ['synthesize', '--data', data, '--ratio', '1.0'],
        'evaluation': [
            'evaluate', '--dataset', data, '--save-labels', '--route', 'day',
            '--weights-day', weights, '--backend', 'torch', '--no-report',
        ],
        'bag': ['bag', 'make', str(folder / 'streets' / 'images'), '--force'],
        'export': ['export', weights, '--frames', '2'],
    }  # fmt: skip


def _weights(out: Path) -> Results:
    names = sorted(path.name for path in out.iterdir())
    kept = {name: (out / name).read_bytes() for name in names if name.endswith('.safetensors')}
    assert len(kept) == 2, names
    return {**kept, 'names': names}


def _scores(out: Path) -> Results:
    labels = tiny_data.files_of(out / 'labels')
    assert labels, 'the masks were not saved'
    return {**labels, 'scores': without_times(json.loads((out / 'metrics.json').read_text()))}


#: What has to be equal, by tool.
TOOLS: dict[str, Callable[[Path], Results]] = {
    'training': _weights,
    'synthesis': tiny_data.files_of,
    'evaluation': _scores,
    'bag': tiny_data.files_of,
    'export': tiny_data.files_of,
}


@pytest.mark.parametrize('tool', TOOLS)
def test_a_killed_tool_ends_with_the_same_result(tool, commands, tmp_path):
    command, results = commands[tool], TOOLS[tool]
    chance = random.Random(f'{tool} {SEED}')
    # a name that is in the result, as that of a bag, has to be the same
    whole, out = (tmp_path / kind / 'result' for kind in ('whole', 'killed'))
    log = tmp_path / 'killed.log'
    for place in (whole, out):
        place.parent.mkdir()
    # what the children have imported is no part of a tool's time
    assert _run(['--version'], log, TIMEOUT), log.read_text()
    started = time.monotonic()
    assert _run([*command, '--out', str(whole)], tmp_path / 'whole.log', TIMEOUT), (
        'it takes too long'
    )
    seconds = time.monotonic() - started
    wanted = results(whole)
    assert wanted
    done = ends = 0
    while done < KILLS or ends == 0:
        # the last run is left alone
        moment = chance.uniform(0, seconds) if done < KILLS else TIMEOUT
        if not _run([*command, '--out', str(out)], log, moment):
            assert moment < TIMEOUT, f'{tool} did not end:\n{log.read_text()}'
            done += 1
            ends = 0 if done == KILLS else ends
            continue
        ends += 1
        found = results(out)
        assert found.keys() == wanted.keys(), f'{tool}: {found.keys() ^ wanted.keys()}'
        wrong = [key for key, content in wanted.items() if found[key] != content]
        assert not wrong, f'{tool} after {done} kills differs in {wrong}'
        left = sorted(path.name for path in out.parent.iterdir() if path != out)
        assert not left, f'{tool} leaves {left}'
        shutil.rmtree(out)
        shutil.rmtree(tmp_path / 'killed-cache', ignore_errors=True)


def _run(arguments: list[str], log: Path, timeout: float) -> bool:
    """Run a command; return whether it ended, in success, before it was killed."""
    child = tiny_data.start_tool(arguments, log)
    child.join(timeout)
    if child.is_alive():
        child.kill()
        child.join()
        return False
    assert child.exitcode == 0, f'{arguments}: {child.exitcode}\n{log.read_text()}'
    return True
