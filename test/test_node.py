# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""One camera through the real node: masks, stamps, routes, parameters."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from functools import partial
import json
from pathlib import Path
import re
import time
from typing import Any

import cv2
from nightseg_ros.perception.frame import decode_raw, ENCODINGS, Frame
from nightseg_ros.perception.pipeline import Pipeline
from nightseg_ros.perception.result import Want
from nightseg_ros.taxonomy import CAMVID11
import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from ros_harness import (
    Camera,
    Client,
    idle_subscriber,
    NodeProcess,
    offline,
    picture,
    pixels_of,
    running,
    SECOND,
    stamp,
    tiny_parameters,
    values_of,
)
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String
import tiny_weights

pytestmark = pytest.mark.ros

OUT = 'camera/nightseg'


@pytest.fixture(scope='module')
def trusted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found = tiny_parameters(tmp_path_factory.mktemp('weights'))
    tiny_weights.give_trust(Path(found['weights.day']), 0.8)
    return found


@pytest.fixture(scope='module')
def node(
    trusted: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeProcess]:
    log = tmp_path_factory.mktemp('node') / 'log.txt'
    override = {f'qos_overrides./{OUT}/translated.publisher.reliability': 'best_effort'}
    with running(log, {**trusted, **override}) as process:
        yield process


@pytest.fixture(scope='module')
def client(node: NodeProcess) -> Iterator[Client]:
    client = Client()
    client.watch_diagnostics()
    client.reach('active')
    yield client
    client.close()


@pytest.fixture
def camera(client: Client) -> Iterator[Camera]:
    yield Camera(client, 'camera', 'labels', 'status').connect()
    client.reset()


@pytest.fixture(scope='module')
def pipeline(trusted: dict[str, Any]) -> Pipeline:
    return offline(trusted)


def test_masks_are_the_pipelines_own_with_the_inputs_header_and_size(
    camera: Camera, pipeline: Pipeline
) -> None:
    topics = ('labels', 'confidence', 'color', 'overlay')
    camera.listen(*topics[1:])
    image = picture(90, 150, seed=3)
    message = camera.frame(image[:, :, ::-1], encoding='bgr8', frame_id='front', padding=5)
    got = dict(zip(topics, camera.serve(message, *topics)))
    want = Want(confidence=True, color=True, overlay=True)
    (wanted,) = pipeline.process([Frame(image=image)], want)
    for topic, answer in got.items():
        assert answer.header == message.header
        assert answer.encoding == ('mono8' if topic in ('labels', 'confidence') else 'rgb8')
        np.testing.assert_array_equal(pixels_of(answer), getattr(wanted, topic))
    assert len(np.unique(got['labels'].data)) > 2, 'a mask of one class would prove nothing'


def test_status_says_what_became_of_the_frame(client: Client, camera: Camera) -> None:
    camera.listen('illumination')
    client.heard(f'{OUT}/illumination')
    message = camera.frame(picture(seed=1), frame_id='left')
    status = camera.serve(message, 'status')
    assert status.header == message.header
    values = values_of(status)
    assert float(values['score']) > 0.65
    assert (values['state'], values['route'], values['switched']) == ('day', 'day', 'false')
    assert values['reason']
    total = float(values['latency_ms.total'])
    assert 0 < float(values['latency_ms.estimate']) <= total
    assert 0 <= float(values['latency_ms.wait']) <= total
    # stamped in 2023
    assert float(values['age_s']) > 1e6
    score = client.until(lambda: camera.got('illumination'), 'illumination')[-1].data
    assert score == pytest.approx(float(values['score']), abs=1e-3)


def test_only_what_is_subscribed_is_computed(client: Client) -> None:
    camera = Camera(client)
    topics = ('labels', 'confidence', 'color', 'overlay')

    def at_rest() -> dict[str, int]:
        """Return the counters once the last frame is through."""
        return client.until(
            lambda: (now := camera.counters()) == camera.counters() and now, 'counters at rest'
        )

    def computed(*wanted: str) -> bool:
        """Serve some frames; return whether these pictures were computed for all, and no other."""
        before = at_rest()
        client.feed(
            camera.send, lambda: camera.counters()['served'] >= before['served'] + 3, 'frames'
        )
        after = at_rest()
        served = after['served'] - before['served']
        return all(
            after.get(f'computed.{topic}', 0) - before.get(f'computed.{topic}', 0)
            == (served if topic in wanted else 0)
            for topic in topics
        )

    camera.connect().serve()
    client.until(lambda: computed('labels'), 'labels alone')
    client.reset()
    camera.publisher = client.publisher('camera/image_raw')
    client.connect(camera.publisher)
    # the node may learn later that the subscription is gone
    client.until(computed, 'nothing')
    client.reset()


def test_every_encoding_gives_the_pipelines_mask(camera: Camera, pipeline: Pipeline) -> None:
    rng = np.random.default_rng(5)
    masks = set()
    for encoding, layout in ENCODINGS.items():
        height, width, big = 64, 96, bool(rng.integers(2))
        step = width * layout.pixel_bytes + int(rng.integers(0, 6))
        rows = layout.rows(height)
        data = rng.integers(0, 256, rows * step, dtype=np.uint8).tobytes()
        message = Image(
            height=height, width=width, encoding=encoding, step=step, is_bigendian=int(big)
        )
        message.data.frombytes(data)
        stamp(message, next(camera.client.stamps))
        labels = pixels_of(camera.serve(message, 'labels'))
        image, order = decode_raw(
            data, encoding=encoding, width=width, height=height, step=step, is_bigendian=big
        )
        (wanted,) = pipeline.process([Frame(image=image, order=order)])
        np.testing.assert_array_equal(labels, wanted.labels, err_msg=encoding)
        masks.add(labels.tobytes())
    assert len(masks) == len(ENCODINGS), 'masks that are all alike would prove nothing'


def test_compressed_outputs_hold_the_same_picture(camera: Camera) -> None:
    topics = ('labels', 'overlay', 'labels/compressed', 'overlay/compressed')
    camera.listen(*topics[1:])
    message = camera.frame(picture(97, 131))
    labels, overlay, png, jpeg = camera.serve(message, *topics)
    assert png.header == jpeg.header == message.header
    assert png.format == 'mono8; png compressed mono8'
    assert jpeg.format == 'rgb8; jpeg compressed bgr8'
    unpacked = cv2.imdecode(np.frombuffer(png.data, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(unpacked, pixels_of(labels))
    seen = cv2.imdecode(np.frombuffer(jpeg.data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    assert bytes(jpeg.data).startswith(b'\xff\xd8')
    assert np.abs(seen.astype(int) - pixels_of(overlay)).mean() < 12


def began(reason: str) -> str:
    return re.sub(r'at once \(.*?\)', 'at once', reason)


def test_the_route_follows_the_light_live_as_it_does_offline(
    client: Client, camera: Camera, pipeline: Pipeline
) -> None:
    # after a gap the router decides afresh, here as offline
    begin = next(client.stamps) + 60 * SECOND
    for _ in range(1200):
        next(client.stamps)
    pipeline.reset()
    routes = []
    for index in range(30):
        image = picture(90, 120, seed=index, night=4 <= index < 14)
        at = begin + index * SECOND // 5
        labels, status = camera.serve(image, 'labels', 'status', at=at)
        (wanted,) = pipeline.process([Frame(image=image, stamp_ns=at)])
        np.testing.assert_array_equal(pixels_of(labels), wanted.labels, err_msg=str(index))
        values = values_of(status)
        assert values['route'] == wanted.decision.route
        # but for why it began to look: a gap here, a reset there
        assert began(values['reason']) == began(wanted.decision.reason)
        routes.append(values['route'])
    # dark at 0.8 s and 0.5 s of dwell; bright at 2.8 s and 3 s of dwell
    assert routes == ['day'] * 7 + ['night'] * 22 + ['day']


def test_parameters_change_while_it_runs_and_wrong_ones_are_refused(
    client: Client, camera: Camera
) -> None:
    camera.listen('overlay')
    client.listen(f'{OUT}/translated', reliable=False)
    client.heard(f'{OUT}/overlay', f'{OUT}/translated')
    image = picture(60, 80, seed=9)

    def route() -> str:
        return values_of(camera.serve(image, 'status'))['route']

    refused: dict[str, tuple[Any, str]] = {
        'route': ('noon', 'must be one of auto, day, night, translate'),
        'overlay_alpha': (1.5, 'overlay_alpha'),
        'max_rate': (float('nan'), 'max_rate'),
        'router__dark': (0.9, "'dark' must be below 'bright' (0.65), got 0.9"),
        'router__dwell_dark_s': (20.0, 'gap_s'),
        'router__table__night': ('auto', 'day, night, translate'),
        # the table asks for a network that no route has loaded
        'router__table__glare': ('translate', "route 'translate' needs weights that are not load"),
        'device': ('cuda', 'takes effect by configure'),
        'weights__day': ('other', 'takes effect by configure'),
        'cameras': (['x'], 'takes effect by configure'),
        'jpeg_quality': ('high', 'Wrong parameter type'),
    }
    before = client.get('route', 'overlay_alpha', 'router.dark', 'device')
    for name, (value, words) in refused.items():
        answer = client.set_parameters(**{name: value})
        assert not answer.successful
        assert words in answer.reason, (name, answer.reason)
    # all or nothing
    assert not client.set_parameters(route='day', overlay_alpha=3.0).successful
    assert client.get('route', 'overlay_alpha', 'router.dark', 'device') == before

    assert client.set_parameters(route='night').successful
    assert route() == 'night'
    assert client.set_parameters(route='auto', router__table__day='night').successful
    assert route() == 'night'
    assert client.set_parameters(router__table__day='day').successful
    assert route() == 'day'
    assert client.set_parameters(router__dark=0.2, router__bright=0.5).successful
    assert client.set_parameters(router__dark=0.35, router__bright=0.65).successful
    assert client.set_parameters(overlay_alpha=0.0, overlay_route=False).successful
    np.testing.assert_array_equal(pixels_of(camera.serve(image, 'overlay')), image)
    assert client.set_parameters(overlay_alpha=0.5, overlay_route=True).successful
    # on the route of the day there is no translation to show
    assert not camera.got('translated')


def test_max_rate_and_max_age_drop_and_count(client: Client, camera: Camera) -> None:
    before = camera.counters()['dropped.max_rate']
    assert client.set_parameters(max_rate=0.5).successful
    client.feed(camera.send, lambda: camera.counters()['dropped.max_rate'] >= before + 3, 'drops')
    assert client.set_parameters(max_rate=0.0, max_age=1.0).successful
    # stamped years ago
    client.feed(camera.send, lambda: client.says('camera', 'frames are too late'), 'the age')
    assert camera.counters()['dropped.too_old'] > 0
    assert client.set_parameters(max_age=0.0).successful
    camera.serve()


BAD_FRAMES: dict[str, dict[str, Any]] = {
    "encoding '64FC3' is not supported; publish": {'encoding': '64FC3'},
    'step is 100 bytes, but a row of 80 rgb8 pixels has 240': {'step': 100},
    'data holds 14401 bytes': {'data': bytes(14401)},
    'data holds 0 bytes': {'data': b''},
}


def test_bad_frames_are_told_and_the_next_good_one_is_served(
    client: Client, node: NodeProcess, camera: Camera
) -> None:
    said = node.text.count('could not be read')
    for words, fields in BAD_FRAMES.items():
        bad = camera.frame()
        for name, value in fields.items():
            setattr(bad, name, value)
        client.feed(
            lambda bad=bad: camera.publisher.publish(stamp(bad, next(client.stamps))),
            lambda words=words: client.says('camera', words), words,
        )  # fmt: skip
        camera.serve()
        assert client.of_stamp(f'{OUT}/labels', bad.header.stamp) is None
    # the first is logged, the rest within ten seconds is not
    assert 1 <= node.text.count('could not be read') - said <= 4
    client.feed(camera.send, lambda: client.says('camera', level='OK'), 'a camera that is well')


def test_frames_without_a_stamp_are_served_with_a_warning(client: Client, camera: Camera) -> None:
    client.feed(
        lambda: camera.send(at=0),
        lambda: camera.got() and client.says('camera', 'carry no stamp'), 'a warning',
    )  # fmt: skip
    assert camera.got()[-1].header == camera.frame(at=0).header
    camera.serve()


def test_a_camera_that_cannot_see_is_told_and_its_masks_still_come(
    client: Client, camera: Camera
) -> None:
    def warned(wanted: bool) -> bool:
        _, status = camera.serve(picture(seed=2))
        assert float(values_of(status)['reliability']) == pytest.approx(0.8, abs=2e-3)
        found = client.status('camera')
        return bool(found and ('cannot see' in found[1]) == wanted and 'reliability' in found[2])

    assert client.set_parameters(min_reliability=1.0).successful
    try:
        client.until(lambda: warned(True), 'a warning')
    finally:
        assert client.set_parameters(min_reliability=0.0).successful
    client.until(lambda: warned(False), 'the end of it')


def test_outputs_are_reliable_and_volatile_unless_overridden_and_late_joiners_learn_the_ids(
    client: Client,
) -> None:
    def qos(topic: str) -> tuple[bool, bool]:
        (info,) = client.node.get_publishers_info_by_topic(f'/{OUT}/{topic}')
        profile = info.qos_profile
        return (
            profile.reliability == ReliabilityPolicy.RELIABLE,
            profile.durability == DurabilityPolicy.VOLATILE,
        )

    assert qos('labels') == qos('overlay/compressed') == (True, True)
    assert qos('translated') == (False, True)
    assert qos('label_info_json') == (True, False)

    client.listen(f'{OUT}/label_info_json', String, latched=True)
    (message,) = client.until(lambda: client.got[f'{OUT}/label_info_json'], 'label_info_json')
    content = json.loads(message.data)
    assert (content['taxonomy'], content['unlabelled']) == (CAMVID11.name, 255)
    assert [item['id'] for item in content['classes']] == list(range(11))
    assert [item['name'] for item in content['classes']] == list(CAMVID11.classes)
    assert [tuple(item['color']) for item in content['classes']] == list(CAMVID11.colors)


def test_calibration_travels_with_the_labels(client: Client, camera: Camera) -> None:
    info = CameraInfo(height=60, width=80, distortion_model='plumb_bob', d=[0.1] * 5)
    info.k = [50.0, 0.0, 40.0, 0.0, 51.0, 30.0, 0.0, 0.0, 1.0]
    publisher = client.publisher('camera/camera_info', CameraInfo)
    client.connect(publisher)
    camera.listen('camera_info')
    client.heard(f'{OUT}/camera_info')

    def send(height: int = 60) -> None:
        publisher.publish(stamp(info, next(client.stamps)))
        camera.send(picture(height, 80), frame_id='front')

    got, _ = client.feed(send, lambda: camera.together('camera_info', 'labels'), 'camera_info')
    assert got.header.frame_id == 'front'
    assert (got.height, got.width, list(got.d)) == (60, 80, [0.1] * 5)
    assert list(got.k) == list(info.k)

    # one that is for other images would be worse than none
    words = 'camera_info is for 80×60 pixels, the images have 80×30'
    client.feed(lambda: send(30), lambda: client.says('camera', words), words)


def test_a_subscriber_that_never_reads_stalls_nobody(camera: Camera, tmp_path: Path) -> None:
    with idle_subscriber(tmp_path / 'log', f'{OUT}/labels'):
        for _ in range(30):
            camera.serve(picture(240, 320))


def test_nothing_is_lost_at_720p_and_10_hz(client: Client, camera: Camera) -> None:
    image = picture(720, 1280)
    camera.serve(image)
    # a machine that is busy with something else may stop the world for a tenth of a second
    for _ in range(4):
        messages = [camera.frame(image) for _ in range(30)]
        for message in messages:
            due = time.monotonic() + 0.1
            camera.publisher.publish(message)
            client.spin(max(due - time.monotonic(), 0))
        stamps = [message.header.stamp for message in messages]
        with contextlib.suppress(AssertionError):
            came = partial(client.of_stamp, f'{OUT}/labels')
            client.until(lambda s=stamps, came=came: all(map(came, s)), 'all', 10.0)
            return
    pytest.fail('frames were lost')


def test_the_node_says_what_it_runs_on(client: Client) -> None:
    values = client.diagnosed('node', 'OK', 'active')
    assert (values['backend'], values['device'], values['state']) == ('torch', 'cpu', 'active')
    assert values['weights.day'].startswith('day.safetensors sha256 ')
    assert float(values['memory_mb']) > 50
    values = client.until(lambda: client.status('camera'), 'the camera')[2]
    assert 0 < float(values['latency_ms.p50']) <= float(values['latency_ms.p99'])
