# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The node's parts without a graph: order of stamps, health, worker, cameras, watchdog."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
import copy
import dataclasses
import gc
import json
import math
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock
import weakref

from builtin_interfaces.msg import Time
import cv2
from hypothesis import given
from hypothesis import strategies as st
from nightseg_ros.config import ConfigError
from nightseg_ros.node.camera import CameraTopics, PICTURES, TOPICS
from nightseg_ros.node.diagnostics import (
    CLOUD_DROPS,
    FRAME_DROPS,
    Health,
    NO_FAULT,
    rate,
    RECOVERY,
    Source,
    Warnings,
)
from nightseg_ros.node.messages import decode
from nightseg_ros.node.parameters import CameraNames, Settings
from nightseg_ros.node.subscription import OrderedSubscription, StampOrder, Subscription
from nightseg_ros.node.watchdog import Activity, Hang, LATE, PERIOD, Task
from nightseg_ros.node.worker import Worker
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.illumination import Illumination
from nightseg_ros.perception.pipeline import PipelineConfig, WithheldError
from nightseg_ros.perception.result import Result, Want
from nightseg_ros.perception.router import Decision
from nightseg_ros.taxonomy import CAMVID11
import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_harness import image_message, pixels_of, values_of
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

MS = 1_000_000
PRESENT = Source(topic='/front/image_raw', publishers=1, reliable=1, subscribed_reliable=True)


# -- order and rate --------------------------------------------------------------------------


TAKEN, LATE_ONE, DOUBLE, MANY = (
    (drop, 0.0) for drop in ('', 'out_of_order', 'duplicate_stamp', 'max_rate')
)


def back(seconds: float) -> Any:
    return '', pytest.approx(seconds)


@pytest.mark.parametrize(
    ('stamps', 'wanted'),
    [
        # 1201 ms to 100 ms is the bag that loops
        (
            [1000, 1100, 1050, 1100, 1200, 300, 1201, 100, 50, 200],
            [TAKEN, TAKEN, LATE_ONE, DOUBLE, TAKEN, LATE_ONE, TAKEN, back(1.101), LATE_ONE, TAKEN],
        ),
        # what was late before the loop says nothing of what comes after it
        ([500, 400, 600, 2000, 450, 420], [TAKEN, LATE_ONE, TAKEN, TAKEN, back(1.55), LATE_ONE]),
        ([2000, 1000], [TAKEN, LATE_ONE]),
        # nor does when it came: 2000 ms is from the future
        ([5000, 1000, 1100, 2000, 1300], [TAKEN, back(4.0), TAKEN, TAKEN, back(0.7)]),
        # those without a stamp are all taken
        ([0, 0, 5, 0, 4, 6], [TAKEN, TAKEN, TAKEN, TAKEN, LATE_ONE, TAKEN]),
        # the first of all is 0.95 s ahead: the second may be a late one, a later one says it
        (
            [950, 100, 100, 200, 300, 250, 1100, 350],
            [TAKEN, *[LATE_ONE] * 2, back(0.75), TAKEN, LATE_ONE, TAKEN, back(0.75)],
        ),
    ],
)
def test_late_and_double_stamps_are_dropped(stamps, wanted):
    order = StampOrder()
    found = [order.check(stamp * MS, index / 10, 0.0) for index, stamp in enumerate(stamps)]
    assert found == wanted


def test_a_stamp_from_the_future_costs_only_itself_and_a_clock_that_was_set_nothing():
    order, period = StampOrder(), 1000 // 30
    for index in range(90):
        # the eleventh is 0.95 s ahead; from the fiftieth on the clock is 0.5 s ahead, for good
        stamp = 1_000_000 + index * period + 950 * (index == 10) + 500 * (index >= 50)
        drop, jump = order.check(stamp * MS, index * period / 1000, 0.0)
        assert drop == '' and jump == (pytest.approx(0.95 - period / 1000) if index == 11 else 0)
        if index == 70:
            # what is late is late all the same
            assert order.check((stamp - 200) * MS, 2.31, 0.0)[0] == 'out_of_order'


def test_max_rate_lets_pass_what_is_due_and_what_jumps_back():
    order = StampOrder()
    for now, stamp, wanted in (
        # one that comes late does not make the next one wait: on average the rate is met
        (0.0, 10.0, TAKEN), (1.0, 11.0, MANY), (3.0, 13.0, TAKEN), (4.0, 14.0, TAKEN),
        # after a pause of two periods the next is due in one
        (8.0, 18.0, TAKEN), (9.0, 19.0, MANY), (9.0, 1.0, back(18.0)), (9.5, 1.5, MANY),
    ):  # fmt: skip
        assert order.check(int(stamp * 1e9), now, 0.5) == wanted
    # a rate that is raised holds at once
    assert order.check(int(1.7e9), 9.6, 20.0) == MANY
    assert order.check(int(1.8e9), 9.65, 20.0) == TAKEN


def test_jumps_and_what_cannot_be_used_are_counted_and_told():
    graph, health, taken, restarts = Graph(), Health(0.0), list[float](), list[float]()

    def take(message: Any, stamp_ns: int, now: float) -> None:
        taken.append(stamp_ns / MS)
        if stamp_ns == 175 * MS:
            raise OverflowError(f'PointField count 4294967295 of {"x" * 100_000}')

    OrderedSubscription(
        graph, Image, 'front', take, 'auto', health, lambda: restarts.append(taken[-1]),
        lambda message, lost: message.header and message,
    )  # fmt: skip
    for stamp, told in (
        (950, ''), (None, 'frame dropped: a packet before the first key frame'), (100, ''),
        # less than a second, and more
        (200, 'stamps jumped back by 0.75 s'), (1301, ''), (100, 'stamps jumped back by 1.20 s'),
        (0, 'the images carry no stamp'), (150, ''),
        (175, 'a message cannot be used: OverflowError: PointField count'), (180, ''),
    ):  # fmt: skip
        header = None if stamp is None else Header(stamp=Time(nanosec=stamp * MS))
        graph.receive['front'](SimpleNamespace(header=header), {})
        found = [text for _, text in texts(health, health.received[-1])]
        assert not told or [text for text in found if text.startswith(told)], (told, found)
        assert len(str(found)) < 1400, 'a name may be of any length'
    assert not health.unstamped and graph.asked == [('front', 1, 'BEST_EFFORT VOLATILE')]
    assert taken == [950, 200, 1301, 100, 0, 150, 175, 180] and restarts == [1301]
    counts = {key.removeprefix('dropped.'): count for key, count in health.counts.items() if count}
    assert counts == {
        'received': 10, 'no_picture': 1, 'out_of_order': 1, 'time_jumps': 2, 'undecodable': 1,
    }  # fmt: skip
    assert Health(0.0, drops=CLOUD_DROPS, noun='cloud').unreadable == 'malformed'


def test_messages_that_never_came_are_counted_by_the_numbers_of_one_publisher():
    graph, health, told = Graph(), Health(0.0), list[bool]()

    def unpack(message: Any, lost: bool) -> Any:
        told.append(lost)
        return message

    OrderedSubscription(graph, Image, 'front', lambda *_: None, 'auto', health, unpack=unpack)
    graph.publishers = 1

    def lost(number: int | None) -> int:
        info = {} if number is None else {'publication_sequence_number': number}
        graph.receive['front'](Image(), info)
        return health.counts['not_received']

    # a late subscriber; a publisher that starts again; a middleware without numbers
    assert [*map(lost, (7, 8, 11, 1, 3, None, 9, 10))] == [0, 0, 2, 2, 3, 3, 3, 3]
    # a decoder has to know what may be missing
    assert told == [True, False, True, True, True, False, True, False]
    graph.events.matched(None)
    assert lost(20) == 3 and told[-1]
    graph.events.matched(None)
    assert lost(21) == 3 and not told[-1], 'whoever came or went, none is missing'
    # of two publishers each has its own
    graph.publishers = 2
    assert [*map(lost, (90, 22, 91))] == [3, 3, 3] and told[-3:] == [False] * 3


def offers(*policies: str, kind: str = 'sensor_msgs/msg/Image') -> list[Any]:
    """Return publishers by reliability and durability."""
    found = []
    for reliability, durability in map(str.split, policies):
        profile = QoSProfile(
            depth=1,
            reliability=ReliabilityPolicy[reliability],
            durability=DurabilityPolicy[durability],
        )
        found.append(SimpleNamespace(topic_type=kind, qos_profile=profile))
    return found


@pytest.mark.parametrize(
    ('wanted', 'policies', 'asked'),
    [
        ('auto', ['RELIABLE TRANSIENT_LOCAL'], 'RELIABLE TRANSIENT_LOCAL'),
        ('auto', ['RELIABLE TRANSIENT_LOCAL', 'RELIABLE VOLATILE'], 'RELIABLE VOLATILE'),
        ('auto', ['RELIABLE VOLATILE', 'BEST_EFFORT VOLATILE'], 'BEST_EFFORT VOLATILE'),
        ('auto', [], 'BEST_EFFORT VOLATILE'),
        ('reliable', ['BEST_EFFORT VOLATILE'], 'RELIABLE VOLATILE'),
        ('best_effort', ['RELIABLE TRANSIENT_LOCAL'], 'BEST_EFFORT TRANSIENT_LOCAL'),
    ],
)
def test_what_all_publishers_offer_is_asked_for_until_it_closes(wanted, policies, asked):
    graph = Graph()
    subscription = Subscription(graph, Image, 'front', print, wanted)
    before = f'{"RELIABLE" if wanted == "reliable" else "BEST_EFFORT"} VOLATILE'
    graph.offers = offers(*policies) + offers('RELIABLE VOLATILE', kind='std_msgs/msg/String')
    assert graph.subscribed == {subscription}
    # the second time there is nothing to do
    for event in (graph.events.matched, graph.events.incompatible_qos):
        event(None)
        assert graph.asked == [('front', 1, one) for one in dict.fromkeys((before, asked))]
    assert subscription.source() == Source(
        topic='/front', publishers=len(policies), reliable=' '.join(policies).count('RELIABLE'),
        subscribed_reliable=asked.startswith('RELIABLE'), other_types=('std_msgs/String',),
    )  # fmt: skip
    graph.offers, late = offers('RELIABLE VOLATILE'), graph.events.matched
    subscription.close()
    # an event or the guard's callback may have waited
    late(None)
    subscription.match()
    assert not graph.receive and not graph.subscribed and not graph.guards


@pytest.mark.parametrize(
    ('kind', 'published', 'near'),
    [
        # a camera of any transport is one
        (Image, {'/frnt/image': 'CompressedImage', '/fron/image': 'PointCloud2'},
         "; did you mean '/frnt/image'?"),
        (Image, {'/front/image/compressed': 'CompressedImage'},
         "; there is /front/image/compressed: set 'transport' to compressed"),
        (Image, {'/fron/image': 'read only', '/front/nightseg/image': 'Image'}, ''),
        (PointCloud2, {'/fron/image': 'Image', '/frnt/image': 'PointCloud2'},
         "; did you mean '/frnt/image'?"),
    ],
)  # fmt: skip
def test_where_nobody_publishes_the_nearest_topic_is_named(kind, published, near):
    graph: Any = Graph()
    graph.get_topic_names_and_types = lambda: [
        (name, [f'sensor_msgs/msg/{kind.replace("read only", "Image")}'])
        for name, kind in published.items()
    ]
    graph.count_publishers = lambda name: published[name] != 'read only'
    subscription = Subscription(graph, kind, 'front/image', print)
    assert subscription.source() == Source(topic='/front/image', near=near)


# -- health ----------------------------------------------------------------------------------


def texts(health: Health, now: float, source: Source = PRESENT) -> list[tuple[str, str]]:
    return [(p.level, p.text) for p in health.problems(now, source, 1.2)]


def receive(health: Health, *times: float) -> None:
    health.counts['received'] += len(times)
    health.received.extend(times)


def test_a_silence_is_logged_once_after_five_seconds():
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
def test_a_fault_is_shown_for_a_while_and_is_smaller_where_others_are_served(reason):
    health = Health(0.0)
    receive(health, 10.0)
    health.drop(10.0, reason, 'what happened')
    assert health.values(10.0)[f'dropped.{reason}'] == 1
    if reason in NO_FAULT:
        assert texts(health, 10.1) == []
        return
    ((level, text),) = texts(health, 10.6)
    assert (level, text) == ('ERROR', f'what happened (1 {reason} so far)')
    health.last_useful = 10.7
    assert [level for level, _ in texts(health, 10.8)] == ['WARN']
    receive(health, 10.0 + RECOVERY)
    assert texts(health, 10.0 + RECOVERY) == []


def test_changes_are_warnings_for_a_while_and_the_worst_problem_comes_first():
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


@given(st.floats(0.5, 200))
def test_a_steady_rate_is_measured_exactly_and_falls_to_zero(hertz):
    times = [index / hertz for index in range(int(5 * hertz) + 2)]
    assert rate(times, times[-1]) == pytest.approx(hertz, rel=1e-6)
    assert rate(times, times[-1] + 3 / hertz) < hertz
    assert rate(times, times[-1] + 20) == 0


def test_a_warning_is_logged_once_and_then_rarely():
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


# -- worker and camera -----------------------------------------------------------------------


class Graph:
    """Stands for a node and its middleware: the callbacks, and what was published, by topic."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(min_reliability=0.3, **settings)
        self.activity, self.subscribed, self.sources = Activity(0.0), set[Any](), list[Any]()
        self.logger, self.now_ns = MagicMock(), 0
        self.get_logger = lambda: self.logger
        stamp = SimpleNamespace(sec=7, nanosec=0)
        self.get_clock = lambda: SimpleNamespace(
            now=lambda: SimpleNamespace(nanoseconds=self.now_ns, to_msg=lambda: stamp)
        )
        self.receive: dict[str, Any] = {}
        self.events: Any = None
        self.asked: list[tuple[str, int, str]] = []
        self.sent: list[tuple[str, Any]] = []
        self.wanted = {'labels', 'status'}
        self.seconds = 100.0
        """By the monotonic clock; a message but the legends takes an eighth of a second."""
        self.guards: list[Any] = []
        self.destroy_guard_condition = self.guards.remove
        self.resolve_topic_name = '/{}'.format
        self.offers: list[Any] = []
        self.get_publishers_info_by_topic = lambda topic: self.offers

    def create_guard_condition(self, match: Any, group: Any) -> Any:
        self.guards.append(SimpleNamespace(trigger=match))
        return self.guards[-1]

    def create_subscription(self, kind, topic, receive, qos, *, event_callbacks, raw):
        assert topic not in self.receive and not raw
        self.receive[topic], self.events = receive, event_callbacks
        self.asked.append((topic, qos.depth, f'{qos.reliability.name} {qos.durability.name}'))
        return SimpleNamespace(topic=topic, get_publisher_count=lambda: self.publishers)

    def destroy_subscription(self, subscription: Any) -> None:
        del self.receive[subscription.topic]
        self.events = None

    def unsubscribe(self) -> None:
        self.sources.clear()
        for subscription in tuple(self.subscribed):
            subscription.close()

    def create_lifecycle_publisher(self, kind: Any, topic: str, qos: Any, **more: Any) -> Any:
        latched = qos.durability.name == 'TRANSIENT_LOCAL'
        assert (qos.depth, qos.reliability.name) == (1, 'RELIABLE')
        assert (more['qos_overriding_options'] is None) == latched == ('label_info' in topic)
        assert not more['event_callbacks'].use_default_callbacks

        def publish(message: Any) -> None:
            assert isinstance(message, kind)
            self.seconds += 0.125 * (not latched)
            # an image's message is used again
            self.sent.append((topic, copy.deepcopy(message)))

        name = topic.partition('/nightseg/')[2]
        return SimpleNamespace(
            publish=publish, get_subscription_count=lambda: int(name in self.wanted)
        )


class StubPipeline:
    """Stands for the networks; frames of the camera ``broken`` raise, batches above ``room``."""

    def __init__(self, device: str, broken: str, room: int) -> None:
        self.error: Exception = RuntimeError('out of order')
        self.backend = SimpleNamespace(
            device=device, batches=(1,) if device == 'cpu' else (1, 2, 4, 8)
        )
        self.broken, self.room, self.most = broken, room, None
        self.score, self.reliability = 0.9, 0.9
        self.routes_with_reliability, self.long_side = {'day'}, 64
        self.routers = object()
        self.taxonomy = CAMVID11
        self.pictures: dict[str, Any] = {}
        self.batches: list[list[str]] = []
        self.stamps: list[int] = []
        self.changes: list[dict[str, Any]] = []
        self.prepared: list[tuple[int, int]] = []
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.resets: list[dict[str, str]] = []
        self.reset = lambda **given: self.resets.append(given)
        self.change = lambda **values: self.changes.append(values)
        self.describe = lambda: {'weights': {}}

    def warm_up(self, sizes: list[tuple[int, int]]) -> None:
        if not self.room and self.backend.device != 'cpu':
            raise MemoryError('no memory')
        self.prepared.extend(sizes)

    def process(self, frames: list[Frame], wants: list[Want]) -> list[Result]:
        self.entered.set()
        assert self.gate.wait(10)
        self.batches.append([frame.camera for frame in frames])
        self.stamps += [frame.stamp_ns for frame in frames]
        if any(frame.camera == self.broken for frame in frames):
            raise self.error
        if len(frames) > self.room and (self.backend.device != 'cpu' or self.room < 0):
            raise MemoryError('no memory')
        return [self.result(frame, want) for frame, want in zip(frames, wants)]

    def result(self, frame: Frame, want: Want) -> Result:
        """Return a result whose pictures are wrong where the frame is named 'unfit'."""
        pictures: dict[str, Any] = {}
        for number, (name, encoding) in enumerate(PICTURES.items(), 3):
            if getattr(want, name):
                shape = frame.image.shape[: 2 if encoding == 'mono8' else 3]
                pictures[name] = np.full(shape, number, np.uint8)
        return Result(
            frame=frame, illumination=Illumination(score=self.score, state='day'),
            decision=Decision(state='day', route='day', switched=True, reason='it is light'),
            reliability=self.reliability, ms={'network': 1.0},
            **pictures | (self.pictures if frame.frame_id == 'unfit' else {}),
        )  # fmt: skip


class Setup:
    """A worker and its cameras, with stubs for networks and middleware."""

    def __init__(self, monkeypatch, device='cuda', broken='', room=99, **settings):
        self.pipeline = StubPipeline(device, broken, room)
        self.loads: list[tuple[str, list[float]]] = []
        monkeypatch.setattr('nightseg_ros.node.worker.Pipeline.load', self.load)
        self.node: Any = Graph(**settings)
        self.rests: list[float] = []
        clock = SimpleNamespace(monotonic=lambda: self.node.seconds, sleep=self.rests.append)
        for module in ('worker', 'camera', 'subscription'):
            monkeypatch.setattr(f'nightseg_ros.node.{module}.time', clock)
        self.said: list[str] = []
        self.worker = Worker(self.node, ThreadPoolExecutor(2), [(7, 9)], self.said.append)
        self.cameras: dict[str, CameraTopics] = {}
        self.stamp_ns = 0

    def load(self, config: PipelineConfig, **options: Any) -> StubPipeline:
        if config.device != 'auto':
            self.pipeline.backend.device = config.device
            self.loads.append((config.device, self.limits()))
        return self.pipeline

    def change(self, **changes: Any) -> None:
        self.node.settings = dataclasses.replace(self.node.settings, **changes)

    def messages(self, name: str, camera: str = '') -> list[Any]:
        """Return what one camera, or each, has published under a name."""
        end = f'{camera}/nightseg/{name}'
        return [message for topic, message in self.node.sent if topic.endswith(end)]

    def limits(self) -> list[float]:
        """Return the seconds that what is under way may take."""
        return [task.limit for task in self.node.activity.tasks.copy().values()]

    def camera(self, name: str, ego_mask: str = '') -> CameraTopics:
        if name not in self.cameras:
            names = CameraNames(
                name=name, image_topic=f'{name}/image', info_topic=f'{name}/camera_info',
                output=f'{name}/nightseg', ego_mask=ego_mask,
            )  # fmt: skip
            self.cameras[name] = CameraTopics(self.node, names, self.pipeline)
            # also before it is active
            assert self.cameras[name].health.values(0.0)['reliability'] == 'unknown'
            self.cameras[name].subscribe(self.worker.put)
        return self.cameras[name]

    def put(self, name, frame_id='', *, encoding='rgb8', height=4, stamp_ns=None):
        """Send an image, a millisecond behind the one before it."""
        self.camera(name)
        self.stamp_ns += MS
        stamp_ns = self.stamp_ns if stamp_ns is None else stamp_ns
        pixels = np.zeros((height, 4, 3), np.uint8) + np.uint8([10, 20, 30])
        message = image_message(pixels, stamp_ns, frame_id=frame_id, encoding=encoding)
        self.node.receive[f'{name}/image'](message, {})

    def hold(self) -> None:
        """Let the worker be busy with a frame of a camera of its own."""
        self.pipeline.gate.clear()
        self.worker.start()
        self.put('busy')
        assert self.pipeline.entered.wait(10)

    @property
    def served(self) -> list[str]:
        """Return the cameras of the masks that were published."""
        return [t.partition('/')[0] for t, _ in self.node.sent if t.endswith('/labels')]

    def until(self, count: int) -> None:
        """Wait for so many masks in all."""
        self.wait(lambda: len(self.served) >= count)

    def finish(self, count: int) -> list[str]:
        """Let the worker go on until so many masks came, and stop; return their cameras."""
        self.pipeline.gate.set()
        self.until(count)
        assert self.worker.stop(10)
        return self.served

    def serve(self, name: str, count: int, **how: Any) -> list[str]:
        """Start the worker for one image."""
        self.worker.start()
        self.put(name, **how)
        return self.finish(count)

    def wait(self, met: Callable[[], Any]) -> Any:
        """Wait until ``met`` returns something true, and return that."""
        end = time.monotonic() + 10
        while not (result := met()):
            assert time.monotonic() < end
            time.sleep(0.001)
        return result

    def drops(self, name: str) -> dict[str, int]:
        counts = self.cameras[name].health.counts.copy()
        return {k[8:]: v for k, v in counts.items() if k.startswith('dropped.') and v}


@pytest.fixture
def make(monkeypatch):
    """Return what makes setups; whatever happens, none of their threads stays."""
    made = []
    yield lambda *given, **more: made.append(Setup(monkeypatch, *given, **more)) or made[-1]
    for setup in made:
        setup.pipeline.gate.set()
        if setup.worker is not None:
            setup.worker.stop(10)


@pytest.mark.parametrize(
    ('device', 'batches'),
    [
        ('cuda', [['busy'], ['front', 'rear', 'left'], ['front'], ['rear'], ['left']]),
        # where a batch gains nothing, the camera that has waited longest comes alone
        ('cpu', [['busy'], ['front'], ['rear'], ['left']]),
    ],
)
@pytest.mark.parametrize(
    ('error', 'drop', 'words'),
    [
        (RuntimeError, 'failed', 'a frame could not be segmented: RuntimeError'),
        (WithheldError, 'withheld', 'a mask is withheld: WithheldError'),
    ],
)
def test_waiting_frames_are_served_the_latest_of_each_camera_and_a_broken_one_costs_no_other(
    make, device, batches, error, drop, words
):
    setup = make(device, broken='rear')
    setup.pipeline.error = error('out of order')
    setup.hold()
    # a newer frame keeps its camera's place
    for name in ('front', 'rear', 'left', 'front'):
        setup.put(name)
    assert len(setup.rests) == 1, 'the executor rests where the worker waits for a frame alone'
    assert setup.finish(3) == ['busy', 'front', 'left']
    assert setup.pipeline.batches == batches
    assert setup.drops('front') == {'superseded': 1}
    assert setup.drops('rear') == {drop: 1}
    found = texts(setup.cameras['rear'].health, setup.node.seconds)
    assert found == [('ERROR', f'{words}: out of order (1 {drop} so far)')]


MASK = np.zeros((4, 4), np.uint8)


@pytest.mark.parametrize(
    'pictures',
    [
        {'labels': MASK[:, :3]}, {'labels': MASK.astype(np.float32)},
        {'confidence': MASK[..., None]}, {'overlay': MASK}, {'color': np.zeros((3, 4, 3), 'u1')},
    ],
)  # fmt: skip
def test_what_cannot_be_decoded_or_published_is_counted_and_the_next_is_served(make, pictures):
    setup = make('cpu')
    setup.pipeline.pictures = pictures
    setup.worker.start()
    setup.put('a', frame_id='unfit')
    setup.put('b', encoding='nonsense')
    setup.put('c')
    assert setup.finish(1) == ['c']
    assert (setup.drops('a'), setup.drops('b')) == ({'withheld': 1}, {'undecodable': 1})
    now = setup.node.seconds
    ((_, withheld),) = texts(setup.cameras['a'].health, now)
    assert 'a mask is withheld: ValueError: ' in withheld
    assert 'the frame needs uint8 (4, 4' in withheld
    ((_, undecodable),) = texts(setup.cameras['b'].health, now)
    assert undecodable.startswith("a frame could not be read: encoding 'nonsense' is not")


def test_frames_older_than_max_age_are_dropped_and_those_without_a_stamp_have_none(make):
    setup = make()
    setup.hold()
    setup.change(max_age=0.25)
    setup.node.now_ns = 1000 * MS
    stamps = {'late': 749, 'just': 750, 'now': 1000, 'ahead': 2000, 'far': 2001, 'none': 0}
    for name, stamp in stamps.items():
        setup.put(name, stamp_ns=stamp * MS)
    assert setup.finish(5) == ['just', 'now', 'ahead', 'far', 'none']
    # how long it was on its way is known of those that were not stamped in the future
    received = [values_of(m).get('latency_ms.receive') for m in setup.messages('status')]
    assert received == ['250.000', '0.000', None, None, None]
    assert setup.drops('late') == setup.drops('busy') == {'too_old': 1}
    ((_, text),) = setup.cameras['late'].health.faults(setup.node.seconds)
    assert text.startswith('frames are too late: 0.3 s old, max_age is 0.25 s')
    warned = (
        'WARN',
        "frames are stamped ahead of the node's clock: max_age cannot tell their age",
    )
    found = {n: texts(setup.cameras[n].health, setup.node.seconds) for n in ('ahead', 'far')}
    assert [name for name, told in found.items() if warned in told] == ['far']
    # a router needs a clock that runs
    stamps = setup.pipeline.stamps[1:]
    assert stamps == [750 * MS, 1000 * MS, 2000 * MS, 2001 * MS, 100_000 * MS]


def test_a_mask_that_became_too_old_while_it_was_made_is_no_mask(make):
    setup = make()
    setup.change(max_age=0.25)
    setup.node.now_ns = 1000 * MS
    setup.camera('late')
    setup.pipeline.gate.clear()
    setup.worker.start()
    setup.put('late', stamp_ns=1000 * MS)
    assert setup.pipeline.entered.wait(10)
    setup.node.now_ns = 1300 * MS
    setup.pipeline.gate.set()
    setup.wait(lambda: setup.drops('late') == {'too_old': 1})
    assert setup.worker.stop(10) and not setup.served
    ((_, text),) = setup.cameras['late'].health.faults(setup.node.seconds)
    assert text.startswith('masks are made too late: 0.3 s old')


def test_a_picture_that_cannot_be_published_takes_no_mask_along(make, monkeypatch):
    setup = make()
    setup.node.wanted = {'labels', 'overlay/compressed', 'status'}
    broken = MagicMock(side_effect=MemoryError('no memory'))
    monkeypatch.setattr('nightseg_ros.node.camera.jpeg_message', broken)
    assert setup.serve('front', 1) == ['front'] and not setup.drops('front')
    assert setup.cameras['front'].health.counts['served'] == 1 and setup.messages('status')
    found = [text for _, text in texts(setup.cameras['front'].health, setup.node.seconds)]
    assert found == ['overlay/compressed was not published: MemoryError: no memory']


def test_some_new_sizes_are_made_ready_with_the_time_of_a_load_and_batches_have_their_own(make):
    setup, seen, limits = make(), [], []
    process = setup.pipeline.process
    assert setup.pipeline.prepared == [(7, 9)]

    def warm_up(sizes: list[tuple[int, int]]) -> None:
        seen.append((*sizes, *setup.limits()))
        # a second is not worth a word
        setup.node.seconds += {1: 2.0, 2: 1.0}.get(len(seen), 0.0)

    setup.pipeline.warm_up = warm_up
    setup.pipeline.process = lambda *given: limits.append(setup.limits()) or process(*given)
    setup.worker.start()
    for count, height in enumerate((*range(1, 20), 1, 17), 1):
        setup.put('front', height=height)
        setup.until(count)
    assert setup.worker.stop(10)
    # of 16 at most, the first was made ready at the start
    assert seen == [((height, 4), 600.0) for height in range(1, 16)]
    assert limits == [[30.0]] * 21
    health = setup.cameras['front'].health
    assert health.counts['size_changes'] == 20
    assert ('WARN', 'the size of the images changed') in texts(health, setup.node.seconds)
    assert setup.said == ['ready for images of 4×1 pixels after 2.0 s']
    assert setup.worker.slow == (103.5, 1.25)
    logged = [call.args[0] for call in setup.node.logger.warning.call_args_list]
    assert 'front: images changed from 4×1 to 4×2' in logged
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
    monkeypatch, make, score, reliability, words
):
    setup = make()

    def slowly(*given: Any) -> Any:
        setup.node.seconds += 0.0625
        return decode(*given)

    monkeypatch.setattr('nightseg_ros.node.worker.decode', slowly)
    setup.hold()
    setup.pipeline.score, setup.pipeline.reliability = score, reliability
    setup.node.now_ns = 20_000 * MS
    setup.camera('rear')
    # the rear's is of another day, as that of a bag
    for name, stamp_ns in (('front', 19_750 * MS), ('rear', 10_000 * MS)):
        setup.put(name, stamp_ns=stamp_ns)
    setup.node.seconds += 0.5
    # some networks have not learnt to judge frames
    setup.cameras['rear'].routes_with_reliability = frozenset()
    setup.finish(3)
    for name, shown in (('front', words), ('rear', '' if '0.29' in words else words)):
        health = setup.cameras[name].health
        receive(health, health.last_useful)
        now = health.last_useful
        values, problems = health.values(now), health.problems(now, PRESENT, 9.0)
        counted = [values[key] for key in ('served', 'published.labels', 'published.status')]
        assert counted == [1, 1, 1] and values['output_hz'] == 0.2
        assert values['computed.labels'] == 1 and 'computed.color' not in values
        assert str(values['reliability']) == str('unknown' if reliability is None else reliability)
        assert [problem.text[: len(shown)] for problem in problems] == ([shown] if shown else [])
        assert health.note == f'route day, day, score {score:.3f}'
        wait, total = (750.0, 1000.0) if name == 'front' else (812.5, 1250.0)
        assert values['latency_ms.p50'] == total
        [status] = setup.messages('status', name)
        ms = values_of(status)
        assert ms['age_s'] == ('0.250' if name == 'front' else '10.000')
        wanted = {'wait': wait, 'decode': 62.5, 'network': 1.0, 'publish': 125.0, 'total': total}
        wanted |= {'receive': 250.0} if name == 'front' else {}
        assert {k[11:]: float(v) for k, v in ms.items() if k.startswith('latency')} == wanted
    assert setup.pipeline.resets == [{'reason': 'activated'}] and setup.worker.slow is None
    setup.node.logger.info.assert_called_with('rear: route day now: it is light')


@pytest.mark.parametrize('fallback', [True, False])
def test_where_memory_runs_out_batches_shrink_and_then_the_cpu_may_take_over(make, fallback):
    setup = make(cpu_fallback=fallback)
    setup.hold()
    for name in 'abcd':
        setup.put(name)
    setup.pipeline.room = 2
    setup.finish(5)
    assert setup.pipeline.batches[1:] == [['a', 'b', 'c', 'd'], ['a', 'b'], ['c', 'd']]
    assert not setup.worker.memory_problem
    setup.pipeline.room, routers = 0, setup.pipeline.routers
    if fallback:
        setup.serve('a', 6)
        assert setup.loads == [('cpu', [600.0])] and setup.pipeline.routers is routers
        assert setup.pipeline.batches[4:] == [['a'], ['a']] and not setup.pipeline.changes
        # the networks on the CPU were made ready as well
        assert setup.pipeline.prepared == [(7, 9), (4, 4), (4, 4)]
        assert setup.said == ['no memory: batches have at most 2 frames from now on']
        assert 'cuda is out of memory: the networks run on the CPU' in setup.worker.memory_problem
        setup.node.logger.error.assert_called_once_with(setup.worker.memory_problem)
        # the CPU does not heal it
        setup.node.seconds += 3
        setup.serve('b', 7)
        assert setup.worker.memory_problem
        # nothing is left to fall back to
        setup.pipeline.room = -1
    setup.worker.start()
    setup.put('a')
    setup.wait(lambda: setup.drops('a'))
    assert setup.worker.stop(10)
    assert setup.drops('a') == {'failed': 1} and len(setup.loads) == fallback
    ((_, text),) = setup.cameras['a'].health.faults(setup.node.seconds)
    assert text == 'a frame could not be segmented: MemoryError: no memory (1 failed so far)'
    if not fallback:
        assert setup.worker.memory_problem == 'cuda is out of memory, and cpu_fallback is off'
        setup.pipeline.room = 99
        setup.node.seconds += 3
        setup.serve('b', 6)
        assert not setup.worker.memory_problem


def test_where_memory_runs_out_at_the_start_the_cpu_may_take_over(make):
    with pytest.raises(MemoryError):
        make(room=0, cpu_fallback=False)
    setup = make(room=0)
    assert setup.loads == [('cpu', [])] and setup.pipeline.prepared == [(7, 9)]
    assert 'the networks run on the CPU' in setup.worker.memory_problem


@pytest.mark.parametrize('first', [3000, 60_000])
def test_a_camera_of_12_bits_that_turns_out_to_have_16_is_told_of(make, first):
    setup = make('cpu')
    setup.worker.start()
    setup.camera('front')
    for number, largest in enumerate((first, *[60_000] * 3, first), 1):
        pixels = np.full((4, 4), largest, '<u2').view(np.uint8)
        # its driver changes the encoding at the end, and with it perhaps the bits
        encoding = 'bayer_rggb16' if number == 5 else 'mono16'
        message = image_message(pixels, number * MS, encoding=encoding)
        message.width = 4
        setup.node.receive['front/image'](message, {})
        setup.until(number)
    assert setup.worker.stop(10)
    found = [text for _, text in texts(setup.cameras['front'].health, setup.node.seconds)]
    assert any('read as 16 bits' in text for text in found) is (first == 3000)
    assert setup.cameras['front'].bit_depth.sixteen is False


def test_networks_that_fail_for_good_end_the_process(make):
    setup = make(broken='front')
    setup.worker.start()
    for count, seconds in enumerate((0, 20, 11), 1):
        setup.node.seconds += seconds
        setup.put('front')
        failed = {'failed': count}
        setup.wait(lambda failed=failed: setup.drops('front') == failed and not setup.limits())
        if count == 1:
            # of another camera's frame nothing is wrong
            setup.put('rear')
            setup.until(1)
    setup.node.seconds += 20
    setup.put('front')
    tasks = setup.node.activity.tasks
    [text] = setup.wait(lambda: [task.text for task in tasks.copy().values() if task.limit < 0])
    assert 'no frame could be segmented for 30 s: out of order' in text


def test_networks_that_fail_for_every_frame_of_a_slow_camera_end_the_process(make):
    setup = make(broken='front', watchdog_s=1.0)
    setup.worker.start()
    setup.put('front')
    setup.wait(lambda: setup.drops('front') and not setup.limits())
    setup.node.seconds += 2
    setup.put('front')
    setup.wait(lambda: -1.0 in setup.limits())


def test_weights_that_were_replaced_meanwhile_end_the_process(make):
    """Their ids may mean other classes than those that were announced."""
    setup = make()
    setup.pipeline.room = 0
    setup.pipeline.describe = MagicMock(side_effect=[{'weights': 'old'}, {'weights': 'new'}])
    setup.worker.start()
    setup.put('front')
    tasks = setup.node.activity.tasks
    [text] = setup.wait(lambda: [task.text for task in tasks.copy().values() if task.limit < 0])
    assert 'files of weights have changed' in text and not setup.served


@pytest.mark.parametrize('stopped', [False, True])
def test_a_worker_that_dies_ends_the_process_unless_it_was_to_stop(make, stopped):
    setup = make()
    setup.hold()
    setup.pipeline.result = MagicMock(side_effect=SystemExit(3))
    assert setup.limits() == [30.0] and not (stopped and setup.worker.stop(0.01))
    setup.pipeline.gate.set()
    text = 'the worker thread has ended by an error: SystemExit(3)'
    wanted = [] if stopped else [(text, -1.0)]
    tasks = setup.node.activity.tasks
    setup.wait(lambda: [task[:2] for task in tasks.copy().values()] == wanted)
    assert setup.worker.stop(10) and setup.pipeline.batches
    if stopped:
        del setup.pipeline.result
        assert setup.serve('front', 1) == ['front']


def test_a_stopped_worker_publishes_nothing_more_and_takes_changes_when_it_starts_again(make):
    setup = make()
    setup.hold()
    assert setup.node.activity.tasks
    setup.put('rear')
    for changes in ({'route': 'day'}, {'route': 'night', 'overlay_alpha': 0.1}):
        setup.change(pipeline=PipelineConfig(**changes))
    assert not setup.worker.stop(0.01), 'it is still busy'
    setup.put('rear')
    setup.pipeline.gate.set()
    assert setup.worker.stop(10)
    assert not setup.served and not setup.pipeline.changes
    assert setup.serve('front', 1) == ['front'], 'what waited before is not shown afterwards'
    [change] = setup.pipeline.changes
    assert (change['route'], change['overlay_alpha']) == ('night', 0.1)
    gone = weakref.ref(setup.worker)
    setup.node.unsubscribe()
    setup.worker = None
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ('label_size', 'encoding', 'size'),
    [('camera', 'rgb8', (120, 4)), ('network', 'bgr8', (32, 1))],
)
def test_every_topic_that_is_wanted_has_its_message_under_the_frames_header(
    monkeypatch, make, tmp_path, label_size, encoding, size
):
    vision = SimpleNamespace(VisionClass=SimpleNamespace, LabelInfo=LabelInfo)
    monkeypatch.setitem(sys.modules, 'vision_msgs.msg', vision)
    setup = make(label_size=label_size)
    own = np.zeros((60, 2), np.uint8)
    own[40:] = 9
    cv2.imwrite(str(tmp_path / 'own.png'), own)
    camera = setup.camera('front', str(tmp_path / 'own.png'))
    (told,), (nav2,) = map(setup.messages, ('label_info_json', 'label_info'))
    assert [item['name'] for item in json.loads(told.data)['classes']] == list(CAMVID11.classes)
    names = {item.class_id: item.class_name for item in nav2.class_map}
    assert names == dict(enumerate(CAMVID11.classes)) and nav2.header.stamp.sec == 7
    setup.node.wanted = {topic.name for topic in TOPICS if not topic.latched}
    setup.worker.start()
    # labels are never larger than the picture, and there is no calibration yet
    setup.put('small', 'optical')
    setup.until(1)
    [small] = setup.messages('labels')
    assert (small.height, small.width) == (4, 4)
    setup.node.receive['front/camera_info'](CameraInfo(height=120, width=4), {})
    setup.put('front', 'optical', height=120, encoding=encoding)
    setup.finish(2)
    sent = {topic.partition('/nightseg/')[2]: m for topic, m in setup.node.sent[-10:]}
    # what a planner waits for comes first, and the status knows how long it took
    order = [topic.name for topic in TOPICS if topic.name in setup.node.wanted]
    assert sorted(sent, key='status'.__eq__) == sorted(order, key='status'.__eq__) == list(sent)
    for name, message in sent.items():
        if name != 'illumination':
            assert message.header.frame_id == 'optical' and message.header.stamp.nanosec == 2 * MS
    assert sent['illumination'].data == pytest.approx(0.9)
    assert (sent['camera_info'].height, sent['camera_info'].width) == size
    found = {name: pixels_of(sent[name]) for name in PICTURES}
    for name, pixels in found.items():
        assert pixels.shape == (size if name in ('labels', 'confidence') else (120, 4, 3))
    vehicle = np.arange(size[0])[:, None] >= size[0] * 2 // 3
    assert (found['labels'] == np.where(vehicle, 255, 3)).all()
    assert (found['confidence'] == np.where(vehicle, 0, 4)).all()
    assert (found['color'][:80] == 5).all() and not found['color'][80:].any()
    assert (found['overlay'][:80] == 6).all() and (found['translated'] == 7).all()
    step = 1 if encoding == 'rgb8' else -1
    assert (found['overlay'][80:] == [10, 20, 30][::step]).all()
    np.testing.assert_array_equal(decode(sent['labels/compressed'])[0][..., 0], found['labels'])
    jpeg = decode(sent['overlay/compressed'])[0][..., ::-1].astype(int)
    assert np.abs(jpeg - found['overlay']).max() < 4
    assert sent['labels/compressed'].format == 'mono8; png compressed mono8'
    assert sent['overlay/compressed'].format == 'rgb8; jpeg compressed bgr8'
    assert len(setup.messages('camera_info')) == 1 and camera.health.info_problem == ''
    setup.node.unsubscribe()
    # active again, it knows nothing of before
    camera.subscribe(setup.worker.put)
    setup.serve('front', 3, height=120)
    assert camera.health.info_problem == 'no calibration came on front/camera_info'
    assert camera.health.counts['size_changes'] == 0


class LabelInfo:
    """Stands for the message of vision_msgs."""

    def __init__(self) -> None:
        self.header, self.class_map = Header(), list[Any]()


def test_what_is_missing_or_no_number_is_not_published_and_said(make, tmp_path):
    cv2.imwrite(str(tmp_path / 'own.png'), np.eye(4, dtype=np.uint8))
    setup = make()
    setup.pipeline.score = math.nan
    health = setup.camera('front', str(tmp_path / 'own.png')).health
    shown = []
    for wanted in ({'labels', 'camera_info', 'illumination'}, {'labels'}, {'color', 'status'}):
        setup.node.wanted = wanted
        setup.node.sent.clear()
        setup.worker.start()
        setup.put('front')
        setup.wait(lambda: setup.node.sent)
        assert setup.worker.stop(10)
        topics = {topic.partition('/nightseg/')[2] for topic, _ in setup.node.sent}
        shown.append((health.info_problem, topics))
    assert shown == [
        ('no calibration came on front/camera_info', {'labels'}), ('', {'labels'}),
        ('', {'color', 'status'}),
    ]  # fmt: skip


def test_a_subscription_is_as_the_parameters_say(make):
    setup = make(transport='foxglove', image_topics=('/front/foxglove',))
    with pytest.raises(ConfigError, match="'transport' is foxglove, but foxglove_msgs is not"):
        setup.camera('front')
    for transport, reliability, asked in (
        ('raw', 'auto', (1, 'BEST_EFFORT VOLATILE')),
        # each packet of a video counts
        ('compressed', 'reliable', (30, 'RELIABLE VOLATILE')),
    ):
        setup = make(transport=transport, qos_reliability=reliability)
        setup.camera('front')
        info = ('front/camera_info', 1, 'BEST_EFFORT VOLATILE')
        assert setup.node.asked == [info, ('front/image', *asked)]


# -- watchdog --------------------------------------------------------------------------------


def hangs(activity: Activity, begin: float, end: float) -> list[Hang]:
    """Check twice a second and return what hung."""
    times = np.arange(begin, end + PERIOD / 2, PERIOD)
    return [hang for hang in map(activity.check, times) if hang is not None]


@pytest.mark.parametrize('pause', [3.0, 3600.0])
def test_time_in_which_the_process_was_stopped_does_not_count(pause):
    activity = Activity(0.0)
    activity.tasks['a'] = Task('a batch', 10.0, 0.0)
    hangs(activity, 0.0, 1.0)
    assert activity.check(1.0 + pause) is None
    seen = hangs(activity, 1.5 + pause, 11.5 + pause)
    assert LATE < seen[0].seconds < 2.0
    assert [hang.fatal for hang in seen[-2:]] == [False, True]
    assert str(seen[-1]) == 'a batch for 10.5 s'
