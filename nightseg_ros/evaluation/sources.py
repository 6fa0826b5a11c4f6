# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What is to be evaluated: frames with their labels and the true light, cut into shards.

A shard is one camera of one bag, a video, a folder, or some images of a data set: frames that
need no others, so that any process can take it.
"""

from __future__ import annotations

import csv
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeAlias, get_args

import cv2
import numpy as np

from nightseg_ros.bags.reader import IMAGE_TYPES, BagError, BagLoss, BagReader
from nightseg_ros.config import ConfigError
from nightseg_ros.data.datasets import open_dataset
from nightseg_ros.data.sample import DataError, LabelFile, Sample, read_image, read_labels
from nightseg_ros.data.source import FrameSource, camera_names, open_source
from nightseg_ros.evaluation.metrics import Image
from nightseg_ros.evaluation.variants import Configuration
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.illumination import State
from nightseg_ros.taxonomy import Taxonomy

LIGHTS: tuple[State, ...] = get_args(State)
#: Images of a data set in one shard.
IMAGES = 200
#: Read errors that are kept a shard.
MOST_ERRORS = 100
#: Labels that are kept for frames that come a little later than theirs in the bag.
_RECENT = 16
_MONO = ('mono8', '8UC1')
_PNG = b'\x89PNG'


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledFrame:
    """A frame of a shard with what is known about it."""

    name: str
    source: str
    frame: Frame | None
    """None where it could not be read."""
    truth: Image | None = None
    """Ids uint8 [H, W]; None without labels."""
    light: str | None = None
    """The true state of the light; None where it is not known."""
    error: str = ''
    """Why there is no frame."""

    def __post_init__(self) -> None:
        """Refuse labels of another size."""
        if self.frame is None or self.truth is None:
            return
        if self.truth.shape != self.frame.image.shape[:2]:
            (height, width), (tall, wide) = self.truth.shape, self.frame.image.shape[:2]
            raise DataError(
                f"labels of frame '{self.name}' of '{self.source}' are {width}×{height}, "
                f'the frame is {wide}×{tall} pixels'
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageShard:
    """Some images of a data set, each by itself."""

    set: str
    spec: str
    """ADAPTER:ROOT[:SPLIT]."""
    samples: tuple[Sample, ...]

    @property
    def count(self) -> int | None:
        """Frames that will come."""
        return len(self.samples)

    @property
    def sequence(self) -> bool:
        """Whether neighbours follow one another in time."""
        return False

    @property
    def source(self) -> str:
        """The name in the list of sources: that of the data set, which may have many shards."""
        return self.set

    @property
    def files(self) -> list[Path]:
        """Everything that the scores depend on."""
        labels = [sample.label for sample in self.samples if sample.label is not None]
        return [
            *(sample.image for sample in self.samples),
            *(label.path if isinstance(label, LabelFile) else label for label in labels),
        ]

    def read(self, note: dict[str, Any]) -> Iterator[LabelledFrame]:
        """Decode the images; ``DataError`` where one is damaged. See ``SequenceShard.read``."""
        note |= {'topic': None, 'kind': 'dataset', 'losses': [], 'labels_unused': 0}
        for sample in self.samples:
            yield LabelledFrame(
                name=sample.image.stem, source=sample.source, light=sample.light,
                frame=Frame(image=read_image(sample.image), camera=sample.source),
                truth=None if sample.label is None else read_labels(sample.label),
            )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceShard:
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
    def sequence(self) -> bool:
        """Whether neighbours follow one another in time; a plain folder's images do not."""
        return self.frames().sequence

    @property
    def files(self) -> list[Path]:
        """Everything that the scores depend on."""
        others = (self.labels, self.light, self.stamps)
        found: list[Path] = []
        for root in [self.path, *(Path(name) for name in others if name)]:
            if root.is_dir():
                found += sorted(path for path in root.rglob('*') if path.is_file())
            elif root.is_file():
                found.append(root)
        return found

    def frames(self) -> FrameSource:
        """Return the frames; ``DataError`` or ``BagError`` says what cannot be opened."""
        return open_source(self.path, self.topic, rate=self.rate, stamps=self.stamps)

    def read(self, note: dict[str, Any]) -> Iterator[LabelledFrame]:
        """
        Decode the frames and find their labels.

        At the end ``note`` gets the source's 'kind' and 'topic', and 'losses' and 'labels_unused':
        what could not be read, and the number of labels without a frame. ``DataError`` or
        ``BagError`` says what cannot be opened, or which labels are none.
        """
        source = self.frames()
        errors: list[str] = []
        first_name, labelled = '', False
        with ExitStack() as stack:
            bag = None
            if source.kind == 'bag':
                bag = stack.enter_context(BagReader(self.path))
            labels = open_labels(self.labels, self.source, bag)
            light = read_light(self.light, bag)
            for name, found in source:
                if isinstance(found, BagLoss):
                    # this stands for any number of frames, so it is none
                    errors.append(str(found))
                    continue
                first_name = first_name or name
                if not isinstance(found, Frame):
                    errors.append(f'{name}: {found}')
                    yield LabelledFrame(
                        name=name, source=self.source, frame=None, error=str(found)
                    )
                    continue
                truth = None if labels is None else labels.of(name, found.stamp_ns)
                labelled = labelled or truth is not None
                yield LabelledFrame(
                    name=name, source=self.source, frame=found, truth=truth,
                    light=light_at(light, found.stamp_ns),
                )  # fmt: skip
            unused = 0 if labels is None else labels.unused()
        shown = errors[:MOST_ERRORS]
        if labels is not None:
            shown += labels.errors[:MOST_ERRORS]
        if len(errors) > MOST_ERRORS:
            shown.append(f'… and {len(errors) - MOST_ERRORS} more')
        if isinstance(labels, LabelFolder) and first_name and not labelled:
            shown.append(
                f"no label of '{self.labels}' belongs to a frame: frames are named as "
                f"'{first_name}', or by their stamp in ns, labels as '{labels.example}'"
            )
        note |= {
            'topic': source.topic, 'kind': source.kind, 'losses': shown, 'labels_unused': unused,
        }  # fmt: skip


Shard: TypeAlias = ImageShard | SequenceShard


class LabelFolder:
    """PNG files of ids, named as the frame (``000123``, ``street_4``) or by its stamp in ns."""

    def __init__(self, folder: Path) -> None:
        """List the folder; ``DataError`` where it holds no PNG."""
        self.errors: list[str] = []
        self._files = {path.stem: path for path in sorted(folder.glob('*.png'))}
        if not self._files:
            raise DataError(f"'{folder}' holds no labels; PNG files of ids are wanted")
        self._used: set[str] = set()
        self.example = next(iter(self._files.values())).name
        """The name of a file, for a message."""

    def of(self, name: str, stamp_ns: int) -> Image | None:
        """Return the ids of a frame or None; ``DataError`` where the file is no label image."""
        for stem in (name, str(stamp_ns)):
            if stem in self._files:
                self._used.add(stem)
                return read_labels(self._files[stem])
        return None

    def unused(self) -> int:
        """Count the labels that no frame asked for."""
        return len(self._files) - len(self._used)


class LabelTopic:
    """Ids in a topic of the bag: mono8 images, or PNGs in CompressedImage, by header stamp."""

    def __init__(self, bag: BagReader, topic: str) -> None:
        """Find the topic; ``BagError`` lists the bag's topics where it has none such."""
        self.errors: list[str] = []
        """What could not be read, and why."""
        self._bag = bag
        self._topic = topic
        self._read = self._labels()
        self._next = next(self._read, None)
        self._recent: OrderedDict[int, Image] = OrderedDict()
        self._unused = 0

    def of(self, name: str, stamp_ns: int) -> Image | None:
        """Return the ids uint8 [H, W] of a frame, or None; stamps must not fall."""
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
        """Count the labels that no frame asked for; only known at the end."""
        rest = sum(1 for _ in self._read)
        return self._unused + len(self._recent) + rest + (self._next is not None)

    def _labels(self) -> Iterator[tuple[int, Image]]:
        topic = self._bag.image_topic(self._topic)
        for number, message in enumerate(self._bag.messages(topic)):
            try:
                content = self._bag.read(message)
            except BagError as error:
                self.errors.append(f"labels '{topic.name}', message {number}: {error}")
                continue
            labels = decode_labels(content, message.channel.type == IMAGE_TYPES[1], topic.name)
            yield message.stamp_ns, labels
        loss = self._bag.loss([topic])
        if loss is not None:
            self.errors.append(f"labels '{topic.name}': {loss}")


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


def open_labels(
    labels: str, source: str, bag: BagReader | None
) -> LabelFolder | LabelTopic | None:
    """
    Return the labels named by a folder or a topic, None for ''.

    A folder may have one folder a source (by its name) inside. ``DataError`` or ``BagError`` says
    what is missing.
    """
    if not labels:
        return None
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


def read_light(light: str, bag: BagReader | None) -> list[tuple[int, State]]:
    """
    Return (stamp in ns, state from there on) as a state, a CSV file or a topic tells; [] for ''.

    The CSV has lines ``stamp,state``: the state holds from that stamp (ns) on; a first line of
    names is skipped. The topic is of std_msgs/String, each message a state from when it was
    recorded. ``DataError`` names what is none of these.
    """
    if not light:
        return []
    if light in LIGHTS:
        return [(-(1 << 62), _state(light, light))]
    path = Path(light)
    if path.is_file():
        return sorted(_read_csv(path))
    for topic in () if bag is None else bag.topics:
        if bag is not None and topic.name == light and topic.type == 'std_msgs/msg/String':
            return sorted(
                (message.received_ns, _state(bag.read(message).data, light))
                for message in bag.messages(topic)
            )
    raise DataError(
        f"'{light}' tells no light: give one of {', '.join(LIGHTS)}, a CSV file of stamp,state, "
        'or a topic of std_msgs/String'
    )


def light_at(steps: Sequence[tuple[int, State]], stamp_ns: int) -> State | None:
    """Return the state at a stamp; None before the first one."""
    index = bisect_right(steps, stamp_ns, key=lambda step: step[0]) - 1
    return steps[index][1] if index >= 0 else None


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Every shard, and the configurations that each frame goes through."""

    configurations: tuple[Configuration, ...]
    shards: tuple[Shard, ...]
    save_labels: bool = False

    def __post_init__(self) -> None:
        """Refuse to save masks that would overwrite one another: they are named by image."""
        if not self.save_labels:
            return
        names = Counter(
            (shard.set, sample.image.stem)
            for shard in self.shards
            if isinstance(shard, ImageShard)
            for sample in shard.samples
        )
        for (name, stem), times in names.items():
            if times > 1:
                raise ConfigError(
                    f"{times} pictures of '{name}' are called '{stem}', so that their masks would "
                    'overwrite one another; rename them, or leave --save-labels out'
                )

    def sets(self) -> dict[str, list[int]]:
        """Return the numbers of the shards of each set."""
        found: dict[str, list[int]] = {}
        for number, shard in enumerate(self.shards):
            found.setdefault(shard.set, []).append(number)
        return found

    def run_names(self, set_name: str) -> list[str]:
        """Return the names that a set's scores get, one a configuration."""
        return [
            f'{set_name}/{item.name}' if item.name else set_name for item in self.configurations
        ]


def dataset_shards(
    specs: Sequence[str], taxonomy: Taxonomy, sources: Sequence[str] = ()
) -> list[Shard]:
    """
    Return the shards of data sets ``ADAPTER:ROOT[:SPLIT]``, labelled in ``taxonomy``.

    ``sources`` are ``PATTERN=NAME``: an image whose name (without suffix) fits the pattern is
    of that source, the first pattern wins; others keep the data set's. ``DataError`` says what
    is wrong with a data set.
    """
    patterns = [text.rpartition('=')[::2] for text in sources]
    for text, pair in zip(sources, patterns):
        if not all(pair):
            raise ConfigError(f"--sources '{text}' is no PATTERN=NAME, such as 'front_*=front'")
    shards: list[Shard] = []
    names: Counter[str] = Counter()
    for spec in specs:
        samples = []
        for sample in open_dataset(spec, taxonomy):
            fits = (name for pattern, name in patterns if fnmatchcase(sample.image.stem, pattern))
            samples.append(replace(sample, source=next(fits, sample.source)))
        # the last folder and the split are what people call it
        name = Path(spec.partition(':')[2]).name
        names[name] += 1
        if names[name] > 1:
            name = f'{name} ({names[name]})'
        shards += [
            ImageShard(set=name, spec=spec, samples=tuple(samples[start : start + IMAGES]))
            for start in range(0, len(samples), IMAGES)
        ]
    return shards


def sequence_shards(
    sources: Sequence[Path],
    *,
    topics: Sequence[str] = (),
    labels: Sequence[str] = (),
    light: str = '',
    rate: float | None = None,
    stamps: Path | None = None,
    name: str = '',
) -> list[Shard]:
    """
    Return a shard for each source, or for each camera of each bag.

    Without ``topics`` every camera of a bag is taken. ``labels`` is one folder or topic for all,
    or one for each topic. ``DataError`` and ``BagError`` say what cannot be opened,
    ``ConfigError`` what contradicts itself.
    """
    if not sources:
        return []
    if len(labels) > 1 and len(labels) != len(topics):
        raise ConfigError(
            f'{len(labels)} --labels came with {len(topics)} --topic; give one for all, or one '
            'for each topic'
        )
    names = _names(sources)
    shards: list[Shard] = []
    for path in sources:
        found: Sequence[str | None] = topics
        if not topics:
            source = open_source(path, rate=rate, stamps=stamps, every_camera=True)
            found = source.topics or (None,)
        cameras = camera_names(tuple(topic for topic in found if topic is not None))
        for number, topic in enumerate(found):
            shard = SequenceShard(
                set=name or (names[sources[0]] if len(sources) == 1 else 'recordings'),
                source=names[path] if len(found) == 1 else f'{names[path]}:{cameras[topic or ""]}',
                path=path,
                topic=topic,
                rate=rate,
                stamps=stamps,
                labels=labels[number if len(labels) > 1 else 0] if labels else '',
                light=light,
            )
            # what cannot be opened is told before anything is computed
            shard.frames()
            shards.append(shard)
    return shards


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the shortest tails of the paths that tell them apart, without suffix."""
    if len(set(paths)) < len(paths):
        raise ConfigError('a source is given twice')
    for depth in range(1, 1 + max(len(path.absolute().parts) for path in paths)):
        names = {path: '/'.join(path.absolute().with_suffix('').parts[-depth:]) for path in paths}
        if len(set(names.values())) == len(paths):
            return names
    return {path: str(path) for path in paths}
