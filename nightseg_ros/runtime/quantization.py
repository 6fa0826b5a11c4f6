# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Post-training quantisation of an exported graph by nncf."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from nightseg_ros.runtime.backend import BackendError, Say
from nightseg_ros.runtime.backends import CONVOLUTIONS
from nightseg_ros.runtime.export import exported_graph
from nightseg_ros.weights import Weights

#: How many convolutions are left as they are, first try first. The first three of the default
#: network are the stem and the block at stride 2, where eight bits are too few for a dark picture.
KEPT = (3, 15)
_UNTOUCHED = ('Result', 'Constant', 'Parameter')


def quantize(
    weights: Weights, images: Sequence[npt.NDArray[np.uint8]], kept: int, say: Say
) -> Any:
    """
    Return the weights' graph as an OpenVINO model with int8 layers.

    ``images`` are uint8 [1, h, w, 3] RGB as the network gets them: they set the range of each
    activation. The first ``kept`` convolutions, the last one, and what follows it are left alone.
    ``BackendError`` where nncf is not installed.
    """
    try:
        import nncf
    except ImportError as error:
        raise BackendError(
            'int8 needs nncf, which is not installed: pip install -r requirements/int8.txt'
        ) from error
    nncf.set_log_level(logging.WARNING)
    model = ov.Core().read_model(exported_graph(weights, say))
    operations = model.get_ordered_ops()
    convolutions = [op for op in operations if op.get_type_name() in CONVOLUTIONS]
    last = convolutions[-1]
    ignored = {op.get_friendly_name() for op in [*convolutions[:kept], last, *_after(last)]}
    scope = [
        op.get_friendly_name()
        for op in operations
        if (op.get_friendly_name() in ignored or op.get_friendly_name().startswith('/trust'))
        and op.get_type_name() not in _UNTOUCHED
    ]
    return nncf.quantize(
        model,
        nncf.Dataset(list(images)),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(names=scope),
    )


def model_files(model: Any) -> tuple[bytes, bytes]:
    """Return an OpenVINO model as its XML and its constants."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'graph.xml'
        ov.save_model(model, path, compress_to_fp16=False)
        return path.read_bytes(), path.with_suffix('.bin').read_bytes()


def _after(operation: Any) -> list[Any]:
    """Return everything that an operation's result goes into."""
    found: dict[str, Any] = {}
    waiting = [operation]
    while waiting:
        for output in waiting.pop().outputs():
            for target in output.get_target_inputs():
                node = target.get_node()
                if node.get_friendly_name() not in found:
                    found[node.get_friendly_name()] = node
                    waiting.append(node)
    return list(found.values())
