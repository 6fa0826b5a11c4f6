# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""How a camera's pixels map to a network's: the one place that decides sizes."""

from __future__ import annotations

from dataclasses import dataclass

MULTIPLE = 32


@dataclass(frozen=True, slots=True)
class NetworkSize:
    """
    A camera's size fitted to a network: scaled with its aspect, then padded.

    The scaled image lies at the top left of the padded one; its sides are even, so that labels
    at half the network's size cover it exactly.
    """

    camera: tuple[int, int]
    """Height and width of the camera's image."""
    scaled: tuple[int, int]
    padded: tuple[int, int]

    @property
    def labels(self) -> tuple[int, int]:
        """Height and width of the part of a half-size mask that the scaled image covers."""
        return self.scaled[0] // 2, self.scaled[1] // 2


def fit(height: int, width: int, long_side: int) -> NetworkSize:
    """Scale the long side to ``long_side`` pixels and pad to multiples of 32."""
    factor = long_side / max(height, width)
    scaled = (_even(height * factor), _even(width * factor))
    padded = (_up(scaled[0]), _up(scaled[1]))
    return NetworkSize(camera=(height, width), scaled=scaled, padded=padded)


def _even(length: float) -> int:
    return max(2, 2 * round(length / 2))


def _up(length: int) -> int:
    return -(-length // MULTIPLE) * MULTIPLE
