# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What the watchdog knows, by a clock of the test's own."""

from __future__ import annotations

import pytest

from nightseg_ros.node.watchdog import LATE, PERIOD, Activity, Hang, Task


def checked(activity: Activity, until: float, begin: float = 0.0) -> list[Hang]:
    """Check twice a second and return what hung."""
    times = [begin + step * PERIOD for step in range(int((until - begin) / PERIOD) + 1)]
    return [hang for hang in map(activity.check, times) if hang is not None]


def test_a_late_task_is_reported_within_two_seconds_and_fatal_beyond_its_limit() -> None:
    activity = Activity(0.0)
    activity.task = Task('a batch', 10.0, 0.0)
    seen = checked(activity, 10.5)
    assert LATE < seen[0].seconds <= 2.0
    assert [hang.fatal for hang in seen[-2:]] == [False, True]
    assert str(seen[-1]) == 'a batch for 10.5 s'


def test_a_task_that_ends_in_time_is_never_reported_and_the_next_has_time_of_its_own() -> None:
    activity = Activity(0.0)
    for batch in range(20):
        activity.task = Task('a batch', 10.0, float(batch))
        assert activity.check(batch + 0.5) is None
        activity.task = None
        assert activity.check(batch + 0.99) is None
    activity.task = Task('making ready', 600.0, 20.0)
    assert checked(activity, 40.0, begin=20.0)
    activity.task = Task('a batch', 10.0, 40.0)
    assert activity.check(40.5) is None


@pytest.mark.parametrize('pause', [3.0, 3600.0])
def test_time_in_which_the_process_was_stopped_does_not_count(pause: float) -> None:
    activity = Activity(0.0)
    activity.task = Task('a batch', 10.0, 0.0)
    checked(activity, 1.0)
    assert activity.check(1.0 + pause) is None
    seen = checked(activity, pause + 20.5, begin=1.5 + pause)
    assert seen[0].seconds < 2.0
    assert seen[-1].fatal
