# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The SROS 2 policy of ``night_perception``: what it may publish, hear and answer, and nothing else.

``python -m nightseg_ros.node.sros2 front rear`` prints it for two cameras;
``config/sros2_policy.xml`` is that of the default one. Parameters are reached through the
services; which of them change anything at run time says ``parameters.PARAMETERS``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from html import escape

from nightseg_ros.node.topics import TOPICS
from nightseg_ros.perception.naming import NAMESPACE

NODE = 'night_perception'
PUBLISHED = ('/diagnostics', '/parameter_events', '/rosout', '~/transition_event')
#: Simulated time.
HEARD = ('/clock',)
SERVICES = (
    '~/change_state', '~/get_state', '~/get_available_states', '~/get_available_transitions',
    '~/get_transition_graph', '~/describe_parameters', '~/get_parameter_types',
    '~/get_parameters', '~/list_parameters', '~/set_parameters', '~/set_parameters_atomically',
    '~/get_type_description',
)  # fmt: skip


def published(cameras: Iterable[str]) -> list[str]:
    """Return the topics that the node publishes, relative to its namespace or absolute."""
    return [
        *PUBLISHED,
        *(f'{camera}/{NAMESPACE}/{topic.name}' for camera in cameras for topic in TOPICS),
    ]


def heard(cameras: Iterable[str], transport: str = 'raw') -> list[str]:
    """Return the topics that the node subscribes to."""
    image = 'image_raw/compressed' if transport == 'compressed' else 'image_raw'
    return [
        *HEARD,
        *(f'{camera}/{name}' for camera in cameras for name in (image, 'camera_info')),
    ]


def policy(cameras: Sequence[str], transport: str = 'raw') -> str:
    """Return the policy as XML for ``ros2 security create_permission``."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<!--',
        '  Copyright 2026 The nightseg developers',
        '  SPDX-License-Identifier: Apache-2.0',
        '',
        '  Written by `python -m nightseg_ros.node.sros2 CAMERA ...`; how to use it says',
        '  docs/security.md.',
        '-->',
        '<policy version="0.2.0">',
        '  <enclaves>',
        f'    <enclave path="/{NODE}">',
        '      <profiles>',
        f'        <profile ns="/" node="{NODE}">',
        *_block('topics', 'publish', 'topic', published(cameras)),
        *_block('topics', 'subscribe', 'topic', heard(cameras, transport)),
        *_block('services', 'reply', 'service', SERVICES),
        '        </profile>',
        '      </profiles>',
        '    </enclave>',
        '  </enclaves>',
        '</policy>',
    ]
    return '\n'.join(lines) + '\n'


def _block(kind: str, way: str, item: str, names: Iterable[str]) -> list[str]:
    inside = [f'            <{item}>{escape(name)}</{item}>' for name in sorted(names)]
    return [f'          <{kind} {way}="ALLOW">', *inside, f'          </{kind}>']


if __name__ == '__main__':
    sys.stdout.write(policy(sys.argv[1:] or ['camera']))
