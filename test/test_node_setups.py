# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""One node, configured again and again: cameras, transports, reliabilities, masks, sizes."""

from __future__ import annotations

import itertools
from typing import Any

import cv2
from nightseg_ros.node.parameters import PARAMETERS
import numpy as np
import pytest
from ros_harness import (
    Camera,
    Client,
    mutants,
    picture,
    pixels_of,
    SECOND,
    served,
    stamp_ns,
    values_of,
)
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage

pytestmark = [pytest.mark.ros, pytest.mark.slow]

NAMESPACE = '/truck_7'
DEFAULTS = {row.name: row.plain_default for row in PARAMETERS}


@pytest.fixture(scope='module')
def unconfigured(parameters, tmp_path_factory):
    given = {**parameters, 'autostart': False}
    folder = tmp_path_factory.mktemp('node')
    with served(folder, given, namespace=NAMESPACE, state='unconfigured') as client:
        yield client


@pytest.fixture
def client(unconfigured, parameters):
    """Yield the client of an unconfigured node with the defaults."""
    yield unconfigured
    unconfigured.reset()
    unconfigured.got.clear()
    unconfigured.unconfigure()
    kept = {*parameters, 'autostart'}
    restored = {n.replace('.', '__'): v for n, v in DEFAULTS.items() if n not in kept}
    assert unconfigured.set_parameters(**restored).successful


def camera_of(client: Client, name: str = 'camera', *outputs: str, **more: Any) -> Camera:
    return Camera(client, f'{NAMESPACE}/{name}', *outputs, **more)


def test_a_camera_less_reliable_than_asked_for_is_told(client):
    camera_of(client, reliable=False)
    client.start(qos_reliability='reliable')
    client.diagnosed('camera', 'ERROR', 'is published best_effort, but this node asks for')


def test_a_topic_of_another_type_is_named_as_what_it_is(client):
    client.publisher('/camera/image_raw/compressed', CompressedImage)
    client.start(image_topics=['/camera/image_raw/compressed'])
    words = "is sensor_msgs/CompressedImage, which is not what is subscribed to; set 'transport'"
    client.diagnosed('camera', 'ERROR', f'{words} to compressed')


def test_what_was_published_once_arrives(client):
    camera = camera_of(client, 'camera', 'labels', 'camera_info', latched=True)
    infos = client.publisher(f'{NAMESPACE}/camera/camera_info', CameraInfo, latched=True)
    infos.publish(CameraInfo(height=60, width=80))
    message = camera.send()
    client.start()
    client.until(lambda: camera.got() and camera.got('camera_info'), 'labels and calibration')
    assert camera.got()[0].header == camera.got('camera_info')[0].header == message.header
    # a publisher that keeps nothing follows
    client.node.destroy_publisher(camera.publisher)
    camera.publisher = client.publisher(f'{NAMESPACE}/camera/image_raw', reliable=False)
    camera.serve()


def test_auto_follows_the_publisher_also_when_it_changes(client):
    # nobody there: said, and no reason to fail; a topic that is only read is no advice
    client.listen(f'{NAMESPACE}/camera/image_rwa')
    client.start()
    client.diagnosed('camera', 'ERROR', f'nobody publishes {NAMESPACE}/camera/image_raw')
    assert 'did you mean' not in client.status('camera')[1]
    for index, reliable in enumerate((True, False, True)):
        camera = camera_of(client, reliable=reliable)
        wanted = ('reliable' if reliable else 'best_effort', '1')

        def subscribed(wanted: tuple[str, str] = wanted) -> bool:
            found = client.status('camera')
            return bool(found) and (found[2]['subscribed'], found[2]['publishers']) == wanted

        client.until(subscribed, f'a subscription that is {wanted}')
        if index == 0:
            # matched, but silent: the hint that helps most people
            client.diagnosed('camera', 'ERROR', 'FASTRTPS_DEFAULT_PROFILES_FILE')
        # the camera driver starts again, with a clock of its own
        camera.connect().serve(at=(10 - 3 * index) * SECOND)
        client.until(lambda: not client.says('camera', level='ERROR'), 'a camera that is well')
        client.reset()
        client.diagnosed('camera', 'ERROR', 'nobody publishes')


def test_cameras_of_one_topic_are_refused_by_name(client):
    for given, words in (
        ({'cameras': ['a', f'{NAMESPACE}/a']}, "'cameras' names"),
        ({'cameras': ['a', 'b'], 'image_topics': ['i', f'{NAMESPACE}/i']}, "'image_topics' names"),
    ):
        assert client.set_parameters(**given).successful
        assert not client.transition('configure')
        client.diagnosed('node', 'ERROR', words)


def test_a_silent_camera_holds_up_no_other(client):
    left, right = camera_of(client, 'left'), camera_of(client, 'right')
    client.start(cameras=['left', 'right'])
    left.connect()
    right.connect()

    client.told(left.serve, 'right', '', 'ERROR')
    client.until(lambda: client.says('left', level='OK'), 'the other one being well')


def test_simulated_time_and_a_bag_that_loops(client):
    clock = client.publisher('/clock', Clock)
    camera = camera_of(client, 'camera', 'status')
    assert client.set_parameters(use_sim_time=True).successful
    try:
        client.start(max_age=5.0)
        client.diagnosed('node', 'WARN', 'nothing came on /clock')
        camera.connect()
        client.connect(clock)
        # more than the errors in callbacks that end a node
        negative = Clock()
        negative.clock.sec = -5
        words = '/clock cannot be used, time stands still: Seconds value must not be negative'
        for _ in range(6):
            for mutant in mutants(Clock(), client.stamps):
                clock.publish(mutant)
                client.spin(0.05)
        client.told(lambda: clock.publish(negative), 'node', words, 'ERROR')
        begin = 1_000 * SECOND
        for loop in range(3):
            for index in range(12):
                now = begin + index * SECOND // 5
                message = Clock()
                message.clock.sec, message.clock.nanosec = divmod(now, SECOND)
                clock.publish(message)
                client.spin(0.05)
                camera.got('status').clear()
                values = values_of(camera.serve(at=now - SECOND // 10))
                # by the simulated clock the frame is a tenth of a second old, however late it is
                if index or not loop:
                    assert -1 < float(values['age_s']) < 3
                if loop and not index:
                    assert 'time went back 2.2 s' in values['reason']
        client.until(lambda: client.status('camera')[2]['time_jumps'] == '2', 'two jumps')
    finally:
        assert client.set_parameters(use_sim_time=False).successful


def test_topics_that_have_other_names_the_translation_and_the_own_vehicle(client, tmp_path):
    bonnet = np.zeros((45, 70), np.uint8)
    bonnet[30:, 20:60] = 1
    cv2.imwrite(str(tmp_path / 'bonnet.png'), bonnet)
    topic = f'{NAMESPACE}/usb_cam/image_color'
    camera = Camera(client, '/vision/roof', 'labels', 'translated', topic=topic)
    client.start(
        cameras=['/vision/roof'], image_topics=['usb_cam/image_color'], route='translate',
        ego_masks=[str(tmp_path / 'bonnet.png')],
    )  # fmt: skip
    message = camera.connect().frame(picture(90, 140))
    labels, translated = camera.serve(message)
    for answer, encoding in ((labels, 'mono8'), (translated, 'rgb8')):
        assert (answer.height, answer.width, answer.encoding) == (90, 140, encoding)
        assert answer.header == message.header
    # the image has twice the mask's size
    own = bonnet.repeat(2, 0).repeat(2, 1) != 0
    np.testing.assert_array_equal(pixels_of(labels) == 255, own)


def test_sixteen_cameras_are_all_served(client):
    names = [f'camera_{index}' for index in range(16)]
    cameras = [camera_of(client, name) for name in names]
    client.start(cameras=names)
    for camera in cameras:
        camera.connect()
    seconds = itertools.count(1)

    def send() -> None:
        second = next(seconds) * SECOND
        for index, camera in enumerate(cameras):
            camera.send(picture(60 + index, 80), second + index, frame_id=str(index))

    client.feed(send, lambda: all(camera.got() for camera in cameras), 'a mask of each')
    for index, camera in enumerate(cameras):
        for mask in camera.got():
            assert mask.header.frame_id == str(index)
            assert stamp_ns(mask) % SECOND == index
            assert mask.height == 60 + index
