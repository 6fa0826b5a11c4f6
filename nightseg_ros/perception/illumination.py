# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
How light it is, from a 96×64 thumbnail: score and state.

Brightness is no answer: auto-exposure makes street-lit night frames (mean luma about 120) brighter
than many day frames (about 110). The score therefore comes from a small network that was trained
while gain, gamma and white balance were drawn at random (``nightseg_ros.training.illumination``);
``docs/results.md`` compares it with statistics and with a mean-luma threshold on cameras
that neither was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
import math
from typing import Any, Literal

import cv2
from nightseg_ros.weights import Weights, WeightsError
import numpy as np
import numpy.typing as npt

State = Literal['day', 'dusk', 'night', 'glare']
Image = npt.NDArray[np.uint8]

#: Below it is night, above ``BRIGHT`` day, between the two dusk.
DARK = 0.35
BRIGHT = 0.65
#: Height and width of a thumbnail.
THUMBNAIL_SIZE = (64, 96)


@dataclass(frozen=True, kw_only=True, slots=True)
class Illumination:
    """The light in one frame."""

    score: float
    """From 0 (dark) to 1 (daylight); NaN only where an estimate failed."""
    state: State
    features: dict[str, float] = field(default_factory=dict)
    """What the score comes from: the network's ``logit``, ``ground_light`` and ``glare``."""


def state_of(score: float) -> State:
    """Return the state of a score without memory; a ``Router`` adds hysteresis and dwell."""
    if score < DARK:
        return 'night'
    return 'day' if score > BRIGHT else 'dusk'


def thumbnail(
    image: npt.NDArray[np.uint8],
    order: Literal['rgb', 'bgr'] = 'rgb',
    size: tuple[int, int] = THUMBNAIL_SIZE,
) -> Image:
    """
    Shrink uint8 [H, W, 3] of any size to RGB uint8 [h, w, 3]; the aspect is not kept.

    Area interpolation of a whole 720p frame costs 4 ms. A bilinear step to three times the wanted
    size first costs a tenth of that and hides no lamp that three pixels of the frame can show.
    """
    height, width = size
    if image.shape[0] > 3 * height and image.shape[1] > 3 * width:
        image = cv2.resize(  # type: ignore[assignment]
            image, (3 * width, 3 * height), interpolation=cv2.INTER_LINEAR
        )
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    if order == 'bgr':
        small = small[:, :, ::-1]
    return np.ascontiguousarray(small, np.uint8)


def ground_light(image: Image) -> float:
    """Return the median luma of the lower half over the 99th percentile of RGB uint8 [h, w, 3]."""
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)[:, :, 0]
    middle = luma.shape[0] // 2
    return _quantile(luma[middle:], 0.5) / max(_quantile(luma, 0.99), 1.0)


def _quantile(luma: npt.NDArray[Any], share: float) -> float:
    """Return the level below or at which ``share`` of the pixels lie."""
    counts = np.cumsum(np.bincount(luma.ravel(), minlength=256))
    return float(np.searchsorted(counts, share * counts[-1]))


#: A glare source covers at least this share of the frame (31 pixels of the thumbnail) …
GLARE_AREA = 0.005
#: … and lifts the pixels around it by at least this share of what is left up to white.
GLARE_HALO = 0.4
#: A source whose centre is higher than this share of the frame is a lamp, the sun or the sky.
GLARE_HORIZON = 0.33


def glare(image: Image) -> float:
    """
    Return how strong a dazzling light outside the sky is, 0 (none) to 1, in RGB uint8 [h, w, 3].

    A source is a saturated blob (luma ≥ 245) of at least ``GLARE_AREA`` whose centre lies below
    ``GLARE_HORIZON`` and which does not reach the top eighth of the frame. Its strength is that
    of its halo: the lower quartile of the luma 3 to 5 pixels from its edge, less the median far
    from it, over what that median leaves up to white. The lower quartile demands a halo on all
    sides: a white van, a wet road or a gap of sky between trees is bright on its inside only.

    No real frame is labelled as glare: recall is known for rendered head lamps alone.
    """
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    height, width = luma.shape
    saturated = (luma >= 245).astype(np.uint8)
    least = GLARE_AREA * luma.size
    if cv2.countNonZero(saturated) < least:
        return 0.0
    count, labels, stats, centres = cv2.connectedComponentsWithStats(saturated, connectivity=8)
    strength = 0.0
    for index in range(1, count):
        if (
            stats[index, cv2.CC_STAT_AREA] < least
            or stats[index, cv2.CC_STAT_TOP] < height / 8
            or centres[index, 1] < GLARE_HORIZON * height
        ):
            continue
        distance = cv2.distanceTransform((labels != index).astype(np.uint8), cv2.DIST_L2, 3)
        scale = width / 96
        near = luma[(distance >= 3 * scale) & (distance <= 5 * scale)]
        far = luma[distance >= 14 * scale]
        if not near.size or not far.size:
            continue
        background = float(np.median(far))
        lift = (float(np.percentile(near, 25)) - background) / max(255 - background, 1.0)
        strength = max(strength, lift)
    return min(strength, 1.0)


class IlluminationEstimator:
    """
    Scores thumbnails with the network, in plain numpy.

    For one frame this is faster than torch (0.6 ms) and needs no exported graph; batch
    normalisation is folded into the convolutions.

    The network knows day and night only and calls dusk under a bright sky day. So its answer is
    multiplied by the linear light of the road relative to the sky (``ground_light`` to the power
    2.2) where that is below what 99 % of the day frames of every training camera show.
    """

    def __init__(self, weights: Weights) -> None:
        """Take weights; ``WeightsError`` where they are for another task."""
        if weights.metadata.task != 'illumination':
            raise WeightsError(
                f"weights '{weights.path}' are for the task '{weights.metadata.task}', not for "
                "'illumination'"
            )
        self.weights = weights.described()
        self._floor = float(weights.metadata.arch.get('floor', 0.02))
        arrays = weights.arrays()
        try:
            self._layers = _fold(arrays)
            self._head = arrays['head.weight'].astype(np.float32)[0], float(arrays['head.bias'][0])
            self._day_ground = float(arrays['day_ground'])
            if self._head[0].size != 2 * self._layers[-1][0].shape[1]:
                raise ValueError('the head has another number of channels')
        except (KeyError, IndexError, ValueError) as error:
            raise WeightsError(
                f"weights '{weights.path}' are not those of an illumination network ({error}); "
                'train one with nightseg_ros.training.illumination'
            ) from error

    def estimate(self, thumbnails: Image) -> list[Illumination]:
        """
        Estimate RGB uint8 [B, 64, 96, 3] frame by frame.

        Glare is only stated where the score is not daylight: by day the sun stands in the sky,
        and a white wall beside dark trees looks as a head lamp does. Where the network gives no
        number, the score is NaN and the state dusk.
        """
        found = []
        for image in thumbnails:
            logit, ground, dazzle = self._logit(image), ground_light(image), glare(image)
            known = math.isfinite(logit)
            score = 1 / (1 + math.exp(-max(-60.0, min(60.0, logit)))) if known else math.nan
            if ground < self._day_ground:
                score *= (ground / self._day_ground) ** 2.2
            state = state_of(score)
            if known and state != 'day' and dazzle > GLARE_HALO:
                state = 'glare'
            features = {'logit': logit, 'ground_light': ground, 'glare': dazzle}
            found.append(Illumination(score=score, state=state, features=features))
        return found

    def _logit(self, image: Image) -> float:
        values = image.astype(np.float32)
        values *= 1 / 255
        values -= values.mean()
        values *= 1 / math.sqrt(float(np.mean(values * values)) + self._floor**2)
        for index, (weight, bias) in enumerate(self._layers):
            values = _convolve(values, weight, bias, stride=2 if index < 3 else 1)
        pixels = values.reshape(-1, values.shape[-1])
        weight, bias_of_head = self._head
        channels = pixels.shape[1]
        return float(
            pixels.mean(axis=0) @ weight[:channels]
            + pixels.max(axis=0) @ weight[channels:]
            + bias_of_head
        )


def _fold(
    tensors: Mapping[str, npt.NDArray[np.float32]],
) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Return per convolution [9 · inputs, outputs] and bias [outputs], batch norm folded in."""
    layers = []
    index = 0
    while f'body.{index}.weight' in tensors:
        weight = tensors[f'body.{index}.weight'].astype(np.float64)
        gamma, beta, mean, variance = (
            tensors[f'body.{index + 1}.{key}'].astype(np.float64)
            for key in ('weight', 'bias', 'running_mean', 'running_var')
        )
        scale = gamma / np.sqrt(variance + 1e-5)
        rows = (weight * scale[:, None, None, None]).transpose(2, 3, 1, 0)
        matrix = np.ascontiguousarray(rows.reshape(-1, weight.shape[0]), np.float32)
        layers.append((matrix, (beta - mean * scale).astype(np.float32)))
        index += 3
    return layers


def _convolve(
    values: npt.NDArray[np.float32],
    weight: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    *,
    stride: int,
) -> npt.NDArray[np.float32]:
    """Convolve float32 [H, W, C] 3 × 3 with one pixel of zeros around it, then ReLU."""
    height, width, channels = values.shape
    padded = np.zeros((height + 2, width + 2, channels), np.float32)
    padded[1:-1, 1:-1] = values
    rows, columns = -(-height // stride), -(-width // stride)
    # three neighbours of a row lie side by side in memory: one copy gathers all patches
    down, right, one = padded.strides
    patches: npt.NDArray[np.float32] = np.ndarray(
        (rows, columns, 3, 3 * channels), np.float32, padded,
        strides=(stride * down, stride * right, down, one),
    )  # fmt: skip
    result = patches.reshape(rows * columns, -1) @ weight
    result += bias
    np.maximum(result, 0, out=result)
    return result.reshape(rows, columns, -1)
