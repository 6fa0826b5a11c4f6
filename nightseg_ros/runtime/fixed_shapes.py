# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Runs that are made ready for one shape each, as CUDA graphs and TensorRT engines are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

#: Batch lengths that are made ready; one camera more must not cost a capture on the road.
BATCHES = (1, 2, 4, 8)
#: Shapes that are kept: batches of a few cameras' sizes.
_MOST = 24

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Buffers that keep their place in the device's memory, and the work between them."""

    images: torch.Tensor
    """uint8 [B, h, w, 3]: the input is copied here."""
    outputs: tuple[torch.Tensor, ...]
    replay: Callable[[], None]
    """Enqueue the work; it waits for nothing."""


class FixedShapes:
    """Runs a batch of any length in the next longer one that is ready."""

    def __init__(self, prepare: Callable[[Shape], Prepared]) -> None:
        """``prepare`` makes a shape ready, which may take long."""
        self._prepare = prepare
        self._ready: dict[Shape, Prepared] = {}

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs of uint8 [B, h, w, 3], in memory of their own."""
        count = len(images)
        shape = (batch_length(count), *images.shape[1:])
        if shape not in self._ready:
            # a camera that changes its size with every frame must not fill the memory
            if len(self._ready) >= _MOST:
                self._ready.clear()
            self._ready[shape] = self._prepare(shape)
        prepared = self._ready[shape]
        prepared.images[:count].copy_(images)
        prepared.replay()
        # the next replay overwrites the buffers
        return tuple(output[:count].clone() for output in prepared.outputs)


def batch_length(count: int) -> int:
    """Return the batch length, at least ``count``, that is made ready for so many images."""
    longest = BATCHES[-1]
    return next((n for n in BATCHES if n >= count), -(-count // longest) * longest)
