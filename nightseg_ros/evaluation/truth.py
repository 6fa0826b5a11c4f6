# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What is known about recorded frames: their labels, and how light it really was."""

from __future__ import annotations

import csv
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, get_args

import cv2
import numpy as np
import numpy.typing as npt

from nightseg_ros.bags.reader import IMAGE_TYPES, BagError, BagReader
from nightseg_ros.data.sample import DataError, read_labels
from nightseg_ros.perception.illumination import State

Image = npt.NDArray[np.uint8]

LIGHTS: tuple[State, ...] = get_args(State)
#: Labels that are kept for frames that come a little later than theirs in the bag.
_RECENT = 16
_MONO = ('mono8', '8UC1')
_PNG = b'\x89PNG'


class Labels(Protocol):
    """Where the labels of a recording lie."""

    losses: list[str]
    """What could not be read, and why."""

    def of(self, name: str, stamp_ns: int) -> Image | None:
        """Return the ids uint8 [H, W] of a frame, or None; stamps must not fall."""

    def unused(self) -> int:
        """Count the labels that no frame asked for; only known at the end."""


class NoLabels:
    """A recording without labels."""

    def __init__(self) -> None:
        """Nothing can be lost."""
        self.losses: list[str] = []

    def of(self, name: str, stamp_ns: int) -> Image | None:
        """See ``Labels``."""
        return None

    def unused(self) -> int:
        """See ``Labels``."""
        return 0


class LabelFolder:
    """PNG files of ids, named as the frame (``000123``, ``street_4``) or by its stamp in ns."""

    def __init__(self, folder: Path) -> None:
        """List the folder; ``DataError`` where it holds no PNG."""
        self.losses: list[str] = []
        self._files = {path.stem: path for path in sorted(folder.glob('*.png'))}
        if not self._files:
            raise DataError(f"'{folder}' holds no labels; PNG files of ids are wanted")
        self._used: set[str] = set()

    def of(self, name: str, stamp_ns: int) -> Image | None:
        """See ``Labels``; ``DataError`` where the file is no label image."""
        for stem in (name, str(stamp_ns)):
            if stem in self._files:
                self._used.add(stem)
                return read_labels(self._files[stem])
        return None

    def unused(self) -> int:
        """See ``Labels``."""
        return len(self._files) - len(self._used)

    def example(self) -> str:
        """Return the name of a file, for a message."""
        return next(iter(self._files.values())).name


class LabelTopic:
    """Ids in a topic of the bag: mono8 images, or PNGs in CompressedImage, by header stamp."""

    def __init__(self, bag: BagReader, topic: str) -> None:
        """Find the topic; ``BagError`` lists the bag's topics where it has none such."""
        self.losses: list[str] = []
        self._topic = topic
        self._bag = bag
        self._read = self._labels()
        self._next = next(self._read, None)
        self._recent: OrderedDict[int, Image] = OrderedDict()
        self._unused = 0

    def of(self, name: str, stamp_ns: int) -> Image | None:
        """See ``Labels``."""
        while self._next is not None and self._next[0] <= stamp_ns:
            stamp, labels = self._next
            self._recent[stamp] = labels
            self._next = next(self._read, None)
        found = self._recent.pop(stamp_ns, None)
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
            self._unused += 1
        return found

    def unused(self) -> int:
        """See ``Labels``."""
        rest = sum(1 for _ in self._read)
        return self._unused + len(self._recent) + rest + (self._next is not None)

    def _labels(self) -> Iterator[tuple[int, Image]]:
        topic = self._bag.image_topic(self._topic)
        for number, message in enumerate(self._bag.messages(topic)):
            try:
                content = self._bag.read(message)
            except BagError as error:
                self.losses.append(f"labels '{topic.name}', message {number}: {error}")
                continue
            labels = decode_labels(content, message.type == IMAGE_TYPES[1], topic.name)
            yield message.stamp_ns, labels
        loss = self._bag.loss([topic])
        if loss is not None:
            self.losses.append(f"labels '{topic.name}': {loss}")


def decode_labels(message: Any, compressed: bool, topic: str) -> Image:
    """
    Return the ids uint8 [H, W] of an Image (mono8) or a CompressedImage (PNG).

    ``DataError`` for what is no image of ids: colour, a JPEG (which changes ids), a wrong length.
    """
    if compressed:
        content = bytes(message.data)
        if not content.startswith(_PNG):
            raise DataError(
                f"'{topic}' holds '{message.format}'; labels are PNG, since others change ids"
            )
        labels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if labels is None or labels.ndim != 2 or labels.dtype != np.uint8:
            raise DataError(f"'{topic}' holds a PNG that is no single-channel image of 8 bits")
        return np.asarray(labels, np.uint8)
    if message.encoding not in _MONO:
        raise DataError(f"'{topic}' is {message.encoding}; labels are {' or '.join(_MONO)}")
    data = np.frombuffer(message.data, np.uint8)
    height, width, step = int(message.height), int(message.width), int(message.step)
    if step < width or data.size != step * height or not data.size:
        raise DataError(
            f"'{topic}': {data.size} bytes are no {width}×{height} labels with a step of {step}"
        )
    return np.ascontiguousarray(data.reshape(height, step)[:, :width])


def open_labels(labels: str, source: str, bag: BagReader | None) -> Labels:
    """
    Return the labels named by a folder or a topic, '' for none.

    A folder may have one folder a source (by its name) inside. ``DataError`` or ``BagError`` says
    what is missing.
    """
    if not labels:
        return NoLabels()
    folder = Path(labels)
    if folder.is_dir():
        inner = folder / source
        return LabelFolder(inner if inner.is_dir() else folder)
    if bag is None:
        raise DataError(f"there is no folder '{labels}' with labels; a topic needs a bag")
    try:
        return LabelTopic(bag, labels)
    except BagError as error:
        raise DataError(f"labels '{labels}' are no folder, and {error}") from error


class Light:
    """The true state of the light over time; None where it is not known."""

    def __init__(self, steps: list[tuple[int, State]]) -> None:
        """Take (stamp in ns, state from there on) in the order of the stamps."""
        self._stamps = [stamp for stamp, _ in steps]
        self._states = [state for _, state in steps]

    def at(self, stamp_ns: int) -> State | None:
        """Return the state at a stamp; None before the first one."""
        index = bisect_right(self._stamps, stamp_ns) - 1
        return self._states[index] if index >= 0 else None


def open_light(light: str, bag: BagReader | None) -> Light:
    """
    Return the light named by a state, a CSV file or a topic; '' for unknown.

    The CSV has lines ``stamp,state``: the state holds from that stamp (ns) on; a first line of
    names is skipped. The topic is of std_msgs/String, each message a state from when it was
    recorded. ``DataError`` names what is none of these.
    """
    if not light:
        return Light([])
    if light in LIGHTS:
        return Light([(-(1 << 62), _state(light, light))])
    path = Path(light)
    if path.is_file():
        return Light(sorted(_read_csv(path)))
    if bag is not None:
        for topic in bag.topics:
            if topic.name == light and topic.type == 'std_msgs/msg/String':
                return Light(
                    sorted(
                        (message.received_ns, _state(bag.read(message).data, light))
                        for message in bag.messages(topic)
                    )
                )
    raise DataError(
        f"'{light}' tells no light: give one of {', '.join(LIGHTS)}, a CSV file of stamp,state, "
        'or a topic of std_msgs/String'
    )


def _read_csv(path: Path) -> Iterator[tuple[int, State]]:
    with path.open(newline='', encoding='utf-8') as file:
        for number, row in enumerate(csv.reader(file), 1):
            if not row or (number == 1 and not row[0].strip().lstrip('-').isdigit()):
                continue
            try:
                stamp, state = row
                yield int(stamp), _state(state.strip(), str(path))
            except ValueError as error:
                raise DataError(
                    f"'{path}', line {number}: {','.join(row)!r} is no stamp,state"
                ) from error


def _state(word: str, where: str) -> State:
    for state in LIGHTS:
        if word == state:
            return state
    raise DataError(f"'{where}': '{word}' is no state; there are {', '.join(LIGHTS)}")
