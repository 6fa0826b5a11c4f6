# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The node's parts that need no ROS: order, rate, health, mailbox."""

from __future__ import annotations

import gc
import queue
import threading
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightseg_ros.node.diagnostics import (
    DROPS,
    FAULTS,
    RECOVERY,
    CameraHealth,
    Rate,
    Source,
    Throttle,
    worst,
)
from nightseg_ros.node.subscription import Intake
from nightseg_ros.node.watchdog import Patience
from nightseg_ros.node.worker import Mailbox, Threads, Waiting, Worker
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import PipelineConfig
from nightseg_ros.perception.result import Want

MS = 1_000_000
PRESENT = Source(topic='/front/image_raw', publishers=1, reliable=1, subscribed_reliable=True)


# -- intake ----------------------------------------------------------------------------------


def test_stamps_in_order_are_taken_late_and_double_ones_are_dropped() -> None:
    intake = Intake()
    stamps = [1000, 1100, 1050, 1100, 1200, 300, 1201, 100, 200]
    verdicts = [intake.check(s * MS, s / 1e3, 0.0) for s in stamps]
    assert [v.drop for v in verdicts] == [
        '', '', 'out_of_order', 'duplicate_stamp', '', 'out_of_order', '', '', '',
    ]  # fmt: skip
    # 1201 ms to 100 ms is the bag that loops
    assert [v.jump_s for v in verdicts] == [0, 0, 0, 0, 0, 0, 0, pytest.approx(1.101), 0]


def test_frames_without_a_stamp_are_all_taken() -> None:
    intake = Intake()
    assert [intake.check(stamp, 0.0, 0.0).drop for stamp in (0, 0, 5, 0, 4, 6)] == [
        '', '', '', '', 'out_of_order', '',
    ]  # fmt: skip


@given(rate=st.floats(1, 60), source=st.floats(1, 200), seed=st.integers(0, 2**32 - 1))
def test_max_rate_is_kept_on_average(rate: float, source: float, seed: int) -> None:
    intake = Intake()
    jitter = np.random.default_rng(seed).uniform(-0.3, 0.3, 300)
    times = sorted((np.arange(300) + jitter) / source)
    taken = sum(not intake.check(index + 1, now, rate).drop for index, now in enumerate(times))
    duration = 300 / source
    assert taken <= rate * duration + 2
    # a faster source gives the full rate, a slower one loses next to nothing
    assert taken >= min(rate, source) * duration * 0.6 - 2


@given(st.lists(st.integers(1, 4_000), min_size=1, max_size=60))
def test_what_is_taken_is_in_order_but_for_jumps(stamps: list[int]) -> None:
    intake = Intake()
    last = 0
    for index, stamp in enumerate(stamps):
        verdict = intake.check(stamp * MS, index / 10, 0.0)
        if verdict.jump_s:
            assert last - stamp > 1000
        elif not verdict.drop:
            assert stamp > last
        if not verdict.drop:
            last = stamp


# -- health ----------------------------------------------------------------------------------


def texts(health: CameraHealth, now: float, source: Source = PRESENT) -> list[tuple[str, str]]:
    return [(p.level, p.text) for p in health.problems(now, source, 1.2)]


@pytest.mark.parametrize(
    ('source', 'words'),
    [
        (Source(topic='/front/image_raw'), 'nobody publishes /front/image_raw'),
        (PRESENT, 'config/fastdds_large_images.xml'),
        (
            Source(topic='/t', publishers=2, reliable=1, subscribed_reliable=True),
            'published best_effort, but this node asks for reliable',
        ),
    ],
)
def test_a_camera_that_never_came_is_an_error_with_a_hint(source: Source, words: str) -> None:
    health = CameraHealth(100.0)
    assert texts(health, 101.1, source) == []
    ((level, text),) = texts(health, 101.3, source)
    assert level == 'ERROR'
    assert words in text


def test_a_camera_that_stops_is_an_error_until_it_comes_back() -> None:
    health = CameraHealth(0.0)
    health.receive(10.0)
    assert texts(health, 11.0) == []
    ((level, text),) = texts(health, 11.5)
    assert (level, text) == (
        'ERROR',
        'no frame for 1.5 s, though /front/image_raw still has a publisher: '
        'the camera has stopped, or '
        "its large images get lost without the DDS profile in the publisher's process",
    )
    health.receive(12.0)
    assert texts(health, 12.1) == []


def test_a_camera_that_cannot_see_is_told_until_it_sees_again() -> None:
    health = CameraHealth(0.0)
    health.receive(10.0)
    for now, reliability in ((10.0, 0.9), (10.1, None), (10.2, 0.12)):
        assert texts(health, now) == []
        health.trust(now, reliability, 0.5)
    health.trust(10.3, float('nan'), 0.0)
    health.receive(11.5)
    ((level, text),) = texts(health, 12.2)
    assert level == 'WARN' and text.startswith('cannot see: reliability nan')
    health.receive(12.4)
    assert texts(health, 12.4) == []


@pytest.mark.parametrize('reason', FAULTS)
def test_a_fault_is_told_for_a_while_and_weighs_more_where_nothing_is_served(reason: str) -> None:
    health = CameraHealth(0.0)
    health.receive(10.0)
    health.drop(10.0, reason, 'what happened')
    health.receive(10.5)
    ((level, text),) = texts(health, 10.6)
    assert level == ('WARN' if reason in ('out_of_order', 'duplicate_stamp') else 'ERROR')
    assert text == f'what happened (1 {reason} so far)'
    health.serve(10.7, 5.0, computed=[], published=[])
    assert [level for level, _ in texts(health, 10.8)] == ['WARN']
    assert texts(health, 10.0 + RECOVERY) == [] or not health.receive(12.0)
    health.receive(12.0)
    assert texts(health, 12.0) == []


@pytest.mark.parametrize('reason', sorted(set(DROPS) - set(FAULTS)))
def test_drops_of_a_busy_node_are_counted_and_no_fault(reason: str) -> None:
    health = CameraHealth(0.0)
    health.receive(1.0)
    health.drop(1.0, reason)
    assert texts(health, 1.1) == []
    assert health.drops[reason] == 1


def test_changes_are_warnings_for_a_while() -> None:
    health = CameraHealth(0.0)
    health.receive(1.0, unstamped=True)
    health.jump(1.0)
    health.change_size(1.0)
    found = texts(health, 1.5)
    assert {level for level, _ in found} == {'WARN'}
    assert sorted(text.split()[0] for _, text in found) == ['stamps', 'the', 'the']
    health.receive(3.1)
    assert texts(health, 3.2) == []


def test_the_worst_problem_comes_first() -> None:
    health = CameraHealth(0.0)
    health.receive(1.0, unstamped=True)
    problems = health.problems(9.0, PRESENT, 1.2)
    assert [problem.level for problem in problems] == ['ERROR', 'WARN']
    assert worst(problems) == 'ERROR'
    assert worst([]) == 'OK'


@given(st.floats(0.5, 200))
def test_a_steady_rate_is_measured_exactly(hertz: float) -> None:
    rate = Rate()
    for index in range(int(5 * hertz) + 2):
        rate.add(index / hertz)
    assert rate.per_second((int(5 * hertz) + 1) / hertz) == pytest.approx(hertz, rel=1e-6)


def test_the_rate_of_a_source_that_stopped_falls_to_zero() -> None:
    rate = Rate()
    for index in range(20):
        rate.add(index / 10)
    assert rate.per_second(2.0) == pytest.approx(10)
    assert 3 < rate.per_second(4.0) < 7
    assert rate.per_second(20.0) == 0


def test_latency_percentiles() -> None:
    health = CameraHealth(0.0)
    assert health.latency_ms() == {}
    for value in range(1, 101):
        health.serve(1.0, float(value), computed=['labels'], published=['labels', 'status'])
    assert health.latency_ms() == pytest.approx({'p50': 50.5, 'p95': 95.05, 'p99': 99.01})
    assert (health.computed['labels'], health.published['status']) == (100, 100)


def test_a_message_is_said_once_and_then_rarely() -> None:
    throttle = Throttle(10.0)
    said = [throttle.admit('bad', now) for now in (0.0, 1.0, 9.9, 10.1, 15.0, 30.0)]
    assert said == [0, None, None, 2, None, 1]
    assert throttle.admit('other', 1.0) == 0


# -- mailbox ---------------------------------------------------------------------------------


def test_the_latest_frame_wins_and_no_camera_waits_for_another() -> None:
    mailbox: Mailbox[int] = Mailbox()
    assert mailbox.put('front', 1) is None
    assert mailbox.put('rear', 2) is None
    assert mailbox.put('front', 3) == 1
    assert sorted(mailbox.take()) == [2, 3]
    mailbox.put('rear', 4)
    assert mailbox.take() == [4]


def test_take_waits_and_close_ends_the_wait() -> None:
    mailbox: Mailbox[int] = Mailbox()
    taken: queue.Queue[list[int]] = queue.Queue()

    def take_twice() -> None:
        taken.put(mailbox.take())
        taken.put(mailbox.take())

    thread = threading.Thread(target=take_twice)
    thread.start()
    mailbox.put('front', 1)
    assert taken.get(timeout=10) == [1]
    mailbox.close()
    assert taken.get(timeout=10) == []
    thread.join(10)
    assert mailbox.put('front', 2) is None
    assert mailbox.take() == []


# -- worker ----------------------------------------------------------------------------------


class StubPipeline:
    """Stands for the networks; ``broken`` names cameras whose frames raise."""

    def __init__(self, broken: str = '') -> None:
        self.broken = broken
        self.batches: list[list[str]] = []
        self.changes: list[dict[str, Any]] = []

    def warm_up(self, sizes: Any) -> None:
        pass

    def change(self, **values: Any) -> None:
        self.changes.append(values)

    def process(self, frames: list[Frame], wants: list[Want]) -> list[str]:
        self.batches.append([frame.camera for frame in frames])
        if any(frame.camera == self.broken for frame in frames):
            raise RuntimeError('out of memory')
        return [f'mask of {frame.camera}' for frame in frames]


class StubClient:
    """Stands for a camera."""

    def __init__(self, name: str, gate: threading.Event | None = None) -> None:
        self.name = name
        self.gate = gate
        self.events: queue.Queue[str] = queue.Queue()

    def open_frame(self, waiting: Waiting) -> Frame | None:
        if self.gate is not None:
            self.events.put('opened')
            assert self.gate.wait(10)
        if waiting.message == 'broken':
            return None
        return Frame(image=np.zeros((4, 4, 3), np.uint8), camera=self.name)

    def wanted(self) -> Want:
        return Want()

    def publish(self, result: Any, waiting: Waiting) -> None:
        if waiting.message == 'unfit':
            raise ValueError('the mask has another size')
        self.events.put(result)

    def fail(self, reason: str, error: Exception) -> None:
        self.events.put(f'{reason}: {error}')


def worker_of(pipeline: StubPipeline) -> Worker:
    return Worker(pipeline, lambda text: None, Patience(), Threads('worker'))  # type: ignore[arg-type]


def put(worker: Worker, client: StubClient, message: str = 'good') -> None:
    worker.mailbox.put(client.name, Waiting(client, message, 0.0))


def test_waiting_frames_make_one_batch_and_one_broken_camera_costs_no_other() -> None:
    pipeline = StubPipeline(broken='rear')
    worker = worker_of(pipeline)
    cameras = {name: StubClient(name) for name in ('front', 'rear', 'left')}
    for camera in cameras.values():
        put(worker, camera)
    worker.start()
    assert cameras['front'].events.get(timeout=10) == 'mask of front'
    assert cameras['left'].events.get(timeout=10) == 'mask of left'
    assert cameras['rear'].events.get(timeout=10) == 'failed: out of memory'
    assert pipeline.batches == [['front', 'rear', 'left'], ['front'], ['rear'], ['left']]
    assert worker.stop(10)
    assert not worker.alive


def test_what_cannot_be_decoded_or_published_does_not_end_the_worker() -> None:
    worker = worker_of(StubPipeline())
    worker.start()
    front = StubClient('front')
    put(worker, front, 'unfit')
    assert front.events.get(timeout=10) == 'withheld: the mask has another size'
    put(worker, front, 'broken')
    while worker.mailbox._slots:
        threading.Event().wait(0.01)
    put(worker, front)
    assert front.events.get(timeout=10) == 'mask of front'
    assert worker.stop(10)


def test_a_stopped_worker_publishes_nothing_more() -> None:
    worker = worker_of(StubPipeline())
    gate = threading.Event()
    front = StubClient('front', gate)
    worker.start()
    put(worker, front)
    assert front.events.get(timeout=10) == 'opened'
    assert worker.watch.limit > 0
    assert not worker.stop(0.01), 'it is still busy'
    gate.set()
    assert worker.stop(10)
    assert front.events.empty()


def test_changes_wait_for_the_next_batch() -> None:
    pipeline = StubPipeline()
    worker = worker_of(pipeline)
    worker.start()
    worker.change(PipelineConfig(route='day'))
    worker.change(PipelineConfig(route='night', overlay_alpha=0.1))
    assert pipeline.changes == []
    front = StubClient('front')
    put(worker, front)
    assert front.events.get(timeout=10)
    ((change,),) = [pipeline.changes]
    assert (change['route'], change['overlay_alpha']) == ('night', 0.1)
    assert worker.stop(10)


def test_one_thread_works_for_one_activation_after_another() -> None:
    threads = Threads('worker')
    seen: list[threading.Thread] = []

    def work() -> None:
        seen.append(threading.current_thread())

    for _ in range(3):
        assert threads.begin(work).wait(10)
    assert len(set(seen)) == 1
    assert seen[0].daemon, 'it would keep the process'


def test_a_thread_that_hangs_is_not_waited_for() -> None:
    threads, gate = Threads('worker'), threading.Event()
    hung = threads.begin(lambda: gate.wait(10) and None)
    assert threads.begin(lambda: None).wait(10)
    assert not hung.is_set()
    gate.set()
    assert hung.wait(10)


def test_a_thread_hands_back_what_its_work_returns_or_raises() -> None:
    threads = Threads('worker')
    seen = {threads.run(threading.get_ident) for _ in range(2)}
    assert len(seen) == 1 and seen != {threading.get_ident()}
    with pytest.raises(ZeroDivisionError):
        threads.run(lambda: 1 // 0)
    assert threads.run(threading.get_ident) in seen, 'an error handed over ends no thread'


@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
def test_work_that_fails_has_ended_and_the_next_gets_another_thread() -> None:
    threads = Threads('worker')

    def fail() -> None:
        raise RuntimeError('for the test')

    assert threads.begin(fail).wait(10)
    assert threads.begin(lambda: None).wait(10)


def test_what_has_been_worked_with_is_not_kept() -> None:
    threads = Threads('worker')
    pipeline = StubPipeline()
    worker = Worker(pipeline, lambda text: None, Patience(), threads)  # type: ignore[arg-type]
    worker.start()
    assert worker.alive
    assert worker.stop(10)
    assert not worker.alive and not worker.dead
    gone = weakref.ref(worker)
    del worker
    gc.collect()
    assert gone() is None
