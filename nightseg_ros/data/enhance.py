# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Brightening without learning: what a translator has to beat."""

from __future__ import annotations

import cv2
import numpy as np

from nightseg_ros.data.scene import Bytes

#: Median luma that the gamma aims at, of 255: about that of CamVid by day.
MEDIAN = 105.0
_CLIP = 2.0
_TILES = (8, 8)


def gamma_clahe(image: Bytes) -> Bytes:
    """
    Return uint8 [H, W, 3] RGB with its median luma at ``MEDIAN`` and local contrast evened out.

    The gamma, 0.2 to 5, acts on all channels alike; CLAHE (8×8 tiles, clip limit 2, Zuiderveld
    1994) on CIELAB's lightness. ``image`` is uint8 [H, W, 3] RGB.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(
            f'image must be uint8 [H, W, 3] RGB and not empty, got {image.dtype} {image.shape}'
        )
    median = float(np.median(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)))
    gamma = np.log(MEDIAN / 255) / np.log(np.clip(median, 1.0, 250.0) / 255)
    levels = (np.arange(256) / 255.0) ** np.clip(gamma, 0.2, 5.0)
    bright = cv2.LUT(image, np.rint(levels * 255).astype(np.uint8))
    lab = cv2.cvtColor(bright, cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(_CLIP, _TILES).apply(np.ascontiguousarray(lab[..., 0]))
    result: Bytes = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB).astype(np.uint8, copy=False)
    return result
