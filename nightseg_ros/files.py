# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all, and where models, config and launch files lie."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path`` and move it there; a reader sees the old or the new."""
    with partial_file(path) as partial:
        partial.write_bytes(content)


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


def share_dir() -> Path:
    """
    Return the folder that holds ``models/``, ``config/`` and ``launch/``.

    In order: ``NIGHTSEG_SHARE``, the source tree that this module runs from, the colcon workspace
    that it is installed in, the ROS prefixes of ``AMENT_PREFIX_PATH``, and this interpreter's
    prefix. A source tree comes first so that an editable install never mixes two versions.
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
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'nightseg'
