# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The segmenter's losses: what they are means of, and which pixels they leave out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nightseg_ros.training.losses import (
    lovasz_softmax,
    mean_cross_entropy,
    ohem_cross_entropy,
    segmentation_loss,
)


def pixels(truth_probability: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and labels of one row of two-class pixels with these probabilities."""
    p = torch.tensor(truth_probability, dtype=torch.float64)
    logits = torch.stack([p.log(), (1 - p).log()])[None, :, None]
    return logits, torch.zeros(1, 1, len(p), dtype=torch.int64)


def test_lovasz_is_one_minus_iou_for_hard_predictions() -> None:
    """Its defining property (Berman et al. 2018, section 3)."""
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    predicted = torch.tensor([0, 0, 1, 1, 2, 2])
    probabilities = F.one_hot(predicted, 3).float()
    ious = [2 / 3, 1 / 3, 1 / 2]
    assert lovasz_softmax(probabilities, labels).item() == pytest.approx(1 - np.mean(ious))


@pytest.mark.parametrize('kind', ['ce', 'ohem'])
def test_loss_ignores_void(kind: str) -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.full((1, 4, 4), 255)
    labels[0, 0, 0] = 1
    loss = segmentation_loss(logits, labels, lovasz=1.0, kind=kind)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[0, :, 0, 0].abs().sum() > 0
    assert gradient.abs().sum() == gradient[0, :, 0, 0].abs().sum()


@pytest.mark.parametrize('kind', ['ce', 'ohem'])
@pytest.mark.parametrize('weighted', [False, True])
def test_a_batch_without_any_label_costs_nothing(kind: str, weighted: bool) -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    weight = torch.ones(3) if weighted and kind == 'ce' else None
    labels = torch.full((1, 4, 4), 255)
    loss = segmentation_loss(logits, labels, lovasz=1.0, kind=kind, weight=weight)
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


def test_class_weights_make_a_weighted_mean() -> None:
    logits, labels = pixels([0.5, 0.25, 0.1])
    labels[0, 0, 2] = 1  # its probability is 0.9
    weight = torch.tensor([1.0, 3.0], dtype=torch.float64)
    wanted = -(math.log(0.5) + math.log(0.25) + 3 * math.log(0.9)) / 5
    assert mean_cross_entropy(logits, labels, weight=weight).item() == pytest.approx(wanted)


def test_ohem_takes_the_hard_pixels() -> None:
    logits, labels = pixels([0.99, 0.9, 0.69, 0.2] + [0.95] * 12)
    wanted = -(math.log(0.69) + math.log(0.2)) / 2
    assert ohem_cross_entropy(logits, labels).item() == pytest.approx(wanted)


def test_ohem_takes_the_hardest_where_few_are_hard() -> None:
    logits, labels = pixels([0.99] * 31 + [0.8])
    assert ohem_cross_entropy(logits, labels, least=1 / 16).item() == pytest.approx(
        -(math.log(0.8) + 31 * math.log(0.99)) / 32
    )  # a tie at the end of the two hardest keeps all that are as hard
    logits, labels = pixels([0.8, 0.85, 0.9, 0.95] * 8)
    wanted = -math.log(0.8)
    assert ohem_cross_entropy(logits, labels, least=1 / 4).item() == pytest.approx(wanted)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0.01, 0.99), min_size=1, max_size=60),
    st.floats(0.05, 0.95),
    st.floats(0.02, 1.0),
)
def test_ohem_is_a_mean_of_the_hardest_and_never_below_the_plain_mean(
    probabilities: list[float], probability: float, least: float
) -> None:
    logits, labels = pixels(probabilities)
    loss = ohem_cross_entropy(logits, labels, probability=probability, least=least).item()
    ordered = sorted((-math.log(p) for p in probabilities), reverse=True)
    means = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    assert np.abs(means - loss).min() < 1e-9
    assert loss >= means[-1] - 1e-9
    # the mean of equal losses is that of any number of them
    count = int(np.flatnonzero(np.abs(means - loss) < 1e-9)[-1]) + 1
    assert count >= min(len(ordered), int(least * len(ordered)))
