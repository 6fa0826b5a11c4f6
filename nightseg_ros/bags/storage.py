# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""One file of a bag, whole, damaged, or packed as a whole."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from nightseg_ros.bags.formats import FORMATS, Channel, Record

# comes with rosbags
_zstd: Any = importlib.import_module(
    'compression.zstd' if sys.version_info >= (3, 14) else 'backports.zstd'
)
_PACKED = '.zstd'
#: Bytes of the disk that unpacking a file leaves free.
_RESERVE = 2**29
_STEP = 2**16


class StorageFile:
    """A file of a bag; nothing is open between two calls."""

    def __init__(self, path: Path) -> None:
        """``path`` ends in .mcap, .db3, .bag or .active, maybe with .zstd behind it."""
        self.path = path
        self.packed = path.suffix == _PACKED
        self.suffix = Path(path.stem if self.packed else path.name).suffix.lower()

    @staticmethod
    def fits(path: Path) -> bool:
        """Tell by its name whether a path may be such a file."""
        return StorageFile(path).suffix in FORMATS

    def contents(self) -> tuple[dict[Channel, int], list[str]]:
        """
        Return the number of messages by topic, and what could not be read.

        The number is the one that the file keeps; a file without it is read as a whole.
        """
        # damaged bytes make the parsers beneath fail in many ways
        with contextlib.suppress(Exception), self._unpacked() as (path, reason):
            counts = None if reason else FORMATS[self.suffix][1](path)
            if counts is not None:
                return counts, []
        found: Counter[Channel] = Counter()
        errors = []
        for item in self.records():
            if isinstance(item, Record):
                found[item.channel] += 1
            else:
                errors.append(item)
        return found, errors

    def records(self, topics: Collection[str] | None = None) -> Iterator[Record | str]:
        """
        Yield the messages of some topics, or of all with None, and texts of what is not read.

        They come in the file's order (MCAP) or in the order of recording.
        """
        name = self.path.name
        with self._unpacked() as (path, reason):
            try:
                if not path.stat().st_size:
                    raise ValueError('is empty (0 bytes)')
                for item in FORMATS[self.suffix][0](path, topics):
                    yield item if isinstance(item, Record) else f'{name} {item}'
            except ValueError as error:
                yield f'{name} {error}'
            # see contents()
            except Exception as error:
                yield f'{name} cannot be read any further: {str(error) or type(error).__name__}'
            if reason:
                yield f'{name}: {reason}'

    @contextlib.contextmanager
    def _unpacked(self) -> Iterator[tuple[Path, str]]:
        """Yield the file as it can be read, and why a packed one breaks off."""
        if not self.packed:
            yield self.path, ''
            return
        with tempfile.TemporaryDirectory(prefix='nightseg-') as folder:
            path = Path(folder) / self.path.stem
            yield path, unpack_file(self.path, path)


def unpack_file(source: Path, target: Path) -> str:
    """
    Unpack a zstd file; return '' or, where it breaks off, why. What lies before is kept.

    It stops before the disk is full: a file of kilobytes can stand for one of terabytes.
    """
    with _zstd.open(source, 'rb') as packed, target.open('wb') as unpacked:
        while True:
            try:
                # read() would lose the bytes before the damage
                part = packed.read1(_STEP)
            except (EOFError, _zstd.ZstdError) as error:
                return f'the compressed file ends too early or is damaged: {error}'
            if not part:
                return ''
            if shutil.disk_usage(target.parent).free < _RESERVE:
                return f'the disk has no room for it, after {unpacked.tell()} unpacked bytes'
            unpacked.write(part)
