# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What is to be evaluated: frames with their labels and the true light, cut into shards.

A shard is one camera of one bag, a video, a folder, or some images of a data set: frames that
need no others, so that any process can take it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
import csv
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
import math
from pathlib import Path
from typing import Any, get_args
from unicodedata import normalize

import cv2
from nightseg_ros.bags.reader import BagError, BagReader, BagReadError
from nightseg_ros.config import ConfigError
from nightseg_ros.data.datasets import open_dataset, own_encoding
from nightseg_ros.data.sample import (
    DataError,
    decode_stored,
    label_files,
    label_map,
    LabelFile,
    LabelMap,
    read_image,
    read_labels,
    Sample,
)
from nightseg_ros.data.source import camera_names, FrameSource, open_source
from nightseg_ros.evaluation.metrics import Image
from nightseg_ros.files import read_text
from nightseg_ros.perception.frame import decode_raw, Frame, FrameError
from nightseg_ros.perception.illumination import State
from nightseg_ros.perception.video import SET_BACK_NS
from nightseg_ros.taxonomy import Taxonomy
import numpy as np

LIGHTS: tuple[str, ...] = get_args(State)
#: Images of a data set in one shard.
IMAGES = 200
#: A stamp that is further ahead of the last one (ns) may be that of one frame alone.
_AHEAD_NS = 10_000_000_000
#: Labels that are searched where stamps jump.
_LABELS_AHEAD = 32
#: Read errors that are kept a shard.
MOST_ERRORS = 100


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


def in_rgb(frame: Frame) -> Image:
    if frame.order == 'rgb':
        return frame.image
    return np.asarray(cv2.cvtColor(frame.image, cv2.COLOR_BGR2RGB), np.uint8)


# -- shards ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """Images of a data set, each by itself, or a camera's frames in the order of their stamps."""

    set_name: str
    source: str
    """The name in the list of sources; of a data set its own, which may have many shards."""
    path: str
    """Where the frames lie, or ADAPTER:ROOT[:SPLIT]."""
    samples: tuple[Sample, ...] = ()
    """The images of a data set."""
    frames: FrameSource | None = None
    """One topic of a bag, a video or a folder."""
    labels: str = ''
    """A folder or a topic for ``frames``; '' for none."""
    taxonomy: Taxonomy | None = None
    """What the ids of a folder with a taxonomy.json become; others are taken as they are."""
    light: str = ''
    """A state, a CSV file or a topic for ``frames``; '' for unknown."""
    inputs: tuple[Path, ...] = ()
    """Files and folders that no result may replace."""

    @property
    def count(self) -> int | None:
        """Frames that will come; None where nobody knows."""
        return len(self.samples) if self.frames is None else self.frames.count

    @property
    def sequence(self) -> bool:
        """Whether neighbours follow one another in time; a plain folder's images do not."""
        return self.frames is not None and self.frames.sequence

    def files(self) -> list[Path]:
        """Return everything that the scores depend on."""
        found = [sample.image for sample in self.samples]
        found += [sample.label.path for sample in self.samples if sample.label is not None]
        for root in self.inputs if self.frames is not None else ():
            inside = root.rglob('*') if root.is_dir() else [root]
            found += sorted(path for path in inside if path.is_file())
        return found

    def open_labels(self) -> tuple[Labels, list[tuple[int, str]]]:
        """Open labels and light of ``frames``; ``DataError`` or ``BagError`` for what is none."""
        assert self.frames is not None
        if self.light not in ('', *LIGHTS) and not self.sequence:
            remedy = 'a state' if self.frames.kind == 'image' else '--rate or --stamps, or a state'
            raise DataError(
                f"'{self.path}' holds pictures without a time, of which '{self.light}' tells no "
                f'light: give {remedy}'
            )
        needed = self.frames.kind == 'bag' and (self.labels or self.light)
        bag = BagReader(self.frames.path) if needed else None
        labels = Labels(self.labels, self.source, bag, self.taxonomy)
        return labels, read_light(self.light, bag)

    def claims(self, alone: bool) -> list[str]:
        """
        Return the labels that it will take, as far as that is known before it is read.

        ``alone`` says whether one --labels was given for all sources.
        """
        labels, frames = self.open_labels()[0], self.frames
        assert frames is not None
        if frames.kind in ('folder', 'image'):
            files = frames.path.iterdir() if frames.kind == 'folder' else [frames.path]
            taken = {normalize('NFC', path.stem) for path in files}
        else:
            numbers = {stem for stem in labels.files if stem.isdecimal()}
            most = math.inf if frames.count is None else frames.count
            taken = {stem for stem in numbers if len(stem) == 6 and int(stem) < most}
            if frames.kind == 'video':
                # the stamps of all videos begin at 0
                taken |= {stem for stem in numbers if len(stem) != 6}
        found = [str(path) for stem, path in labels.files.items() if stem in taken]
        # a topic, or stamps, may be those of another camera of the bag
        shared = frames.kind == 'bag' and self.labels != '' and alone
        return found + [f'{labels.place} of {self.path}'] * shared

    def read(self, note: dict[str, Any]) -> Generator[LabelledFrame, None, None]:
        """
        Decode the frames and find their labels.

        At the end ``note`` has 'losses', 'labels_unused' and 'labels': what could not be read, the
        number of labels without a frame, and the files of those with one. ``DataError`` or
        ``BagError`` says what cannot be opened, which image of a data set is damaged, or which
        labels are none.
        """
        note |= {'losses': [], 'labels_unused': 0, 'labels': []}
        for sample in self.samples:
            yield LabelledFrame(
                name=sample.image.stem, source=sample.source, light=sample.light,
                frame=Frame(image=read_image(sample.image), camera=sample.source),
                truth=None if sample.label is None else read_labels(sample.label),
            )  # fmt: skip
        if self.frames is not None:
            yield from self._read_sequence(self.frames, note)

    def _read_sequence(self, frames: FrameSource, note: dict[str, Any]) -> Iterator[LabelledFrame]:
        errors: list[str] = []
        first_name = ''
        labels, light = self.open_labels()
        for name, found in frames:
            if isinstance(found, BagReadError):
                # this stands for any number of frames, so it is none
                errors.append(str(found))
                continue
            first_name = first_name or name
            if not isinstance(found, Frame):
                errors.append(f'{name}: {found}')
                yield LabelledFrame(name=name, source=self.source, frame=None, error=str(found))
                continue
            # pictures of a plain folder have no time
            stems = (name, str(found.stamp_ns)) if self.sequence else (name,)
            truth = labels.of(found.stamp_ns, *stems)
            yield LabelledFrame(
                name=name, source=self.source, frame=found, truth=truth,
                light=light_at(light, found.stamp_ns),
            )  # fmt: skip
        note['labels_unused'] = labels.unused()
        note['labels'] = sorted(map(str, labels.used))
        errors += labels.errors
        note['losses'] = errors[:MOST_ERRORS]
        if len(errors) > MOST_ERRORS:
            note['losses'].append(f'… and {len(errors) - MOST_ERRORS} more')
        if labels.files and first_name and not labels.used:
            example = min(labels.files.values()).name
            note['losses'].append(
                f"no label of '{self.labels}' belongs to a frame: frames are named as "
                f"'{first_name}', or by their stamp in ns, labels as '{example}'"
            )


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
        name = Path(spec.partition(':')[2]).absolute().name
        names[name] += 1
        if names[name] > 1:
            name = f'{name} ({names[name]})'
        for start in range(0, len(samples), IMAGES):
            some = tuple(samples[start:][:IMAGES])
            shard = Shard(set_name=name, source=name, path=spec, samples=some)
            folders = {path.parent for path in shard.files()}
            shards.append(replace(shard, inputs=tuple(sorted(folders))))
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
    taxonomy: Taxonomy | None = None,
) -> list[Shard]:
    """
    Return a shard for each source, or for each camera of each bag.

    Without ``topics`` every camera of a bag is taken. ``labels`` is one folder or topic for all,
    or one for each topic; a taxonomy.json in a folder says what its ids mean, which become those
    of ``taxonomy``. ``DataError`` and ``BagError`` say what cannot be opened,
    ``ConfigError`` what contradicts itself or has no effect.
    """
    if len(labels) > 1 and len(labels) != len(topics):
        raise ConfigError(
            f'{len(labels)} --labels came with {len(topics)} --topic; give one for all, or one '
            'for each topic'
        )
    names = _names(sources)
    shards: list[Shard] = []
    for path in sources:
        if topics:
            found = [open_source(path, topic, rate=rate, stamps=stamps) for topic in topics]
        else:
            every = open_source(path, rate=rate, stamps=stamps, every_camera=True)
            found = [replace(open_source(path, topic), note=every.note) for topic in every.topics]
            found = found or [every]
        cameras = camera_names(tuple(frames.topic for frames in found if frames.topic))
        if len(cameras) < len(found) > 1:
            raise ConfigError(f"one topic of '{path}' is given twice")
        for number, frames in enumerate(found):
            camera = '' if len(found) == 1 else f':{cameras[frames.topic or ""]}'
            own = labels[number if len(labels) > 1 else 0] if labels else ''
            # a topic is no path, and exists as none
            known = '' if light in LIGHTS else light
            meaning = _own_taxonomy(Path(own), names[path] + camera) if own else None
            given = [Path(text) for text in (own, known, stamps, meaning) if text]
            shard = Shard(
                set_name=name or (names[path] if len(sources) == 1 else 'recordings'),
                source=names[path] + camera, path=str(path), labels=own, taxonomy=taxonomy,
                light=light, frames=frames, inputs=(path, *given),
            )  # fmt: skip
            shards.append(shard)
    kinds = {shard.frames.kind for shard in shards if shard.frames}
    if rate is not None and not kinds - {'bag', 'image'}:
        raise ConfigError('--rate is of folders and videos, of which none is given')
    # what is missing is said before anything is evaluated, too
    refuse_shared((shard.source, shard.claims(len(labels) == 1)) for shard in shards)
    return shards


def refuse_shared(claims: Iterable[tuple[str, Iterable[str]]]) -> None:
    """Raise ``ConfigError`` for a label that two sources take, each with the labels it takes."""
    taken: dict[str, str] = {}
    for source, labels in claims:
        for label in labels:
            other = taken.setdefault(label, source)
            if other != source:
                raise ConfigError(
                    f"'{other}' and '{source}' would take the same labels, '{label}': put those "
                    'of each into a folder SOURCE in that of the labels, or name one with --topic'
                )


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the shortest tails of the paths that tell them apart, without suffix."""
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError('a source is given twice')
    whole = {path: path.absolute() for path in paths}
    # only a file's name has a suffix
    whole = {path: p if p.is_dir() else p.with_suffix('') for path, p in whole.items()}
    for depth in range(1, 1 + max((len(p.parts) for p in whole.values()), default=0)):
        names = {path: '/'.join(p.parts[-depth:]) for path, p in whole.items()}
        if len(set(names.values())) == len(paths):
            return names
    # below the folder of labels an absolute one would lead elsewhere
    return {path: str(path.absolute()).lstrip('/') for path in paths}


# -- labels ----------------------------------------------------------------------------------


def _own_taxonomy(labels: Path, source: str) -> Path | None:
    """Return what says what the ids mean: with the labels, or beside a folder called labels."""
    places = [labels / source, labels, *[labels.parent] * (labels.name == 'labels')]
    return next((f for place in places if (f := place / 'taxonomy.json').is_file()), None)


class Labels:
    """
    The labels of a sequence.

    They are PNG files of ids, named as the frame (``000123``, ``street_4``) or by its stamp in ns,
    or ids in a topic of the bag by header stamp: mono8 images, or PNGs in CompressedImage.
    """

    def __init__(
        self, labels: str, source: str, bag: BagReader | None, taxonomy: Taxonomy | None = None
    ) -> None:
        """Open a folder, or that of the source in it, a topic, or ''; or raise ``DataError``."""
        self.errors: list[str] = []
        """What could not be read, and why."""
        self.used: set[Path] = set()
        """The files that frames asked for."""
        self.files: dict[str, Path] = {}
        """By stem."""
        self._meaning: LabelMap | None = None
        self._messages: Iterator[tuple[int, Image]] = iter(())
        #: Labels by stamp that were read and that no frame has asked for yet.
        self._ahead: dict[int, Image] = {}
        self._last_ns = 0
        self._passed = 0
        folder = Path(labels)
        self.place = labels
        """The topic or the folder."""
        if labels and folder.is_dir():
            folder = next(place for place in (folder / source, folder) if place.is_dir())
            self.place, self.files = str(folder), label_files(folder)
            if not self.files:
                raise DataError(f"'{folder}' holds no labels; PNG files of ids are wanted")
            if taxonomy is not None and (file := _own_taxonomy(Path(labels), source)):
                self._meaning = label_map(own_encoding(file.parent, taxonomy), taxonomy)
        elif labels and bag is None:
            raise DataError(f"there is no folder '{labels}' with labels; a topic needs a bag")
        elif labels and bag is not None:
            try:
                name = bag.image_topic(labels).name
            except BagError as error:
                raise DataError(f"labels '{labels}' are no folder, and {error}") from error
            self._messages = topic_labels(bag, name, self.errors)

    def of(self, stamp_ns: int, *names: str) -> Image | None:
        """
        Return the ids uint8 [H, W] of a frame, or None; frames come as they were recorded.

        A file may have any of ``names``, the first of them wins.
        """
        for name in names:
            if path := self.files.get(normalize('NFC', name)):
                self.used.add(path)
                return read_labels(LabelFile(path, self._meaning) if self._meaning else path)
        step, self._last_ns = stamp_ns - (self._last_ns or stamp_ns), stamp_ns
        jumped = not -SET_BACK_NS <= step <= _AHEAD_NS
        while stamp_ns not in self._ahead:
            first = next(iter(self._ahead), stamp_ns)
            if first < stamp_ns and not jumped:
                del self._ahead[first]
                self._passed += 1
                continue
            # one much further ahead may be of before the clock was set
            if 0 < first - stamp_ns < SET_BACK_NS or len(self._ahead) >= _LABELS_AHEAD:
                return None
            item = next(self._messages, None)
            if item is None:
                return None
            self._ahead[item[0]] = item[1]
        return self._ahead.pop(stamp_ns)

    def unused(self) -> int:
        """Count the labels that no frame asked for; only known at the end."""
        rest = len(self._ahead) + sum(1 for _ in self._messages)
        return len(self.files) - len(self.used) + self._passed + rest


def topic_labels(bag: BagReader, name: str, errors: list[str]) -> Iterator[tuple[int, Image]]:
    """
    Yield stamp (ns) and ids uint8 [H, W] of an image topic, in the order of the stamps.

    ``errors`` gets what cannot be read; ``DataError`` for what is no image of ids: colour, a JPEG
    (which changes ids), a wrong length.
    """
    topic = bag.image_topic(name)
    for number, message in enumerate(bag.messages(topic)):
        try:
            content = bag.read(message)
        except BagError as error:
            errors.append(f"labels '{name}', message {number}: {error}")
            continue
        yield message.stamp_ns, _decode_labels(content, name)
    unread = bag.read_error([topic])
    if unread is not None:
        errors.append(f"labels '{name}': {unread}")


def _decode_labels(message: Any, topic: str) -> Image:
    if hasattr(message, 'format'):
        return decode_stored(bytes(message.data), topic, color=False)
    if message.encoding not in ('mono8', '8UC1'):
        raise DataError(f"'{topic}' is {message.encoding}; labels are mono8 or 8UC1")
    try:
        image, _ = decode_raw(
            message.data, encoding='mono8', width=message.width, height=message.height,
            step=message.step,
        )  # fmt: skip
    except FrameError as error:
        raise DataError(f"labels '{topic}': {error}") from error
    return np.ascontiguousarray(image[..., 0])


# -- true light ------------------------------------------------------------------------------


def read_light(light: str, bag: BagReader | None) -> list[tuple[int, str]]:
    """
    Return (stamp in ns, state from there on) as a state, a CSV file or a topic tells; [] for ''.

    The CSV has lines ``stamp,state``: the state holds from that stamp (ns) on; a first line of
    names is skipped. The topic is of std_msgs/String, each message a state from when it was
    recorded. ``DataError`` names what is none of these.
    """
    if light in ('', *LIGHTS):
        return [(-(1 << 62), light)] if light else []
    path = Path(light)
    if path.is_file():
        steps = list(_read_csv(path))
    else:
        topics = [
            topic
            for topic in ([] if bag is None else bag.topics)
            if topic.name == light and topic.msgtype == 'std_msgs/msg/String'
        ]
        if bag is None or not topics:
            raise DataError(
                f"'{light}' tells no light: give one of {', '.join(LIGHTS)}, a CSV file of "
                'stamp,state, or a topic of std_msgs/String'
            )
        steps = [(item.received_ns, bag.read(item).data) for item in bag.messages(topics[0])]
    for _, state in steps:
        if state not in LIGHTS:
            raise DataError(f"'{light}': '{state}' is no state; there are {', '.join(LIGHTS)}")
    return sorted(steps)


def light_at(steps: Sequence[tuple[int, str]], stamp_ns: int) -> str | None:
    """Return the state at a stamp; None before the first one."""
    index = bisect_right(steps, stamp_ns, key=lambda step: step[0]) - 1
    return steps[index][1] if index >= 0 else None


def _read_csv(path: Path) -> Iterator[tuple[int, str]]:
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' cannot be read: {error}") from error
    # spreadsheets of many countries part by semicolons
    delimiter = ';' if any(';' in line for line in lines) else ','
    for number, row in enumerate(csv.reader(lines, delimiter=delimiter), 1):
        names = number == 1 and row and row[-1].strip() not in LIGHTS
        if not row or (names and not row[0].strip().lstrip('-').isdigit()):
            continue
        try:
            stamp, state = row
            yield int(stamp), state.strip()
        except ValueError as error:
            raise DataError(
                f"'{path}', line {number}: {','.join(row)!r} is no stamp,state"
            ) from error
