# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A labelled cloud from above."""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nightseg_ros.bags.reader import BagReader
from nightseg_ros.clouds.messages import read_cloud
from nightseg_ros.clouds.point_cloud import Cloud
from nightseg_ros.taxonomy import UNLABELLED

Image = npt.NDArray[np.uint8]

#: Metres ahead of the sensor, and to either side, that are shown.
AHEAD, ASIDE = 40.0, 16.0
#: What is this much above the sensor (m) would hide the road: a tunnel's ceiling, the trees.
TALLEST = 2.5
_GROUND, _LINE, _TEXT, _UNSEEN = 22, (58, 58, 62), (150, 150, 155), (78, 78, 82)


def top_view(cloud: Cloud, palette: Image, height: int) -> Image:
    """
    Return uint8 RGB [height, W, 3]: the points in the colours of their labels, ahead being up.

    ``cloud`` is in a body frame (x ahead, y left) and has the field ``label``; ``palette`` is
    uint8 [256, 3]. Points without a label are grey. Rings stand every 10 m.
    """
    scale = height / (AHEAD + 4)
    width = round(2 * ASIDE * scale)
    picture = np.full((height, width, 3), _GROUND, np.uint8)
    origin = (width // 2, round(height - 3 * scale))
    for metres in range(10, int(AHEAD) + 1, 10):
        cv2.circle(picture, origin, round(metres * scale), _LINE, 1, cv2.LINE_AA)
        place = (4, origin[1] - round(metres * scale * 0.9) - 3)
        cv2.putText(picture, f'{metres} m', place, cv2.FONT_HERSHEY_SIMPLEX, height / 800, _TEXT,
                    1, cv2.LINE_AA)  # fmt: skip
    x, y, z = cloud.xyz()
    labels = cloud.records['label'].reshape(-1)
    colors = palette[labels].astype(np.int32)
    # a dark class must stand out from the dark ground
    colors = np.where(labels[:, None] == UNLABELLED, _UNSEEN, colors + (255 - colors) // 4)
    shown = np.isfinite(x) & (x < AHEAD + 1) & (np.abs(y) < ASIDE) & (z < TALLEST)
    # what is higher lies above; what has no label under all others
    order = np.flatnonzero(shown)
    order = order[np.lexsort((z[order], labels[order] != UNLABELLED))]
    size = max(2, round(height / 120))
    column = np.round(origin[0] - y[order] * scale).astype(int)
    row = np.round(origin[1] - x[order] * scale).astype(int)
    for dy in range(size):
        for dx in range(size):
            picture[(row + dy).clip(0, height - 1), (column + dx).clip(0, width - 1)] = colors[
                order
            ]
    half = max(3, round(0.9 * scale))
    nose = np.array([(origin[0], origin[1] - 2 * half), (origin[0] - half, origin[1] + half),
                     (origin[0] + half, origin[1] + half)])  # fmt: skip
    cv2.fillPoly(picture, [nose], (240, 240, 240), cv2.LINE_AA)
    return picture


class RecordedClouds:
    """The clouds of a topic of a bag by their stamps."""

    def __init__(self, bag: Path, topic: str) -> None:
        """Read them all; a bag without the topic has none."""
        self._clouds: list[Cloud] = []
        self.stamps: list[int] = []
        with BagReader(bag) as reader:
            for found in reader.topics:
                for message in reader.messages(found) if found.name == topic else ():
                    content: Any = reader.read(message)
                    self.stamps.append(message.stamp_ns)
                    self._clouds.append(read_cloud(content))

    def latest(self, stamp_ns: int) -> Cloud | None:
        """Return the cloud at a stamp or the last one before it."""
        place = bisect_left(self.stamps, stamp_ns + 1)
        return self._clouds[place - 1] if place else None
