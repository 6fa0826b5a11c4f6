# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Frames of recordings as picture files, in a folder that appears whole or not at all.

They are called SOURCE_STAMP, the stamp in nanoseconds with leading zeros, so that names sort by
time and nothing depends on the order in which frames are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
import re
from typing import Literal

from nightseg_ros.bags.reader import camera_of, is_bag
from nightseg_ros.data.pictures import encode_picture
from nightseg_ros.data.sample import DataError
from nightseg_ros.data.source import FrameSource, open_source
from nightseg_ros.files import user_path
from nightseg_ros.outputs import whole_folder
from nightseg_ros.perception.frame import Frame


def extract(
    sources: Sequence[str | Path],
    out: Path,
    *,
    every: float = 1.0,
    encoding: Literal['jpg', 'png'] = 'jpg',
    quality: int = 95,
    topic: str | None = None,
    rate: float | None = None,
    force: bool = False,
    progress: Callable[[int, int | None, str], None] = lambda done, total, text: None,
    log: Callable[[str], None] = lambda text: None,
    problem: Callable[[str], None] | None = None,
) -> tuple[int, int]:
    """
    Write frames of ``sources`` into ``out``; ``images:OUT`` is then a data set.

    Returns the number of frames that were written, and of those that cannot be read.

    ``every`` are the seconds between frames by their stamps, 0 takes all; ``quality`` is JPEG's.
    ``topic`` is for bags, ``rate`` for what is none. ``progress`` gets frames read, frames there
    are or None, and the source's name; ``problem``, or else ``log``, what cannot be read.
    ``force`` replaces a folder of such frames. ``DataError`` where a source holds no frames, where
    two would give the same names, where ``out`` exists or holds something else, and where a file
    cannot be written.
    """
    opened: dict[str, FrameSource] = {}
    for given in sources:
        source = open_source(given, topic if is_bag(user_path(given)) else None, rate=rate)
        path = source.path
        if source.kind == 'folder' and not source.sequence and every > 0:
            raise DataError(
                f"'{path}' is a folder, which has no time; give --rate in frames a second, or "
                f'read it as it is: images:{path}'
            )
        name = _name_of(source)
        if name in opened:
            raise DataError(
                f"frames of '{path}' and '{opened[name].path}' would both be called {name}_…; "
                'rename one, or give each an --out of its own'
            )
        opened[name] = source
        if source.note:
            log(f'{name}: {source.note}')
    kinds = {source.kind for source in opened.values()}
    if topic and 'bag' not in kinds:
        raise DataError(f"there is no bag to take the topic '{topic}' from")
    if rate is not None and kinds <= {'bag', 'image'}:
        raise DataError('--rate is of folders and videos, of which none is given')
    paths = [source.path for source in opened.values()]
    step = round(every * 1e9)
    written = broken = 0
    with whole_folder(
        out, 'extracted frames', _is_ours, inputs=paths, force=force, error=DataError
    ) as unfinished:
        for name, source in opened.items():
            stamps: set[int] = set()
            due, last, twins = 0, None, 0
            for number, (stem, frame) in enumerate(source, start=1):
                progress(number, source.count, name)
                if not isinstance(frame, Frame):
                    broken += 1
                    (problem or log)(f'{name} {stem}: skipped, {frame}')
                    continue
                stamp = frame.stamp_ns
                # the first frame of each step of a grid; a recording that starts over has its own
                if last is None or stamp < last:
                    due = stamp
                last = stamp
                if stamp < due:
                    continue
                if step:
                    due += ((stamp - due) // step + 1) * step
                if stamp in stamps:
                    twins += 1
                    continue
                file = f'{name}_{stamp:019d}.{encoding}'
                content = encode_picture(file, frame.image, quality=quality, order=frame.order)
                (unfinished / file).write_bytes(content)
                stamps.add(stamp)
            if twins:
                log(f'{name}: {twins} frames left out, whose stamps others have')
            if not stamps:
                raise DataError(f"'{source.path}' holds no frame that can be read")
            written += len(stamps)
    return written, broken


def _name_of(source: FrameSource) -> str:
    """Return the first part of the file names: letters, digits and hyphens, a letter first."""
    name = source.path.name if source.path.is_dir() else source.path.stem
    if source.kind == 'bag':
        name += f'-{camera_of(source.topics[0])}'
    name = re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-')
    # what comes before the first digit would count as the camera's name
    return name if name[:1].isalpha() else f'drive-{name}'.rstrip('-')


def _is_ours(folder: Path) -> bool:
    """Tell a folder in which nothing lies but extracted frames."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else ['']
    return all(re.fullmatch(r'[A-Za-z0-9-]+_\d{19}\.(jpg|png)', name) for name in names)
