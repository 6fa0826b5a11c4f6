# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Pictures that are damaged, hostile, huge, tiny or without content, through the real node."""

from __future__ import annotations

import struct
import zlib
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
    NodeProcess,
    image_message,
    picture,
    running,
    stamp,
    tiny_parameters,
    values_of,
)
from sensor_msgs.msg import CompressedImage, Image

pytestmark = pytest.mark.ros


@pytest.fixture(scope='module')
def parameters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return tiny_parameters(tmp_path_factory.mktemp('weights'), label_size='network')


@pytest.fixture(scope='module')
def stamps() -> Iterator[int]:
    return iter(range(SECOND, 10**6 * SECOND, SECOND))


class Camera:
    """A camera and what the node makes of it."""

    def __init__(
        self, client: Client, node: NodeProcess, kind: Any, stamps: Iterator[int]
    ) -> None:
        self.client, self.node, self.stamps = client, node, stamps
        name = kind.__name__.lower()
        self.out = f'/{name}/camera/nightseg'
        suffix = '/compressed' if kind is CompressedImage else ''
        self.publisher = client.publisher(f'/{name}/camera/image_raw{suffix}', kind)
        client.listen(f'{self.out}/labels')
        client.listen(f'{self.out}/status', DiagnosticArray)
        client.connect(self.publisher)
        client.heard(f'{self.out}/labels', f'{self.out}/status')

    def serves(self, message: Any) -> tuple[Any, dict[str, str]]:
        """Return mask and status of a message."""
        stamp(message, next(self.stamps))
        labels, status = self.client.exchange(
            self.publisher, message, f'{self.out}/labels', f'{self.out}/status'
        )
        return labels, values_of(status)

    def refuses(self, message: Any, words: str) -> None:
        """Send a message until the diagnostics say why there is no mask of it, and none came."""
        masks = len(self.client.got[f'{self.out}/labels'])

        self.client.feed(
            lambda: self.publisher.publish(stamp(message, next(self.stamps))),
            lambda: self.client.says('camera', words), words,
        )  # fmt: skip
        assert len(self.client.got[f'{self.out}/labels']) == masks
        assert self.node.process.poll() is None


@pytest.fixture(scope='module', params=[Image, CompressedImage], ids=['raw', 'compressed'])
def camera(
    request: pytest.FixtureRequest,
    parameters: dict[str, Any],
    stamps: Iterator[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Camera]:
    name = request.param.__name__.lower()
    transport = 'compressed' if request.param is CompressedImage else 'raw'
    log = tmp_path_factory.mktemp('node') / 'log'
    arguments = ('-r', f'__ns:=/{name}')
    with running(log, {**parameters, 'transport': transport}, *arguments) as node:
        client = Client(f'/{name}/night_perception', name=f'{name}_client')
        client.watch_diagnostics()
        yield Camera(client, node, request.param, stamps)
        client.close()


def message_of(camera: Camera, pixels: np.ndarray) -> Any:
    """Return a message of what the camera sends."""
    if '/image/' in camera.out:
        return image_message(pixels, 1)
    return packed(cv2.imencode('.png', pixels)[1].tobytes())


def packed(content: bytes) -> CompressedImage:
    message = CompressedImage(format='rgb8; jpeg compressed bgr8')
    message.data.frombytes(content)
    return message


@pytest.mark.parametrize('value', [0, 255], ids=['black', 'white'])
def test_a_picture_without_content_is_served_under_its_own_stamp(
    camera: Camera, value: int
) -> None:
    labels, status = camera.serves(message_of(camera, np.full((60, 80, 3), value, np.uint8)))
    assert 0 < len(labels.data) == labels.height * labels.width
    assert 0 <= float(status['score']) <= 1


@pytest.mark.parametrize('size', [(1, 1), (1, 333), (401, 3), (97, 131), (4320, 7680)])
def test_any_size_from_one_pixel_to_8k_is_served(camera: Camera, size: tuple[int, int]) -> None:
    if size[0] > 4000 and '/image/' in camera.out:
        # as raw rgb8 it would be 100 MB
        message = image_message(np.full(size, 99, np.uint8), 1, encoding='mono8')
    else:
        message = message_of(camera, np.full((*size, 3), 99, np.uint8))
    labels, _ = camera.serves(message)
    assert labels.height >= 1
    # as wide as the picture is, up to the rounding to whole pixels
    assert labels.width / labels.height == pytest.approx(size[1] / size[0], rel=1.0)


def test_floats_are_refused_by_name_and_no_nan_reaches_a_network(camera: Camera) -> None:
    if '/compressed' in camera.out:
        pytest.skip('a JPEG or PNG holds no floats')
    pixels = np.full((60, 80), np.nan, '<f4')
    message = image_message(pixels.view('u1').reshape(60, -1), 1, encoding='32FC1')
    message.width = 80
    camera.refuses(message, "encoding '32FC1' is not supported")
    camera.serves(message_of(camera, picture(60, 80)))


def png_bomb(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack('>I', len(data)) + checked + struct.pack('>I', zlib.crc32(checked))

    header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    chunks = (
        chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(bytes(99))) + chunk(b'IEND', b'')
    )
    return b'\x89PNG\r\n\x1a\n' + chunks


def hostile() -> dict[str, tuple[bytes, str]]:
    jpeg = cv2.imencode('.jpg', picture(60, 80))[1].tobytes()
    png = bytearray(cv2.imencode('.png', picture(60, 80))[1].tobytes())
    png[len(png) // 2] ^= 0x10
    bomb = bytearray(jpeg)
    at = bomb.find(b'\xff\xc0')
    bomb[at + 5 : at + 9] = struct.pack('>HH', 65000, 65000)
    return {
        'no bytes': (b'', 'there are no bytes'),
        'truncated JPEG': (jpeg[: len(jpeg) // 2], 'the JPEG is cut off'),
        'corrupt PNG': (bytes(png), 'the PNG is damaged'),
        'PNG bomb': (png_bomb(60000), 'the picture is 60000×60000 pixels; 67108864 are the most'),
        'JPEG bomb': (bytes(bomb), 'the picture is 65000×65000 pixels; 67108864 are the most'),
        'text': (b'GET / HTTP/1.1\r\n\r\n', 'they begin with 47 45 54 20'),
    }


def test_hostile_files_are_refused_with_the_reason_and_the_next_good_one_is_served(
    camera: Camera,
) -> None:
    if '/image/' in camera.out:
        pytest.skip('these come compressed; raw ones are in test_node.py')
    before = memory_mb(camera.node.process.pid)
    for content, words in hostile().values():
        camera.refuses(packed(content), words)
    camera.serves(message_of(camera, picture(60, 80)))
    assert memory_mb(camera.node.process.pid) - before < 200, 'a bomb was unpacked'


def memory_mb(pid: int) -> float:
    text = Path(f'/proc/{pid}/status').read_text()
    return int(text.partition('RssAnon:')[2].split()[0]) / 1024
