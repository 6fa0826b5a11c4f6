# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Frames of videos, bags and folders as picture files, for a user who has a recording of a drive.

A file is called SOURCE_STAMP, the stamp in nanoseconds with leading zeros, so that names sort by
time and nothing depends on the order in which frames are read. Each file appears whole;
extract.json says which recording was taken how, so that an interrupted run goes on and frames of
different settings never mix.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from nightseg_ros.bags.reader import is_bag
from nightseg_ros.data.sample import DataError
from nightseg_ros.data.source import FrameSource, open_source
from nightseg_ros.files import replace_file
from nightseg_ros.perception.frame import Frame

MANIFEST = 'extract.json'


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractConfig:
    """How frames are taken."""

    every: float = 1.0
    """Seconds between frames by their stamps; 0 takes all."""
    format: Literal['jpg', 'png'] = 'jpg'
    quality: int = 95
    """JPEG quality, 1 to 100."""
    topic: str | None = None
    """Image topic of bags; without it the only one there is."""
    rate: float | None = None
    """Frames a second of folders, which have no time, or of videos instead of their own."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not 0 <= self.every < 1e6:
            raise ValueError(f"'every' is 0 or more seconds, got {self.every}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"'quality' is 1 to 100, got {self.quality}")
        if self.format not in ('jpg', 'png'):
            raise ValueError(f"'format' is jpg or png, got '{self.format}'")


@dataclass(frozen=True, kw_only=True, slots=True)
class Extracted:
    """What a run did."""

    written: int
    kept: int
    """Files that an earlier run had written."""
    broken: int
    """Frames that could not be read."""


def extract(
    sources: Sequence[str | Path],
    out: Path,
    config: ExtractConfig,
    *,
    force: bool = False,
    progress: Callable[[int, int | None, str], None] = lambda done, total, text: None,
    say: Callable[[str], None] = lambda text: None,
) -> Extracted:
    """
    Write frames of ``sources`` into ``out``; ``images:OUT`` is then a data set.

    ``progress`` gets frames read, frames there are or None, and the source's name. ``force``
    writes the frames of a source anew. ``DataError`` where a source holds no frames, where two
    would give the same names, where ``out`` holds frames that were taken otherwise, and where a
    file cannot be written.
    """
    paths = [Path(given).expanduser() for given in sources]
    bags = [path for path in paths if is_bag(path)]
    if config.topic and not bags:
        raise DataError(f"there is no bag to take the topic '{config.topic}' from")
    opened: dict[str, FrameSource] = {}
    for given in paths:
        topic = config.topic if given in bags else None
        source = open_source(given, topic, rate=None if given in bags else config.rate)
        if source.kind == 'folder' and not source.sequence and config.every > 0:
            raise DataError(
                f"'{given}' is a folder, which has no time; give --rate in frames a second, or "
                f'read it as it is: images:{given}'
            )
        name = name_of(source)
        if name in opened:
            raise DataError(
                f"frames of '{given}' and '{opened[name].path}' would both be called {name}_…; "
                'rename one, or give each an --out of its own'
            )
        opened[name] = source
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"'{out}' cannot be made: {error.strerror}") from error
    before = {name: _check(name, source, out, config, force) for name, source in opened.items()}
    written = kept = broken = 0
    for name, source in opened.items():
        if before[name]:
            files = len(_frames(out, name))
            say(f"{name}: all {files} frames are in '{out}' already")
            kept += files
            continue
        try:
            result = _extract_one(name, source, out, config, progress, say)
        except OSError as error:
            raise DataError(
                f"'{out}': {error.strerror or error}; {len(_frames(out, name))} frames of {name} "
                'are there and whole. Make room and give the same command again: it goes on'
            ) from error
        if not result.written + result.kept:
            raise DataError(f"'{source.path}' holds no frame that can be read")
        written, kept = written + result.written, kept + result.kept
        broken += result.broken
    return Extracted(written=written, kept=kept, broken=broken)


def name_of(source: FrameSource) -> str:
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
    config: ExtractConfig,
    progress: Callable[[int, int | None, str], None],
    say: Callable[[str], None],
) -> Extracted:
    entry = _entry(source, config)
    _note(out, name, {**entry, 'complete': False})
    there = {path.name for path in _frames(out, name)}
    seen: set[str] = set()
    written = broken = 0
    wanted = _EveryStamp(config.every)
    for number, (stem, frame) in enumerate(source, start=1):
        progress(number, source.count, name)
        if not isinstance(frame, Frame):
            broken += 1
            say(f'{name} {stem}: skipped, {frame}')
            continue
        file = f'{name}_{frame.stamp_ns:019d}.{config.format}'
        if not wanted(frame.stamp_ns) or file in seen:
            continue
        seen.add(file)
        if file not in there:
            replace_file(out / file, _encode(frame, config))
            written += 1
    _note(out, name, {**entry, 'complete': True, 'frames': len(seen), 'broken': broken})
    return Extracted(written=written, kept=len(seen) - written, broken=broken)


class _EveryStamp:
    """Tells which stamps to take: the first, then the first of each step of a grid from there."""

    def __init__(self, seconds: float) -> None:
        self._step = round(seconds * 1e9)
        self._due: int | None = None
        self._last = 0

    def __call__(self, stamp_ns: int) -> bool:
        # a recording that starts over has its own grid
        if self._due is None or stamp_ns < self._last:
            self._due = stamp_ns
        self._last = stamp_ns
        if stamp_ns < self._due:
            return False
        if self._step:
            self._due += ((stamp_ns - self._due) // self._step + 1) * self._step
        return True


def _encode(frame: Frame, config: ExtractConfig) -> bytes:
    image = frame.image
    if frame.order == 'rgb':
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8)
    settings = [cv2.IMWRITE_JPEG_QUALITY, config.quality] if config.format == 'jpg' else []
    good, content = cv2.imencode(f'.{config.format}', image, settings)
    if not good:
        raise DataError(f'a frame of shape {image.shape} cannot be written as {config.format}')
    return content.tobytes()


def _check(name: str, source: FrameSource, out: Path, config: ExtractConfig, force: bool) -> bool:
    """Tell whether a source is done; clear what a forced or interrupted run left."""
    for half in out.glob(f'.{name}_*'):
        half.unlink()
    entry = _manifest(out).get(name)
    frames = _frames(out, name)
    if force:
        for path in frames:
            path.unlink()
        return False
    if entry is None and frames:
        raise DataError(
            f"'{out}' holds {len(frames)} pictures called {name}_… that were not extracted here; "
            'give another --out, or --force to replace them'
        )
    if entry is None:
        return False
    for key, now in _entry(source, config).items():
        if entry.get(key) != now:
            raise DataError(
                f"'{out}' holds frames of {name} that were taken with {key} {entry.get(key)!r}, "
                f'now it is {now!r}; give another --out, or --force to replace them'
            )
    return bool(entry.get('complete')) and entry.get('frames') == len(frames)


def _entry(source: FrameSource, config: ExtractConfig) -> dict[str, Any]:
    """Return what the frames of a source depend on, in JSON types."""
    files = [source.path] if source.path.is_file() else sorted(source.path.iterdir())
    return {
        'source': source.path.name,
        'bytes': sum(file.stat().st_size for file in files if file.is_file()),
        'topic': source.topic,
        'rate': source.rate,
        'every': config.every,
        'format': config.format,
        'quality': config.quality if config.format == 'jpg' else None,
    }


def _frames(out: Path, name: str) -> list[Path]:
    pattern = re.compile(rf'{re.escape(name)}_\d+\.(jpg|png)')
    return sorted(path for path in out.glob(f'{name}_*') if pattern.fullmatch(path.name))


def _manifest(out: Path) -> dict[str, Any]:
    try:
        content = json.loads((out / MANIFEST).read_text(encoding='utf-8'))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _note(out: Path, name: str, entry: dict[str, Any]) -> None:
    content = {**_manifest(out), name: entry}
    replace_file(out / MANIFEST, (json.dumps(content, indent=1) + '\n').encode())
