# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Frames from wherever they lie: an image, a folder, a video or the image topics of a bag."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
import re
from typing import Literal, NamedTuple

from nightseg_ros.bags.reader import BagReader, camera_of, is_bag
from nightseg_ros.data.sample import DataError, IMAGE_SUFFIXES
from nightseg_ros.files import LOG, natural_order, read_text, user_path
from nightseg_ros.perception.frame import BitDepth, decode_file, Frame, FrameError, Image
from nightseg_ros.perception.result import base_topic
from nightseg_ros.perception.video import stream_url, VIDEO_SUFFIXES, VideoError, VideoReader

#: Frames a second of pictures that come without any time.
DEFAULT_RATE = 10.0
#: Added to the stamps of what has none of its own where ROS shall get them: 0 is no stamp to ROS.
STAMP_OFFSET = 1_000_000_000_000_000_000
#: The first ns that ROS cannot hold: seconds have 31 bits.
MOST_STAMP = 2**31 * 1_000_000_000

# -- stamps ----------------------------------------------------------------------------------


class Stamps(NamedTuple):
    """Stamps in ns, strictly increasing, each with the name of its file where one is given."""

    stamps_ns: tuple[int, ...]
    names: tuple[str, ...] | None
    """File names without folders; None where the file lists stamps only."""


def read_stamps(file: Path) -> Stamps:
    """
    Read lines of ``STAMP`` or ``STAMP NAME``, parted by blanks, comma or semicolon, or quoted.

    A stamp with a point is seconds, one without is nanoseconds, as TUM and EuRoC have them; one
    such as ``2011-09-26 13:02:25.964389445`` of KITTI is UTC where it names no zone. Lines that
    begin with # are skipped, and a first one of names. ``DataError`` names the first line that is
    wrong or whose stamp does not increase.
    """
    try:
        lines = read_text(file).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"stamps '{file}' cannot be read as UTF-8: {error}") from error
    stamps: list[int] = []
    names: list[str] = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith('#'):
            continue
        match = _STAMP_LINE.fullmatch(text)
        first, name = (match[2], match[3] or '') if match else (text, '')
        if number == 1 and _COLUMN.search(first):
            continue
        # folders are of no matter, also as Windows parts them
        name = re.split(r'[/\\]', name.strip('"\' '))[-1].strip()
        place, stamp = f"stamps '{file}', line {number}:", _nanoseconds(first)
        if stamp is None:
            raise DataError(
                f"{place} '{first}' is no stamp; seconds with a point, whole nanoseconds or a "
                'date and time are wanted'
            )
        if stamp >= MOST_STAMP:
            raise DataError(
                f"{place} '{first}' lies beyond 2038, which ROS cannot hold; whole numbers are "
                'nanoseconds'
            )
        if stamps and stamp <= stamps[-1]:
            raise DataError(f"{place} '{first}' is not later than the line before")
        if names and bool(name) != bool(names[-1]):
            raise DataError(f'{place} all lines have a name, or none has')
        stamps.append(stamp)
        names.append(name)
    if not stamps:
        raise DataError(f"stamps '{file}' holds none")
    mean = (stamps[-1] - stamps[0]) / max(1, len(stamps) - 1)
    if 0 < mean < 2.1e6:
        LOG.warning(
            "stamps '%s' are %.0f ns apart: whole numbers are nanoseconds; write microseconds or "
            'milliseconds as seconds with a point',
            file, mean,
        )  # fmt: skip
    return Stamps(tuple(stamps), tuple(names) if names[0] else None)


_DATE = r'\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?'
#: A line of names, as tables have it, begins with that of the stamps.
_COLUMN = re.compile('time|stamp|sec|date', re.IGNORECASE)
_STAMP_LINE = re.compile(rf"""(["']?)({_DATE}|[^\s,;"']+)\1(?:[,;\s]+(.*))?""", re.ASCII)


def _nanoseconds(text: str) -> int | None:
    if re.fullmatch(_DATE, text, re.ASCII):
        zone = text[-6:] if text[-6] in '+-' else '+00:00'
        (fraction,) = re.findall(r'\.(\d+)', text) or ['0']
        try:
            seconds = int(datetime.fromisoformat(text[:19] + zone).timestamp())
        except ValueError:
            return None
        return seconds * 10**9 + int(f'{fraction:0<9.9}')
    if not re.fullmatch(r'[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?', text):
        return None
    # a float would lose the last three digits of an epoch stamp
    return int(text) if text.isdecimal() else int(Decimal(text) * 10**9)


# -- sources --------------------------------------------------------------------------------

Items = Iterator[tuple[str, Frame | FrameError]]


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameSource:
    """
    Frames in the order in which they were taken; each iteration starts anew.

    It yields ``(stem, frame)``, and ``(stem, error)`` for what is there but cannot be read. Video
    and bag frames have a six-digit index as stem. The last item of a damaged bag is a
    ``BagReadError``, which stands for any number of frames.
    """

    path: Path
    url: str = ''
    """Of a network stream or camera: a path would lose slashes of it."""
    live: bool = False
    """Whether it comes at a pace of its own, as a file behind a URL does not."""
    kind: Literal['image', 'folder', 'video', 'bag']
    """A camera or a network stream is a video without a count."""
    count: int | None
    """How many items come; None where that is not known."""
    rate: float | None = None
    """Frames a second; None where a file of stamps, the bag or the video tells the times."""
    sequence: bool = True
    """Neighbours follow one another in time. A plain folder holds pictures of any place and
    hour, so that no state must pass from one to the next."""
    topic: str | None = None
    """The image topic of a bag; None with several, whose frames are read one camera at a time."""
    topics: tuple[str, ...] = ()
    """Every image topic that was found; their cameras are ``camera_names``."""
    stamps: Stamps | None = None
    note: str = ''
    """Which images of a bag or a folder are left out."""

    def __iter__(self) -> Items:
        if self.kind == 'bag':
            return self._bag()
        return self._video() if self.kind == 'video' else self._pictures()

    @property
    def ros_offset_ns(self) -> int:
        """Return what stamps need for ROS: those of a video or folder may begin at 0."""
        if self.stamps is not None:
            return 0 if self.stamps.stamps_ns[0] else STAMP_OFFSET
        return 0 if self.kind == 'bag' or (self.url and self.rate is None) else STAMP_OFFSET

    def _frame(self, index: int, image: Image, own_ns: int = 0) -> Frame:
        if self.stamps is not None:
            own_ns = self.stamps.stamps_ns[index]
        elif self.rate is not None:
            own_ns = round(index * 1e9 / self.rate)
        return Frame(image=image, order='bgr', stamp_ns=own_ns)

    def _pictures(self) -> Items:
        files = [self.path] if self.kind == 'image' else _images(self.path)
        if self.stamps is not None and self.stamps.names is not None:
            files = [self.path / name for name in self.stamps.names]
        seen: dict[str, str] = {}
        depth = BitDepth()
        for index, path in enumerate(files):
            other = seen.setdefault(path.stem, path.name)
            if other != path.name:
                text = f"'{path.name}' and '{other}' would give one result; rename one"
                yield path.name, FrameError(text)
                continue
            try:
                image, _ = decode_file(
                    path.read_bytes(), upright=True, depth=depth if self.sequence else None
                )
            except OSError as error:
                yield path.stem, FrameError(f"'{path.name}' cannot be read: {error.strerror}")
            except FrameError as error:
                yield path.stem, FrameError(f"'{path.name}': {error}")
            else:
                yield path.stem, self._frame(index, image)

    def _video(self) -> Items:
        limit = None if self.stamps is None else len(self.stamps.stamps_ns)
        index, fault = 0, ''
        with VideoReader(self.url or self.path) as video:
            try:
                for stamp_ns, image in video:
                    if index == limit:
                        fault = f'has more frames than its {limit} stamps; the rest is left out'
                        break
                    yield f'{index:06d}', self._frame(index, image, stamp_ns)
                    index += 1
            except VideoError as error:
                yield f'{index:06d}', FrameError(str(error))
                return
        if limit is not None and index < limit:
            fault = f'has {index} frames for {limit} stamps, which may be of others'
        if fault:
            yield f'{index:06d}', FrameError(f"'{self.path.name}' {fault}")

    def _bag(self) -> Items:
        assert self.topic is not None, 'frames are those of one camera'
        with BagReader(self.path) as bag:
            # the error at the end has a name that no frame has, whose results it would replace
            for index, frame in enumerate(bag.frames(bag.image_topic(self.topic))):
                yield f'{index:06d}', frame


def camera_names(topics: tuple[str, ...]) -> dict[str, str]:
    """Return the camera of each image topic; those of one name are told apart by more of it."""
    cameras, images = (Counter(map(part, topics)) for part in (camera_of, base_topic))

    def name(topic: str) -> str:
        if cameras[camera_of(topic)] == 1:
            return camera_of(topic)
        return (base_topic(topic) if images[base_topic(topic)] == 1 else topic).strip('/')

    return {topic: name(topic) for topic in topics}


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

    ``topic`` is for bags; without it the only camera's is taken, or with ``every_camera`` all are
    listed. ``rate`` in frames a second makes a folder a sequence and
    overrides a video's; ``stamps`` is a file as ``read_stamps`` takes it, instead. ``DataError``
    or ``BagError`` says what is missing, unreadable or ambiguous.
    """
    url = stream_url(path) or ''
    path = user_path(path)
    if not path.exists() and not url:
        raise DataError(f"'{path}' does not exist")
    if rate is not None and not 0 < rate < 1e4:
        raise DataError(f'rate is above 0 frames a second, got {rate}')
    if rate is not None and stamps is not None:
        raise DataError('give a rate or a file of stamps, not both')
    if not url and is_bag(path):
        if stamps is not None:
            raise DataError(f"'{path}' is a bag, which has stamps of its own")
        return _open_bag(path, topic, every_camera)
    if topic is not None:
        raise DataError(f"'{path}' is no bag, so it has no topic '{topic}'")
    given = None if stamps is None else read_stamps(user_path(stamps))
    # a stream may be called snapshot.jpg
    suffix = '' if url else path.suffix.lower()
    if path.is_dir():
        return _open_folder(path, rate, given)
    if suffix in IMAGE_SUFFIXES:
        if given is not None:
            raise DataError(f"'{path}' is one image; stamps are for folders and videos")
        return FrameSource(path=path, kind='image', count=1, rate=DEFAULT_RATE, sequence=False)
    if url or suffix in VIDEO_SUFFIXES:
        if given is not None and given.names is not None:
            raise DataError('the stamps of a video are one a frame, without names')
        return _open_video(path, url, rate, given)
    raise DataError(
        f"'{path}' is neither an image ({', '.join(IMAGE_SUFFIXES)}), a video "
        f'({", ".join(VIDEO_SUFFIXES)}), a bag (.mcap, .db3, .bag) nor a folder; convert '
        'it to one of these'
    )


def _open_bag(path: Path, topic: str | None, every_camera: bool) -> FrameSource:
    with BagReader(path) as bag:
        several = every_camera and topic is None and len(bag.camera_topics) > 1
        found = bag.camera_topics if several else [bag.camera_topic(topic)]
        note = bag.others_text() if topic is None else ''
    names = tuple(item.name for item in found)
    return FrameSource(
        path=path, kind='bag', count=sum(item.count for item in found), topics=names,
        topic=names[0] if len(names) == 1 else None, note=note,
    )  # fmt: skip


def _open_video(path: Path, url: str, rate: float | None, stamps: Stamps | None) -> FrameSource:
    try:
        with VideoReader(url or path) as video:
            count, live = video.count, video.live and not video.duration
            if not video.live and next(iter(video), None) is None:
                raise VideoError(f"'{path}' cannot be read as a video: it holds no frame")
    except VideoError as error:
        raise DataError(str(error)) from error
    return FrameSource(
        path=path, url=url, live=live, kind='video', count=count, rate=rate, stamps=stamps
    )


def _open_folder(path: Path, rate: float | None, stamps: Stamps | None) -> FrameSource:
    images = _images(path)
    there = {image.name for image in images}
    named = there if stamps is None or stamps.names is None else {*stamps.names}
    note = _left_out(path, named)
    if not images:
        raise DataError(
            f"folder '{path}' holds no images ({', '.join(IMAGE_SUFFIXES)}) and no bag"
            + ''.join(f"; '{inner}' is one" for inner in path.iterdir() if is_bag(inner))
            + f'; {note}' * bool(note)
        )
    if stamps is None:
        return FrameSource(
            path=path, kind='folder', count=len(images), rate=rate or DEFAULT_RATE,
            sequence=rate is not None, note=note,
        )  # fmt: skip
    count = len(stamps.stamps_ns)
    if stamps.names is None and count != len(images):
        raise DataError(f"{count} stamps came for the {len(images)} images of '{path}'")
    name, times = Counter(stamps.names or there).most_common(1)[0]
    if times > 1:
        raise DataError(
            f"the stamps of '{path}' name '{name}' {times} times, and a picture has one stamp; "
            'give each folder a file of its own'
        )
    if not named & there:
        raise DataError(
            f"none of the files that the stamps name, such as '{min(named)}', lies in '{path}'"
        )
    return FrameSource(path=path, kind='folder', count=count, stamps=stamps, note=note)


def _images(folder: Path) -> list[Path]:
    """Return the pictures of a folder by the numbers in their names, without half-written ones."""
    found = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted((path for path in found if not path.name.startswith('.')), key=natural_order)


def _left_out(folder: Path, read: set[str]) -> str:
    """Return what lies in a folder beside the names that are read, '' for nothing."""
    others = sorted(p for p in folder.iterdir() if p.name not in read and p.name[0] != '.')
    files = [path for path in others if not path.is_dir()]
    pictures = [path.name for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    kinds = {path.suffix or path.name for path in files}
    texts = [
        f'{what} {", ".join(names[:3])}{", …" if len(names) > 3 else ""}'
        for what, names in (
            ('subfolders', [path.name for path in others if path.is_dir()]),
            ('files', sorted(k for k in kinds if k.lower() not in IMAGE_SUFFIXES)),
            (f'{len(pictures)} pictures without a stamp:', pictures),
        )
        if names
    ]  # fmt: skip
    return f'not read: {"; ".join(texts)}' if texts else ''
