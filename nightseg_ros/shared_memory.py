# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Fast DDS's files in /dev/shm: what dead processes left there, and what this one would leave.

A participant owns a segment ``fastrtps_<16 hex digits>`` (``fastdds_`` in later versions), which
with the profile for large images takes 67 MB, and some ports ``fastrtps_port<number>``. Beside
each lies a file ``_el`` or ``_sl``, on which its owner holds a flock until it ends, however that
happens; ports have a semaphore as well, under which they are opened and removed. A port
counts who has it: a killed process stays counted, so that the last one leaves it, without a lock.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager, ExitStack, suppress
import ctypes
import fcntl
import mmap
import os
from pathlib import Path
import re
import signal
import stat
import time
from typing import IO

FOLDER = Path('/dev/shm')  # noqa: S108  # nosec
#: Seconds that a file must have existed: its owner makes it first and takes the lock then.
SETTLED = 10.0
#: The same of an empty one, which has been made and not yet been given its size.
SETTLED_EMPTY = 1.0

_FILE = re.compile(r'((?:fastrtps|fastdds)_(?:[0-9a-f]{16}|port\d{1,5}))(_[es]l)?')


def remove_orphans(
    folder: Path = FOLDER, settled: float = SETTLED, only: Container[str] | None = None
) -> list[str]:
    """
    Remove what dead processes of this user left, and return the names of segments and ports.

    Only files older than ``settled`` seconds whose lock is free AND which no process has open or
    mapped; of those without a lock ports alone. The kernel answers both whatever container a
    process is in. ``only`` names the segments and ports that may be removed. What fails is left;
    no error is raised.
    """
    removed = []
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            name = _FILE.fullmatch(path.name)
            if name is None or (only is not None and name[1] not in only):
                continue
            segment = path.with_name(name[1])
            with suppress(OSError):
                if name[2]:
                    if not _settled(settled, path, segment):
                        continue
                    # Fast DDS takes the first two in this order
                    with _semaphore(segment), _unused(path, segment):
                        _remove(path, segment)
                elif not path.stat().st_size:
                    if not _settled(min(settled, SETTLED_EMPTY), path):
                        continue
                    # its maker was killed: who opens it next would wait for its size for ever
                    with _open(path) as file:
                        _lease(file)
                        path.unlink()
                else:
                    locks = [*folder.glob(f'{path.name}_?l')]
                    if '_port' not in path.name or locks or not _settled(settled, path):
                        continue
                    with _semaphore(path), _open(path) as file:
                        _lease(file)
                        _remove(path.with_name(f'{path.name}_el'), path)
                removed.append(segment.name)
    return removed


def remove_own(folder: Path = FOLDER) -> list[str]:
    """
    Remove what this process owns, and return the names of segments and ports.

    For a process that ends at the next moment without Fast DDS's own clean-up: others go on
    with what they have mapped. No error is raised.
    """
    removed = []
    for lock, descriptor in held_locks('self', folder):
        segment = lock.with_name(lock.name[:-3])
        with suppress(OSError), _semaphore(segment):
            # where other processes share a port this fails
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(lock, segment)
            removed.append(segment.name)
    return removed


def held_locks(pid: int | str, folder: Path = FOLDER) -> list[tuple[Path, int]]:
    """Return the lock files that a process holds open, each with its descriptor there."""
    found = []
    with suppress(OSError):
        for link in Path(f'/proc/{pid}/fd').iterdir():
            with suppress(OSError):
                path = Path(os.readlink(link))
                name = _FILE.fullmatch(path.name)
                if path.parent == folder and name and name[2]:
                    found.append((path, int(link.name)))
    return found


def _settled(seconds: float, *paths: Path) -> bool:
    """Return whether they are plain files of this user and old enough; some may be missing."""
    now = time.time()
    for path in paths:
        with suppress(FileNotFoundError):
            status = path.lstat()
            plain = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
            if not plain or now - max(status.st_mtime, status.st_ctime) < seconds:
                return False
    return True


def _open(path: Path, mode: str = 'rb') -> IO[bytes]:
    flags = os.O_NOFOLLOW | os.O_CLOEXEC
    return open(path, mode, buffering=0, opener=lambda name, how: os.open(name, how | flags))


@contextmanager
def _unused(lock: Path, segment: Path) -> Iterator[None]:
    """
    Hold the lock and keep the segment to this process; ``OSError`` where another has either.

    /proc would not tell: it hides other containers, and the maps of other users.
    """
    with ExitStack() as stack:
        held = stack.enter_context(_open(lock))
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(held.fileno()), lock.lstat()):
            raise FileNotFoundError(lock)
        # the segment of a lock alone is gone
        with suppress(FileNotFoundError):
            _lease(stack.enter_context(_open(segment)))
        yield


def _lease(file: IO[bytes]) -> None:
    """Keep others out of a file; ``OSError`` where another file description, or a map, exists."""
    # who opens the file now waits, and this process is told: by default with a deadly signal
    fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)


@contextmanager
def _semaphore(segment: Path) -> Iterator[None]:
    """
    Hold the semaphore of a port, nothing for what is none; ``OSError`` where it is taken.

    It is what sem_open(3) maps. Without it somebody who starts at this moment could find a port
    half removed.
    """
    if '_port' not in segment.name:
        yield
        return
    library = ctypes.CDLL(None, use_errno=True)
    with ExitStack() as stack:
        try:
            file = stack.enter_context(_open(_semaphore_of(segment), 'r+b'))
            memory = stack.enter_context(mmap.mmap(file.fileno(), 32))
        except ValueError as error:
            # shorter than a semaphore
            raise OSError(str(error)) from error
        semaphore = [ctypes.c_char.from_buffer(memory)]
        # the memory cannot be unmapped while something refers to it
        stack.callback(semaphore.clear)
        if library.sem_trywait(ctypes.byref(semaphore[0])):
            raise OSError(ctypes.get_errno(), f'{segment.name}: sem_trywait')
        stack.callback(lambda: library.sem_post(ctypes.byref(semaphore[0])))
        yield


def _semaphore_of(port: Path) -> Path:
    return port.with_name(f'sem.{port.name}_mutex')


def _remove(lock: Path, segment: Path) -> None:
    """Remove a segment or port whose locks are held; the lock last, so that a rest is found."""
    segment.unlink(missing_ok=True)
    if '_port' in segment.name:
        _semaphore_of(segment).unlink(missing_ok=True)
    lock.unlink(missing_ok=True)
