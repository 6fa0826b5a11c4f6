# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
One shard of an evaluation, frame by frame: decoding, networks and counting side by side.

Nothing is dropped and nothing is batched: each frame goes through the pipeline by itself as in a
node that keeps up, so that labels are the live ones byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import zipfile
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from nightseg_ros.data.pictures import encode_picture
from nightseg_ros.data.sample import DataError
from nightseg_ros.evaluation.metrics import (
    BINS,
    FLICKER_COLUMNS,
    ConfusionMatrix,
    Counts,
    Flicker,
    Image,
    flicker,
    number,
    reliability,
)
from nightseg_ros.evaluation.samples import Candidate, Samples
from nightseg_ros.evaluation.sources import LabelledFrame, Shard, in_rgb
from nightseg_ros.evaluation.variants import Variants
from nightseg_ros.files import partial_file
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.result import Result, Want
from nightseg_ros.taxonomy import UNLABELLED, Taxonomy

T = TypeVar('T')

_WANT = Want(labels=True, confidence=True)
#: Frames that wait before and behind the networks; more would only take memory.
DEPTH = 4
#: Frames of a drive in one moment look the same.
MOMENT_NS = 2_000_000_000
#: The keys of a line of frames.jsonl behind 'run'.
_LINE = (
    'source', 'camera', 'frame', 'stamp', 'size', 'score', 'estimate', 'state', 'route',
    'reason', 'switched', 'light', 'labelled', 'miou', 'pixel_acc', 'confidence',
    'reliability', 'flicker', 'flicker_warped', 'labels_sha256', 'ms', 'error',
)  # fmt: skip


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
        closing(prefetch(_timed(shard.read(note)))) as reads,
        ThreadPoolExecutor(variants.streams, 'network') as networks,
        ThreadPoolExecutor(1, 'metrics') as metrics,
    ):
        counter = _Counter(archive, variants, shard.sequence, save_labels)
        for read, decode_ms in reads:
            labelled = None
            if read.frame is not None:
                variants.warm_up(read.frame.image.shape[:2], wait)
                counter.last = counter.last or time.perf_counter()
                decided = variants.decide(read.frame, alone=not shard.sequence)
                labelled = networks.submit(variants.label, decided, _WANT)
            pending.append(metrics.submit(counter.add, read, decode_ms, labelled))
            # a slow frame leaves the other streams something to do
            wait(2 * variants.streams - 1 + DEPTH)
        wait()
        counter.finish(note)


def prefetch(items: Generator[T, None, None], depth: int = DEPTH) -> Generator[T, None, None]:
    """Yield the items in their order while a thread fetches up to ``depth`` further ones."""
    end = object()
    with closing(items), ThreadPoolExecutor(1, 'prefetch') as pool:
        waiting = deque(pool.submit(next, items, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield item  # type: ignore[misc]


def _timed(frames: Iterator[LabelledFrame]) -> Generator[tuple[LabelledFrame, float], None, None]:
    """Yield each frame with the milliseconds that it took."""
    started = time.perf_counter()
    for frame in frames:
        yield frame, (time.perf_counter() - started) * 1e3
        started = time.perf_counter()


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
            'calibration': (self._runs, BINS, 3),
            'flicker': (self._runs, FLICKER_COLUMNS),
        }
        #: Of each frame.
        self._counts: list[dict[str, Counts]] = []
        self._lines: list[str] = []
        self._flicker = Flicker()
        self._samples = Samples()
        self.last: float | None = None
        """When the frame before was done, or the first one began."""

    def add(
        self, read: LabelledFrame, decode_ms: float,
        labelled: Future[list[tuple[Result, str]]] | None,
    ) -> None:  # fmt: skip
        """Count a frame once it is labelled."""
        results = [] if labelled is None else labelled.result()
        started = time.perf_counter()
        index = len(self._counts)
        counts = {name: np.zeros(shape, np.int64) for name, shape in self._shapes.items()}
        self._counts.append(counts)
        masks = [result.labels for result, _ in results]
        if self._sequence and read.frame is not None:
            shape = read.frame.image.shape[:2]
            counts['flicker'][:] = self._flicker.add(read.frame, [_whole(m, shape) for m in masks])
        start = {
            'source': read.source, 'frame': read.name, 'switched': False, 'labelled': 0,
            'error': read.error or None,
        }  # fmt: skip
        lines: list[dict[str, Any]] = [
            dict.fromkeys(_LINE) | start | {'ms': {}} for _ in range(self._runs)
        ]
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
        mious = tuple(line['miou'] for line in lines)
        group = group_of(index, read.frame.stamp_ns, self._sequence)

        def pictures(frame: Frame = read.frame) -> dict[str, Image | None]:
            shown = {f'labels-{run}.png': mask for run, mask in enumerate(masks)}
            return {'image.jpg': in_rgb(frame), 'truth.png': read.truth, **shown}

        self._samples.add(Candidate(index=index, group=group, mious=mious), pictures)

    def _described(self, read: LabelledFrame, result: Result, why: str) -> dict[str, Any]:
        """Return what became of a frame."""
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
        """Write everything into the archive."""
        for index, files in self._samples.files().items():
            for name, content in files.items():
                self._archive.writestr(f'samples/{index}/{name}', content)
        for name, shape in self._shapes.items():
            rows = np.array([counts[name] for counts in self._counts], np.int64)
            with self._archive.open(f'{name}.npy', 'w', force_zip64=True) as file:
                np.save(file, rows.reshape(-1, *shape))
        text = '\n'.join(self._lines)
        # a byte of a name that is no UTF-8 becomes JSON's own escape
        self._archive.writestr('frames.jsonl', text.encode(errors='backslashreplace'))
        note |= {'frames': len(self._counts), 'runs': self._runs}
        self._archive.writestr('note.json', json.dumps(note))


def _score(
    read: LabelledFrame, result: Result, taxonomy: Taxonomy, counts: dict[str, Counts]
) -> dict[str, Any]:
    """Return the scores of one mask, and put its pixels into one configuration's counts."""
    changes = flicker(counts['flicker']) or {'plain': None, 'warped': None}
    scores: dict[str, Any] = {'flicker': changes['plain'], 'flicker_warped': changes['warped']}
    if read.truth is None:
        return scores
    matrix = ConfusionMatrix(taxonomy)
    try:
        matrix.add(read.truth, _whole(result.labels, read.truth.shape))
    except ValueError as error:
        raise DataError(f"frame '{read.name}' of '{read.source}': {error}") from error
    counts['confusion'][:] = matrix.rows
    if result.labels is not None and result.confidence is not None:
        counts['calibration'][:] = reliability(read.truth, result.labels, result.confidence)
    return scores | {
        'labelled': int(matrix.rows.sum()),
        'miou': number(matrix.miou()),
        'pixel_acc': number(matrix.pixel_accuracy()),
    }


def _whole(mask: Image | None, shape: tuple[int, ...]) -> Image:
    """Return the mask; one that abstains everywhere where it was withheld."""
    return np.full(shape, UNLABELLED, np.uint8) if mask is None else mask


def group_of(index: int, stamp_ns: int, sequence: bool) -> int:
    """Return the group of a sample: its moment in a drive, itself for an image by itself."""
    return stamp_ns // MOMENT_NS if sequence else index


class FinishedShard:
    """What ``evaluate_shard`` wrote: an .npz of counts that holds the other files as well."""

    def __init__(self, path: Path) -> None:
        """Read the note; the rest is read when it is asked for."""
        self._path = path
        self.note: dict[str, Any] = json.loads(self._read('note.json'))
        """'frames', 'runs', and what ``Shard.read`` gives."""

    def _read(self, member: str) -> bytes:
        with zipfile.ZipFile(self._path) as archive:
            return archive.read(member)

    def lines(self) -> list[list[dict[str, Any]]]:
        """Return each frame's lines, one a configuration."""
        lines = [json.loads(line) for line in self._read('frames.jsonl').splitlines()]
        runs = self.note['runs']
        return [lines[start : start + runs] for start in range(0, len(lines), runs)]

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
