# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Graphs as ONNX: without their tensors inside a weights file; and the cache of what runtimes make.

Nothing in the cache is trusted and nothing needs it: each file's name has a hash of its content, a
damaged one is made anew, and where it cannot be written a temporary folder takes its place.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import suppress
import dataclasses
import hashlib
import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
import warnings
import zlib

from nightseg_ros.config import to_mapping
from nightseg_ros.files import cache_dirs, write_cache
from nightseg_ros.runtime.backend import BackendError, Log
from nightseg_ros.weights import (
    IMPORTED,
    load_weights,
    RELIABILITY,
    replace_listed,
    save_weights,
    set_graph,
    Weights,
    WeightsError,
)
import numpy as np
import numpy.typing as npt

#: Bytes that the cache may hold: OpenVINO takes some 13 MB for each network and size of picture,
#: and one who trains makes new networks every day.
LIMIT = 200 << 20
OPSET = 18
#: Most bytes of a graph without its tensors.
MOST = 64 << 20
#: How a graph says that a tensor lies in another file.
_EXTERNAL = b'\x0a\x08location'
#: Raise it when a graph's arithmetic changes: those of the cache and of files are made anew.
VERSION = 5
#: ONNX's number of each type of a weights file's tensors.
TYPES = {'float32': 1, 'uint8': 2, 'int8': 3, 'int32': 6, 'int64': 7, 'bool': 9}


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
        tidy(write_cache(f'{kind}/{key}-{_digest(content)}.{kind}', content).parent.parent)
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
    Remove the graphs that were not used for longest, until ``limit`` bytes or less are left.

    They are made again when they are needed. What cannot be removed costs space only.
    """
    found = []
    for path in (*folder.glob('onnx/*'), *folder.glob('openvino/*')):
        # another process tidies up as well
        with suppress(OSError):
            stat = path.stat()
            # a disk that does not note when a file is read leaves when it was written
            found.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total > limit:
            with suppress(OSError):
                path.unlink()
                total -= size


def exported_graph(weights: Weights, log: Log) -> bytes:
    """Return the weights' graph as ONNX, of any batch and size."""
    return with_tensors(bare_graph(weights, log), weights)


def bare_graph(weights: Weights, log: Log) -> bytes:
    """
    Return the graph without its tensors, from the weights file.

    Where that holds none, or a stale one, torch makes it, once.
    """

    def export() -> bytes:
        log(f'exporting {weights.path.name} for the first time …')
        return export_graph(weights)

    return embedded(weights) or cached('onnx', graph_key(weights), export, log)


def with_tensors(graph: bytes, weights: Weights) -> bytes:
    """Return a graph with the weights' tensors as its initializers."""
    found = [_field(5, _tensor(name, array)) for name, array in weights.arrays().items()]
    # protobuf joins the two parts of a message that comes twice
    return graph + _field(7, b''.join(found))


def graph_key(weights: Weights) -> str:
    """Return the name of the weights' graph in the cache."""
    return f'{weights.sha256[:32]}-v{VERSION}'


def embed_graph(path: Path) -> str:
    """
    Export weights and put the graph into their file; return the file's SHA-256.

    Those of the illumination have none.
    """
    weights = load_weights(path)
    if weights.metadata.task == 'illumination' or embedded(weights):
        return weights.sha256
    return set_graph(path, pack_graph(weights, export_graph(weights)))


def replace_weights(path: Path, weights: Weights, *, half: bool, graph: bool = True) -> Weights:
    """
    Write weights as ``path``, with their graph unless it is not wanted; return what is there now.

    They are finished and read elsewhere, so that only whole ones take the place of others:
    weights without their graph would need torch on a vehicle. A manifest beside them is renewed.
    """
    for name, tensor in weights.tensors.items() if half else ():
        if tensor.is_floating_point() and not tensor.half().isfinite().all():
            raise WeightsError(f"'{name}' has values beyond float16, up to 65504: give --no-half")
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix='.nightseg-', dir=path.parent) as folder:
        whole = Path(folder) / path.name
        save_weights(whole, weights.tensors, weights.metadata, half=half)
        if graph:
            embed_graph(whole)
        written = dataclasses.replace(load_weights(whole), path=path)
        replace_listed(path, whole.read_bytes())
    return written


def pack_graph(weights: Weights, graph: bytes) -> str:
    """Return a graph as it lies in the weights' file, bound to them."""
    return f'{graph_hash(weights)} {base64.b64encode(zlib.compress(graph, 9)).decode()}'


def embedded(weights: Weights) -> bytes:
    """Return the graph that came with the weights; empty where it is none of theirs."""
    bound, _, packed = weights.graph.partition(' ')
    if bound != graph_hash(weights):
        return b''
    unpack = zlib.decompressobj()
    try:
        graph = unpack.decompress(base64.b64decode(packed), MOST)
    except (ValueError, zlib.error) as error:
        raise WeightsError(f"the graph in weights '{weights.path}' is damaged: {error}") from error
    # a runtime must not be made to read other files
    if not unpack.eof or _EXTERNAL in graph:
        raise WeightsError(f"the graph in weights '{weights.path}' is too large or not whole")
    return graph


def graph_hash(weights: Weights) -> str:
    """Return what binds a graph to its weights: a hash of all tensors and of the metadata."""
    metadata = json.dumps(to_mapping(weights.metadata), sort_keys=True)
    # what `nightseg import` brought in is its own version
    version = '' if weights.metadata.network == IMPORTED else f'{VERSION} '
    found = hashlib.sha256(f'{version}{metadata}'.encode())
    for name, array in sorted(weights.arrays().items()):
        found.update(f'{name} {array.dtype} {array.shape}'.encode())
        found.update(np.ascontiguousarray(array))
    return found.hexdigest()


def _tensor(name: str, array: npt.NDArray[Any]) -> bytes:
    """Return a TensorProto: dims, data_type, name, raw_data; graphs compute in float32."""
    if array.dtype.kind == 'f':
        array = array.astype(np.float32, copy=False)
    dims = b''.join(b'\x08' + _varint(length) for length in array.shape)
    kind = b'\x10' + _varint(TYPES[array.dtype.name])
    return dims + kind + _field(8, name.encode()) + _field(9, array.tobytes())


def _field(number: int, content: bytes) -> bytes:
    """Return a field of a protobuf message, of any number of bytes."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def export_graph(weights: Weights) -> bytes:
    """
    Return the weights' graph as ONNX without its tensors; ``exported_graph`` adds them.

    It takes any batch and any size that the network takes. The tracing exporter needs two seconds
    of CPU time where torch's present one needs 29, and onnxscript, for the same graph.
    """
    if weights.metadata.network == IMPORTED:
        raise WeightsError(f"weights '{weights.path}' were changed: import their network anew")
    try:
        import onnx
        import torch
    except ModuleNotFoundError as error:
        raise BackendError(
            f"weights '{weights.path}' hold no graph of this nightseg, and {error.name}, which "
            "makes it, is missing: pip install 'nightseg[torch]', or run "
            f'`nightseg export {weights.path} --out DIR` where it is and take that file'
        ) from error

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
            # every tensor stays as it is in the file, so that it is stored once
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    model = onnx.load_from_string(stream.getvalue())
    of_file = {
        f'reliability_head.{name[len(RELIABILITY) :]}' if name.startswith(RELIABILITY)
        else f'network.{name}': name
        for name in weights.tensors
    }  # fmt: skip
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = of_file.get(name, name)
    own = [tensor for tensor in model.graph.initializer if tensor.name not in of_file]
    del model.graph.initializer[:]
    model.graph.initializer.extend(own)
    return bytes(model.SerializeToString(deterministic=True))
