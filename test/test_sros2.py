# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The SROS 2 policy allows what the running nodes do, and nothing else."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any
import xml.etree.ElementTree as ET

from cloud_harness import CloudProcess
from nightseg_ros.clouds.painter import PaintConfig
from nightseg_ros.node.parameters import CloudSettings
import pytest
from rclpy.node import NodeNameNonExistentError
from ros_harness import Client, served
import sros2_policy

ROOT = Path(__file__).parent.parent


def allowed(text: str, path: str, node: str) -> set[str]:
    """Return the names of a kind in a node's policy, absolute."""
    found = ET.fromstring(text).iterfind(f'.//profile[@node="{node}"]/{path}')
    names = [(element.text or '').replace('~', f'/{node}') for element in found]
    return {name if name.startswith('/') else f'/{name}' for name in names}


def compare(client: Client, profile: Any, without: set[str]) -> None:
    """Wait until the graph of a running node is its policy, save for what is not installed."""
    node, text = profile.node, sros2_policy.policy([profile])
    wanted = {
        'publisher': allowed(text, 'topics[@publish]/topic', node) - without,
        'subscriber': allowed(text, 'topics[@subscribe]/topic', node) - without,
        'service': allowed(text, 'services[@reply]/service', node),
        'client': set(),
    }

    def names(kind: str) -> set[str]:
        ask = getattr(client.node, f'get_{kind}_names_and_types_by_node')
        try:
            return {name for name, _ in ask(node, '/')}
        except NodeNameNonExistentError:  # not known yet
            return set()

    try:
        # the graph is learned bit by bit
        client.until(lambda: all(names(k) == wanted[k] for k in wanted), 'the graph', timeout=20)
    except AssertionError:
        assert {kind: names(kind) for kind in wanted} == wanted
        raise


def test_the_shipped_policy_is_that_of_the_defaults():
    shipped = (ROOT / 'config' / 'sros2_policy.xml').read_text(encoding='utf-8')
    assert shipped == sros2_policy.main([]), 'python bench/sros2_policy.py > it'
    assert 'semantic_cloud' not in sros2_policy.main(['front', '--clouds'])


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize(
    ('cameras', 'transport', 'clouds'),
    [
        (('camera',), 'raw', {}),
        (
            ('front', 'side/left'), 'compressed',
            {
                'cameras': ['front', 'side/left'], 'sensors': ['lidar', 'roof/lidar'],
                'depth_cameras': ['front'], 'odometry': '/pose', 'confidence': False,
                'odometry_type': 'geometry_msgs/PoseStamped', 'use_tf': False,
            },
        ),
    ],
    ids=['shipped', 'all that they can'],
)  # fmt: skip
def test_the_policy_is_the_graph_of_both_nodes(parameters, tmp_path, cameras, transport, clouds):
    perception = sros2_policy.night_perception(cameras, transport)
    latched = {f'/{camera}/nightseg/label_info' for camera in cameras}
    given = {'cameras': list(cameras), 'transport': transport, 'use_sim_time': True}
    painting = {**clouds, 'use_sim_time': True}
    (tmp_path / 'clouds').mkdir()
    with (
        served(tmp_path, {**parameters, **given}) as client,
        served(tmp_path / 'clouds', painting, kind=CloudProcess) as other,
    ):
        compare(client, perception, set() if find_spec('vision_msgs') else latched)
        without = set() if find_spec('tf2_ros') else set(sros2_policy.TF)
        given = {name: value for name, value in clouds.items() if name != 'confidence'}
        paint = PaintConfig(confidence=clouds.get('confidence', True))
        settings = CloudSettings(**given, painting=paint)
        compare(other, sros2_policy.semantic_cloud(settings), without)
