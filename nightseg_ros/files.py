# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Files that appear whole or not at all, and names that libraries take for a path.

Also where models, config and launch files lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from decimal import Decimal
import errno
from functools import lru_cache
import json
import logging
import os
from pathlib import Path
import re
import stat
import sys
import tempfile
from typing import Any, TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from multiprocessing.context import SpawnContext

#: Warnings of no matter which verb or node.
LOG = logging.getLogger('nightseg_ros')


def log_to_stderr(level: int | str) -> None:
    """Let what ``LOG`` has to say from this level on go to stderr, a line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter('%(levelname)s: %(message)s'))
    LOG.handlers = [handler]
    LOG.setLevel(level)


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
    # a name may be as long as the file system allows
    prefix = f'.{path.stem[:50]}-'
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=path.suffix)
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


def read_json(path: Path) -> dict[str, Any]:
    """Return the mapping that a file of ours holds; an empty one where there is none or half."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


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


def natural_order(path: Path) -> list[tuple[Decimal, str]]:
    """
    Return a key that sorts names by the numbers in them: 2 comes before 10.

    Seconds of an epoch may have a fraction, of which .15 comes before .2.
    """
    parts = re.split(r'((?<![0-9])[0-9]{10}\.[0-9]+|[0-9]+)', path.stem)
    key = [
        (Decimal(part), '') if index % 2 else (Decimal(), part) for index, part in enumerate(parts)
    ]
    # 01 and 1 are equal so far
    return [*key, (Decimal(-1), path.name)]


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


def cache_dirs() -> list[Path]:
    """Return the folders in which to look: the cache, and the temporary one in its stead."""
    folders = [cache_dir()]
    # no folder for temporary files may be there either
    with suppress(OSError):
        folders += filter(_is_private, [_temporary()])
    return folders


def write_cache(name: str, content: bytes) -> Path:
    """
    Write a file of the cache and return it.

    Where the cache cannot be written it lies in a temporary folder of this user, and one warning
    says so. ``OSError`` where that cannot be written either.
    """
    cache = cache_dir()
    try:
        return _write(cache / name, content)
    except OSError as error:
        reason = f"'{cache}': {error.strerror}"
    if cache.is_relative_to(os.devnull):
        reason = 'there is no HOME'
    folder = _temporary()
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not _is_private(folder):
        raise PermissionError(errno.EPERM, f"{reason}; '{folder}' belongs to somebody else")
    try:
        path = _write(folder / name, content)
    except OSError as error:
        raise OSError(error.errno, f"{reason}; '{folder}': {error.strerror}") from error
    _warn_of_temporary(reason, folder)
    return path


@lru_cache
def _warn_of_temporary(reason: str, folder: Path) -> None:
    LOG.warning(
        "the cache cannot be written (%s): '%s' is used instead; set NIGHTSEG_CACHE to a folder "
        'that can be written',
        reason, folder,
    )  # fmt: skip


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content, durable=True)
    return path


def _temporary() -> Path:
    return Path(tempfile.gettempdir()) / f'nightseg-{os.getuid()}'


def _is_private(folder: Path) -> bool:
    """Tell a folder that nobody else has written into: runtimes trust what is cached."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return own and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def use_log_folder() -> None:
    """Give ROS a folder for its logs where it has none that it can write: it would not start."""
    home = os.environ.get('ROS_HOME') or os.path.join(os.environ.get('HOME') or os.devnull, '.ros')
    folder = Path(os.environ.get('ROS_LOG_DIR') or os.path.join(home, 'log'))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        os.environ['ROS_LOG_DIR'] = tempfile.mkdtemp(prefix='nightseg-log-')
