# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Whether confidence and reliability keep what they promise: the figures of docs/results.md.

``python bench/confidence.py DATA OUT [--test]``: DATA holds ``camvid``, ``night_dev`` and
``clips``; OUT gets confidence.json and two figures. Without ``--test`` the frames of ``day_test``
stay unseen. Frames go through ``Pipeline.process`` one by one.

A place is ten neighbouring labelled frames of a drive, or those frames by night of one camera
whose numbers lie within 20 of each other; intervals draw places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
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
import tyro

plt.switch_backend('Agg')
#: Out-of-distribution images of each kind.
OUTLIERS = 16
#: Every such frame of a clip is shown.
STEP = 15
#: Values of ``min_reliability`` that are compared.
LEAST = (0.6, 0.65, 0.7, 0.75)
SCORES = ('reliability', 'confidence')
COLORS = {'day': '#c9820e', 'dusk': '#a0459b', 'night': '#20509e'}
#: A frame that went through the pipeline: mean confidence from 0 to 1, share of right pixels (0
#: where there is no street), wrong and right pixels by confidence.
SEEN = np.dtype([
    ('kind', 'U16'), ('place', 'U64'), ('reliability', float), ('confidence', float),
    ('accuracy', float), ('wrong', int, 256), ('right', int, 256),
])  # fmt: skip


def places(samples: Sequence[Sample]) -> Iterator[str]:
    """Yield the place of each sample, in their order."""
    last, run = None, 0
    for index, sample in enumerate(samples):
        number = int(re.findall(r'\d+', sample.image.stem)[-1])
        if sample.light == 'night':
            run += last is None or not 0 <= number - last < 20
            last = number
        else:
            run = index // 10
        yield f'{sample.source} {run}'


def see(
    pipeline: Pipeline, image: npt.NDArray[np.uint8], kind: str, place: str,
    truth: npt.NDArray[np.uint8] | None = None,
) -> tuple[Any, ...]:  # fmt: skip
    """Show one picture by itself, and return the fields of ``SEEN``."""
    pipeline.reset(reason='a picture by itself')
    [result] = pipeline.process([Frame(image=image)], Want(labels=True, confidence=True))
    assert result.confidence is not None and result.labels is not None
    known = np.zeros_like(result.labels, bool) if truth is None else truth != UNLABELLED
    hit = known & (truth == result.labels)
    counts = (np.bincount(result.confidence[at], minlength=256) for at in (known & ~hit, hit))
    accuracy, mean = hit.sum() / max(known.sum(), 1), result.confidence.mean() / 255
    return kind, place, result.reliability, mean, accuracy, *counts


def real_frames(pipeline: Pipeline, data: Path, test: bool) -> Iterator[tuple[Any, ...]]:
    """Show the labelled frames that no weights were trained on."""
    sets = {'dusk': f'camvid:{data}/camvid:dusk', 'night': f'folder:{data}/night_dev:night'}
    if test:
        sets = {'day': f'camvid:{data}/camvid:day_test', **sets}
    for kind, name in sets.items():
        samples = open_dataset(name)
        # a third of a whole drive tells as much of it
        every = 3 if kind == 'day' else 1
        for sample, place in islice(zip(samples, places(samples)), 0, None, every):
            assert sample.label is not None
            truth = read_labels(sample.label)
            yield see(pipeline, read_image(sample.image), kind, place, truth)


def blind_frames(pipeline: Pipeline, data: Path) -> Iterator[tuple[Any, ...]]:
    """Show pictures without a street; the street behind them is one of day_val or night_dev."""
    streets = [
        *open_dataset(f'camvid:{data}/camvid:day_val')[::12],
        *open_dataset(f'folder:{data}/night_dev:night')[::4],
    ]
    grounds = [read_image(sample.image) for sample in streets]
    for number, (kind, make) in enumerate(CORRUPTIONS.items()):
        for index in range(OUTLIERS):
            rng = np.random.default_rng((0, number, index))
            yield see(pipeline, make(grounds[index % len(grounds)], rng), kind, '')


def other_cameras(pipeline: Pipeline, data: Path) -> dict[str, dict[str, Any]]:
    """Return the reliability on clips of cameras that the weights were not calibrated on."""
    found = {}
    for clip in sorted((data / 'clips').glob('*.mp4')):
        pipeline.reset(reason='another clip')
        frames = [frame for _, frame in islice(open_source(clip), 0, None, STEP)]
        shown = [pipeline.process([f])[0].reliability for f in frames if isinstance(f, Frame)]
        values = np.array(shown, float)
        found[clip.stem] = {
            'frames': len(values), 'least': values.min(), 'median': np.median(values),
            'below': below(values),
        }  # fmt: skip
    return found


def below(reliability: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return the share of frames that each ``min_reliability`` reports."""
    return {str(least): float(np.mean(reliability < least)) for least in LEAST}


def correlation(score: npt.NDArray[np.float64], seen: Any) -> list[float | None]:
    """Return Spearman's correlation of a score of frames with their accuracy, low and high."""
    units = np.unique(seen.place, return_inverse=True)[1]
    ends = spearman_interval(score, seen.accuracy, units, BootstrapConfig(unit='blocks'))
    return [spearman(score, seen.accuracy), *(ends or (None, None))]


def auroc(bad: npt.NDArray[np.float64], good: npt.NDArray[np.float64]) -> float:
    """Return how often a score of ``good`` frames is above one of ``bad`` ones."""
    return float(((good > bad[:, None]) + 0.5 * (good == bad[:, None])).mean())


def auroc_of_pixels(bad: npt.NDArray[np.int64], good: npt.NDArray[np.int64]) -> float:
    """Return how often a level of ``good`` is above one of ``bad``, by counts [levels] of each."""
    return float(good @ (bad.cumsum() - bad / 2) / (good.sum() * bad.sum()))


def measure(real: Any, blind: Any) -> dict[str, Any]:
    """Return every figure that the pictures give."""
    groups = {'all': real, **{kind: real[real.kind == kind] for kind in dict.fromkeys(real.kind)}}
    outliers = {kind: blind[blind.kind == kind] for kind in CORRUPTIONS}
    return {
        'frames': {
            name: {
                'frames': len(group),
                'places': len(set(group.place)),
                'accuracy': group.accuracy.mean(),
                'reliability': group.reliability.mean(),
                'least': group.reliability.min(),
                **{f'spearman_{score}': correlation(group[score], group) for score in SCORES},
                'wrong_pixels_auroc': auroc_of_pixels(group.wrong.sum(0), group.right.sum(0)),
            }
            for name, group in groups.items()
        },
        'blind': {
            kind: {
                'frames': len(bad),
                'reliability': bad.reliability.mean(),
                'most': bad.reliability.max(),
                'below': below(bad.reliability),
                **{f'auroc_{score}': auroc(bad[score], real[score]) for score in SCORES},
            }
            for kind, bad in outliers.items()
        },
    }


def figures(real: Any, blind: Any, out: Path) -> None:
    """Draw reliability against accuracy, risk against coverage, and reliability by kind."""
    kinds = list(dict.fromkeys(real.kind))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout='constrained')
    for kind in kinds:
        group = real[real.kind == kind]
        left.scatter(group.reliability, group.accuracy, s=14, color=COLORS[kind], alpha=0.7,
                     label=f'{kind} ({len(group)})')  # fmt: skip
    left.axline((0, 0), slope=1, color='#999999', linewidth=0.8)
    ends = (min(real.reliability.min(), real.accuracy.min()) - 0.05, 1)
    left.set(xlabel='reliability', ylabel='share of right pixels', xlim=ends, ylim=ends)
    for score, label, style in (
        ('accuracy', 'best possible order', ':'), ('confidence', 'mean confidence', '--'),
        ('reliability', 'reliability', '-'),
    ):  # fmt: skip
        right.plot(*risk_coverage(real[score], 1 - real.accuracy), style, label=label,
                   color='#20509e' if style == '-' else '#777777')  # fmt: skip
    right.set(xlabel='share of the frames kept', ylabel='share of wrong pixels in them',
              xlim=(0, 1), ylim=(0, None))  # fmt: skip
    for axis in (left, right):
        axis.legend(frameon=False)
    figure.savefig(out / 'reliability.png', dpi=110)

    rng = np.random.default_rng(0)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout='constrained', sharey=True)
    names = [*kinds, *CORRUPTIONS]
    for axis, score in zip(axes, SCORES):
        for row, name in enumerate(names):
            shown = blind if name in CORRUPTIONS else real
            shown = shown[shown.kind == name][score]
            axis.scatter(shown, row + rng.uniform(-0.28, 0.28, len(shown)), s=9, alpha=0.6,
                         color=COLORS.get(name, '#b03a2e'))  # fmt: skip
        axis.set(yticks=range(len(names)), yticklabels=names, xlim=(0, 1),
                 xlabel='mean confidence' if score == 'confidence' else score)  # fmt: skip
    axes[0].invert_yaxis()
    figure.savefig(out / 'blinded.png', dpi=110)


def main(data: Path, out: Path, /, *, test: bool = False) -> None:
    """Measure, print and draw."""
    out.mkdir(parents=True, exist_ok=True)
    pipeline = Pipeline.load(PipelineConfig(), log=print)
    real, blind = (
        np.array(list(frames), SEEN).view(np.recarray)
        for frames in (
            real_frames(pipeline, data, test),
            blind_frames(pipeline, data),
        )
    )
    result = measure(real, blind)
    result |= {'clips': other_cameras(pipeline, data), 'weights': pipeline.describe()}
    content = json.dumps(result, indent=1, default=str) + '\n'
    (out / 'confidence.json').write_text(content, encoding='utf-8')
    figures(real, blind, out)
    print(content)


if __name__ == '__main__':
    tyro.cli(main)
