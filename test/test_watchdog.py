# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What the watchdog knows, by a clock of the test's own."""

from __future__ import annotations

import pytest

from nightseg_ros.node.watchdog import LATE, PERIOD, Watch


def looked(watch: Watch, until: float, begin: float = 0.0) -> list[float]:
    """Look twice a second and return the seconds of each stall that was seen."""
    found = []
    for step in range(int((until - begin) / PERIOD) + 1):
        stall = watch.look(begin + step * PERIOD)
        if stall is not None:
            found.append(stall.seconds)
    return found


def test_what_takes_long_is_told_within_two_seconds_and_has_hope_up_to_its_limit() -> None:
    watch = Watch(0.0)
    watch.begin('a batch', 10.0, 0.0)
    seen = looked(watch, 10.0)
    assert LATE < seen[0] <= 2.0
    stall = watch.look(10.0)
    assert stall is not None and not stall.hopeless
    stall = watch.look(10.5)
    assert stall is not None and stall.hopeless
    assert str(stall) == 'a batch for 10.5 s'


def test_what_comes_back_in_time_is_never_told() -> None:
    watch = Watch(0.0)
    for batch in range(100):
        watch.begin('a batch', 10.0, float(batch))
        assert watch.look(batch + 0.5) is None
        watch.end()
        assert watch.look(batch + 0.99) is None
    assert watch.limit == 0.0


def test_a_new_task_has_time_of_its_own() -> None:
    watch = Watch(0.0)
    watch.begin('making ready', 600.0, 0.0)
    assert looked(watch, 20.0)
    assert watch.limit == 600.0
    watch.begin('a batch', 10.0, 20.0)
    assert watch.look(20.5) is None
    assert watch.limit == 10.0


@pytest.mark.parametrize('pause', [3.0, 3600.0])
def test_time_in_which_the_process_was_stopped_does_not_count(pause: float) -> None:
    watch = Watch(0.0)
    watch.begin('a batch', 10.0, 0.0)
    looked(watch, 1.0)
    assert watch.look(1.0 + pause) is None
    seen = looked(watch, pause + 20.0, begin=1.5 + pause)
    assert seen[0] < 2.0
    stall = watch.look(pause + 20.5)
    assert stall is not None and stall.hopeless
