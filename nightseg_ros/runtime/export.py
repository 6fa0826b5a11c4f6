# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Graphs as ONNX, and the cache of what is made of them.

Nothing in the cache is trusted and nothing needs it: each file's name has a hash of its content, a
damaged one is made anew, and where it cannot be written a temporary folder takes its place.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from nightseg_ros.files import cache_dirs, write_cache
from nightseg_ros.runtime.backend import Log
from nightseg_ros.weights import Weights

#: Bytes a folder may hold: OpenVINO takes some 13 MB for each network and size of picture, and one
#: who trains makes new networks every day.
LIMIT = 1 << 30
OPSET = 18
#: Part of the cache key: raise it when a graph's arithmetic changes.
VERSION = 4


def cached(
    kind: Literal['onnx', 'openvino'], key: str, make: Callable[[], bytes], log: Log
) -> bytes:
    """Return what ``make`` made under ``key``, here or in a process before."""
    found = None
    for number, folder in enumerate(cache_dirs()):
        found = found or _stored(folder / kind, key, log)
        if found and number == 0:
            return found
    content = found or make()
    try:
        tidy(write_cache(f'{kind}/{key}-{_digest(content)}.{kind}', content).parent)
    except OSError as error:
        log(f'the cache of graphs cannot be used, each start makes them anew: {error.strerror}')
    return content


def _stored(folder: Path, key: str, log: Log) -> bytes | None:
    """Return what lies under a key, None where there is nothing whole; remove what is damaged."""
    with suppress(OSError):
        for path in sorted(folder.glob(f'{key}-*')):
            content = path.read_bytes()
            if path.stem.removeprefix(f'{key}-') == _digest(content):
                return content
            log(f"'{path}' is damaged: it is made anew")
            path.unlink()
    return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def tidy(folder: Path, limit: int = LIMIT) -> None:
    """
    Remove the files that were not used for longest, until the others have ``limit`` bytes or less.

    They are made again when they are needed. What cannot be removed costs space only.
    """
    found = []
    for path in folder.glob('*'):
        try:
            stat = path.stat()
        except OSError:  # another process tidies up as well
            continue
        # a disk that does not note when a file is read leaves when it was written
        found.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= limit:
            break
        try:
            path.unlink()
        except OSError:
            continue
        total -= size


def exported_graph(weights: Weights, log: Log) -> bytes:
    """Return the weights' graph as ONNX, of any batch and size."""

    def export() -> bytes:
        log(f'exporting {weights.path.name} for the first time …')
        return export_graph(weights)

    return cached('onnx', graph_key(weights), export, log)


def graph_key(weights: Weights) -> str:
    """Return the name of the weights' graph in the cache."""
    return f'{weights.sha256[:32]}-v{VERSION}'


def export_graph(weights: Weights) -> bytes:
    """
    Return the weights' graph as ONNX for any batch and any size that the network takes.

    The tracing exporter needs one second of CPU time where the symbolic one needs 29 for the same
    graph, and a node that starts for the first time has somebody waiting.
    """
    # a node whose graphs are cached never imports torch
    import torch

    from nightseg_ros.runtime.graph import graph_of

    graph = graph_of(weights)
    axes = {0: 'batch', 1: 'rows', 2: 'columns'}
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # it warns of its own deprecation, which says nothing to a user
        warnings.simplefilter('ignore')
        torch.onnx.export(
            graph,
            (torch.zeros(2, 96, 160, 3, dtype=torch.uint8),),
            stream,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=['images'],
            output_names=list(graph.outputs),
            dynamic_axes={
                name: {0: 'batch'} if name == 'reliability' else axes
                for name in ('images', *graph.outputs)
            },
        )
    return stream.getvalue()
