# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""One camera through the real node: masks, stamps, routes, parameters."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny_weights
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from ros_harness import (
    Client,
    NodeProcess,
    idle_subscriber,
    image_message,
    picture,
    pixels_of,
    running,
    stamp,
    values_of,
)
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float32, String

from nightseg_ros.perception.frame import ENCODINGS, Frame, decode_raw
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, WeightsConfig
from nightseg_ros.perception.result import Want
from nightseg_ros.taxonomy import CAMVID11

pytestmark = pytest.mark.ros

SECOND = 1_000_000_000
OUT = 'camera/nightseg'


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    files = tiny_weights.write_all(tmp_path_factory.mktemp('weights'))
    tiny_weights.give_trust(files['weights.day'], 0.8)
    return {name: str(path) for name, path in files.items()}


@pytest.fixture(scope='module')
def node(
    weights: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeProcess]:
    log = tmp_path_factory.mktemp('node') / 'log.txt'
    override = {f'qos_overrides./{OUT}/translated.publisher.reliability': 'best_effort'}
    with running(log, {**weights, **override, 'backend': 'torch', 'threads': 1}) as process:
        yield process


@pytest.fixture(scope='module')
def shared_client(node: NodeProcess) -> Iterator[Client]:
    client = Client()
    client.watch_diagnostics()
    client.reach('active')
    yield client
    client.close()


@pytest.fixture
def client(shared_client: Client) -> Iterator[Client]:
    yield shared_client
    for topic in [t for t in shared_client._subscriptions if t != '/diagnostics']:
        shared_client.unlisten(topic)
    for topic in [t for t in shared_client.got if t != '/diagnostics']:
        del shared_client.got[topic]


@pytest.fixture(scope='module')
def camera(shared_client: Client) -> Any:
    publisher = shared_client.publisher('camera/image_raw')
    shared_client.connect(publisher)
    return publisher


@pytest.fixture(scope='module')
def stamps() -> Iterator[int]:
    """Yield stamps 10 ms apart, so that tests can share a camera."""
    return iter(range(1_700_000_000 * SECOND, 2_000_000_000 * SECOND, SECOND // 100))


@pytest.fixture(scope='module')
def pipeline(weights: dict[str, str]) -> Pipeline:
    names = {name.removeprefix('weights.'): path for name, path in weights.items()}
    return Pipeline.load(
        PipelineConfig(weights=WeightsConfig(**names), backend='torch', threads=1)
    )


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'mono8'])
def test_masks_are_the_pipelines_own_with_the_inputs_header_and_size(
    client: Client, camera: Any, stamps: Iterator[int], pipeline: Pipeline, encoding: str
) -> None:
    topics = ('labels', 'confidence', 'color', 'overlay')
    for topic in topics:
        client.listen(f'{OUT}/{topic}')
    client.listen(f'{OUT}/status', DiagnosticArray)
    client.heard(*(f'{OUT}/{topic}' for topic in topics))
    image = picture(90, 150, seed=3)
    sent = {'rgb8': image, 'bgr8': image[:, :, ::-1], 'mono8': image[:, :, 0]}[encoding]
    message = image_message(sent, next(stamps), encoding=encoding, frame_id='front', padding=5)
    client.exchange(camera, message, f'{OUT}/status')
    got = {
        topic: client.until(
            lambda t=topic: client.of_stamp(f'{OUT}/{t}', message.header.stamp), topic
        )
        for topic in topics
    }

    seen = image if encoding != 'mono8' else np.repeat(image[:, :, :1], 3, axis=2)
    (wanted,) = pipeline.process(
        [Frame(image=seen)], Want(confidence=True, color=True, overlay=True)
    )
    for topic, answer in got.items():
        assert answer.header == message.header
        assert answer.encoding == ('mono8' if topic in ('labels', 'confidence') else 'rgb8')
        np.testing.assert_array_equal(pixels_of(answer), getattr(wanted, topic))
    assert len(np.unique(got['labels'].data)) > 2, 'a mask of one class would prove nothing'


def test_status_says_what_became_of_the_frame(
    client: Client, camera: Any, stamps: Iterator[int]
) -> None:
    for topic, kind in (('status', DiagnosticArray), ('illumination', Float32)):
        client.listen(f'{OUT}/{topic}', kind)
    client.heard(f'{OUT}/status')
    message = image_message(picture(seed=1), next(stamps), frame_id='left')
    status = client.exchange(camera, message, f'{OUT}/status')
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
    score = client.until(lambda: client.got[f'{OUT}/illumination'], 'illumination')[-1].data
    assert score == pytest.approx(float(values['score']), abs=1e-3)


def test_only_what_is_subscribed_is_computed(
    client: Client, camera: Any, stamps: Iterator[int]
) -> None:
    def counters() -> dict[str, int]:
        found = client.status('camera')
        return {
            key: int(value)
            for key, value in (found[2] if found else {}).items()
            if key.partition('.')[0] in ('computed', 'published', 'received', 'served')
        }

    def send(count: int, **wanted: int) -> None:
        before = counters()
        done = before['served'] + count
        while counters()['served'] < done:
            camera.publish(image_message(picture(), next(stamps)))
            client.spin(0.05)
        client.spin(1.0)
        after = counters()
        served = after['served'] - before['served']
        grown = {key: after[key] - before.get(key, 0) for key in after}
        for topic in ('labels', 'confidence', 'color', 'overlay', 'translated'):
            expected = served if topic in wanted else 0
            assert grown.get(f'computed.{topic}', 0) == expected, (topic, grown)

    client.until(lambda: counters().get('served') is not None, 'counters')
    # the subscriptions of the test before have to be gone
    client.until(lambda: not client.node.count_subscribers(f'{OUT}/labels'), 'no subscriber')
    client.spin(0.5)
    send(3)
    client.listen(f'{OUT}/labels')
    client.heard(f'{OUT}/labels')
    client.exchange(camera, image_message(picture(), next(stamps)), f'{OUT}/labels')
    client.spin(1.0)
    send(3, labels=1)


def test_every_encoding_gives_the_pipelines_mask(
    client: Client, camera: Any, stamps: Iterator[int], pipeline: Pipeline
) -> None:
    client.listen(f'{OUT}/labels')
    client.heard(f'{OUT}/labels')
    rng = np.random.default_rng(5)
    masks = set()
    for encoding, layout in ENCODINGS.items():
        height, width, big = 64, 96, bool(rng.integers(2))
        step = width * layout.pixel_bytes + int(rng.integers(0, 6))
        rows = int(height * layout.planes)
        data = rng.integers(0, 256, rows * step, dtype=np.uint8).tobytes()
        message = Image(
            height=height, width=width, encoding=encoding, step=step, is_bigendian=int(big)
        )
        message.data.frombytes(data)
        stamp(message, next(stamps))
        labels = pixels_of(client.exchange(camera, message, f'{OUT}/labels'))
        image, order = decode_raw(
            data, encoding=encoding, width=width, height=height, step=step, is_bigendian=big
        )
        (wanted,) = pipeline.process([Frame(image=image, order=order)])
        np.testing.assert_array_equal(labels, wanted.labels, err_msg=encoding)
        masks.add(labels.tobytes())
    assert len(masks) == len(ENCODINGS), 'masks that are all alike would prove nothing'


def test_compressed_outputs_hold_the_same_picture(
    client: Client, camera: Any, stamps: Iterator[int]
) -> None:
    client.listen(f'{OUT}/labels')
    client.listen(f'{OUT}/overlay')
    client.listen(f'{OUT}/labels/compressed', CompressedImage)
    client.listen(f'{OUT}/overlay/compressed', CompressedImage)
    topics = ('labels', 'overlay', 'labels/compressed', 'overlay/compressed')
    client.heard(*(f'{OUT}/{topic}' for topic in topics))
    message = image_message(picture(97, 131), next(stamps))
    client.exchange(camera, message, f'{OUT}/overlay/compressed')
    labels, overlay, png, jpeg = (
        client.until(lambda t=t: client.of_stamp(f'{OUT}/{t}', message.header.stamp), t)
        for t in topics
    )
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
    client: Client, camera: Any, stamps: Iterator[int], pipeline: Pipeline
) -> None:
    client.listen(f'{OUT}/labels')
    client.listen(f'{OUT}/status', DiagnosticArray)
    client.heard(f'{OUT}/labels', f'{OUT}/status')
    # after a gap the router decides afresh, here as offline
    begin = next(stamps) + 60 * SECOND
    for _ in range(12_000):
        next(stamps)
    pipeline.reset()
    routes = []
    for index in range(30):
        image = picture(90, 120, seed=index, night=4 <= index < 14)
        at = begin + index * SECOND // 5
        message = image_message(image, at)
        labels = pixels_of(client.exchange(camera, message, f'{OUT}/labels'))
        status = client.until(
            lambda m=message: client.of_stamp(f'{OUT}/status', m.header.stamp), 'status'
        )
        (wanted,) = pipeline.process([Frame(image=image, stamp_ns=at)])
        np.testing.assert_array_equal(labels, wanted.labels, err_msg=str(index))
        values = values_of(status)
        assert values['route'] == wanted.decision.route
        # but for why it began to look: a gap here, a reset there
        assert began(values['reason']) == began(wanted.decision.reason)
        routes.append(values['route'])
    # dark at 0.8 s and 0.5 s of dwell; bright at 2.8 s and 3 s of dwell
    assert routes == ['day'] * 7 + ['night'] * 22 + ['day']


def test_parameters_change_while_it_runs_and_wrong_ones_are_refused(
    client: Client, node: NodeProcess, camera: Any, stamps: Iterator[int]
) -> None:
    client.listen(f'{OUT}/status', DiagnosticArray)
    client.listen(f'{OUT}/overlay')
    client.listen(f'{OUT}/translated')
    client.heard(f'{OUT}/status', f'{OUT}/overlay', f'{OUT}/translated')
    image = picture(60, 80, seed=9)

    def route() -> str:
        message = image_message(image, next(stamps))
        return values_of(client.exchange(camera, message, f'{OUT}/status'))['route']

    refused: dict[str, tuple[Any, str]] = {
        'route': ('noon', 'must be one of auto, day, night, translate'),
        'overlay_alpha': (1.5, 'overlay_alpha'),
        'max_rate': (float('nan'), 'max_rate'),
        'router__dark': (0.9, "'dark' (0.9) must be below 'bright' (0.65)"),
        'router__dwell_dark_s': (20.0, 'gap_s'),
        'router__table__night': ('auto', 'day, night, translate'),
        'device': ('cuda', 'takes effect by configure'),
        'weights__day': ('other', 'takes effect by configure'),
        'cameras': (['x'], 'takes effect by configure'),
        'jpeg_quality': ('high', 'Wrong parameter type'),
    }
    before = client.get('route', 'overlay_alpha', 'router.dark', 'device')
    for name, (value, words) in refused.items():
        answer = client.set(**{name: value})
        assert not answer.successful
        assert words in answer.reason, (name, answer.reason)
    # all or nothing
    assert not client.set(route='day', overlay_alpha=3.0).successful
    assert client.get('route', 'overlay_alpha', 'router.dark', 'device') == before
    # the table asks for a network that no route has loaded
    answer = client.set(router__table__glare='translate')
    assert not answer.successful
    assert "route 'translate' needs weights that are not loaded" in answer.reason

    assert client.set(route='night').successful
    assert route() == 'night'
    assert client.set(route='auto', router__table__day='night').successful
    assert route() == 'night'
    assert client.set(router__table__day='day').successful
    assert route() == 'day'
    assert client.set(router__dark=0.2, router__bright=0.5).successful
    assert client.set(router__dark=0.35, router__bright=0.65).successful
    assert client.set(overlay_alpha=0.0, overlay_route=False).successful
    message = image_message(image, next(stamps))
    overlay = client.exchange(camera, message, f'{OUT}/overlay')
    np.testing.assert_array_equal(pixels_of(overlay), image)
    assert client.set(overlay_alpha=0.5, overlay_route=True).successful
    # on the route of the day there is no translation to show
    assert not client.got[f'{OUT}/translated']


def test_max_rate_and_max_age_drop_and_count(
    client: Client, camera: Any, stamps: Iterator[int]
) -> None:
    client.listen(f'{OUT}/labels')
    client.heard(f'{OUT}/labels')

    def dropped(reason: str) -> int:
        return int(client.until(lambda: client.status('camera'), 'status')[2][f'dropped.{reason}'])

    before = dropped('max_rate')
    assert client.set(max_rate=0.5).successful
    client.until(
        lambda: (
            camera.publish(image_message(picture(), next(stamps)))
            or client.spin(0.1)
            or dropped('max_rate') >= before + 3
        ),
        'drops for the rate',
    )
    assert client.set(max_rate=0.0, max_age=1.0).successful
    # stamped years ago
    client.until(
        lambda: (
            camera.publish(image_message(picture(), next(stamps)))
            or client.spin(0.2)
            or 'frames are too late' in client.status('camera')[1]
        ),
        'a word about the age',
    )
    assert dropped('too_old') > 0
    assert client.set(max_age=0.0).successful
    client.exchange(camera, image_message(picture(), next(stamps)), f'{OUT}/labels')


def bad_frames() -> dict[str, tuple[dict[str, Any], str]]:
    return {
        'unknown encoding': ({'encoding': '64FC3'}, "encoding '64FC3' is not supported; publish"),
        'short step': ({'step': 100}, 'step is 100 bytes, but a row of 80 rgb8 pixels has 240'),
        'short data': ({'data': bytes(99)}, 'data holds 99 bytes, but 60 rows of step 240'),
        'long data': ({'data': bytes(14401)}, 'data holds 14401 bytes'),
        'no data': ({'data': b''}, 'data holds 0 bytes'),
        'zero size': ({'width': 0}, 'the image is 0×60 pixels'),
        'odd size': ({'encoding': 'nv12', 'width': 79}, 'nv12 shares its colour between two'),
    }


def test_bad_frames_are_told_and_the_next_good_one_is_served(
    client: Client, node: NodeProcess, camera: Any, stamps: Iterator[int]
) -> None:
    client.listen(f'{OUT}/labels')
    client.heard(f'{OUT}/labels')
    said = node.text.count('could not be read')
    for fields, words in bad_frames().values():
        bad = image_message(picture(60, 80), next(stamps))
        for name, value in fields.items():
            if name == 'data':
                del bad.data[:]
                bad.data.frombytes(value)
            else:
                setattr(bad, name, value)
        camera.publish(bad)

        def told(bad: Any = bad, words: str = words) -> bool:
            found = client.status('camera')
            if found and words in found[1]:
                return True
            camera.publish(stamp(bad, next(stamps)))
            client.spin(0.2)
            return False

        client.until(told, words)
        good = image_message(picture(60, 80), next(stamps))
        client.exchange(camera, good, f'{OUT}/labels')
        assert client.of_stamp(f'{OUT}/labels', bad.header.stamp) is None
    # the first is logged, the rest within ten seconds is not
    assert 1 <= node.text.count('could not be read') - said <= 4

    def recovered() -> bool:
        camera.publish(image_message(picture(60, 80), next(stamps)))
        client.spin(0.2)
        found = client.status('camera')
        return bool(found and found[0] == 'OK')

    client.until(recovered, 'a camera that is well again')


def test_a_change_of_size_is_counted_and_served(
    client: Client, camera: Any, stamps: Iterator[int]
) -> None:
    client.listen(f'{OUT}/labels')
    client.heard(f'{OUT}/labels')
    client.exchange(camera, image_message(picture(60, 80), next(stamps)), f'{OUT}/labels')
    before = int(client.status('camera')[2]['size_changes'])
    for height, width in ((61, 83), (1, 1), (300, 20), (60, 80)):
        message = image_message(picture(height, width), next(stamps))
        labels = client.exchange(camera, message, f'{OUT}/labels')
        assert (labels.height, labels.width) == (height, width)
    client.until(
        lambda: int(client.status('camera')[2]['size_changes']) == before + 4, 'four changes'
    )


def test_stamps_out_of_order_are_dropped_and_a_jump_back_starts_over(
    client: Client, camera: Any, stamps: Iterator[int]
) -> None:
    client.listen(f'{OUT}/labels')
    client.listen(f'{OUT}/status', DiagnosticArray)
    client.heard(f'{OUT}/labels', f'{OUT}/status')

    def counters() -> dict[str, str]:
        return client.until(lambda: client.status('camera'), 'status')[2]

    def send(at: int) -> None:
        camera.publish(image_message(picture(), at))

    now = next(stamps)
    client.exchange(camera, image_message(picture(), now), f'{OUT}/labels')
    before = counters()
    for name, at in (('out_of_order', now - SECOND // 2), ('duplicate_stamp', now)):
        send(at)
        client.until(
            lambda n=name: int(counters()[f'dropped.{n}']) > int(before[f'dropped.{n}']), name
        )
    assert (
        client.of_stamp(f'{OUT}/labels', image_message(picture(), now - SECOND // 2).header.stamp)
        is None
    )

    jumps = int(before['time_jumps'])
    again = image_message(picture(), now - 100 * SECOND)
    status = client.exchange(camera, again, f'{OUT}/status')
    assert 'time went back' in values_of(status)['reason']
    client.until(lambda: int(counters()['time_jumps']) > jumps, 'the jump')


def test_frames_without_a_stamp_are_served_with_a_warning(
    client: Client, camera: Any, stamps: Iterator[int]
) -> None:
    client.listen(f'{OUT}/labels')
    client.heard(f'{OUT}/labels')

    def told() -> bool:
        camera.publish(image_message(picture(), 0))
        client.spin(0.2)
        found = client.status('camera')
        return bool(client.got[f'{OUT}/labels'] and found and 'carry no stamp' in found[1])

    client.until(told, 'a warning')
    assert client.got[f'{OUT}/labels'][-1].header == image_message(picture(), 0).header
    client.exchange(camera, image_message(picture(), next(stamps)), f'{OUT}/labels')


def test_a_camera_that_cannot_see_is_told_and_its_masks_still_come(
    client: Client, camera: Any, stamps: Iterator[int]
) -> None:
    client.listen(f'{OUT}/labels')
    client.listen(f'{OUT}/status', DiagnosticArray)
    client.heard(f'{OUT}/labels', f'{OUT}/status')

    def warned(wanted: bool) -> bool:
        message = image_message(picture(seed=2), next(stamps))
        values = values_of(client.exchange(camera, message, f'{OUT}/status'))
        assert float(values['reliability']) == pytest.approx(0.8, abs=2e-3)
        assert client.of_stamp(f'{OUT}/labels', message.header.stamp)
        found = client.status('camera')
        return bool(found and ('cannot see' in found[1]) == wanted and 'reliability' in found[2])

    assert client.set(min_reliability=1.0).successful
    try:
        client.until(lambda: warned(True), 'a warning')
    finally:
        assert client.set(min_reliability=0.0).successful
    client.until(lambda: warned(False), 'the end of it')


def test_outputs_are_reliable_and_volatile_unless_overridden(client: Client) -> None:
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


def test_late_joiners_learn_what_the_ids_mean(client: Client) -> None:
    client.listen(f'{OUT}/label_info_json', String, latched=True)
    (message,) = client.until(lambda: client.got[f'{OUT}/label_info_json'], 'label_info_json')
    content = json.loads(message.data)
    assert (content['taxonomy'], content['unlabelled']) == (CAMVID11.name, 255)
    assert [item['id'] for item in content['classes']] == list(range(11))
    assert [item['name'] for item in content['classes']] == list(CAMVID11.classes)
    assert [tuple(item['color']) for item in content['classes']] == list(CAMVID11.colors)


def test_late_joiners_get_label_info_where_vision_msgs_is(client: Client) -> None:
    vision = pytest.importorskip('vision_msgs.msg', reason='vision_msgs has no wheel')
    client.listen(f'{OUT}/label_info', vision.LabelInfo, latched=True)
    (message,) = client.until(lambda: client.got[f'{OUT}/label_info'], 'label_info')
    names = {item.class_id: item.class_name for item in message.class_map}
    assert names == dict(enumerate(CAMVID11.classes))


def test_calibration_travels_with_the_labels(
    client: Client, camera: Any, stamps: Iterator[int]
) -> None:
    info = CameraInfo(height=60, width=80, distortion_model='plumb_bob', d=[0.1] * 5)
    info.k = [50.0, 0.0, 40.0, 0.0, 51.0, 30.0, 0.0, 0.0, 1.0]
    publisher = client.publisher('camera/camera_info', CameraInfo)
    client.connect(publisher)
    client.listen(f'{OUT}/camera_info', CameraInfo)
    client.listen(f'{OUT}/labels')
    client.heard(f'{OUT}/camera_info')

    def passed_on() -> bool:
        publisher.publish(stamp(info, next(stamps)))
        client.spin(0.1)
        camera.publish(image_message(picture(60, 80), next(stamps), frame_id='front'))
        client.spin(0.1)
        return bool(client.got[f'{OUT}/camera_info'])

    client.until(passed_on, 'camera_info')
    got = client.got[f'{OUT}/camera_info'][0]
    assert got.header.frame_id == 'front'
    assert (got.height, got.width, list(got.d)) == (60, 80, [0.1] * 5)
    assert list(got.k) == list(info.k)
    client.until(lambda: client.of_stamp(f'{OUT}/labels', got.header.stamp), 'its labels')

    # one that is for other images would be worse than none
    def refused() -> bool:
        camera.publish(image_message(picture(30, 80), next(stamps)))
        client.spin(0.2)
        return (
            'camera_info is for 80×60 pixels, the images have 80×30' in client.status('camera')[1]
        )

    client.until(refused, 'a word about the size')
    client.node.destroy_publisher(publisher)


def test_a_subscriber_that_never_reads_stalls_nobody(
    client: Client, camera: Any, stamps: Iterator[int], tmp_path: Path
) -> None:
    client.listen(f'{OUT}/labels')
    client.heard(f'{OUT}/labels')
    with idle_subscriber(f'{OUT}/labels', tmp_path / 'idle'):
        for _ in range(30):
            message = image_message(picture(240, 320), next(stamps))
            client.exchange(camera, message, f'{OUT}/labels')


def test_nothing_is_lost_at_720p_and_10_hz(
    client: Client, camera: Any, stamps: Iterator[int]
) -> None:
    client.listen(f'{OUT}/labels')
    client.heard(f'{OUT}/labels')
    image = picture(720, 1280)
    client.exchange(camera, image_message(image, next(stamps)), f'{OUT}/labels')
    lost = 30
    # a machine that is busy with something else may stop the world for a tenth of a second
    for _ in range(4):
        messages = [image_message(image, next(stamps)) for _ in range(30)]
        for message in messages:
            due = time.monotonic() + 0.1
            camera.publish(message)
            client.spin(max(due - time.monotonic(), 0))
        client.spin(2.0)
        answered = [client.of_stamp(f'{OUT}/labels', m.header.stamp) for m in messages]
        lost = min(lost, answered.count(None))
        if not lost:
            break
    assert not lost


def test_a_camera_that_stops_is_an_error_within_two_seconds_and_clears(
    client: Client, camera: Any, stamps: Iterator[int]
) -> None:
    client.listen(f'{OUT}/labels')
    client.heard(f'{OUT}/labels')

    def well() -> bool:
        camera.publish(image_message(picture(), next(stamps)))
        client.spin(0.1)
        return client.status('camera')[0] == 'OK'

    client.until(well, 'a camera that is well')
    client.diagnosed('camera', 'ERROR', 'the camera has stopped')
    (first,) = [
        float(status.message.split()[3])
        for array in client.got['/diagnostics']
        for status in array.status
        if status.name.endswith(': camera') and 'the camera has stopped' in status.message
    ][-1:]
    # a second of slack for a busy machine
    assert first < 3.0
    client.until(well, 'a camera that is well again')


def test_the_node_says_what_it_runs_on(client: Client) -> None:
    values = client.diagnosed('node', 'OK', 'active')
    assert (values['backend'], values['device'], values['state']) == ('torch', 'cpu', 'active')
    assert values['weights.day'].startswith('day.safetensors sha256 ')
    assert float(values['memory_mb']) > 50
    values = client.until(lambda: client.status('camera'), 'the camera')[2]
    assert 0 < float(values['latency_ms.p50']) <= float(values['latency_ms.p99'])
