# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What the view knows of one camera: its newest pictures, the values of its frames, its health."""

from __future__ import annotations

from array import array
from collections import Counter, deque
import math
import threading
import time
from typing import Any

import cv2
from nightseg_ros.node.messages import decode
from nightseg_ros.perception.frame import FrameError
from nightseg_ros.perception.result import NAMESPACE
import numpy as np

#: Seconds of the plotted score that a new page gets, and between two points of it.
HISTORY_S, POINT_S = 120.0, 0.1
#: Long side of a picture in pixels, and its quality as JPEG.
LONG_SIDE, QUALITY = 960, 80
#: Values of a camera in /diagnostics that the page shows.
SHOWN = ('input_hz', 'output_hz', 'latency_ms.p50', 'latency_ms.p95', 'received', 'served')


class Picture:
    """The newest picture of a topic; ``jpeg`` is called by the threads of the pages."""

    def __init__(self) -> None:
        """Wait for somebody who looks."""
        self.topic = ''
        self.subscription: Any = None
        self.watched = -math.inf
        """When somebody asked for it last."""
        self.problem = ''
        """Why the newest message is no picture."""
        self._newest: tuple[int, float, Any] = (0, 0.0, None)
        self._jpeg = (0, b'')
        self._lock = threading.Lock()

    @property
    def number(self) -> int:
        """How many have come."""
        return self._newest[0]

    def keep(self, message: Any) -> None:
        """Take the newest message in place of the one before."""
        self._newest = (self.number + 1, time.monotonic(), message)

    def jpeg(self) -> tuple[int, float, bytes]:
        """Return number, arrival and JPEG of the newest picture, b'' where it is none."""
        with self._lock:
            number, arrived, message = self._newest
            if self._jpeg[0] != number:
                try:
                    self._jpeg, self.problem = (number, encode(message)), ''
                except FrameError as error:
                    self._jpeg, self.problem = (number, b''), str(error)
            return number, arrived, self._jpeg[1]


def encode(message: Any, long_side: float = LONG_SIDE) -> bytes:
    """Return an Image or CompressedImage as a JPEG of at most that size, or ``FrameError``."""
    image, order = decode(message)
    height, width = image.shape[:2]
    scale = long_side / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    bgr = image if order == 'bgr' else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, content = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return content.tobytes() if done else b''


class Camera:
    """What is known of one camera, by the prefix of its outputs; times are ``time.monotonic``."""

    def __init__(self, number: int, prefix: str) -> None:
        """``prefix`` is such as /camera/nightseg."""
        self.number = number
        self.name = prefix.removesuffix(f'/{NAMESPACE}')
        self.frames, self.arrived = 0, -math.inf
        self.values: dict[str, str] = {}
        """Of the latest frame's status."""
        self.health: tuple[float, str, Any] | None = None
        """When /diagnostics told of it last, by which node, and what."""
        self.legend: Any = None
        self.points: deque[tuple[float, float | None, str]] = deque()
        """Time, score and state; the score is None where it is unknown."""
        self.routes: Counter[str] = Counter()
        self.switches, self.first = 0, math.inf
        self.latencies = array('d')
        """Milliseconds from the arrival of each frame in the node to its labels."""
        self.pictures = {'camera': Picture(), 'overlay': Picture()}
        self.pictures['overlay'].topic = f'{prefix}/overlay'

    @property
    def node(self) -> str:
        """Return the node that told of it, '' while none has."""
        return '' if self.health is None else self.health[1]

    def take(self, status: Any, now: float) -> None:
        """Keep the status of a frame."""
        self.values = values_of(status)
        self.frames, self.arrived, self.first = self.frames + 1, now, min(now, self.first)
        self.routes[self.values.get('route', '')] += 1
        self.switches += self.values.get('switched') == 'true'
        self.latencies.append(number_of(self.values.get('latency_ms.total')) or 0.0)
        if not self.points or now - self.points[-1][0] >= POINT_S:
            state = self.values.get('state', '')
            self.points.append((now, number_of(self.values.get('score')), state))
        while now - self.points[0][0] > HISTORY_S:
            self.points.popleft()

    def summary(self) -> dict[str, Any]:
        """Return the counts, rates, latencies and routes of all frames as JSON types."""
        counts = {} if self.health is None else values_of(self.health[2])
        lost = {key[8:]: int(n) for key, n in counts.items() if key.startswith('dropped.')}
        span = self.arrived - self.first
        return {
            # the node's own counts: the view may have come after the first frames
            'frames_in': int(counts.get('received', self.frames)),
            'frames_out': int(counts.get('served', self.frames)),
            'dropped': {reason: count for reason, count in lost.items() if count},
            'rate_hz': round((self.frames - 1) / span, 2) if self.frames > 1 else None,
            'latency_ms': {
                f'p{share}': round(float(np.percentile(self.latencies, share)), 1)
                if self.frames else None for share in (50, 95, 99)
            },
            'routes': dict(self.routes.most_common()), 'switches': self.switches,
        }  # fmt: skip

    def snapshot(self, now: float, since: float) -> dict[str, Any]:
        """Return all values as JSON types, and the points of the plot after ``since``."""
        found: dict[str, Any] = {
            'id': self.number, 'name': self.name, 'frames': self.frames,
            'age': round(now - self.arrived, 3) if self.frames else None, 'values': self.values,
            'points': [
                (round(now - when, 2), score, state)
                for when, score, state in self.points if when > since
            ],
            'legend': self.legend,
            'pictures': {
                kind: {'number': one.number, 'topic': one.topic, 'problem': one.problem}
                for kind, one in self.pictures.items()
            },
        }  # fmt: skip
        if self.health is not None:
            when, _, status = self.health
            values = values_of(status)
            lost = {key: value for key, value in values.items() if key.startswith('dropped.')}
            found['health'] = told(when, status, now)
            found['health'] |= {key: values.get(key) for key in SHOWN} | {'lost': lost}
        return found


def values_of(status: Any) -> dict[str, str]:
    """Return the values of a status."""
    return {item.key: item.value for item in status.values}


def number_of(text: str | None) -> float | None:
    """Return a finite number, None for any other text."""
    try:
        value = float(text or '')
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def told(when: float, status: Any, now: float) -> dict[str, Any]:
    """Return what /diagnostics told as JSON types."""
    level = ('OK', 'WARN', 'ERROR', 'STALE')[min(status.level[0], 3)]
    return {'level': level, 'message': status.message, 'age': round(now - when, 3)}
