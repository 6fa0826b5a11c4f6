# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Replay and record as real processes: in lockstep, live labels are the offline ones."""

from __future__ import annotations

from contextlib import AbstractContextManager
import itertools
import json
from pathlib import Path
import signal
import socket
import subprocess
import sys
import threading
import time

from nightseg_ros.bags.reader import BagReader
from nightseg_ros.bags.storage import Channel
from nightseg_ros.bags.writer import BagWriter, reliable_qos
from nightseg_ros.data.source import open_source, STAMP_OFFSET
from nightseg_ros.perception.frame import Frame
import numpy as np
import pytest
from rclpy.qos import ReliabilityPolicy
from ros_harness import (
    ended,
    image_message,
    offline,
    PATIENCE,
    picture,
    pixels_of,
    Process,
    running,
    stamp,
    stamp_ns,
    tiny_parameters,
)
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String
from test_video import be_camera
from tiny_data import imwrite
from video_samples import packets

pytestmark = [pytest.mark.ros, pytest.mark.slow]

START = 1_700_000_000_000_000_000
SECOND = 1_000_000_000


def verb(log: Path, *arguments: str) -> AbstractContextManager[Process]:
    """Run ``nightseg`` with arguments."""
    return ended(Process(log, '-m', 'nightseg_ros.cli.main', *arguments))


def drive(path: Path) -> Path:
    """Write a camera that drives into the dark, one frame a second."""
    with BagWriter(path) as bag:
        for index in range(7):
            image = picture(96, 160, index, night=index > 2)
            frame = Frame(image=image, stamp_ns=START + index * SECOND, frame_id='optical')
            bag.write_frame('/front/image_raw', frame)
    return path


def test_labels_in_lockstep_are_the_offline_ones_byte_for_byte(tmp_path):
    bag, weights = drive(tmp_path / 'drive'), tiny_parameters(tmp_path)
    node = {**weights, 'image_topics': ['/front/image_raw']}
    recorded = tmp_path / 'recorded'
    record = ['--outputs', 'labels', 'status', 'label_info_json', '--reliable']
    with running(tmp_path / 'node.log', node) as process:
        process.until('active; waiting')
        with verb(tmp_path / 'record.log', 'record', str(recorded), *record) as recorder:
            recorder.until('recording /front/nightseg')
            play = ['replay', str(bag), '--lockstep', '--clock']
            with verb(tmp_path / 'replay.log', *play) as player:
                assert player.process.wait(2 * PATIENCE) == 0, player.text
            assert recorder.stop() == 0, recorder.text

    pipeline = offline(weights)
    wanted, routes = {}, []
    for _, frame in open_source(bag):
        assert isinstance(frame, Frame)
        [result] = pipeline.process([frame])
        wanted[frame.stamp_ns] = result.labels
        routes.append(result.decision.route)
    assert set(routes) == {'day', 'night'}, 'a drive on one route would prove little'
    assert all(len(np.unique(labels)) > 2 for labels in wanted.values())

    with BagReader(recorded) as reader:
        topics = {topic.name: topic for topic in reader.topics}
        live = list(reader.messages(topics['/front/nightseg/labels']))
        assert [message.stamp_ns for message in live] == sorted(wanted)
        for message in live:
            image = reader.read(message)
            assert bytes(image.data) == wanted[message.stamp_ns].tobytes()
            assert (image.encoding, image.header.frame_id) == ('mono8', 'optical')
        statuses = [reader.read(m) for m in reader.messages(topics['/front/nightseg/status'])]
        said = [{v.key: v.value for v in array.status[0].values} for array in statuses]
        assert [values['route'] for values in said] == routes
        # published before the recorder was there, and latched
        assert topics['/front/nightseg/label_info_json'].count == 1
        assert reader.latched_topics == {'/front/nightseg/label_info_json'}


def test_a_folder_is_replayed_with_stamps_and_a_clock(client, tmp_path):
    folder = tmp_path / 'in'
    for index in range(4):
        imwrite(folder / f'{index}.png', np.full((8, 12, 3), 10 * index, np.uint8))
    (folder / '2.png').write_bytes(b'torn')
    client.listen('camera/image_raw', Image)
    client.listen('/clock', Clock)
    flags = ['--fps', '10', '--rate', '0.5', '--clock', '--reliable', '--wait-subscribers', '1']
    with verb(tmp_path / 'log', 'replay', str(folder), *flags) as player:
        client.until(lambda: len(client.got['camera/image_raw']) >= 3, 'three images')
        client.spin(0.5)
        assert player.process.wait(PATIENCE) == 1, 'a torn picture is worth an exit code'
    images = client.got['camera/image_raw']
    assert [stamp_ns(m) - STAMP_OFFSET for m in images] == [0, SECOND // 10, 3 * SECOND // 10]
    for message, index in zip(images, (0, 1, 3)):
        assert message.encoding == 'bgr8' and set(message.data) == {10 * index}
    clocks = [m.clock.sec * SECOND + m.clock.nanosec for m in client.got['/clock']]
    assert clocks == sorted(clocks) and len(clocks) > 2
    assert all(0 <= c - STAMP_OFFSET <= 3 * SECOND // 10 for c in clocks)
    assert '2 skipped' in player.text


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_replay_says_so_and_whether_it_lost_something(client, tmp_path, number):
    folder = tmp_path / 'in'
    for index in range(3):
        imwrite(folder / f'{index}.png', np.zeros((8, 12, 3), np.uint8))
    flags = ['replay', str(folder), '--fps', '0.05']
    with verb(tmp_path / 'waiting', *flags, '--wait-subscribers', '1') as player:
        client.until(lambda: client.node.count_publishers('/camera/image_raw'), 'the player')
        assert player.stop(number) == 0 and 'bag_player: interrupted' in player.text
    (folder / '0.png').write_bytes(b'torn')
    with verb(tmp_path / 'playing', *flags) as player:
        player.until('lost: ')
        assert player.stop(number) == 1 and 'bag_player: interrupted' in player.text
    assert '1 problems' in player.text


def test_a_live_stream_has_no_other_pace_and_an_end(tmp_path):
    log = tmp_path / 'log.jsonl'
    with socket.create_server(('127.0.0.1', 0)) as server:
        packed = packets('libx264', 24)[2:]
        threading.Thread(target=be_camera, args=(server, packed), daemon=True).start()
        url = f'rtsp://127.0.0.1:{server.getsockname()[1]}//front/'
        flags = ['--log', str(log)]
        with verb(tmp_path / 'text', 'replay', url, *flags) as player:
            assert player.process.wait(PATIENCE) == 0, player.text
        server.shutdown(socket.SHUT_RDWR)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    stamps, sent = (np.array([event[key] for event in events]) for key in ('stamp', 'sent'))
    # all came at once, as what waits while a camera is probed (1.8 s if paced); none has a stamp
    # ahead of it
    assert len(events) == 19 and np.ptp(sent) < 1.4e9
    assert (np.diff(stamps) > 0).all()
    assert (stamps <= sent + time.time_ns() - time.monotonic_ns() + 1e7).all()


@pytest.mark.parametrize('count', [3, 1])
def test_a_loop_ends_after_its_seconds(tmp_path, count):
    folder, log = tmp_path / 'in', tmp_path / 'log.jsonl'
    for index in range(count):
        imwrite(folder / f'{index}.png', np.zeros((8, 12, 3), np.uint8))
    flags = ['--fps', '20', '--loop', '--seconds', '0.25', '--log', str(log)]
    with verb(tmp_path / 'text', 'replay', str(folder), *flags) as player:
        assert player.process.wait(PATIENCE) == 0, player.text
    stamps = [json.loads(line)['stamp'] for line in log.read_text().splitlines()]
    passed = [(stamp - stamps[0]) // 1_000_000 for stamp in stamps]
    assert passed == [0, 50, 100, 0, 50, 100, 0] if count > 1 else not any(passed)


def test_everything_is_replayed_as_it_was_offered(client, tmp_path):
    names, masks = '/front/nightseg/label_info_json', '/front/nightseg/labels'
    with BagWriter(tmp_path / 'bag') as bag:
        qos = reliable_qos(latched=True)
        bag.add_topic(Channel(topic=names, msgtype='std_msgs/msg/String', qos=(qos,)))
        bag.write_value(names, 'ids', START)
        bag.add_topic(Channel(topic='/clear/_service_event', msgtype='std_srvs/srv/Empty_Event'))
        for index in range(3):
            stamp = START + index * SECOND // 10
            labels = np.full((6, 9), index, np.uint8)
            bag.write_labels(masks, labels, stamp_ns=stamp)
            frame = Frame(image=np.stack([labels] * 3, 2), stamp_ns=stamp)
            bag.write_frame('/front/image_raw', frame)
    client.listen(masks, Image)
    client.listen(names, String, latched=True)
    client.listen('/front/image_raw', Image, reliable=False)
    flags = ['--all', '--wait-subscribers', '1']
    with verb(tmp_path / 'log', 'replay', str(tmp_path / 'bag'), *flags) as player:
        client.until(lambda: len(client.got[masks]) == 3, 'labels')
        client.spin(0.5)
        assert player.process.wait(PATIENCE) == 0
    assert 'not played: /clear/_service_event' in player.text
    assert [m.data for m in client.got[names]] == ['ids']
    assert [pixels_of(m).max() for m in client.got[masks]] == [0, 1, 2]
    assert len(client.got['/front/image_raw']) == 3


def test_what_was_published_once_is_recorded_and_what_is_published_always(client, tmp_path):
    log, packed = tmp_path / 'log.jsonl', 'cam/image_compressed'
    topics = {'once/image_raw': True, 'always/image_raw': False, packed: False}
    once, always, jpeg = (
        client.publisher(t, CompressedImage if t == packed else Image, latched=latched)
        for t, latched in topics.items()
    )
    once.publish(image_message(np.zeros((6, 9, 3), np.uint8), START))
    # what is named twice is written once, and a name does not make a type
    other = client.publisher('other/image_raw', String)
    other.publish(String(data='x'))
    flags = ['--images', *topics, *topics, 'other/image_raw', '--log', str(log)]
    # as a script's `&` starts it
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    recording = verb(tmp_path / 'text', 'record', str(tmp_path / 'bag'), *flags)
    signal.signal(signal.SIGINT, handler)
    with recording as recorder:
        recorder.until('recording')
        client.feed(
            lambda: (
                always.publish(image_message(np.ones((6, 9, 3), np.uint8), START)),
                jpeg.publish(stamp(CompressedImage(format='jpeg'), START)),
            ),
            lambda: all(f'/{topic}"' in log.read_text() for topic in topics),
            'all topics',
        )  # fmt: skip
        # a message that is cut off is no reason to lose a drive
        always.publish(bytes([0, 1, 0, 0]))
        client.spin(0.5)
        assert recorder.stop() == 0, recorder.text
    assert 'other/image_raw: it is std_msgs/String, which was not asked for' in recorder.text
    with BagReader(tmp_path / 'bag') as reader:
        counts = {topic.name.strip('/'): topic.count for topic in reader.image_topics}
    assert counts['once/image_raw'] == 1 and counts['always/image_raw'] >= 1 <= counts[packed]


def test_what_a_recorder_did_not_get_is_told(client, tmp_path):
    log, camera = tmp_path / 'log.jsonl', client.publisher('front/image_raw')
    stamps = itertools.count(START, 1_000_000)

    def publish() -> int:
        camera.publish(image_message(np.zeros((6, 9, 3), np.uint8), stamp := next(stamps)))
        return stamp

    def arrived() -> list[int]:
        events = map(json.loads, log.read_text().splitlines())
        return [event['stamp'] for event in events if event['topic'] == '/front/image_raw']

    def settled() -> bool:
        found = client.node.get_subscriptions_info_by_topic('/front/image_raw')
        return [one.qos_profile.reliability for one in found] == [ReliabilityPolicy.RELIABLE]

    flags = ['--images', 'front/image_raw', '--log', str(log)]
    with verb(tmp_path / 'text', 'record', str(tmp_path / 'bag'), *flags) as recorder:
        recorder.until('recording')
        client.until(settled, 'a reliable subscription')
        client.feed(publish, lambda: len(arrived()) > 1, 'two pictures')
        recorder.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(500):
                last = publish()
        finally:
            recorder.process.send_signal(signal.SIGCONT)
        client.until(lambda: last in arrived(), 'the last one')
        # the terminal was closed
        assert recorder.stop(signal.SIGHUP) == 0, recorder.text
    sent, received = (last - arrived()[0]) // 1_000_000 + 1, len(arrived())
    text = f'front/image_raw: {sent - received} messages were published and did not arrive'
    assert text in recorder.text and sent > received > 1


def test_a_recording_outlives_the_reader_of_its_output(tmp_path):
    command = [sys.executable, '-m', 'nightseg_ros.cli.main', 'record', str(tmp_path / 'bag')]
    # as in `nightseg record drive | tee log`, whose Ctrl-C ends tee first
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT}
    with subprocess.Popen(command, **pipes, text=True) as recorder:
        try:
            assert any('recording' in line for line in iter(recorder.stdout.readline, ''))
            recorder.stdout.close()
            recorder.send_signal(signal.SIGINT)
            assert recorder.wait(PATIENCE) == 0
        finally:
            recorder.kill()
    with BagReader(tmp_path / 'bag') as reader:
        assert not reader.read_errors()


def test_lockstep_without_a_node_says_what_is_missing(tmp_path):
    bag = drive(tmp_path / 'drive')
    flags = ['--lockstep', '--patience', '1']
    with verb(tmp_path / 'log', 'replay', str(bag), *flags) as player:
        assert player.process.wait(PATIENCE) == 2
    assert "nobody publishes ['/front/nightseg/labels']" in player.text
