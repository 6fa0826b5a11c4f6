# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What the recipes minimise, and by which learning rates: segmentation, GAN, AdamW's groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from nightseg_ros.data.sample import DataError, read_labels, Sample
from nightseg_ros.networks.frozen_segmenter import FrozenSegmenter
from nightseg_ros.taxonomy import UNLABELLED
from nightseg_ros.weights import load_weights, WeightsError
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

#: Labelled pixels of a batch that the Lovász loss sees: sorting all of them would cost more than
#: the network's decoder.
SAMPLED = 40_000
#: Share that every class is taken to have at least, so that no weight is without bounds.
LEAST_SHARE = 1e-3
#: Frames that are counted for the class weights, spread over the data.
COUNTED = 100

# -- segmentation --------------------------------------------------------------------------------


def segmentation_loss(
    logits: torch.Tensor, labels: torch.Tensor, *, lovasz: float,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """
    Cross entropy plus ``lovasz`` × Lovász-softmax, a scalar.

    ``logits`` are float [B, C, H, W], ``labels`` int64 [B, H, W] with 255 ignored; a batch
    without any label costs 0. ``weight`` float [C] is the classes'.
    """
    loss = mean_cross_entropy(logits, labels, weight=weight)
    if lovasz <= 0:
        return loss
    truth = labels.flatten()
    chosen = torch.nonzero(truth != UNLABELLED).squeeze(1)
    if len(chosen) > SAMPLED:
        chosen = chosen[torch.randint(len(chosen), (SAMPLED,)).to(chosen.device)]
    probabilities = logits.permute(0, 2, 3, 1).flatten(0, 2)[chosen].softmax(1)
    return loss + lovasz * lovasz_softmax(probabilities, truth[chosen])


def mean_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, *, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Cross entropy, the (weighted) mean over all labelled pixels; 0 where there are none."""
    if not bool((labels != UNLABELLED).any()):
        return logits.sum() * 0
    return F.cross_entropy(logits, labels, ignore_index=UNLABELLED, weight=weight)


def lovasz_softmax(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Lovász-softmax of float [N, C] and int64 labels [N] (Berman et al. 2018, equation 9)."""
    losses = []
    for index in range(probabilities.shape[1]):
        truth = (labels == index).to(probabilities.dtype)
        if not bool(truth.any()):
            continue
        errors, order = torch.sort((truth - probabilities[:, index]).abs(), descending=True)
        # the gradient of the Lovász extension for sorted errors (algorithm 1 of the same paper)
        ordered = truth[order]
        size = ordered.sum()
        jaccard = 1 - (size - ordered.cumsum(0)) / (size + (1 - ordered).cumsum(0))
        gradient = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
        losses.append(torch.dot(errors, gradient))
    return torch.stack(losses).mean() if losses else probabilities.sum() * 0


def class_weights(samples: Sequence[Sample], classes: int, balance: float) -> torch.Tensor:
    """Return float32 [classes]: (share of pixels + 0.001)^-``balance``, 1 in the pixels' mean."""
    counts = np.zeros(256)
    for sample in samples[:: max(1, len(samples) // COUNTED)]:
        assert sample.label is not None
        counts += np.bincount(read_labels(sample.label).ravel(), minlength=256)
    labelled = counts[:classes].sum()
    if not labelled:
        raise DataError('no pixel of the training data has a label')
    share = counts[:classes] / labelled
    weights = (share + LEAST_SHARE) ** -balance
    weights /= (weights * share).sum()
    return torch.from_numpy(weights).float()


def halved(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and ids at half the labels' size, from which the deployed graph labels."""
    ids = labels[:, 1::2, 1::2].long()
    return F.interpolate(logits.float(), size=ids.shape[1:], mode='bilinear'), ids


def half_size_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean over the labelled pixels at half size, 0 where there are none."""
    return mean_cross_entropy(*halved(logits, labels))


def open_judges(names: Sequence[str]) -> list[FrozenSegmenter]:
    """Return the segmenters of weights; ``WeightsError`` unless they label one taxonomy."""
    judges = [FrozenSegmenter(load_weights(name)) for name in names]
    for judge in judges:
        if judge.taxonomy != judges[0].taxonomy:
            raise WeightsError(
                f"'{judges[0].weights.path}' labels '{judges[0].taxonomy.name}', "
                f"'{judge.weights.path}' '{judge.taxonomy.name}'; all must label one taxonomy"
            )
    return judges


# -- generators and discriminators (least squares, Mao et al. 2017) ------------------------------


def generator_loss(
    discriminator: nn.Module, fake: torch.Tensor, camera: torch.Tensor | None = None
) -> torch.Tensor:
    """Return how far the scores of float ``fake`` [B, c, h, w] are from real; D learns nothing."""
    discriminator.requires_grad_(False)
    scores: torch.Tensor = discriminator(fake, camera)
    discriminator.requires_grad_(True)
    return (scores.float() - 1).square().mean()


def discriminator_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Return a scalar, half the sum of both errors: that slows the discriminator, as published."""
    return ((real - 1).square().mean() + fake.square().mean()) / 2


def weighted_sum(losses: Mapping[str, torch.Tensor], weights: Mapping[str, float]) -> torch.Tensor:
    """Return the sum of scalars by name, each times its weight."""
    return torch.stack([weights[name] * value for name, value in losses.items()]).sum()


# -- learning rates ------------------------------------------------------------------------------


def parameter_groups(
    network: nn.Module, rate: float, *, weight_decay: float, encoder: float = 1.0
) -> list[dict[str, Any]]:
    """Split the parameters: ``encoder`` × ``rate`` for an encoder; only kernels decay."""
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        peak = rate * (encoder if name.startswith('encoder.') else 1.0)
        decay = weight_decay if parameter.ndim > 1 else 0.0
        new = {'params': [], 'lr': peak, 'weight_decay': decay}
        groups.setdefault((peak, decay), new)['params'].append(parameter)
    return [*groups.values()]


# -- mixed precision on CPUs ---------------------------------------------------------------------


class _DepthwiseConv(torch.autograd.Function):
    """Depthwise convolution with float32 gradients: on CPUs those in bfloat16 are slower."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, conv: nn.Conv2d) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.conv = conv
        return F.conv2d(
            x, weight.to(x.dtype), None, conv.stride, conv.padding, conv.dilation, conv.groups
        )

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        x, weight = ctx.saved_tensors
        conv = ctx.conv
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grads[0].float(), x.float(), weight.float(), None, conv.stride, conv.padding,
            conv.dilation, False, (0, 0), conv.groups, (True, ctx.needs_input_grad[1], False),
        )  # fmt: skip
        return grad_x.to(x.dtype), grad_weight, None


def speed_up_cpu_training(network: nn.Module) -> None:
    """Replace, in place, the forward pass of depthwise convolutions; weights stay as they are."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1 and module.bias is None:
            # a partial of a function, so that a copy of the network calls its own convolution
            module.forward = partial(_depthwise, module)  # type: ignore[method-assign]


def _depthwise(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = _DepthwiseConv.apply(x, conv.weight, conv)  # type: ignore[no-untyped-call]
    return y
