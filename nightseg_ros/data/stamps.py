# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A file that says when each picture of a folder, or each frame of a video, was taken."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

from nightseg_ros.data.sample import DataError

_NUMBER = re.compile(r'\d+(\.\d*)?([eE][+-]?\d+)?')


@dataclass(frozen=True, kw_only=True, slots=True)
class Stamps:
    """Stamps in ns, strictly increasing, each with the name of its file where one is given."""

    stamps_ns: tuple[int, ...]
    names: tuple[str, ...] | None
    """File names without folders; None where the file lists stamps only."""


def read_stamps(file: Path) -> Stamps:
    """
    Read lines of ``STAMP`` or of ``STAMP NAME``, parted by spaces or a comma, as TUM and EuRoC do.

    A stamp with a point is seconds, one without is nanoseconds; lines that begin with # are
    skipped. ``DataError`` names the first line that is wrong or whose stamp does not increase.
    """
    try:
        lines = file.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"stamps '{file}' cannot be read: {error}") from error
    stamps: list[int] = []
    names: list[str] = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith('#'):
            continue
        first, *rest = re.split(r'[,\s]+', text, maxsplit=1)
        stamp = _nanoseconds(first)
        if stamp is None or stamp < 0:
            raise DataError(
                f"stamps '{file}', line {number}: '{first}' is no stamp; seconds with a point or "
                'whole nanoseconds are wanted'
            )
        if stamps and stamp <= stamps[-1]:
            raise DataError(
                f"stamps '{file}', line {number}: '{first}' is not later than the line before"
            )
        if bool(rest) != (len(names) == len(stamps)) and stamps:
            raise DataError(f"stamps '{file}', line {number}: all lines have a name, or none has")
        stamps.append(stamp)
        names += [Path(name.strip()).name for name in rest]
    if not stamps:
        raise DataError(f"stamps '{file}' holds none")
    return Stamps(stamps_ns=tuple(stamps), names=tuple(names) or None)


def _nanoseconds(text: str) -> int | None:
    if not _NUMBER.fullmatch(text):
        return None
    try:
        # a float would lose the last three digits of an epoch stamp
        value = Decimal(text)
    except InvalidOperation:
        return None
    return int(value * 10**9) if '.' in text or 'e' in text.lower() else int(value)
