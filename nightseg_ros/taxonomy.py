# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Class names, ids and colours as data: what a label means, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

#: Label of a pixel that nobody labelled; scores ignore it, masks show it black.
UNLABELLED = 255


class TaxonomyError(ValueError):
    """A taxonomy that contradicts itself or cannot be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Taxonomy:
    """An ordered set of classes; the position of a class is its id (0 to 254)."""

    name: str
    classes: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    """One RGB colour (0–255) for each class."""

    def __post_init__(self) -> None:
        """Refuse taxonomies whose ids, names or colours cannot be told apart."""
        count, problem = len(self.classes), ''
        if not 1 <= count < UNLABELLED:
            problem = f'has {count} classes; 1 to 254 fit a mask'
        elif len(self.colors) != count:
            problem = f'has {count} classes but {len(self.colors)} colours'
        elif len(set(self.classes)) != count:
            problem = f'names a class twice: {self.classes}'
        for color in self.colors:
            if len(color) != 3 or not all(0 <= channel <= 255 for channel in color):
                problem = problem or f'has {color}, which is no RGB colour of 0–255'
        if problem:
            raise TaxonomyError(f"taxonomy '{self.name}' {problem}")

    def __len__(self) -> int:
        """Count the classes, without the unlabelled one."""
        return len(self.classes)

    def id_of(self, name: str) -> int:
        """Return the id of a class; ``TaxonomyError`` names the known ones."""
        if name not in self.classes:
            raise TaxonomyError(
                f"taxonomy '{self.name}' has no class '{name}'; it has {', '.join(self.classes)}"
            )
        return self.classes.index(name)

    def palette(self) -> npt.NDArray[np.uint8]:
        """Return uint8 [256, 3] RGB: the colour of each label, black where there is no class."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self)] = self.colors
        return palette

    def to_dict(self) -> dict[str, Any]:
        """Return what the weights' metadata carries (JSON types only)."""
        return {
            'name': self.name,
            'classes': list(self.classes),
            'colors': [list(color) for color in self.colors],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Taxonomy:
        """Read what ``to_dict`` wrote; ``TaxonomyError`` says what does not fit."""
        try:
            return cls(
                name=str(data['name']),
                classes=tuple(str(name) for name in data['classes']),
                colors=tuple((int(r), int(g), int(b)) for r, g, b in data['colors']),
            )
        except TaxonomyError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise TaxonomyError(
                f'a taxonomy needs name, classes and RGB colors; got {dict(data)!r} ({error})'
            ) from error


#: The 11 classes of CamVid (Brostow et al. 2009) in the common grouping, SegNet's colours.
CAMVID11 = Taxonomy(
    name='camvid11',
    classes=(
        'sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car',
        'pedestrian', 'bicyclist',
    ),
    colors=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222),
        (128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
)  # fmt: skip

#: The 19 evaluated classes of Cityscapes (Cordts et al. 2016), train ids and official colours.
CITYSCAPES19 = Taxonomy(
    name='cityscapes19',
    classes=(
        'road', 'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light', 'traffic sign',
        'vegetation', 'terrain', 'sky', 'person', 'rider', 'car', 'truck', 'bus', 'train',
        'motorcycle', 'bicycle',
    ),
    colors=(
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
        (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
        (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
        (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
)  # fmt: skip

#: The five categories of comma10k (comma.ai, MIT licence), its own colours.
COMMA10K = Taxonomy(
    name='comma10k',
    classes=('road', 'lane marking', 'undrivable', 'movable', 'ego car'),
    colors=((64, 32, 32), (255, 0, 0), (128, 128, 96), (0, 255, 102), (204, 0, 255)),
)

TAXONOMIES = {taxonomy.name: taxonomy for taxonomy in (CAMVID11, CITYSCAPES19, COMMA10K)}
