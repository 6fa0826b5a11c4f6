# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Networks in onnxruntime: float32 on the CPU, the plain one."""

from __future__ import annotations

from typing import Any

import onnxruntime

from nightseg_ros.runtime.backend import Run, Say
from nightseg_ros.runtime.export import exported_graph
from nightseg_ros.runtime.pixels import HostPixels, Pixels
from nightseg_ros.weights import Weights


class OnnxBackend:
    """Exported graphs on the CPU."""

    name = 'onnxruntime'
    device = 'cpu'
    batches: tuple[int, ...] = (1,)

    def __init__(self, threads: int = 0) -> None:
        """Use ``threads`` threads, 0 for one a core."""
        self.pixels: Pixels = HostPixels()
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.log_severity_level = 3
        # threads that spin on for milliseconds keep the cores from the next network
        self._options.add_session_config_entry('session.intra_op.allow_spinning', '0')

    def load(self, weights: Weights, say: Say) -> Run:
        """See ``Backend``."""
        session = onnxruntime.InferenceSession(
            str(exported_graph(weights, say)), self._options, providers=['CPUExecutionProvider']
        )
        name = session.get_inputs()[0].name

        def run(images: Any) -> tuple[Any, ...]:
            return tuple(session.run(None, {name: images}))

        return run
