# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The segmenter's loss: cross entropy, and Lovász's surrogate of the IoU itself."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from nightseg_ros.taxonomy import UNLABELLED


def segmentation_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    lovasz: float,
    generator: torch.Generator | None = None,
    sampled: int = 40_000,
) -> torch.Tensor:
    """
    Cross entropy plus ``lovasz`` × Lovász-softmax, a scalar.

    ``logits`` are float [B, C, H, W], ``labels`` int64 [B, H, W] with 255 ignored. Sorting all
    pixels would cost more than the network's decoder, so that Lovász sees ``sampled`` of them.
    """
    loss = F.cross_entropy(logits, labels, ignore_index=UNLABELLED)
    if lovasz <= 0:
        return loss
    flat = labels.flatten()
    known = torch.nonzero(flat != UNLABELLED).squeeze(1)
    if known.numel() > sampled:
        known = known[torch.randint(known.numel(), (sampled,), generator=generator)]
    classes = logits.shape[1]
    probabilities = logits.permute(0, 2, 3, 1).reshape(-1, classes)[known].softmax(1)
    return loss + lovasz * lovasz_softmax(probabilities, flat[known])


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
