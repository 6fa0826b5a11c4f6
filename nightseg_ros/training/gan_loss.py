# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The least-squares GAN's two losses (Mao et al. 2017), as CycleGAN uses them."""

from __future__ import annotations

import torch


def generator_loss(fake: torch.Tensor) -> torch.Tensor:
    """Return a scalar: how far the scores float [B, 1, h, w] of fakes are from real (1)."""
    return (fake.float() - 1).square().mean()


def discriminator_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Return a scalar, half the sum of both errors: that slows the discriminator, as published."""
    return ((real.float() - 1).square().mean() + fake.float().square().mean()) / 2
