# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
The whole run, with every process that it starts, lives in a ROS domain of its own.

No test module may leave a segment of such a process in /dev/shm.
"""

from collections.abc import Iterator
from importlib.util import find_spec
import logging
import os
from pathlib import Path
import re
import signal
from typing import Any

from hypothesis import settings
from nightseg_ros.dds import private_domain
from nightseg_ros.shared_memory import remove_orphans
import pytest
from segment_watch import SegmentWatch

# torch, which reads it when it is imported: on tiny networks two threads of each of several
# processes only wait for one another, which takes 30 times as long on a busy machine
os.environ.setdefault('OMP_NUM_THREADS', '1')
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # started in the background of a script; the processes of the tests must hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
# nor have they been started by nohup
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# how long an example takes says what else the machine does
settings.register_profile('nightseg', deadline=None)
settings.load_profile('nightseg')

HAS_ROS = find_spec('rclpy') is not None
#: Imports that fail without ROS 2.
NEEDS_ROS = re.compile(
    r'^(from|import) (rclpy|\w+_msgs|\w+_harness|nightseg_ros\.node|node_tables|sros2_policy)\b',
    re.MULTILINE,
)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out the files that cannot be imported without ROS 2 where there is none."""
    if HAS_ROS or collection_path.suffix != '.py':
        return None
    return bool(NEEDS_ROS.search(collection_path.read_text())) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the half of the tests that TEST_HALF names; see the Makefile."""
    if half := os.environ.get('TEST_HALF'):
        items[:] = [i for i in items if (i.get_closest_marker('ros') is None) == (half != 'ros')]


def pytest_report_header() -> str:
    return '' if HAS_ROS else 'rclpy is neither installed nor sourced: tests of nodes are left out'


@pytest.fixture(scope='session', autouse=True)
def _private_ros_domain() -> Iterator[None]:
    with private_domain() as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(autouse=True)
def _own_log_level() -> Iterator[None]:
    """Let no verb that a test called choose what the tests after it see."""
    logger = logging.getLogger('nightseg_ros')
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(scope='session')
def _segment_watch() -> Iterator[SegmentWatch]:
    # other runs on this machine have their own name, and their segments do not count here
    watch = SegmentWatch(os.environ)
    yield watch
    watch.close()


@pytest.fixture(scope='module', autouse=True)
def _nothing_stays_in_shared_memory(
    request: pytest.FixtureRequest, _segment_watch: SegmentWatch
) -> Iterator[None]:
    """
    Fail a module whose processes left a segment, unless KILLS says why they must.

    What they left is removed either way, but for what another process still has open.
    """
    _segment_watch.begin()
    yield
    left = _segment_watch.left()
    if left:
        remove_orphans(settled=0.0, only=left)
        if not getattr(request.module, 'KILLS', ''):
            pytest.fail(f'left in /dev/shm: {sorted(left)}')


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the test's own cache of graphs."""
    monkeypatch.setenv('NIGHTSEG_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.fixture(scope='module')
def module_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the tests of a module a cache of graphs of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('NIGHTSEG_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture(scope='session')
def parameters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the parameters of a node with tiny networks."""
    from ros_harness import tiny_parameters

    return tiny_parameters(tmp_path_factory.mktemp('weights'))


@pytest.fixture
def client() -> Iterator[Any]:
    """Yield a client of night_perception that reads the diagnostics."""
    from ros_harness import Client

    with Client() as client:
        yield client
