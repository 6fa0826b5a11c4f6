# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The SROS 2 policy of the nodes: what each may publish, hear and answer, and nothing else.

``python bench/sros2_policy.py front rear --clouds lidar`` prints it for two cameras and a
LiDAR; ``config/sros2_policy.xml`` is that of the defaults. Parameters are reached through the
services; which of them change anything at run time says ``parameters.PARAMETERS``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
import sys

from nightseg_ros.node.camera import TOPICS
from nightseg_ros.node.parameters import CloudSettings
from nightseg_ros.perception.result import NAMESPACE

PUBLISHED = ('/diagnostics', '/parameter_events', '/rosout', '~/transition_event')
#: Simulated time.
HEARD = ('/clock',)
TF = ('/tf', '/tf_static')
SERVICES = (
    '~/change_state', '~/get_state', '~/get_available_states', '~/get_available_transitions',
    '~/get_transition_graph', '~/describe_parameters', '~/get_parameter_types',
    '~/get_parameters', '~/list_parameters', '~/set_parameters', '~/set_parameters_atomically',
    '~/get_type_description',
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """A node and its topics, relative to its namespace or absolute, without those of every one."""

    node: str
    publishes: tuple[str, ...]
    hears: tuple[str, ...]


def night_perception(cameras: Sequence[str], transport: str = 'raw') -> Profile:
    """Return the profile of the node that makes the masks."""
    image = 'image_raw/compressed' if transport == 'compressed' else 'image_raw'
    return Profile(
        node='night_perception',
        publishes=tuple(f'{c}/{NAMESPACE}/{topic.name}' for c in cameras for topic in TOPICS),
        hears=tuple(f'{c}/{name}' for c in cameras for name in (image, 'camera_info')),
    )


def semantic_cloud(settings: CloudSettings) -> Profile:
    """Return the profile of the node that paints clouds."""
    masks = ['labels', 'label_info_json', *(['confidence'] if settings.paint.confidence else [])]
    hears = [f'{c}/{NAMESPACE}/{name}' for c in settings.paint.cameras for name in masks]
    hears += [*settings.calibration_topics, *(sensor.topic for sensor in settings.point_sources)]
    hears += [settings.odometry] if settings.odometry else []
    hears += TF if settings.use_tf else ()
    return Profile(
        node='semantic_cloud', hears=tuple(hears),
        publishes=tuple(f'{sensor.output}/points' for sensor in settings.point_sources),
    )  # fmt: skip


def policy(profiles: Iterable[Profile]) -> str:
    """Return the policy as XML for ``ros2 security create_permission``, an enclave a node."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<!--',
        '  Copyright 2026 The nightseg developers',
        '  SPDX-License-Identifier: Apache-2.0',
        '',
        '  Written by `python bench/sros2_policy.py CAMERA ...`; how to use it says',
        '  docs/security.md.',
        '-->',
        '<policy version="0.2.0">',
        '  <enclaves>',
    ]
    for profile in profiles:
        lines += [
            f'    <enclave path="/{profile.node}">',
            '      <profiles>',
            f'        <profile ns="/" node="{profile.node}">',
            *_block('topics', 'publish', 'topic', (*PUBLISHED, *profile.publishes)),
            *_block('topics', 'subscribe', 'topic', (*HEARD, *profile.hears)),
            *_block('services', 'reply', 'service', SERVICES),
            '        </profile>',
            '      </profiles>',
            '    </enclave>',
        ]
    lines += ['  </enclaves>', '</policy>']
    return '\n'.join(lines) + '\n'


def _block(kind: str, way: str, item: str, names: Iterable[str]) -> list[str]:
    inside = [f'            <{item}>{escape(name)}</{item}>' for name in sorted(names)]
    return [f'          <{kind} {way}="ALLOW">', *inside, f'          </{kind}>']


def main(arguments: Sequence[str]) -> str:
    """Return the policy that a command line asks for."""
    parser = argparse.ArgumentParser(prog='python bench/sros2_policy.py')
    parser.add_argument('cameras', nargs='*', default=['camera'])
    parser.add_argument('--transport', choices=('raw', 'compressed'), default='raw')
    parser.add_argument('--clouds', nargs='*', default=['lidar'], metavar='LIDAR')
    parser.add_argument('--depth', nargs='*', default=[], metavar='CAMERA')
    parser.add_argument('--odometry', default='', metavar='TOPIC')
    asked = parser.parse_args(arguments)
    profiles = [night_perception(asked.cameras, asked.transport)]
    if asked.clouds or asked.depth:
        settings = CloudSettings(
            cameras=asked.cameras, sensors=asked.clouds, depth_cameras=asked.depth,
            odometry=asked.odometry,
        )  # fmt: skip
        profiles.append(semantic_cloud(settings))
    return policy(profiles)


if __name__ == '__main__':
    sys.stdout.write(main(sys.argv[1:]))
