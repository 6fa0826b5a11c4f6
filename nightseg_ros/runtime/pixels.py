# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Pixel work around the networks: the one place that decides sizes, and OpenCV on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
MULTIPLE = 32


@dataclass(frozen=True, slots=True)
class NetworkSize:
    """
    A camera's size fitted to a network: scaled with its aspect, then padded.

    The scaled image lies at the top left of the padded one; its sides are even, so that labels
    at half the network's size cover it exactly.
    """

    camera: tuple[int, int]
    """Height and width of the camera's image."""
    scaled: tuple[int, int]
    padded: tuple[int, int]

    @property
    def labels(self) -> tuple[int, int]:
        """Height and width of the part of a half-size mask that the scaled image covers."""
        return self.scaled[0] // 2, self.scaled[1] // 2


# a few cameras' sizes; one that changes with every frame must not fill the memory
@lru_cache(maxsize=64)
def fit(height: int, width: int, long_side: int) -> NetworkSize:
    """Scale the long side to ``long_side`` pixels and pad to multiples of 32."""
    factor = long_side / max(height, width)
    rows, columns = (max(2, 2 * round(side * factor / 2)) for side in (height, width))
    padded = (-(-rows // MULTIPLE) * MULTIPLE, -(-columns // MULTIPLE) * MULTIPLE)
    return NetworkSize(camera=(height, width), scaled=(rows, columns), padded=padded)


@lru_cache(maxsize=64)
def _rows(source: int, height: int) -> npt.NDArray[np.intp]:
    """Return the row that OpenCV would take for each: its fixed point decides ties its own way."""
    rows = cv2.resize(
        np.arange(source, dtype=np.int32)[:, None], (1, height),
        interpolation=cv2.INTER_NEAREST_EXACT,
    )  # fmt: skip
    return rows[:, 0].astype(np.intp)


class HostPixels:
    """What the pipeline does to pixels, by OpenCV on the CPU; arrays stay where the device is."""

    def shrink(self, image: Image, order: str, size: NetworkSize) -> Any:
        """
        uint8 [H, W, 3] → uint8 [h, w, 3] RGB of the network's padded size.

        It halves by area averaging first, which also averages sensor noise.
        """
        height, width = size.scaled
        while (
            image.shape[0] >= 2 * height and image.shape[1] >= 2 * width
            and image.shape[0] % 2 == 0 and image.shape[1] % 2 == 0
        ):  # fmt: skip
            half = (image.shape[1] // 2, image.shape[0] // 2)
            image = np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_AREA), np.uint8)
        wide = image.shape[0] > 2 * height or image.shape[1] > 2 * width
        padded = np.empty((*size.padded, 3), np.uint8)
        scaled = padded[:height, :width]
        how = cv2.INTER_AREA if wide else cv2.INTER_LINEAR
        cv2.resize(image, (width, height), dst=scaled, interpolation=how)
        if order == 'bgr':
            cv2.cvtColor(scaled, cv2.COLOR_BGR2RGB, dst=scaled)
        padded[:height, width:] = padded[:height, width - 1, None]
        padded[height:] = padded[height - 1]
        return padded

    def stack(self, images: list[Any]) -> Any:
        """Join images of one size to uint8 [B, h, w, 3]."""
        return images[0][None] if len(images) == 1 else np.stack(images)

    def enlarge(self, plane: Any, size: NetworkSize) -> Any:
        """uint8 [h / 2, w / 2] or [h / 2, w / 2, 3] → uint8 [H, W] or [H, W, 3], nearest."""
        # columns, then rows: OpenCV alone, pixel by pixel downwards, takes four times as long
        height, width = size.labels
        wide = cv2.resize(
            plane[:height, :width], (size.camera[1], height), interpolation=cv2.INTER_NEAREST_EXACT
        )
        return np.take(wide, _rows(height, size.camera[0]), axis=0)

    def restore(self, image: Any, size: NetworkSize) -> Any:
        """uint8 [h, w, 3] of a padded image → uint8 [H, W, 3], bilinear."""
        part = np.ascontiguousarray(image[: size.scaled[0], : size.scaled[1]])
        return np.asarray(cv2.resize(part, size.camera[::-1]), np.uint8)

    def colorize(self, labels: Any, palette: Image) -> Any:
        """uint8 [h, w] ids → uint8 [h, w, 3] RGB."""
        # five times as fast as fancy indexing
        return np.asarray(cv2.LUT(cv2.merge([labels] * 3), palette[None]), np.uint8)

    def blend(self, image: Image, order: str, color: Any, alpha: float) -> Any:
        """Mix ``alpha`` of the colours into the image: uint8 [H, W, 3] RGB."""
        if order == 'bgr':
            image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
        return np.asarray(cv2.addWeighted(image, 1 - alpha, color, alpha, 0), np.uint8)

    def download(self, array: Any) -> Image:
        """Return the array in host memory, contiguous."""
        host = self.begin_download(array)
        self.wait()
        return host

    def begin_download(self, array: Any) -> npt.NDArray[Any]:
        """Return host memory that holds the array after the next ``wait``."""
        return np.ascontiguousarray(array)

    def wait(self) -> None:
        """Wait for the device, once a batch."""


#: Ink by the state of the light, RGB.
STATE_COLORS = {
    'day': (255, 210, 90), 'dusk': (240, 150, 110), 'night': (130, 160, 255),
    'glare': (255, 255, 255),
}  # fmt: skip
_FONT = cv2.FONT_HERSHEY_SIMPLEX
#: Height of a capital letter in this font at scale 1, in pixels.
_CAPITAL = 22


def mark(picture: Image, state: str, route: str) -> None:
    """
    Write state and route into the upper left corner of uint8 [H, W, 3] RGB in host memory.

    RViz shows no text topics. Of a picture that is too small for it the part that fits is
    covered.
    """
    box = _box(state, route, max(16, picture.shape[0] // 20))
    part = box[: picture.shape[0], : picture.shape[1]]
    picture[: part.shape[0], : part.shape[1]] = part


# a few states and routes in the sizes of a few cameras
@lru_cache(maxsize=64)
def _box(state: str, route: str, height: int) -> Image:
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
