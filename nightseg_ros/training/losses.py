# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What the recipes minimise, and by which learning rates: segmentation, GAN, AdamW's groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer

from nightseg_ros.data.sample import DataError, Sample, read_labels
from nightseg_ros.taxonomy import UNLABELLED

# -- segmentation ------------------------------------------------------------------------------


class Together:
    """
    What the processes of a training know together; with one process, what it knows alone.

    Losses are means over the whole batch of all processes. DDP averages gradients over
    processes, so that each one's share of a sum is multiplied by ``world``.
    """

    def __init__(self, fabric: Fabric | None = None) -> None:
        """Take the processes of ``fabric``; None is one process."""
        self.world = 1 if fabric is None else fabric.world_size
        self.rank = 0 if fabric is None else fabric.global_rank
        self._fabric = fabric

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes, without a gradient."""
        if self.world == 1:
            return value.detach()
        assert self._fabric is not None
        # a clone, since it works in place
        result = self._fabric.all_reduce(value.detach().clone(), reduce_op='sum')
        assert isinstance(result, torch.Tensor)
        return result


ALONE = Together()


def segmentation_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    lovasz: float,
    weight: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
    sampled: int = 40_000,
    together: Together = ALONE,
) -> torch.Tensor:
    """
    Cross entropy plus ``lovasz`` × Lovász-softmax, a scalar.

    ``logits`` are float [B, C, H, W], ``labels`` int64 [B, H, W] with 255 ignored; a batch
    without any label costs 0. ``weight`` float [C] is the classes'. Sorting all pixels would cost
    more than the network's decoder, so that Lovász sees ``sampled`` of them. Several processes
    give the ``generator`` the same state.
    """
    loss = mean_cross_entropy(logits, labels, weight=weight, together=together)
    if lovasz <= 0:
        return loss
    probabilities, truth = _sample(logits, labels, sampled, generator, together)
    surrogate = lovasz_softmax(probabilities, truth)
    if together.world > 1:
        # every process has the whole value, but the gradient of its own pixels only
        surrogate = surrogate + (together.world - 1) * (surrogate - surrogate.detach())
    return loss + lovasz * surrogate


def mean_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    weight: torch.Tensor | None = None,
    together: Together = ALONE,
) -> torch.Tensor:
    """Cross entropy, the (weighted) mean over all labelled pixels of all processes."""
    known = labels != UNLABELLED
    mass = together.total(known.sum() if weight is None else weight[labels[known]].sum())
    if not bool(mass > 0):
        return logits.sum() * 0
    entropy = partial(F.cross_entropy, logits, labels, ignore_index=UNLABELLED, weight=weight)
    if together.world == 1:
        return entropy()
    return entropy(reduction='sum') / mass * together.world


def _sample(
    logits: torch.Tensor,
    labels: torch.Tensor,
    sampled: int,
    generator: torch.Generator | None,
    together: Together,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Draw labelled pixels of the whole batch: probabilities [N, C] and ids [N].

    Each process has them all, with a gradient only for its own.
    """
    flat = labels.flatten()
    known = torch.nonzero(flat != UNLABELLED).squeeze(1)
    counts = torch.zeros(together.world, dtype=torch.int64, device=known.device)
    counts[together.rank] = known.numel()
    counts = together.total(counts)
    total = int(counts.sum())
    classes = logits.shape[1]
    pixels = logits.permute(0, 2, 3, 1).reshape(-1, classes)
    if total > sampled:
        drawn = torch.randint(total, (sampled,), generator=generator).to(known.device)
    else:
        drawn = torch.arange(total, device=known.device)
    if together.world == 1:
        chosen = known[drawn]
        return pixels[chosen].softmax(1), flat[chosen]
    first = int(counts[: together.rank].sum())
    mine = (drawn >= first) & (drawn < first + known.numel())
    chosen = known[drawn[mine] - first]
    own = pixels.new_zeros(len(drawn), classes)
    own[mine] = pixels[chosen].softmax(1)
    truth = torch.zeros_like(drawn)
    truth[mine] = flat[chosen]
    # zeros elsewhere make the sum over processes the whole; own - own adds the gradient only
    return together.total(own) + (own - own.detach()), together.total(truth)


def lovasz_softmax(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """
    Lovász-softmax over the classes present (Berman et al. 2018, equation 9), a scalar.

    ``probabilities`` are float [N, C], ``labels`` int64 [N].
    """
    losses = []
    for index in range(probabilities.shape[1]):
        truth = (labels == index).to(probabilities.dtype)
        if not bool(truth.any()):
            continue
        errors, order = torch.sort((truth - probabilities[:, index]).abs(), descending=True)
        losses.append(torch.dot(errors, _lovasz_gradient(truth[order])))
    return torch.stack(losses).mean() if losses else probabilities.sum() * 0


def _lovasz_gradient(truth: torch.Tensor) -> torch.Tensor:
    """Gradient of the Lovász extension for sorted errors (algorithm 1 of the same paper)."""
    total = truth.sum()
    intersection = total - truth.cumsum(0)
    union = total + (1 - truth).cumsum(0)
    jaccard = 1 - intersection / union
    return torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])


#: Share that every class is taken to have at least, so that no weight is without bounds.
LEAST_SHARE = 1e-3
#: Frames that are counted, spread over the data.
COUNTED = 100


def class_weights(samples: Sequence[Sample], classes: int, balance: float) -> torch.Tensor:
    """
    Return float32 [classes]: (share of the pixels + 0.001)^-``balance``, 1 in the pixels' mean.

    ``balance`` 0 weighs pixels alike, 1 classes. ``DataError`` where nothing is labelled.
    """
    counts = np.zeros(256)
    for sample in samples[:: max(1, len(samples) // COUNTED)]:
        assert sample.label is not None
        counts += np.bincount(read_labels(sample.label).ravel(), minlength=256)
    total = counts[:classes].sum()
    if not total:
        raise DataError('no pixel of the training data has a label')
    share = counts[:classes] / total
    weights = (share + LEAST_SHARE) ** -balance
    weights /= (weights * share).sum()
    return torch.from_numpy(weights).float()


# -- generators and discriminators (least squares, Mao et al. 2017) -----------------------------


def generator_loss(fake: torch.Tensor) -> torch.Tensor:
    """Return a scalar: how far the scores float [B, 1, h, w] of fakes are from real (1)."""
    return (fake.float() - 1).square().mean()


def discriminator_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Return a scalar, half the sum of both errors: that slows the discriminator, as published."""
    return ((real.float() - 1).square().mean() + fake.float().square().mean()) / 2


# -- learning rates ------------------------------------------------------------------------------


def parameter_groups(
    network: nn.Module,
    rate: float,
    weight_decay: float,
    factor: Callable[[str], float] = lambda name: 1.0,
) -> list[dict[str, Any]]:
    """
    Split the parameters by learning rate, ``rate`` × ``factor(name)``.

    Normalisation and biases, all that has one dimension, decay nothing.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        decay = weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate * factor(name), decay), []).append(parameter)
    return [
        {'params': params, 'lr': peak, 'peak': peak, 'weight_decay': decay}
        for (peak, decay), params in groups.items()
    ]


def poly(step: int, *, steps: int, warm_up: int) -> float:
    """Return the learning rate's factor: linear warm-up, then (1 - t)^0.9."""
    warm = min(1.0, (step + 1) / max(1, warm_up))
    return float(warm * (1 - step / steps) ** 0.9)


def set_rate(optimizer: Optimizer, factor: float) -> None:
    """Set every group to its peak × ``factor``."""
    for group in optimizer.param_groups:
        group['lr'] = group['peak'] * factor


# -- mixed precision on CPUs ---------------------------------------------------------------------


class _DepthwiseConv(torch.autograd.Function):
    """
    Depthwise convolution whose gradients are computed in float32.

    On CPUs the bfloat16 gradient kernels of depthwise convolutions are slower than the float32
    ones.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, conv: nn.Conv2d) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.conv = conv
        return F.conv2d(
            x, weight.to(x.dtype), None, conv.stride, conv.padding, conv.dilation, conv.groups
        )

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        x, weight = ctx.saved_tensors
        conv = ctx.conv
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grads[0].float(), x.float(), weight.float(), None, conv.stride, conv.padding,
            conv.dilation, False, (0, 0), conv.groups, (True, True, False),
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
