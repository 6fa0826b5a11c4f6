# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Cameras that burst, crawl, restart, lose their clock or offer any QoS, through the real node."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from ros_harness import (
    SECOND,
    Client,
    image_message,
    picture,
    pixels_of,
    running,
    stamp_ns,
    tiny_parameters,
    values_of,
)
from sensor_msgs.msg import Image

pytestmark = pytest.mark.ros

HOUR = 3600 * SECOND
OUT = 'camera/nightseg'
#: Seconds on a busy machine for what has to be told within two.
TOLD = 6.0


@pytest.fixture(scope='module')
def parameters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return tiny_parameters(tmp_path_factory.mktemp('weights'))


@pytest.fixture(scope='module')
def client(
    parameters: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    with running(tmp_path_factory.mktemp('node') / 'log', parameters):
        client = Client()
        client.watch_diagnostics()
        client.listen(f'{OUT}/labels')
        client.listen(f'{OUT}/status', DiagnosticArray)
        client.heard(f'{OUT}/labels', f'{OUT}/status')
        yield client
        client.close()


@pytest.fixture
def camera(client: Client) -> Iterator[Any]:
    publisher = client.publisher('camera/image_raw')
    client.connect(publisher)
    client.got[f'{OUT}/labels'].clear()
    yield publisher
    client.node.destroy_publisher(publisher)
    client.until(lambda: not client.node.count_publishers('camera/image_raw'), 'no camera')


@pytest.fixture(scope='module')
def stamps() -> Iterator[int]:
    return iter(range(1_700_000_000 * SECOND, 2_000_000_000 * SECOND, SECOND // 10))


def counters(client: Client) -> dict[str, int]:
    """Return the integers of the camera's next status."""
    client.got['/diagnostics'].clear()
    values = client.until(lambda: client.status('camera'), 'a status')[2]
    return {key: int(value) for key, value in values.items() if value.isdigit()}


def test_a_burst_of_200_hz_is_served_to_its_last_frame_and_accounted_for(
    client: Client, camera: Any, stamps: Iterator[int]
) -> None:
    client.exchange(camera, image_message(picture(60, 80), next(stamps)), f'{OUT}/labels')
    before = counters(client)
    messages = [image_message(picture(60, 80), next(stamps)) for _ in range(400)]
    begun = time.monotonic()
    for index, message in enumerate(messages):
        camera.publish(message)
        client.spin(max(begun + (index + 1) / 200 - time.monotonic(), 0))
    client.until(lambda: client.of_stamp(f'{OUT}/labels', message.header.stamp), 'the last one')
    client.spin(1.0)
    after = counters(client)
    grown = {key: after[key] - before.get(key, 0) for key in after}
    dropped = sum(value for key, value in grown.items() if key.startswith('dropped.'))
    assert dropped == grown['dropped.superseded']
    assert 0 < grown['received'] <= 400
    assert grown['received'] == grown['served'] + dropped


def test_a_camera_of_half_a_hertz_is_served_and_called_silent_in_between(
    client: Client, camera: Any, stamps: Iterator[int]
) -> None:
    for _ in range(2):
        message = image_message(picture(60, 80), next(stamps))
        client.exchange(camera, message, f'{OUT}/labels')
        begun = time.monotonic()
        client.diagnosed('camera', 'ERROR', 'the camera has stopped')
        assert time.monotonic() - begun < TOLD
        # what it showed last is not shown again
        assert [stamp_ns(m) for m in client.got[f'{OUT}/labels']].count(stamp_ns(message)) == 1
        client.spin(0.5)
    assert client.set(silent_after=10.0).successful
    client.diagnosed('camera', 'OK')
    assert client.set(silent_after=1.2).successful


@pytest.mark.parametrize(
    ('shift', 'jumps'),
    [(HOUR, 0), (-HOUR, 1), (5 * SECOND - 1_700_000_000 * SECOND, 1)],
    ids=['an hour ahead', 'an hour back', 'the clock reset'],
)
def test_a_jump_of_the_stamps_starts_over_and_every_mask_keeps_its_frames_stamp(
    client: Client, camera: Any, stamps: Iterator[int], shift: int, jumps: int
) -> None:
    client.exchange(camera, image_message(picture(60, 80), next(stamps)), f'{OUT}/labels')
    before = counters(client)['time_jumps']
    for _ in range(3):
        message = image_message(picture(60, 80), next(stamps) + shift)
        status = client.exchange(camera, message, f'{OUT}/status')
        assert status.header == message.header
    # and the way back, with what that counts
    status = client.exchange(camera, image_message(picture(60, 80), next(stamps)), f'{OUT}/status')
    assert 'at once (' in values_of(status)['reason']
    back = 1 if shift == HOUR else 0
    assert counters(client)['time_jumps'] == before + jumps + back


def test_stamps_out_of_order_are_dropped_and_counted(
    client: Client, camera: Any, stamps: Iterator[int]
) -> None:
    now = next(stamps) + SECOND
    client.exchange(camera, image_message(picture(60, 80), now), f'{OUT}/labels')
    for reason, at in (('out_of_order', now - SECOND // 2), ('duplicate_stamp', now)):
        before = counters(client)[f'dropped.{reason}']
        message = image_message(picture(60, 80), at)
        client.feed(
            lambda message=message: camera.publish(message),
            lambda reason=reason, before=before: counters(client)[f'dropped.{reason}'] > before,
            reason,
        )
        masks = [stamp_ns(mask) for mask in client.got[f'{OUT}/labels']]
        assert masks.count(at) == (reason == 'duplicate_stamp')
    for _ in range(11):
        next(stamps)


def test_encoding_and_size_may_change_with_every_frame(
    client: Client, camera: Any, stamps: Iterator[int]
) -> None:
    client.exchange(camera, image_message(picture(60, 80), next(stamps)), f'{OUT}/labels')
    before = counters(client)['size_changes']
    for encoding, (height, width) in itertools.product(
        ('rgb8', 'mono8', 'bgra8', 'bayer_rggb8', 'mono16'), ((33, 51), (60, 80))
    ):
        image = picture(height, width)
        pixels: Any = {
            'rgb8': image, 'bgra8': image[:, :, [2, 1, 0, 0]],
            'mono16': (image[:, :, 0] * np.uint16(257)).view('u1').reshape(height, -1),
        }.get(encoding, image[:, :, 0])  # fmt: skip
        message = image_message(pixels, next(stamps), encoding=encoding)
        message.width = width
        labels = client.exchange(camera, message, f'{OUT}/labels')
        assert pixels_of(labels).shape == (height, width)
    assert counters(client)['size_changes'] == before + 10


@pytest.mark.parametrize('reliability', ['RELIABLE', 'BEST_EFFORT'])
def test_a_camera_of_any_qos_that_is_started_anew_is_found_again(
    client: Client, stamps: Iterator[int], reliability: str
) -> None:
    for durability, history in itertools.product(
        ('VOLATILE', 'TRANSIENT_LOCAL'), ('KEEP_LAST', 'KEEP_ALL')
    ):
        qos = QoSProfile(
            depth=3,
            reliability=ReliabilityPolicy[reliability],
            durability=DurabilityPolicy[durability],
            history=HistoryPolicy[history],
        )
        publisher = client.node.create_publisher(Image, 'camera/image_raw', qos)
        client.exchange(publisher, image_message(picture(60, 80), next(stamps)), f'{OUT}/labels')
        client.node.destroy_publisher(publisher)


def test_sixteen_cameras_are_all_served(parameters: dict[str, Any], tmp_path: Path) -> None:
    names = [f'camera_{index}' for index in range(16)]
    target = '/bus/night_perception'
    arguments = ('-r', '__ns:=/bus')
    with running(tmp_path / 'log', {**parameters, 'cameras': names}, *arguments):
        client = Client(target, name='bus_client')
        cameras = {name: client.publisher(f'/bus/{name}/image_raw') for name in names}
        for name in names:
            client.listen(f'/bus/{name}/nightseg/labels')
        for camera in cameras.values():
            client.connect(camera)
        client.heard(*(f'/bus/{name}/nightseg/labels' for name in names))
        seconds = itertools.count(1)

        def send() -> None:
            second = next(seconds) * SECOND
            for index, camera in enumerate(cameras.values()):
                image = picture(60 + index, 80)
                camera.publish(image_message(image, second + index, frame_id=str(index)))

        masks = {name: f'/bus/{name}/nightseg/labels' for name in names}
        client.feed(send, lambda: all(client.got[t] for t in masks.values()), 'a mask of each')
        for index, topic in enumerate(masks.values()):
            for mask in client.got[topic]:
                assert mask.header.frame_id == str(index)
                assert stamp_ns(mask) % SECOND == index
                assert mask.height == 60 + index
        client.close()
