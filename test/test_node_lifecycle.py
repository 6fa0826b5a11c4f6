# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The node's life: transitions, weights that are missing, signals, parameters that are wrong."""

from __future__ import annotations

from functools import lru_cache
import gc
import os
from pathlib import Path
import signal
import time
from typing import Any

from cloud_harness import CloudProcess, PARAMETERS
from hypothesis import example, given, HealthCheck, settings
from hypothesis import strategies as st
from nightseg_ros.node.camera import sampled
from nightseg_ros.node.night_perception import NightPerception
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig
from nightseg_ros.perception.result import Want
from nightseg_ros.perception.router import RouterConfig, RouteTable
from nightseg_ros.runtime.pixels import fit
from nightseg_ros.shared_memory import SETTLED
import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from rclpy.parameter import Parameter
from ros_harness import Camera, Client, large, node_with, picture, pixels_of, running, served
from watch import resources

pytestmark = [pytest.mark.ros, pytest.mark.slow]

OUT = 'camera/nightseg'


def test_every_transition_and_cleanup_frees_everything(parameters, tmp_path):
    def topics() -> set[str]:
        ask = client.node.get_publisher_names_and_types_by_node
        return {name for name, _ in ask('night_perception', '/') if 'nightseg/' in name}

    given = {**parameters, 'autostart': False}
    with served(tmp_path, given, state='unconfigured') as client:
        camera = Camera(client)
        assert not client.transition('activate')
        # services may be found before the names of their node are
        client.until(lambda: 'night_perception' in client.node.get_node_names(), 'the node')
        assert topics() == set()

        held = []
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
            found = resources(client.process.process.pid)
            held.append((found['fds'], found['threads']))
        # the first time loads libraries with threads of their own
        assert held[1] == held[2] == held[3], held

        client.start()
        camera.connect().serve()
        assert client.transition('shutdown')
        assert client.state() == 'finalized'
        client.until(lambda: topics() == set(), 'no output topics')
        client.process.ends(signal.SIGINT)


def test_cycles_leave_no_entity_with_the_node(parameters):
    context = Context()
    rclpy.init(context=context)
    given = {**parameters, 'autostart': False, 'long_side': 64}
    overrides = [Parameter(name, value=value) for name, value in given.items()]
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
NAMES = list({name: None for change in CHANGES for name in change})


@pytest.fixture(scope='module')
def plain(parameters, tmp_path_factory):
    given = {**parameters, 'autostart': False, 'overlay_route': False}
    folder = tmp_path_factory.mktemp('node')
    with served(folder, given, namespace='/plain', state='unconfigured') as client:
        camera = Camera(client, '/plain/camera', 'labels', 'overlay')
        camera.defaults = dict(zip(NAMES, client.get(*NAMES)))
        yield camera


def change(client: Client, values: dict[str, Any]) -> None:
    """Set parameters, which are taken together or not at all."""
    before = client.get(*values)
    taken = client.set_parameters(
        **{n.replace('.', '__'): v for n, v in values.items()}
    ).successful
    assert client.get(*values) == ([*values.values()] if taken else before)


@lru_cache
def pipeline_of(config: PipelineConfig) -> Pipeline:
    return Pipeline.load(config)


@settings(max_examples=12, suppress_health_check=list(HealthCheck))
# while inactive, and against what the light asks for
@example(steps=['configure', {'route': 'day'}, 'activate', 'deactivate', {'overlay_alpha': 1.0}])
@example(steps=[{'router.dark': 0.9}, 'configure', {'router.dark': 0.35}, 'configure', 'activate'])
@given(st.lists(st.one_of(st.sampled_from(TRANSITIONS), st.sampled_from(CHANGES)), max_size=14))
def test_what_the_parameters_say_is_what_is_done(plain, parameters, steps):
    """In whatever order transitions and changes come, taken or refused."""
    client = plain.client
    client.unconfigure()
    change(client, plain.defaults)
    weights = {n[8:]: path for n, path in parameters.items() if n.startswith('weights.')}
    for step in [*steps, 'configure', 'activate']:
        if isinstance(step, dict):
            change(client, step)
        else:
            # what the state does not allow is refused
            client.transition(step)
        if client.state() != 'active':
            continue
        labels, overlay = (pixels_of(answer) for answer in plain.connect().serve(NIGHT))
        said = dict(zip(NAMES, client.get(*NAMES)))
        table = RouteTable(night=said['router.table.night'])
        pipeline = pipeline_of(
            PipelineConfig(
                route=said['route'], router=RouterConfig(dark=said['router.dark'], table=table),
                weights=WeightsConfig(**weights), overlay_alpha=said['overlay_alpha'],
                overlay_route=False, backend='torch', threads=1,
            )
        )  # fmt: skip
        pipeline.reset()
        (result,) = pipeline.process([Frame(image=NIGHT)], Want(overlay=True))
        size = NIGHT.shape[:2]
        if said['label_size'] == 'network':
            size = min(fit(*size, pipeline.long_side).labels, size)
        np.testing.assert_array_equal(labels, sampled(result.labels, size))
        np.testing.assert_array_equal(overlay, result.overlay)


FAILS_ONCE = (
    'real, calls = night_perception.NightPerception._begin, iter([1]); '
    'night_perception.NightPerception._begin = '
    'lambda node: 1 / 0 if next(calls, None) else real(node)'
)


def test_cameras_whose_masks_are_remapped_to_one_topic_are_refused(parameters, tmp_path):
    given = {**parameters, 'cameras': ['a', 'b'], 'autostart': False}
    remaps = [word for name in 'ab' for word in ('-r', f'{name}/nightseg/labels:=/mask')]
    with served(tmp_path, given, *remaps, state='unconfigured') as client:
        assert not client.transition('configure')
        client.diagnosed('node', 'ERROR', "'cameras' names /mask twice")


def test_a_transition_that_fails_is_told_and_leaves_nothing_behind(parameters, tmp_path):
    override = {'qos_overrides./bad/nightseg/overlay.publisher.reliability': 'nonsense'}
    given = {**parameters, **override, 'autostart': False}
    with served(tmp_path, given, kind=node_with(FAILS_ONCE), state='unconfigured') as client:
        assert client.transition('configure') and not client.transition('activate')
        client.diagnosed('node', 'ERROR', 'activate failed: ZeroDivisionError')
        assert client.transition('activate')
        client.diagnosed('node', 'WARN', "overlay.publisher.reliability' has no effect")
        client.unconfigure()
        # which the node itself has already, of another type
        assert client.set_parameters(image_topics=['/diagnostics']).successful
        assert client.transition('configure') and not client.transition('activate')
        client.diagnosed('node', 'ERROR', 'activate failed: ')
        assert client.transition('cleanup')
        assert client.set_parameters(image_topics=[''], cameras=['bad']).successful
        assert not client.transition('configure')
        client.diagnosed('node', 'ERROR', 'Unexpected QoS override')
        client.until(lambda: not client.node.count_publishers('bad/nightseg/labels'), 'nothing')
        client.start(cameras=['camera'])
        Camera(client).connect().serve()
        client.diagnosed('node', 'OK', 'active')
        assert 'error in a callback' not in client.process.text


def test_wrong_and_misspelt_parameters_are_named_and_can_be_put_right(parameters, tmp_path):
    # a whole number is taken for a double
    wrong = {'route': 'noon', 'max_rate': -1, 'threads': 'two', 'rout': 'night'}
    file = tmp_path / 'wrong.yaml'
    text = '{silent_after: fast, watchdog_s: 0.0, cameras: front}'
    file.write_text(f'/**: {{ros__parameters: {text}}}')
    given = ({**parameters, **wrong}, '--params-file', str(file))
    with served(tmp_path, *given, state='unconfigured') as client:
        for words in (
            "'silent_after' must be a double, got 'fast'",
            "'watchdog_s' must be 1 to 3600, got 0.0",
            "'cameras' must be a string array, got 'front'",
            "'route' must be one of auto, day, night, translate; got 'noon'",
            "'max_rate' must be 0 to 1000, got -1.0",
            "'threads' must be a integer, got 'two'",
            "'rout' is not known and has no effect; did you mean 'route'?",
        ):
            client.diagnosed('node', 'ERROR', words)
            assert words in client.process.text
        mended = {'silent_after': 1.2, 'watchdog_s': 30.0, 'cameras': ['camera']}
        assert client.set_parameters(route='day', threads=1, **mended).successful
        assert not client.transition('configure')
        client.until(lambda: 'noon' not in client.status('node')[1], 'one problem less')
        client.diagnosed('node', 'ERROR', 'max_rate')
        assert client.set_parameters(max_rate=1).successful and client.get('max_rate') == [1.0]
        assert client.transition('configure')
        client.diagnosed('node', 'WARN', "'rout' is not known")


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_inference_ends_the_process_within_two_seconds_with_code_0(
    parameters, tmp_path, number
):
    # a network input of 2048 pixels keeps a core busy for seconds; to prepare it would take long
    slow = {**parameters, 'long_side': 4096, 'route': 'translate'}
    unprepared = node_with('night_perception.COMMON_SIZES = ()')
    with served(tmp_path, slow, kind=unprepared) as client:
        camera = Camera(client).connect()

        def cpu_seconds() -> float:
            return resources(client.process.process.pid)['cpu_s']

        def busy() -> bool:
            camera.send(picture(480, 640))
            before = cpu_seconds()
            client.spin(0.2)
            return cpu_seconds() - before > 0.02

        client.until(busy, 'inference')
        assert large(client.process.segments()) == 1
        client.process.ends(number)


def test_a_signal_before_the_first_spin_ends_it_as_well(parameters, tmp_path):
    made = node_with(after="print('made', flush=True); time.sleep(1)")
    with running(tmp_path / 'log', parameters, kind=made) as node:
        node.until('made')
        node.ends(signal.SIGTERM)


def test_a_node_whose_callbacks_only_fail_exits(parameters, tmp_path):
    failing = node_with(after='node.create_timer(0.05, lambda: 1 / 0)')
    with running(tmp_path / 'log', parameters, kind=failing) as node:
        segments = node.until_segments()
        assert node.process.wait(60) == 1
        assert not [path for path in segments if path.exists()]
        assert 'ZeroDivisionError' in node.text
        assert 'errors in callbacks within 10 s; exiting with code 1' in node.text


def test_a_callback_that_fails_now_and_then_leaves_the_node_serving(parameters, tmp_path):
    failing = node_with(after='node.create_timer(1.0, lambda: 1 / 0)')
    with served(tmp_path, parameters, kind=failing) as client:
        camera = Camera(client).connect()
        client.until(lambda: 'ZeroDivisionError' in client.process.text, 'an error')
        camera.serve()
        assert client.process.stop() == 0


def test_a_node_that_cannot_be_destroyed_in_time_leaves_nothing(parameters, tmp_path):
    loads = 'worker.Pipeline.load = lambda *a, **b: print("loading", flush=True) or time.sleep(99)'
    with running(tmp_path / 'log', parameters, kind=node_with(loads)) as node:
        segments = node.until_segments()
        node.until('loading')
        assert node.stop(signal.SIGTERM) == 0
        assert not [path for path in segments if path.exists()]


def test_a_killed_node_is_cleaned_up_by_the_next_one_and_only_it(tmp_path):
    with running(tmp_path / 'log', PARAMETERS, kind=CloudProcess) as alive:
        with running(tmp_path / 'log2', PARAMETERS, kind=CloudProcess) as killed:
            # one that is killed as it starts can stop the other's start as well
            alive.until('active; waiting')
            killed.until('active; waiting')
            segments = killed.until_segments()
            killed.process.kill()
            assert killed.process.wait(20) == -signal.SIGKILL
        assert large(segments) == 1
        # what is left where a process is killed while it makes a port: the next one to use that
        # number would wait for its size for ever
        first = 7411 + 250 * int(os.environ['ROS_DOMAIN_ID'])
        torn = [Path(f'/dev/shm/fastrtps_port{port}') for port in range(first, first + 24, 2)]
        torn = [path for path in torn if not path.exists()]
        for path in torn:
            path.touch()
        # while it is young it could belong to somebody who starts
        time.sleep(SETTLED)
        with running(tmp_path / 'log3', PARAMETERS, kind=CloudProcess) as successor:
            successor.until_segments()
            assert not [path for path in segments if path.exists()]
            assert not [path for path in torn if path.exists() and not path.stat().st_size]
            assert large(alive.segments()) == large(successor.segments()) == 1
