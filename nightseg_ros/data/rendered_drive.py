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

from nightseg_ros.bags.writer import BagWriter
from nightseg_ros.perception.frame import Frame
from nightseg_ros.simulation import Drive, DriveFrame

IMAGE_TOPIC = '/camera/image_raw'
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
        for number, rendered in enumerate(frames):
            stamp = rendered.stamp_ns
            frame = Frame(image=rendered.image, stamp_ns=stamp, frame_id='camera')
            bag.write_frame(IMAGE_TOPIC, frame)
            bag.write_labels(TRUTH_TOPIC, rendered.labels, stamp_ns=stamp, frame_id='camera')
            lit[stamp] = rendered.ambient >= LIT
            progress(number + 1, count)
    return lit


@contextmanager
def _frames(settings: DriveSettings, count: int, processes: int) -> Iterator[Iterator[DriveFrame]]:
    processes = min(processes, count)
    if processes == 1:
        yield iter(settings.open())
        return
    # a fork would copy the locks of threads that this process may have
    context = multiprocessing.get_context('spawn')
    with context.Pool(processes, _open, (settings,)) as pool:
        yield pool.imap(_render, range(count), chunksize=2)


_drive: Drive | None = None


def _open(settings: DriveSettings) -> None:
    global _drive
    import cv2

    cv2.setNumThreads(1)
    _drive = settings.open()


def _render(index: int) -> DriveFrame:
    assert _drive is not None
    return _drive.frame(index)
