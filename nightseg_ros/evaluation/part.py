# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
A part of an evaluation: frames that need no others, so that any process can take them.

That is one camera of one bag, a video, a folder, or some pictures of a data set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from nightseg_ros.bags.reader import BagLoss, BagReader
from nightseg_ros.data.sample import LabelFile, Sample, read_image, read_labels
from nightseg_ros.data.source import FrameSource, open_source
from nightseg_ros.evaluation.truth import LabelFolder, open_labels, open_light
from nightseg_ros.perception.frame import Frame, FrameError

Image = npt.NDArray[np.uint8]
#: Reasons for lost frames that are kept a part.
MOST_LOSSES = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One frame to come."""

    name: str
    source: str
    light: str | None
    """The true state of the light; None where it is not known."""
    read: Callable[[], tuple[Frame | FrameError, Image | None]]
    """Return the frame, and its labels uint8 [H, W] where there are any."""


class Reader(Protocol):
    """An opened part."""

    sequence: bool
    """Neighbours follow one another in time; else each picture is by itself."""

    def __iter__(self) -> Iterator[Item]:
        """Go through the frames, once."""

    def summary(self) -> dict[str, Any]:
        """Return what was lost and left over; complete at the end only."""

    def close(self) -> None:
        """Close the files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """Some pictures of a data set, each by itself."""

    set: str
    spec: str
    """ADAPTER:ROOT[:SPLIT]."""
    samples: tuple[Sample, ...]

    @property
    def count(self) -> int | None:
        """Frames that will come."""
        return len(self.samples)

    @property
    def files(self) -> list[Path]:
        """Everything that the scores depend on."""
        labels = [sample.label for sample in self.samples if sample.label is not None]
        return [
            *(sample.image for sample in self.samples),
            *(label.path if isinstance(label, LabelFile) else label for label in labels),
        ]

    def open(self) -> Reader:
        """Return the reader."""
        return _PictureReader(self)


class _PictureReader:
    sequence = False

    def __init__(self, part: Pictures) -> None:
        self._part = part

    def __iter__(self) -> Iterator[Item]:
        for sample in self._part.samples:
            yield Item(
                name=sample.image.stem, source=sample.source, light=sample.light,
                read=lambda sample=sample: _read_sample(sample),  # type: ignore[misc]
            )  # fmt: skip

    def summary(self) -> dict[str, Any]:
        return {'sequence': False, 'kind': 'dataset', 'losses': [], 'labels_unused': 0}

    def close(self) -> None:
        pass


def _read_sample(sample: Sample) -> tuple[Frame, Image | None]:
    frame = Frame(image=read_image(sample.image), camera=sample.source)
    return frame, None if sample.label is None else read_labels(sample.label)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """A camera's frames in the order of their stamps: one topic of a bag, a video, a folder."""

    set: str
    source: str
    """The name that its scores get."""
    path: Path
    topic: str | None = None
    rate: float | None = None
    stamps: Path | None = None
    """A file of stamps for a folder or a video, instead of a rate."""
    labels: str = ''
    """A folder or a topic; '' for none."""
    light: str = ''
    """A state, a CSV file or a topic; '' for unknown."""

    @property
    def count(self) -> int | None:
        """Frames that will come; None where nobody knows."""
        return self.frames().count

    @property
    def files(self) -> list[Path]:
        """Everything that the scores depend on."""
        others = (self.labels, self.light, self.stamps)
        roots = [self.path, *(Path(name) for name in others if name)]
        found: list[Path] = []
        for root in roots:
            if root.is_dir():
                found += sorted(path for path in root.rglob('*') if path.is_file())
            elif root.is_file():
                found.append(root)
        return found

    def frames(self) -> FrameSource:
        """Return the frames; ``DataError`` or ``BagError`` says what cannot be opened."""
        return open_source(self.path, self.topic, rate=self.rate, stamps=self.stamps)

    def open(self) -> Reader:
        """Return the reader; ``DataError`` or ``BagError`` says what cannot be opened."""
        return _RecordingReader(self)


class _RecordingReader:
    def __init__(self, part: Recording) -> None:
        self._part = part
        self._source = part.frames()
        self.sequence = self._source.sequence
        self._losses: list[str] = []
        self._lost = 0
        self._labelled = 0
        self._names: list[str] = []
        with ExitStack() as stack:
            bag = None
            if self._source.kind == 'bag':
                bag = stack.enter_context(BagReader(part.path))
            self._labels = open_labels(part.labels, part.source, bag)
            self._light = open_light(part.light, bag)
            self._stack = stack.pop_all()

    def __iter__(self) -> Iterator[Item]:
        for name, frame in self._source:
            if isinstance(frame, BagLoss):
                # this stands for any number of frames, so it is none
                self._lose(str(frame))
                continue
            if not self._names:
                self._names.append(name)
            stamp = 0
            if isinstance(frame, Frame):
                stamp = frame.stamp_ns
                labels = self._labels.of(name, stamp)
                self._labelled += labels is not None
            else:
                labels = None
                self._lose(f'{name}: {frame}')
            yield Item(
                name=name, source=self._part.source,
                light=self._light.at(stamp) if isinstance(frame, Frame) else None,
                read=lambda pair=(frame, labels): pair,  # type: ignore[misc]
            )  # fmt: skip

    def _lose(self, text: str) -> None:
        self._lost += 1
        if len(self._losses) < MOST_LOSSES:
            self._losses.append(text)

    def summary(self) -> dict[str, Any]:
        losses = [*self._losses, *self._labels.losses[:MOST_LOSSES]]
        hidden = self._lost - len(self._losses)
        if hidden:
            losses.append(f'… and {hidden} more')
        unused = self._labels.unused()
        if isinstance(self._labels, LabelFolder) and not self._labelled and self._names:
            losses.append(
                f"no label of '{self._part.labels}' belongs to a frame: frames are named "
                f"as '{self._names[0]}', or by their stamp in ns, labels as "
                f"'{self._labels.example()}'"
            )
        return {
            'sequence': self.sequence, 'kind': self._source.kind, 'topic': self._source.topic,
            'losses': losses, 'labels_unused': unused,
        }  # fmt: skip

    def close(self) -> None:
        self._stack.close()


Part: TypeAlias = Pictures | Recording
