# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The node's parts without a graph: order of stamps, health, worker, watchdog."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip('rclpy', reason='rclpy is neither installed nor sourced')

from ros_harness import image_message

from nightseg_ros.node import worker as worker_module
from nightseg_ros.node.diagnostics import (
    CLOUD_DROPS,
    FRAME_DROPS,
    HARMLESS,
    NO_FAULT,
    RECOVERY,
    Health,
    Source,
    Warnings,
    rate,
)
from nightseg_ros.node.subscription import OrderedSubscription, StampOrder
from nightseg_ros.node.watchdog import LATE, PERIOD, Activity, Hang, Task
from nightseg_ros.node.worker import Worker
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import PipelineConfig
from nightseg_ros.perception.result import Want

MS = 1_000_000
PRESENT = Source(topic='/front/image_raw', publishers=1, reliable=1, subscribed_reliable=True)


# -- order and rate --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('stamps', 'drops'),
    [
        (
            [1000, 1100, 1050, 1100, 1200, 300, 1201, 100, 200],
            ['', '', 'out_of_order', 'duplicate_stamp', '', 'out_of_order', '', '', ''],
        ),
        # those without a stamp are all taken
        ([0, 0, 5, 0, 4, 6], ['', '', '', '', 'out_of_order', '']),
    ],
)
def test_late_and_double_stamps_are_dropped(stamps: list[int], drops: list[str]) -> None:
    order = StampOrder()
    found = [order.check(stamp * MS, index / 10, 0.0) for index, stamp in enumerate(stamps)]
    assert [drop for drop, _ in found] == drops
    # 1201 ms to 100 ms is the bag that loops
    jumps = [0.0] * 7 + [pytest.approx(1.101), 0.0] if 1201 in stamps else [0.0] * len(stamps)
    assert [jump for _, jump in found] == jumps


def test_a_stamp_from_the_future_costs_only_itself_and_a_clock_that_was_set_nothing() -> None:
    order, period = StampOrder(), 1000 // 30
    for index in range(90):
        # the eleventh is 0.95 s ahead; from the fiftieth on the clock is 0.5 s ahead, for good
        stamp = 1_000_000 + index * period + 950 * (index == 10) + 500 * (index >= 50)
        drop, jump = order.check(stamp * MS, index * period / 1000, 0.0)
        assert drop == '' and jump == (pytest.approx(0.95 - period / 1000) if index == 11 else 0)
        if index == 70:
            # what is late is late all the same
            assert order.check((stamp - 200) * MS, 2.31, 0.0)[0] == 'out_of_order'


@given(rate=st.floats(1, 60), source=st.floats(1, 200), seed=st.integers(0, 2**32 - 1))
def test_max_rate_is_kept_on_average(rate: float, source: float, seed: int) -> None:
    order = StampOrder()
    jitter = np.random.default_rng(seed).uniform(-0.3, 0.3, 300)
    times = sorted((np.arange(300) + jitter) / source)
    taken = sum(not order.check(index + 1, now, rate)[0] for index, now in enumerate(times))
    duration = 300 / source
    assert taken <= rate * duration + 2
    # a faster source gives the full rate, a slower one loses next to nothing
    assert taken >= min(rate, source) * duration * 0.6 - 2


@given(st.lists(st.integers(1, 4_000), min_size=1, max_size=60))
def test_what_is_taken_is_in_order_but_for_jumps(stamps: list[int]) -> None:
    order, last = StampOrder(), 0
    for index, stamp in enumerate(stamps):
        drop, jump = order.check(stamp * MS, index / 10, 0.0)
        assert drop or jump or stamp > last
        assert not jump or jump == pytest.approx((last - stamp) / 1000)
        last = last if drop else stamp


def test_a_message_that_cannot_be_used_is_counted_and_ends_nothing() -> None:
    health, taken = Health(0.0, drops=CLOUD_DROPS, noun='cloud'), []

    def take(message: Any, stamp_ns: int, now: float) -> None:
        if stamp_ns == 2 * MS:
            raise OverflowError('PointField count 4294967295')
        taken.append(stamp_ns)

    node = MagicMock()
    node.settings.max_rate = 0.0
    OrderedSubscription(node, Any, 'points', take, 'auto', health)
    receive = node.create_subscription.call_args.args[2]
    for stamp_ns in (MS, 2 * MS, 3 * MS):
        receive(image_message(np.zeros((1, 1, 3), np.uint8), stamp_ns))
    assert taken == [MS, 3 * MS]
    assert health.values(0.0)['dropped.malformed'] == 1
    ((level, text),) = [(p.level, p.text) for p in health.problems(1.0, PRESENT, 1e9)][-1:]
    assert level == 'ERROR' and 'OverflowError: PointField count' in text


# -- health ----------------------------------------------------------------------------------


def texts(health: Health, now: float, source: Source = PRESENT) -> list[tuple[str, str]]:
    return [(p.level, p.text) for p in health.problems(now, source, 1.2)]


def receive(health: Health, *times: float) -> None:
    health.counts['received'] += len(times)
    health.received.extend(times)


def serve(health: Health, now: float, ms: float = 5.0) -> None:
    health.counts['served'] += 1
    health.durations['latency_ms'].append(ms)
    health.served.append(now)
    health.last_useful = now


@pytest.mark.parametrize(
    ('received', 'source', 'words'),
    [
        (None, Source(topic='/front/image_raw'), 'nobody publishes /front/image_raw'),
        (None, PRESENT, 'config/fastdds_large_images.xml'),
        (
            None,
            Source(topic='/t', other_types=('sensor_msgs/CompressedImage',)),
            '/t is sensor_msgs/CompressedImage, which is not what is subscribed to; set ',
        ),
        (
            None,
            Source(topic='/t', publishers=2, reliable=1, subscribed_reliable=True),
            'published best_effort, but this node asks for reliable',
        ),
        (10.0, PRESENT, 'no frame for 1.5 s, though /front/image_raw still has a publisher: '
                        'the camera has stopped'),
    ],
)  # fmt: skip
def test_silence_is_an_error_with_a_hint_until_a_frame_comes(
    received: float | None, source: Source, words: str
) -> None:
    health = Health(10.0)
    if received is not None:
        receive(health, received)
    assert texts(health, 11.1, source) == []
    ((level, text),) = texts(health, 11.5, source)
    assert level == 'ERROR' and words in text
    receive(health, 12.0)
    assert texts(health, 12.1, source) == []


@pytest.mark.parametrize('reason', FRAME_DROPS)
def test_a_fault_is_shown_for_a_while_and_is_smaller_where_others_are_served(reason: str) -> None:
    health = Health(0.0)
    receive(health, 10.0)
    health.drop(10.0, reason, 'what happened')
    assert health.values(10.0)[f'dropped.{reason}'] == 1
    if reason in NO_FAULT:
        assert texts(health, 10.1) == []
        return
    ((level, text),) = texts(health, 10.6)
    assert level == ('WARN' if reason in HARMLESS else 'ERROR')
    assert text == f'what happened (1 {reason} so far)'
    serve(health, 10.7)
    assert [level for level, _ in texts(health, 10.8)] == ['WARN']
    receive(health, 10.0 + RECOVERY)
    assert texts(health, 10.0 + RECOVERY) == []


def test_changes_are_warnings_for_a_while_and_the_worst_problem_comes_first() -> None:
    health = Health(0.0)
    receive(health, 1.0)
    health.unstamped = True
    health.warn(1.0, 'jump', 'stamps jumped back')
    health.warn(1.0, 'size', 'the size of the images changed')
    health.warn(1.0, 'blind', 'cannot see')
    found = texts(health, 1.5)
    assert {level for level, _ in found} == {'WARN'}
    assert sorted(text.split()[0] for _, text in found) == ['cannot', 'stamps', 'the', 'the']
    problems = health.problems(9.0, PRESENT, 1.2)
    # that the stamps are missing stays true
    assert [problem.level for problem in problems] == ['ERROR', 'WARN']
    receive(health, 9.1)
    health.unstamped = False
    assert texts(health, 9.2) == []


def test_rates_percentiles_and_counts() -> None:
    health = Health(0.0)
    assert not [key for key in health.values(0.0) if key.startswith('latency_ms')]
    for value in range(1, 101):
        receive(health, value / 100)
        serve(health, value / 50, float(value))
    values = health.values(2.0)
    latency = {key: values[f'latency_ms.{key}'] for key in ('p50', 'p95', 'p99')}
    assert latency == pytest.approx({'p50': 50.5, 'p95': 95.05, 'p99': 99.01})
    assert (values['received'], values['served']) == (100, 100)
    assert values['output_hz'] == pytest.approx(50)


@given(st.floats(0.5, 200))
def test_a_steady_rate_is_measured_exactly_and_falls_to_zero(hertz: float) -> None:
    times = [index / hertz for index in range(int(5 * hertz) + 2)]
    assert rate(times, times[-1]) == pytest.approx(hertz, rel=1e-6)
    assert rate(times, times[-1] + 3 / hertz) < hertz
    assert rate(times, times[-1] + 20) == 0


def test_a_warning_is_logged_once_and_then_rarely() -> None:
    logger = MagicMock()
    warnings = Warnings(logger, 'front', 10.0)
    for now in (0.0, 1.0, 9.9, 10.1, 15.0):
        warnings.log('bad', 'a bad frame', now)
    warnings.log('other', 'something else', 1.0)
    assert [call.args[0] for call in logger.warning.call_args_list] == [
        'front: a bad frame',
        'front: a bad frame (2 more of this kind since the last line)',
        'front: something else',
    ]


# -- worker ----------------------------------------------------------------------------------


class StubPipeline:
    """Stands for the networks; frames of the camera ``broken`` raise."""

    def __init__(self, device: str, broken: str) -> None:
        self.backend = SimpleNamespace(device=device)
        self.broken = broken
        self.batches: list[list[str]] = []
        self.changes: list[dict[str, Any]] = []
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.reset = self.warm_up = lambda *given, **more: None
        self.change = lambda **values: self.changes.append(values)

    def process(self, frames: list[Frame], wants: list[Want]) -> list[Any]:
        self.entered.set()
        assert self.gate.wait(10)
        self.batches.append([frame.camera for frame in frames])
        if any(frame.camera == self.broken for frame in frames):
            raise SystemExit if self.broken == 'deadly' else RuntimeError('out of order')
        return [SimpleNamespace(frame=frame) for frame in frames]


class Setup:
    """A worker with a stub for everything around it."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, device: str = 'cuda', broken: str = ''
    ) -> None:
        self.pipeline = StubPipeline(device, broken)
        self.published: list[str] = []
        self.changed = threading.Condition()
        load = classmethod(lambda *args, **options: self.pipeline)
        monkeypatch.setattr(worker_module.Pipeline, 'load', load)
        monkeypatch.setattr(Worker, '_publish', self.publish)
        settings = SimpleNamespace(
            pipeline=PipelineConfig(), watchdog_s=30.0, watchdog_load_s=600.0, max_age=0.0
        )
        clock = SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=0))
        self.node: Any = SimpleNamespace(
            settings=settings, get_clock=lambda: clock, activity=Activity(0.0)
        )
        self.worker = Worker(self.node, ThreadPoolExecutor(2), [], lambda text: None)
        self.cameras: dict[str, Any] = {}

    def publish(self, waiting: Any, result: Any) -> None:
        if waiting.message.header.frame_id == 'unfit':
            raise ValueError('the mask has another size')
        with self.changed:
            self.published.append(waiting.camera.names.name)
            self.changed.notify_all()

    def put(self, name: str, frame_id: str = '', encoding: str = 'rgb8') -> None:
        camera = self.cameras.setdefault(name, SimpleNamespace(
            names=SimpleNamespace(name=name), health=Health(0.0), size=None,
            wanted=lambda: (set(), Want()),
        ))  # fmt: skip
        message = image_message(np.zeros((4, 4, 3), np.uint8), 1, frame_id=frame_id)
        message.encoding = encoding
        self.worker.put(camera, message, 1, 0.0)

    def hold(self) -> None:
        """Let the worker be busy with a frame of a camera of its own."""
        self.pipeline.gate.clear()
        self.worker.start()
        self.put('busy')
        assert self.pipeline.entered.wait(10)

    def until(self, count: int) -> list[str]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.published) >= count, 10)
        return self.published

    def drops(self, name: str) -> dict[str, int]:
        values = self.cameras[name].health.values(0.0)
        return {k[8:]: int(str(v)) for k, v in values.items() if k.startswith('dropped.') and v}


@pytest.mark.parametrize(
    ('device', 'batches'),
    [
        ('cuda', [['busy'], ['front', 'rear', 'left'], ['front'], ['rear'], ['left']]),
        # where a batch gains nothing, the camera that has waited longest comes alone
        ('cpu', [['busy'], ['front'], ['rear'], ['left']]),
    ],
)
def test_waiting_frames_are_served_the_latest_of_each_camera_and_a_broken_one_costs_no_other(
    monkeypatch: pytest.MonkeyPatch, device: str, batches: list[list[str]]
) -> None:
    setup = Setup(monkeypatch, device, broken='rear')
    setup.hold()
    # a newer frame keeps its camera's place
    for name in ('front', 'rear', 'left', 'front'):
        setup.put(name)
    setup.pipeline.gate.set()
    assert setup.until(3) == ['busy', 'front', 'left']
    assert setup.worker.stop(10)
    assert setup.pipeline.batches == batches
    assert setup.drops('front') == {'superseded': 1}
    assert setup.drops('rear') == {'failed': 1}


def test_what_cannot_be_decoded_or_published_is_counted_and_the_next_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setup = Setup(monkeypatch, 'cpu')
    setup.worker.start()
    setup.put('a', frame_id='unfit')
    setup.put('b', encoding='nonsense')
    setup.put('c')
    assert setup.until(1) == ['c']
    assert (setup.drops('a'), setup.drops('b')) == ({'withheld': 1}, {'undecodable': 1})
    assert setup.worker.stop(10)


def test_a_stopped_worker_publishes_nothing_more_and_takes_changes_when_it_starts_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setup = Setup(monkeypatch)
    setup.hold()
    assert setup.node.activity.tasks
    setup.put('front')
    setup.node.settings.pipeline = PipelineConfig(route='day')
    setup.node.settings.pipeline = PipelineConfig(route='night', overlay_alpha=0.1)
    assert not setup.worker.stop(0.01), 'it is still busy'
    setup.pipeline.gate.set()
    assert setup.worker.stop(10)
    assert not setup.published and not setup.pipeline.changes
    setup.worker.start()
    setup.put('front')
    setup.until(1)
    ((change,),) = [setup.pipeline.changes]
    assert (change['route'], change['overlay_alpha']) == ('night', 0.1)
    assert setup.worker.stop(10)
    gone = weakref.ref(setup.worker)
    del setup.worker
    gc.collect()
    assert gone() is None


# -- watchdog --------------------------------------------------------------------------------


def hangs(activity: Activity, begin: float, end: float) -> list[Hang]:
    """Check twice a second and return what hung."""
    times = np.arange(begin, end + PERIOD / 2, PERIOD)
    return [hang for hang in map(activity.check, times) if hang is not None]


def test_a_loop_that_ends_by_itself_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup(monkeypatch, broken='deadly')
    setup.worker.start()
    setup.put('deadly')
    while (hang := setup.node.activity.check(0.0)) is None or not hang.fatal:
        threading.Event().wait(0.01)
    assert str(hang) == 'the worker thread has ended by an error'


def test_a_late_task_is_reported_within_two_seconds_and_fatal_beyond_its_limit() -> None:
    activity = Activity(0.0)
    # one that ends in time never is, and the next has time of its own
    for batch in range(20):
        activity.tasks['a'] = Task('a batch', 10.0, float(batch))
        assert activity.check(batch + 0.5) is None
        del activity.tasks['a']
        assert activity.check(batch + 0.99) is None
    activity.tasks['a'] = Task('a batch', 10.0, 20.0)
    seen = hangs(activity, 20.0, 30.5)
    assert LATE < seen[0].seconds <= 2.0
    assert [hang.fatal for hang in seen[-2:]] == [False, True]
    assert str(seen[-1]) == 'a batch for 10.5 s'


@pytest.mark.parametrize('pause', [3.0, 3600.0])
def test_time_in_which_the_process_was_stopped_does_not_count(pause: float) -> None:
    activity = Activity(0.0)
    activity.tasks['a'] = Task('a batch', 10.0, 0.0)
    hangs(activity, 0.0, 1.0)
    assert activity.check(1.0 + pause) is None
    seen = hangs(activity, 1.5 + pause, 20.5 + pause)
    assert seen[0].seconds < 2.0
    assert seen[-1].fatal
