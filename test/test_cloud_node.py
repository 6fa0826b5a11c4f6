# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""semantic_cloud as a real process: labels on points, bad input, parameters, lifecycle."""

from __future__ import annotations

import dataclasses
import gc
import math
import sys
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cloud_harness import (
    OUT,
    PARAMETERS,
    POINTS,
    SECOND,
    SIZE,
    TRANSFORMS,
    CloudProcess,
    cloud_message,
    info_message,
)
from cloud_samples import calibration, cloud
from ros_harness import Client, NodeProcess, image_message, running, stamp_ns

pytest.importorskip('sensor_msgs.msg')
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, PointCloud2
from std_msgs.msg import String

from nightseg_ros.clouds.geometry import CloudError
from nightseg_ros.clouds.point_cloud import Cloud, read_cloud
from nightseg_ros.node.semantic_cloud import Places
from nightseg_ros.perception.result import legend
from nightseg_ros.taxonomy import CITYSCAPES19

pytestmark = pytest.mark.ros


class Car:
    """Cameras and a LiDAR, played by the test."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.labels = {c: client.publisher(f'{c}/nightseg/labels') for c in ('front', 'left')}
        # published once, before the node has found them
        self.infos = {c: client.publisher(f'{c}/camera_info', CameraInfo, latched=True)
                      for c in ('front', 'left')}  # fmt: skip
        self.calibrate(calibration(width=160, height=90, focal=100.0))
        self.lidar = client.publisher('lidar/points', PointCloud2, reliable=False)
        client.listen(OUT, PointCloud2)
        client.heard(OUT)
        for publisher in (*self.labels.values(), *self.infos.values(), self.lidar):
            client.connect(publisher)
        self.stamps = iter(range(1_700_000_000 * SECOND, 2_000_000_000 * SECOND, SECOND))

    def calibrate(self, given: Any) -> None:
        for publisher in self.infos.values():
            publisher.publish(info_message(given))
        self.client.spin(0.3)

    def masks(self, at: int, **labels: int) -> None:
        for camera, label in labels.items():
            mask = np.full(SIZE, label, np.uint8)
            self.labels[camera].publish(image_message(
                mask, at, encoding='mono8', frame_id=f'{camera}_optical', padding=3
            ))  # fmt: skip

    def exchange(self, given: Cloud, frame_id: str = 'lidar', **labels: int) -> Any:
        """Send masks and a cloud until it comes back; return what is in it."""
        for _ in range(10):
            at = next(self.stamps)
            message = cloud_message(given, at, frame_id)
            self.lidar.publish(message)
            self.masks(at, **labels)
            try:
                found = self.client.until(
                    lambda m=message: self.client.of_stamp(OUT, m.header.stamp), OUT, 5.0
                )
            except AssertionError:
                continue
            assert found.header == message.header
            return read_cloud(found)
        raise AssertionError('no cloud came back')


@pytest.fixture(scope='module')
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    log = tmp_path_factory.mktemp('node') / 'log.txt'
    with running(log, PARAMETERS, kind=CloudProcess) as process:
        yield process


@pytest.fixture(scope='module')
def car(node: NodeProcess) -> Iterator[Car]:
    client = Client('/semantic_cloud')
    client.watch_diagnostics()
    client.reach('active')
    yield Car(client)
    client.close()


def labels_of(found: Cloud) -> list[int]:
    return [int(label) for label in found.records['label'].ravel()]


def test_points_get_the_labels_of_the_cameras_that_see_them(car: Car) -> None:
    sent = cloud(POINTS, extra={'intensity': (7, [1, 2, 3]), 'ring': (4, [4, 5, 6])})
    found = car.exchange(sent, front=3, left=5)
    assert labels_of(found) == [3, 5, 255]
    for field in sent.fields:
        np.testing.assert_array_equal(found.records[field.name], sent.records[field.name])
    values = car.client.diagnosed('lidar', 'OK', '3 points, 67% labelled')
    assert float(values['paint_ms.p50']) > 0 and float(values['latency_ms.p99']) > 0
    assert values['mask_later_by_s.front'] == '0.000'
    # node is in order, too
    assert car.client.diagnosed('node', '')['state'] == 'active'


def test_every_layout_is_read_and_what_is_no_point_comes_back(car: Car) -> None:
    points = [(math.nan,) * 3, *POINTS]
    odd = cloud(points, height=2, point_padding=5, row_padding=7, big=True, float_type=8)
    empty = dataclasses.replace(odd, width=0, row_step=0)
    for given, wanted in ((odd, [255, 3, 5, 255]), (empty, [])):
        found = car.exchange(given, front=3, left=5)
        assert labels_of(found) == wanted
        assert (found.height, found.width) == (given.height, given.width)
        assert found.is_bigendian


def test_a_bad_calibration_is_told_and_a_good_one_heals(car: Car) -> None:
    car.calibrate(calibration('kannala_brandt', (0.1,) * 4, width=160, height=90))
    assert labels_of(car.exchange(cloud(POINTS), front=3, left=5)) == [255] * 3
    car.client.diagnosed('lidar', 'ERROR', 'is not known')
    car.calibrate(calibration(width=160, height=90, focal=100.0))
    assert labels_of(car.exchange(cloud(POINTS), front=3, left=5)) == [3, 5, 255]


def test_broken_messages_are_counted_and_told_and_nothing_dies(
    car: Car, node: NodeProcess
) -> None:
    good = cloud(POINTS)
    for change, words in (
        ({'width': 1000}, 'the cloud has 36 bytes, its points take 12000'),
        ({'fields': good.fields[:2]}, 'the cloud has no field z'),
    ):
        fake: Any = SimpleNamespace(**{name: getattr(good, name) for name in good.__slots__})
        vars(fake).update(change)
        at = next(car.stamps)
        car.lidar.publish(cloud_message(fake, at))
        values = car.client.diagnosed('lidar', '', words)
        assert int(values['dropped.malformed']) >= 1
    car.lidar.publish(cloud_message(good, 0))
    car.client.diagnosed('lidar', '', 'the clouds carry no stamp (0)')
    at = next(car.stamps)
    car.labels['front'].publish(image_message(np.zeros((*SIZE, 3), np.uint8), at))
    car.client.diagnosed('node', '', "front: labels cannot be used: encoding is 'rgb8'")
    assert car.exchange(good, 'attic', front=3, left=5) is not None
    car.client.diagnosed('lidar', 'ERROR', "no transform from 'attic' to 'front_optical'")
    # said once each, then held back
    assert node.text.count("no transform from 'attic' to 'front_optical'") == 1
    assert labels_of(car.exchange(good, front=3, left=5)) == [3, 5, 255]
    assert node.process.poll() is None


def test_with_a_dead_camera_every_cloud_comes_out(car: Car) -> None:
    """At 20 Hz ten clouds wait at a time for the camera's masks."""
    counts = ('received', 'served')
    before = car.client.diagnosed('lidar', '')
    at = next(car.stamps)
    for tick in range(40):
        car.lidar.publish(cloud_message(cloud(POINTS), at + tick * SECOND // 20))
        car.masks(at + tick * SECOND // 20, front=3)
        car.client.spin(0.05)
    car.client.diagnosed('lidar', 'WARN', 'left: no mask within 0.1 s of the cloud')

    def added() -> list[int]:
        now = car.client.status('lidar')[2]
        return [int(now[key]) - int(before[key]) for key in counts]

    car.client.until(lambda: added()[0] >= 35 and added()[0] == added()[1], 'every cloud')
    came = [m for m in car.client.got[OUT] if at <= stamp_ns(m) < at + 2 * SECOND]
    assert len(came) >= 35
    assert {tuple(labels_of(read_cloud(message))) for message in came} == {(3, 255, 255)}
    assert int(car.client.status('lidar')[2]['missed.left.no_mask']) >= 35


def test_nothing_that_is_received_ends_it(car: Car, node: NodeProcess) -> None:
    """More of each than there may be errors in callbacks."""
    lens = calibration(width=160, height=90, focal=100.0)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    topic = 'front/nightseg/label_info_json'
    legends = car.client.node.create_publisher(String, topic, latched)
    car.client.connect(legends)
    for number in range(30):
        at = next(car.stamps)
        broken = cloud_message(cloud(POINTS), at)
        broken.fields[number % 3].count = broken.fields[number % 3].offset = 2**32 - 1
        car.lidar.publish(broken)
        huge = info_message(lens)
        huge.k, huge.d = [1e308] * 9, [(-1) ** number * 1e308] * 5
        car.infos['front'].publish(huge)
        mask = image_message(np.zeros(SIZE, np.uint8), at, encoding='mono8')
        mask.step = mask.height = 2**32 - 1
        car.labels['front'].publish(mask)
        legends.publish(String(data='[' * 100_000))
        car.exchange(cloud(POINTS), left=5) if number % 10 == 0 else car.client.spin(0.05)

    def counted(name: str, key: str) -> int:
        return int(car.client.status(name)[2][key])

    car.client.until(lambda: counted('lidar', 'dropped.malformed') >= 25, 'the broken clouds')
    car.client.until(lambda: counted('node', 'bad_masks.front') >= 40, 'masks and legends')
    assert 'front: label_info_json cannot be used' in node.text
    legends.publish(String(data=legend(CITYSCAPES19)))
    car.calibrate(lens)
    found = car.exchange(cloud(POINTS), front=0, left=1)
    assert labels_of(found) == [0, 1, 255]
    # colours follow the names that the cameras announce
    red = found.records['rgb'].view('<u4').ravel()[:2] >> 16
    assert red.tolist() == [128, 244]
    assert node.process.poll() is None


def test_parameters_are_checked_and_some_change_at_run_time(car: Car) -> None:
    assert car.client.set(occlusion__cell=8.0).successful
    assert not car.client.set(occlusion__cell=-1.0).successful
    refused = car.client.set(cameras=['rear'])
    assert not refused.successful and 'takes effect by configure' in refused.reason
    assert car.client.set(occlusion__cell=0.0).successful


def test_lifecycle_stops_and_starts_again(car: Car) -> None:
    assert car.client.transition('deactivate')
    before = len(car.client.got[OUT])
    car.lidar.publish(cloud_message(cloud(POINTS), next(car.stamps)))
    car.client.spin(1.0)
    assert len(car.client.got[OUT]) == before
    assert car.client.transition('cleanup')
    assert car.client.set(pair_limit=0.2).successful
    assert car.client.transition('configure') and car.client.transition('activate')
    for publisher in (*car.labels.values(), *car.infos.values(), car.lidar):
        car.client.connect(publisher)
    car.calibrate(calibration(width=160, height=90, focal=100.0))
    assert labels_of(car.exchange(cloud(POINTS), front=3, left=5)) == [3, 5, 255]


class TransformError(Exception):
    """What tf2's exceptions have in common."""


class TfBuffer:
    """
    What tf2_ros.Buffer does with one moving frame.

    It refuses frames with a slash, times that it does not have, and what is older than that.
    """

    def __init__(self) -> None:
        self.clock = SimpleNamespace(callback=self.clear)
        self.stamps: list[int] = []

    def set_transform(self, stamp_ns: int) -> None:
        if not self.stamps or stamp_ns > self.stamps[-1] - 10 * SECOND:
            self.stamps.append(stamp_ns)

    def clear(self) -> None:
        self.stamps.clear()

    def lookup_transform(self, target: str, source: str, when: Any) -> Any:
        if target.startswith('/') or source.startswith('/'):
            raise TransformError("in tf2 frame_ids cannot start with a '/'")
        if source == 'unknown':
            raise TransformError('"unknown" passed to lookupTransform does not exist')
        if when.nanoseconds not in self.stamps:
            raise TransformError('Lookup would require extrapolation')
        place = SimpleNamespace(x=1.0, y=2.0, z=when.nanoseconds / SECOND)
        turn = SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0)
        return SimpleNamespace(transform=SimpleNamespace(translation=place, rotation=turn))


class TfListener:
    open = 0

    def __init__(self, buffer: TfBuffer, node: Any) -> None:
        TfListener.open += 1
        node.buffer = weakref.ref(buffer)

    def unregister(self) -> None:
        TfListener.open -= 1


def test_places_ask_tf_for_what_the_parameters_do_not_say(monkeypatch: Any) -> None:
    fake = SimpleNamespace(
        Buffer=TfBuffer, TransformListener=TfListener, TransformException=TransformError
    )
    monkeypatch.setitem(sys.modules, 'tf2_ros', fake)
    node = SimpleNamespace()
    places = Places(node, (TRANSFORMS[0],), True)
    node.buffer().set_transform(50 * SECOND)
    assert places.lookup('base_link', 'lidar', 5)[2, 3] == 1
    for lead in ('', '/'):
        found = places.lookup(f'{lead}map', f'{lead}lidar', 50 * SECOND)
        assert found[:3, 3].tolist() == [1, 2, 50]
    for source, words in (
        ('unknown', 'does not exist; publish their places on /tf_static'),
        ('lidar', 'Lookup would require extrapolation; publish'),
    ):
        with pytest.raises(CloudError, match=words):
            places.lookup('map', source, 5 * SECOND)
    # a bag that loops
    places.clear()
    node.buffer().set_transform(5 * SECOND)
    assert places.lookup('map', 'lidar', 5 * SECOND)[2, 3] == 5
    places.close()
    assert TfListener.open == 0
    gc.collect()
    assert node.buffer() is None, 'the buffer is still held'


def test_without_tf_the_parameters_are_asked_for(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, 'tf2_ros', None)
    places = Places(object(), (), True)
    with pytest.raises(CloudError, match='tf2_ros is not installed: give their places in the'):
        places.lookup('map', 'lidar', 0)
    places.clear()
    places.close()


def test_stamps_that_jump_back_start_over(car: Car) -> None:
    assert labels_of(car.exchange(cloud(POINTS), front=3, left=5)) == [3, 5, 255]
    before = int(car.client.diagnosed('lidar', 'OK', '')['time_jumps'])
    car.stamps = iter(range(1_600_000_000 * SECOND, 1_700_000_000 * SECOND, SECOND))
    # its masks may have come before it, and are forgotten
    car.exchange(cloud(POINTS), front=4, left=6)
    assert labels_of(car.exchange(cloud(POINTS), front=4, left=6)) == [4, 6, 255]
    car.client.until(
        lambda: int(car.client.diagnosed('lidar', '', '')['time_jumps']) > before, 'the jump'
    )
