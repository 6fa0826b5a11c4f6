# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What a live run did, and how people look at it.

Frames, latencies and routes come from its logs and the recorded bag; a rendered drive is scored
against its truth; a video with banners, a contact sheet over time and clouds from above show it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from nightseg_ros.bags.reader import BagError, BagReader
from nightseg_ros.clouds.point_cloud import Cloud, read_cloud
from nightseg_ros.data.pictures import (
    PictureError,
    VideoWriter,
    banner,
    contact_sheet,
    write_picture,
)
from nightseg_ros.data.source import FrameSource, open_source
from nightseg_ros.evaluation.metrics import ConfusionMatrix
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig
from nightseg_ros.perception.rendering import STATE_COLORS
from nightseg_ros.runtime.pixels import HostPixels
from nightseg_ros.simulation.drive import IMAGE_TOPIC, TRUTH_TOPIC
from nightseg_ros.taxonomy import UNLABELLED, Taxonomy
from nightseg_ros.weights import load_weights

A = TypeVar('A')
B = TypeVar('B')


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameStatus:
    """What the node said about one frame."""

    score: float
    """NaN where the light is unknown."""
    state: str
    route: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveRun:
    """Times in ns of one steady clock, by the frame's stamp in ns."""

    sent: dict[int, int]
    """When the player published the frame."""
    arrived: dict[int, int]
    """When its labels arrived at the recorder; frames without labels are missing."""
    statuses: dict[int, FrameStatus]

    def summary(self) -> dict[str, Any]:
        """Return the counts, rates, latencies (ms) and routes as JSON types."""
        out = [stamp for stamp in self.arrived if stamp in self.sent]
        latencies = [(self.arrived[stamp] - self.sent[stamp]) / 1e6 for stamp in out]
        times = sorted(self.arrived[stamp] for stamp in out)
        span = (times[-1] - times[0]) / 1e9 if len(times) > 1 else 0.0
        percentiles = np.percentile(latencies, (50, 95, 99)) if latencies else [float('nan')] * 3
        routes = [self.statuses[stamp].route for stamp in sorted(self.statuses)]
        return {
            'frames_in': len(self.sent),
            'frames_out': len(out),
            'dropped': len(self.sent) - len(out),
            'rate_hz': round((len(times) - 1) / span, 2) if span else None,
            'latency_ms': {
                name: round(float(value), 1) if latencies else None
                for name, value in zip(('p50', 'p95', 'p99'), percentiles)
            },
            'routes': dict(Counter(routes).most_common()),
            'switches': sum(a != b for a, b in zip(routes, routes[1:])),
        }


def read_live_run(recorded: Path, sent: Path, arrived: Path, camera: str = 'camera') -> LiveRun:
    """Read the stamp logs and the status topic of a run; ``BagError`` where one is damaged."""
    labels = f'/{camera}/nightseg/labels'
    return LiveRun(
        sent={line['stamp']: line['sent'] for line in _lines(sent)},
        arrived={
            line['stamp']: line['arrived'] for line in _lines(arrived) if line['topic'] == labels
        },
        statuses=_statuses(recorded, f'/{camera}/nightseg/status'),
    )


def recorded_labels(
    recorded: Path, topic: str = '/camera/nightseg/labels'
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Yield stamp (ns) and ids uint8 [H, W] of a mono8 topic, in the order of the stamps."""
    with BagReader(recorded) as bag:
        if not any(found.name == topic for found in bag.topics):
            return
        for frame in bag.frames(bag.image_topic(topic)):
            if not isinstance(frame, Frame):
                raise BagError(f"'{recorded}', topic '{topic}': {frame}")
            yield frame.stamp_ns, np.ascontiguousarray(frame.image[..., 0])


def aligned(
    left: Iterable[tuple[int, A]], right: Iterable[tuple[int, B]]
) -> Iterator[tuple[int, A, B | None]]:
    """Yield every left item with the right one of its stamp, or None; both sorted by stamp."""
    rights = iter(right)
    held = next(rights, None)
    for stamp, item in left:
        while held is not None and held[0] < stamp:
            held = next(rights, None)
        yield stamp, item, held[1] if held is not None and held[0] == stamp else None


def _statuses(recorded: Path, topic: str) -> dict[int, FrameStatus]:
    result: dict[int, FrameStatus] = {}
    with BagReader(recorded) as bag:
        for found in bag.topics:
            if found.name != topic:
                continue
            for message in bag.messages(found):
                values = {v.key: v.value for v in bag.read(message).status[0].values}
                score = values.get('score', '')
                result[message.stamp_ns] = FrameStatus(
                    score=float('nan') if score in ('', 'unknown') else float(score),
                    state=values.get('state', ''),
                    route=values.get('route', ''),
                    reason=values.get('reason', ''),
                )
    return result


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        for line in path.read_text(encoding='utf-8').splitlines():
            yield json.loads(line)


def score_drive(
    drive: Path,
    recorded: Path,
    lit: Mapping[int, bool],
    config: PipelineConfig,
    *,
    progress: Callable[[int, int | None, str], None],
) -> dict[str, dict[str, float | None]]:
    """
    Return mIoU over present classes of the lit ('day') and the dark ('night') part of a drive.

    'auto' is what the node published (whatever its route was), 'day' the day route forced over
    the same frames by the same pipeline. Frames without a mask from the node count in neither.
    None where a part has no such frame.
    """
    pipeline = Pipeline.load(dataclasses.replace(config, route='day'))
    matrices = {
        (name, part): ConfusionMatrix(pipeline.taxonomy)
        for name in ('auto', 'day')
        for part in ('day', 'night')
    }
    truths = recorded_labels(drive, TRUTH_TOPIC)
    masks = aligned(_frames(drive), recorded_labels(recorded))
    both = aligned(((stamp, (frame, mask)) for stamp, frame, mask in masks), truths)
    for number, (stamp, (frame, mask), truth) in enumerate(both):
        progress(number + 1, len(lit), 'scoring against the day route')
        if mask is None or truth is None:
            continue
        part = 'day' if lit[stamp] else 'night'
        [result] = pipeline.process([frame])
        assert result.labels is not None
        for name, labels in (('auto', mask), ('day', result.labels)):
            matrices[name, part].add(truth, labels)
    return {
        name: {part: _finite(matrices[name, part].miou()) for part in ('day', 'night')}
        for name in ('auto', 'day')
    }


def _frames(drive: Path) -> Iterator[tuple[int, Frame]]:
    for _, frame in open_source(drive, IMAGE_TOPIC):
        if isinstance(frame, Frame):
            yield frame.stamp_ns, frame


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


Image = npt.NDArray[np.uint8]

#: Metres ahead of the sensor, and to either side, that are shown.
AHEAD, ASIDE = 40.0, 16.0
#: What is this much above the sensor (m) would hide the road: a tunnel's ceiling, the trees.
TALLEST = 2.5
_GROUND, _LINE, _TEXT, _UNSEEN = 22, (58, 58, 62), (150, 150, 155), (78, 78, 82)


def top_view(cloud: Cloud, palette: Image, height: int) -> Image:
    """
    Return uint8 RGB [height, W, 3]: the points in the colours of their labels, ahead being up.

    ``cloud`` is in a body frame (x ahead, y left) and has the field ``label``; ``palette`` is
    uint8 [256, 3]. Points without a label are grey. Rings stand every 10 m.
    """
    scale = height / (AHEAD + 4)
    width = round(2 * ASIDE * scale)
    picture = np.full((height, width, 3), _GROUND, np.uint8)
    origin = (width // 2, round(height - 3 * scale))
    for metres in range(10, int(AHEAD) + 1, 10):
        cv2.circle(picture, origin, round(metres * scale), _LINE, 1, cv2.LINE_AA)
        place = (4, origin[1] - round(metres * scale * 0.9) - 3)
        cv2.putText(picture, f'{metres} m', place, cv2.FONT_HERSHEY_SIMPLEX, height / 800, _TEXT,
                    1, cv2.LINE_AA)  # fmt: skip
    x, y, z = cloud.xyz()
    labels = cloud.records['label'].reshape(-1)
    colors = palette[labels].astype(np.int32)
    # a dark class must stand out from the dark ground
    colors = np.where(labels[:, None] == UNLABELLED, _UNSEEN, colors + (255 - colors) // 4)
    shown = np.isfinite(x) & (x < AHEAD + 1) & (np.abs(y) < ASIDE) & (z < TALLEST)
    # what is higher lies above; what has no label under all others
    order = np.flatnonzero(shown)
    order = order[np.lexsort((z[order], labels[order] != UNLABELLED))]
    size = max(2, round(height / 120))
    column = np.round(origin[0] - y[order] * scale).astype(int)
    row = np.round(origin[1] - x[order] * scale).astype(int)
    for dy in range(size):
        for dx in range(size):
            picture[(row + dy).clip(0, height - 1), (column + dx).clip(0, width - 1)] = colors[
                order
            ]
    half = max(3, round(0.9 * scale))
    nose = np.array([(origin[0], origin[1] - 2 * half), (origin[0] - half, origin[1] + half),
                     (origin[0] + half, origin[1] + half)])  # fmt: skip
    cv2.fillPoly(picture, [nose], (240, 240, 240), cv2.LINE_AA)
    return picture


class RecordedClouds:
    """The clouds of a topic of a bag by their stamps."""

    def __init__(self, bag: Path, topic: str) -> None:
        """Read them all; a bag without the topic has none."""
        self._clouds: list[Cloud] = []
        self.stamps: list[int] = []
        with BagReader(bag) as reader:
            for found in reader.topics:
                for message in reader.messages(found) if found.name == topic else ():
                    content: Any = reader.read(message)
                    self.stamps.append(message.stamp_ns)
                    self._clouds.append(read_cloud(content))

    def latest(self, stamp_ns: int) -> Cloud | None:
        """Return the cloud at a stamp or the last one before it."""
        place = bisect_left(self.stamps, stamp_ns + 1)
        return self._clouds[place - 1] if place else None


#: Pairs of pictures on a contact sheet.
TILES = 15
ALPHA = 0.5
#: Labelled points of the demo's LiDAR.
CLOUD_TOPIC = '/lidar/nightseg/points'
_GREY = (170, 170, 170)


def show_run(
    out: Path,
    source: FrameSource,
    run: LiveRun,
    recorded: Path,
    weights: str,
    *,
    offset: int,
    progress: Callable[[int, int | None, str], None],
) -> None:
    """
    Write ``overlay.mp4`` and ``contact_sheet.jpg`` of the frames that were played.

    Where labelled points were recorded, the sheet shows them from above beside the overlay.
    ``weights`` name the taxonomy and its colours, ``offset`` is what the player added to the
    stamps. A frame without a mask is shown as it is and says so.
    """
    stamps = sorted(run.sent)
    if not stamps:
        raise PictureError('no frame was played; there is nothing to show')
    taxonomy = Taxonomy.from_dict(load_weights(weights).metadata.taxonomy or {})
    pixels, palette = HostPixels(), taxonomy.palette()
    chosen = _spread(stamps, sorted(run.arrived.keys() & run.sent.keys()) or stamps)
    span = (stamps[-1] - stamps[0]) / 1e9
    rate = (len(stamps) - 1) / span if span > 0 else 10.0
    tiles = []
    clouds = RecordedClouds(recorded, CLOUD_TOPIC)
    with VideoWriter(out / 'overlay.mp4', rate) as video:
        masks = aligned(_played(source, run, offset), recorded_labels(recorded))
        for number, (stamp, frame, mask) in enumerate(masks):
            progress(number + 1, len(stamps), 'drawing the overlays')
            image = frame.image
            if frame.order == 'bgr':
                image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
            shown = image
            if mask is not None:
                colors = pixels.colorize(mask, palette)
                shown = pixels.blend(frame.image, frame.order, colors, ALPHA)
            text, color = _caption(run, stamp, (stamp - stamps[0]) / 1e9, mask is not None)
            video.add(banner(shown, text, color))
            if stamp in chosen:
                cloud = clouds.latest(stamp)
                if cloud is not None:
                    above = top_view(cloud, taxonomy.palette(), shown.shape[0])
                    shown = np.hstack([shown, above])
                tiles.append((image, shown, text, color))
    write_picture(out / 'contact_sheet.jpg', contact_sheet(tiles))


def _spread(stamps: list[int], labelled: list[int]) -> set[int]:
    """Return the labelled stamps nearest to ``TILES`` moments spread over the whole run."""
    moments = np.linspace(stamps[0], stamps[-1], TILES)
    return {min(labelled, key=lambda stamp: abs(stamp - moment)) for moment in moments}


def _played(source: FrameSource, run: LiveRun, offset: int) -> Iterator[tuple[int, Frame]]:
    last = max(run.sent)
    for _, frame in source:
        if isinstance(frame, Frame):
            stamp = frame.stamp_ns + offset
            if stamp > last:
                return
            if stamp in run.sent:
                yield stamp, frame


def _caption(
    run: LiveRun, stamp: int, seconds: float, labelled: bool
) -> tuple[str, tuple[int, int, int]]:
    status = run.statuses.get(stamp)
    if status is None or not labelled:
        return f'{seconds:5.1f} s  no mask: the frame was dropped', _GREY
    text = f'{seconds:5.1f} s  {status.state}  route {status.route}  score {status.score:.2f}'
    return text, STATE_COLORS.get(status.state, _GREY)
