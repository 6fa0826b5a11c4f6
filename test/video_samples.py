# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Frames that tell their own number by their grey level, and the packets of videos of them."""

from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np

SIZE = (64, 48)


def grey(number: int) -> np.ndarray:
    """Return RGB [48, 64, 3] of frame ``number`` (0 to 24), dark on the upper left."""
    picture = np.full((SIZE[1], SIZE[0], 3), 10 * number + 10, np.uint8)
    picture[: SIZE[1] // 2, : SIZE[0] // 3] = 0
    return picture


def number_of(image: np.ndarray) -> int:
    return round((float(image[:, 40:].mean()) - 10) / 10)


def packets(
    codec: str, count: int = 20, *, gop: int = 5, more: str = '',
    draw: Callable[[int], np.ndarray] = grey,
) -> list[tuple[int, bytes]]:  # fmt: skip
    """Return frames 0, 1, … with their numbers as they are sent, a key frame every ``gop``."""
    context = av.CodecContext.create(codec, 'w')
    context.height, context.width = draw(0).shape[:2]
    context.pix_fmt, context.time_base, context.gop_size = 'yuv420p', Fraction(1, 30), gop
    params = f'repeat-headers=1:keyint={gop}:min-keyint={gop}:scenecut=0{more}'
    kind = 'x265-params' if codec == 'libx265' else 'x264-params'
    context.options = {'tune': 'zerolatency', 'crf': '10', kind: params}
    found = []
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(draw(number), format='rgb24')
        frame.pts = number
        found += context.encode(frame)
    return [(packet.pts, bytes(packet)) for packet in (*found, *context.encode(None))]
