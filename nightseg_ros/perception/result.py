# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What is asked of a frame, what became of it, and what topics say of it, live and in bags.

Only this file knows the names below which a camera's results belong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import json
import math
import re
from typing import Literal, TYPE_CHECKING

from nightseg_ros.taxonomy import Taxonomy, UNLABELLED
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from nightseg_ros.perception.frame import Frame
    from nightseg_ros.perception.illumination import Illumination
    from nightseg_ros.perception.router import Decision

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class Want:
    """Which pictures of a frame somebody asked for; nothing else is computed."""

    labels: bool = True
    confidence: bool = False
    color: bool = False
    overlay: bool = False
    translated: bool = False


LABELS_ONLY = Want()
#: The light and the route alone; no network runs.
NOTHING = Want(labels=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What became of one frame; pictures that nobody wanted are None."""

    frame: Frame
    illumination: Illumination
    decision: Decision
    labels: Image | None = None
    """uint8 [H, W] ids of the pipeline's taxonomy, the camera's own size."""
    confidence: Image | None = None
    """uint8 [H, W], 0–255: the winning class's softmax."""
    reliability: float | None = None
    """How far the whole mask can be trusted, 0 to 1; None where no network ran."""
    color: Image | None = None
    """uint8 [H, W, 3] RGB."""
    overlay: Image | None = None
    """uint8 [H, W, 3] RGB."""
    translated: Image | None = None
    """uint8 [H, W, 3] RGB; only on the route 'translate'."""
    ms: dict[str, float] = field(default_factory=dict)
    """Milliseconds by stage: estimate, shrink, network, post, render. A batch shares its time."""


#: Milliseconds from a frame's arrival to its first output above which its status is a warning.
SLOW_MS = 1200.0


def report(
    result: Result, latency_ms: Mapping[str, float], age_s: float | None
) -> tuple[Literal['OK', 'WARN'], str, dict[str, str]]:
    """
    Return level, message and values of a frame's ``diagnostic_msgs/DiagnosticStatus``.

    ``latency_ms`` by stage, empty offline; ``age_s`` from the stamp to the publishing of the
    labels, None where nobody knows. Numbers have three decimals.
    """
    light, decision = result.illumination, result.decision
    scored = math.isfinite(light.score)
    values: dict[str, object] = {
        'score': light.score if scored else 'unknown',
        'state': decision.state,
        'seen': light.state,
        'route': decision.route,
        'switched': decision.switched,
        'reason': decision.reason,
        'reliability': 'not computed' if result.reliability is None else result.reliability,
        'age_s': 'unknown' if age_s is None else age_s,
        **{f'latency_ms.{stage}': value for stage, value in latency_ms.items()},
    }
    message = f'{decision.state}: route {decision.route}' if scored else 'the light is unknown'
    total = latency_ms.get('total', 0.0)
    if total > SLOW_MS:
        message += f'; slow: {total:.0f} ms'
    level: Literal['OK', 'WARN'] = 'OK' if scored and total <= SLOW_MS else 'WARN'
    return level, message, {key: in_words(value) for key, value in values.items()}


def legend(taxonomy: Taxonomy) -> str:
    """Return the classes with ids and colours as JSON, as Nav2 and people can read it."""
    pairs = enumerate(zip(taxonomy.classes, taxonomy.colors))
    classes = [{'id': index, 'name': name, 'color': color} for index, (name, color) in pairs]
    return json.dumps({'taxonomy': taxonomy.name, 'unlabelled': UNLABELLED, 'classes': classes})


def in_words(value: object) -> str:
    """Return a value of a status as text."""
    if isinstance(value, bool):
        return 'true' if value else 'false'
    return f'{value:.3f}' if isinstance(value, float) else str(value)


#: Type of an image topic by the transport whose name its own one ends in.
TRANSPORTS = {
    'raw': 'sensor_msgs/Image',
    'compressed': 'sensor_msgs/CompressedImage',
    'ffmpeg': 'ffmpeg_image_transport_msgs/FFMPEGPacket',
    'foxglove': 'foxglove_msgs/CompressedVideo',
}


def transport_of(topic: str) -> str:
    """Return the transport that the last word of a topic's name tells, 'raw' where it is none."""
    last = re.split('[/_]', topic)[-1]
    return last if last in TRANSPORTS else 'raw'


#: Last part of the name below which a camera's results are published.
NAMESPACE = 'nightseg'


def base_topic(topic: str) -> str:
    """Return the image topic that a transport's topic belongs to: /a/image for /a/image/ffmpeg."""
    return re.sub('/(compressed|ffmpeg|foxglove)$', '', topic)


def is_output(topic: str) -> bool:
    """Tell whether a topic is an output of ours: /front/nightseg/labels, also by a transport."""
    return base_topic(topic).split('/')[-2:-1] == [NAMESPACE]


def output_prefixes(topics: Sequence[str]) -> list[str]:
    """
    Return what each camera's output topics begin with, its image topic being given.

    ``/front/image_raw`` has its labels on ``/front/nightseg/labels``. Two images of one parent, or
    of none to speak of, are told apart by the whole topic.
    """
    stems = list(map(base_topic, topics))
    parents = [stem.rpartition('/')[0] for stem in stems]
    return [
        f'{parent if parents.count(parent) == 1 and parent else stem}/{NAMESPACE}'
        for parent, stem in zip(parents, stems)
    ]
