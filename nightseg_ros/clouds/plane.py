# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""One channel of a sensor_msgs/Image: labels, confidence, or distances."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nightseg_ros.clouds.errors import CloudError

_DTYPES = {'mono8': 'u1', '8UC1': 'u1', '16UC1': 'u2', 'mono16': 'u2', '32FC1': 'f4'}


def read_plane(message: Any, encodings: tuple[str, ...]) -> npt.NDArray[Any]:
    """
    Return [H, W] of an image message, a view where its bytes lie as this machine has them.

    ``CloudError`` where the encoding is none of ``encodings`` or the bytes do not fill the image.
    """
    if message.encoding not in encodings:
        raise CloudError(f"encoding is '{message.encoding}'; wanted: {' or '.join(encodings)}")
    dtype = np.dtype(_DTYPES[message.encoding]).newbyteorder('>' if message.is_bigendian else '<')
    height, width, step = int(message.height), int(message.width), int(message.step)
    if step < width * dtype.itemsize or height < 1 or width < 1:
        raise CloudError(f'an image of {width}×{height} pixels with rows of {step} bytes')
    data = np.frombuffer(message.data, np.uint8)
    wanted = (height - 1) * step + width * dtype.itemsize
    if len(data) < wanted:
        raise CloudError(f'the image has {len(data)} bytes, its pixels take {wanted}')
    return np.ndarray((height, width), dtype, data, strides=(step, dtype.itemsize))
