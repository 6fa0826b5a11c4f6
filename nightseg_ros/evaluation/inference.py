# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
One shard of an evaluation, frame by frame: decoding, networks and counting side by side.

Nothing is dropped and nothing is batched: each frame goes through the pipeline by itself as in a
node that keeps up, so that labels are the live ones byte for byte.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
import hashlib
import json
import math
from pathlib import Path
import time
from typing import Any, NamedTuple, TypeVar
import zipfile

import cv2
from nightseg_ros.data.pictures import encode_picture
from nightseg_ros.data.sample import DataError
from nightseg_ros.evaluation import metrics
from nightseg_ros.evaluation.metrics import Counts, Image, number
from nightseg_ros.evaluation.sources import in_rgb, LabelledFrame, Shard
from nightseg_ros.evaluation.variants import Variants
from nightseg_ros.files import partial_file
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.result import Result
from nightseg_ros.taxonomy import Taxonomy, UNLABELLED
import numpy as np

T = TypeVar('T')

#: Frames that wait before and behind the networks; more would only take memory.
DEPTH = 4
#: Frames of each kind in a report; without labels there are evenly spread ones.
SHOWN = {'best': 3, 'worst': 3, 'median': 3, 'different': 2}
SPREAD = 6
#: Most frames of a lattice; from it come the median and the spread ones.
_LATTICE = 16
#: Frames of a drive in one moment look the same.
MOMENT_NS = 2_000_000_000
#: A line of frames.jsonl behind 'run', as far as it is of no frame.
_LINE: dict[str, Any] = dict.fromkeys((
    'source', 'camera', 'frame', 'stamp', 'size', 'score', 'estimate', 'state', 'route',
    'reason', 'switched', 'light', 'labelled', 'miou', 'pixel_acc', 'confidence',
    'reliability', 'flicker', 'flicker_warped', 'labels_sha256', 'ms', 'error',
)) | {'switched': False, 'labelled': 0}  # fmt: skip


def evaluate_shard(
    shard: Shard,
    variants: Variants,
    path: Path,
    *,
    save_labels: bool = False,
    advance: Callable[[int], None] = lambda done: None,
) -> None:
    """
    Run a shard's frames through every configuration and write what came out to ``path``.

    The file appears when the shard is finished; ``FinishedShard`` reads it. ``advance`` hears how
    many frames are done. ``DataError`` and ``BagError`` say what cannot be read.
    """
    variants = variants.fresh()
    note: dict[str, Any] = {}
    pending: deque[Future[None]] = deque()
    done = 0

    def wait(most: int = 0) -> None:
        nonlocal done
        while len(pending) > most:
            pending.popleft().result()
            done += 1
            advance(done)

    with (
        partial_file(path) as partial,
        zipfile.ZipFile(partial, 'w') as archive,
        closing(prefetch(shard.read(note))) as reads,
        ThreadPoolExecutor(variants.streams, 'network') as networks,
        ThreadPoolExecutor(1, 'metrics') as counting,
    ):
        counter = _Counter(archive, variants, shard.sequence, save_labels)
        for read, decode_ms in reads:
            labelled = None
            if read.frame is not None:
                variants.warm_up(read.frame.image.shape[:2], wait)
                counter.last = counter.last or time.perf_counter()
                decided = variants.decide(read.frame, alone=not shard.sequence)
                labelled = networks.submit(variants.label, decided)
            pending.append(counting.submit(counter.add, read, decode_ms, labelled))
            # a slow frame leaves the other streams something to do
            wait(2 * variants.streams - 1 + DEPTH)
        wait()
        counter.finish(note)


def prefetch(
    items: Generator[T, None, None], depth: int = DEPTH
) -> Generator[tuple[T, float], None, None]:
    """Yield the items in their order, each with its milliseconds; a thread fetches ``depth``."""
    end = object()

    def fetch() -> tuple[Any, float]:
        started = time.perf_counter()
        item = next(items, end)
        return item, (time.perf_counter() - started) * 1e3

    with closing(items), ThreadPoolExecutor(1, 'prefetch') as pool:
        waiting = deque(pool.submit(fetch) for _ in range(depth))
        while (pair := waiting.popleft().result())[0] is not end:
            waiting.append(pool.submit(fetch))
            yield pair


class _Counter:
    """Turns labelled frames into lines, counts and pictures; runs in one thread."""

    def __init__(
        self, archive: zipfile.ZipFile, variants: Variants, sequence: bool, save_labels: bool
    ) -> None:
        self._archive, self._sequence, self._save_labels = archive, sequence, save_labels
        self._runs, self._taxonomy = len(variants.pipelines), variants.taxonomy
        classes = len(self._taxonomy)
        self._shapes = {
            'confusion': (self._runs, classes, classes + 1),
            'calibration': (self._runs, metrics.BINS, 3),
            'flicker': (self._runs, metrics.FLICKER_COLUMNS),
        }
        #: Of each frame.
        self._counts: list[dict[str, Counts]] = []
        self._lines: list[str] = []
        self._flicker = metrics.Flicker()
        self._there = np.zeros(self._runs, np.bool_)
        self._samples = Samples()
        self.last: float | None = None
        """When the frame before was done, or the first one began."""

    def add(
        self, read: LabelledFrame, decode_ms: float,
        labelled: Future[list[tuple[Result, str]]] | None,
    ) -> None:  # fmt: skip
        results = [] if labelled is None else labelled.result()
        started = time.perf_counter()
        index = len(self._counts)
        counts = {name: np.zeros(shape, np.int64) for name, shape in self._shapes.items()}
        self._counts.append(counts)
        masks = [result.labels for result, _ in results]
        if self._sequence and read.frame is not None:
            shape = read.frame.image.shape[:2]
            there = np.array([mask is not None for mask in masks])
            found = self._flicker.add(read.frame, [_whole(m, shape) for m in masks])
            # a mask that was withheld neither changed nor stayed
            counts['flicker'][:] = found * (there & self._there)[:, None]
            self._there = there
        start = {'source': read.source, 'frame': read.name, 'error': read.error or None}
        lines = [_LINE | start | {'ms': {}} for _ in range(self._runs)]
        for run, (line, (result, why)) in enumerate(zip(lines, results)):
            line |= self._described(read, result, why)
            line |= _score(read, result, self._taxonomy, {k: v[run] for k, v in counts.items()})
            if self._save_labels and result.labels is not None:
                name = f'labels/{run}/{index}.png'
                self._archive.writestr(name, encode_picture(name, result.labels))
        now = time.perf_counter()
        for line in lines:
            line['ms'] |= {
                'decode': round(decode_ms, 3),
                'metrics': round((now - started) * 1e3, 3),
                'wall': round((now - (self.last or started)) * 1e3, 3),
            }
        self.last = now
        self._lines += [json.dumps(line, ensure_ascii=False) for line in lines]
        if read.frame is None:
            return
        # all have a score or none has: the labels are the same
        mious = tuple(line['miou'] for line in lines if line['miou'] is not None)
        # an image by itself is a group of its own
        group = read.frame.stamp_ns // MOMENT_NS if self._sequence else index

        def pictures(frame: Frame = read.frame) -> dict[str, Image | None]:
            shown = {f'labels-{run}.png': mask for run, mask in enumerate(masks)}
            return {'image.jpg': in_rgb(frame), 'truth.png': read.truth, **shown}

        self._samples.add(Candidate(number=index, group=group, mious=mious), pictures)

    def _described(self, read: LabelledFrame, result: Result, why: str) -> dict[str, Any]:
        labels, confidence, score = result.labels, result.confidence, result.illumination.score
        height, width = result.frame.image.shape[:2]
        return {
            'camera': result.frame.camera,
            'stamp': result.frame.stamp_ns,
            'size': [width, height],
            'score': score if math.isfinite(score) else None,
            'estimate': result.illumination.state,
            'state': result.decision.state,
            'route': result.decision.route,
            'reason': result.decision.reason,
            'switched': self._sequence and result.decision.switched,
            'light': read.light,
            'reliability': None if result.reliability is None else number(result.reliability),
            'confidence': None if confidence is None else number(cv2.mean(confidence)[0] / 255),
            'labels_sha256': None
            if labels is None
            else hashlib.sha256(np.ascontiguousarray(labels)).hexdigest(),
            'ms': {stage: round(value, 3) for stage, value in result.ms.items()},
            'error': why or None,
        }

    def finish(self, note: dict[str, Any]) -> None:
        for item, (_, files) in self._samples.kept.items():
            for name, content in files.items():
                self._archive.writestr(f'samples/{item.number}/{name}', content)
        for name, shape in self._shapes.items():
            rows = np.array([counts[name] for counts in self._counts], np.int64)
            with self._archive.open(f'{name}.npy', 'w', force_zip64=True) as file:
                np.save(file, rows.reshape(-1, *shape))
        text = '\n'.join(self._lines)
        # a byte of a name that is no UTF-8 becomes JSON's own escape
        self._archive.writestr('frames.jsonl', text.encode(errors='backslashreplace'))
        note |= {'frames': len(self._counts), 'runs': self._runs, 'samples': [*self._samples.kept]}
        self._archive.writestr('note.json', json.dumps(note))


def _score(
    read: LabelledFrame, result: Result, taxonomy: Taxonomy, counts: dict[str, Counts]
) -> dict[str, Any]:
    """Return the scores of one mask, and put its pixels into one configuration's counts."""
    changes = metrics.flicker(counts['flicker']) or {'plain': None, 'warped': None}
    scores: dict[str, Any] = {'flicker': changes['plain'], 'flicker_warped': changes['warped']}
    if read.truth is None:
        return scores
    try:
        rows = metrics.confusion(read.truth, _whole(result.labels, read.truth.shape), taxonomy)
    except ValueError as error:
        raise DataError(f"frame '{read.name}' of '{read.source}': {error}") from error
    counts['confusion'][:] = rows
    if result.labels is not None and result.confidence is not None:
        counts['calibration'][:] = metrics.reliability(
            read.truth, result.labels, result.confidence
        )
    return scores | {
        'labelled': int(rows.sum()),
        'miou': number(metrics.miou(rows)),
        'pixel_acc': number(metrics.pixel_accuracy(rows)),
    }


def _whole(mask: Image | None, shape: tuple[int, ...]) -> Image:
    """Return the mask; one that abstains everywhere where it was withheld."""
    return np.full(shape, UNLABELLED, np.uint8) if mask is None else mask


# -- the frames that a report shows, chosen while they pass: nothing is decoded twice ---------


class Candidate(NamedTuple):
    """A frame that may be shown."""

    number: int
    """Its number in the shard."""
    group: int
    """Frames of one moment of a drive look the same, and share it."""
    mious: tuple[float, ...]
    """One a configuration; none without labels."""
    shard: int = 0


class Samples:
    """
    Holds the pictures of those of the frames so far that may still be shown.

    They are the best and worst by mIoU, those in which configurations differ most, and an even
    lattice of the labelled ones (whose stride doubles as it fills), from which the median is
    taken. Without labels it is a lattice of all frames. Of a group one frame of a kind is taken.
    """

    def __init__(self) -> None:
        self._seen = self._labelled = 0
        self.kept: dict[Candidate, tuple[int, dict[str, bytes]]] = {}
        """
        Of each frame that is wanted its number among the labelled ones (or among all without
        labels), and its files: pixels of so many frames would be too much memory.
        """

    def add(self, frame: Candidate, pictures: Callable[[], Mapping[str, Image | None]]) -> None:
        """Take the next frame; ``pictures`` are uint8 [H, W] or RGB [H, W, 3] by file name."""
        self.kept[frame] = self._labelled if frame.mious else self._seen, {}
        self._seen += 1
        self._labelled += bool(frame.mious)
        wanted = self.wanted
        if frame in wanted:
            shown = ((name, pixels) for name, pixels in pictures().items() if pixels is not None)
            self.kept[frame][1].update((name, encode_picture(name, p)) for name, p in shown)
        self.kept = {item: kept for item, kept in self.kept.items() if item in wanted}

    @property
    def wanted(self) -> set[Candidate]:
        scored = [item for item in self.kept if item.mious]
        stride = 1
        while (self._labelled or self._seen) > stride * _LATTICE:
            stride *= 2
        lattice = [item for item in scored or self.kept if self.kept[item][0] % stride == 0]
        ranked = ('best', 'worst', 'different')
        return {*lattice}.union(*(_top(scored, kind, SHOWN[kind]) for kind in ranked))


def _top(items: Iterable[Candidate], kind: str, most: int, median: float = 0) -> list[Candidate]:
    """Return the first frames of a kind, one a group; of equals that which came first."""

    def value(item: Candidate) -> float:
        first = item.mious[0]
        return {
            'best': first, 'worst': -first, 'median': -abs(first - median),
            'different': max(item.mious) - min(item.mious),
        }[kind]  # fmt: skip

    chosen: dict[tuple[int, int], Candidate] = {}
    for item in sorted(items, key=lambda item: (-value(item), item.shard, item.number)):
        if kind != 'different' or value(item) > 0:
            chosen.setdefault((item.shard, item.group), item)
    return list(chosen.values())[:most]


def select(candidates: Sequence[Candidate], median: float | None) -> list[tuple[str, Candidate]]:
    """Return each frame to show and its kind; ``median`` is of the mIoU, None without labels."""
    rest = sorted(candidates, key=lambda item: (item.shard, item.number))
    if median is None:
        step = max(1, math.ceil(len(rest) / SPREAD))
        return [('spread', item) for item in rest[::step]]
    scored = [item for item in rest if item.mious]
    # of few frames, one of each kind rather than the best only
    few = max(1, len(scored) // 4)
    chosen: dict[Candidate, str] = {}
    for kind, most in SHOWN.items():
        left = [item for item in scored if item not in chosen]
        chosen |= dict.fromkeys(_top(left, kind, min(most, few), median), kind)
    return [(kind, item) for item, kind in chosen.items()]


# -- what was written ------------------------------------------------------------------------


class FinishedShard:
    """What ``evaluate_shard`` wrote: an .npz of counts that holds the other files as well."""

    def __init__(self, path: Path) -> None:
        """Read the note; the rest is read when it is asked for."""
        self._path = path
        self.note: dict[str, Any] = json.loads(self._read('note.json'))
        """'frames', 'runs', 'samples' as candidates, and what ``Shard.read`` gives."""

    def _read(self, member: str) -> bytes:
        with zipfile.ZipFile(self._path) as archive:
            return archive.read(member)

    def lines(self) -> list[list[dict[str, Any]]]:
        """Return each frame's lines, one a configuration."""
        lines = [json.loads(line) for line in self._read('frames.jsonl').splitlines()]
        runs = self.note['runs']
        return [lines[start:][:runs] for start in range(0, len(lines), runs)]

    def counts(self, name: str) -> Counts:
        """Return int64 [frames, runs, ...]: 'confusion', 'calibration' or 'flicker'."""
        with np.load(self._path) as arrays:
            return np.asarray(arrays[name], np.int64)

    def files(self, kind: str) -> Iterator[tuple[int, str, bytes]]:
        """Yield the files of 'samples' by frame, or of 'labels' by configuration."""
        with zipfile.ZipFile(self._path) as archive:
            for member in archive.namelist():
                if member.startswith(f'{kind}/'):
                    _, place, name = member.split('/')
                    yield int(place), name, archive.read(member)
