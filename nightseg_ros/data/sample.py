# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""One picture of a data set with what is known about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')


class DataError(ValueError):
    """A data set that is not where or what it was said to be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Where a picture and its labels lie, and where it comes from."""

    image: Path
    label: Path | None = None
    """Single-channel PNG of class ids, 255 = not labelled; None where there is none."""
    source: str = ''
    """The camera or drive; scores are split by it and bootstrapped over it."""
    light: str | None = None
    """'day', 'dusk' or 'night' where the data set says so."""


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Return uint8 [H, W, 3] RGB; ``DataError`` where the file is no image."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"'{path}' cannot be read as an image; remove or replace the file")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_labels(path: Path) -> npt.NDArray[np.uint8]:
    """Return uint8 [H, W] ids; ``DataError`` where it is no single-channel 8-bit image."""
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if labels is None:
        raise DataError(f"'{path}' cannot be read as a label image; remove or replace the file")
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise DataError(
            f"'{path}' is {labels.dtype} {labels.shape}; labels are single-channel uint8 ids"
        )
    return np.asarray(labels, np.uint8)
