# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What real processes leave in /dev/shm, however they end."""

import signal
import time

from cloud_harness import CloudProcess, PARAMETERS
from nightseg_ros.shared_memory import SETTLED
import pytest
from ros_harness import large, node_with, running, served

pytestmark = [pytest.mark.ros, pytest.mark.slow]


# night_perception: wherever a test ends it by a signal (NodeProcess.ends)
def test_semantic_cloud_leaves_nothing(tmp_path):
    with served(tmp_path, PARAMETERS, kind=CloudProcess) as client:
        assert large(client.process.segments()) == 1
        client.process.ends(signal.SIGTERM)


def test_a_node_that_cannot_be_destroyed_in_time_leaves_nothing(parameters, tmp_path):
    loading = node_with('worker.Pipeline.load = lambda *given, **more: time.sleep(100)')
    with running(tmp_path / 'log', parameters, kind=loading) as node:
        segments = node.until_segments()
        time.sleep(1.0)
        assert node.stop(signal.SIGTERM) == 0
        assert not [path for path in segments if path.exists()]


def test_a_killed_node_is_cleaned_up_by_the_next_one_and_only_it(tmp_path):
    with running(tmp_path / 'log', PARAMETERS, kind=CloudProcess) as alive:
        with running(tmp_path / 'log2', PARAMETERS, kind=CloudProcess) as killed:
            alive.until_segments()
            segments = killed.until_segments()
            killed.process.kill()
            assert killed.process.wait(20) == -signal.SIGKILL
        assert large(segments) == 1
        # while it is young it could belong to somebody who starts
        time.sleep(SETTLED)
        with running(tmp_path / 'log3', PARAMETERS, kind=CloudProcess) as successor:
            successor.until_segments()
            assert not [path for path in segments if path.exists()]
            assert large(alive.segments()) == large(successor.segments()) == 1
