# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""One camera through the real node: masks, stamps, routes, parameters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_weights
from diagnostic_msgs.msg import DiagnosticArray
from ros_harness import (
    Client,
    NodeProcess,
    image_message,
    picture,
    pixels_of,
    running,
    stamp_ns,
    values_of,
)
from std_msgs.msg import Float32

from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.pipeline import Pipeline, PipelineConfig, Want, WeightsConfig

pytestmark = pytest.mark.ros

SECOND = 1_000_000_000
OUT = 'camera/nightseg'


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    files = tiny_weights.write_all(tmp_path_factory.mktemp('weights'))
    return {name: str(path) for name, path in files.items()}


@pytest.fixture(scope='module')
def node(
    weights: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeProcess]:
    log = tmp_path_factory.mktemp('node') / 'log.txt'
    with running(log, {**weights, 'backend': 'torch', 'threads': 1}) as process:
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
