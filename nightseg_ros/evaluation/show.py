# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A live run as people look at it: a video with banners, and a contact sheet over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from nightseg_ros.data.source import FrameSource
from nightseg_ros.evaluation.live import LiveRun, aligned, recorded_labels
from nightseg_ros.evaluation.pictures import (
    PictureError,
    VideoWriter,
    banner,
    contact_sheet,
    write_picture,
)
from nightseg_ros.evaluation.top_view import RecordedClouds, top_view
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.rendering import STATE_COLORS, Renderer
from nightseg_ros.runtime.pixels import HostPixels
from nightseg_ros.taxonomy import Taxonomy
from nightseg_ros.weights import load_weights

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
    renderer = Renderer(taxonomy, HostPixels())
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
                shown = renderer.overlay(frame, renderer.color(mask), ALPHA)
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
