# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Frames as a report shows them: input, mask, truth and errors, as JPEGs inside the page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from nightseg_ros.evaluation.report.document import Picture
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.rendering import Renderer
from nightseg_ros.runtime.pixels import HostPixels
from nightseg_ros.taxonomy import UNLABELLED, Taxonomy

Image = npt.NDArray[np.uint8]

#: Right and wrong pixels; blue and orange, which the colour-blind tell apart.
ERRORS = Taxonomy(name='errors', classes=('right', 'wrong'), colors=((0, 90, 181), (245, 130, 20)))
#: Long side in pixels and JPEG quality, best first; the first that fits the budget is taken.
SIZES = ((640, 84), (480, 82), (400, 78), (320, 74), (240, 70), (160, 66))
_OVERLAY = 0.5
_ERRORS = 0.62


class PictureSizeError(ValueError):
    """Pictures of one frame that do not fit each other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """A picture that is not yet encoded."""

    image: Image
    """uint8 [H, W, 3] RGB."""
    title: str
    alt: str

    @classmethod
    def of(cls, image: Image, title: str, alt: str) -> Drawing:
        """Keep no more pixels than a page can show: a page waits for all of its pictures."""
        return cls(image=_shrink(image, SIZES[0][0]), title=title, alt=alt)


class Painter:
    """Draws masks of one taxonomy over frames."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        """Take the taxonomy's colours."""
        pixels = HostPixels()
        self._masks = Renderer(taxonomy, pixels)
        self._errors = Renderer(ERRORS, pixels)

    def overlay(self, image: Image, labels: Image) -> Image:
        """Ids uint8 [H, W] over RGB uint8 [H, W, 3]; unlabelled pixels are darkened."""
        _check(image, labels)
        return np.asarray(
            self._masks.overlay(Frame(image=image), self._masks.color(labels), _OVERLAY), np.uint8
        )

    def errors(self, image: Image, labels: Image, truth: Image) -> Image:
        """Right and wrong pixels over the greyed frame; what nobody labelled stays dark."""
        _check(image, labels)
        _check(image, truth)
        found = (labels != truth).astype(np.uint8)
        found[truth == UNLABELLED] = UNLABELLED
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        frame = Frame(image=np.asarray(grey, np.uint8))
        return np.asarray(
            self._errors.overlay(frame, self._errors.color(found), _ERRORS), np.uint8
        )


def encode(drawings: Sequence[Drawing], budget: int) -> list[Picture] | None:
    """
    Return the drawings as JPEG data URIs of at most ``budget`` bytes in all.

    They shrink until they fit; None where even the smallest size is too large.
    """
    for long_side, quality in SIZES:
        pictures: list[Picture] = []
        spent = 0
        for drawing in drawings:
            pictures.append(_encode(drawing, long_side, quality))
            spent += len(pictures[-1].uri)
            if spent > budget:
                break
        else:
            return pictures
    return None


def _encode(drawing: Drawing, long_side: int, quality: int) -> Picture:
    small = _shrink(drawing.image, long_side)
    good, content = cv2.imencode(
        '.jpg',
        cv2.cvtColor(small, cv2.COLOR_RGB2BGR),
        [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1],
    )
    if not good:
        raise PictureSizeError(f"'{drawing.title}' of {drawing.image.shape} cannot be encoded")
    return Picture(
        uri='data:image/jpeg;base64,' + base64.b64encode(content.tobytes()).decode('ascii'),
        title=drawing.title,
        alt=drawing.alt,
        width=small.shape[1],
        height=small.shape[0],
    )


def _shrink(image: Image, long_side: int) -> Image:
    height, width = image.shape[:2]
    factor = min(1.0, long_side / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _check(image: Image, labels: Image) -> None:
    if image.shape[:2] != labels.shape:
        raise PictureSizeError(
            f'a mask of {labels.shape} does not fit a picture of {image.shape[:2]}'
        )
