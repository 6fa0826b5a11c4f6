# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Frames of recordings as picture files.

They are called SOURCE_STAMP, the stamp in nanoseconds with leading zeros, so that names sort by
time and nothing depends on the order in which frames are read. Each file appears whole;
extract.json says which recording was taken how, so that an interrupted run goes on and frames of
different settings never mix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import json
from pathlib import Path
import re
from typing import Any, Literal, NamedTuple

import cv2
from nightseg_ros.bags.reader import is_bag
from nightseg_ros.config import ConfigError
from nightseg_ros.data.sample import DataError
from nightseg_ros.data.source import encode, FrameSource, open_source
from nightseg_ros.files import read_json, replace_file, user_path
from nightseg_ros.outputs import check_output, require_same
from nightseg_ros.perception.frame import Frame

MANIFEST = 'extract.json'


class Extracted(NamedTuple):
    """What a run did: frames written, frames of an earlier run, frames that cannot be read."""

    written: int
    kept: int
    broken: int


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
) -> Extracted:
    """
    Write frames of ``sources`` into ``out``; ``images:OUT`` is then a data set.

    ``every`` are the seconds between frames by their stamps, 0 takes all; ``quality`` is JPEG's.
    ``topic`` is for bags, ``rate`` for what is none. ``progress`` gets frames read, frames there
    are or None, and the source's name. ``force`` writes the frames of a source anew. ``DataError``
    where a source holds no frames, where two would give the same names, where ``out`` holds frames
    that were taken otherwise, and where a file cannot be written.
    """
    if not 0 <= every < 1e6:
        raise ConfigError(f"'every' is 0 or more seconds, got {every}")
    if not 1 <= quality <= 100:
        raise ConfigError(f"'quality' is 1 to 100, got {quality}")
    settings = {
        'every': every, 'format': encoding, 'quality': quality if encoding == 'jpg' else None,
    }  # fmt: skip
    opened: dict[str, FrameSource] = {}
    for path in map(user_path, sources):
        bag = is_bag(path)
        source = open_source(path, topic if bag else None, rate=None if bag else rate)
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
    if topic and not any(source.kind == 'bag' for source in opened.values()):
        raise DataError(f"there is no bag to take the topic '{topic}' from")
    # without force nothing goes that was there, but pictures would mix with those that are read
    paths = [source.path for source in opened.values()]
    touched = [path for path in paths if force or path.resolve() == out.resolve()]
    check_output(out, 'pictures', lambda path: path.is_dir(), inputs=touched, error=DataError)
    entries: dict[str, dict[str, Any]] = {
        name: {'topic': source.topic, 'rate': source.rate, **settings}
        for name, source in opened.items()
    }
    before = read_json(out / MANIFEST)
    # all are looked at before anything is written
    for name, entry in entries.items() if not force else ():
        if name in before:
            given = {key: before[name].get(key) for key in entry}
            require_same(out, given, entry, DataError, 'another --out, or --force')
        elif _frames(out, name):
            raise DataError(
                f"'{out}' holds pictures called {name}_… that were not extracted here; give "
                'another --out, or remove them yourself'
            )
    total = Extracted(0, 0, 0)
    for name, source in opened.items():
        done = before.get(name, {}).get('frames')
        if not force and done is not None and done == len(_frames(out, name)):
            log(f"{name}: all {done} frames are in '{out}' already")
            found = Extracted(0, done, 0)
        else:
            try:
                out.mkdir(parents=True, exist_ok=True)
                _clear(out, name, frames=force and name in before)
                found = _extract_one(name, source, out, entries[name], progress, log)
            except OSError as error:
                raise DataError(
                    f"'{out}': {error.strerror or error}; {len(_frames(out, name))} frames of "
                    f'{name} are there and whole. Make room and give the same command again: it '
                    'goes on'
                ) from error
            if not found.written + found.kept:
                raise DataError(f"'{source.path}' holds no frame that can be read")
        total = Extracted(*map(sum, zip(total, found)))
    return total


def _name_of(source: FrameSource) -> str:
    """Return the first part of the file names: letters, digits and hyphens, a letter first."""
    name = source.path.name if source.path.is_dir() else source.path.stem
    if source.kind == 'bag':
        name += f'-{source.camera}'
    name = re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-')
    # what comes before the first digit would count as the camera's name
    return name if name[:1].isalpha() else f'drive-{name}'.rstrip('-')


def _extract_one(
    name: str,
    source: FrameSource,
    out: Path,
    entry: dict[str, Any],
    progress: Callable[[int, int | None, str], None],
    log: Callable[[str], None],
) -> Extracted:
    _note(out, name, entry)
    there = {path.name for path in _frames(out, name)}
    suffix, quality = f'.{entry["format"]}', entry['quality']
    how = [] if quality is None else [cv2.IMWRITE_JPEG_QUALITY, quality]
    step = round(entry['every'] * 1e9)
    due, last = 0, None
    seen: set[str] = set()
    written = broken = 0
    for number, (stem, frame) in enumerate(source, start=1):
        progress(number, source.count, name)
        if not isinstance(frame, Frame):
            broken += 1
            log(f'{name} {stem}: skipped, {frame}')
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
        file = f'{name}_{stamp:019d}{suffix}'
        if file not in there and file not in seen:
            replace_file(out / file, encode(frame, suffix, how))
            written += 1
        seen.add(file)
    _note(out, name, {**entry, 'frames': len(seen)})
    return Extracted(written, len(seen) - written, broken)


def _clear(out: Path, name: str, *, frames: bool) -> None:
    """Remove what a killed run left half-written, and ``frames`` of an earlier one."""
    left = rf'\.{re.escape(name)}_\d+-\w+\.(jpg|png)'
    # a user's own number is shorter than a stamp
    ours = rf'{re.escape(name)}_\d{{19}}\.(jpg|png)'
    for path in out.iterdir():
        if re.fullmatch(f'{left}|{ours}' if frames else left, path.name):
            path.unlink()


def _frames(out: Path, name: str) -> list[Path]:
    pattern = re.compile(rf'{re.escape(name)}_\d+\.(jpg|png)')
    return sorted(path for path in out.glob(f'{name}_*') if pattern.fullmatch(path.name))


def _note(out: Path, name: str, entry: dict[str, Any]) -> None:
    content = {**read_json(out / MANIFEST), name: entry}
    replace_file(out / MANIFEST, (json.dumps(content, indent=1) + '\n').encode())
