# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The node's parts without a graph: order of stamps, health, worker, watchdog."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
import gc
import math
import threading
import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock
import weakref

from hypothesis import given
from hypothesis import strategies as st
from nightseg_ros.node import worker as worker_module
from nightseg_ros.node.diagnostics import (
    CLOUD_DROPS,
    FRAME_DROPS,
    HARMLESS,
    Health,
    NO_FAULT,
    rate,
    RECOVERY,
    Source,
    Warnings,
)
from nightseg_ros.node.subscription import OrderedSubscription, StampOrder
from nightseg_ros.node.watchdog import Activity, Hang, LATE, PERIOD, Task
from nightseg_ros.node.worker import Worker
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import PipelineConfig
from nightseg_ros.perception.result import Want
import numpy as np
import pytest
from ros_harness import image_message

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
        # the first of all is 0.95 s ahead: the second may be a late one, the third says it
        ([950, 100, 200, 300, 250], ['', 'out_of_order', '', '', 'out_of_order']),
    ],
)
def test_late_and_double_stamps_are_dropped(stamps: list[int], drops: list[str]) -> None:
    order = StampOrder()
    found = [order.check(stamp * MS, index / 10, 0.0) for index, stamp in enumerate(stamps)]
    assert [drop for drop, _ in found] == drops
    # 1201 ms to 100 ms is the bag that loops
    jumps = [0.0] * 7 + [pytest.approx(1.101), 0.0] if 1201 in stamps else [0.0] * len(stamps)
    jumps = [0.0, 0.0, 0.75, 0.0, 0.0] if 950 in stamps else jumps
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


def test_a_silence_is_logged_once_after_five_seconds() -> None:
    logged: list[str] = []
    health = Health(0.0, warnings=Warnings(SimpleNamespace(warning=logged.append), period=0.0))
    source = Source(topic='/fornt/image', near="; did you mean '/front/image'?")
    for now in (4.9, 5.1, 6.0, 20.0):
        texts(health, now, source)
    text = "no frame for 5.1 s: nobody publishes /fornt/image; did you mean '/front/image'?"
    assert logged == [text]
    receive(health, 21.0)
    texts(health, 27.0, source)
    assert len(logged) == 2


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
    """Stands for the networks; frames of the camera ``broken`` raise, batches above ``room``."""

    def __init__(self, device: str, broken: str) -> None:
        self.backend = SimpleNamespace(device=device)
        self.broken, self.room = broken, 99
        self.score, self.reliability = 0.9, 0.9
        self.batches: list[list[str]] = []
        self.stamps: list[int] = []
        self.changes: list[dict[str, Any]] = []
        self.prepared: list[tuple[int, int]] = []
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.reset = lambda *given, **more: None
        self.warm_up = lambda sizes: self.prepared.extend(sizes)
        self.change = lambda **values: self.changes.append(values)

    def process(self, frames: list[Frame], wants: list[Want]) -> list[Any]:
        self.entered.set()
        assert self.gate.wait(10)
        self.batches.append([frame.camera for frame in frames])
        self.stamps += [frame.stamp_ns for frame in frames]
        if any(frame.camera == self.broken for frame in frames):
            raise SystemExit if self.broken == 'deadly' else RuntimeError('out of order')
        if len(frames) > self.room and self.backend.device != 'cpu':
            raise MemoryError('no memory')
        decision = SimpleNamespace(route='day', state='day', switched=True, reason='it is light')
        light = SimpleNamespace(score=self.score)
        return [
            SimpleNamespace(frame=frame, illumination=light, decision=decision,
                            reliability=self.reliability, ms={'network': 1.0})
            for frame in frames
        ]  # fmt: skip


class Setup:
    """A worker with a stub for everything around it."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, device: str = 'cuda', broken: str = ''
    ) -> None:
        self.pipeline = StubPipeline(device, broken)
        self.published: list[str] = []
        self.changed = threading.Condition()
        self.statuses: list[tuple[Any, ...]] = []
        self.loads: list[tuple[str, list[float]]] = []
        monkeypatch.setattr(worker_module.Pipeline, 'load', self.load)
        settings = SimpleNamespace(
            pipeline=PipelineConfig(), watchdog_s=30.0, watchdog_load_s=600.0, max_age=0.0,
            min_reliability=0.3, cpu_fallback=True,
        )  # fmt: skip
        self.now_ns = 0
        clock = SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=self.now_ns))
        self.logger = MagicMock()
        self.node: Any = SimpleNamespace(
            settings=settings, get_clock=lambda: clock, get_logger=lambda: self.logger,
            activity=Activity(0.0),
        )  # fmt: skip
        self.worker = Worker(self.node, ThreadPoolExecutor(2), [], lambda text: None)
        self.cameras: dict[str, Any] = {}

    def load(self, config: PipelineConfig, **options: Any) -> StubPipeline:
        if config.device != 'auto':
            self.pipeline.backend.device = config.device
            self.loads.append((config.device, self.limits()))
        return self.pipeline

    def limits(self) -> list[float]:
        """Return the seconds that what is under way may take."""
        return [task.limit for task in self.node.activity.tasks.values()]

    def publish(self, header: Any, result: Any, *given: Any) -> dict[str, float]:
        if header.frame_id == 'unfit':
            raise ValueError('the mask has another size')
        assert self.limits() == [30.0], 'that is the limit of a batch'
        with self.changed:
            self.published.append(result.frame.camera)
            self.changed.notify_all()
        return {'labels': time.monotonic()}

    def put(
        self, name: str, frame_id: str = '', *, encoding: str = 'rgb8', height: int = 4,
        stamp_ns: int = 1, received: float = 0.0,
    ) -> None:  # fmt: skip
        camera = self.cameras.setdefault(name, SimpleNamespace(
            names=SimpleNamespace(name=name), health=Health(0.0), size=None,
            wanted=lambda: ({'labels', 'status'}, Want()), publish=self.publish,
            publish_status=lambda *given: self.statuses.append(given),
            routes_with_reliability={'day'},
        ))  # fmt: skip
        message = image_message(np.zeros((height, 4, 3), np.uint8), stamp_ns, frame_id=frame_id)
        message.encoding = encoding
        self.worker.put(camera, message, stamp_ns, received)

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


def test_frames_older_than_max_age_are_dropped_and_those_without_a_stamp_have_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setup = Setup(monkeypatch)
    setup.hold()
    setup.node.settings.max_age, setup.now_ns = 0.25, 1000 * MS
    for name, stamp_ns in (('late', 749 * MS), ('just', 750 * MS), ('new', 999 * MS), ('none', 0)):
        setup.put(name, stamp_ns=stamp_ns, received=12.5)
    setup.pipeline.gate.set()
    assert setup.until(4) == ['busy', 'just', 'new', 'none']
    assert setup.worker.stop(10)
    assert setup.drops('late') == {'too_old': 1}
    # a router needs a clock that runs
    assert setup.pipeline.stamps[1:] == [750 * MS, 999 * MS, 12_500 * MS]


def test_some_new_sizes_are_made_ready_with_the_time_of_a_load_and_batches_have_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setup, seen, limits = Setup(monkeypatch), [], []
    process = setup.pipeline.process
    setup.pipeline.warm_up = lambda sizes: seen.append((*sizes, *setup.limits()))
    setup.pipeline.process = lambda *given: limits.append(setup.limits()) or process(*given)
    setup.worker.start()
    for count, height in enumerate((*range(1, 20), 1, 17), 1):
        setup.put('front', height=height)
        setup.until(count)
    assert setup.worker.stop(10)
    assert seen == [((height, 4), 600.0) for height in range(1, 17)]
    assert limits == [[30.0]] * 21
    assert setup.cameras['front'].health.counts['size_changes'] == 20
    assert not setup.node.activity.tasks


@pytest.mark.parametrize(
    ('score', 'reliability', 'words'),
    [
        (0.9, 0.3, ''),
        (0.9, None, ''),
        (0.9, 0.29, 'cannot see: reliability 0.29'),
        (0.9, math.nan, 'cannot see: reliability nan'),
        (math.nan, 0.9, 'the light is unknown'),
    ],
)
def test_what_is_published_is_counted_timed_and_judged(
    monkeypatch: pytest.MonkeyPatch, score: float, reliability: float | None, words: str
) -> None:
    setup = Setup(monkeypatch)
    setup.hold()
    setup.pipeline.score, setup.pipeline.reliability = score, reliability
    setup.now_ns, now = 251 * MS, time.monotonic()
    for name in ('front', 'rear'):
        setup.put(name, stamp_ns=MS, received=now)
    # some networks have not learnt to judge frames
    setup.cameras['rear'].routes_with_reliability = set()
    setup.pipeline.gate.set()
    setup.until(3)
    assert setup.worker.stop(10)
    for name, shown in (('front', words), ('rear', '' if '0.29' in words else words)):
        health = setup.cameras[name].health
        receive(health, health.last_useful)
        now = health.last_useful
        values, problems = health.values(now), health.problems(now, PRESENT, 9.0)
        counted = [values[key] for key in ('served', 'published.labels', 'published.status')]
        assert counted == [1, 1, 1] and values['output_hz'] == 0.2
        assert values['reliability'] is reliability or reliability is None
        assert [problem.text[: len(shown)] for problem in problems] == ([shown] if shown else [])
        assert health.note.startswith('route day, day, score ')
    _, result, ms, age_s = setup.statuses[1]
    assert (result.frame.camera, ms['receive'], ms['network'], age_s) == ('front', 250, 1, 0.25)
    assert 0 <= ms['wait'] <= ms['total'] and min(ms['decode'], ms['publish']) >= 0
    assert values['latency_ms.p50'] > 0
    setup.logger.info.assert_called_with('rear: route day now: it is light')


@pytest.mark.parametrize('fallback', [True, False])
def test_where_memory_runs_out_batches_shrink_and_then_the_cpu_may_take_over(
    monkeypatch: pytest.MonkeyPatch, fallback: bool
) -> None:
    setup = Setup(monkeypatch)
    setup.node.settings.cpu_fallback = fallback
    setup.hold()
    for name in 'abcd':
        setup.put(name)
    setup.pipeline.room = 2
    setup.pipeline.gate.set()
    setup.until(5)
    assert setup.worker.stop(10)
    assert setup.pipeline.batches[1:] == [['a', 'b', 'c', 'd'], ['a', 'b'], ['c', 'd']]
    assert not setup.worker.memory_problem
    setup.pipeline.room = 0
    setup.worker.start()
    setup.put('a')
    if fallback:
        setup.until(6)
        assert setup.worker.stop(10)
        assert setup.loads == [('cpu', [600.0])]
        assert setup.pipeline.batches[4:] == [['a'], ['a']]
        assert 'cuda is out of memory: the networks run on the CPU' in setup.worker.memory_problem
        setup.logger.error.assert_called_once_with(setup.worker.memory_problem)
    else:
        while not setup.drops('a'):
            time.sleep(0.01)
        assert setup.worker.stop(10)
        assert setup.drops('a') == {'failed': 1} and not setup.loads
        assert setup.worker.memory_problem == 'cuda is out of memory, and cpu_fallback is off'


def test_a_stopped_worker_publishes_nothing_more_and_takes_changes_when_it_starts_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setup = Setup(monkeypatch)
    setup.hold()
    assert setup.node.activity.tasks
    setup.put('rear')
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
    assert setup.published == ['front'], 'what waited before is not shown afterwards'
    gone = weakref.ref(setup.worker)
    del setup.worker
    gc.collect()
    assert gone() is None


# -- watchdog --------------------------------------------------------------------------------


def hangs(activity: Activity, begin: float, end: float) -> list[Hang]:
    """Check twice a second and return what hung."""
    times = np.arange(begin, end + PERIOD / 2, PERIOD)
    return [hang for hang in map(activity.check, times) if hang is not None]


def test_a_loop_that_ends_by_itself_is_fatal_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup(monkeypatch, broken='deadly')
    setup.worker.start()
    setup.put('deadly')
    while (hang := setup.node.activity.check(0.0)) is None or not hang.fatal:
        time.sleep(0.01)
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
