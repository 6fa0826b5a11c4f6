# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Colours of real night frames by region: sky, ground and what stands on it.

Night frames have no labels. What region a pixel of theirs belongs to is guessed from its row
alone, by how often the region lies there in the labelled day images; where a reference comes
with labels (pseudo-labels, say), those are taken instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np

from nightseg_ros.data.matte import split_sky
from nightseg_ros.data.scene import Array, Bytes, Role, read_scene, role_table
from nightseg_ros.data.stylize import lab_to_rgb, rgb_to_lab
from nightseg_ros.taxonomy import UNLABELLED, Taxonomy

#: Bands of rows of the prior; an image's rows are stretched over them.
ROWS = 48
#: Exponent on the guess: above 1 it leans on the rows where a region is alone.
SHARPNESS = 2.0
#: Most that a deviation may grow, which keeps noise and JPEG blocks down.
GROWTH = 3.0


class Region(IntEnum):
    """Parts of a road scene that a night changes differently."""

    SKY = 0
    GROUND = 1
    THINGS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionColors:
    """Mean and standard deviation of CIELAB by ``Region``, float32 [3, 3] each."""

    mean: Array
    deviation: Array


def region_table(taxonomy: Taxonomy) -> Bytes:
    """Return uint8 [256]: the ``Region`` of each label id; void counts as things."""
    regions = {Role.SKY: Region.SKY, Role.ROAD: Region.GROUND, Role.PAVEMENT: Region.GROUND}
    table = np.full(256, Region.THINGS, np.uint8)
    for index, role in enumerate(role_table(taxonomy)):
        table[index] = regions.get(Role(role), Region.THINGS)
    return table


def region_rows(masks: Iterable[Bytes], taxonomy: Taxonomy) -> Array:
    """
    Return float32 [ROWS, 3]: how likely each region is in a row of labelled images.

    ``masks`` are uint8 [H, W] ids of ``taxonomy``, void ignored. It is smoothed over an eighth of
    the height, since another camera's horizon lies elsewhere. Without any labelled pixel every
    region is equally likely everywhere.
    """
    table = region_table(taxonomy)
    counts = np.full((ROWS, len(Region)), 1e-3, np.float64)
    for labels in masks:
        band = np.arange(len(labels)) * ROWS // len(labels)
        known = labels != UNLABELLED
        flat = (band[:, None] * len(Region) + table[labels])[known]
        counts += np.bincount(flat, minlength=counts.size).reshape(counts.shape)
    smooth = cv2.GaussianBlur(
        counts, (1, 0), 0.1, sigmaY=ROWS / 8, borderType=cv2.BORDER_REPLICATE
    )
    result: Array = (smooth / smooth.sum(1, keepdims=True)).astype(np.float32)
    return result


def region_colors(
    image: Bytes, rows: Array, *, labels: Bytes | None = None, taxonomy: Taxonomy | None = None
) -> RegionColors:
    """
    Measure a real night frame uint8 [H, W, 3] RGB; ``rows`` come from ``region_rows``.

    With ``labels`` (uint8 [H, W] ids of ``taxonomy``) each region that holds at least 1 % of
    the pixels is measured where it is; the others keep the guess by rows.
    """
    height, width = image.shape[:2]
    # a frame of any camera has statistics enough at this size
    factor = min(1.0, 240.0 / width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    lab = rgb_to_lab(cv2.resize(image, size, interpolation=cv2.INTER_AREA)).reshape(-1, 3)
    guess = cv2.resize(rows, (len(Region), size[1]), interpolation=cv2.INTER_LINEAR)
    shares = np.repeat(guess**SHARPNESS, size[0], axis=0)
    if labels is not None and taxonomy is not None:
        small = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT).ravel()
        found = np.eye(len(Region), dtype=np.float32)[region_table(taxonomy)[small]]
        found[small == UNLABELLED] = 0.0
        enough = found.mean(axis=0) >= 0.01
        shares[:, enough] = found[:, enough]
    shares /= np.maximum(shares.sum(axis=0), 1e-9)
    mean = shares.T @ lab
    deviation = np.sqrt(np.maximum(shares.T @ lab**2 - mean**2, 0.0))
    return RegionColors(mean=mean.astype(np.float32), deviation=deviation.astype(np.float32))


def recolor(
    image: Bytes,
    labels: Bytes,
    colors: RegionColors,
    rng: np.random.Generator,
    *,
    taxonomy: Taxonomy,
    strength: float = 1.0,
) -> Bytes:
    """
    Give each region of a labelled day image a night frame's mean and deviation of CIELAB.

    ``image`` uint8 [H, W, 3] RGB, ``labels`` uint8 [H, W]; the result is uint8 [H, W, 3]. The
    regions are blended by a soft matte of the sky, so that twigs and roofs keep their edges.
    ``strength`` runs from 0 (the image) to 1.
    """
    regions = region_table(taxonomy)[labels]
    scene = read_scene(labels, role_table(taxonomy), rng)
    linear = (image.astype(np.float32) / np.float32(255.0)) ** np.float32(2.2)
    sky, before = split_sky(linear, scene)
    # without the daylight that shines through them, twigs stay dark
    solid = np.rint(before ** np.float32(1 / 2.2) * 255.0).astype(np.uint8)
    ground = cv2.GaussianBlur((regions == Region.GROUND).astype(np.float32), (0, 0), 1.5)
    ground *= 1.0 - sky
    day, things = rgb_to_lab(image), rgb_to_lab(solid)
    result = np.zeros_like(day)
    for region, lab, weight in (
        (Region.SKY, day, sky),
        (Region.GROUND, things, ground),
        (Region.THINGS, things, 1.0 - sky - ground),
    ):
        total = float(weight.sum())
        if total >= 1.0:
            result += weight[..., None] * _matched(lab, weight / total, colors, region)
    if strength < 1.0:
        result = cv2.addWeighted(result, strength, day, 1.0 - strength, 0.0)
    return lab_to_rgb(result)


def _matched(lab: Array, share: Array, colors: RegionColors, region: Region) -> Array:
    """Return CIELAB float32 [H, W, 3] with a region's colours; ``share`` [H, W] adds up to 1."""
    mean = np.tensordot(share, lab, axes=2)
    spread = np.sqrt(np.maximum(np.tensordot(share, lab * lab, axes=2) - mean**2, 0.0))
    # the guess by rows mixes what stands before the sky into its deviation
    growth = 1.0 if region == Region.SKY else GROWTH
    gain = np.clip(colors.deviation[region] / (spread + 1e-3), 0.0, growth)
    result: Array = lab * gain + (colors.mean[region] - mean * gain)
    return result
