# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What a tool may replace or go on with: what the same tool wrote, never an input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
import errno
import fcntl
import json
import os
from pathlib import Path
import shutil
from typing import Any

from nightseg_ros.files import user_path


class OutputError(ValueError):
    """A place that a tool must not write to; the message says what is wanted and what to do."""


def check_output(
    path: Path,
    what: str,
    ours: Callable[[Path], bool] = Path.is_file,
    *,
    folder: bool = False,
    inputs: Iterable[str | Path] = (),
    force: bool = True,
    error: type[ValueError] = OutputError,
) -> None:
    """
    Raise ``error`` unless ``path`` is free, or may be replaced.

    It may be replaced with ``force``, where ``ours`` knows it for ``what`` this tool writes and
    nothing else lies in it, and an empty folder by a ``folder`` may. It may not where it is one of
    ``inputs``, lies in one or holds one.
    """
    if path.parent.exists() and not path.parent.is_dir():
        raise error(f"'{path.parent}' is a file, so that '{path.name}' cannot lie in it")
    if path.name in ('', '..'):
        raise error(f"'{path}' is no name for {what}; give a folder of its own")
    for source in inputs:
        relation = _relation(path, user_path(source))
        if relation:
            raise error(
                f"'{path}' {relation} the input '{source}', which has to stay as it is; give an "
                'output apart from it'
            )
    if not os.path.lexists(path):
        return
    if folder and path.is_dir() and not any(path.iterdir()):
        return
    if not force:
        raise error(f"'{path}' exists; give another name or --force")
    if not ours(path):
        kind = 'folder' if path.is_dir() else 'file'
        raise error(
            f"'{path}' is a {kind} that nightseg did not write, or others' files lie in it; only "
            f'{what} of its own is replaced: give another name, or remove it yourself'
        )


def require_same(
    path: Path,
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    error: type[ValueError] = OutputError,
    remedy: str = 'another --out',
) -> None:
    """Raise ``error`` for the first setting that differs from those that made ``path``."""
    now = json.loads(json.dumps(now))
    for key in dict.fromkeys([*now, *before]):
        if before.get(key) != now.get(key):
            raise error(
                f"'{path}' was made with {key} = {before.get(key)!r}, now it is {now.get(key)!r}; "
                f'give the old setting, or {remedy}'
            )


@contextmanager
def locked(folder: Path, error: type[ValueError] = OutputError) -> Iterator[None]:
    """Hold a folder, which is made; the kernel lets go of it when this process ends, however."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise error(
                f"another process is at work on '{folder}'; wait for it, or give another name"
            ) from None
        except OSError:
            # NFS locks no folders
            pass
        yield
    finally:
        os.close(handle)


@contextmanager
def whole_folder(
    out: Path,
    what: str,
    ours: Callable[[Path], bool],
    *,
    inputs: Iterable[str | Path] = (),
    force: bool,
    error: type[ValueError],
) -> Iterator[Path]:
    """
    Yield an empty hidden folder beside ``out``, which takes its name at the end.

    An error removes it, but not one of giving it the name. A kill leaves the old folder or the
    new one. ``error`` as ``check_output``, and where the disk is full.
    """
    restore(out, error)
    out, hidden, old = _beside(out)
    check_output(out, what, ours, folder=True, inputs=inputs, force=force, error=error)
    if os.path.ismount(out):
        raise error(f"'{out}' is a mount point, which cannot be replaced; give a folder in it")
    try:
        with locked(hidden, error):
            # what a killed run left
            for left in hidden.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            shutil.rmtree(old, ignore_errors=True)
            try:
                yield hidden
            except BaseException:
                shutil.rmtree(hidden, ignore_errors=True)
                raise
            try:
                # somebody may have taken the name meanwhile
                check_output(out, what, ours, folder=True, inputs=inputs, force=force, error=error)
                if out.exists():
                    _set_aside(out, old)
                hidden.rename(out)
            except BaseException as problem:
                _restore(old, out)
                if isinstance(problem, (OSError, error)):
                    raise error(f"{problem}; the result is in '{hidden}'") from problem
                raise
            if os.path.lexists(old):
                # half removed it must not pass for what was there before
                old.rename(hidden)
                shutil.rmtree(hidden, ignore_errors=True)
    except OSError as problem:
        reason = problem.strerror or str(problem)
        if problem.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            reason += '; is the disk full?'
        raise error(f"'{out}' cannot be written: {reason}") from problem


def restore(out: Path, error: type[ValueError]) -> None:
    """Give a folder its name back, where a kill left it without."""
    out, hidden, old = _beside(out)
    if os.path.lexists(old) and not os.path.lexists(out):
        with locked(hidden, error):
            _restore(old, out)


def _beside(out: Path) -> tuple[Path, Path, Path]:
    """Return the folder itself, where the new one is made, and where the old one waits."""
    if out.is_symlink():
        # what it leads to is replaced
        out = out.resolve()
    return out, out.parent / f'.{out.name}.partial', out.parent / f'.{out.name}.earlier'


def _set_aside(out: Path, old: Path) -> None:
    """Let an old folder go only when the new one is there."""
    try:
        out.rename(old)
    except OSError as error:
        # a folder of a container's image cannot be renamed
        if error.errno != errno.EXDEV:
            raise
        shutil.rmtree(out)


def _restore(old: Path, out: Path) -> None:
    """Put an old folder back whose place the new one has not taken."""
    if os.path.lexists(old) and not os.path.lexists(out):
        old.rename(out)


def _relation(path: Path, source: Path) -> str:
    """Say how a path lies to an input; '' where they are apart."""
    path, source = path.resolve(), source.resolve()
    # another mount or spelling of a folder has other names, but it is the same file
    if _same(path, source):
        return 'is'
    if any(_same(parent, source) for parent in path.parents):
        return 'lies in'
    return 'holds' if any(_same(parent, path) for parent in source.parents) else ''


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)
