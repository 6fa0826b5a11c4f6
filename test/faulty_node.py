# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
``night_perception`` whose networks do what the file named by NIGHTSEG_FAULT says.

'' nothing, 'slow S' sleeps S seconds a batch, 'hang' never comes back, 'seize' keeps the
interpreter's lock as well, 'die' ends the thread, 'memory N' refuses batches of more than N images
as a full device does, 'nan' gives what a network without numbers gives, 'load' hangs while
loading, 'marker' labels light pixels 1 and dark ones 0, with the confidence 200 and 100, in up to
30 ms a batch. The backend calls itself 'gpu' unless the CPU is asked for.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
import random
import time
from typing import Any

from nightseg_ros.node.main import main
from nightseg_ros.perception import pipeline as loading
import numpy as np

FILE = Path(os.environ['NIGHTSEG_FAULT'])
FOREVER = 1000
DICE = random.Random(7)


class FaultyBackend:
    """A real backend with a will of its own."""

    opened = 0

    def __init__(self, real: Any) -> None:
        self._real = real
        # the one that is opened in its place is asked for the CPU
        self.device = 'cpu' if FaultyBackend.opened else 'gpu'
        self.batches = (1,) if self.device == 'cpu' else (1, 2, 4)
        FaultyBackend.opened += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def load(self, *arguments: Any) -> Any:
        if fault()[0] == 'load':
            time.sleep(FOREVER)
        run = self._real.load(*arguments)

        def faulty(images: Any) -> Any:
            kind, number = fault()
            if kind == 'slow':
                time.sleep(number)
            elif kind == 'hang':
                time.sleep(FOREVER)
            elif kind == 'seize':
                ctypes.PyDLL(None).sleep(FOREVER)
            elif kind == 'die':
                raise SystemExit
            elif kind == 'memory' and self.device != 'cpu':
                time.sleep(0.1)  # frames of both cameras gather meanwhile
                if len(images) > number:
                    raise MemoryError(f'no memory for {len(images)} images')
            elif kind == 'marker':
                # frames wait, are superseded, and share batches
                time.sleep(DICE.random() * 0.03)
                light = images[:, ::2, ::2].mean(axis=3) > 127
                confidence = np.where(light, 200, 100).astype(np.uint8)
                return light.astype(np.uint8), confidence, np.ones(len(images), np.float32)
            labels, *others = run(images)
            return (np.full_like(labels, 255) if kind == 'nan' else labels, *others)

        return faulty


def fault() -> tuple[str, float]:
    kind, _, number = FILE.read_text().strip().partition(' ')
    return kind, float(number or 0)


real_open = loading.open_backend


def open_backend(name: str = 'auto', device: str = 'auto', threads: int = 0) -> Any:
    return FaultyBackend(real_open(name, 'cpu', threads))


if __name__ == '__main__':
    loading.open_backend = open_backend  # type: ignore[assignment]
    main()
