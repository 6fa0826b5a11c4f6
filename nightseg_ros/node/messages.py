# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Pixels into messages and out of them, without a slow copy.

Assigning an array to ``msg.data`` takes 70 to 265 ms for a 1080p image; a message that is kept and
written into through ``np.frombuffer`` takes less than half a millisecond.
"""

from __future__ import annotations

import array
import importlib
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import CompressedImage, Image

from nightseg_ros.perception.encodings import ENCODINGS
from nightseg_ros.perception.frame import FrameError, decode_file, decode_raw

Pixels = npt.NDArray[np.uint8]


class ImageMessage:
    """One outgoing message, used for every frame."""

    def __init__(self, encoding: Literal['mono8', 'rgb8']) -> None:
        """``mono8`` takes [H, W], ``rgb8`` takes [H, W, 3]."""
        self._message = Image(encoding=encoding)
        self._pixels: Pixels = np.empty(0, np.uint8)

    def fill(self, header: Any, pixels: Pixels) -> Image:
        """Copy ``pixels`` in and return the message; it holds until the next call."""
        message = self._message
        if self._pixels.shape != pixels.shape:
            # an array cannot be resized while numpy looks into it, so that it is a new one
            message.data = array.array('B', bytes(pixels.size))
            self._pixels = np.frombuffer(message.data, np.uint8).reshape(pixels.shape)
            message.height, message.width = pixels.shape[:2]
            message.step = pixels.size // pixels.shape[0]
        np.copyto(self._pixels, pixels)
        message.header = header
        return message


def png_message(header: Any, labels: Pixels) -> CompressedImage:
    """Compress uint8 [H, W] without loss; JPEG would change ids."""
    # level 1: a tenth of the default's time for a fifth more bytes
    return _compressed(
        header, 'mono8; png compressed mono8', '.png', labels, [cv2.IMWRITE_PNG_COMPRESSION, 1]
    )


def jpeg_message(header: Any, picture: Pixels, quality: int) -> CompressedImage:
    """Compress RGB uint8 [H, W, 3] for the eye; ``quality`` from 1 to 100."""
    bgr = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), np.uint8)
    return _compressed(
        header, 'rgb8; jpeg compressed bgr8', '.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, quality]
    )


def _compressed(
    header: Any, layout: str, suffix: str, pixels: Pixels, options: list[int]
) -> CompressedImage:
    done, content = cv2.imencode(suffix, pixels, options)
    if not done:
        raise RuntimeError(f'OpenCV could not encode {pixels.shape} as {suffix}')
    message = CompressedImage(header=header, format=layout)
    message.data.frombytes(memoryview(content.reshape(-1)))
    return message


def decode(message: Any) -> tuple[Pixels, Literal['rgb', 'bgr']]:
    """
    Return uint8 [H, W, 3] and its channel order of an Image or a CompressedImage.

    An encoding that is not read here goes through cv_bridge where it is installed.
    ``FrameError`` says what is wrong with the message.
    """
    if isinstance(message, CompressedImage):
        return decode_file(message.data, message.format)
    if message.encoding not in ENCODINGS:
        bridged = _through_cv_bridge(message)
        if bridged is not None:
            return bridged, 'bgr'
    return decode_raw(
        message.data,
        encoding=message.encoding,
        width=message.width,
        height=message.height,
        step=message.step,
        is_bigendian=bool(message.is_bigendian),
    )


def _through_cv_bridge(message: Image) -> Pixels | None:
    try:
        bridge = importlib.import_module('cv_bridge').CvBridge()
    except ImportError:
        return None
    try:
        return np.asarray(bridge.imgmsg_to_cv2(message, 'bgr8'), np.uint8)
    # CvBridgeError is a TypeError, and its C++ half throws RuntimeError and cv2.error
    except Exception as error:
        raise FrameError(
            f"encoding '{message.encoding}' could not be converted by cv_bridge either: {error}"
        ) from error
