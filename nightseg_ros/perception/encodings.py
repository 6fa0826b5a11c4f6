# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The encodings of sensor_msgs/Image: how long their rows are, and how they become colours.

16-bit encodings keep their upper byte. YUV is that of Rec. 601 in video range (16–235), as OpenCV
and the common drivers have it. Bayer names say the colours of the first two pixels of the first
two rows, OpenCV's those of the second ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Order = Literal['rgb', 'bgr']
Convert = Callable[[Image, int, int, bool], Image]
"""uint8 [rows, bytes of a row], width, height, big-endian → uint8 [H, W, 3]."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How one encoding is laid out."""

    pixel_bytes: int
    """Bytes of a pixel in the rows of the first plane."""
    order: Order
    convert: Convert
    even_width: bool = False
    even_height: bool = False
    planes: Fraction = Fraction(1)
    """All rows over those of the picture: 3/2 where a plane of half-size chroma follows."""


def _colors(rows: Image, width: int, height: int, big: bool) -> Image:
    # a view, also where the rows are padded
    return np.lib.stride_tricks.as_strided(
        rows, (height, width, 3), (rows.strides[0], 3, 1), writeable=False
    )


def _gray(rows: Image, width: int, height: int, big: bool) -> Image:
    return _converted(rows, cv2.COLOR_GRAY2RGB)


def _gray16(rows: Image, width: int, height: int, big: bool) -> Image:
    return _converted(_upper_bytes(rows, big), cv2.COLOR_GRAY2RGB)


def _with_alpha(rows: Image, width: int, height: int, big: bool) -> Image:
    # dropping the fourth channel keeps the order of the other three
    return _converted(_view(rows, height, width, 4), cv2.COLOR_BGRA2BGR)


def _bayer(code: int, wide: bool) -> Convert:
    def convert(rows: Image, width: int, height: int, big: bool) -> Image:
        mosaic = _upper_bytes(rows, big) if wide else rows
        if width > 2 and height > 2:
            return _converted(mosaic, code)
        # OpenCV leaves so small a picture black; two mirrored pixels keep the mosaic's phase
        mosaic = np.asarray(
            cv2.copyMakeBorder(mosaic, 2, 2, 2, 2, cv2.BORDER_REFLECT_101), np.uint8
        )
        return np.ascontiguousarray(_converted(mosaic, code)[2:-2, 2:-2])

    return convert


def _packed_yuv(code: int) -> Convert:
    def convert(rows: Image, width: int, height: int, big: bool) -> Image:
        return _converted(_view(rows, height, width, 2), code)

    return convert


def _planar_yuv(code: int) -> Convert:
    def convert(rows: Image, width: int, height: int, big: bool) -> Image:
        return _converted(rows, code)

    return convert


def _converted(pixels: Image, code: int) -> Image:
    return np.asarray(cv2.cvtColor(pixels, code), np.uint8)


def _view(rows: Image, height: int, width: int, channels: int) -> Image:
    shape, strides = (height, width, channels), (rows.strides[0], channels, 1)
    return np.lib.stride_tricks.as_strided(rows, shape, strides, writeable=False)


def _upper_bytes(rows: Image, big: bool) -> Image:
    return np.ascontiguousarray(rows[:, 0 if big else 1 :: 2])


def _encodings() -> dict[str, Encoding]:
    gray, color = Encoding(1, 'rgb', _gray), Encoding(3, 'bgr', _colors)
    uyvy = Encoding(2, 'rgb', _packed_yuv(cv2.COLOR_YUV2RGB_UYVY), even_width=True)
    yuyv = Encoding(2, 'rgb', _packed_yuv(cv2.COLOR_YUV2RGB_YUY2), even_width=True)
    encodings = {
        'rgb8': Encoding(3, 'rgb', _colors),
        'bgr8': color,
        'rgba8': Encoding(4, 'rgb', _with_alpha),
        'bgra8': Encoding(4, 'bgr', _with_alpha),
        'mono8': gray,
        'mono16': Encoding(2, 'rgb', _gray16),
        '8UC1': gray,
        # as cv_bridge reads it
        '8UC3': color,
        'uyvy': uyvy,
        'yuv422': uyvy,
        'yuyv': yuyv,
        'yuv422_yuy2': yuyv,
    }
    for name, code in (
        ('rggb', cv2.COLOR_BayerBG2RGB),
        ('bggr', cv2.COLOR_BayerRG2RGB),
        ('gbrg', cv2.COLOR_BayerGR2RGB),
        ('grbg', cv2.COLOR_BayerGB2RGB),
    ):
        encodings[f'bayer_{name}8'] = Encoding(1, 'rgb', _bayer(code, wide=False))
        encodings[f'bayer_{name}16'] = Encoding(2, 'rgb', _bayer(code, wide=True))
    for name, code in (('nv12', cv2.COLOR_YUV2RGB_NV12), ('nv21', cv2.COLOR_YUV2RGB_NV21)):
        encodings[name] = Encoding(
            1, 'rgb', _planar_yuv(code), even_width=True, even_height=True, planes=Fraction(3, 2)
        )
    return encodings


#: What is read without cv_bridge.
ENCODINGS = _encodings()
