# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Every topic of a camera, in one table, with the types by name.

``python -m nightseg_ros.node.topics`` prints the README's table.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Topic:
    """One topic under ``<camera>/nightseg/``."""

    name: str
    kind: str
    """Package and type."""
    text: str
    latched: bool = False
    """Whether late subscribers get the last message (transient local)."""


#: In the order of publishing: what a planner waits for comes first.
TOPICS: tuple[Topic, ...] = (
    Topic(name='labels', kind='sensor_msgs/Image',
          text='mono8: the id of each pixel, 255 unlabelled'),
    Topic(name='labels/compressed', kind='sensor_msgs/CompressedImage',
          text='the same as PNG, `mono8; png compressed mono8`'),
    Topic(name='confidence', kind='sensor_msgs/Image',
          text='mono8: softmax of the winning class, 0 to 255'),
    Topic(name='camera_info', kind='sensor_msgs/CameraInfo',
          text="the input's, scaled with the labels"),
    Topic(name='color', kind='sensor_msgs/Image',
          text='rgb8: the labels in the colours of their classes'),
    Topic(name='overlay', kind='sensor_msgs/Image', text='rgb8: the colours over the picture'),
    Topic(name='overlay/compressed', kind='sensor_msgs/CompressedImage',
          text='the same as JPEG, `rgb8; jpeg compressed bgr8`'),
    Topic(name='translated', kind='sensor_msgs/Image',
          text='rgb8: what the route translate makes of the night'),
    Topic(name='illumination', kind='std_msgs/Float32',
          text='0 (dark) to 1 (daylight), for plotting'),
    Topic(name='status', kind='diagnostic_msgs/DiagnosticArray',
          text='of each frame: score, state, route, reason, reliability, latency by stage, age'),
    Topic(name='label_info', kind='vision_msgs/LabelInfo', latched=True,
          text='names of the ids, where vision_msgs is installed'),
    Topic(name='label_info_json', kind='std_msgs/String', latched=True,
          text='names and colours of the ids as JSON'),
)  # fmt: skip


def markdown() -> str:
    """Return the README's table."""
    rows = ['| Topic under `<camera>/nightseg/` | Type | Content |', '|---|---|---|']
    for topic in TOPICS:
        latched = ' (transient local)' if topic.latched else ''
        rows.append(f'| `{topic.name}` | {topic.kind} | {topic.text}{latched} |')
    return '\n'.join(rows) + '\n'


if __name__ == '__main__':
    sys.stdout.write(markdown())
