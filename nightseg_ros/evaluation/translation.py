# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
How good a translator is, where no picture has its counterpart in the other light.

Semantic agreement asks whether a frozen segmenter sees the same scene before and after; KID
(Binkowski et al. 2018) whether the results are distributed like real pictures of the wanted
light, by features of our own encoder. Neither sees what a person sees: look at the contact sheet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from nightseg_ros.evaluation.metrics import ConfusionMatrix
from nightseg_ros.networks.frozen_segmenter import FrozenSegmenter
from nightseg_ros.runtime.pixels import HostPixels, fit

Image = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float64]


class TranslationError(ValueError):
    """Too few pictures to judge by, or segmenters that cannot be compared."""


@dataclass(kw_only=True)
class Translations:
    """What a frozen segmenter sees in pictures before and after; filled by ``add``."""

    before: FrozenSegmenter
    """Judges the pictures as they were."""
    after: FrozenSegmenter
    """Judges the results; often the same one."""
    long_side: int
    """Long side in pixels at which both look."""
    agreement: ConfusionMatrix = field(init=False)
    """Labels before (as the truth) against labels after."""
    sources: list[Features] = field(default_factory=list)
    results: list[Features] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse segmenters of two taxonomies."""
        if self.before.taxonomy != self.after.taxonomy:
            raise TranslationError(
                f"the segmenters label '{self.before.taxonomy.name}' and "
                f"'{self.after.taxonomy.name}'; they must label one taxonomy"
            )
        self.agreement = ConfusionMatrix(self.before.taxonomy)

    def add(self, source: Image, result: Image) -> None:
        """Take in a picture and its translation, both uint8 [H, W, 3] RGB of one size."""
        if source.shape != result.shape:
            raise TranslationError(f'{source.shape} became {result.shape}; sizes must agree')
        was, seen = _look(self.before, source, self.long_side)
        became, found = _look(self.after, result, self.long_side)
        if self.after is not self.before:
            # both sides of a distance have to come from one encoder
            _, seen = _look(self.after, source, self.long_side)
        self.agreement.add(was, became)
        self.sources.append(seen)
        self.results.append(found)

    def to_dict(self, real: Sequence[Features] = (), *, seed: int = 0) -> dict[str, Any]:
        """
        Return the figures in JSON types; ``real`` are ``features`` of real pictures as wanted.

        'kid' is that of the results, 'kid_source' that of the pictures as they were: what the
        translation had to bridge. Both are null without ``real``.
        """
        entry: dict[str, Any] = {
            'pictures': len(self.results),
            'agreement': round(self.agreement.pixel_accuracy(), 4),
            'agreement_miou': round(self.agreement.miou(), 4),
            'agreement_iou': {
                name: None if np.isnan(value) else round(float(value), 4)
                for name, value in zip(self.before.taxonomy.classes, self.agreement.iou())
            },
            'kid': None,
            'kid_source': None,
        }
        if len(real):
            for name, found in (('kid', self.results), ('kid_source', self.sources)):
                mean, deviation = kid(np.stack(found), np.stack(real), seed=seed)
                entry[name] = {'mean': round(mean, 5), 'std': round(deviation, 5)}
        return entry


def features(judge: FrozenSegmenter, image: Image, long_side: int) -> Features:
    """
    Return the encoder's features of uint8 [H, W, 3] RGB, averaged over the picture: float64 [C].

    Levels at strides 8 to 32 are put together, each divided by the root of its channel count, so
    that none outweighs the others.
    """
    return _look(judge, image, long_side)[1]


def kid(
    one: Features, other: Features, *, subsets: int = 100, size: int = 100, seed: int = 0
) -> tuple[float, float]:
    """
    Return mean and standard deviation over subsets of the squared MMD of float64 [N, C], [M, C].

    The estimate is unbiased, with the kernel (x·y / C + 1)³ on features scaled by the deviation
    of both together; it can fall below 0 where the sets are alike. Subsets have ``size`` features
    of each set, or two thirds of the smaller set if that is less. ``TranslationError`` for fewer
    than 4 pictures a set.
    """
    if min(len(one), len(other)) < 4:
        raise TranslationError(
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
        values.append(_squared_mmd(x, y))
    return float(np.mean(values)), float(np.std(values))


def _squared_mmd(x: Features, y: Features) -> float:
    """Return the unbiased estimate for float64 [n, C] and [n, C] (equation 4 of the paper)."""
    count, channels = x.shape
    kernels = [(a @ b.T / channels + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    within = sum(float(k.sum() - np.trace(k)) for k in kernels[:2]) / (count * (count - 1))
    return float(within - 2 * kernels[2].mean())


def _look(
    judge: FrozenSegmenter, image: Image, long_side: int
) -> tuple[npt.NDArray[np.uint8], Features]:
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


def sheet(pairs: Sequence[tuple[Image, Image, str]], *, columns: int = 2) -> Image:
    """Return a contact sheet RGB uint8 of pictures before and after, with a line above each."""
    from nightseg_ros.data.pictures import contact_sheet

    # every cell of a sheet has one height
    height, width = pairs[0][0].shape[:2]
    tiles = []
    for before, after, text in pairs:
        fitted = [_letterbox(picture, height, width) for picture in (before, after)]
        tiles.append((fitted[0], fitted[1], text, (255, 255, 255)))
    return contact_sheet(tiles, columns=columns, tile_width=400)


def _letterbox(picture: Image, height: int, width: int) -> Image:
    factor = min(height / picture.shape[0], width / picture.shape[1])
    size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
    result = np.zeros((height, width, 3), np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    result[top : top + size[1], left : left + size[0]] = cv2.resize(
        picture, size, interpolation=cv2.INTER_AREA
    )
    return result
