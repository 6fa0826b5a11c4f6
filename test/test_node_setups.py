# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""One node, configured again and again: cameras, transports, reliabilities, masks, sizes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from ros_harness import (
    SECOND,
    Client,
    image_message,
    offline,
    picture,
    pixels_of,
    running,
    stamp,
    tiny_parameters,
    values_of,
)
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage

from nightseg_ros.node.parameters import PARAMETERS
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline
from nightseg_ros.perception.result import Want
from nightseg_ros.runtime.pixels import fit

pytestmark = pytest.mark.ros

NAMESPACE = '/truck_7'
DEFAULTS = {row.name: row.plain_default for row in PARAMETERS}


@pytest.fixture(scope='module')
def parameters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return tiny_parameters(tmp_path_factory.mktemp('weights'), autostart=False)


@pytest.fixture(scope='module')
def running_client(
    parameters: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    log = tmp_path_factory.mktemp('node') / 'log.txt'
    with running(log, parameters, '-r', f'__ns:={NAMESPACE}'):
        client = Client(f'{NAMESPACE}/night_perception')
        client.watch_diagnostics()
        client.reach('unconfigured')
        yield client
        client.close()


@pytest.fixture
def client(running_client: Client, parameters: dict[str, Any]) -> Iterator[Client]:
    """Yield the client of an unconfigured node with the defaults."""
    yield running_client
    running_client.reset()
    running_client.got.clear()
    for transition, state in (('deactivate', 'active'), ('cleanup', 'inactive')):
        if running_client.state() == state:
            assert running_client.transition(transition)
    restored = {n.replace('.', '__'): v for n, v in DEFAULTS.items() if n not in parameters}
    assert running_client.set(**restored).successful


def start(client: Client, **parameters: Any) -> None:
    answer = client.set(**parameters)
    assert answer.successful, answer.reason
    assert client.transition('configure')
    assert client.transition('activate')


@pytest.fixture(scope='module')
def pipeline(parameters: dict[str, Any]) -> Pipeline:
    return offline(parameters)


def name(topic: str) -> str:
    return f'{NAMESPACE}/{topic}'


@pytest.mark.parametrize('node_reliable', [True, False])
@pytest.mark.parametrize('camera_reliable', [True, False])
def test_reliabilities(client: Client, node_reliable: bool, camera_reliable: bool) -> None:
    wanted = 'reliable' if node_reliable else 'best_effort'
    camera = client.publisher(name('camera/image_raw'), reliable=camera_reliable)
    labels = name('camera/nightseg/labels')
    # and the other side: what the node publishes reliably suits both kinds of subscribers
    client.listen(labels, reliable=camera_reliable)
    start(client, qos_reliability=wanted)
    message = image_message(picture(), SECOND)
    if node_reliable and not camera_reliable:
        # they cannot match; the node has to say why nothing comes
        client.diagnosed('camera', 'ERROR', 'is published best_effort, but this node asks for')
        return
    client.connect(camera)
    assert client.exchange(camera, message, labels).header == message.header
    values = client.diagnosed('camera', 'OK')
    assert values['subscribed'] == wanted


def test_auto_follows_the_publisher_also_when_it_changes(client: Client) -> None:
    labels = name('camera/nightseg/labels')
    client.listen(labels)
    # nobody there: said, and no reason to fail
    start(client)
    client.diagnosed('camera', 'ERROR', f'nobody publishes {name("camera/image_raw")}')
    for index, reliable in enumerate((True, False, True)):
        camera = client.publisher(name('camera/image_raw'), reliable=reliable)
        wanted = 'reliable' if reliable else 'best_effort'

        client.until(
            lambda wanted=wanted: (
                (found := client.status('camera'))
                and (found[2]['subscribed'], found[2]['publishers']) == (wanted, '1')
            ),
            f'a subscription that is {wanted}',
        )
        if index == 0:
            # matched, but silent: the hint that helps most people
            client.diagnosed('camera', 'ERROR', 'FASTRTPS_DEFAULT_PROFILES_FILE')
        client.connect(camera)
        # the camera driver starts again, with a clock of its own
        message = image_message(picture(seed=index), (10 - 3 * index) * SECOND)
        assert client.exchange(camera, message, labels).header == message.header
        client.until(lambda: not client.says('camera', level='ERROR'), 'a camera that is well')
        client.node.destroy_publisher(camera)
        client.diagnosed('camera', 'ERROR', 'nobody publishes')


def test_compressed_input(client: Client, pipeline: Pipeline) -> None:
    labels = name('camera/nightseg/labels')
    camera = client.publisher(name('camera/image_raw/compressed'), CompressedImage)
    client.listen(labels)
    start(client, transport='compressed')
    client.connect(camera)
    packed = cv2.imencode('.jpg', picture(80, 110, seed=4)[:, :, ::-1])[1]
    message = stamp(CompressedImage(format='rgb8; jpeg compressed bgr8'), SECOND)
    message.data.frombytes(packed.tobytes())
    answer = client.exchange(camera, message, labels)
    assert answer.header == message.header
    seen = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    (wanted,) = pipeline.process([Frame(image=seen, order='bgr')])
    np.testing.assert_array_equal(pixels_of(answer), wanted.labels)


def test_labels_of_the_networks_size_with_their_calibration(
    client: Client, pipeline: Pipeline
) -> None:
    out = name('camera/nightseg')
    image = picture(120, 200, seed=6)
    camera = client.publisher(name('camera/image_raw'))
    calibration = client.publisher(name('camera/camera_info'), CameraInfo)
    for topic in ('labels', 'confidence', 'color'):
        client.listen(f'{out}/{topic}')
    client.listen(f'{out}/camera_info', CameraInfo)
    start(client, label_size='network')
    client.connect(camera)
    client.connect(calibration)
    info = CameraInfo(height=120, width=200, distortion_model='plumb_bob')
    info.k = [100.0, 0.0, 99.5, 0.0, 102.0, 59.5, 0.0, 0.0, 1.0]
    stamps = iter(range(SECOND, 10**6 * SECOND, SECOND))

    def send() -> None:
        calibration.publish(info)
        camera.publish(image_message(image, next(stamps)))

    client.feed(
        send,
        lambda: client.got[f'{out}/camera_info'] and client.got[f'{out}/color'],
        'camera_info',
    )
    got = client.got[f'{out}/camera_info'][0]
    labels = client.until(lambda: client.of_stamp(f'{out}/labels', got.header.stamp), 'labels')
    size = fit(120, 200, pipeline.long_side).labels
    assert (labels.height, labels.width) == (got.height, got.width) == size
    (wanted,) = pipeline.process([Frame(image=image)], Want(confidence=True))
    whole = cv2.resize(pixels_of(labels), (200, 120), interpolation=cv2.INTER_NEAREST_EXACT)
    np.testing.assert_array_equal(whole, wanted.labels)
    # the optical centre stays in the centre, the field of view stays the same
    assert (got.k[2] + 0.5) / got.width == pytest.approx(0.5)
    assert (got.k[5] + 0.5) / got.height == pytest.approx(0.5)
    assert got.k[0] / got.width == pytest.approx(100 / 200)
    color = client.got[f'{out}/color'][0]
    assert (color.height, color.width) == (120, 200)


def test_the_own_vehicle_is_unlabelled(client: Client, tmp_path: Path) -> None:
    bonnet = np.zeros((60, 100), np.uint8)
    bonnet[40:, 20:80] = 1
    cv2.imwrite(str(tmp_path / 'bonnet.png'), bonnet)
    camera = client.publisher(name('camera/image_raw'))
    out = name('camera/nightseg')
    topics = ('labels', 'confidence', 'color', 'overlay')
    for topic in topics:
        client.listen(f'{out}/{topic}')
    start(client, ego_masks=[str(tmp_path / 'bonnet.png')])
    client.connect(camera)
    # twice the mask's size
    image = picture(120, 200, seed=2)
    message = image_message(image, SECOND)
    answers = client.exchange(camera, message, *(f'{out}/{topic}' for topic in topics))
    got = {topic: pixels_of(answer) for topic, answer in zip(topics, answers)}
    own = bonnet.repeat(2, 0).repeat(2, 1) != 0
    np.testing.assert_array_equal(got['labels'] == 255, own)
    assert (got['confidence'][own] == 0).all()
    assert (got['color'][own] == 0).all()
    np.testing.assert_array_equal(got['overlay'][own], image[own])
    assert (got['confidence'][~own] > 0).all()
    assert (got['overlay'][~own] != image[~own]).any()


def test_a_silent_camera_holds_up_no_other(client: Client) -> None:
    cameras = [client.publisher(name(f'{side}/image_raw')) for side in ('left', 'right')]
    for side in ('left', 'right'):
        client.listen(name(f'{side}/nightseg/labels'))
    start(client, cameras=['left', 'right'])
    for camera in cameras:
        client.connect(camera)
    stamps = iter(range(SECOND, 10**6 * SECOND, SECOND))

    def told() -> bool:
        message = image_message(picture(), next(stamps))
        client.exchange(cameras[0], message, name('left/nightseg/labels'))
        client.spin(0.1)
        right = client.status('right')
        return bool(right and right[0] == 'ERROR')

    client.until(told, 'an ERROR of the silent one')
    client.until(lambda: client.status('left')[0] == 'OK', 'the other one being well')


def test_simulated_time_and_a_bag_that_loops(client: Client) -> None:
    clock = client.node.create_publisher(Clock, '/clock', 10)
    camera = client.publisher(name('camera/image_raw'))
    status = name('camera/nightseg/status')
    client.listen(status, DiagnosticArray)
    assert client.set(use_sim_time=True).successful
    try:
        start(client, max_age=5.0)
        client.diagnosed('node', 'WARN', 'nothing came on /clock')
        client.connect(camera)
        client.until(clock.get_subscription_count, 'a subscription to /clock')
        begin = 1_000 * SECOND
        for loop in range(3):
            for index in range(12):
                now = begin + index * SECOND // 5
                message = Clock()
                message.clock.sec, message.clock.nanosec = divmod(now, SECOND)
                clock.publish(message)
                client.spin(0.05)
                frame = image_message(picture(seed=index), now - SECOND // 10)
                client.got[status].clear()
                values = values_of(client.exchange(camera, frame, status))
                # by the simulated clock the frame is a tenth of a second old, however late it is
                if index or not loop:
                    assert -1 < float(values['age_s']) < 3
                if loop and not index:
                    assert 'time went back 2.2 s' in values['reason']
        client.until(lambda: client.status('camera')[2]['time_jumps'] == '2', 'two jumps')
    finally:
        assert client.set(use_sim_time=False).successful
        client.node.destroy_publisher(clock)


def test_topics_that_have_other_names_and_the_translation(client: Client) -> None:
    camera = client.publisher(name('usb_cam/image_color'))
    topics = [f'/vision/roof/nightseg/{topic}' for topic in ('labels', 'translated')]
    for topic in topics:
        client.listen(topic)
    start(
        client, cameras=['/vision/roof'], image_topics=['usb_cam/image_color'], route='translate'
    )
    client.connect(camera)
    message = image_message(picture(90, 140), SECOND)
    for answer, encoding in zip(client.exchange(camera, message, *topics), ('mono8', 'rgb8')):
        assert (answer.height, answer.width, answer.encoding) == (90, 140, encoding)
        assert answer.header == message.header
