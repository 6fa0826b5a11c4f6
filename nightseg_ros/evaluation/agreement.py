# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
How far what should be the same is the same, where there is no truth.

An exported graph has to compute what torch computes from the same weights. A translation has to
leave the scene as it was: semantic agreement asks whether a frozen segmenter sees the same before
and after; KID (Binkowski et al. 2018) whether the results are distributed like real pictures of
the wanted light, by features of our own encoder. Neither sees what a person sees: look at the
contact sheet. A model card is what a weights file says about itself, as Markdown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
from nightseg_ros.data.sample import DataError
from nightseg_ros.data.source import open_source
from nightseg_ros.evaluation.metrics import ConfusionMatrix, Floats, Image, number
from nightseg_ros.evaluation.sources import in_rgb
from nightseg_ros.networks.frozen_segmenter import FrozenSegmenter
from nightseg_ros.perception.frame import Frame
from nightseg_ros.runtime.backend import Backend, ON_CPU
from nightseg_ros.runtime.backends import available_backends, open_backend, OpenVINOBackend
from nightseg_ros.runtime.pixels import fit, HostPixels
from nightseg_ros.taxonomy import Taxonomy
from nightseg_ros.weights import network_tensors, Weights
import numpy as np
import torch
import yaml

#: The runtimes that have to compute what torch does.
OTHERS = tuple(name for name in ON_CPU if name != 'torch')
#: Steps of 255 by which a translated pixel may differ and still count as the same.
TOLERANCE = 2

# -- exported graphs -------------------------------------------------------------------------


def agreement(
    weights: Weights,
    images: Sequence[Image],
    log: Callable[[str], None] = print,
    backends: Sequence[str] = OTHERS,
) -> dict[str, float]:
    """
    Return the share of pixels, 0 to 1, on which each of the other runtimes agrees with torch.

    Those that are not installed are left out. ``images`` are uint8 [H, W, 3] RGB of any size.
    Labels agree when they are equal, translated pixels within ``TOLERANCE``. The graph that a
    runtime builds stays in the cache, so that the first frame in the node waits for none.
    """
    reference = open_backend('torch', 'cpu')
    batches = []
    for image in images:
        size = fit(image.shape[0], image.shape[1], weights.metadata.long_side)
        batches.append(reference.pixels.stack([reference.pixels.shrink(image, 'rgb', size)]))
    run = reference.load(weights, log)
    wanted = [run(batch)[0].astype(np.int16) for batch in batches]
    shares = {}
    present = available_backends()
    for name in backends:
        if present.get(name):
            if name == 'openvino-bf16':  # simulated where the CPU has none
                backend: Backend = OpenVINOBackend(bfloat16=True, simulated=True)
            else:
                backend = open_backend(name, 'cpu')
            run = backend.load(weights, log)
            gaps = [np.abs(run(batch)[0] - truth) for batch, truth in zip(batches, wanted)]
            # labels are planes, pictures have a colour axis
            same = [(gap <= (TOLERANCE if gap.ndim == 4 else 0)).ravel() for gap in gaps]
            shares[name] = float(np.concatenate(same).mean())
    return shares


def source_images(source: Path, count: int) -> list[Image]:
    """
    Return up to ``count`` frames, uint8 [H, W, 3] RGB, spread evenly where there is a number.

    ``DataError`` where an image, folder, video or bag has none.
    """
    frames = open_source(source)
    every = max(1, (frames.count or count) // count)
    images: list[Image] = []
    for index, (_, frame) in enumerate(frames):
        if index % every == 0 and isinstance(frame, Frame):
            images.append(in_rgb(frame))
        if len(images) == count:
            break
    if not images:
        raise DataError(f"'{source}' has no frame that can be read")
    return images


def made_up_images(long_side: int, count: int) -> Iterator[Image]:
    """Yield uint8 RGB pictures of soft, coloured shapes with noise, where no frames are given."""
    rng = np.random.default_rng(0)
    size = (long_side, max(32, long_side * 9 // 16))
    for _ in range(count):
        coarse = rng.integers(0, 256, (6, 10, 3)).astype(np.uint8)
        soft = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC).astype(np.int16)
        noise = rng.integers(-12, 13, soft.shape, np.int16)
        yield np.clip(soft + noise, 0, 255).astype(np.uint8)


# -- translations ----------------------------------------------------------------------------


class Translations:
    """What a frozen segmenter sees in pictures before and after; filled by ``add``."""

    def __init__(self, before: FrozenSegmenter, after: FrozenSegmenter, long_side: int) -> None:
        """
        Take who judges the pictures as they were and who the results; often the same one.

        Both look at ``long_side`` pixels. ``DataError`` for segmenters of two taxonomies.
        """
        if before.taxonomy != after.taxonomy:
            raise DataError(
                f"the segmenters label '{before.taxonomy.name}' and '{after.taxonomy.name}'; they "
                'must label one taxonomy'
            )
        self.before, self.after, self.long_side = before, after, long_side
        self._agreement = ConfusionMatrix(before.taxonomy)
        self.sources: list[Floats] = []
        self.results: list[Floats] = []
        """Features of each picture before and after, both by the encoder of ``after``."""

    def add(self, source: Image, result: Image) -> None:
        """Take in a picture and its translation, both uint8 [H, W, 3] RGB of one size."""
        if source.shape != result.shape:
            raise DataError(f'{source.shape} became {result.shape}; sizes must agree')
        was, seen = _judged(self.before, source, self.long_side)
        became, found = _judged(self.after, result, self.long_side)
        if self.after is not self.before:
            seen = features(self.after, source, self.long_side)
        self._agreement.add(was, became)
        self.sources.append(seen)
        self.results.append(found)

    def to_dict(self, real: Sequence[Floats] = ()) -> dict[str, Any]:
        """
        Return the figures in JSON types; ``real`` are ``features`` of real pictures as wanted.

        'kid' is that of the results, 'kid_source' that of the pictures as they were: what the
        translation had to bridge. Both are null without ``real``.
        """
        entry: dict[str, Any] = {
            'pictures': len(self.results),
            'agreement': round(self._agreement.pixel_accuracy(), 4),
            'agreement_miou': round(self._agreement.miou(), 4),
            'agreement_iou': dict(
                zip(self.before.taxonomy.classes, map(number, self._agreement.iou()))
            ),
            'kid': None,
            'kid_source': None,
        }
        for name, found in (('kid', self.results), ('kid_source', self.sources)):
            if len(real):
                mean, deviation = kid(np.stack(found), np.stack(real))
                entry[name] = {'mean': round(mean, 5), 'std': round(deviation, 5)}
        return entry


def features(judge: FrozenSegmenter, image: Image, long_side: int) -> Floats:
    """
    Return the encoder's features of uint8 [H, W, 3] RGB, averaged over the picture: float64 [C].

    Levels at strides 8 to 32 are put together, each divided by the root of its channel count, so
    that none outweighs the others.
    """
    return _judged(judge, image, long_side)[1]


def _judged(judge: FrozenSegmenter, image: Image, long_side: int) -> tuple[Image, Floats]:
    """Return labels uint8 [h, w] at half the network's size, and the pooled features."""
    size = fit(image.shape[0], image.shape[1], long_side)
    small = torch.from_numpy(HostPixels().shrink(image, 'rgb', size))
    with torch.inference_mode():
        x = small.permute(2, 0, 1)[None].float() / 127.5 - 1
        logits, levels = judge.logits_and_features(x)
        half = [side // 2 for side in size.padded]
        labels = torch.nn.functional.interpolate(logits, size=half, mode='bilinear').argmax(1)
        coarse = levels[1:] or levels
        pooled = [level.mean((0, 2, 3)).double() / level.shape[1] ** 0.5 for level in coarse]
    height, width = size.labels
    ids = labels[0, :height, :width].to(torch.uint8).numpy()
    return np.ascontiguousarray(ids), torch.cat(pooled).numpy()


def kid(
    one: Floats, other: Floats, *, subsets: int = 100, size: int = 100, seed: int = 0
) -> tuple[float, float]:
    """
    Return mean and standard deviation over subsets of the squared MMD of float64 [N, C], [M, C].

    The estimate is unbiased (equation 4 of the paper), with the kernel (x·y / C + 1)³ on features
    scaled by the deviation of both together; it can fall below 0 where the sets are alike. Subsets
    have ``size`` features of each set, or two thirds of the smaller set if that is less.
    ``DataError`` for fewer than 4 pictures a set.
    """
    if min(len(one), len(other)) < 4:
        raise DataError(
            f'KID needs at least 4 pictures on each side, got {len(one)} and {len(other)}'
        )
    scale = np.concatenate([one, other]).std(axis=0) + 1e-9
    one, other = one / scale, other / scale
    size = min(size, 2 * min(len(one), len(other)) // 3)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(subsets):
        x = one[rng.choice(len(one), size, replace=False)]
        y = other[rng.choice(len(other), size, replace=False)]
        kernels = [(a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
        within = sum(float(k.sum() - np.trace(k)) for k in kernels[:2]) / (size * (size - 1))
        values.append(within - 2 * float(kernels[2].mean()))
    return float(np.mean(values)), float(np.std(values))


# -- model cards -----------------------------------------------------------------------------

USES = {
    'segment': 'labels every pixel of a camera frame',
    'translate': 'turns a night frame into a day frame before it is labelled',
    'illumination': 'tells day, dusk, night and glare apart',
}


def model_card(weights: Weights, agreement: Mapping[str, float] | None = None) -> str:
    """
    Return the card of ``weights``; ``agreement`` are shares by runtime, as ``agreement`` gives.

    Nothing in it is made up: what the metadata does not say is said to be missing.
    """
    metadata = weights.metadata
    tensors = network_tensors(weights.tensors)
    count = sum(tensor.numel() for name, tensor in tensors.items() if 'running_' not in name)
    rows = {
        'Task': f'{metadata.task}: {USES[metadata.task]}',
        'Network': f'`{metadata.network}` {metadata.arch or ""}'.strip(),
        'Parameters': f'{count / 1e6:.2f} M',
        'Input': f'RGB, long side {metadata.long_side} pixels',
        'Trained on': metadata.data or 'not stated',
        'Synthetic night': f'{metadata.ratio:.0%} of the training samples',
        'Licence': metadata.license or 'not stated',
        'Code': f'commit {metadata.commit}' if metadata.commit else 'not stated',
        'SHA-256': f'`{weights.sha256}`',
    }
    lines = [f'# {weights.path.stem}', '', '| | |', '|---|---|']
    lines += [f'| {name} | {_cell(value)} |' for name, value in rows.items()]
    if metadata.taxonomy is not None:
        taxonomy = Taxonomy.from_dict(metadata.taxonomy)
        ids = ', '.join(f'{index} {name}' for index, name in enumerate(taxonomy.classes))
        lines += ['', f'Labels (`{taxonomy.name}`): {ids}; 255 is unlabelled.']
    lines += ['', '## Scores', '', *_scores(metadata.metrics)]
    if agreement:
        lines += ['', '## Exported graph', '']
        lines += [
            f'- {k}: {v:.4%} of the pixels as torch gives them' for k, v in agreement.items()
        ]
    lines += ['', '## Training', '']
    if metadata.training:
        settings = yaml.safe_dump(dict(metadata.training), default_flow_style=None).strip()
        lines += ['```yaml', settings, '```']
    else:
        lines += ['Not stated.']
    return '\n'.join(lines) + '\n'


def _scores(metrics: Mapping[str, Any]) -> list[str]:
    """Return a table: a row for each data set, a column for each figure."""
    runs = {name: run for name, run in metrics.items() if isinstance(run, Mapping)}
    if not runs:
        return ['None are stored in this file.']
    columns = list(dict.fromkeys(key for run in runs.values() for key in run))
    lines = [f'| data set | {" | ".join(columns)} |', f'|---{"|---" * len(columns)}|']
    for name, run in runs.items():
        lines.append(f'| {" | ".join([_cell(name), *(_cell(run.get(key)) for key in columns)])} |')
    others = [f'{key}: {value}' for key, value in metrics.items() if key not in runs]
    return [*lines, '', *others] if others else lines


def _cell(value: Any) -> str:
    if value is None:
        return '–'
    if isinstance(value, (list, tuple)):
        return f'[{", ".join(map(_cell, value))}]'
    if isinstance(value, float):
        return f'{value:.3f}'
    return str(value).replace('|', '\\|').replace('\n', ' ')
