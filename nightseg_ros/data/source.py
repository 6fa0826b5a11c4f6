# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Frames from wherever they lie: an image, a folder of images, a video, or image topics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from nightseg_ros.bags.reader import BagReader, camera_of, is_bag
from nightseg_ros.data.sample import IMAGE_SUFFIXES, DataError
from nightseg_ros.data.stamps import Stamps, read_stamps
from nightseg_ros.perception.frame import Frame, FrameError, decode_file

VIDEO_SUFFIXES = ('.mp4', '.avi', '.mkv', '.mov', '.m4v', '.webm')
#: Frames a second of pictures that come without any time.
DEFAULT_RATE = 10.0
#: Added to the stamps of what has none of its own where ROS shall get them: 0 is no stamp to ROS.
STAMP_OFFSET = 1_000_000_000_000_000_000
Kind = Literal['image', 'folder', 'video', 'bag']
Item = tuple[str, Frame | FrameError]


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameSource:
    """
    Frames in the order of their stamps; each iteration starts anew.

    It yields ``(stem, frame)``, and ``(stem, error)`` for what is there but cannot be read. Video
    and bag frames have a six-digit index as stem, with the camera's name before it where there are
    several cameras. The last item of a damaged bag is a ``BagLoss``, which stands for any number
    of frames.
    """

    path: Path
    kind: Kind
    count: int | None
    """How many items come; None where that is not known (a video may be off by a few)."""
    rate: float | None
    """Frames a second; None for a bag and with a file of stamps."""
    sequence: bool = True
    """Neighbours follow one another in time. A plain folder holds pictures of any place and
    hour, so that no state must pass from one to the next."""
    topic: str | None = None
    """The image topic of a bag, None with several."""
    camera: str = 'camera'
    topics: tuple[str, ...] = ()
    """Every image topic that is read; their cameras are ``camera_names``."""
    stamps: Stamps | None = None

    def __iter__(self) -> Iterator[Item]:
        """Read the frames one by one."""
        if self.kind == 'bag':
            return self._bag()
        if self.kind == 'video':
            return self._video()
        return self._pictures()

    def _stamp(self, index: int) -> int:
        if self.stamps is not None:
            return self.stamps.stamps_ns[index]
        return round(index * 1e9 / (self.rate or DEFAULT_RATE))

    def _files(self) -> list[Path]:
        if self.kind == 'image':
            return [self.path]
        if self.stamps is not None and self.stamps.names is not None:
            return [self.path / name for name in self.stamps.names]
        return _images(self.path)

    def _pictures(self) -> Iterator[Item]:
        seen: dict[str, str] = {}
        for index, path in enumerate(self._files()):
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
        limit = None if self.stamps is None else len(self.stamps.stamps_ns)
        index = 0
        try:
            while True:
                good, image = video.read()
                if not good:
                    break
                if limit is not None and index >= limit:
                    yield (
                        f'{index:06d}',
                        FrameError(
                            f"'{self.path.name}' has more frames than its {limit} stamps; the "
                            'rest is left out'
                        ),
                    )
                    return
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
            topics = [bag.image_topic(name) for name in self.topics]
            cameras = camera_names(self.topics)
            index: Counter[str] = Counter()

            def stem(camera: str) -> str:
                index[camera] += 1
                name = f'{index[camera] - 1:06d}'
                return name if len(topics) == 1 else f'{camera.replace("/", "_")}_{name}'

            for topic, message in bag.merged(topics):
                camera = cameras[topic.name]
                yield stem(camera), bag.frame(message, camera)
            loss = bag.loss(topics)
            if loss is not None:
                yield stem('bag'), loss


def camera_names(topics: tuple[str, ...]) -> dict[str, str]:
    """Return the camera of each image topic; two images of one parent are told apart in full."""
    names = {topic: camera_of(topic) for topic in topics}
    taken = Counter(names.values())
    return {
        topic: name if taken[name] == 1 else topic.strip('/').removesuffix('/compressed')
        for topic, name in names.items()
    }


def open_source(
    path: str | Path,
    topic: str | None = None,
    *,
    rate: float | None = None,
    stamps: str | Path | None = None,
    every_camera: bool = False,
) -> FrameSource:
    """
    Look at a path and return its frames.

    ``topic`` is for bags; without it the only camera's is taken, or with ``every_camera`` all of
    them, merged by stamp. ``rate`` in frames a second makes a folder a sequence and overrides a
    video's; ``stamps`` is a file as ``read_stamps`` takes it, instead. ``DataError`` or
    ``BagError`` says what is missing, unreadable or ambiguous.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise DataError(f"'{path}' does not exist")
    if rate is not None and not 0 < rate < 1e4:
        raise DataError(f'rate is above 0 frames a second, got {rate}')
    if rate is not None and stamps is not None:
        raise DataError('give a rate or a file of stamps, not both')
    if is_bag(path):
        if stamps is not None:
            raise DataError(f"'{path}' is a bag, which has stamps of its own")
        return _open_bag(path, topic, every_camera)
    if topic is not None:
        raise DataError(f"'{path}' is no bag, so it has no topic '{topic}'")
    given = None if stamps is None else read_stamps(Path(stamps).expanduser())
    if path.is_dir():
        return _open_folder(path, rate, given)
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        if given is not None:
            raise DataError(f"'{path}' is one image; stamps are for folders and videos")
        return FrameSource(path=path, kind='image', count=1, rate=DEFAULT_RATE)
    if suffix in VIDEO_SUFFIXES:
        return _open_video(path, rate, given)
    raise DataError(
        f"'{path}' is neither an image ({', '.join(IMAGE_SUFFIXES)}), a video "
        f'({", ".join(VIDEO_SUFFIXES)}), a bag (.mcap, .db3, .bag) nor a folder'
    )


def _open_bag(path: Path, topic: str | None, every_camera: bool) -> FrameSource:
    with BagReader(path) as bag:
        several = every_camera and topic is None and len(bag.camera_topics) > 1
        found = bag.camera_topics if several else [bag.image_topic(topic)]
    names = tuple(item.name for item in found)
    return FrameSource(
        path=path, kind='bag', count=sum(item.count for item in found), rate=None,
        topic=names[0] if len(names) == 1 else None, camera=camera_of(names[0]), topics=names,
    )  # fmt: skip


def _open_folder(path: Path, rate: float | None, stamps: Stamps | None) -> FrameSource:
    images = _images(path)
    if not images:
        raise DataError(
            f"folder '{path}' holds no images ({', '.join(IMAGE_SUFFIXES)}) and no bag"
        )
    count = len(images)
    if stamps is not None:
        count = len(stamps.stamps_ns)
        if stamps.names is None and count != len(images):
            raise DataError(f"{count} stamps came for the {len(images)} images of '{path}'")
        if stamps.names is not None and not {i.name for i in images} & set(stamps.names):
            raise DataError(
                f"none of the files that the stamps name, such as '{stamps.names[0]}', lies in "
                f"'{path}'"
            )
    return FrameSource(
        path=path, kind='folder', count=count, stamps=stamps,
        rate=None if stamps is not None else rate or DEFAULT_RATE,
        sequence=rate is not None or stamps is not None,
    )  # fmt: skip


def _open_video(path: Path, rate: float | None, stamps: Stamps | None) -> FrameSource:
    if stamps is not None and stamps.names is not None:
        raise DataError('the stamps of a video are one a frame, without names')
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
    return FrameSource(
        path=path, kind='video', count=frames if frames > 0 else None, stamps=stamps,
        rate=None if stamps is not None else rate,
    )  # fmt: skip


def _images(folder: Path) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        # hidden files are half-written ones
        if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith('.')
    )
