# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Graphs as ONNX files, made once and kept by the hash of their weights."""

from __future__ import annotations

import warnings
from pathlib import Path

from nightseg_ros.files import partial_file
from nightseg_ros.runtime.backend import Say
from nightseg_ros.runtime.graph_cache import graph_folder
from nightseg_ros.weights import Weights

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
    graph (bench/export_time.py), and a node that starts for the first time has somebody waiting.
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
