# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The folders of exported and compiled graphs, which do not grow without end."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from nightseg_ros.share import cache_dir

#: Bytes a folder may hold: OpenVINO takes some 13 MB for each network and size of picture, and one
#: who trains makes new networks every day.
LIMIT = 1 << 30


def graph_folder(kind: Literal['onnx', 'openvino', 'tensorrt'], limit: int = LIMIT) -> Path:
    """
    Return the cache's folder of graphs of this kind, which need not exist.

    Where it holds more than ``limit`` bytes, those that were not used for longest are removed:
    they are made again when they are needed. A graph that another process has open stays with it.
    """
    folder = cache_dir() / kind
    found = []
    total = 0
    for path in folder.glob('*'):
        try:
            stat = path.stat()
        except OSError:  # another process tidies up as well
            continue
        # a disk that does not note when a file is read leaves when it was written
        found.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
        total += stat.st_size
    for _, size, path in sorted(found):
        if total <= limit:
            break
        try:
            path.unlink()
        except OSError:
            continue  # a full cache costs space; no network is refused for it
        total -= size
    return folder
