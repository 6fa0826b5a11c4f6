# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
One part of an evaluation, frame by frame: decoding, networks and counting side by side.

Nothing is dropped and nothing is batched: each frame goes through ``Pipeline.process`` by itself
as in a node that keeps up, so that labels are the live ones byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nightseg_ros.data.pictures import write_picture
from nightseg_ros.data.sample import DataError
from nightseg_ros.evaluation.gallery import Gallery, Shown, group_of
from nightseg_ros.evaluation.lineup import Lineup
from nightseg_ros.evaluation.metrics import (
    ConfusionMatrix,
    Counts,
    Flicker,
    miou,
    pixel_accuracy,
    reliability,
)
from nightseg_ros.evaluation.part import Item, Part, Reader
from nightseg_ros.evaluation.record import Kept, RecordWriter
from nightseg_ros.evaluation.stage import Sink, read_ahead
from nightseg_ros.files import replace_file
from nightseg_ros.perception.frame import Frame, FrameError
from nightseg_ros.perception.result import Result, Want
from nightseg_ros.taxonomy import UNLABELLED

Image = npt.NDArray[np.uint8]

#: Written when a part is complete.
DONE = 'done.json'
_WANT = Want(labels=True, confidence=True)
#: Seconds or frames after which records are handed to the system: a killed process loses no more.
_FLUSH_S = 1.0
_FLUSH_FRAMES = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    """An item with its pixels."""

    index: int
    item: Item
    frame: Frame | None
    truth: Image | None
    error: str
    decode_ms: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Labelled:
    """A frame that has been through the pipeline."""

    read: _Read
    results: list[tuple[Result, str]]


class _Known:
    """The frames on record, which an earlier process measured."""

    def __init__(self, frames: list[Kept], missing: set[int], sequence: bool) -> None:
        self.frames = frames
        self._again = set(missing)
        if sequence:
            # the frame before the first new one is that one's neighbour in the flicker
            readable = (i for i in range(len(frames) - 1, -1, -1) if frames[i].readable)
            self._again |= {index for index in [next(readable, -1)] if index >= 0}

    def __contains__(self, index: int) -> bool:
        """Tell whether a frame is on record."""
        return index < len(self.frames)

    def again(self, index: int) -> bool:
        """Tell whether a frame on record has to be labelled once more."""
        return index in self._again


def measure(
    part: Part,
    lineup: Lineup,
    folder: Path,
    *,
    save_labels: bool = False,
    advance: Callable[[int], None] = lambda done: None,
) -> None:
    """
    Bring a part's records in ``folder`` to their end; the file ``done.json`` then says so.

    What is on record is not measured again. The frames of a recording are read again, though, and
    shown to estimator and router, which so get the very state that they had: no other way back
    is exact for every router. ``DataError`` where those frames are no longer the same.
    """
    if (folder / DONE).exists():
        return
    lineup = lineup.fresh()
    reader = part.open()
    try:
        with RecordWriter(folder, len(lineup.pipelines), lineup.taxonomy) as records:
            counter = _Counter(records, folder, reader.sequence, save_labels)
            known = _Known(records.kept, counter.restore(), reader.sequence)
            reads = read_ahead(_reads(reader, known))
            try:
                with Sink(counter.add) as sink:
                    _label(reads, lineup, known, reader.sequence, counter.start, sink.put, advance)
            finally:
                reads.close()
            counter.finish()
        replace_file(folder / DONE, (json.dumps(reader.summary()) + '\n').encode())
    finally:
        reader.close()


def _reads(reader: Reader, known: _Known) -> Generator[_Read, None, None]:
    """Decode the frames that are needed."""
    items = iter(reader)
    for index in count():
        started = time.perf_counter()
        item = next(items, None)
        if item is None:
            return
        if index in known and not (reader.sequence or known.again(index)):
            continue
        found, truth = item.read()
        frame = None if isinstance(found, FrameError) else found
        if truth is not None and frame is not None:
            _check(item, frame, truth)
        yield _Read(
            index=index, item=item, frame=frame, truth=truth,
            error=str(found) if frame is None else '',
            decode_ms=(time.perf_counter() - started) * 1e3,
        )  # fmt: skip


def _check(item: Item, frame: Frame, truth: Image) -> None:
    if truth.shape != frame.image.shape[:2]:
        raise DataError(
            f"labels of frame '{item.name}' of '{item.source}' are {truth.shape[1]}×"
            f'{truth.shape[0]}, the frame is {frame.image.shape[1]}×{frame.image.shape[0]} pixels'
        )


def _label(
    reads: Iterable[_Read],
    lineup: Lineup,
    known: _Known,
    sequence: bool,
    start: Callable[[], None],
    put: Callable[[_Labelled], None],
    advance: Callable[[int], None],
) -> None:
    """Run the pipeline over the frames, which is what takes the time."""
    waiting: deque[tuple[_Read, Future[list[tuple[Result, str]]] | None]] = deque()

    def finish(left: int) -> None:
        while len(waiting) > left:
            read, future = waiting.popleft()
            put(_Labelled(read=read, results=[] if future is None else future.result()))
            advance(read.index + 1)

    with ThreadPoolExecutor(lineup.streams, 'network') as pool:
        for read in reads:
            again = read.index in known and known.again(read.index)
            seen: list[Result] = []
            if read.frame is not None:
                height, width = read.frame.image.shape[:2]
                if not lineup.is_ready(height, width):
                    finish(0)
                    lineup.warm_up(height, width)
                if not sequence:
                    lineup.reset('a picture by itself')
                if read.index not in known:
                    start()
                seen = lineup.look(read.frame)
            if read.index in known:
                _compare(read, seen, known.frames[read.index])
            if read.index not in known or again:
                future = pool.submit(lineup.label, seen, _WANT) if seen else None
                waiting.append((read, future))
                # a slow frame leaves the other streams something to do
                finish(2 * lineup.streams - 1)
            else:
                advance(read.index + 1)
        finish(0)


def _compare(read: _Read, seen: list[Result], kept: Kept) -> None:
    """Refuse to go on where a frame on record looks different now."""
    stamps = [result.frame.stamp_ns for result in seen]
    scores = [_finite(result.illumination.score) for result in seen]
    routes = [result.decision.route for result in seen]
    if seen and (stamps, scores, routes) != (kept.stamps, kept.scores, kept.routes):
        raise DataError(
            f"frame '{read.item.name}' of '{read.item.source}' is not the one on record: the "
            'data has changed since this evaluation began; start anew with --restart'
        )


class _Counter:
    """Turns labelled frames into records; runs in one thread."""

    def __init__(
        self, records: RecordWriter, folder: Path, sequence: bool, save_labels: bool
    ) -> None:
        self._records = records
        self._taxonomy, self._layout = records.taxonomy, records.layout
        self._folder = folder
        self._sequence = sequence
        self._flicker = Flicker()
        self._gallery = Gallery(folder / 'samples')
        self._save_labels = save_labels
        self._last: float | None = None
        self._unflushed, self._flushed = 0, time.perf_counter()

    def restore(self) -> set[int]:
        """Return the frames on record whose pictures got lost."""
        for index, kept in enumerate(self._records.kept):
            if kept.readable:
                group = group_of(index, kept.stamps[0], self._sequence)
                self._gallery.add(index, group, kept.mious)
        return self._gallery.missing

    def start(self) -> None:
        """Start the clock of the throughput, unless it runs."""
        if self._last is None:
            self._last = time.perf_counter()

    def add(self, item: _Labelled) -> None:
        """Count one frame."""
        started = time.perf_counter()
        read = item.read
        masks = [result.labels for result, _ in item.results]
        rows = np.zeros((self._records.runs, self._layout.size), np.int64)
        if self._sequence and read.frame is not None:
            shape = read.frame.image.shape[:2]
            whole = [_blank(shape) if mask is None else mask for mask in masks]
            self._layout.flicker(rows)[:] = self._flicker.add(read.frame, whole)
        if read.index < len(self._records.kept):
            # on record already: only its pictures, or its part in the flicker, were needed
            if read.frame is not None and read.index in self._gallery.missing:
                self._gallery.keep(read.index, _shown(read, masks))
            return
        self._write(item, masks, rows, started)

    def finish(self) -> None:
        """Write what is still held."""
        self._gallery.flush()
        self._records.flush()

    def _write(
        self, item: _Labelled, masks: list[Image | None], rows: Counts, started: float
    ) -> None:
        read = item.read
        lines = []
        for number, (result, why) in enumerate(item.results):
            line = _line(read, result, why, self._sequence)
            self._score(line, read.truth, result, rows[number])
            if self._save_labels and result.labels is not None:
                folder = self._folder / 'labels' / str(number)
                folder.mkdir(parents=True, exist_ok=True)
                write_picture(folder / f'{_file_name(read.item.name)}.png', result.labels)
            lines.append(line)
        if not item.results:
            lines = [_failed(read) for _ in range(self._records.runs)]
        now = time.perf_counter()
        wall = (now - (self._last or started)) * 1e3
        self._last = now
        for line in lines:
            line['ms'] |= {
                'decode': round(read.decode_ms, 3),
                'metrics': round((now - started) * 1e3, 3),
                'wall': round(wall, 3),
            }
        self._records.append(lines, rows)
        if read.frame is not None:
            group = group_of(read.index, read.frame.stamp_ns, self._sequence)
            wanted = self._gallery.add(read.index, group, [line['miou'] for line in lines])
            if wanted:
                self._gallery.keep(read.index, _shown(read, masks))
        self._unflushed += 1
        if self._unflushed >= _FLUSH_FRAMES or now - self._flushed > _FLUSH_S:
            self._records.flush()
            self._unflushed, self._flushed = 0, now

    def _score(
        self, line: dict[str, Any], truth: Image | None, result: Result, row: Counts
    ) -> None:
        """Add a frame's scores to its line and its counts to its row."""
        labels = result.labels
        if labels is not None:
            line['labels_sha256'] = hashlib.sha256(np.ascontiguousarray(labels)).hexdigest()
        if result.confidence is not None:
            line['confidence'] = round(cv2.mean(result.confidence)[0] / 255, 4)
        pairs, pixels, changed, inside, moved = (int(v) for v in self._layout.flicker(row))
        if pairs:
            line['flicker'] = round(changed / pixels, 5)
            line['flicker_warped'] = round(moved / inside, 5) if inside else None
        if truth is None:
            return
        matrix = ConfusionMatrix(self._taxonomy)
        try:
            matrix.add(truth, _blank(truth.shape) if labels is None else labels)
        except ValueError as error:
            raise DataError(f"frame '{line['frame']}' of '{line['source']}': {error}") from error
        self._layout.confusion(row)[:] = matrix.rows
        line['labelled'] = int(matrix.rows.sum())
        if line['labelled']:
            line['miou'] = round(float(miou(matrix.rows)), 4)
            line['pixel_acc'] = round(float(pixel_accuracy(matrix.rows)), 4)
        if labels is not None and result.confidence is not None:
            self._layout.calibration(row)[:] = reliability(truth, labels, result.confidence)


def _shown(read: _Read, masks: list[Image | None]) -> Shown:
    assert read.frame is not None
    return Shown(frame=read.frame, truth=read.truth, masks=tuple(masks))


def _line(read: _Read, result: Result, why: str, sequence: bool) -> dict[str, Any]:
    height, width = result.frame.image.shape[:2]
    return {
        'source': read.item.source,
        'camera': result.frame.camera,
        'frame': read.item.name,
        'stamp': result.frame.stamp_ns,
        'size': [width, height],
        # in full: the router is brought back to its state with it
        'score': _finite(result.illumination.score),
        'estimate': result.illumination.state,
        'state': result.decision.state,
        'route': result.decision.route,
        'reason': result.decision.reason,
        'switched': sequence and result.decision.switched,
        'light': read.item.light,
        'labelled': 0,
        'miou': None,
        'pixel_acc': None,
        'confidence': None,
        'reliability': None if result.reliability is None else round(result.reliability, 4),
        'flicker': None,
        'flicker_warped': None,
        'labels_sha256': None,
        'ms': {stage: round(value, 3) for stage, value in result.ms.items()},
        'error': why or None,
    }


def _failed(read: _Read) -> dict[str, Any]:
    """Return the line of a frame that could not be read."""
    names = (
        'stamp', 'size', 'score', 'estimate', 'state', 'route', 'reason', 'light', 'miou',
        'pixel_acc', 'confidence', 'reliability', 'flicker', 'flicker_warped', 'labels_sha256',
    )  # fmt: skip
    return {
        'source': read.item.source, 'camera': None, 'frame': read.item.name,
        **dict.fromkeys(names), 'switched': False, 'labelled': 0, 'ms': {}, 'error': read.error,
    }  # fmt: skip


def _blank(shape: tuple[int, ...]) -> Image:
    return np.full(shape, UNLABELLED, np.uint8)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _file_name(name: str) -> str:
    return name.replace('/', '_')
