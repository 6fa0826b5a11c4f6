# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Mask and stamp belong together: each picture shows the number that its stamp is made of.

The number is drawn as light and dark stripes, and the node's network labels light and dark; what
is read from a mask has to be the number of its stamp, whatever was dropped around it.
"""

from __future__ import annotations

from importlib.util import find_spec
import json
import os
import random
import select
import shutil
import subprocess
import sys
import time

from message_packages import build
import numpy as np
import pytest
from ros_harness import Camera, FaultyNode, pixels_of, running, served, stamp_ns, tiny_parameters
from video_samples import packets

pytestmark = [pytest.mark.ros, pytest.mark.slow]

#: Bits of a marker: 16 of the number, 4 of the camera.
BITS = 20
BEGIN = 1_700_000_000 * 10**9
STEP = 1_000_000
SIZES = {'front': (96, 160), 'rear': (180, 320)}


def marked(camera: int, number: int, size: tuple[int, int]) -> np.ndarray:
    """Return RGB uint8 [H, W, 3] with the stripes of camera and number."""
    value = camera << 16 | number
    bits = [value >> bit & 1 for bit in range(BITS)]
    columns = np.repeat(np.array(bits, np.uint8) * 240 + 8, size[1] // BITS)
    return np.broadcast_to(columns[None, :, None], (*size, 3))


def read(plane: np.ndarray, threshold: int) -> tuple[int, int]:
    """Return camera and number of a plane, in which every row has to say the same."""
    width = plane.shape[1] // BITS
    middle = width // 2
    middles = plane[:, middle::width] > threshold
    assert (middles == middles[0]).all()
    value = sum(int(bit) << index for index, bit in enumerate(middles[0]))
    return value >> 16, value & 0xFFFF


@pytest.fixture(autouse=True)
def _marker(tmp_path, monkeypatch):
    """Let the networks read markers."""
    (tmp_path / 'fault').write_text('marker')
    monkeypatch.setenv('NIGHTSEG_FAULT', str(tmp_path / 'fault'))


def test_every_mask_shows_the_number_of_its_stamp_under_load_drops_and_jumps(tmp_path):
    dice = random.Random(3)
    names, topics = list(SIZES), ('labels', 'confidence')
    parameters = tiny_parameters(tmp_path, cameras=names, route='day')
    with served(tmp_path, parameters, kind=FaultyNode) as client:
        cameras = {name: Camera(client, name, *topics, reliable=False) for name in names}
        for camera in cameras.values():
            camera.connect()

        numbers, sent = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
        got = [camera.got(topic) for camera in cameras.values() for topic in topics]
        end = time.monotonic() + 4.0
        # few masks would prove little
        while time.monotonic() < end or min(map(len, got)) <= 20:
            name = dice.choice(names)
            # a frame is lost before the node, comes twice, or in the wrong order
            numbers[name] += dice.choice((1, 1, 1, 1, 2, 5, 0, -1))
            number = max(numbers[name], 0)
            image = marked(names.index(name), number, SIZES[name])
            message = cameras[name].frame(image, BEGIN + STEP * number, frame_id=name)
            cameras[name].publisher.publish(message)
            sent[name] += 1
            client.spin(dice.choice((0.0, 0.002, 0.02)))

        def counted() -> dict[str, dict[str, int]] | None:
            """Return the counters of the cameras once every frame that came has ended."""
            found = {name: camera.counters() for name, camera in cameras.items()}
            for values in found.values():
                ends = [v for k, v in values.items() if k.startswith(('served', 'dropped.'))]
                if values['received'] != sum(ends):
                    return None
            return found

        values = client.until(counted, 'every frame accounted for')
    for index, name in enumerate(names):
        for topic in topics:
            masks = cameras[name].got(topic)
            stamps = [stamp_ns(mask) for mask in masks]
            assert stamps == sorted(set(stamps)), 'in order, none twice'
            for mask in masks:
                plane = pixels_of(mask)
                assert plane.shape == SIZES[name]
                assert mask.header.frame_id == name
                number = (stamp_ns(mask) - BEGIN) // STEP
                threshold = 0 if topic == 'labels' else 150
                assert read(plane, threshold) == (index, number), (name, topic)
        reasons = ('superseded', 'out_of_order', 'duplicate_stamp')
        dropped = [values[name][f'dropped.{reason}'] for reason in reasons]
        assert all(dropped), f'without drops this proves little: {dropped}'
        assert values[name]['received'] == values[name]['served'] + sum(dropped) <= sent[name]


#: A driver in a process of its own: it publishes what it is told line by line, once it has so many
#: subscribers.
DRIVER = """
import importlib, json, rclpy, sys, time
from rclpy.qos import QoSProfile
topic, package, kind = sys.argv[1:]
kind = getattr(importlib.import_module(f'{package}.msg'), kind)
rclpy.init()
node = rclpy.create_node('driver')
publisher = node.create_publisher(kind, topic, QoSProfile(depth=50))
for line in sys.stdin:
    told = json.loads(line)
    while publisher.get_subscription_count() != told['subscribers']:
        time.sleep(0.01)
    message = kind()
    message.data.frombytes(bytes.fromhex(told['data']))
    header = getattr(message, 'header', message)
    header.frame_id = 'front'
    at = header.stamp if header is not message else message.timestamp
    at.sec, at.nanosec = divmod(told['stamp'], 10**9)
    setattr(message, 'encoding' if header is not message else 'format', told['encoding'])
    publisher.publish(message)
    if not told['subscribers']:
        print(flush=True)
node.destroy_node()
rclpy.shutdown()
"""
VIDEO = {
    'ffmpeg': ('ffmpeg_image_transport_msgs', 'FFMPEGPacket', 'libx264;yuv420p;bgr8'),
    'foxglove': ('foxglove_msgs', 'CompressedVideo', 'h264'),
}


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    if find_spec('rosidl_generator_py') is None or shutil.which('c++') is None:
        pytest.skip('no generators of messages, or no compiler')
    return build(tmp_path_factory.mktemp('built'), *(package for package, *_ in VIDEO.values()))


@pytest.mark.parametrize('transport', VIDEO)
def test_every_mask_of_a_video_shows_the_number_of_its_stamp(
    client, tmp_path, built, monkeypatch, transport
):
    """The node joins in the middle of a stream, loses a packet, leaves, and joins anew."""
    for name, value in built.items():
        monkeypatch.setenv(name, value)
    size = SIZES['front']
    sent = dict(packets('libx264', 17, draw=lambda n: np.ascontiguousarray(marked(0, n, size))))
    package, kind, encoding = VIDEO[transport]
    parameters = tiny_parameters(tmp_path, cameras=['front'], route='day', transport=transport)
    command = [sys.executable, '-c', DRIVER, f'front/image_raw/{transport}', package, kind]
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE}
    driver = subprocess.Popen(command, **pipes, text=True, env=os.environ)
    client.listen('front/nightseg/labels')
    masks = client.got['front/nightseg/labels']

    def send(number: int, subscribers: int = 1) -> int:
        at = BEGIN + number * STEP
        told = {
            'stamp': at, 'data': sent[number].hex(), 'encoding': encoding,
            'subscribers': subscribers,
        }  # fmt: skip
        driver.stdin.write(json.dumps(told) + '\n')
        driver.stdin.flush()
        return at

    def counted(name: str) -> int:
        found = client.status('front')
        return int(found[2][name]) if found else 0

    def join(number: int) -> None:
        """Send a packet without a key frame before it until one has come."""
        client.got['/diagnostics'].clear()
        client.feed(lambda: send(number), lambda: counted('dropped.no_picture'), 'a packet')

    def show(*numbers: int) -> None:
        for number in numbers:
            at = send(number)
            client.until(lambda at=at: at in map(stamp_ns, masks), f'frame {number}')

    try:
        with running(tmp_path / 'log', parameters, kind=FaultyNode):
            client.heard('front/nightseg/labels')
            join(3)
            show(5, 6)
            # packet 7 is lost
            _ = send(8), send(9)
            show(10, 11, 12)
            assert client.transition('deactivate')
            send(13, subscribers=0)
            # once the node is back the driver would wait for nobody to listen for ever
            client.until(lambda: select.select([driver.stdout], [], [], 0)[0], 'packet 13')
            assert client.transition('activate')
            join(14)
            show(15, 16)
            received = client.until(
                lambda: counted('served') == 2 and client.status('front')[2], 'two frames'
            )
            assert int(received['received']) == 2 + int(received['dropped.no_picture'])
    finally:
        # killed, it would leave its shared memory behind
        driver.stdin.close()
        try:
            driver.wait(20)
        finally:
            driver.kill()
    numbers = [(stamp_ns(mask) - BEGIN) // STEP for mask in masks]
    assert numbers == [5, 6, 10, 11, 12, 15, 16]
    assert [read(pixels_of(mask), 0) for mask in masks] == [(0, number) for number in numbers]
    assert {(mask.header.frame_id, pixels_of(mask).shape) for mask in masks} == {('front', size)}
