# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A network of under 20,000 parameters that tells day from night on a 96×64 thumbnail."""

from __future__ import annotations

from collections.abc import Sequence

from nightseg_ros.networks.segmenters import conv_bn
import torch
from torch import nn


class IlluminationNet(nn.Module):
    """
    Stride-2 convolutions, then mean and maximum over the frame, then one logit.

    The maximum keeps what is small (a lamp, a halo), the mean what is wide (the sky's colour,
    the noise). Every frame is standardised first, with one mean and one deviation for all its
    pixels and channels, so that a gain or an offset of the camera cannot carry the answer.
    """

    def __init__(self, widths: Sequence[int] = (12, 24, 32, 32), floor: float = 0.02) -> None:
        """
        Build the layers; ``widths`` are the channels after each convolution.

        ``floor`` is the least standard deviation (of values in 0–1) that a frame is divided by:
        without it the noise of a covered lens would be blown up into a scene. ``ValueError`` for
        more than 20,000 parameters.
        """
        super().__init__()
        if len(widths) < 3 or min(widths) < 1 or floor <= 0:
            raise ValueError(
                "illumination_net needs three or more positive 'widths' and a positive 'floor'; "
                f'got widths {tuple(widths)} and floor {floor}'
            )
        self.floor = floor
        layers: list[nn.Module] = []
        channels = 3
        for index, width in enumerate(widths):
            stride = 2 if index < 3 else 1
            layers += conv_bn(channels, width, 3, stride=stride, act=nn.ReLU(inplace=True))
            channels = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(2 * channels, 1)
        # not used here: the estimator's limit of a daylit road travels with the weights
        self.day_ground = nn.Buffer(torch.zeros(()))
        count = sum(parameter.numel() for parameter in self.parameters())
        if count > 20_000:
            raise ValueError(
                f'widths {tuple(widths)} make {count} parameters; 20,000 keep the estimate cheap: '
                'choose narrower ones'
            )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map RGB float32 [B, 3, 64, 96] in 0–255 to logits [B]; above 0 means daylight."""
        image = image / 255.0
        mean = image.mean(dim=(1, 2, 3), keepdim=True)
        variance = (image - mean).square().mean(dim=(1, 2, 3), keepdim=True)
        image = (image - mean) / (variance + self.floor**2).sqrt()
        features: torch.Tensor = self.body(image)
        pooled = torch.cat((features.mean(dim=(2, 3)), features.amax(dim=(2, 3))), dim=1)
        logits: torch.Tensor = self.head(pooled)
        return logits[:, 0]
