# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What a report draws of ``frames.jsonl``, kept small: a drive may have millions of frames."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nightseg_ros.evaluation.report.data import find, real

Floats = npt.NDArray[np.float64]

#: What is drawn along a drive as a curve, and as steps.
CURVES = ('score', 'miou', 'confidence', 'flicker_warped')
STEPS = ('state', 'route', 'light', 'error')


@dataclass(kw_only=True)
class Track:
    """One configuration along one recording of one camera; one entry a frame."""

    stamps: array[int] = field(default_factory=lambda: array('q'))
    values: dict[str, array[float]] = field(
        default_factory=lambda: {name: array('f') for name in CURVES}
    )
    names: dict[str, array[int]] = field(
        default_factory=lambda: {name: array('h') for name in STEPS}
    )

    def seconds(self) -> Floats:
        """Return float64 [frames]: seconds since the first frame."""
        stamps = np.frombuffer(self.stamps, np.int64)
        return np.asarray((stamps - stamps.min(initial=stamps[0])) / 1e9, np.float64)

    def curve(self, name: str) -> Floats:
        """Return float64 [frames]; NaN where a frame has no value."""
        return np.frombuffer(self.values[name], np.float32).astype(np.float64)


class Tracks:
    """Every frame of ``frames.jsonl``, without what is not drawn: about 40 bytes a frame."""

    def __init__(self, lines: Iterator[Mapping[str, Any]]) -> None:
        """Read the lines, in order."""
        self.names: list[str] = ['']
        """What the numbers of ``Track.names`` stand for."""
        self.tracks: dict[tuple[str, str, str], Track] = {}
        codes = {'': 0}
        for line in lines:
            stamp = find(line, 'stamp')
            if not isinstance(stamp, int):
                continue
            key = tuple(str(line.get(name) or '') for name in ('run', 'source', 'camera'))
            track = self.tracks.setdefault((key[0], key[1], key[2]), Track())
            track.stamps.append(stamp)
            for name, values in track.values.items():
                value = real(line, name)
                values.append(math.nan if value is None else value)
            for name, numbers in track.names.items():
                text = 'no mask' if name == 'error' and line.get(name) else line.get(name)
                text = text if isinstance(text, str) else ''
                if text not in codes and len(codes) < 1000:
                    codes[text] = len(self.names)
                    self.names.append(text)
                numbers.append(codes.get(text, 0))

    def steps(self, track: Track, name: str) -> list[str]:
        """Return one name a frame, '' where there is none."""
        return [self.names[number] for number in track.names[name]]
