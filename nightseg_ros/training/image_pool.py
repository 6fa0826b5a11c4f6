# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Fakes of earlier steps for the discriminator, which else forgets them (Shrivastava 2017)."""

from __future__ import annotations

import numpy as np
import torch


class ImagePool:
    """
    Up to ``size`` fake pictures with their cameras; half of the time an old one is returned.

    Pictures are kept as bytes, as real ones are. Choices depend on ``seed`` and the step alone.
    """

    def __init__(self, size: int, seed: int) -> None:
        """Start empty; size 0 returns every picture as it comes."""
        self.size = size
        self._seed = seed
        self._images: list[torch.Tensor] = []
        self._cameras: list[torch.Tensor] = []

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self._images)

    def exchange(
        self, images: torch.Tensor, cameras: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Give float [B, 3, H, W] in [-1, 1] and int64 [B] in, get as many back.

        A new picture is returned as it is, or stays in place of the old one that is returned.
        """
        if self.size == 0:
            return images.detach(), cameras
        out_images, out_cameras = [], []
        for index, (image, camera) in enumerate(zip(images.detach(), cameras)):
            if len(self) < self.size:
                self._images.append(_to_bytes(image))
                self._cameras.append(camera.cpu().clone())
            else:
                rng = np.random.default_rng((self._seed, step, index))
                if rng.random() < 0.5:
                    place = int(rng.integers(self.size))
                    old = self._images[place], self._cameras[place]
                    self._images[place] = _to_bytes(image)
                    self._cameras[place] = camera.cpu().clone()
                    image = old[0].to(image) / 127.5 - 1
                    camera = old[1].to(camera)
            out_images.append(image)
            out_cameras.append(camera)
        return torch.stack(out_images), torch.stack(out_cameras)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the pictures as tensors, fit for a checkpoint."""
        if not self._images:
            return {}
        return {'images': torch.stack(self._images), 'cameras': torch.stack(self._cameras)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what ``state_dict`` returned."""
        self._images = list(state['images']) if state else []
        self._cameras = list(state['cameras']) if state else []


def _to_bytes(image: torch.Tensor) -> torch.Tensor:
    return ((image.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu()
