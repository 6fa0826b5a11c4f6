# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Pictures as generators take them, and back to pictures that people look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch


def to_network(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 [B, h, w, 3] RGB as float [B, 3, h, w] in [-1, 1], channels last."""
    x = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last)


def to_pictures(x: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Return float [B, 3, h, w] in [-1, 1], clipped, as uint8 [B, h, w, 3] RGB."""
    y = ((x.detach().float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return np.asarray(y.permute(0, 2, 3, 1).cpu().numpy())


def grid(columns: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Lay pictures uint8 [B, h, w, 3] side by side, a row for each of the batch."""
    return np.asarray(np.hstack([np.vstack(list(column)) for column in columns]), np.uint8)
