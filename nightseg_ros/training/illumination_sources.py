# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What the illumination estimator learns from: thumbnails of frames whose time of day is known.

A source is a folder or a video with one camera and one time of day, known by its name. Frames are
kept as 144×96 thumbnails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from nightseg_ros.data.source import VIDEO_SUFFIXES, open_source
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.illumination import thumbnail

#: Height and width of the stored thumbnails; crops of at least two thirds of a side are taken.
STORED_SIZE = (96, 144)


class IlluminationDataError(ValueError):
    """A source without frames, or sources without one of the two classes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IlluminationSource:
    """Frames of one camera at one time of day."""

    camera: str
    """Frames of one name count as one camera, which the study holds out as a whole."""
    label: Literal['day', 'night']
    path: str
    """A folder of images, a video, or a pattern such as ``folder/prefix_*.jpg``."""
    stride: int = 1
    """Take every n-th frame; neighbours in a video teach nothing new."""
    train: bool = True
    """False: only evaluated on, never trained on."""

    def __post_init__(self) -> None:
        """Refuse what would load nothing."""
        if not self.camera or not self.path:
            raise ValueError("a source needs a 'camera' and a 'path'")
        if self.stride < 1:
            raise ValueError(f"'stride' must be at least 1, got {self.stride}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Thumbnails:
    """The frames of one source: RGB uint8 [N, 96, 144, 3]."""

    camera: str
    day: bool
    images: npt.NDArray[np.uint8]
    names: tuple[str, ...]
    train: bool = True


def shared_sources(root: str | Path) -> tuple[IlluminationSource, ...]:
    """
    List the real data in the layout of its folder's README.

    Folders and clips count by their day or night name. The dusk drive, ``rainy.mp4`` and the
    labelled night frames train nothing; ``day_test`` is evaluated on only.
    """
    root = Path(root)

    def source(
        camera: str, label: Literal['day', 'night'], path: str, stride: int = 1, train: bool = True
    ) -> IlluminationSource:
        return IlluminationSource(
            camera=camera, label=label, path=str(root / path), stride=stride, train=train
        )

    return (
        source('camvid', 'day', 'camvid/day_train/images'),
        source('camvid', 'day', 'camvid/day_test/images', train=False),
        source('roadscene', 'day', 'unlabelled/day/roadscene_*.jpg'),
        source('roadscene', 'night', 'unlabelled/night/roadscene_*.jpg'),
        source('msrs', 'day', 'unlabelled/day/msrs_*.jpg'),
        source('msrs', 'night', 'unlabelled/night/msrs_*.jpg'),
        source('seattlestreet', 'day', 'clips/seattlestreet1.mp4', 10),
        source('seattlestreet', 'day', 'clips/seattlestreet2.mp4', 10),
        source('desert', 'day', 'clips/desert.mp4', 10),
        source('countryroad', 'day', 'clips/countryroad.mp4', 10),
        source('nightdrive', 'night', 'clips/night.mp4', 10),
    )


def parse_sources(spec: str) -> tuple[IlluminationSource, ...]:
    """Read an entry of ``data``; ``ValueError`` says what an entry looks like."""
    kind, _, rest = spec.partition(':')
    if kind == 'shared' and rest:
        return shared_sources(rest)
    camera, _, path = rest.partition(':')
    if kind not in ('day', 'night') or not camera or not path:
        raise ValueError(
            f"'data': '{spec}' must be shared:ROOT, day:CAMERA:PATH or night:CAMERA:PATH"
        )
    stride = 10 if Path(path).suffix.lower() in VIDEO_SUFFIXES else 1
    label: Literal['day', 'night'] = 'day' if kind == 'day' else 'night'
    return (IlluminationSource(camera=camera, label=label, path=path, stride=stride),)


def load_thumbnails(source: IlluminationSource) -> Thumbnails:
    """Read a source; ``IlluminationDataError`` names the path that gave no frame."""
    images: list[npt.NDArray[np.uint8]] = []
    names: list[str] = []
    for name, frame in _frames(source):
        images.append(thumbnail(frame.image, frame.order, STORED_SIZE))
        names.append(name)
    if not images:
        raise IlluminationDataError(
            f"source '{source.path}' of camera '{source.camera}' has no readable frame; it must "
            'be a folder of JPEG or PNG images, a video, or a pattern that matches images'
        )
    return Thumbnails(
        camera=source.camera,
        day=source.label == 'day',
        images=np.stack(images),
        names=tuple(names),
        train=source.train,
    )


def _frames(source: IlluminationSource) -> Iterator[tuple[str, Frame]]:
    """Yield name and frame of every n-th readable image or video frame of a source."""
    path = Path(source.path)
    if path.exists():
        items = enumerate(open_source(path))
        chosen = (item for index, item in items if index % source.stride == 0)
    else:
        files = sorted(path.parent.glob(path.name))[:: source.stride]
        chosen = (item for file in files for item in open_source(file))
    for stem, frame in chosen:
        if isinstance(frame, Frame):
            yield stem, frame


def shrink(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Shrink stored thumbnails [N, 96, 144, 3] to those the estimator gets, [N, 64, 96, 3]."""
    return np.stack([thumbnail(image) for image in images])


def without_camera(sets: Sequence[Thumbnails], camera: str) -> list[Thumbnails]:
    """Return the sets with every frame of one camera barred from training."""
    return [replace(item, train=item.train and item.camera != camera) for item in sets]
