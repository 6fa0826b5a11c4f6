# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What a live run did, and how people look at it.

Frames, latencies and routes come from its logs and the recorded bag; a rendered drive is scored
against its truth; a video with banners, a contact sheet over time and clouds from above show it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
import json
from pathlib import Path
from typing import Any, NamedTuple

import cv2
from nightseg_ros.bags.reader import BagReader
from nightseg_ros.clouds.point_cloud import Cloud, read_cloud
from nightseg_ros.data.pictures import banner, contact_sheet, PictureError, write_picture
from nightseg_ros.evaluation.metrics import confusion, Image, miou, number
from nightseg_ros.evaluation.sources import in_rgb, Labels, sequence_shards
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig
from nightseg_ros.perception.video import VideoWriter
from nightseg_ros.runtime.pixels import HostPixels, STATE_COLORS
from nightseg_ros.simulation.drive import IMAGE_TOPIC, TRUTH_TOPIC
from nightseg_ros.taxonomy import UNLABELLED
import numpy as np

LABEL_TOPIC, STATUS_TOPIC = '/camera/nightseg/labels', '/camera/nightseg/status'
#: Labelled points of the demo's LiDAR.
CLOUD_TOPIC = '/lidar/nightseg/points'

# -- the run ---------------------------------------------------------------------------------


class FrameStatus(NamedTuple):
    """What the node said about one frame; the score is NaN where the light is unknown."""

    score: float
    state: str
    route: str


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
        out = self.arrived.keys() & self.sent.keys()
        latencies = [(self.arrived[stamp] - self.sent[stamp]) / 1e6 for stamp in out]
        times = [self.arrived[stamp] for stamp in out]
        span = (max(times) - min(times)) / 1e9 if times else 0.0
        routes = [self.statuses[stamp].route for stamp in sorted(self.statuses)]
        return {
            'frames_in': len(self.sent),
            'frames_out': len(out),
            'dropped': len(self.sent) - len(out),
            'rate_hz': round((len(times) - 1) / span, 2) if span else None,
            'latency_ms': {
                f'p{share}': round(float(np.percentile(latencies, share)), 1) if out else None
                for share in (50, 95, 99)
            },
            'routes': dict(Counter(routes).most_common()),
            'switches': sum(a != b for a, b in zip(routes, routes[1:])),
        }


def read_live_run(recorded: Path, sent: Path, arrived: Path) -> LiveRun:
    """Read the stamp logs and the status topic of a run; ``BagError`` where one is damaged."""
    statuses = {}
    for stamp, message in _messages(recorded, STATUS_TOPIC):
        values = {v.key: v.value for v in message.status[0].values}
        score = values.get('score', '')
        statuses[stamp] = FrameStatus(
            score=float('nan' if score in ('', 'unknown') else score),
            **{key: values.get(key, '') for key in ('state', 'route')},
        )
    return LiveRun(
        sent={line['stamp']: line['sent'] for line in _lines(sent)},
        arrived={
            line['stamp']: line['arrived']
            for line in _lines(arrived)
            if line['topic'] == LABEL_TOPIC
        },
        statuses=statuses,
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        yield from map(json.loads, path.read_text(encoding='utf-8').splitlines())


def _messages(bag: Path, topic: str) -> Iterator[tuple[int, Any]]:
    """Yield stamp (ns) and content of a topic's messages; nothing where the bag lacks it."""
    with BagReader(bag) as reader:
        for found in reader.topics:
            for message in reader.messages(found) if found.name == topic else ():
                yield message.stamp_ns, reader.read(message)


# -- the drive -------------------------------------------------------------------------------

#: Pairs of pictures on a contact sheet.
TILES = 15
_GREY = (170, 170, 170)


def review_drive(
    out: Path, drive: Path, lit: Mapping[int, bool], run: LiveRun, recorded: Path,
    config: PipelineConfig, *, progress: Callable[[int, int | None, str], None],
) -> dict[str, dict[str, float | None]]:  # fmt: skip
    """
    Score a rendered drive that was played; write ``overlay.mp4`` and ``contact_sheet.jpg``.

    Returns the mIoU over present classes of the lit ('day') and the dark ('night') part: 'auto' is
    what the node published (whatever its route was), 'day' the day route forced over the same
    frames by the same pipeline. A frame without a mask counts in neither, and says so in the
    pictures. None where a part has no other. Where labelled points were recorded, the sheet shows
    them from above beside the overlay.
    """
    stamps = sorted(run.sent)
    if not stamps:
        raise PictureError('no frame was played; there is nothing to show')
    pipeline = Pipeline.load(replace(config, route='day'))
    taxonomy, pixels = pipeline.taxonomy, HostPixels()
    palette = taxonomy.palette()
    empty = np.zeros((len(taxonomy), len(taxonomy) + 1), np.int64)
    scores = {name: {'day': empty.copy(), 'night': empty.copy()} for name in ('auto', 'day')}
    # the labelled frames nearest to moments spread over the whole run
    labelled = sorted(run.arrived.keys() & run.sent.keys()) or stamps
    chosen = {
        min(labelled, key=lambda stamp, moment=moment: abs(stamp - moment))  # type: ignore[misc]
        for moment in np.linspace(stamps[0], stamps[-1], TILES)
    }
    span = (stamps[-1] - stamps[0]) / 1e9
    rate = (len(stamps) - 1) / span if span else 10.0
    clouds = list(_messages(recorded, CLOUD_TOPIC))
    tiles = []
    [rendered] = sequence_shards([drive], topics=[IMAGE_TOPIC], labels=[TRUTH_TOPIC])
    with BagReader(recorded) as bag, VideoWriter(out / 'overlay.mp4', rate) as video:
        # ids uint8 [H, W] of a stamp, as stamps rise
        there = any(topic.name == LABEL_TOPIC for topic in bag.topics)
        masks = Labels(LABEL_TOPIC if there else '', '', bag)
        for done, read in enumerate(rendered.read({}), 1):
            progress(done, len(lit), 'scoring and drawing')
            frame, truth = read.frame, read.truth
            if frame is None or truth is None or frame.stamp_ns not in run.sent:
                continue
            stamp = frame.stamp_ns
            mask, status = masks.of(stamp), run.statuses.get(stamp)
            image = shown = in_rgb(frame)
            if mask is not None:
                [result] = pipeline.process([frame])
                assert result.labels is not None
                part = 'day' if lit[stamp] else 'night'
                for name, labels in (('auto', mask), ('day', result.labels)):
                    scores[name][part] += confusion(truth, labels, taxonomy)
                shown = pixels.blend(image, 'rgb', pixels.colorize(mask, palette), 0.5)
            text, color = f'{(stamp - stamps[0]) / 1e9:5.1f} s', _GREY
            if mask is None:
                text += '  no mask: the frame was dropped'
            elif status is not None:
                text += f'  {status.state}  route {status.route}  score {status.score:.2f}'
                color = STATE_COLORS.get(status.state, _GREY)
            video.add(banner(shown, text, color))
            if stamp in chosen:
                before = bisect_right(clouds, stamp, key=lambda item: item[0])
                if before:
                    cloud = read_cloud(clouds[before - 1][1])
                    shown = np.hstack([shown, top_view(cloud, palette, shown.shape[0])])
                tiles.append((image, shown, text, color))
    write_picture(out / 'contact_sheet.jpg', contact_sheet(tiles))
    return {
        name: {part: number(miou(rows)) for part, rows in parts.items()}
        for name, parts in scores.items()
    }


# -- clouds from above -----------------------------------------------------------------------

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
    for dy, dx in np.ndindex(size, size):
        rows, columns = (row + dy).clip(0, height - 1), (column + dx).clip(0, width - 1)
        picture[rows, columns] = colors[order]
    half = max(3, round(0.9 * scale))
    nose = np.array([(origin[0], origin[1] - 2 * half), (origin[0] - half, origin[1] + half),
                     (origin[0] + half, origin[1] + half)])  # fmt: skip
    cv2.fillPoly(picture, [nose], (240, 240, 240), cv2.LINE_AA)
    return picture
