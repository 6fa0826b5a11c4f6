# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Who works on what, told by files in a folder that processes and machines share.

A claim is the file ``claim.N`` with the highest N. Its owner touches it while it works; one that
has not been touched for ``expiry`` seconds is void, and whoever creates ``claim.N+1`` first has
the work. Files are created exclusively and never removed before the work is done, so two
processes can never both win, however they stall. Ages are taken by the clock of the folder's
file system, since the clocks of machines differ.
"""

from __future__ import annotations

import json
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = 'claim.'


class ClaimLost(RuntimeError):
    """Another process took the work over, because this one gave no sign of life."""


class Claim:
    """The right to work in a folder; use it in a ``with`` block."""

    def __init__(self, folder: Path, number: int, expiry: float) -> None:
        """Start giving signs of life."""
        self._folder, self._number = folder, number
        self._expiry = expiry
        self._done = threading.Event()
        self._lost = False
        self._beat = threading.Thread(target=self._live, daemon=True)
        self._beat.start()

    def __enter__(self) -> Claim:
        """Use it in a ``with`` block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give the work back, done or not."""
        self.release()

    def check(self) -> None:
        """Raise ``ClaimLost`` where another process has taken over."""
        if self._lost or _latest(self._folder) != self._number:
            self._lost = True
            raise ClaimLost(f"another process took over '{self._folder.name}'")

    def release(self) -> None:
        """Let others have the work at once."""
        self._done.set()
        self._beat.join()
        # a file from 1970 is older than any expiry
        os.utime(self._path, (0, 0))

    @property
    def _path(self) -> Path:
        return self._folder / f'{_PREFIX}{self._number}'

    def _live(self) -> None:
        while not self._done.wait(self._expiry / 5):
            if _latest(self._folder) != self._number:
                self._lost = True
                return
            os.utime(self._path)


def take(folder: Path, expiry: float) -> Claim | None:
    """Claim the work in an existing folder, or return None where somebody else has it."""
    latest = _latest(folder)
    if latest and _age(folder / f'{_PREFIX}{latest}') < expiry:
        return None
    path = folder / f'{_PREFIX}{latest + 1}'
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return None
    with os.fdopen(handle, 'w', encoding='utf-8') as file:
        json.dump({'host': platform.node(), 'pid': os.getpid()}, file)
    return Claim(folder, latest + 1, expiry)


def _latest(folder: Path) -> int:
    """Return the highest number of a claim, 0 where there is none."""
    numbers = (path.name[len(_PREFIX) :] for path in folder.glob(f'{_PREFIX}*'))
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def _age(path: Path) -> float:
    """Return the seconds since a file was touched, by its file system's clock."""
    with _probe(path.parent) as now:
        return now - path.stat().st_mtime


@contextmanager
def _probe(folder: Path) -> Iterator[float]:
    probe = folder / f'.clock-{platform.node()}-{os.getpid()}-{threading.get_ident()}'
    probe.touch()
    try:
        yield probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
