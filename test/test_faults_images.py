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
from ros_harness import Camera, Client, NodeProcess, picture, running, stamp, values_of
from sensor_msgs.msg import CompressedImage, Image

pytestmark = pytest.mark.ros


class Hostile(Camera):
    """A camera that sends raw or compressed images, and its node."""

    node: NodeProcess

    def message(self, pixels: np.ndarray, **more: Any) -> Any:
        if self.raw:
            return self.frame(pixels, **more)
        return self.packed(cv2.imencode('.png', pixels)[1].tobytes())

    def packed(self, content: bytes) -> CompressedImage:
        message = CompressedImage(format='rgb8; jpeg compressed bgr8')
        message.data.frombytes(content)
        return stamp(message, next(self.client.stamps))

    @property
    def raw(self) -> bool:
        return '/image/' in self.out

    def refuses(self, message: Any, words: str) -> None:
        """Send a message until the diagnostics say why there is no mask of it, and none came."""
        masks = len(self.got())
        self.client.feed(
            lambda: self.publisher.publish(stamp(message, next(self.client.stamps))),
            lambda: self.client.says('camera', words), words,
        )  # fmt: skip
        assert len(self.got()) == masks
        assert self.node.process.poll() is None


@pytest.fixture(scope='module', params=[Image, CompressedImage], ids=['raw', 'compressed'])
def camera(
    request: pytest.FixtureRequest,
    parameters: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Hostile]:
    name = request.param.__name__.lower()
    transport = 'compressed' if request.param is CompressedImage else 'raw'
    given = {**parameters, 'label_size': 'network', 'transport': transport}
    log = tmp_path_factory.mktemp('node') / 'log'
    with running(log, given, '-r', f'__ns:=/{name}') as node:
        client = Client(f'/{name}/night_perception', name=f'{name}_client')
        client.watch_diagnostics()
        camera = Hostile(client, f'/{name}/camera', 'labels', 'status', kind=request.param)
        camera.node = node
        yield camera.connect()
        client.close()


@pytest.mark.parametrize('value', [0, 255], ids=['black', 'white'])
def test_a_picture_without_content_is_served_under_its_own_stamp(
    camera: Hostile, value: int
) -> None:
    labels, status = camera.serve(camera.message(np.full((60, 80, 3), value, np.uint8)))
    assert 0 < len(labels.data) == labels.height * labels.width
    assert 0 <= float(values_of(status)['score']) <= 1


@pytest.mark.parametrize('size', [(1, 1), (1, 333), (401, 3), (97, 131), (4320, 7680)])
def test_any_size_from_one_pixel_to_8k_is_served(camera: Hostile, size: tuple[int, int]) -> None:
    if size[0] > 4000 and camera.raw:
        # as raw rgb8 it would be 100 MB
        message = camera.frame(np.full(size, 99, np.uint8), encoding='mono8')
    else:
        message = camera.message(np.full((*size, 3), 99, np.uint8))
    labels, _ = camera.serve(message)
    assert labels.height >= 1
    # as wide as the picture is, up to the rounding to whole pixels
    assert labels.width / labels.height == pytest.approx(size[1] / size[0], rel=1.0)


def png_bomb(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack('>I', len(data)) + checked + struct.pack('>I', zlib.crc32(checked))

    header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    chunks = (
        chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(bytes(99))) + chunk(b'IEND', b'')
    )
    return b'\x89PNG\r\n\x1a\n' + chunks


def hostile() -> list[tuple[bytes, str]]:
    jpeg = cv2.imencode('.jpg', picture(60, 80))[1].tobytes()
    png = bytearray(cv2.imencode('.png', picture(60, 80))[1].tobytes())
    png[len(png) // 2] ^= 0x10
    bomb = bytearray(jpeg)
    at = bomb.find(b'\xff\xc0')
    bomb[at + 5 : at + 9] = struct.pack('>HH', 65000, 65000)
    return [
        (b'', 'there are no bytes'),
        (jpeg[: len(jpeg) // 2], 'the JPEG is cut off'),
        (bytes(png), 'the PNG is damaged'),
        (png_bomb(60000), 'the picture is 60000×60000 pixels; 67108864 are the most'),
        (bytes(bomb), 'the picture is 65000×65000 pixels; 67108864 are the most'),
        (b'GET / HTTP/1.1\r\n\r\n', 'they begin with 47 45 54 20'),
    ]


def test_hostile_files_are_refused_with_the_reason_and_the_next_good_one_is_served(
    camera: Hostile,
) -> None:
    if camera.raw:
        pytest.skip('these come compressed; raw ones are in test_node.py')

    def memory_mb() -> float:
        text = Path(f'/proc/{camera.node.process.pid}/status').read_text()
        return int(text.partition('RssAnon:')[2].split()[0]) / 1024

    before = memory_mb()
    for content, words in hostile():
        camera.refuses(camera.packed(content), words)
    camera.serve(camera.message(picture(60, 80)))
    assert memory_mb() - before < 200, 'a bomb was unpacked'
