# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What a live run did: frames, latencies and routes, from its logs and the recorded bag."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from nightseg_ros.bags.errors import BagError
from nightseg_ros.bags.reader import BagReader
from nightseg_ros.perception.frame import Frame

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
