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
from itertools import islice
import json
from pathlib import Path
import re
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import read_image, read_labels, Sample
from nightseg_ros.data.source import open_source
from nightseg_ros.evaluation.metrics import (
    BootstrapConfig,
    ranks,
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
SCORES = ('reliability', 'confidence')
COLORS = {'day': '#c9820e', 'dusk': '#a0459b', 'night': '#20509e'}


class Seen(NamedTuple):
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
    truth: npt.NDArray[np.uint8] | None = None,
) -> Seen:  # fmt: skip
    """Show one picture by itself."""
    pipeline.reset(reason='a picture by itself')
    [result] = pipeline.process([Frame(image=image)], Want(labels=True, confidence=True))
    assert result.confidence is not None and result.labels is not None
    assert result.reliability is not None
    known = np.zeros_like(result.labels, bool) if truth is None else truth != UNLABELLED
    hit = known & (truth == result.labels)
    counts = (np.bincount(result.confidence[at], minlength=256) for at in (known & ~hit, hit))
    accuracy = float(hit.sum() / max(known.sum(), 1))
    mean = float(result.confidence.mean()) / 255
    return Seen(kind, place, result.reliability, mean, accuracy, *counts)


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
    return [
        see(
            pipeline,
            make(grounds[index % len(grounds)], np.random.default_rng((0, number, index))),
            kind,
            f'{kind} {index}',
        )
        for number, (kind, make) in enumerate(CORRUPTIONS.items())
        for index in range(OUTLIERS)
    ]


def other_cameras(pipeline: Pipeline, data: Path) -> dict[str, dict[str, Any]]:
    """Return the reliability on clips of cameras that the weights were not calibrated on."""
    found = {}
    for clip in sorted((data / 'clips').glob('*.mp4')):
        pipeline.reset(reason='another clip')
        frames = [frame for _, frame in islice(open_source(clip), 0, None, STEP)]
        shown = [pipeline.process([f])[0].reliability for f in frames if isinstance(f, Frame)]
        values = np.array(shown, float)
        found[clip.stem] = {
            'frames': len(values), 'least': values.min(), 'median': float(np.median(values)),
            'below': shares(values),
        }  # fmt: skip
    return found


def shares(reliability: npt.ArrayLike) -> dict[str, float]:
    """Return the share of frames that each ``min_reliability`` reports."""
    return {str(least): float(np.mean(np.asarray(reliability) < least)) for least in LEAST}


def values_of(score: str, frames: Sequence[Seen]) -> npt.NDArray[np.float64]:
    """Return float64 [N], one field of the frames."""
    return np.array([getattr(frame, score) for frame in frames], float)


def correlation(seen: Sequence[Seen], name: str) -> list[float | None]:
    """Return Spearman's correlation of a score of frames with their accuracy, low and high."""
    score, accuracy = values_of(name, seen), values_of('accuracy', seen)
    units = np.unique([frame.place for frame in seen], return_inverse=True)[1]
    ends = spearman_interval(score, accuracy, units, BootstrapConfig(unit='blocks'))
    return [spearman(score, accuracy), *(ends or (None, None))]


def auroc_of_pixels(bad: npt.NDArray[np.int64], good: npt.NDArray[np.int64]) -> float:
    """Return how often a level of ``good`` is above one of ``bad``, by counts [levels] of each."""
    return float(good @ (bad.cumsum() - bad / 2) / (good.sum() * bad.sum()))


def auroc_of_frames(score: str, bad: Sequence[Seen], good: Sequence[Seen]) -> float:
    """Return how often a score of ``good`` frames is above one of ``bad`` ones."""
    high = values_of(score, good)
    _, among_all = np.split(ranks([*values_of(score, bad), *high]), [len(bad)])
    return float((among_all - ranks(high)).mean() / len(bad))


def measure(real: Sequence[Seen], blind: Sequence[Seen]) -> dict[str, Any]:
    """Return every figure that the pictures give."""
    kinds = dict.fromkeys(frame.kind for frame in real)
    groups = {'all': real, **{kind: [f for f in real if f.kind == kind] for kind in kinds}}
    outliers = {kind: [f for f in blind if f.kind == kind] for kind in CORRUPTIONS}
    return {
        'frames': {
            name: {
                'frames': len(group),
                'places': len({frame.place for frame in group}),
                'accuracy': values_of('accuracy', group).mean(),
                'reliability': values_of('reliability', group).mean(),
                'least': values_of('reliability', group).min(),
                **{f'spearman_{score}': correlation(group, score) for score in SCORES},
                'wrong_pixels_auroc': auroc_of_pixels(
                    sum(f.wrong for f in group), sum(f.right for f in group)
                ),
            }
            for name, group in groups.items()
        },
        'blind': {
            kind: {
                'frames': len(bad),
                'reliability': values_of('reliability', bad).mean(),
                'most': values_of('reliability', bad).max(),
                'below': shares(values_of('reliability', bad)),
                **{f'auroc_{score}': auroc_of_frames(score, bad, real) for score in SCORES},
            }
            for kind, bad in outliers.items()
        },
    }


def figures(real: Sequence[Seen], blind: Sequence[Seen], out: Path) -> None:
    """Draw reliability against accuracy, risk against coverage, and reliability by kind."""
    kinds = list(dict.fromkeys(frame.kind for frame in real))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout='constrained')
    for kind in kinds:
        group = [frame for frame in real if frame.kind == kind]
        left.scatter(values_of('reliability', group), values_of('accuracy', group), s=14,
                     color=COLORS[kind], alpha=0.7, label=f'{kind} ({len(group)})')  # fmt: skip
    left.axline((0, 0), slope=1, color='#999999', linewidth=0.8)
    lowest = min(min(f.reliability, f.accuracy) for f in real) - 0.05
    left.set(xlabel='reliability', ylabel='share of right pixels', xlim=(lowest, 1),
             ylim=(lowest, 1))  # fmt: skip
    errors = 1 - values_of('accuracy', real)
    for score, label, style in (
        ('accuracy', 'best possible order', ':'), ('confidence', 'mean confidence', '--'),
        ('reliability', 'reliability', '-'),
    ):  # fmt: skip
        coverage, risk = risk_coverage(values_of(score, real), errors)
        right.plot(coverage, risk, style, color='#20509e' if style == '-' else '#777777',
                   label=label)  # fmt: skip
    right.set(xlabel='share of the frames kept', ylabel='share of wrong pixels in them',
              xlim=(0, 1), ylim=(0, None))  # fmt: skip
    for axis in (left, right):
        axis.legend(frameon=False)
    figure.savefig(out / 'reliability.png', dpi=110)

    rng = np.random.default_rng(0)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout='constrained', sharey=True)
    names = [*kinds, *CORRUPTIONS]
    for axis, score in zip(axes, SCORES):
        for place, name in enumerate(names):
            shown = values_of(score, [f for f in (*real, *blind) if f.kind == name])
            axis.scatter(shown, place + rng.uniform(-0.28, 0.28, len(shown)), s=9, alpha=0.6,
                         color=COLORS.get(name, '#b03a2e'))  # fmt: skip
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
    result = measure(real, blind)
    result |= {'clips': other_cameras(pipeline, options.data), 'weights': pipeline.describe()}
    content = json.dumps(result, indent=1, default=str) + '\n'
    (options.out / 'confidence.json').write_text(content, encoding='utf-8')
    figures(real, blind, options.out)
    print(content)


if __name__ == '__main__':
    main()
