# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The part of a camera's picture that shows the own vehicle."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nightseg_ros.config import ConfigError
from nightseg_ros.perception.result import Result
from nightseg_ros.taxonomy import UNLABELLED

Plane = npt.NDArray[np.uint8]


class EgoMask:
    """A static mask; its pixels are published as unlabelled."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Read an image file, non-zero on the vehicle; ``ConfigError`` where it is none."""
        file = Path(path).expanduser()
        picture = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) if file.is_file() else None
        if picture is None:
            raise ConfigError(f"'ego_masks': {file} is no image that can be read")
        self._mask = np.where(np.asarray(picture) != 0, UNLABELLED, 0).astype(np.uint8)
        self._fitted = self._mask

    def at(self, height: int, width: int) -> Plane:
        """Return uint8 [height, width]: 255 on the vehicle, 0 elsewhere."""
        if self._fitted.shape != (height, width):
            self._fitted = np.asarray(
                cv2.resize(self._mask, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8
            )
        return self._fitted

    def cover(self, result: Result) -> Result:
        """Return the result with the vehicle unlabelled, uncertain and uncoloured."""
        if result.labels is None:
            return result
        mask = self.at(*result.labels.shape)
        there = mask != 0
        changes: dict[str, Any] = {'labels': result.labels | mask}
        if result.confidence is not None:
            changes['confidence'] = result.confidence & ~mask
        if result.color is not None:
            changes['color'] = result.color & ~mask[:, :, None]
        if result.overlay is not None:
            image = result.frame.image
            overlay = result.overlay.copy()
            overlay[there] = image[there] if result.frame.order == 'rgb' else image[there][:, ::-1]
            changes['overlay'] = overlay
        return replace(result, **changes)
