# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The SROS 2 policy allows what the running node does, and nothing else."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any
import xml.etree.ElementTree as ET

from cloud_harness import CloudProcess
from nightseg_ros.node.parameters import CloudSettings
import pytest
from rclpy.node import NodeNameNonExistentError
from ros_harness import Client, running, tiny_parameters
import sros2_policy

ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.ros, pytest.mark.slow]


def allowed(text: str, path: str, node: str) -> set[str]:
    """Return the names of a kind in a node's policy, absolute."""
    found = ET.fromstring(text).iterfind(f'.//profile[@node="{node}"]/{path}')
    names = [(element.text or '').replace('~', f'/{node}') for element in found]
    return {name if name.startswith('/') else f'/{name}' for name in names}


def compare(profile: Any, without: set[str]) -> None:
    """Wait until the graph of a running node is its policy, save for what is not installed."""
    node, text = profile.node, sros2_policy.policy([profile])
    client = Client(f'/{node}')
    wanted = {
        'publisher': allowed(text, 'topics[@publish]/topic', node) - without,
        'subscriber': allowed(text, 'topics[@subscribe]/topic', node) - without,
        'service': allowed(text, 'services[@reply]/service', node),
        'client': set(),
    }

    def graph() -> dict[str, set[str]]:
        def names(kind: str) -> set[str]:
            ask = getattr(client.node, f'get_{kind}_names_and_types_by_node')
            try:
                return {name for name, _ in ask(node, '/')}
            except NodeNameNonExistentError:  # not known yet
                return set()

        return {kind: names(kind) for kind in wanted}

    try:
        client.reach('active')
        # the graph is learned bit by bit
        client.until(lambda: graph() == wanted, 'the graph of the policy', timeout=20)
    except AssertionError:
        assert graph() == wanted
        raise
    finally:
        client.close()


def test_the_shipped_policy_is_that_of_the_defaults() -> None:
    shipped = (ROOT / 'config' / 'sros2_policy.xml').read_text(encoding='utf-8')
    assert shipped == sros2_policy.main([]), 'python bench/sros2_policy.py > it'
    assert 'semantic_cloud' not in sros2_policy.main(['front', '--clouds'])


@pytest.mark.parametrize(
    ('cameras', 'transport'),
    [(('camera',), 'raw'), (('front', 'side/left'), 'compressed')],
    ids=['shipped', 'two cameras'],
)
def test_the_policy_is_the_graph_of_night_perception(
    tmp_path: Path, cameras: tuple[str, ...], transport: str
) -> None:
    parameters = tiny_parameters(
        tmp_path, cameras=list(cameras), transport=transport, use_sim_time=True
    )
    latched = {f'/{camera}/nightseg/label_info' for camera in cameras}
    with running(tmp_path / 'node.log', parameters):
        compare(
            sros2_policy.night_perception(cameras, transport),
            set() if find_spec('vision_msgs') is not None else latched,
        )


@pytest.mark.parametrize(
    'given',
    [
        {},
        {
            'cameras': ['front', 'side/left'], 'sensors': ['lidar', 'roof/lidar'],
            'depth_cameras': ['front'], 'odometry': '/pose', 'confidence': False,
            'odometry_type': 'geometry_msgs/PoseStamped', 'use_tf': False,
        },
    ],
    ids=['shipped', 'all that it can'],
)  # fmt: skip
def test_the_policy_is_the_graph_of_semantic_cloud(tmp_path: Path, given: dict[str, Any]) -> None:
    without = set() if find_spec('tf2_ros') is not None else set(sros2_policy.TF)
    with running(tmp_path / 'node.log', {**given, 'use_sim_time': True}, kind=CloudProcess):
        compare(sros2_policy.semantic_cloud(CloudSettings(**given)), without)
