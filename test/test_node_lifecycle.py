# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The node's life: transitions, weights that are missing, signals, parameters that are wrong."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from functools import lru_cache, partial
import gc
import itertools
import os
from pathlib import Path
import re
import signal
import time
from typing import Any

from hypothesis import example, given, HealthCheck, settings
from hypothesis import strategies as st
from lifecycle_msgs.srv import GetState
from nightseg_ros.node.camera import sampled
from nightseg_ros.node.night_perception import NightPerception
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig
from nightseg_ros.perception.result import Want
from nightseg_ros.perception.router import RouterConfig, RouteTable
from nightseg_ros.runtime.pixels import fit
import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from ros_harness import (
    Camera,
    Client,
    image_message,
    NodeProcess,
    picture,
    pixels_of,
    running,
    SECOND,
    stamp_ns,
)
from sensor_msgs.msg import Image

pytestmark = [pytest.mark.ros, pytest.mark.slow]

OUT = 'camera/nightseg'


def test_every_transition_and_cleanup_frees_everything(
    client: Client, parameters: dict[str, Any], tmp_path: Path
) -> None:
    def topics() -> set[str]:
        ask = client.node.get_publisher_names_and_types_by_node
        return {name for name, _ in ask('night_perception', '/') if 'nightseg/' in name}

    camera = Camera(client)
    with running(tmp_path / 'log', {**parameters, 'autostart': False}) as node:
        process = Path(f'/proc/{node.process.pid}')
        assert client.state() == 'unconfigured'
        assert not client.transition('activate')
        # services may be found before the names of their node are
        client.until(lambda: 'night_perception' in client.node.get_node_names(), 'the node')
        assert topics() == set()

        resources = []
        for _ in range(4):
            assert client.transition('configure')
            assert client.state() == 'inactive'
            client.diagnosed('node', 'OK', 'inactive')
            client.until(lambda: f'/{OUT}/labels' in topics(), 'output topics')
            assert client.node.count_subscribers('camera/image_raw') == 0
            for _ in range(2):
                assert client.transition('activate')
                camera.connect().serve()
                assert client.transition('deactivate')
                client.until(
                    lambda: camera.publisher.get_subscription_count() == 0, 'no subscription'
                )
            assert client.transition('cleanup')
            assert client.state() == 'unconfigured'
            client.until(lambda: topics() == set(), 'no output topics')
            values = client.diagnosed('node', 'OK', 'unconfigured')
            assert values['cameras'] == '0' and 'weights.day' not in values
            held = [len(list((process / name).iterdir())) for name in ('fd', 'task')]
            resources.append(held)
        # the first time loads libraries with threads of their own
        assert resources[1] == resources[2] == resources[3], resources

        assert client.transition('configure') and client.transition('activate')
        camera.connect().serve()
        assert client.transition('shutdown')
        assert client.state() == 'finalized'
        client.until(lambda: topics() == set(), 'no output topics')
        assert node.stop() == 0


def test_cycles_leave_no_entity_with_the_node(parameters: dict[str, Any]) -> None:
    context = Context()
    rclpy.init(context=context)
    overrides = [
        Parameter(name, value=value)
        for name, value in {**parameters, 'autostart': False, 'long_side': 64}.items()
    ]
    node = NightPerception(context=context, parameter_overrides=overrides)
    try:
        held = []
        for _ in range(3):
            for trigger in ('configure', 'activate', 'deactivate', 'cleanup'):
                getattr(node, f'trigger_{trigger}')()
            # rclpy itself never takes anything out of it
            held.append(len(node.default_callback_group.entities))
        assert held[0] == held[2], held
        assert not list(node.subscriptions)
    finally:
        node.destroy_node()
        # its state machine would keep it in the graph of the tests that follow
        del node
        gc.collect()
        context.shutdown()


NIGHT = picture(60, 80, night=True)
TRANSITIONS = ('configure', 'activate', 'deactivate', 'cleanup')
CHANGES: tuple[dict[str, Any], ...] = (
    *({'route': route} for route in ('auto', 'day', 'night', 'translate', 'noon')),
    *({'router.table.night': route} for route in ('day', 'night', 'translate')),
    *({'overlay_alpha': alpha} for alpha in (0.0, 1.0, 2.0)),
    *({'label_size': size} for size in ('camera', 'network')),
    # the first contradicts another value, so that configure or the change is refused
    {'router.dark': 0.9}, {'router.dark': 0.35},
    {'route': 'day', 'overlay_alpha': 7.0}, {'route': 'night', 'overlay_alpha': 0.5},
)  # fmt: skip


class Probe:
    """A node in this process, asked by what it says and by what it publishes."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.context = Context()
        rclpy.init(context=self.context)
        given = {**parameters, 'autostart': False, 'overlay_route': False}
        overrides = [Parameter(name, value=value) for name, value in given.items()]
        self.node = NightPerception(context=self.context, parameter_overrides=overrides)
        self.defaults = {name: self.said(name) for change in CHANGES for name in change}
        self.user = rclpy.create_node('user', context=self.context)
        self.got: dict[str, Any] = {}
        for topic in ('labels', 'overlay'):
            keep = partial(self.got.__setitem__, topic)
            self.user.create_subscription(Image, f'{OUT}/{topic}', keep, 5)
        self.publisher = self.user.create_publisher(Image, 'camera/image_raw', 5)
        self.executor = SingleThreadedExecutor(context=self.context)
        for node in (self.node, self.user):
            self.executor.add_node(node)
        self.stamps = itertools.count(SECOND, SECOND // 10)

    def said(self, name: str) -> Any:
        return self.node.get_parameter(name).value

    def change(self, change: dict[str, Any]) -> None:
        before = {name: self.said(name) for name in change}
        values = [Parameter(name, value=value) for name, value in change.items()]
        taken = self.node.set_parameters_atomically(values).successful
        assert {name: self.said(name) for name in change} == (change if taken else before)

    def state(self) -> str:
        return self.node._get_state(GetState.Request(), GetState.Response()).current_state.label

    def reset(self) -> None:
        """Make it unconfigured, with the defaults."""
        for state, transition in (('active', 'deactivate'), ('inactive', 'cleanup')):
            if self.state() == state:
                getattr(self.node, f'trigger_{transition}')()
        self.change(self.defaults)

    def served(self) -> tuple[Any, Any]:
        """Return labels and overlay of a frame by night."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            self.got.clear()
            at = next(self.stamps)
            self.publisher.publish(image_message(NIGHT, at))
            soon = time.monotonic() + 3
            while time.monotonic() < soon:
                self.executor.spin_once(timeout_sec=0.1)
                if len(self.got) == 2 and {stamp_ns(m) for m in self.got.values()} == {at}:
                    return pixels_of(self.got['labels']), pixels_of(self.got['overlay'])
        raise AssertionError('no masks')

    def close(self) -> None:
        self.reset()
        self.node.destroy_node()
        del self.node
        gc.collect()
        self.user.destroy_node()
        self.context.shutdown()


@pytest.fixture(scope='module')
def probe(parameters: dict[str, Any]) -> Iterator[Probe]:
    probe = Probe(parameters)
    yield probe
    probe.close()


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
# while inactive, and against what the light asks for
@example(steps=['configure', {'route': 'day'}, 'activate', 'deactivate', {'overlay_alpha': 1.0}])
@example(steps=[{'router.dark': 0.9}, 'configure', {'router.dark': 0.35}, 'configure', 'activate'])
@given(st.lists(st.one_of(st.sampled_from(TRANSITIONS), st.sampled_from(CHANGES)), max_size=14))
def test_what_the_parameters_say_is_what_is_done(
    probe: Probe, parameters: dict[str, Any], steps: list[str | dict[str, Any]]
) -> None:
    """In whatever order transitions and changes come, taken or refused."""
    probe.reset()
    for step in [*steps, 'configure', 'activate']:
        if isinstance(step, dict):
            probe.change(step)
        else:
            # what the state does not allow is refused
            with contextlib.suppress(Exception):
                getattr(probe.node, f'trigger_{step}')()
        if probe.state() != 'active':
            continue
        labels, overlay = probe.served()
        router = RouterConfig(
            dark=probe.said('router.dark'),
            table=RouteTable(night=probe.said('router.table.night')),
        )
        names = {n[8:]: path for n, path in parameters.items() if n.startswith('weights.')}
        pipeline = pipeline_of(
            PipelineConfig(
                route=probe.said('route'),
                router=router,
                weights=WeightsConfig(**names),
                overlay_alpha=probe.said('overlay_alpha'),
                overlay_route=False,
                backend='torch',
                threads=1,
            )  # fmt: skip
        )
        pipeline.reset()
        (result,) = pipeline.process([Frame(image=NIGHT)], Want(overlay=True))
        size = fit(*NIGHT.shape[:2], pipeline.long_side).labels
        size = NIGHT.shape[:2] if probe.said('label_size') == 'camera' else min(size, (60, 80))
        np.testing.assert_array_equal(labels, sampled(result.labels, size))
        np.testing.assert_array_equal(overlay, result.overlay)


@lru_cache
def pipeline_of(config: PipelineConfig) -> Pipeline:
    return Pipeline.load(config)


def test_wrong_and_misspelt_parameters_are_named_and_can_be_put_right(
    client: Client, parameters: dict[str, Any], tmp_path: Path
) -> None:
    # a whole number is taken for a double
    wrong = {'route': 'noon', 'max_rate': -1, 'threads': 'two', 'rout': 'night'}
    file = tmp_path / 'wrong.yaml'
    text = '{silent_after: fast, watchdog_s: 0.0, cameras: front}'
    file.write_text(f'/**: {{ros__parameters: {text}}}')
    given = ({**parameters, **wrong}, '--params-file', str(file))
    with running(tmp_path / 'log', *given) as node:
        for words in (
            "'silent_after' must be a double, got 'fast'",
            "'watchdog_s' must be 1 to 3600, got 0.0",
            "'cameras' must be a string array, got 'front'",
            "'route' must be one of auto, day, night, translate; got 'noon'",
            "'max_rate' must be 0 to 1000, got -1.0",
            "'threads' must be a integer, got 'two'",
            "'rout' is not known and has no effect; did you mean 'route'?",
        ):
            values = client.diagnosed('node', 'ERROR', words)
            assert words in node.text
        assert values['state'] == 'unconfigured'
        mended = {'silent_after': 1.2, 'watchdog_s': 30.0, 'cameras': ['camera']}
        assert client.set_parameters(route='day', threads=1, **mended).successful
        assert not client.transition('configure')
        client.until(lambda: 'noon' not in client.status('node')[1], 'one problem less')
        client.diagnosed('node', 'ERROR', 'max_rate')
        assert client.set_parameters(max_rate=1.0).successful
        assert client.transition('configure')
        client.diagnosed('node', 'WARN', "'rout' is not known")


class Unprepared(NodeProcess):
    """A node that makes no common size ready beforehand, which takes long where one is huge."""

    command = (
        '-c',
        'from nightseg_ros.node.main import serve\n'
        'def make():\n'
        # imported before, its threads would take the signals
        '    from nightseg_ros.node import night_perception\n'
        '    night_perception.COMMON_SIZES = ()\n'
        '    return night_perception.NightPerception()\n'
        'serve("night_perception", make)',
    )


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_inference_ends_the_process_within_two_seconds_with_code_0(
    client: Client, parameters: dict[str, Any], tmp_path: Path, number: int
) -> None:
    camera = Camera(client)
    # a network input of 2048 pixels keeps a core busy for seconds
    slow = {**parameters, 'long_side': 4096, 'route': 'translate'}
    with running(tmp_path / 'log', slow, kind=Unprepared) as node:
        camera.connect()

        def busy() -> bool:
            camera.send(picture(480, 640))
            before = cpu_seconds(node.process.pid)
            client.spin(0.2)
            return cpu_seconds(node.process.pid) - before > 0.02

        client.until(busy, 'inference')
        begun = time.monotonic()
        assert node.stop(number, timeout=10) == 0
        assert time.monotonic() - begun < 2
        assert not re.search('Traceback|terminate called|Segmentation', node.text)


def cpu_seconds(pid: int) -> float:
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def test_a_signal_before_the_first_spin_ends_it_as_well(
    parameters: dict[str, Any], tmp_path: Path
) -> None:
    with running(tmp_path / 'log', parameters) as node:
        # in the middle of the imports, or of loading
        time.sleep(1.0)
        begun = time.monotonic()
        code = node.stop(signal.SIGTERM, timeout=10)
        assert time.monotonic() - begun < 2
        assert code in (0, -signal.SIGTERM), 'killed only where Python had not started yet'


class Failing(NodeProcess):
    """A node with a timer whose callback fails, every 50 ms or every second."""

    command = (
        '-c',
        'from nightseg_ros.node.main import serve\n'
        'def make():\n'
        '    from nightseg_ros.node.night_perception import NightPerception\n'
        '    node = NightPerception()\n'
        '    node.create_timer(1.0 if node.get_namespace() == "/slow" else 0.05, lambda: 1 / 0)\n'
        '    return node\n'
        'serve("night_perception", make)',
    )


def test_a_node_whose_callbacks_only_fail_exits(
    parameters: dict[str, Any], tmp_path: Path
) -> None:
    with running(tmp_path / 'log', parameters, kind=Failing) as node:
        segments = node.until_segments()
        assert node.process.wait(60) == 1
        assert not [path for path in segments if path.exists()]
        assert 'ZeroDivisionError' in node.text
        assert 'errors in callbacks within 10 s; exiting with code 1' in node.text


def test_a_callback_that_fails_now_and_then_leaves_the_node_serving(
    parameters: dict[str, Any], tmp_path: Path
) -> None:
    client = Client('/slow/night_perception')
    camera = Camera(client, '/slow/camera')
    with running(tmp_path / 'log', parameters, '-r', '__ns:=/slow', kind=Failing) as node:
        camera.connect()
        client.until(lambda: 'ZeroDivisionError' in node.text, 'an error')
        camera.serve()
        assert node.stop() == 0
    client.close()
