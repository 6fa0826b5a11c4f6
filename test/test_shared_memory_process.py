# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What real processes leave in /dev/shm, however they end."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_weights
from cloud_harness import PARAMETERS, CloudProcess
from ros_harness import Client, NodeProcess, image_message, picture, running

from nightseg_ros.shared_memory import SETTLED

pytestmark = pytest.mark.ros

SECOND = 1_000_000_000
LABELS = 'camera/nightseg/labels'


class Night(NodeProcess):
    """The node, configured with tiny networks."""

    name = '/night_perception'


class Cloud(CloudProcess):
    name = '/semantic_cloud'


class Loading(Night):
    """The node whose networks take long to load."""

    command = (
        '-c',
        'import time\n'
        'from nightseg_ros.node import main, night_perception\n'
        'night_perception.NightPerception._load = lambda node: time.sleep(100)\n'
        'main.main()',
    )


class Failing(Night):
    """The node with a timer that only fails, once it is active."""

    command = (
        '-c',
        'from nightseg_ros.node import main, night_perception\n'
        'class Failing(night_perception.NightPerception):\n'
        '    def _begin(self):\n'
        '        self.create_timer(0.2, lambda: 1 / 0)\n'
        '        return super()._begin()\n'
        'night_perception.NightPerception = Failing\n'
        'main.main()',
    )


@pytest.fixture(scope='module')
def parameters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    files = tiny_weights.write_all(tmp_path_factory.mktemp('weights'))
    return {**{n: str(path) for n, path in files.items()}, 'backend': 'torch', 'threads': 1}


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.close()


def large(segments: set[Path]) -> int:
    """Return how many of them exist and are those of the profile for large images."""
    return sum(path.exists() and path.stat().st_size > 60_000_000 for path in segments)


def left(segments: set[Path]) -> list[str]:
    return [path.name for path in segments if path.exists()]


def serve(client: Client, stamp_ns: int) -> None:
    """Let the node answer a frame."""
    camera = client.publisher('camera/image_raw')
    client.listen(LABELS)
    client.connect(camera)
    client.exchange(camera, image_message(picture(), stamp_ns), LABELS)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('state', ['active', 'inactive', 'unconfigured'])
def test_night_perception_leaves_nothing(
    client: Client, parameters: dict[str, object], tmp_path: Path, number: int, state: str
) -> None:
    with running(tmp_path / 'log', parameters, kind=Night) as node:
        client.reach('active')
        serve(client, SECOND)
        if state != 'active':
            assert client.transition('deactivate')
        if state == 'unconfigured':
            assert client.transition('cleanup')
        segments = node.segments()
        assert large(segments) == 1
        assert node.stop(number) == 0
        assert left(segments) == []


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_semantic_cloud_leaves_nothing(tmp_path: Path, number: int) -> None:
    client = Client(Cloud.name)
    with running(tmp_path / 'log', PARAMETERS, kind=Cloud) as node:
        client.reach('active')
        segments = node.segments()
        assert large(segments) == 1
        assert node.stop(number) == 0
        assert left(segments) == []
    client.close()


def test_a_node_that_cannot_be_destroyed_in_time_leaves_nothing(
    parameters: dict[str, object], tmp_path: Path
) -> None:
    with running(tmp_path / 'log', parameters, kind=Loading) as node:
        segments = until_made(node)
        time.sleep(1.0)
        assert node.stop(signal.SIGTERM) == 0
        assert left(segments) == []


def test_a_node_that_gives_up_leaves_nothing(
    parameters: dict[str, object], tmp_path: Path
) -> None:
    with running(tmp_path / 'log', parameters, kind=Failing) as node:
        segments = until_made(node)
        assert node.process.wait(60) == 1
        assert 'too many errors in callbacks; giving up' in node.text
        assert left(segments) == []


@pytest.mark.parametrize('kind', [Night, Cloud])
def test_a_killed_node_is_cleaned_up_by_the_next_one_and_only_it(
    parameters: dict[str, object], tmp_path: Path, kind: type[Night | Cloud]
) -> None:
    given = parameters if kind is Night else PARAMETERS
    with running(tmp_path / 'log', given, kind=kind) as alive:
        with running(tmp_path / 'log2', given, kind=kind) as killed:
            until_made(alive)
            segments = until_made(killed)
            killed.process.kill()
            assert killed.process.wait(20) == -signal.SIGKILL
        assert large(segments) == 1
        # while it is young it could belong to somebody who starts
        time.sleep(SETTLED)
        with running(tmp_path / 'log3', given, kind=kind) as successor:
            until_made(successor)
            assert left(segments) == []
            assert large(alive.segments()) == large(successor.segments()) == 1


def until_made(node: NodeProcess) -> set[Path]:
    """Return the segments of a process once it has the large one."""
    end = time.monotonic() + 60
    while not large(segments := node.segments()):
        assert time.monotonic() < end and node.process.poll() is None, node.text
        time.sleep(0.05)
    return segments
