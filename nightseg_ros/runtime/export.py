# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Graphs as ONNX files, kept by the hash of their weights in a cache that does not grow on."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

from nightseg_ros.files import cache_dir, partial_file
from nightseg_ros.runtime.backend import Say
from nightseg_ros.weights import Weights

#: Bytes a folder may hold: OpenVINO takes some 13 MB for each network and size of picture, and one
#: who trains makes new networks every day.
LIMIT = 1 << 30


def graph_folder(kind: Literal['onnx', 'openvino'], limit: int = LIMIT) -> Path:
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


OPSET = 18
#: Part of the cache key: raise it when a graph's arithmetic changes.
VERSION = 4


def exported_graph(weights: Weights, say: Say) -> Path:
    """Return the ONNX file of the weights' graph, of any batch and size; export it if need be."""
    path = graph_folder('onnx') / f'{weights.sha256[:32]}-v{VERSION}.onnx'
    if not path.is_file():
        say(f'exporting {weights.path.name} for the first time …')
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial_file(path) as partial:
            export_graph(weights, partial)
    return path


def export_graph(weights: Weights, path: Path) -> None:
    """
    Write the weights' graph as one ONNX file for any batch and any size the network takes.

    The tracing exporter needs one second of CPU time where the symbolic one needs 29 for the same
    graph, and a node that starts for the first time has somebody waiting.
    """
    # a node whose graphs are cached never imports torch
    import torch

    from nightseg_ros.runtime.graph import graph_of

    graph = graph_of(weights)
    axes = {0: 'batch', 1: 'rows', 2: 'columns'}
    example = torch.zeros(2, 96, 160, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        # it warns of its own deprecation, which says nothing to a user
        warnings.simplefilter('ignore')
        torch.onnx.export(
            graph,
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=['images'],
            output_names=list(graph.outputs),
            dynamic_axes={
                name: {0: 'batch'} if name == 'reliability' else axes
                for name in ('images', *graph.outputs)
            },
        )
