# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""One camera frame, and the one place that makes pixels of a message's bytes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from nightseg_ros.perception.compressed import picture_size
from nightseg_ros.perception.encodings import ENCODINGS, Image, Order


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
    unknown encoding, a zero size, an odd one where the encoding has none, a step shorter than a
    row, and data of the wrong length.
    """
    layout = ENCODINGS.get(encoding)
    if layout is None:
        raise FrameError(
            f"encoding '{encoding}' is not supported; publish one of {', '.join(ENCODINGS)}"
        )
    if width < 1 or height < 1:
        raise FrameError(f'the image is {width}×{height} pixels; it has no content')
    if (layout.even_width and width % 2) or (layout.even_height and height % 2):
        raise FrameError(
            f'the image is {width}×{height} pixels, but {encoding} shares its colour between two'
        )
    row = width * layout.pixel_bytes
    if step < row:
        raise FrameError(f'step is {step} bytes, but a row of {width} {encoding} pixels has {row}')
    count = int(height * layout.planes)
    flat = np.frombuffer(data, np.uint8)
    if flat.size != step * count:
        raise FrameError(
            f'data holds {flat.size} bytes, but {count} rows of step {step} make {step * count}'
        )
    rows = flat.reshape(count, step)[:, :row]
    return layout.convert(rows, width, height, is_bigendian), layout.order


def decode_file(
    data: bytes | bytearray | memoryview | npt.NDArray[np.uint8], layout: str = ''
) -> tuple[Image, Order]:
    """
    Return uint8 [H, W, 3] and its channel order of a JPEG or PNG.

    ``layout`` is the ``format`` of a CompressedImage, which tells a Bayer mosaic from a grey
    picture. ``FrameError`` is raised where the bytes are no whole picture of up to
    ``compressed.MAX_PIXELS`` pixels. What a file says about turning the camera is not followed.
    """
    content = bytes(data)
    try:
        picture_size(content)
        mosaic = _mosaic(layout)
        mode = cv2.IMREAD_GRAYSCALE if mosaic else cv2.IMREAD_COLOR
        picture = cv2.imdecode(
            np.frombuffer(content, np.uint8), mode | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except (ValueError, cv2.error) as error:
        raise FrameError(f'{len(content)} bytes cannot be decoded: {error}') from error
    if picture is None:
        raise FrameError(f'{len(content)} bytes cannot be decoded: the picture is damaged')
    image = np.asarray(picture, np.uint8)
    if mosaic:
        height, width = image.shape
        return ENCODINGS[mosaic].convert(image, width, height, False), ENCODINGS[mosaic].order
    return image, 'bgr'


def _mosaic(layout: str) -> str:
    """Return the Bayer encoding of a picture packed as such, '' where it is in colour."""
    encoding, _, how = layout.partition(';')
    # 'bayer_rggb8; jpeg compressed bgr8' was put into colour before it was packed
    packed = how.strip().rpartition(' ')[2]
    if not encoding.startswith('bayer_') or packed in ('bgr8', 'rgb8'):
        return ''
    name = f'{encoding.rstrip("0123456789")}8'
    return name if name in ENCODINGS else ''
