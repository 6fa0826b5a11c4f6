# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A bag made of a video or of a folder of pictures, with their labels where there are any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from nightseg_ros.bags.errors import BagError
from nightseg_ros.bags.reader import camera_of
from nightseg_ros.bags.writer import BagWriter, Storage
from nightseg_ros.data.sample import read_labels
from nightseg_ros.data.source import STAMP_OFFSET, FrameSource
from nightseg_ros.perception.frame import Frame, FrameError

Format = Literal['raw', 'png', 'jpeg']
#: Below the camera's name, as in the bags of rendered drives.
TRUTH = 'labels_truth'


@dataclass(slots=True)
class Made:
    """What became of the pictures."""

    frames: int = 0
    labelled: int = 0
    problems: list[str] = field(default_factory=list)
    """Pictures that are not in the bag, and why."""


def make_bag(
    source: FrameSource,
    out: Path,
    *,
    topic: str = '/camera/image_raw',
    frame_id: str = 'camera',
    format: Format = 'raw',
    jpeg_quality: int = 95,
    labels: Path | None = None,
    storage: Storage = 'mcap',
    compress: bool = False,
    force: bool = False,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Made:
    """
    Write the frames of a video or folder as images of one camera.

    'raw' and 'png' keep every pixel, 'jpeg' does not; the last two go to ``TOPIC/compressed``.
    Stamps that begin at 0, as those of a rate do, are moved by ``STAMP_OFFSET``, since 0 means to
    ROS that there is none. ``labels`` is a folder of PNGs of ids, named as the pictures.
    ``BagError`` where the bag cannot be written or no picture can be read, ``DataError`` for unfit
    labels.
    """
    made = Made()
    offset = 0 if source.stamps is not None and source.stamps.stamps_ns[0] else STAMP_OFFSET
    name = '/' + topic.strip('/')
    truth = f'/{camera_of(name)}/{TRUTH}'
    with BagWriter(out, storage=storage, compress=compress, force=force) as bag:
        for number, (stem, item) in enumerate(source):
            progress(number + 1, source.count)
            if isinstance(item, FrameError):
                made.problems.append(f'{stem}: {item}')
                continue
            stamp = item.stamp_ns + offset
            if format == 'raw':
                frame = Frame(
                    image=item.image, order=item.order, stamp_ns=stamp, frame_id=frame_id
                )
                bag.write_frame(name, frame)
            else:
                content = _encoded(item, format, jpeg_quality)
                kind = f'bgr8; {format} compressed bgr8'
                bag.write_compressed(
                    f'{name}/compressed', content, kind, stamp_ns=stamp, frame_id=frame_id
                )
            made.frames += 1
            file = None if labels is None else labels / f'{stem}.png'
            if file is not None and file.is_file():
                bag.write_labels(truth, read_labels(file), stamp_ns=stamp, frame_id=frame_id)
                made.labelled += 1
        if not made.frames:
            raise BagError(f"no frame of '{source.path}' could be read; {made.problems[:1]}")
        if labels is not None and not made.labelled:
            raise BagError(f"'{labels}' holds no PNG that is named as one of the pictures")
    return made


def _encoded(frame: Frame, format: Format, quality: int) -> bytes:
    image = frame.image
    if frame.order == 'rgb':
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8)
    suffix, options = {
        'png': ('.png', [cv2.IMWRITE_PNG_COMPRESSION, 1]),
        'jpeg': ('.jpg', [cv2.IMWRITE_JPEG_QUALITY, quality]),
    }[format]
    done, content = cv2.imencode(suffix, image, options)
    if not done:
        raise BagError(f'an image of {image.shape} cannot be encoded as {format}')
    return content.tobytes()
