# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Cameras that burst, crawl, restart, lose their clock or offer any QoS, through the real node."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from ros_harness import Camera, picture, pixels_of, SECOND, served, stamp_ns, values_of
from sensor_msgs.msg import Image

pytestmark = [pytest.mark.ros, pytest.mark.slow]

HOUR = 3600 * SECOND
#: Seconds on a busy machine for what has to be told within two.
TOLD = 6.0


@pytest.fixture(scope='module')
def client(parameters, tmp_path_factory):
    with served(tmp_path_factory.mktemp('node'), parameters) as client:
        yield client


@pytest.fixture
def camera(client):
    camera = Camera(client, 'camera', 'labels', 'status').connect()
    camera.serve()
    yield camera
    client.reset()
    client.until(lambda: not client.node.count_publishers('camera/image_raw'), 'no camera')


def test_a_burst_of_200_hz_is_served_to_its_last_frame_and_accounted_for(client, camera):
    before = camera.counters()
    messages = [camera.frame() for _ in range(400)]
    begun = time.monotonic()
    for index, message in enumerate(messages):
        camera.publisher.publish(message)
        client.spin(max(begun + (index + 1) / 200 - time.monotonic(), 0))
    topic = f'{camera.out}/labels'
    client.until(lambda: client.of_stamp(topic, message.header.stamp), 'the last one')

    def accounted() -> bool:
        after = camera.counters()
        grown = {key: after[key] - before.get(key, 0) for key in after}
        dropped = sum(value for key, value in grown.items() if key.startswith('dropped.'))
        assert dropped == grown['dropped.superseded'] and grown['received'] <= 400
        return 0 < grown['received'] == grown['served'] + dropped

    client.until(accounted, 'every frame accounted for')


def test_a_camera_of_half_a_hertz_is_served_and_called_silent_in_between(client, camera):
    for _ in range(2):
        labels, _ = camera.serve()
        begun = time.monotonic()
        client.diagnosed('camera', 'ERROR', 'the camera has stopped')
        assert time.monotonic() - begun < TOLD
        # what it showed last is not shown again
        assert [stamp_ns(m) for m in camera.got()].count(stamp_ns(labels)) == 1
        client.spin(0.5)
    assert client.set_parameters(silent_after=10.0).successful
    client.diagnosed('camera', 'OK')
    assert client.set_parameters(silent_after=1.2).successful


@pytest.mark.parametrize(
    'shift', [HOUR, -HOUR, 5 * SECOND - 1_700_000_000 * SECOND], ids=['ahead', 'back', 'reset']
)
def test_a_jump_of_the_stamps_starts_over_and_every_mask_keeps_its_frames_stamp(
    client, camera, shift
):
    before = camera.counters()['time_jumps']
    for _ in range(3):
        message = camera.frame(at=next(client.stamps) + shift)
        assert camera.serve(message, 'status').header == message.header
    assert 'at once (' in values_of(camera.serve(None, 'status'))['reason']
    # one backwards: there, or on the way back from an hour ahead
    assert camera.counters()['time_jumps'] == before + 1


def test_a_single_stamp_from_the_future_costs_no_good_frame(client, camera):
    offset = next(client.stamps) + SECOND - time.monotonic_ns()
    for index in range(20):
        # the first two tell that the clock was set
        if index == 2:
            before = camera.counters()
        ahead = SECOND * 95 // 100 if index == 12 else 0
        camera.serve(at=time.monotonic_ns() + offset + ahead)
    after = camera.counters()
    assert after['dropped.out_of_order'] == before['dropped.out_of_order']
    assert after['time_jumps'] == before['time_jumps'] + 1
    while next(client.stamps) < time.monotonic_ns() + offset:
        pass


def test_encoding_and_size_may_change_with_every_frame(camera):
    before = camera.counters()['size_changes']
    for encoding, (height, width) in itertools.product(
        ('rgb8', 'mono8', 'bgra8', 'bayer_rggb8', 'mono16'), ((33, 51), (60, 80))
    ):
        image = picture(height, width)
        pixels: Any = {
            'rgb8': image, 'bgra8': image[:, :, [2, 1, 0, 0]],
            'mono16': (image[:, :, 0] * np.uint16(257)).view('u1').reshape(height, -1),
        }.get(encoding, image[:, :, 0])  # fmt: skip
        message = camera.frame(pixels, encoding=encoding)
        message.width = width
        assert pixels_of(camera.serve(message, 'labels')).shape == (height, width)
    assert camera.counters()['size_changes'] == before + 10


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


def test_sixteen_cameras_are_all_served(parameters, tmp_path):
    names = [f'camera_{index}' for index in range(16)]
    with served(tmp_path, {**parameters, 'cameras': names}, namespace='/bus') as client:
        cameras = [Camera(client, f'/bus/{name}').connect() for name in names]
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
