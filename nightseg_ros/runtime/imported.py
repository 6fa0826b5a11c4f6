# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Networks from elsewhere as weights: an ONNX model with our pre- and post-processing around it.

What comes out has the inputs and outputs of ``runtime.graph``. The model's large tensors become
those of a weights file, and the graph lies in its header. The model is run once, on noise, to see
what its output is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from nightseg_ros.runtime.backend import BackendError
from nightseg_ros.runtime.export import OPSET, pack_graph, TYPES
from nightseg_ros.taxonomy import UNLABELLED
from nightseg_ros.weights import save_weights, set_graph, Tensors, Weights, WeightsMetadata
import numpy as np
import numpy.typing as npt
import onnx
from onnx import compose, helper, numpy_helper, TensorProto, version_converter

#: Bytes from which a tensor of the model becomes one of the weights file.
LARGE = 1024
#: Characters of a graph at most; the header of a weights file has room for 16 MiB.
MOST_GRAPH = 12 << 20
#: Names in the graph that is made here.
OWN_NAMES = {'images', 'labels', 'confidence', 'reliability', 'day'}
#: Least opset; older models are converted.
LEAST_OPSET = 13
#: The format's own version, which every runtime of today reads.
IR_VERSION = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelLayout:
    """What a model takes and gives."""

    size: tuple[int, int] | None
    """Rows and columns of its pictures, None where any size fits."""
    channels_last: bool
    """Whether it takes [B, H, W, 3]."""
    output: Literal['logits', 'probabilities', 'ids', 'picture']
    perm: tuple[int, ...]
    """What brings the output to [B, C, H, W]; ids without an axis of channels have none."""
    fine: bool
    """Whether the output is at least half as large as the picture."""


def import_model(
    model: onnx.ModelProto,
    path: Path,
    metadata: WeightsMetadata,
    *,
    table: Sequence[int] = (),
    size: tuple[int, int] | None = None,
    order: Literal['rgb', 'bgr'] = 'rgb',
    output_range: tuple[float, float] = (-1.0, 1.0),
) -> ModelLayout:
    """
    Write a model as weights to ``path`` and return what was found about it.

    A segmenter's own id ``i`` becomes ``table[i]``; a translator gives pictures from the lower to
    the upper end of ``output_range``. ``size`` is that of a model which takes any, but fits one
    only; mean and std are in the model's ``order``. ``BackendError`` says what is not understood.
    """
    if _opset(model) < LEAST_OPSET:
        model = version_converter.convert_version(model, OPSET)
    used = {name for node in model.graph.node for name in (*node.input, *node.output)}
    if used & OWN_NAMES:
        model = compose.add_prefix(model, 'model/')
    layout = _layout(model, size, len(table))
    if layout.size is not None:
        metadata = replace(metadata, long_side=max(layout.size))
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    [entry] = [value.name for value in graph.input if value.name not in stored]
    nodes = _Nodes(_opset(model))
    _before(nodes, layout, metadata, order, entry)
    nodes.made.extend(graph.node)
    outputs: list[Any] = [('day', TensorProto.UINT8, ['batch', None, None, 3])]
    if metadata.task == 'segment':
        _segment(nodes, layout, graph.output[0].name, table)
        mask = ['batch', None, None]
        outputs = [('labels', TensorProto.UINT8, mask), ('confidence', TensorProto.UINT8, mask)]
        outputs.append(('reliability', TensorProto.FLOAT, ['batch']))
    else:
        _translate(nodes, layout, graph.output[0].name, output_range)
    large = {
        tensor.name: array for tensor in graph.initializer
        for array in [numpy_helper.to_array(tensor)]
        if array.nbytes >= LARGE and array.dtype.name in TYPES and np.isfinite(array).all()
    }  # fmt: skip
    bare = helper.make_model(
        helper.make_graph(
            nodes.made, 'imported',
            [helper.make_tensor_value_info('images', TensorProto.UINT8, ['batch', None, None, 3])],
            [helper.make_tensor_value_info(*output) for output in outputs],
            [tensor for tensor in graph.initializer if tensor.name not in large],
        ),
        opset_imports=model.opset_import, functions=model.functions, ir_version=IR_VERSION,
    )  # fmt: skip
    weights = Weights(path=path, sha256='', metadata=metadata, tensors=Tensors(large))
    packed = pack_graph(weights, bare.SerializeToString(deterministic=True))
    if len(packed) > MOST_GRAPH:
        raise BackendError(
            'the model keeps its weights in float16 or as constants, which makes a graph of '
            f'{len(packed) / 1e6:.0f} MB; export it with float32 initializers'
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, large, metadata)
    set_graph(path, packed)
    return layout


class _Nodes:
    """Nodes in the order in which they run; each is called with inputs and returns its output."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.made: list[onnx.NodeProto] = []

    def __call__(self, kind: str, *inputs: Any, out: str = '', **attributes: Any) -> str:
        """Add a node; inputs are names, or numbers that become constants."""
        names = [one if isinstance(one, str) else self._constant(one) for one in inputs]
        out = out or f'nightseg_{len(self.made)}'
        self.made.append(helper.make_node(kind, names, [out], **attributes))
        return out

    def reduce(self, kind: str, x: str, axes: list[int], keepdims: int, out: str = '') -> str:
        """Add a reduction: axes are an input since opset 13 of sums, since 18 of others."""
        if self.opset >= 18 or kind == 'ReduceSum':
            return self(kind, x, _ints(*axes), keepdims=keepdims, out=out)
        return self(kind, x, axes=axes, keepdims=keepdims, out=out)

    def resize(self, x: str, sides: Any, mode: str) -> str:
        """Resize [B, C, H, W] to int64 [2] sides."""
        head = self('Gather', self('Shape', x), _ints(0, 1))
        sizes = self('Concat', head, sides, axis=0)
        return self(
            'Resize', x, '', '', sizes, mode=mode, coordinate_transformation_mode='half_pixel'
        )

    def _constant(self, value: Any) -> str:
        name = f'nightseg_{len(self.made)}'
        self.made.append(
            helper.make_node(
                'Constant', [], [name], value=numpy_helper.from_array(np.array(value))
            )
        )
        return name


def _layout(model: onnx.ModelProto, size: tuple[int, int] | None, classes: int) -> ModelLayout:
    """Tell input and output by their shapes and by a run on noise."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=['CPUExecutionProvider']
        )
    except Exception as error:
        raise BackendError(f'onnxruntime cannot run this model: {error}') from error
    inputs = session.get_inputs()
    shape = inputs[0].shape
    if len(inputs) != 1 or len(shape) != 4 or inputs[0].type != 'tensor(float)':
        found = ', '.join(f'{one.name} {one.type} {one.shape}' for one in inputs)
        raise BackendError(f'the model takes {found}; one float picture [B, 3, H, W] is wanted')
    channels_last = shape[1] != 3 and shape[3] == 3
    if not channels_last and isinstance(shape[1], int) and shape[1] != 3:
        raise BackendError(f'the model takes {shape}: a picture has 3 channels')
    sides = shape[1:3] if channels_last else shape[2:]
    if all(isinstance(side, int) for side in sides):
        if size not in (None, tuple(sides)):
            raise BackendError(f'the model takes pictures of {sides} only, --size says {size}')
        size = (sides[0], sides[1])
    rows, columns = size or (256, 320)
    picture = np.random.default_rng(0).normal(size=(1, rows, columns, 3)).astype(np.float32)
    given = picture if channels_last else picture.transpose(0, 3, 1, 2)
    try:
        output = np.asarray(session.run(None, {inputs[0].name: np.ascontiguousarray(given)})[0])
    except Exception as error:
        raise BackendError(
            f'the model does not run on a picture of {rows}×{columns}; name its --size: {error}'
        ) from error
    axes = [axis for axis in (1, 3) if output.ndim == 4 and output.shape[axis] == (classes or 3)]
    if not classes:
        if not axes:
            raise BackendError(f'the model gives {output.shape}; pictures [B, 3, H, W] are wanted')
        kind: Literal['logits', 'probabilities', 'ids', 'picture'] = 'picture'
    elif axes and classes > 1:
        sums, low = output.sum(axes[0]), float(output.min())
        kind = 'probabilities' if low >= 0 and np.allclose(sums, 1, atol=1e-3) else 'logits'
    elif output.ndim == 3 or (output.ndim == 4 and 1 in (output.shape[1], output.shape[3])):
        kind, axes = (
            'ids',
            [axis for axis in (1, 3) if output.ndim == 4 and output.shape[axis] == 1],
        )
        if not np.array_equal(output, np.round(output)):
            raise BackendError(
                f'the model gives {output.shape} with values such as {output.flat[0]:.3g}; ids '
                'are whole numbers. Give logits of each class, also where there are two'
            )
        low, high = output.min(), output.max()
        if low < 0 or high >= classes:
            raise BackendError(
                f'the model gives ids from {low:g} to {high:g}; --labels names 0 to {classes - 1}'
            )
    else:
        raise BackendError(
            f'the model gives {output.shape}; logits of {classes} classes, as --labels has them, '
            'or ids are wanted'
        )
    last = axes == [3] or (axes == [1, 3] and channels_last)
    height = output.shape[1 if last or output.ndim == 3 else 2]
    return ModelLayout(
        size=size, channels_last=channels_last, output=kind, fine=2 * height >= rows,
        perm=() if output.ndim == 3 else (0, 3, 1, 2) if last else (0, 1, 2, 3),
    )  # fmt: skip


def _before(
    nodes: _Nodes, layout: ModelLayout, metadata: WeightsMetadata, order: str, entry: str
) -> None:
    """Turn ``images``, uint8 [B, h, w, 3] RGB, into the model's input."""
    mean, std = np.array(metadata.mean), np.array(metadata.std)
    x = nodes('Cast', 'images', to=TensorProto.FLOAT)
    if order == 'bgr':
        x = nodes('Gather', x, _ints(2, 1, 0), axis=3)
    x = nodes('Add', nodes('Mul', x, _floats(1 / (255 * std))), _floats(-mean / std))
    x = nodes('Transpose', x, perm=[0, 3, 1, 2])
    if layout.size is not None:
        x = nodes.resize(x, _ints(*layout.size), 'linear')
    perm = [0, 2, 3, 1] if layout.channels_last else [0, 1, 2, 3]
    nodes('Transpose', x, perm=perm, out=entry)


def _segment(nodes: _Nodes, layout: ModelLayout, result: str, table: Sequence[int]) -> None:
    """Turn the model's output into labels, confidence and reliability."""
    x = nodes('Cast', result, to=TensorProto.FLOAT)
    x = nodes('Transpose', x, perm=layout.perm) if layout.perm else nodes('Unsqueeze', x, _ints(1))
    sides = nodes('Gather', nodes('Shape', 'images'), _ints(1, 2))
    # full-size logits were enlarged before: one in two says all; between two ids lies no third one
    nearest = layout.fine or layout.output == 'ids'
    x = nodes.resize(x, nodes('Div', sides, _ints(2)), 'nearest' if nearest else 'linear')
    if layout.output == 'ids':
        inside = nodes('Less', nodes('Abs', nodes('Sub', x, np.float32((len(table) - 1) / 2))),
                       np.float32(len(table) / 2))  # fmt: skip
        best = nodes('Cast', nodes('Where', inside, x, np.float32(0)), to=TensorProto.INT64)
        # a model that gives ids does not say how sure it is
        sure = nodes('Cast', inside, to=TensorProto.FLOAT)
    else:
        best = nodes('ArgMax', x, axis=1, keepdims=1)
        top = nodes.reduce('ReduceMax', x, [1], 1)
        size = nodes.reduce('ReduceSum', nodes('Abs', x), [1], 1)
        if layout.output == 'probabilities':
            sure = nodes('Div', top, size)
        else:
            powers = nodes('Exp', nodes('Sub', x, top))
            sure = nodes('Reciprocal', nodes.reduce('ReduceSum', powers, [1], 1))
        # not so where the network gave no numbers
        inside = nodes('Less', size, np.float32(1e30))
        sure = nodes('Where', inside, sure, np.float32(0))
    labels = nodes('Where', inside, nodes('Gather', _ints(*table), best), np.int64(UNLABELLED))
    nodes('Cast', nodes('Squeeze', labels, _ints(1)), to=TensorProto.UINT8, out='labels')
    sure = nodes('Squeeze', sure, _ints(1))
    steps = nodes('Round', nodes('Mul', sure, np.float32(255)))
    nodes('Cast', steps, to=TensorProto.UINT8, out='confidence')
    nodes.reduce('ReduceMean', sure, [1, 2], 0, out='reliability')


def _translate(nodes: _Nodes, layout: ModelLayout, result: str, ends: tuple[float, float]) -> None:
    """Turn the model's output into ``day``, uint8 [B, h, w, 3]."""
    x = nodes('Transpose', nodes('Cast', result, to=TensorProto.FLOAT), perm=layout.perm)
    sides = nodes('Gather', nodes('Shape', 'images'), _ints(1, 2))
    x = nodes.resize(x, sides, 'linear')
    x = nodes('Mul', nodes('Sub', x, np.float32(ends[0])), np.float32(255 / (ends[1] - ends[0])))
    x = nodes('Clip', nodes('Round', x), np.float32(0), np.float32(255))
    x = nodes('Transpose', x, perm=[0, 2, 3, 1])
    nodes('Cast', x, to=TensorProto.UINT8, out='day')


def _ints(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


def _floats(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return values.astype(np.float32)


def _opset(model: onnx.ModelProto) -> int:
    found = (one.version for one in model.opset_import if one.domain in ('', 'ai.onnx'))
    return int(next(found, 0))
