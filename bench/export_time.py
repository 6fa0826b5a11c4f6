# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""CPU seconds to export the default graph by torch's two ONNX exporters, batch and size free."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from nightseg_ros.runtime.export import OPSET, export_graph
from nightseg_ros.runtime.graph import graph_of
from nightseg_ros.weights import load_weights


def main() -> None:
    """Export the shipped night segmenter both ways."""
    weights = load_weights('night')
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        export_graph(weights, Path(folder) / 'traced.onnx')
        print(f'tracing: {time.process_time() - started:.1f} s')
    sides = [torch.export.Dim(name, min=1, max=256) for name in ('rows', 'columns')]
    batch = torch.export.Dim('batch', min=1, max=64)
    started = time.process_time()
    torch.onnx.export(
        graph_of(weights),
        (torch.zeros(2, 96, 160, 3, dtype=torch.uint8),),
        dynamo=True,
        opset_version=OPSET,
        verbose=False,
        dynamic_shapes=({0: batch, 1: 32 * sides[0], 2: 32 * sides[1]},),
    )
    print(f'symbolic (dynamo): {time.process_time() - started:.1f} s')


if __name__ == '__main__':
    main()
