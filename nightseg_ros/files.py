# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Files that appear whole or not at all, and names that libraries take for a path.

Also where models, config and launch files lie.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from multiprocessing.context import SpawnContext


def replace_file(path: Path, content: bytes, *, durable: bool = False) -> None:
    """
    Write ``content`` beside ``path`` and move it there; a reader sees the old or the new.

    ``durable`` waits for the disk, so that the new one is whole after a power cut, too.
    """
    with partial_file(path) as partial, open(partial, 'wb') as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """
    Yield a hidden name beside ``path``, of the same suffix, and move it there at the end.

    An error removes the hidden file and leaves ``path`` as it was.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.stem}-', suffix=path.suffix)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o644)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read_text(path: Path) -> str:
    """
    Return a user's text without its byte order mark and carriage returns.

    It is UTF-8, or UTF-16 with a mark, as Windows' shell writes it. ``UnicodeDecodeError``.
    """
    content = path.read_bytes()
    wide = content.startswith((b'\xff\xfe', b'\xfe\xff'))
    text = content.decode('utf-16' if wide else 'utf-8-sig')
    return text.replace('\r\n', '\n').replace('\r', '\n')


def process_context() -> SpawnContext | None:
    """
    Return what starts processes; None where their locks have no place: ``/dev/shm`` is missing.

    They are spawned: a fork would copy the locks of threads that this process may have.
    """
    import multiprocessing

    context = multiprocessing.get_context('spawn')
    try:
        context.Lock()
    except (OSError, ImportError):
        return None
    return context


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Return a key that sorts names by the numbers in them: 2 comes before 10."""
    parts = re.split(r'([0-9]+)', path.name)
    return [(int(part), '') if part.isdecimal() else (-1, part) for part in parts]


@contextmanager
def plain_name(path: Path) -> Iterator[str]:
    """
    Yield a name of a file for libraries that read more into it than a path.

    OpenCV and FFmpeg take names for URLs and for patterns of numbers, and crash over bytes that
    are no UTF-8. Such a file gets a symbolic link of the same suffix for as long as it is in use.
    """
    absolute = path.absolute()
    if re.fullmatch(r'/[A-Za-z0-9_./ +=,@-]*', str(absolute)):
        yield str(absolute)
        return
    with tempfile.TemporaryDirectory(prefix='nightseg-') as folder:
        link = Path(folder) / f'file{path.suffix if path.suffix.isascii() else ""}'
        link.symlink_to(absolute)
        yield str(link)


def uri_path(path: Path) -> Path:
    """Return an absolute path as it stands in a ``file:`` URI: SQLite decodes %23 and the like."""
    # two leading slashes would make the first folder a host
    return Path('/' + quote(os.fsencode(path.absolute()).lstrip(b'/')))


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return a path with ~ as the home folder, unless a file is called so or nobody is."""
    path = Path(path)
    if os.path.lexists(path):
        return path
    try:
        return path.expanduser()
    # Path('./~x') is Path('~x'), and HOME may be missing
    except RuntimeError:
        return path


def share_dir() -> Path:
    """
    Return the folder that holds ``models/``, ``config/`` and ``launch/``.

    In order: ``NIGHTSEG_SHARE``, the source tree of this module (an editable install must not mix
    two versions), its colcon workspace, ``AMENT_PREFIX_PATH``, and this interpreter's prefix.
    """
    if explicit := os.environ.get('NIGHTSEG_SHARE'):
        return Path(explicit)
    source = Path(__file__).resolve().parent.parent
    if (source / 'resource' / 'nightseg').is_file() and (source / 'models').is_dir():
        return source
    # a colcon workspace puts the module at <prefix>/lib/pythonX.Y/site-packages/nightseg_ros
    prefixes: list[str | Path] = [*source.parents[2:3], sys.prefix]
    prefixes[1:1] = filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep))
    candidates = [Path(prefix) / 'share' / 'nightseg' for prefix in prefixes]
    return next((c for c in candidates if (c / 'models').is_dir()), candidates[-1])


def models_dir() -> Path:
    """Return the folder of the weights that are shipped."""
    return share_dir() / 'models'


def cache_dir() -> Path:
    """Return the folder for exported graphs: ``NIGHTSEG_CACHE``, else the user's cache."""
    if explicit := os.environ.get('NIGHTSEG_CACHE'):
        return Path(explicit)
    if base := os.environ.get('XDG_CACHE_HOME'):
        return Path(base) / 'nightseg'
    try:
        return Path.home() / '.cache' / 'nightseg'
    except RuntimeError:  # no home: a folder that can be neither read nor made
        return Path(os.devnull) / 'nightseg'
