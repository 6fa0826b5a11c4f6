# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""semantic_cloud as a real process: labels on points, bad input, parameters, lifecycle."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
from functools import partial
import gc
import itertools
import sys
import time
from types import SimpleNamespace
from typing import Any
import weakref

from cloud_harness import cloud_message, CloudProcess, info_message, OUT, PARAMETERS, TRANSFORMS
from cloud_samples import cloud, LENS, POINTS, SIZE
from nav_msgs.msg import Odometry
from nightseg_ros.clouds.geometry import CloudError
from nightseg_ros.clouds.point_cloud import Cloud, read_cloud
from nightseg_ros.node.semantic_cloud import Places
from nightseg_ros.perception.result import legend
from nightseg_ros.taxonomy import CITYSCAPES19
import numpy as np
import pytest
from ros_harness import Client, image_message, mutants, SECOND, served, stamp, stamp_ns
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import String

pytestmark = pytest.mark.ros


#: Stamps of messages, a second apart; they go on from test to test.
STAMPS = itertools.count(1_700_000_000 * SECOND, SECOND)
SEEN = {'front': 3, 'left': 5}


class Car:
    """Cameras and a LiDAR, played by the test."""

    def __init__(self, client: Client) -> None:
        self.client, self.stamps = client, STAMPS
        self.labels = {c: client.publisher(f'{c}/nightseg/labels') for c in SEEN}
        self.infos = {c: client.publisher(f'{c}/camera_info', CameraInfo, latched=True)
                      for c in SEEN}  # fmt: skip
        # once, and before the node has found them
        self.calibrate(LENS)
        self.lidar = client.publisher('lidar/points', PointCloud2, reliable=False)
        client.listen(OUT, PointCloud2)
        self.connect()

    def connect(self) -> None:
        self.client.heard(OUT)
        self.client.connect(*self.labels.values(), *self.infos.values(), self.lidar)

    def calibrate(self, lens: Any) -> None:
        for publisher in self.infos.values():
            publisher.publish(info_message(lens))

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
            # before the masks, so that it waits until those have come
            self.lidar.publish(message)
            self.masks(at, **(labels or SEEN))
            stamp = message.header.stamp
            with contextlib.suppress(AssertionError):
                found = self.client.until(lambda s=stamp: self.client.of_stamp(OUT, s), OUT, 5.0)
                break
        else:
            raise AssertionError('no cloud came back')
        assert found.header == message.header
        return read_cloud(found)

    def labelled(self, wanted: list[int], given: Cloud | None = None, **labels: int) -> Any:
        """Exchange clouds until one has the labels, which its calibration may miss; return it."""

        def exchanged() -> list[Any]:
            found = self.exchange(cloud(POINTS) if given is None else given, **labels)
            return [found] if labels_of(found) == wanted else []

        return self.client.until(exchanged, f'the labels {wanted}')[0]

    def tells(self, name: str, words: str, publisher: Any, make: Callable[[int], Any]) -> None:
        """Publish what ``make`` makes of each stamp until a status has the words."""
        self.client.told(lambda: publisher.publish(make(next(self.stamps))), name, words)

    def count(self, name: str, key: str) -> int:
        """Return a counter of the latest status."""
        return int(self.client.diagnosed(name, '')[key])


@pytest.fixture(scope='module')
def client(tmp_path_factory):
    with served(tmp_path_factory.mktemp('node'), PARAMETERS, kind=CloudProcess) as client:
        yield client


@pytest.fixture
def car(client):
    yield Car(client)
    client.reset()
    assert client.process.process.poll() is None


def labels_of(found: Cloud) -> list[int]:
    return [int(label) for label in found.records['label'].ravel()]


def test_points_get_the_labels_of_the_cameras_that_see_them(car):
    sent = cloud(POINTS, extra={'intensity': (7, [1, 2, 3]), 'ring': (4, [4, 5, 6])})
    found = car.labelled([3, 5, 255], sent)
    for field in sent.fields:
        np.testing.assert_array_equal(found.records[field.name], sent.records[field.name])
    car.client.told(lambda: car.labelled([3, 5, 255]), 'lidar', '3 points, 67% labelled', 'OK')
    values = car.client.status('lidar')[2]
    assert float(values['paint_ms.p50']) > 0 and float(values['latency_ms.p99']) > 0
    assert values['mask_later_by_s.front'] == '0.000'
    # node is in order, too
    assert car.client.diagnosed('node', '')['state'] == 'active'


def test_broken_messages_are_counted_and_told_and_nothing_dies(car):
    good = cloud(POINTS)

    def too_wide(at: int) -> PointCloud2:
        message = cloud_message(good, at)
        message.width = 1000
        return message

    car.tells('lidar', 'the cloud has 36 bytes, its points take 12000', car.lidar, too_wide)
    assert car.count('lidar', 'dropped.malformed') >= 1
    words = 'the clouds carry no stamp (0)'
    car.tells('lidar', words, car.lidar, lambda at: cloud_message(good, 0))
    words = "front: labels cannot be used: encoding is 'rgb8'"
    color = np.zeros((*SIZE, 3), np.uint8)
    car.tells('node', words, car.labels['front'], partial(image_message, color))
    nowhere, begun = "no transform from 'attic' to 'front_optical'", time.monotonic()
    car.client.told(lambda: car.exchange(good, 'attic'), 'lidar', nowhere, 'ERROR')
    unseen = 'no point got a label, though'
    car.client.told(lambda: car.exchange(cloud(POINTS[2:])), 'lidar', unseen, 'WARN')
    # said once, then held back for ten seconds
    assert 1 <= car.client.process.text.count(nowhere) <= 1 + (time.monotonic() - begun) // 10
    car.labelled([3, 5, 255])


def test_with_a_dead_camera_every_cloud_comes_out(car):
    """At 20 Hz ten clouds wait at a time for the camera's masks."""
    car.labelled([3, 5, 255])
    car.client.got['/diagnostics'].clear()
    counts = ('received', 'served', 'missed.left.no_mask')
    begin = {key: car.count('lidar', key) for key in counts[:2]}
    first, sent = next(car.stamps), itertools.count()

    def added(key: str) -> int:
        return car.count('lidar', key) - begin.get(key, 0)

    def drive() -> bool:
        for _ in range(10):
            at = first + next(sent) * SECOND // 20
            car.lidar.publish(cloud_message(cloud(POINTS), at))
            car.masks(at, front=3)
            car.client.spin(0.05)
        return added('received') >= 40

    car.client.until(drive, 'clouds')
    car.client.diagnosed('lidar', 'WARN', 'left: no mask within 0.1 s of the cloud')
    car.client.until(lambda: added('received') == added('served'), 'every cloud')
    for _ in range(next(sent) // 20 + 1):
        next(car.stamps)
    came = [m for m in car.client.got[OUT] if first <= stamp_ns(m)]
    assert len(came) >= 35
    assert {tuple(labels_of(read_cloud(message))) for message in came} == {(3, 255, 255)}
    assert car.count('lidar', 'missed.left.no_mask') >= 35


def test_of_too_many_clouds_the_oldest_come_out_early_and_are_counted(car):
    """At 100 Hz more clouds wait for a dead camera than may."""

    def crowd() -> None:
        first = next(car.stamps)
        for tick in range(40):
            car.lidar.publish(cloud_message(cloud(POINTS), first + tick * SECOND // 100))
            car.client.spin(0.01)

    car.client.told(crowd, 'lidar', 'too many clouds wait for masks or poses', 'WARN')
    assert car.count('lidar', 'missed.early') > 0


@pytest.mark.slow
def test_whatever_a_message_holds_clouds_go_on(car):
    """Every field of each message, one by one."""
    car.client.unconfigure()
    odometry: Any = {'odometry': 'pose', 'odometry_type': 'nav_msgs/Odometry'}
    car.client.start(confidence=True, depth_cameras=['front'], **odometry)
    sure = car.client.publisher('front/nightseg/confidence')
    legends = car.client.publisher('front/nightseg/label_info_json', String)
    poses = car.client.publisher('pose', Odometry)
    depths = car.client.publisher('front/depth/image_raw')
    car.client.listen('front/nightseg/points', PointCloud2)
    car.connect()
    silent = 'front: no confidence for'
    car.client.told(lambda: car.masks(next(car.stamps), **SEEN), 'node', silent, 'WARN')
    car.client.connect(sure, legends, poses, depths)

    def depth(at: int) -> Image:
        message = image_message(np.ones((90, 320), np.uint8), at, encoding='16UC1')
        message.width = 160
        return message

    mask = partial(image_message, np.full(SIZE, 3, np.uint8), encoding='mono8')
    harmful = {
        car.labels['front']: mask, sure: mask,
        legends: lambda at: String(data=legend(CITYSCAPES19)),
        poses: lambda at: stamp(Odometry(), at, 'odom'),
        car.lidar: partial(cloud_message, cloud(POINTS)), depths: depth,
    }  # fmt: skip
    for publisher, make in harmful.items():
        for mutant in mutants(make(next(car.stamps)), car.stamps):
            publisher.publish(mutant)
            car.client.spin(0.02)
    for words in ('labels', 'confidence', 'label_info_json', 'poses', 'a cloud', 'a depth image'):
        car.client.until(
            lambda w=words: f'{w} cannot be used' in car.client.process.text, f'a word of {words}'
        )  # fmt: skip
    assert 'error in a callback' not in car.client.process.text
    assert car.count('lidar', 'dropped.failed') == 0
    car.labelled([3, 5, 255])
    car.client.unconfigure()
    car.client.start(confidence=False, odometry='', depth_cameras=[''])
    car.connect()
    # a calibration is looked at where a cloud needs it
    for mutant in mutants(info_message(LENS), car.stamps):
        car.infos['front'].publish(mutant)
        car.client.spin(0.02)
        at = next(car.stamps)
        car.masks(at, **SEEN)
        car.lidar.publish(cloud_message(cloud(POINTS), at))
        car.client.spin(0.02)
    car.client.until(
        lambda: 'missed.front.bad_info' in car.client.diagnosed('lidar', ''), 'bad calibrations'
    )
    assert car.count('lidar', 'dropped.failed') == 0
    assert 'error in a callback' not in car.client.process.text
    car.calibrate(LENS)
    car.labelled([3, 5, 255])


def test_lifecycle_stops_and_starts_again_and_parameters_change_where_they_may(car):
    assert car.client.set_parameters(occlusion__cell=8.0).successful
    assert not car.client.set_parameters(occlusion__cell=-1.0).successful
    refused = car.client.set_parameters(cameras=['rear'])
    assert not refused.successful and 'takes effect by configure' in refused.reason
    assert car.client.transition('deactivate')
    before = len(car.client.got[OUT])
    car.lidar.publish(cloud_message(cloud(POINTS), next(car.stamps)))
    car.client.spin(1.0)
    assert len(car.client.got[OUT]) == before
    assert car.client.transition('cleanup')
    car.client.start(pair_limit=0.2, occlusion__cell=0.0)
    car.connect()
    car.labelled([3, 5, 255])


class TfBuffer:
    """What tf2_ros.Buffer does with one moving frame: no slashes, no times that it has not."""

    def __init__(self) -> None:
        self.stamps: list[int] = []
        self.clear = self.stamps.clear

    def set_transform(self, stamp_ns: int) -> None:
        if not self.stamps or stamp_ns > self.stamps[-1] - 10 * SECOND:
            self.stamps.append(stamp_ns)

    def lookup_transform(self, target: str, source: str, when: Any) -> Any:
        if (target + source).count('/') or when.nanoseconds not in self.stamps:
            raise LookupError('Lookup would require extrapolation')
        place = SimpleNamespace(x=1.0, y=2.0, z=when.nanoseconds / SECOND)
        turn = SimpleNamespace(x=0.0, y=0.0, z=0.0, w=1.0)
        return SimpleNamespace(transform=SimpleNamespace(translation=place, rotation=turn))


class TfListener:
    alive = 0

    def __init__(self, buffer: TfBuffer, node: Any) -> None:
        TfListener.alive += 1
        node.buffer = weakref.ref(buffer)

    def unregister(self) -> None:
        TfListener.alive -= 1


def test_places_ask_tf_for_what_the_parameters_do_not_say(monkeypatch):
    fake = SimpleNamespace(
        Buffer=TfBuffer, TransformListener=TfListener, TransformException=LookupError
    )
    monkeypatch.setitem(sys.modules, 'tf2_ros', fake)
    node = SimpleNamespace()
    places = Places(node, (TRANSFORMS[0],), True)
    node.buffer().set_transform(50 * SECOND)
    assert places.lookup('base_link', 'lidar', 5)[2, 3] == 1
    for lead in ('', '/'):
        found = places.lookup(f'{lead}map', f'{lead}lidar', 50 * SECOND)
        assert found[:3, 3].tolist() == [1, 2, 50]
    with pytest.raises(CloudError, match='extrapolation; publish their places on /tf_static'):
        places.lookup('map', 'lidar', 5 * SECOND)
    # a bag that loops
    places.clear()
    node.buffer().set_transform(5 * SECOND)
    assert places.lookup('map', 'lidar', 5 * SECOND)[2, 3] == 5
    places.close()
    assert TfListener.alive == 0
    gc.collect()
    assert node.buffer() is None, 'the buffer is still held'
    monkeypatch.setitem(sys.modules, 'tf2_ros', None)
    places = Places(object(), (), True)
    with pytest.raises(CloudError, match='tf2_ros is not installed: give their places in the'):
        places.lookup('map', 'lidar', 0)
    places.clear()
    places.close()


def test_stamps_that_jump_back_start_over(car):
    car.labelled([3, 5, 255])
    before = car.count('lidar', 'time_jumps')
    car.stamps = itertools.count(1_600_000_000 * SECOND, SECOND)
    # the first cloud's masks may have come before it, and are forgotten
    car.labelled([4, 6, 255], front=4, left=6)
    car.client.until(lambda: car.count('lidar', 'time_jumps') > before, 'the jump')
