# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Pictures that are damaged, hostile, huge, tiny or without content, through the real node."""

from __future__ import annotations

import struct
import time
from typing import Any
import zlib

import cv2
from nightseg_ros.runtime.pixels import fit
import numpy as np
import pytest
from ros_harness import Camera, Client, mutants, picture, served, stamp, stamp_ns, values_of
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from watch import resources

pytestmark = [pytest.mark.ros, pytest.mark.slow]


class Hostile(Camera):
    """A camera that sends raw or compressed images."""

    raw: bool

    def message(self, pixels: np.ndarray, **more: Any) -> Any:
        if self.raw:
            return self.frame(pixels, **more)
        return self.packed(cv2.imencode('.png', pixels)[1].tobytes())

    def packed(self, content: bytes) -> CompressedImage:
        message = CompressedImage(format='rgb8; jpeg compressed bgr8')
        message.data.frombytes(content)
        return stamp(message, next(self.client.stamps))

    def bad(self) -> tuple[Any, str]:
        """Return a message that cannot be read, and why; test_frame.py has the other reasons."""
        if self.raw:
            message = self.frame()
            message.step = 100
            return message, 'step is 100 bytes, but a row of 80 rgb8 pixels has 240'
        bomb = bytearray(cv2.imencode('.png', picture(60, 80))[1].tobytes())
        struct.pack_into('>II', bomb, 16, 60000, 60000)
        struct.pack_into('>I', bomb, 29, zlib.crc32(bomb[12:29]))
        return self.packed(bytes(bomb)), 'the picture has more than 67108864 pixels'


@pytest.fixture(scope='module', params=[Image, CompressedImage], ids=['raw', 'compressed'])
def camera(request, parameters, tmp_path_factory):
    raw, name = request.param is Image, f'/{request.param.__name__.lower()}'
    given = {'label_size': 'network', 'transport': 'raw' if raw else 'compressed'}
    folder = tmp_path_factory.mktemp('node')
    with served(folder, {**parameters, **given}, namespace=name) as client:
        camera = Hostile(client, f'{name}/camera', 'labels', 'status', kind=request.param)
        camera.raw = raw
        yield camera.connect()


@pytest.mark.parametrize(
    ('size', 'value'),
    [((60, 80), 0), ((60, 80), 255), ((1, 1), 99), ((1, 333), 99), ((401, 3), 99),
     ((97, 131), 99), ((4320, 7680), 99)],
)  # fmt: skip
def test_pictures_without_content_and_of_one_pixel_to_8k_are_served(camera, size, value):
    if size[0] > 4000 and camera.raw:
        # as raw rgb8 it would be 100 MB
        message = camera.frame(np.full(size, value, np.uint8), encoding='mono8')
    else:
        message = camera.message(np.full((*size, 3), value, np.uint8))
    labels, status = camera.serve(message)
    assert labels.header == message.header
    assert 0 < len(labels.data) == labels.height * labels.width
    # of the network, whose long side is 160, and never more than the camera has seen
    assert (labels.height, labels.width) == min(size, fit(*size, 160).labels)
    assert 0 <= float(values_of(status)['score']) <= 1


def test_whatever_a_message_holds_masks_go_on(camera):
    """Every field of pictures and calibrations, one by one."""
    client: Client = camera.client
    infos = client.publisher(f'{camera.out.rpartition("/")[0]}/camera_info', CameraInfo)
    camera.listen('camera_info')
    client.connect(infos)
    client.heard(f'{camera.out}/camera_info')
    info = CameraInfo(height=60, width=80, distortion_model='plumb_bob', d=[0.1] * 5)
    info.k = [50.0, 0.0, 40.0, 0.0, 51.0, 30.0, 0.0, 0.0, 1.0]
    good = camera.message(picture(60, 80))

    def calibrations() -> None:
        for mutant in mutants(info, client.stamps):
            infos.publish(mutant)
            client.spin(0.01)
            camera.publisher.publish(stamp(good, next(client.stamps)))
            client.spin(0.02)

    def pictures() -> None:
        for mutant in mutants(camera.message(picture(60, 80)), client.stamps):
            camera.publisher.publish(mutant)
            client.spin(0.02)

    # on a busy machine later ones replace most of them
    client.feed(calibrations, lambda: camera.counters()['served'] > 20, 'masks')
    before = camera.counters()
    assert before['dropped.withheld'] == before['dropped.failed'] == 0
    unread = before['dropped.undecodable']
    client.feed(
        pictures, lambda: camera.counters()['dropped.undecodable'] > unread, 'a picture unread'
    )
    camera.serve(camera.message(picture(60, 80)))
    after = camera.counters()
    assert after['dropped.withheld'] == after['dropped.failed'] == 0
    assert 'error in a callback' not in client.process.text


def test_bad_pictures_are_refused_with_the_reason_and_the_next_good_one_is_served(camera):
    client: Client = camera.client
    process = client.process

    def memory_mb() -> float:
        return resources(process.process.pid)['anon_mb']

    before, said, sent = memory_mb(), process.text.count('could not be read'), set()
    begun = time.monotonic()

    def send(message: Any) -> None:
        camera.publisher.publish(stamp(message, next(client.stamps)))
        sent.add(stamp_ns(message))

    bad, words = camera.bad()
    client.told(lambda: send(bad), 'camera', words)
    camera.serve(camera.message(picture(60, 80)))
    assert not sent & {stamp_ns(mask) for mask in camera.got()}
    # the first is logged, maybe by the test before; the rest within ten seconds is not
    logged = process.text.count('could not be read')
    assert logged and logged - said <= 1 + (time.monotonic() - begun) // 10
    assert memory_mb() - before < 200, 'a bomb was unpacked'
    client.told(
        lambda: camera.publisher.publish(camera.message(picture(60, 80))), 'camera', '', 'OK'
    )
