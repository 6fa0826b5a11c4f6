# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The segmenter's loss: cross entropy, and Lovász's surrogate of the IoU itself."""

from __future__ import annotations

import math
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch.nn import functional as F

from nightseg_ros.taxonomy import UNLABELLED

#: OHEM keeps the pixels whose truth got less than this probability …
OHEM_PROBABILITY = 0.7
#: … and never fewer than this share of the labelled ones.
OHEM_LEAST = 1 / 16

CrossEntropy = Literal['ce', 'ohem']


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

    def gather(self, value: torch.Tensor) -> torch.Tensor:
        """Return every process's tensor of one shape, [world, …], without a gradient."""
        if self.world == 1:
            return value.detach()[None]
        assert self._fabric is not None
        result = self._fabric.all_gather(value.detach())
        assert isinstance(result, torch.Tensor)
        return result


ALONE = Together()


def segmentation_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    lovasz: float,
    kind: CrossEntropy = 'ce',
    weight: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
    sampled: int = 40_000,
    together: Together = ALONE,
) -> torch.Tensor:
    """
    Cross entropy plus ``lovasz`` × Lovász-softmax, a scalar.

    ``logits`` are float [B, C, H, W], ``labels`` int64 [B, H, W] with 255 ignored; a batch
    without any label costs 0. ``kind`` 'ohem' takes the cross entropy of hard pixels only,
    ``weight`` float [C] is the classes' in 'ce'. Sorting all pixels would cost more than the
    network's decoder, so that Lovász sees ``sampled`` of them. Several processes give the
    ``generator`` the same state.
    """
    if kind == 'ohem':
        loss = ohem_cross_entropy(logits, labels, together=together)
    else:
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
    mass = known.sum() if weight is None else weight[labels[known]].sum()
    mass = together.total(mass)
    if not bool(mass > 0):
        return logits.sum() * 0
    if together.world == 1:
        return F.cross_entropy(logits, labels, ignore_index=UNLABELLED, weight=weight)
    total = F.cross_entropy(
        logits, labels, ignore_index=UNLABELLED, weight=weight, reduction='sum'
    )
    return total / mass * together.world


def ohem_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    probability: float = OHEM_PROBABILITY,
    least: float = OHEM_LEAST,
    together: Together = ALONE,
) -> torch.Tensor:
    """
    Cross entropy of the hard pixels (online hard example mining, Shrivastava et al. 2016).

    Hard are those whose truth got at most ``probability``, and at least the ``least`` share of
    the labelled ones, hardest first.
    """
    every = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction='none')
    losses = every[labels != UNLABELLED]
    floor = max(1, int(least * int(together.total((labels != UNLABELLED).sum()))))
    # the hardest of all processes are among the hardest of each
    top = losses.detach().topk(min(floor, losses.numel())).values
    top = F.pad(top, (0, floor - top.numel()), value=-1.0)
    last = together.gather(top).flatten().topk(floor).values[-1]
    hard = losses[losses >= last.clamp(max=-math.log(probability))]
    count = together.total(torch.tensor(hard.numel(), device=hard.device))
    return hard.sum() / count.clamp(min=1) * together.world


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
    counts = together.gather(torch.tensor(known.numel(), device=known.device))
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
