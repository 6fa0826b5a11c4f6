# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Whether confidence and reliability keep what they promise: the figures of docs/results.md.

``python bench/confidence.py DATA OUT [--test] [--route ROUTE]``: DATA holds ``camvid``,
``night_dev`` and ``clips``; OUT gets confidence.json and two figures. Without
``--test`` the frames of ``day_test`` stay unseen. Frames go through ``Pipeline.process`` one by
one.

A place is ten neighbouring labelled frames of a drive, or those frames by night of one camera
whose numbers lie within 20 of each other; intervals draw places.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
import json
from pathlib import Path
import re
from typing import Any

import matplotlib.pyplot as plt
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import read_image, read_labels, Sample
from nightseg_ros.data.source import open_source
from nightseg_ros.evaluation.metrics import (
    BootstrapConfig,
    risk_coverage,
    spearman,
    spearman_interval,
)
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig
from nightseg_ros.perception.result import Want
from nightseg_ros.taxonomy import UNLABELLED
import numpy as np
import numpy.typing as npt
from out_of_distribution import CORRUPTIONS

plt.switch_backend('Agg')
#: Out-of-distribution images of each kind.
OUTLIERS = 16
#: Every such frame of a clip is shown.
STEP = 15
#: Values of ``min_reliability`` that are compared.
LEAST = (0.6, 0.65, 0.7, 0.75)
BOOTSTRAP = BootstrapConfig(unit='blocks')
WANT = Want(labels=True, confidence=True)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A frame that went through the pipeline."""

    kind: str
    place: str
    reliability: float
    confidence: float
    """Mean of the pixels', 0 to 1."""
    accuracy: float
    """Share of right pixels; 0 where there is no street."""
    wrong: npt.NDArray[np.int64]
    """int64 [256], wrong pixels by confidence."""
    right: npt.NDArray[np.int64]


def places(samples: Sequence[Sample]) -> list[str]:
    """Return the place of each sample, in their order."""
    found: list[str] = []
    last, run = None, 0
    for index, sample in enumerate(samples):
        number = int(re.findall(r'\d+', sample.image.stem)[-1])
        if sample.light == 'night':
            run += last is None or not 0 <= number - last < 20
            last = number
        else:
            run = index // 10
        found.append(f'{sample.source} {run}')
    return found


def see(
    pipeline: Pipeline, image: npt.NDArray[np.uint8], kind: str, place: str,
    truth: npt.NDArray[np.uint8] | None,
) -> Seen:  # fmt: skip
    """Show one picture by itself."""
    pipeline.reset(reason='a picture by itself')
    [result] = pipeline.process([Frame(image=image)], WANT)
    assert result.confidence is not None and result.labels is not None
    assert result.reliability is not None
    blank = np.zeros(256, np.int64)
    wrong, right, accuracy = blank, blank, 0.0
    if truth is not None:
        known = truth != UNLABELLED
        hit = known & (truth == result.labels)
        wrong, right = (
            np.bincount(result.confidence[mask], minlength=256) for mask in (known & ~hit, hit)
        )
        accuracy = float(hit.sum() / known.sum())
    return Seen(
        kind=kind, place=place, reliability=result.reliability,
        confidence=float(result.confidence.mean()) / 255, accuracy=accuracy, wrong=wrong,
        right=right,
    )  # fmt: skip


def real_frames(pipeline: Pipeline, data: Path, test: bool) -> list[Seen]:
    """Show the labelled frames that no weights were trained on."""
    sets = {'dusk': f'camvid:{data}/camvid:dusk', 'night': f'folder:{data}/night_dev:night'}
    if test:
        sets = {'day': f'camvid:{data}/camvid:day_test', **sets}
    seen = []
    for kind, name in sets.items():
        samples = open_dataset(name)
        # a third of a whole drive tells as much of it
        for sample, place in list(zip(samples, places(samples)))[:: 3 if kind == 'day' else 1]:
            assert sample.label is not None
            image, truth = read_image(sample.image), read_labels(sample.label)
            seen.append(see(pipeline, image, kind, place, truth))
    return seen


def blind_frames(pipeline: Pipeline, data: Path) -> list[Seen]:
    """Show pictures without a street; the street behind them is one of day_val or night_dev."""
    streets = [
        *open_dataset(f'camvid:{data}/camvid:day_val')[::12],
        *open_dataset(f'folder:{data}/night_dev:night')[::4],
    ]
    grounds = [read_image(sample.image) for sample in streets]
    seen = []
    for number, (kind, make) in enumerate(CORRUPTIONS.items()):
        for index in range(OUTLIERS):
            rng = np.random.default_rng((0, number, index))
            picture = make(grounds[index % len(grounds)], rng)
            seen.append(see(pipeline, picture, kind, f'{kind} {index}', None))
    return seen


def other_cameras(pipeline: Pipeline, data: Path) -> dict[str, list[float]]:
    """Return the reliability of frames of cameras that the weights were not calibrated on."""
    found: dict[str, list[float]] = {}
    for clip in sorted((data / 'clips').glob('*.mp4')):
        pipeline.reset(reason='another clip')
        found[clip.stem] = []
        for index, (_, frame) in enumerate(open_source(clip)):
            if index % STEP == 0 and isinstance(frame, Frame):
                [result] = pipeline.process([frame], WANT)
                assert result.reliability is not None
                found[clip.stem].append(result.reliability)
    return found


def correlation(seen: Sequence[Seen], name: str) -> list[float]:
    """Return Spearman's correlation of a score of frames with their accuracy, low and high."""
    score, accuracy = (np.array([getattr(f, key) for f in seen]) for key in (name, 'accuracy'))
    order = {place: number for number, place in enumerate({f.place: None for f in seen})}
    places = np.array([order[frame.place] for frame in seen])
    ends = spearman_interval(score, accuracy, places, BOOTSTRAP) or [np.nan, np.nan]
    return [spearman(score, accuracy), *ends]


def auroc(bad: npt.ArrayLike, good: npt.ArrayLike) -> float:
    """Return how often a level of ``good`` is above one of ``bad``, by counts [levels] of each."""
    low, high = np.asarray(bad, np.float64), np.asarray(good, np.float64)
    return float(high @ (low.cumsum() - low / 2) / (high.sum() * low.sum()))


def auroc_of_frames(score: str, bad: Sequence[Seen], good: Sequence[Seen]) -> float:
    """Return how often a score of ``good`` frames is above one of ``bad`` ones."""
    values = [getattr(frame, score) for frame in (*bad, *good)]
    places = np.unique(values, return_inverse=True)[1]
    levels = places.max() + 1
    return auroc(*(np.bincount(p, minlength=levels) for p in np.split(places, [len(bad)])))


def measure(real: Sequence[Seen], blind: Sequence[Seen]) -> dict[str, Any]:
    """Return every figure that the pictures give."""
    kinds = list(dict.fromkeys(frame.kind for frame in real))
    groups = {'all': real, **{kind: [f for f in real if f.kind == kind] for kind in kinds}}
    errors = [1 - frame.accuracy for frame in real]
    result: dict[str, Any] = {'frames': {}, 'blind': {}, 'risk_coverage': {}}
    for name, group in groups.items():
        wrong, right = (sum(getattr(f, side) for f in group) for side in ('wrong', 'right'))
        result['frames'][name] = {
            'frames': len(group),
            'places': len({frame.place for frame in group}),
            'accuracy': float(np.mean([frame.accuracy for frame in group])),
            'reliability': float(np.mean([frame.reliability for frame in group])),
            'least': min(frame.reliability for frame in group),
            **{
                f'spearman_{score}': correlation(group, score)
                for score in ('reliability', 'confidence')
            },
            'wrong_pixels_auroc': auroc(wrong, right),
        }
    for kind in CORRUPTIONS:
        bad = [frame for frame in blind if frame.kind == kind]
        result['blind'][kind] = {
            'frames': len(bad),
            'reliability': float(np.mean([frame.reliability for frame in bad])),
            'most': max(frame.reliability for frame in bad),
            'below': shares([frame.reliability for frame in bad]),
            **{
                f'auroc_{score}': auroc_of_frames(score, bad, real)
                for score in ('reliability', 'confidence')
            },
        }
    for score in ('reliability', 'confidence', 'accuracy'):
        coverage, risk = risk_coverage([getattr(f, score) for f in real], errors)
        result['risk_coverage'][score] = {
            'area': float(risk.mean()),
            **{f'{at:.0%}': float(risk[np.searchsorted(coverage, at)]) for at in (0.5, 0.8, 1.0)},
        }
    return result


def shares(reliability: Sequence[float]) -> dict[str, float]:
    """Return the share of frames that each ``min_reliability`` reports."""
    return {str(least): float(np.mean(np.array(reliability) < least)) for least in LEAST}


def figures(real: Sequence[Seen], blind: Sequence[Seen], out: Path) -> None:
    """Draw reliability against accuracy, risk against coverage, and reliability by kind."""
    kinds = list(dict.fromkeys(frame.kind for frame in real))
    colors = {'day': '#c9820e', 'dusk': '#a0459b', 'night': '#20509e'}
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout='constrained')
    for kind in kinds:
        group = [frame for frame in real if frame.kind == kind]
        left.scatter([f.reliability for f in group], [f.accuracy for f in group], s=14,
                     color=colors[kind], alpha=0.7, label=f'{kind} ({len(group)})')  # fmt: skip
    left.plot([0, 1], [0, 1], color='#999999', linewidth=0.8)
    lowest = min(min(f.reliability, f.accuracy) for f in real) - 0.05
    left.set(xlabel='reliability', ylabel='share of right pixels', xlim=(lowest, 1),
             ylim=(lowest, 1))  # fmt: skip
    left.legend(frameon=False)
    errors = [1 - frame.accuracy for frame in real]
    for score, style in (('accuracy', ':'), ('confidence', '--'), ('reliability', '-')):
        coverage, risk = risk_coverage([getattr(f, score) for f in real], errors)
        label = {'accuracy': 'best possible order', 'confidence': 'mean confidence'}
        right.plot(coverage, risk, style, color='#20509e' if style == '-' else '#777777',
                   label=label.get(score, score))  # fmt: skip
    right.set(xlabel='share of the frames kept', ylabel='share of wrong pixels in them',
              xlim=(0, 1), ylim=(0, None))  # fmt: skip
    right.legend(frameon=False)
    figure.savefig(out / 'reliability.png', dpi=110)

    rng = np.random.default_rng(0)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout='constrained', sharey=True)
    names = [*kinds, *CORRUPTIONS]
    for axis, score in zip(axes, ('reliability', 'confidence')):
        for place, name in enumerate(names):
            group = [frame for frame in (*real, *blind) if frame.kind == name]
            axis.scatter([getattr(f, score) for f in group],
                         place + rng.uniform(-0.28, 0.28, len(group)), s=9, alpha=0.6,
                         color=colors.get(name, '#b03a2e'))  # fmt: skip
        axis.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 1),
                 xlabel='mean confidence' if score == 'confidence' else score)  # fmt: skip
    axes[0].invert_yaxis()
    figure.savefig(out / 'blinded.png', dpi=110)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument('data', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--test', action='store_true')
    parser.add_argument('--route', default='auto')
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    pipeline = Pipeline.load(PipelineConfig(route=options.route), log=print)
    real = real_frames(pipeline, options.data, options.test)
    blind = blind_frames(pipeline, options.data)
    result = measure(real, blind) | {
        'clips': {
            name: {
                'frames': len(values),
                'least': min(values),
                'median': float(np.median(values)),
                'below': shares(values),
            }
            for name, values in other_cameras(pipeline, options.data).items()
        },
        'weights': pipeline.describe(),
    }
    content = json.dumps(result, indent=1, default=str) + '\n'
    (options.out / 'confidence.json').write_text(content, encoding='utf-8')
    figures(real, blind, options.out)
    print(content)


if __name__ == '__main__':
    main()
