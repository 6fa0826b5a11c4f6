# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What each further step of the night recipe gives, at the sweep's reduced size, with three seeds.

``python bench/steps.py DATA SWEEP OUT`` goes on from the day checkpoints of a finished ``nightseg
sweep --out SWEEP`` and prints mIoU9, mean and standard error over the seeds. What is done already
is not done again. Every training has the sweep's 100 steps; `longer` has as many as those after
it, without their data.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import yaml

from nightseg_ros.cli.main import main as nightseg
from nightseg_ros.training.sweep import score

SEEDS = (0, 1, 2)
NIGHT = ['--augment.night-share', '0.6']
#: Classes that a first round sees everywhere by night, and those too rare to learn from guesses.
UNSURE = ['fence', 'bicyclist', 'tree', 'pavement', 'sign']


def main() -> None:
    """Train, score and print."""
    data, sweep, out = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    settings = yaml.safe_load(Path('config/training/sweep.yaml').read_text(encoding='utf-8'))
    for stage in ('day', 'cell'):
        config = {**settings['segmenter'], **settings[stage], 'workers': 0, 'picture_every': 0}
        (out / f'{stage}.yaml').write_text(yaml.safe_dump(config), encoding='utf-8')
        config['arch'] = {'variant': 'lite2'}
        (out / f'{stage}_lite2.yaml').write_text(yaml.safe_dump(config), encoding='utf-8')
    sets = {
        'dusk': f'camvid:{data}/camvid:dusk', 'night_dev': f'folder:{data}/night_dev',
        'day_test': f'camvid:{data}/camvid:day_test',
    }  # fmt: skip
    scores: dict[str, list[dict[str, float]]] = {}
    for seed in SEEDS:
        for name, weights in steps(data, sweep, out / f'seed{seed}', seed).items():
            scores.setdefault(name, []).append(scored(weights, sets))
    for name, rows in scores.items():
        print(f'| {name} | ' + ' | '.join(_cell([row[key] for row in rows]) for key in rows[0]))


def steps(data: Path, sweep: Path, out: Path, seed: int) -> dict[str, Path]:
    """Return the weights after each step, trained where they are not there yet."""
    camvid = f'camvid:{data}/camvid:day_train'
    day = sweep / 'day' / f'seed{seed}' / 'weights.safetensors'

    def train(name: str, init: Path | str, sets: list[str], *flags: str) -> Path:
        stage = ('day' if init == 'imagenet' else 'cell') + ('_lite2' if 'large' in name else '')
        nightseg(['train', 'segmenter', '--config', str(out.parent / f'{stage}.yaml'), '--init',
                  str(init), '--seed', str(seed), '--data', *sets, *flags,
                  '--out', str(out / name)])  # fmt: skip
        return out / name / 'weights.safetensors'

    def pseudo(name: str, teacher: Path, light: str, without: list[str]) -> str:
        frames, labels = f'{data}/unlabelled/{light}', out / name
        if not labels.is_dir():
            nightseg(['train', 'pseudo_labels', '--teacher', str(teacher), '--data',
                      f'images:{frames}:{light}', '--prior', camvid, '--scales', '1', '--without',
                      *without,
                      '--out', str(labels)])  # fmt: skip
        return f'paired:{frames}:{labels}' + (':night' if light == 'night' else '')

    labelled = [camvid, pseudo('labels_day', day, 'day', UNSURE[:2])]
    found = {'synthetic': train('synthetic', day, [camvid], *NIGHT)}
    first = found['pseudo_day'] = train('pseudo_day', day, labelled, *NIGHT)
    found['longer'] = train('longer', first, labelled, *NIGHT)
    both = [*labelled, pseudo('labels_night', first, 'night', UNSURE)]
    found['pseudo_night'] = train('pseudo_night', first, both, *NIGHT)
    large = train('large_day', 'imagenet', [camvid])
    large = train('large', large, labelled, *NIGHT)
    taught = [*labelled, pseudo('labels_lite2', large, 'night', UNSURE)]
    found['lite2_teacher'] = train('lite2_teacher', first, taught, *NIGHT)
    return found


def scored(weights: Path, sets: dict[str, str]) -> dict[str, float]:
    """Return mIoU9 by data set, and by camera of the night."""
    file = weights.with_suffix('.scores.json')
    if not file.is_file():
        file.write_text(json.dumps({k: score(weights, s) for k, s in sets.items()}))
    found = json.loads(file.read_text())
    cameras = {k: v['miou9'] for k, v in found['night_dev'].items() if k != 'mean'}
    return {name: found[name]['mean']['miou9'] for name in sets} | cameras


def _cell(values: list[float]) -> str:
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return f'{np.mean(values):.3f} ± {error:.3f}'


if __name__ == '__main__':
    main()
