# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""One picture of a data set with what is known about it, and the one reader of its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from nightseg_ros.data.label_map import LabelMap
from nightseg_ros.files import replace_file
from nightseg_ros.perception.compressed import picture_size
from nightseg_ros.perception.frame import FrameError, decode_file

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')
#: Folder beside pseudo-labels that holds a guess for every pixel, unsure ones as well.
SCENE = 'scene'
#: Share of the pixels of a colour-coded label image that may be of no known colour: soft rims.
STRAY_COLORS = 0.01


class DataError(ValueError):
    """A data set that is not where or what it was said to be."""


@dataclass(frozen=True, slots=True)
class LabelFile:
    """
    A label image and what its pixels mean.

    It is no path on purpose: whoever copied the file would lose the meaning. ``read_labels``
    reads it, ``write_labels`` writes what came out.
    """

    path: Path
    meaning: LabelMap

    def __str__(self) -> str:
        """Return the path, for messages."""
        return str(self.path)

    def read_bytes(self) -> bytes:
        """Return the file's content, for a hash of it."""
        return self.path.read_bytes()


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Where a picture and its labels lie, and where it comes from."""

    image: Path
    label: Path | LabelFile | None = None
    """What ``read_labels`` makes uint8 [H, W] ids of; None where there is none. A bare path is a
    single-channel PNG of ids of the taxonomy in use, 255 = not labelled."""
    source: str = ''
    """The camera or drive; scores are split by it and bootstrapped over it."""
    light: str | None = None
    """'day', 'dusk' or 'night' where the data set says so."""
    scene: Path | LabelFile | None = None
    """Labels with a guess where ``label`` has a gap: a synthetic night is made by them."""


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """Return uint8 [H, W, 3] RGB; ``DataError`` where the file is no image, or not a whole one."""
    try:
        image, order = decode_file(path.read_bytes())
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}") from error
    except FrameError as error:
        raise DataError(
            f"'{path}' cannot be read as an image; remove or replace the file ({error})"
        ) from error
    if order == 'rgb':
        return image
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_labels(label: Path | LabelFile) -> npt.NDArray[np.uint8]:
    """
    Return uint8 [H, W] ids, 255 = not labelled.

    ``DataError`` where the file is no whole label image, and where it holds ids that nobody gave
    a meaning: those of another taxonomy would train a network on the wrong classes. Up to
    ``STRAY_COLORS`` of a colour-coded image may be of no known colour.
    """
    if isinstance(label, Path):
        return read_stored(label, color=False)
    ids, unknown = label.meaning.decode(read_stored(label.path, color=label.meaning.color))
    allowed = STRAY_COLORS * ids.size if label.meaning.color else 0
    if sum(unknown.values()) > allowed:
        raise DataError(f"'{label}' {describe_unknown(unknown, label.meaning)}")
    return ids


def describe_unknown(unknown: dict[str, int], meaning: LabelMap) -> str:
    """Say which stored values have no meaning, the most frequent first."""
    first = sorted(unknown, key=lambda value: -unknown[value])[:5]
    more = ', …' if len(unknown) > len(first) else ''
    return (
        f'holds {"colours" if meaning.color else "ids"} {", ".join(first)}{more} that mean '
        f"nothing in '{meaning.taxonomy}'; is it labelled for another taxonomy?"
    )


def read_stored(path: Path, *, color: bool) -> npt.NDArray[np.uint8]:
    """
    Return a label image as it is stored: uint8 [H, W] ids, or uint8 [H, W, 3] RGB if ``color``.

    ``DataError`` where the file is no whole 8-bit image of that kind.
    """
    try:
        content = path.read_bytes()
        picture_size(content)
        stored = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}") from error
    except (ValueError, cv2.error) as error:
        raise DataError(
            f"'{path}' cannot be read as a label image; remove or replace the file ({error})"
        ) from error
    if stored is None:
        raise DataError(f"'{path}' cannot be read as a label image; remove or replace the file")
    if stored.dtype == np.uint8 and color and stored.ndim == 3:
        return np.asarray(stored[..., 2::-1], np.uint8)
    if stored.dtype == np.uint8 and not color and stored.ndim == 3 and not _is_palette(content):
        first = stored[..., 0]
        if stored.shape[2] == 3 and (stored == first[..., None]).all():
            # ids that were saved as a grey RGB image
            return np.ascontiguousarray(first, np.uint8)
    if stored.dtype != np.uint8 or color or stored.ndim != 2:
        wanted = 'RGB colours' if color else 'single-channel uint8 ids'
        palette = ' with a palette' if _is_palette(content) else ''
        raise DataError(f"'{path}' is {stored.dtype} {stored.shape}{palette}; labels are {wanted}")
    return np.asarray(stored, np.uint8)


def _is_palette(content: bytes) -> bool:
    """Tell a PNG of palette indices, which OpenCV unfolds into colours."""
    return content.startswith(b'\x89PNG') and len(content) > 25 and content[25] == 3


def write_labels(path: Path, labels: npt.NDArray[np.uint8]) -> None:
    """Write uint8 [H, W] ids as a PNG, whole or not at all; ``OSError`` where the disk is full."""
    if labels.dtype != np.uint8 or labels.ndim != 2:
        raise DataError(f'labels are uint8 [H, W], got {labels.dtype} {labels.shape}')
    replace_file(path, cv2.imencode('.png', labels)[1].tobytes())
