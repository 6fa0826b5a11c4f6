# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Graphs as ONNX files, made once and kept by the hash of their weights."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

import torch

from nightseg_ros.runtime.backend import Say
from nightseg_ros.runtime.graph import VERSION, graph_of
from nightseg_ros.share import cache_dir
from nightseg_ros.weights import Weights

OPSET = 18


def exported_graph(weights: Weights, say: Say) -> Path:
    """Return the ONNX file of the weights' graph, of any batch and size; export it if need be."""
    path = cache_dir() / 'onnx' / f'{weights.sha256[:32]}-v{VERSION}.onnx'
    if not path.is_file():
        say(f'exporting {weights.path.name} for the first time (some seconds) …')
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f'.{path.name}.{os.getpid()}')
        try:
            export_graph(weights, partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    return path


def export_graph(weights: Weights, path: Path) -> None:
    """Write the weights' graph as one ONNX file."""
    graph = graph_of(weights)
    batch = torch.export.Dim('batch', min=1, max=64)
    rows = torch.export.Dim('rows', min=1, max=256)
    columns = torch.export.Dim('columns', min=1, max=256)
    example = torch.zeros(2, 96, 160, 3, dtype=torch.uint8)
    # the exporter logs its own progress and deprecations, which say nothing to a user
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    logging.getLogger('onnxscript').setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        program = torch.onnx.export(
            graph, (example,), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=['images'], output_names=list(graph.outputs),
            dynamic_shapes=({0: batch, 1: 32 * rows, 2: 32 * columns},),
        )  # fmt: skip
    assert program is not None
    program.save(str(path))
