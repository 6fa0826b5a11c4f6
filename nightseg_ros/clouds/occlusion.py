# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Which of the points that fall into an image are hidden behind nearer ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Occlusion:
    """
    A z-buffer of square cells, in inverse depth.

    Along the image of a plane that passes the camera at a distance h, 1/z changes by at most
    1/(f h) a pixel. A point is hidden where 1/z falls short of its cell's nearest by more than a
    cell of such a plane explains: so the ground never hides itself, near or far.
    """

    cell: float = 4.0
    """Side of a cell in pixels, about the distance of two points; 0 hides nothing."""
    clearance: float = 0.75
    """h, in metres: surfaces that pass the camera closer may hide parts of themselves."""

    def __post_init__(self) -> None:
        """Refuse what is no size."""
        if not (self.cell >= 0 and self.clearance > 0):
            raise ValueError(
                f"'cell' must not be negative and 'clearance' above 0; got {self.cell} and "
                f'{self.clearance}'
            )

    def visible(
        self, u: Floats, v: Floats, inverse: Floats, size: tuple[int, int], focal: float
    ) -> npt.NDArray[np.bool_]:
        """
        Return bool [M] of points at pixels u, v with inverse depth 1/z, all float32 [M].

        ``size`` is (height, width) of the image, ``focal`` its focal length in pixels.
        """
        if not self.cell:
            return np.ones(len(u), bool)
        columns = int(size[1] / self.cell) + 1
        scale = np.float32(1 / self.cell)
        cell = ((v + np.float32(0.5)) * scale).astype(np.intp) * columns
        cell += ((u + np.float32(0.5)) * scale).astype(np.intp)
        nearest = np.zeros((int(size[0] / self.cell) + 1) * columns, np.float32)
        np.maximum.at(nearest, cell, inverse)
        allowed = np.float32(self.cell / (focal * self.clearance))
        return np.asarray(inverse >= nearest.take(cell) - allowed)
