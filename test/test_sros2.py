# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The SROS 2 policy allows what the running node does, and nothing else."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_weights
from ros_harness import Client, running

from nightseg_ros.node.label_info import vision_msgs
from nightseg_ros.node.sros2 import policy

FILE = Path(__file__).parent.parent / 'config' / 'sros2_policy.xml'
NODE = 'night_perception'
pytestmark = pytest.mark.ros


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.close()


def allowed(text: str, path: str) -> set[str]:
    """Return the names of a kind in a policy, absolute."""
    found = ET.fromstring(text).iterfind(f'.//profile/{path}')
    return {absolute(element.text or '') for element in found}


def absolute(name: str) -> str:
    if name.startswith('~/'):
        return f'/{NODE}/{name[2:]}'
    return name if name.startswith('/') else f'/{name}'


@pytest.mark.parametrize(
    ('cameras', 'transport'),
    [(('camera',), 'raw'), (('front', 'side/left'), 'compressed')],
    ids=['shipped', 'two cameras'],
)
def test_the_policy_is_the_graph_of_the_running_node(
    client: Client, tmp_path: Path, cameras: tuple[str, ...], transport: str
) -> None:
    files = tiny_weights.write_all(tmp_path)
    parameters = {
        **{name: str(path) for name, path in files.items()}, 'backend': 'torch', 'threads': 1,
        'cameras': list(cameras), 'transport': transport, 'use_sim_time': True,
    }  # fmt: skip
    text = policy(cameras, transport)
    if transport == 'raw':
        assert FILE.read_text(encoding='utf-8') == text, 'python -m nightseg_ros.node.sros2 > it'
    latched = {f'/{camera}/nightseg/label_info' for camera in cameras}
    without = set() if vision_msgs() is not None else latched
    with running(tmp_path / 'node.log', parameters):
        client.reach('active')

        def names(kind: str) -> set[str]:
            ask = getattr(client.node, f'get_{kind}_names_and_types_by_node')
            return {name for name, _ in ask(NODE, '/')}

        def whole() -> bool:
            return (
                names('publisher') | without == allowed(text, 'topics[@publish]/topic')
                and names('subscriber') == allowed(text, 'topics[@subscribe]/topic')
                and names('service') == allowed(text, 'services[@reply]/service')
            )

        try:
            # the graph is learned bit by bit
            client.until(whole, 'the graph of the policy', timeout=20)
        except AssertionError:
            assert names('publisher') | without == allowed(text, 'topics[@publish]/topic')
            assert names('subscriber') == allowed(text, 'topics[@subscribe]/topic')
            assert names('service') == allowed(text, 'services[@reply]/service')
            raise
        assert names('client') == set()
