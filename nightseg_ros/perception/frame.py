# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""One camera frame, and the one place that makes pixels of a message's bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Order = Literal['rgb', 'bgr']

#: Encodings of sensor_msgs/Image that are read here: channels, and their order.
ENCODINGS: dict[str, tuple[int, Order]] = {
    'rgb8': (3, 'rgb'),
    'bgr8': (3, 'bgr'),
    'mono8': (1, 'rgb'),
}


class FrameError(ValueError):
    """A frame that cannot be read; the message says what came and what was wanted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """A picture with the stamp and the names it came with; none of them is ever changed."""

    image: Image
    """uint8 [H, W, 3]; often a view of a message's bytes, so read only."""
    order: Order = 'rgb'
    stamp_ns: int = 0
    camera: str = 'camera'
    """Which router and which topics the frame belongs to."""
    frame_id: str = ''


def decode_raw(
    data: bytes | bytearray | memoryview | npt.NDArray[np.uint8],
    *,
    encoding: str,
    width: int,
    height: int,
    step: int,
    is_bigendian: bool = False,
) -> tuple[Image, Order]:
    """
    Return uint8 [H, W, 3] and its channel order, without a copy where the bytes allow it.

    ``step`` is the length of a row in bytes, padding included. ``FrameError`` is raised for an
    unknown encoding, a zero size, a step shorter than a row, and data of the wrong length.
    """
    if encoding not in ENCODINGS:
        raise FrameError(
            f"encoding '{encoding}' is not supported; publish one of {', '.join(ENCODINGS)}"
        )
    channels, order = ENCODINGS[encoding]
    if width < 1 or height < 1:
        raise FrameError(f'the image is {width}×{height} pixels; it has no content')
    if step < width * channels:
        raise FrameError(
            f'step is {step} bytes, but a row of {width} {encoding} pixels has {width * channels}'
        )
    flat = np.frombuffer(data, np.uint8)
    if flat.size != step * height:
        raise FrameError(
            f'data holds {flat.size} bytes, but {height} rows of step {step} make {step * height}'
        )
    rows = flat.reshape(height, step)[:, : width * channels]
    if channels == 1:
        return np.asarray(cv2.cvtColor(rows, cv2.COLOR_GRAY2RGB), np.uint8), order
    return rows.reshape(height, width, channels) if step == width * channels else (
        np.lib.stride_tricks.as_strided(
            rows, (height, width, channels), (step, channels, 1), writeable=False
        )
    ), order


def decode_file(content: bytes) -> tuple[Image, Order]:
    """Return uint8 [H, W, 3] of an encoded image (JPEG, PNG); ``FrameError`` where it is none."""
    image = None
    if content:
        try:
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error as error:
            raise FrameError(f'{len(content)} bytes cannot be decoded: {error}') from error
    if image is None:
        raise FrameError(f'{len(content)} bytes are no image that can be decoded')
    return np.asarray(image, np.uint8), 'bgr'
