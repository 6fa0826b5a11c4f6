# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What camera drivers publish, through one real node: the table of docs/node.md, and video."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import cv2
from nightseg_ros.node.messages import decode
from nightseg_ros.perception.frame import ENCODINGS, Frame
from nightseg_ros.perception.result import output_prefixes
import numpy as np
import pytest
from ros_harness import (
    Camera,
    Client,
    image_message,
    offline,
    picture,
    pixels_of,
    SECOND,
    served,
    stamp,
    stamp_ns,
)
from sensor_msgs.msg import CompressedImage, Image
from video_samples import grey, packets, SIZE

pytestmark = pytest.mark.ros

NOW = 1_700_000_000 * SECOND


class Driver(NamedTuple):
    """One row of the table."""

    driver: str
    topic: str
    encoding: str
    """Or the format of a CompressedImage."""
    frame_id: str = 'optical'
    begin: int = NOW
    reliable: bool = True
    padding: int = 0


RAW = [
    Driver('usb_cam', '/image_raw', 'yuv422_yuy2', 'default_cam'),
    Driver('usb_cam', '/side/image_raw', 'rgb8', 'side'),
    Driver('v4l2_camera', '/camera/image_raw', 'yuyv', 'camera', reliable=False),
    Driver('realsense2_camera', '/rs/color/image_raw', 'rgb8', 'rs_color_optical_frame'),
    Driver('realsense2_camera', '/rs/infra1/image_rect_raw', 'mono8', 'rs_infra1_optical_frame'),
    Driver('zed_wrapper', '/zed/zed_node/rgb/image_rect_color', 'bgra8', 'zed_left_optical'),
    Driver('depthai_ros_driver', '/oak/rgb/image_raw', 'nv12', 'oak_rgb_camera_optical_frame'),
    Driver('pylon_ros2_camera', '/pylon/image_raw', 'bayer_rggb8', 'pylon', reliable=False),
    Driver('spinnaker_camera_driver', '/flir/image_raw', 'mono16', 'flir', padding=6),
    Driver('GMSL by V4L2', '/gmsl/image_raw', 'uyvy', 'gmsl', padding=32),
    Driver('ros_gz_bridge', '/rgbd_camera/image', 'rgb8', 'model/link/rgbd', begin=0),
    Driver('carla_ros_bridge', '/carla/ego/rgb_front/image', 'bgra8', 'ego/rgb_front', begin=50),
]
COMPRESSED = [
    Driver('usb_cam', '/mjpeg/image_raw', 'jpeg', 'default_cam'),
    Driver('image_transport', '/left/image_raw', 'rgb8; jpeg compressed bgr8'),
    Driver('pylon_ros2_camera', '/mosaic/image_raw', 'bayer_rggb8; png compressed '),
    Driver('depthai_ros_driver', '/oak/right/image_raw', 'mono8; jpeg compressed mono8'),
    Driver('Foxglove', '/app/image', 'webp'),
]
ISAAC = Driver('isaac_ros_h264_encoder', '/isaac/image_compressed', 'h264')


@pytest.fixture(scope='module')
def client(parameters, tmp_path_factory):
    given = {**parameters, 'cameras': [], 'autostart': False}
    with served(tmp_path_factory.mktemp('node'), given, state='unconfigured') as client:
        yield client


@pytest.fixture(autouse=True)
def _unconfigured(client):
    yield
    client.reset()
    client.unconfigure()


def camera_of(client: Client, driver: Driver, kind: Any, topic: str) -> Camera:
    name = output_prefixes([topic])[0].removesuffix('/nightseg')
    return Camera(client, name, kind=kind, topic=topic, reliable=driver.reliable)


def message_of(driver: Driver, kind: Any, seed: int) -> Any:
    """Return 64×48 pixels as a driver lays them out; which colours, test_frame.py knows."""
    if kind is Image:
        layout = ENCODINGS[driver.encoding]
        rows = picture(layout.rows(48), 64 * layout.pixel_bytes, seed)[:, :, 0]
        message = image_message(
            rows, driver.begin, encoding=driver.encoding, frame_id=driver.frame_id,
            padding=driver.padding,
        )  # fmt: skip
        message.height, message.width = 48, 64
        return message
    name, pixels = driver.encoding, picture(48, 64, seed)
    suffix = '.png' if 'png' in name else '.webp' if 'webp' in name else '.jpg'
    one_plane = name.startswith(('mono', 'bayer'))
    content = cv2.imencode(suffix, pixels[:, :, 0] if one_plane else pixels)[1]
    message = CompressedImage(format=name)
    message.data.frombytes(content.tobytes())
    return stamp(message, driver.begin, driver.frame_id)


@pytest.mark.parametrize(('kind', 'drivers'), [(Image, RAW), (CompressedImage, COMPRESSED)])
def test_the_images_of_every_driver(client, parameters, kind, drivers):
    pipeline, suffix = offline(parameters), '' if kind is Image else '/compressed'
    topics = [driver.topic for driver in drivers]
    client.start(image_topics=topics, transport=suffix[1:] or 'raw')
    cameras = [camera_of(client, driver, kind, driver.topic + suffix) for driver in drivers]
    for seed, (driver, camera) in enumerate(zip(drivers, cameras)):
        message = message_of(driver, kind, seed)
        decoded, order = decode(message)
        answer = camera.connect().serve(message)
        assert answer.header == message.header, driver
        (wanted,) = pipeline.process([Frame(image=decoded, order=order)])
        np.testing.assert_array_equal(pixels_of(answer), wanted.labels)
        assert len(np.unique(wanted.labels)) > 2, 'a mask of one class would prove nothing'


def test_depth_is_refused_and_the_colour_beside_it_is_served(client):
    depth = {'rs/aligned_depth': '16UC1', 'zed/depth': '32FC1'}
    names = ['rs/color', *depth]
    client.start(image_topics=[f'/{name}/image_raw' for name in names], transport='raw')
    cameras = {n: camera_of(client, RAW[0], Image, f'/{n}/image_raw').connect() for n in names}

    def send() -> None:
        cameras['rs/color'].send(picture(48, 64))
        for name, encoding in depth.items():
            values = np.full((48, 64), np.nan, '<f4' if encoding == '32FC1' else '<f2')
            message = cameras[name].frame(values.view('u1').reshape(48, -1), encoding=encoding)
            message.width = 64
            cameras[name].publisher.publish(message)

    for name, encoding in depth.items():
        words = f"'{encoding}' is not supported; depth is no picture; name the camera's colour"
        client.told(send, name, words)
        client.until(cameras['rs/color'].got, 'a mask of the colour')
        assert not cameras[name].got()


def test_video_is_shown_from_a_key_frame_on_until_a_packet_is_lost(client, parameters):
    client.start(image_topics=[ISAAC.topic], transport='compressed')
    camera = camera_of(client, ISAAC, CompressedImage, ISAAC.topic).connect()
    # what the node publishes before it has found who listens is lost; this is sent again
    found = stamp(CompressedImage(format='jpeg'), NOW, ISAAC.frame_id)
    found.data.frombytes(cv2.imencode('.jpg', grey(14))[1].tobytes())
    camera.serve(found)
    client.got.clear()
    shown = []
    for number, data in packets('libx264', 15):
        if number in (0, 1, 2, 7):
            continue
        at = NOW + number * SECOND // 10
        message = stamp(CompressedImage(format=ISAAC.encoding), at, ISAAC.frame_id)
        message.data.frombytes(data)
        camera.publisher.publish(message)
        if number in (5, 6, 10, 11, 12, 13, 14):
            shown.append(at)
            client.until(lambda at=at: at in map(stamp_ns, camera.got()), f'frame {number}')
    assert [stamp_ns(mask) for mask in camera.got()] == shown
    assert {mask.header.frame_id for mask in camera.got()} == {ISAAC.frame_id}
    (wanted,) = offline(parameters).process([Frame(image=grey(14))])
    assert (pixels_of(camera.got()[-1]) == wanted.labels).mean() > 0.9
    assert (camera.got()[-1].width, camera.got()[-1].height) == SIZE
    client.until(lambda: (c := camera.counters())['received'] == c['served'] + 4, 'the counts')
    assert camera.counters()['dropped.no_picture'] == 4


def test_a_wrong_topic_is_told_in_the_terminal(client):
    client.start(image_topics=['/usb/image_raw'], transport='raw')
    client.publisher('/usb/image_raw/compressed', CompressedImage)
    words = 'nobody publishes /usb/image_raw; there is /usb/image_raw/compressed'
    words += ": set 'transport' to compressed"
    client.until(lambda: words in client.process.text, words)


def test_the_table_of_the_document_is_this_one():
    text = (Path(__file__).parents[1] / 'docs' / 'node.md').read_text()
    for driver in (*RAW, *COMPRESSED, ISAAC):
        row = f'| {driver.driver} | `{driver.topic}` | `{driver.encoding.strip()}` |'
        assert row in text, row
