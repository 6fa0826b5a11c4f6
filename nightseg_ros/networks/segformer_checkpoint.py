# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""SegFormer checkpoints as ``transformers`` saves them: a folder with JSON and safetensors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from nightseg_ros.weights import WeightsError

#: Our builder's argument: the key of config.json.
_ARGUMENTS = {
    'depths': 'depths', 'widths': 'hidden_sizes', 'heads': 'num_attention_heads',
    'reductions': 'sr_ratios', 'expansions': 'mlp_ratios', 'decoder_width': 'decoder_hidden_size',
    'dropout': 'classifier_dropout_prob',
}  # fmt: skip
#: What every published SegFormer has, and this network is built for.
_FIXED = {'hidden_act': 'gelu', 'patch_sizes': [7, 3, 3, 3], 'strides': [4, 2, 2, 2]}
#: Names of the checkpoint's tensors and what they are called here.
_RENAMED = (
    (r'segformer\.encoder\.patch_embeddings\.(\d)\.proj', r'stages.\1.embed'),
    (r'segformer\.encoder\.patch_embeddings\.(\d)\.layer_norm', r'stages.\1.embed_norm'),
    (r'segformer\.encoder\.layer_norm\.(\d)', r'stages.\1.norm'),
    (r'segformer\.encoder\.block\.(\d)\.(\d+)\.', r'stages.\1.blocks.\2.'),
    (r'layer_norm_1', 'attention_norm'),
    (r'layer_norm_2', 'mlp_norm'),
    (r'attention\.self\.layer_norm', 'attention.reduce_norm'),
    (r'attention\.self\.sr', 'attention.reduce'),
    (r'attention\.self', 'attention'),
    (r'attention\.output\.dense', 'attention.mix'),
    (r'mlp\.dense1', 'mlp.widen'),
    (r'mlp\.dwconv\.dwconv', 'mlp.depthwise'),
    (r'mlp\.dense2', 'mlp.narrow'),
    (r'decode_head\.linear_c\.(\d)\.proj', r'projections.\1'),
    (r'decode_head\.linear_fuse', 'fuse'),
    (r'decode_head\.batch_norm', 'norm'),
    (r'decode_head\.classifier', 'classify'),
)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True, slots=True)
class SegformerCheckpoint:
    """What a folder holds, in our terms."""

    arch: dict[str, Any]
    """Arguments of ``Segformer``."""
    tensors: dict[str, torch.Tensor]
    labels: tuple[str, ...]
    """Names of the classes by id, as the checkpoint calls them."""
    mean: tuple[float, ...]
    std: tuple[float, ...]


def read_segformer(folder: Path) -> SegformerCheckpoint:
    """
    Read ``config.json``, ``model.safetensors`` and, if there, ``preprocessor_config.json``.

    ``WeightsError`` says what is missing or differs from a SegFormer segmenter; a pickle
    (``pytorch_model.bin``) is never read.
    """
    if not folder.is_dir():
        raise WeightsError(
            f"'{folder}' is no folder; fetch the checkpoint first, for example with "
            f'`hf download {folder} --local-dir FOLDER`'
        )
    config = _read_json(folder / 'config.json')
    if config.get('model_type') != 'segformer':
        raise WeightsError(f"'{folder}' holds a '{config.get('model_type')}', not a segformer")
    for key, wanted in _FIXED.items():
        if config.get(key, wanted) != wanted:
            raise WeightsError(f"'{folder}': {key} must be {wanted}, got {config[key]}")
    file = folder / 'model.safetensors'
    if not file.is_file():
        raise WeightsError(
            f"'{folder}' has no model.safetensors; pickles are not read: load the checkpoint "
            'in transformers and save_pretrained() it again'
        )
    try:
        state = load_file(file)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"'{file}' cannot be read: {error}") from error
    if 'decode_head.classifier.weight' not in state:
        raise WeightsError(f"'{file}' has no decode_head: it is an encoder, not a segmenter")
    classes = len(state['decode_head.classifier.weight'])
    names: Mapping[str, str] = config.get('id2label') or {}
    labels = tuple(str(names.get(str(index), f'LABEL_{index}')) for index in range(classes))
    known = {ours: config[theirs] for ours, theirs in _ARGUMENTS.items() if theirs in config}
    images = folder / 'preprocessor_config.json'
    settings = _read_json(images) if images.is_file() else {}
    return SegformerCheckpoint(
        arch={'classes': classes, **known},
        tensors={_rename(name): tensor for name, tensor in state.items()},
        labels=labels,
        mean=tuple(settings.get('image_mean', _IMAGENET[0])),
        std=tuple(settings.get('image_std', _IMAGENET[1])),
    )


def _rename(name: str) -> str:
    for pattern, ours in _RENAMED:
        name = re.sub(pattern, ours, name)
    return name


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
    except OSError as error:
        raise WeightsError(f"'{file}' cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise WeightsError(f"'{file}' is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"'{file}' must hold a mapping, got {type(content).__name__}")
    return content
