# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The networks by name: what a weights file's metadata may ask for."""

from __future__ import annotations

from collections.abc import Callable
import json
from typing import Any, TYPE_CHECKING

from nightseg_ros.networks.generators import FastGenerator, PatchGAN, ResnetGenerator
from nightseg_ros.networks.illumination import IlluminationNet
from nightseg_ros.networks.segmenters import ERFPSPNet, LiteSegmenter
from nightseg_ros.weights import IMPORTED, network_tensors, WeightsError

if TYPE_CHECKING:
    from nightseg_ros.weights import Weights
    from torch import nn

REGISTRY: dict[str, Callable[..., nn.Module]] = {
    'lite_segmenter': LiteSegmenter,
    'erf_pspnet': ERFPSPNet,
    'fast_generator': FastGenerator,
    'resnet_generator': ResnetGenerator,
    'patchgan': PatchGAN,
    'illumination_net': IlluminationNet,
}


#: Digits of the largest number of layers, channels or classes.
_MAX_DIGITS = 4


def build(name: str, **arch: Any) -> nn.Module:
    """Build a network with random weights; ``ValueError`` names what is not known."""
    if name not in REGISTRY:
        raise ValueError(f"no network '{name}'; there are {', '.join(REGISTRY)}")
    try:
        return REGISTRY[name](**arch)
    except TypeError as error:
        raise ValueError(f"network '{name}' cannot be built from {arch}: {error}") from error


def build_from(weights: Weights) -> nn.Module:
    """Build the network that a weights file is for, in evaluation mode, with its tensors."""
    import torch

    metadata = weights.metadata
    if metadata.network == IMPORTED:
        raise WeightsError(
            f"weights '{weights.path}' were imported and are no network in torch: "
            "take backend 'openvino' or 'onnxruntime'"
        )
    refusal = f"weights '{weights.path}' do not fit '{metadata.network}' {metadata.arch}"

    def check(number: str) -> None:
        if len(number) > _MAX_DIGITS:
            raise ValueError(f'no network has {number} of anything')

    try:
        json.loads(json.dumps(metadata.arch), parse_int=check)
        # metadata must not make a network far larger than what the file holds
        with torch.device('meta'):
            wanted = sum(t.numel() for t in build(metadata.network, **metadata.arch).parameters())
        held = sum(tensor.numel() for tensor in weights.tensors.values())
        # what lacks a few tensors is told by their names
        if wanted > 2 * held + 1000:
            raise ValueError(f'it has {wanted} parameters, they hold {held}')
        network = build(metadata.network, **metadata.arch)
        network.load_state_dict(network_tensors(weights.tensors))
    except (ValueError, RuntimeError) as error:
        raise WeightsError(f'{refusal}: {error}') from error
    return network.eval()
