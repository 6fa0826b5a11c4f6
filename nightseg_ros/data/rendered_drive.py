# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A rendered drive as a bag: images, true labels, and what the light really was."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nightseg_ros.bags.records import Channel
from nightseg_ros.bags.writer import BagWriter, reliable_qos
from nightseg_ros.perception.frame import Frame
from nightseg_ros.simulation import Drive, DriveFrame
from nightseg_ros.simulation.lidar import Scan, calibration, places, scan

Rendered = tuple[DriveFrame, Scan | None]
IMAGE_TOPIC = '/camera/image_raw'
INFO_TOPIC = '/camera/camera_info'
DEPTH_TOPIC = '/camera/depth/image_raw'
CLOUD_TOPIC = '/lidar/points'
#: Where LiDAR and camera are.
PLACES = places({'camera': (0.0, 0.0)})
TRUTH_TOPIC = '/camera/labels_truth'
#: Stamp of the first frame; any day will do, 0 would mean that there is no stamp.
START_NS = 1_700_000_000_000_000_000
#: Daylight (0–1) from which a frame belongs to the lit part: halfway from day to dusk.
LIT = 0.75


@dataclass(frozen=True, kw_only=True, slots=True)
class DriveSettings:
    """Which drive is rendered; the same settings give the same frames."""

    seed: int = 0
    size: tuple[int, int] = (640, 360)
    """Width and height in pixels."""
    fps: float = 10.0
    seconds: float = 60.0
    split: Literal['train', 'demo'] = 'demo'
    lidar_every: int = 0
    """A LiDAR sweeps at every so many frames; 0 leaves it at home."""
    depth: bool = False
    """Whether the camera measures depth, too."""

    def open(self) -> Drive:
        """Return the drive."""
        return Drive(
            seed=self.seed, size=self.size, fps=self.fps, seconds=self.seconds, split=self.split,
            start_ns=START_NS,
        )  # fmt: skip


def write_drive(
    path: Path,
    settings: DriveSettings,
    *,
    processes: int = 0,
    force: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[int, bool]:
    """
    Render a drive into a bag and return whether each stamp (ns) belongs to its lit part.

    ``processes`` 0 takes one a CPU; their number changes nothing in the bag.
    """
    count = len(settings.open())
    lit: dict[int, bool] = {}
    with (
        BagWriter(path, force=force) as bag,
        _frames(settings, count, processes or os.cpu_count() or 1) as frames,
    ):
        if settings.lidar_every:
            bag.add_topic(
                Channel(topic='/tf_static', type='tf2_msgs/msg/TFMessage',
                        qos=(reliable_qos(latched=True),))
            )  # fmt: skip
            bag.write_transforms('/tf_static', PLACES, stamp_ns=START_NS)
        for number, (rendered, sweep) in enumerate(frames):
            stamp = rendered.stamp_ns
            frame = Frame(image=rendered.image, stamp_ns=stamp, frame_id='camera')
            bag.write_frame(IMAGE_TOPIC, frame)
            bag.write_labels(TRUTH_TOPIC, rendered.labels, stamp_ns=stamp, frame_id='camera')
            if settings.lidar_every or settings.depth:
                bag.write_calibration(
                    INFO_TOPIC, calibration(rendered.camera), stamp_ns=stamp, frame_id='camera'
                )
            if sweep is not None:
                bag.write_cloud(CLOUD_TOPIC, sweep.cloud(), stamp_ns=stamp, frame_id='lidar')
            if settings.depth:
                bag.write_depth(DEPTH_TOPIC, rendered.depth, stamp_ns=stamp, frame_id='camera')
            lit[stamp] = rendered.ambient >= LIT
            progress(number + 1, count)
    return lit


@contextmanager
def _frames(settings: DriveSettings, count: int, processes: int) -> Iterator[Iterator[Rendered]]:
    processes = min(processes, count)
    if processes == 1:
        drive = settings.open()
        yield (_rendered(drive, settings.lidar_every, index) for index in range(count))
        return
    # a fork would copy the locks of threads that this process may have
    context = multiprocessing.get_context('spawn')
    with context.Pool(processes, _open, (settings,)) as pool:
        yield pool.imap(_render, range(count), chunksize=2)


_drive: Drive | None = None
_lidar_every = 0


def _open(settings: DriveSettings) -> None:
    global _drive, _lidar_every
    import cv2

    cv2.setNumThreads(1)
    _drive, _lidar_every = settings.open(), settings.lidar_every


def _render(index: int) -> Rendered:
    assert _drive is not None
    return _rendered(_drive, _lidar_every, index)


def _rendered(drive: Drive, lidar_every: int, index: int) -> Rendered:
    sweeps = lidar_every and index % lidar_every == 0
    return drive.frame(index), scan(drive, index) if sweeps else None
