# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""One camera through the real node: status, stamps, parameters, bursts, silences, restarts."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
import signal
import time
from typing import Any

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nightseg_ros.taxonomy import CAMVID11
import numpy as np
import pytest
from rcl_interfaces.srv import (
    GetParameters,
    ListParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from ros_harness import (
    Camera,
    ended,
    mutants,
    picture,
    pixels_of,
    Process,
    served,
    stamp_ns,
    tiny_parameters,
    values_of,
)
from sensor_msgs.msg import Image
from std_msgs.msg import String
import tiny_weights

pytestmark = pytest.mark.ros

OUT = 'camera/nightseg'
ROUTE = Parameter('route', value='day').to_parameter_msg()


@pytest.fixture(scope='module')
def trusted(tmp_path_factory):
    found = tiny_parameters(tmp_path_factory.mktemp('weights'))
    tiny_weights.give_trust(Path(found['weights.day']), 0.8)
    return found


@pytest.fixture(scope='module')
def client(trusted, tmp_path_factory):
    override = {f'qos_overrides./{OUT}/translated.publisher.reliability': 'best_effort'}
    with served(tmp_path_factory.mktemp('node'), {**trusted, **override}) as client:
        yield client


@pytest.fixture
def camera(client):
    yield Camera(client, 'camera', 'labels', 'status').connect()
    client.reset()


def test_status_says_what_became_of_the_frame_and_on_what_the_node_runs(client, camera):
    camera.listen('illumination')
    client.heard(f'{OUT}/illumination')
    message = camera.frame(picture(seed=1), frame_id='left')
    status = camera.serve(message, 'status')
    assert status.header == message.header
    values = values_of(status)
    assert float(values['score']) > 0.65
    score = client.until(lambda: camera.got('illumination'), 'illumination')[-1].data
    assert score == pytest.approx(float(values['score']), abs=1e-3)
    assert (values['state'], values['route'], values['switched']) == ('day', 'day', 'false')
    assert values['reason']
    total = float(values['latency_ms.total'])
    assert 0 < float(values['latency_ms.estimate']) <= total
    assert 0 <= float(values['latency_ms.wait']) <= total
    # stamped in 2023
    assert float(values['age_s']) > 1e6

    values = client.diagnosed('node', 'OK', 'active')
    assert (values['backend'], values['device'], values['state']) == ('torch', 'cpu', 'active')
    assert values['weights.day'].startswith('day.safetensors sha256 ')
    assert float(values['memory_mb']) > 50

    def measured() -> dict[str, str]:
        values = (client.status('camera') or ('', '', {}))[2]
        return values if 'latency_ms.p50' in values else {}

    values = client.until(measured, 'latencies')
    assert 0 < float(values['latency_ms.p50']) <= float(values['latency_ms.p99'])


def test_only_what_is_subscribed_is_computed(client, camera):
    def computed() -> set[str]:
        before = camera.counters()
        camera.serve()
        after = camera.counters()
        return {key for key in after if 'computed' in key and after[key] > before.get(key, 0)}

    # the node may learn later that the subscriptions of another test are gone
    client.until(lambda: computed() == {'computed.labels'}, 'labels alone')


REFUSED: dict[str, tuple[Any, str]] = {
    'route': ('noon', 'must be one of auto, day, night, translate'),
    'router__dark': (0.9, "'dark' must be below 'bright' (0.65), got 0.9"),
    'router__table__night': ('auto', 'day, night, translate'),
    # the table asks for a network that no route has loaded
    'router__table__glare': ('translate', "route 'translate' needs weights that are not load"),
    'device': ('cuda', 'takes effect by configure'),
    'weights__day': ('other', 'takes effect by configure'),
    'cameras': (['x'], 'takes effect by configure'),
    'jpeg_quality': ('high', 'Wrong parameter type'),
}


def test_parameters_change_while_it_runs_and_wrong_ones_are_refused(client, camera):
    camera.listen('overlay')
    client.listen(f'{OUT}/translated', reliable=False)
    client.heard(f'{OUT}/overlay', f'{OUT}/translated')
    image = picture(60, 80, seed=9)

    def route() -> str:
        return values_of(camera.serve(image, 'status'))['route']

    before = client.get('route', 'overlay_alpha', 'router.dark', 'device')
    for name, (value, words) in REFUSED.items():
        answer = client.set_parameters(**{name: value})
        assert not answer.successful
        assert words in answer.reason, (name, answer.reason)
    # all or nothing
    assert not client.set_parameters(route='day', overlay_alpha=3.0).successful
    assert client.get('route', 'overlay_alpha', 'router.dark', 'device') == before

    assert client.set_parameters(route='night').successful
    assert route() == 'night'
    assert client.set_parameters(route='auto', router__table__day='night').successful
    assert route() == 'night'
    assert client.set_parameters(router__table__day='day').successful
    assert route() == 'day'
    assert client.set_parameters(router__dark=0.2, router__bright=0.5).successful
    assert client.set_parameters(router__dark=0.35, router__bright=0.65).successful
    assert client.set_parameters(overlay_alpha=0.0, overlay_route=False).successful
    np.testing.assert_array_equal(pixels_of(camera.serve(image, 'overlay')), image)
    assert client.set_parameters(overlay_alpha=0.5, overlay_route=True).successful
    # on the route of the day there is no translation to show
    assert not camera.got('translated')


def test_max_rate_and_max_age_drop_and_count(client, camera):
    before = camera.counters()['dropped.max_rate']
    assert client.set_parameters(max_rate=0.5).successful
    client.feed(camera.send, lambda: camera.counters()['dropped.max_rate'] >= before + 3, 'drops')
    assert client.set_parameters(max_rate=0.0, max_age=1.0).successful
    # stamped years ago
    client.told(camera.send, 'camera', 'frames are too late')
    assert camera.counters()['dropped.too_old'] > 0
    assert client.set_parameters(max_age=0.0).successful
    camera.serve()


def test_frames_without_a_stamp_are_served_with_a_warning(client, camera):
    client.told(lambda: camera.send(at=0), 'camera', 'carry no stamp')
    wanted = camera.frame(at=0).header
    client.until(lambda: camera.got() and camera.got()[-1].header == wanted, 'its mask')
    camera.serve()


def test_a_clock_that_stands_still_is_an_error(client, camera):
    at = stamp_ns(camera.serve()[0])
    client.told(lambda: camera.send(at=at), 'camera', 'stamped as the frame before it', 'ERROR')
    client.told(camera.serve, 'camera', '', 'OK')


REQUESTS: dict[str, tuple[Any, Any]] = {
    'set_parameters': (SetParameters, {'parameters': [ROUTE]}),
    'set_parameters_atomically': (SetParametersAtomically, {'parameters': [ROUTE]}),
    'get_parameters': (GetParameters, {'names': ['route']}),
    'list_parameters': (ListParameters, {'prefixes': ['router']}),
    'change_state': (ChangeState, {'transition': Transition(label='configure', id=1)}),
}


@pytest.mark.parametrize('name', REQUESTS)
def test_whatever_a_request_holds_the_node_goes_on(client, camera, name):
    """Every field, one by one, more often than errors in callbacks may come."""
    kind, fields = REQUESTS[name]
    for mutant in mutants(kind.Request(**fields), client.stamps):
        client.call(name, kind, mutant)
    assert client.set_parameters(route='auto').successful
    camera.serve()
    assert 'error in a callback' not in client.process.text


def test_a_camera_that_cannot_see_is_told_and_its_masks_still_come(client, camera):
    def warned(wanted: bool) -> bool:
        _, status = camera.serve(picture(seed=2))
        assert float(values_of(status)['reliability']) == pytest.approx(0.8, abs=2e-3)
        found = client.status('camera')
        return bool(found and ('cannot see' in found[1]) == wanted and 'reliability' in found[2])

    assert client.set_parameters(min_reliability=1.0).successful
    try:
        client.until(lambda: warned(True), 'a warning')
    finally:
        assert client.set_parameters(min_reliability=0.0).successful
    client.until(lambda: warned(False), 'the end of it')


def test_outputs_are_reliable_and_volatile_unless_overridden_and_late_joiners_learn_the_ids(
    client,
):
    def qos(topic: str) -> tuple[bool, bool]:
        (info,) = client.node.get_publishers_info_by_topic(f'/{OUT}/{topic}')
        profile = info.qos_profile
        return (
            profile.reliability == ReliabilityPolicy.RELIABLE,
            profile.durability == DurabilityPolicy.VOLATILE,
        )

    assert qos('labels') == qos('overlay/compressed') == (True, True)
    assert qos('translated') == (False, True)
    assert qos('label_info_json') == (True, False)

    client.listen(f'{OUT}/label_info_json', String, latched=True)
    (message,) = client.until(lambda: client.got[f'{OUT}/label_info_json'], 'label_info_json')
    content = json.loads(message.data)
    assert (content['taxonomy'], content['unlabelled']) == (CAMVID11.name, 255)
    classes = [(item['id'], item['name'], tuple(item['color'])) for item in content['classes']]
    assert classes == list(zip(range(11), CAMVID11.classes, CAMVID11.colors))


IDLE = f"""
import rclpy, time
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node('idle')
node.create_subscription(Image, '{OUT}/labels', print, 10)
while not node.count_publishers('{OUT}/labels'):
    time.sleep(0.1)
print('subscribed', flush=True)
while rclpy.ok():
    time.sleep(0.1)
node.destroy_node()
"""


def test_a_subscriber_that_never_reads_stalls_nobody(camera, tmp_path):
    with ended(Process(tmp_path / 'log', '-c', IDLE)) as idle:
        idle.until('subscribed')
        idle.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(30):
                camera.serve(picture(240, 320))
        finally:
            idle.process.send_signal(signal.SIGCONT)


def test_a_burst_of_200_hz_is_served_to_its_last_frame_and_accounted_for(client, camera):
    def at_rest() -> dict[str, int] | None:
        counts = camera.counters()
        dropped = sum(value for key, value in counts.items() if key.startswith('dropped.'))
        return counts if counts['received'] == counts['served'] + dropped else None

    camera.serve()
    before = client.until(at_rest, 'every frame accounted for')
    messages = [camera.frame() for _ in range(400)]
    begun = time.monotonic()
    for index, message in enumerate(messages):
        camera.publisher.publish(message)
        client.spin(max(begun + (index + 1) / 200 - time.monotonic(), 0))
    topic = f'{camera.out}/labels'
    client.until(lambda: client.of_stamp(topic, message.header.stamp), 'the last one')
    after = client.until(at_rest, 'every frame accounted for')
    grown = {key: after[key] - before[key] for key in after}
    assert grown['received'] + grown['not_received'] == 400
    assert grown['received'] == grown['served'] + grown['dropped.superseded']


def test_a_camera_of_half_a_hertz_is_served_and_called_silent_in_between(client, camera):
    for _ in range(2):
        labels, _ = camera.serve()
        client.diagnosed('camera', 'ERROR', 'the camera has stopped')
        # what it showed last is not shown again
        assert [stamp_ns(m) for m in camera.got()].count(stamp_ns(labels)) == 1
        client.spin(0.5)
    assert client.set_parameters(silent_after=10.0).successful
    client.diagnosed('camera', 'OK')
    assert client.set_parameters(silent_after=1.2).successful


def test_a_camera_of_any_qos_that_is_started_anew_is_found_again(client):
    camera = Camera(client)
    for reliability, durability, history in itertools.product(
        ('RELIABLE', 'BEST_EFFORT'), ('VOLATILE', 'TRANSIENT_LOCAL'), ('KEEP_LAST', 'KEEP_ALL')
    ):
        client.node.destroy_publisher(camera.publisher)
        qos = QoSProfile(
            depth=3, reliability=ReliabilityPolicy[reliability],
            durability=DurabilityPolicy[durability], history=HistoryPolicy[history],
        )  # fmt: skip
        camera.publisher = client.node.create_publisher(Image, 'camera/image_raw', qos)
        camera.serve()
    client.node.destroy_publisher(camera.publisher)


def test_of_720p_frames_that_wait_for_one_another_none_is_lost(client, camera):
    image = picture(720, 1280)
    camera.serve(image)
    for _ in range(30):
        stamp = camera.send(image).header.stamp
        client.until(lambda s=stamp: client.of_stamp(f'{OUT}/labels', s), 'the mask')
