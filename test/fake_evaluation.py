# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Finished evaluations as docs/metrics.md describes them, of drawn frames and invented masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from nightseg_ros.evaluation.metrics import ConfusionMatrix, accuracy
from nightseg_ros.taxonomy import CAMVID11, UNLABELLED

SIZE = (60, 96)
START = 1_700_000_000_000_000_000


def write_evaluation(
    folder: Path,
    *,
    frames: int = 12,
    configurations: tuple[str, ...] = ('',),
    labelled: bool = True,
    drive: bool = True,
    samples: bool = True,
    name: str = 'night_drive',
) -> dict[str, Any]:
    """Write metrics.json, frames.jsonl and samples/, and return the metrics."""
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = []
    runs = {}
    for place, configuration in enumerate(configurations):
        run = f'{name}/{configuration}' if configuration else name
        mine = list(_frames(run, frames, labelled, place))
        lines += mine
        runs[run] = _run(name, configuration, mine, labelled, drive, place)
        if samples and frames:
            runs[run]['samples'] = _samples(folder, run, mine, labelled, drive, place)
    first = next(iter(runs.values()))
    metrics = {
        'version': 2,
        'created': '2026-01-02T03:04:05+00:00',
        'command': ['nightseg', 'evaluate', f'/drives/{name}.mcap', '--out', 'scores'],
        'nightseg': '0.1.0',
        'machine': {'cpu': 'a processor', 'threads': 2, 'python': '3.11.2', 'torch': '2.13.0'},
        'route': 'auto',
        'pipeline': _pipeline(),
        'taxonomy': CAMVID11.to_dict(),
        'bootstrap': {'unit': 'auto', 'block_s': 10.0, 'resamples': 99, 'seed': 0, 'level': 0.95},
        'configurations': [
            {'name': c, 'options': {'route': c.removeprefix('route=') or 'auto'},
             'pipeline': _pipeline()}
            for c in configurations
        ],
        'sets': {
            name: {
                'kind': 'recordings' if drive else 'dataset',
                'unit': 'blocks' if drive else 'frames',
                'units': max(frames // 2, 0),
                'sources': [
                    {
                        'name': name, 'path': f'/drives/{name}.mcap', 'topic': '/camera/image_raw',
                        'kind': 'bag', 'frames': frames, 'failed': 0,
                        'labelled': frames if labelled else 0, 'labels_unused': 0,
                        'first_stamp': START, 'last_stamp': START + frames * 10**8, 'losses': [],
                    }
                ],
            }
        },
        'runs': runs,
        'compare': [
            _compared(name, run, next(iter(runs)), runs[run], first)
            for run in list(runs)[1:] if labelled and frames
        ],
        'wall_s': 1.5,
    }  # fmt: skip
    (folder / 'metrics.json').write_text(json.dumps(metrics))
    with (folder / 'frames.jsonl').open('w') as stream:
        for line in lines:
            stream.write(json.dumps({k: v for k, v in line.items() if k[0] != '_'}) + '\n')
    return metrics


def _pipeline() -> dict[str, Any]:
    weights = {
        role: {'file': f'{role}.safetensors', 'sha256': digit * 64, 'license': 'research'}
        for role, digit in (('day', 'a'), ('night', 'b'))
    }
    return {
        'device': 'cpu', 'backend': 'torch', 'taxonomy': 'camvid11', 'long_side': 480,
        'weights': weights,
    }  # fmt: skip


def _frames(run: str, frames: int, labelled: bool, place: int) -> Any:
    rng = np.random.default_rng(place)
    for index in range(frames):
        along = index / max(frames - 1, 1)
        score = float(np.clip(0.9 - 1.1 * along + 0.05 * rng.normal(), 0, 1))
        state = 'day' if score > 0.6 else 'dusk' if score > 0.35 else 'night'
        yield {
            'run': run, 'source': 'night_drive', 'camera': 'camera', 'frame': f'{index:06d}',
            'stamp': START + index * 10**8, 'size': [SIZE[1], SIZE[0]], 'score': score,
            'estimate': state, 'state': state, 'route': 'day' if state == 'day' else 'night',
            'reason': 'score', 'switched': False, 'light': 'night' if along > 0.6 else 'day',
            'labelled': 5000 if labelled else 0,
            'miou': float(np.clip(0.55 - 0.3 * along * (place != 1) + 0.05 * rng.normal(), 0, 1))
            if labelled else None,
            'pixel_acc': 0.8 if labelled else None, 'confidence': 0.7 + 0.1 * rng.random(),
            'flicker': 0.05, 'flicker_warped': 0.02, 'labels_sha256': '0' * 64,
            'ms': {'network': 20.0}, 'error': None,
        }  # fmt: skip


def _masks(seed: int, wrong: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a picture, its truth, and a mask of which the share ``wrong`` is guessed."""
    rng = np.random.default_rng(seed)
    height, width = SIZE
    truth = np.full(SIZE, 1, np.uint8)
    truth[: height // 3] = 0
    truth[height // 2 :] = 3
    truth[height // 2 :, : width // 6] = 4
    truth[height // 3 : height * 2 // 3, width // 2 : width // 2 + 14] = 8
    truth[:, 20:22] = 2
    truth[height // 3 : height // 2, -20:] = 5
    picture = np.asarray(
        CAMVID11.palette()[truth] // 2 + rng.integers(0, 30, (*SIZE, 3)), np.uint8
    )
    mask = truth.copy()
    coarse = cv2.resize(rng.random((8, 12)), SIZE[::-1], interpolation=cv2.INTER_NEAREST)
    mask[coarse < wrong] = rng.integers(0, 9)
    truth[-6:] = UNLABELLED
    return picture, truth, mask


def _run(
    name: str, configuration: str, lines: list[dict[str, Any]], labelled: bool, drive: bool,
    place: int,
) -> dict[str, Any]:  # fmt: skip
    matrix = ConfusionMatrix(CAMVID11)
    for index in range(min(len(lines), 8) if labelled else 0):
        _, truth, mask = _masks(index, 0.3 + 0.1 * place)
        matrix.add(truth, mask)
    entry = _entry(matrix, len(lines))
    states = sorted({line['state'] for line in lines})
    counted = {state: sum(line['state'] == state for line in lines) for state in states}
    bins = [
        {'low': i / 15, 'high': (i + 1) / 15, 'pixels': 100 * i * i, 'confidence': (i + 0.5) / 15,
         'accuracy': ((i + 0.5) / 15) ** 1.3}
        for i in range(15)
    ]  # fmt: skip
    calibration = {'ece': 0.0712, 'confidence': 0.8123, 'accuracy': 0.7411, 'bins': bins}
    flicker = {'pairs': max(len(lines) - 1, 0), 'plain': 0.0512, 'warped': 0.0234}
    return {
        'set': name, 'configuration': configuration, 'frames': len(lines), 'failed': 0,
        'labelled': len(lines) if labelled else 0,
        'all': entry,
        'by_state': {state: entry for state in states} if labelled else {},
        'by_route': {}, 'by_source': {name: entry} if labelled else {}, 'by_light': {},
        'mean_of_sources_miou9': entry['miou9'], 'mean_of_sources_miou9_ci': None,
        'routes': {'day': counted.get('day', 0), 'night': len(lines) - counted.get('day', 0)},
        'states': counted,
        'calibration': {'all': calibration if labelled else None,
                        'by_state': {s: calibration for s in states} if labelled else {}},
        'reliability': {'mean': 0.8642, 'least': 0.1357, 'spearman': 0.7531 if labelled else None,
                        'spearman_ci': [0.6042, 0.8024] if labelled else None,
                        'risk': {'0.5': 0.0531, '0.9': 0.0642, '1': 0.0753} if labelled else None,
                        'risk_area': 0.05 if labelled else None},
        'flicker': {'all': flicker, 'by_state': {}} if drive else None,
        'routing': {
            'switches': 1, 'minutes': 0.5, 'switches_per_minute': 2.0,
            'seconds_by_state': counted, 'seconds_by_route': {'day': 3.0, 'night': 7.0},
            'by_light': {'day': counted}, 'wrong_state_share': 0.125, 'wrong_state_s': 1.25,
            'changes': [], 'delay_s': {'p50': 0.6, 'max': 0.9, 'missed': 0},
        },
        'labels_sha256': '1' * 64,
        'timing': {
            'frames_per_second': 31.25, 'seconds': 0.4,
            'ms': {stage: {'mean': mean, 'p50': mean, 'p95': 2 * mean, 'p99': 3 * mean,
                           'max': 4 * mean}
                   for stage, mean in (('estimate', 1.5), ('network', 21.75), ('post', 0.5))},
        },
        'samples': [],
    }  # fmt: skip


def _entry(matrix: ConfusionMatrix, frames: int) -> dict[str, Any]:
    def plain(value: float) -> float | None:
        return None if np.isnan(value) else float(value)

    def around(value: float) -> list[float] | None:
        return None if np.isnan(value) else [value - 0.031, value + 0.029]

    classes = matrix.taxonomy.classes
    iou = dict(zip(classes, matrix.iou()))
    without = matrix.miou(without=('fence', 'bicyclist'))
    return {
        'frames': frames, 'pixels': int(matrix.rows.sum()),
        'support': dict(zip(classes, matrix.rows.sum(1).tolist())),
        'miou': plain(matrix.miou()), 'miou_ci': around(matrix.miou()),
        'miou9': plain(without), 'miou9_ci': around(without),
        'miou_subset': None, 'miou_subset_ci': None, 'miou_all': plain(matrix.miou()),
        'fw_iou': 0.6789, 'mean_acc': 0.5432,
        'pixel_acc': plain(matrix.pixel_accuracy()),
        'pixel_acc_ci': around(matrix.pixel_accuracy()),
        'iou': {name: plain(value) for name, value in iou.items()},
        'acc': dict(zip(classes, map(plain, accuracy(matrix.rows)))),
        'iou_ci': {name: around(value) for name, value in iou.items()},
        'confusion': matrix.rows[:, :-1].tolist(),
        'abstained': dict(zip(classes, matrix.rows[:, -1].tolist())),
    }  # fmt: skip


def _compared(name: str, run: str, reference: str, data: Any, first: Any) -> dict[str, Any]:
    item: dict[str, Any] = {'set': name, 'run': run, 'reference': reference}
    for key in ('miou', 'miou9', 'pixel_acc'):
        value = data['all'][key] - first['all'][key]
        item[key] = {
            'difference': value, 'median': value, 'ci': [value - 0.02, value + 0.02],
            'above_zero': 0.5,
        }  # fmt: skip
    return item


def _samples(
    folder: Path, run: str, lines: list[dict[str, Any]], labelled: bool, drive: bool, place: int
) -> list[dict[str, Any]]:
    (folder / 'samples').mkdir(exist_ok=True)
    kinds = ('best', 'median', 'worst') if labelled else ('spread', 'spread', 'spread')
    found = []
    for index, kind in enumerate(kinds[: len(lines)]):
        line = lines[index * (len(lines) - 1) // 2]
        picture, truth, mask = _masks(index, 0.15 + 0.2 * index + 0.1 * place)
        stem = f'samples/{line["frame"]}'
        cv2.imwrite(str(folder / f'{stem}.jpg'), picture[..., ::-1])
        cv2.imwrite(str(folder / f'{stem}_{place}.png'), mask)
        if labelled:
            cv2.imwrite(str(folder / f'{stem}_truth.png'), truth)
        found.append(
            {
                **{key: line[key] for key in ('frame', 'source', 'miou', 'pixel_acc', 'score',
                                              'state', 'route')},
                'kind': kind, 'stamp': line['stamp'] if drive else None,
                'image': f'{stem}.jpg', 'labels': f'{stem}_{place}.png',
                'truth': f'{stem}_truth.png' if labelled else None,
            }
        )  # fmt: skip
    return found
