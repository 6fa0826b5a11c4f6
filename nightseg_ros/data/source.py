# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Frames from wherever they lie: an image, a folder of images, a video, or an image topic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from nightseg_ros.bags.reader import BagReader, camera_of, is_bag
from nightseg_ros.data.sample import IMAGE_SUFFIXES, DataError
from nightseg_ros.perception.frame import Frame, FrameError, decode_file

VIDEO_SUFFIXES = ('.mp4', '.avi', '.mkv', '.mov', '.m4v', '.webm')
#: Frames a second of pictures that come without any time.
DEFAULT_RATE = 10.0
Kind = Literal['image', 'folder', 'video', 'bag']
Item = tuple[str, Frame | FrameError]


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameSource:
    """
    Frames in the order of their stamps; each iteration starts anew.

    It yields ``(stem, frame)``, and ``(stem, error)`` for what is there but cannot be read. Video
    and bag frames have a six-digit index as stem.
    """

    path: Path
    kind: Kind
    count: int | None
    """How many items come; None where that is not known (a video may be off by a few)."""
    rate: float | None
    """Frames a second; None for a bag, whose stamps are its own."""
    sequence: bool = True
    """Neighbours follow one another in time. A plain folder holds pictures of any place and
    hour, so that no state must pass from one to the next."""
    topic: str | None = None
    camera: str = 'camera'

    def __iter__(self) -> Iterator[Item]:
        """Read the frames one by one."""
        if self.kind == 'bag':
            return self._bag()
        if self.kind == 'video':
            return self._video()
        return self._pictures()

    def _stamp(self, index: int) -> int:
        return round(index * 1e9 / (self.rate or DEFAULT_RATE))

    def _pictures(self) -> Iterator[Item]:
        seen: dict[str, str] = {}
        for index, path in enumerate([self.path] if self.kind == 'image' else _images(self.path)):
            stem = path.stem
            if stem in seen:
                yield (
                    path.name,
                    FrameError(
                        f"'{path.name}' and '{seen[stem]}' would give one result; rename one"
                    ),
                )
                continue
            seen[stem] = path.name
            try:
                image, order = decode_file(path.read_bytes())
            except OSError as error:
                yield stem, FrameError(f"'{path.name}' cannot be read: {error.strerror}")
            except FrameError as error:
                yield stem, FrameError(f"'{path.name}': {error}")
            else:
                yield (
                    stem,
                    Frame(
                        image=image, order=order, stamp_ns=self._stamp(index), camera=self.camera
                    ),
                )

    def _video(self) -> Iterator[Item]:
        video = cv2.VideoCapture(str(self.path))
        try:
            index = 0
            while True:
                good, image = video.read()
                if not good:
                    break
                yield f'{index:06d}', Frame(
                    image=np.asarray(image, np.uint8), order='bgr', stamp_ns=self._stamp(index),
                    camera=self.camera,
                )  # fmt: skip
                index += 1
        finally:
            video.release()
        # containers round their length, so that only a clear gap means damage
        if self.count and index < 0.98 * self.count - 2:
            yield (
                f'{index:06d}',
                FrameError(f"'{self.path.name}' breaks off after {index} of {self.count} frames"),
            )

    def _bag(self) -> Iterator[Item]:
        with BagReader(self.path) as bag:
            topic = bag.image_topic(self.topic)
            for index, frame in enumerate(bag.frames(topic, self.camera)):
                yield f'{index:06d}', frame


def open_source(
    path: str | Path, topic: str | None = None, *, rate: float | None = None
) -> FrameSource:
    """
    Look at a path and return its frames.

    ``topic`` is for bags; without it the only image topic is taken. ``rate`` in frames a second
    makes a folder a sequence and overrides a video's. ``DataError`` or ``BagError`` says what is
    missing, unreadable or ambiguous.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise DataError(f"'{path}' does not exist")
    if rate is not None and not 0 < rate < 1e4:
        raise DataError(f'rate is above 0 frames a second, got {rate}')
    if is_bag(path):
        with BagReader(path) as bag:
            found = bag.image_topic(topic)
        return FrameSource(
            path=path, kind='bag', count=found.count, rate=None, topic=found.name,
            camera=camera_of(found.name),
        )  # fmt: skip
    if topic is not None:
        raise DataError(f"'{path}' is no bag, so it has no topic '{topic}'")
    if path.is_dir():
        images = _images(path)
        if not images:
            raise DataError(
                f"folder '{path}' holds no images ({', '.join(IMAGE_SUFFIXES)}) and no bag"
            )
        return FrameSource(
            path=path, kind='folder', count=len(images), rate=rate or DEFAULT_RATE,
            sequence=rate is not None,
        )  # fmt: skip
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return FrameSource(path=path, kind='image', count=1, rate=DEFAULT_RATE)
    if suffix in VIDEO_SUFFIXES:
        return _open_video(path, rate)
    raise DataError(
        f"'{path}' is neither an image ({', '.join(IMAGE_SUFFIXES)}), a video "
        f'({", ".join(VIDEO_SUFFIXES)}), a bag (.mcap, .db3, .bag) nor a folder'
    )


def _open_video(path: Path, rate: float | None) -> FrameSource:
    video = cv2.VideoCapture(str(path))
    try:
        if not video.isOpened() or not video.grab():
            raise DataError(f"'{path}' cannot be read as a video; is the file whole?")
        frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        own = float(video.get(cv2.CAP_PROP_FPS))
    finally:
        video.release()
    if rate is None:
        rate = own if 0 < own < 1e4 else 30.0
    return FrameSource(path=path, kind='video', count=frames if frames > 0 else None, rate=rate)


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
