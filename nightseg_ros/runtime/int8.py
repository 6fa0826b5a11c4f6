# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Graphs with int8 layers on disk, beside the weights that they were made from.

``NAME.int8`` holds OpenVINO's two files as tensors of a safetensors file, and in its metadata the
hash of the weights and what was measured before it was allowed to exist.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from nightseg_ros.config import ConfigError, from_mapping, to_mapping
from nightseg_ros.files import replace_file
from nightseg_ros.runtime.export import VERSION
from nightseg_ros.weights import Weights, WeightsError, check_manifest

SUFFIX = '.int8'
_KEY = 'nightseg-int8'


@dataclass(frozen=True, kw_only=True, slots=True)
class Int8Metadata:
    """What a graph was made from and how well it does."""

    weights: str
    """SHA-256 of the weights."""
    graph: int = VERSION
    """Version of the exported graph's arithmetic."""
    kept: int
    """How many of the first convolutions have no int8."""
    rest: Literal['f32', 'bf16']
    """How they and what else has none are computed; 'f32' where a CPU has no bf16."""
    frames: int
    """How many frames it was calibrated on."""
    agreement: dict[str, float] = field(default_factory=dict)
    """Share of the pixels with torch's label, by folder of frames."""
    miou_loss: dict[str, float] = field(default_factory=dict)
    """mIoU that it costs, as a share of 1, by data set."""
    versions: dict[str, str] = field(default_factory=dict)


def int8_path(weights: Weights) -> Path:
    """Return where the weights' int8 graph lies, if there is one."""
    return weights.path.with_suffix(SUFFIX)


def has_int8(weights: Weights) -> bool:
    """Tell whether there is an int8 graph of exactly these weights."""
    try:
        read_int8(weights)
    except WeightsError:
        return False
    return True


def write_int8(path: Path, xml: bytes, constants: bytes, metadata: Int8Metadata) -> None:
    """Write a file whole or not at all."""
    from safetensors.numpy import save

    tensors = {
        'xml': np.frombuffer(xml, np.uint8), 'constants': np.frombuffer(constants, np.uint8)
    }  # fmt: skip
    about = json.dumps(to_mapping(metadata), sort_keys=True)
    replace_file(path, save(tensors, metadata={_KEY: about}))


def read_int8(weights: Weights) -> tuple[bytes, bytes, Int8Metadata]:
    """
    Return OpenVINO's XML and constants, and what the file says about itself.

    ``WeightsError`` where there is no file, it is damaged, differs from its manifest's hash, or
    was made from other weights or by another version.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = int8_path(weights)
    remedy = f'make it with `nightseg quantize {weights.path.name} --calibration FOLDER`'
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"there is no int8 graph '{path.name}': {remedy}") from error
    check_manifest(path, content)
    try:
        metadata = from_mapping(Int8Metadata, json.loads(_about(content)[_KEY]))
        tensors = load(content)
        xml, constants = tensors['xml'].tobytes(), tensors['constants'].tobytes()
    except (SafetensorError, ConfigError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"'{path}' is damaged: {error}; {remedy}") from error
    if (metadata.weights, metadata.graph) != (weights.sha256, VERSION):
        raise WeightsError(f"'{path.name}' is not of these weights, or of an old graph: {remedy}")
    return xml, constants, metadata


def _about(content: bytes) -> Mapping[str, str]:
    """Return the metadata of a safetensors file: an 8-byte length, then JSON."""
    length = int.from_bytes(content[:8], 'little')
    about: Mapping[str, str] = json.loads(content[8 : 8 + length])['__metadata__']
    return about
