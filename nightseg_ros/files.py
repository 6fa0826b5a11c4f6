# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Files that appear whole or not at all.

Where the files that are no code lie: models, config, launch.
"""

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


_MARK = Path('resource') / 'nightseg'


def share_dir() -> Path:
    """
    Return the folder that holds ``models/``, ``config/`` and ``launch/``.

    In order: ``NIGHTSEG_SHARE``, the source tree that this module runs from, the ROS prefixes of
    ``AMENT_PREFIX_PATH``, and the ``share/nightseg`` of this interpreter's prefix. A source tree
    comes first so that an editable install never mixes two versions.
    """
    explicit = os.environ.get('NIGHTSEG_SHARE')
    if explicit:
        return Path(explicit)
    source = Path(__file__).resolve().parent.parent
    if (source / _MARK).is_file() and (source / 'models').is_dir():
        return source
    prefixes = [p for p in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if p]
    candidates = [Path(prefix) / 'share' / 'nightseg' for prefix in [*prefixes, sys.prefix]]
    # a colcon workspace puts the module at <prefix>/lib/pythonX.Y/site-packages/nightseg_ros
    if len(source.parents) > 2:
        candidates.insert(0, source.parents[2] / 'share' / 'nightseg')
    for candidate in candidates:
        if (candidate / 'models').is_dir():
            return candidate
    return candidates[-1]


def models_dir() -> Path:
    """Return the folder of the weights that are shipped."""
    return share_dir() / 'models'


def cache_dir() -> Path:
    """Return the folder for exported graphs: ``NIGHTSEG_CACHE``, else the user's cache."""
    explicit = os.environ.get('NIGHTSEG_CACHE')
    if explicit:
        return Path(explicit)
    base = os.environ.get('XDG_CACHE_HOME')
    return (Path(base) if base else Path.home() / '.cache') / 'nightseg'
