# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The mark of state and route in a corner of the overlay."""

from __future__ import annotations

from functools import lru_cache

import cv2
from nightseg_ros.perception.router import Decision
import numpy as np
import numpy.typing as npt

#: Ink by the state of the light, RGB.
STATE_COLORS = {
    'day': (255, 210, 90), 'dusk': (240, 150, 110), 'night': (130, 160, 255),
    'glare': (255, 255, 255),
}  # fmt: skip
_FONT = cv2.FONT_HERSHEY_SIMPLEX
#: Height of a capital letter in this font at scale 1, in pixels.
_CAPITAL = 22


def mark(picture: npt.NDArray[np.uint8], decision: Decision) -> None:
    """
    Write state and route into the upper left corner of uint8 [H, W, 3] RGB in host memory.

    RViz shows no text topics. Of a picture that is too small for it the part that fits is
    covered.
    """
    box = _box(decision.state, decision.route, max(16, picture.shape[0] // 20))
    part = box[: picture.shape[0], : picture.shape[1]]
    picture[: part.shape[0], : part.shape[1]] = part


# a few states and routes in the sizes of a few cameras
@lru_cache(maxsize=64)
def _box(state: str, route: str, height: int) -> npt.NDArray[np.uint8]:
    """Return a dark box of ``height`` with the text in the state's colour, uint8 [h, w, 3] RGB."""
    scale = 0.55 * height / _CAPITAL
    thickness = max(1, round(height / 18))
    left, base = round(0.35 * height), round(0.78 * height)
    texts = (state, f' route {route}')
    widths = [cv2.getTextSize(text, _FONT, scale, thickness)[0][0] for text in texts]
    box = np.full((height, sum(widths) + 2 * left, 3), 24, np.uint8)
    inks = (STATE_COLORS.get(state, (255, 255, 255)), (235, 235, 235))
    for text, width, ink in zip(texts, widths, inks):
        cv2.putText(box, text, (left, base), _FONT, scale, ink, thickness, cv2.LINE_AA)
        left += width
    return box
