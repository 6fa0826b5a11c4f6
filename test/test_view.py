# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The live page through real processes and a real browser, and `nightseg run`, which brings it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
from importlib.util import find_spec
import json
import os
from pathlib import Path
import re
import signal
import socket
import sys
import threading
from typing import Any
from unittest.mock import MagicMock
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import av
from cloud_harness import cloud_message
from cloud_samples import cloud, FLOAT32
import cv2
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from headless_browser import Browser, find_browser
from nightseg_ros.bags.writer import BagWriter
from nightseg_ros.cli.main import main
from nightseg_ros.dds import private_domain
from nightseg_ros.node.view_rerun import RerunLog
from nightseg_ros.node.view_server import PageServer
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.result import legend
from nightseg_ros.perception.video import VideoWriter
from nightseg_ros.taxonomy import CAMVID11
import numpy as np
import pytest
from ros_harness import Client, ended, image_message, Process
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import String
from test_telemetry import family
from tiny_weights import weight_flags

pytestmark = pytest.mark.ros
CAMERAS = ('front', 'rear')
SIZE = (90, 160)


class Page(Process):
    """``nightseg view`` in a process of its own."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.summary = folder / 'new' / 'summary.json'
        # a launch file adds the last one
        flags = (*flags, '--summary', str(self.summary), '--ros-args')
        super().__init__(folder / 'view.txt', '-m', 'nightseg_ros.cli.main', 'view', *flags)

    @property
    def url(self) -> str:
        self.until('view: http')
        return re.search(r'view: (http://\S+)/', self.text)[1]

    def get(self, path: str, **headers: str) -> tuple[int, Any, bytes]:
        return get(self.url + path, **headers)

    def events(self) -> socket.socket:
        """Return a connection that has asked for events and reads none."""
        host, port = self.url.removeprefix('http://').split(':')
        connection = socket.create_connection((host, int(port)), timeout=30)
        connection.sendall(f'GET /events HTTP/1.1\r\nHost: {host}\r\n\r\n'.encode())
        return connection


def get(url: str, **headers: str) -> tuple[int, Any, bytes]:
    try:
        with urlopen(Request(url, headers=headers), timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except HTTPError as error:
        return error.code, error.headers, b''


@pytest.fixture(scope='module', autouse=True)
def domain():
    # one whose ports no process of an earlier test has held, killed or not
    with private_domain() as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope='module')
def page(tmp_path_factory, domain):
    with ended(Page(tmp_path_factory.mktemp('page'))) as page:
        yield page
        assert page.stop() == 0, page.text


class Vehicle:
    """Publishes what a node with two cameras does."""

    def __init__(self, client: Client) -> None:
        self.client, self.count = client, 0
        self.images = {camera: f'/car/{camera}/image_raw' for camera in CAMERAS}
        self.outputs: dict[str, dict[str, Any]] = {}
        for camera in CAMERAS:
            out = f'/car/{camera}/nightseg'
            names = client.publisher(f'{out}/label_info_json', String, latched=True)
            names.publish(String(data=legend(CAMVID11)))
            self.outputs[camera] = {
                'image': client.publisher(f'/car/{camera}/image_raw', reliable=False),
                'labels': client.publisher(f'{out}/labels'),
                'overlay': client.publisher(f'{out}/overlay'),
                'status': client.publisher(f'{out}/status', DiagnosticArray),
                'names': names,
            }
        self.diagnostics = client.publisher('/diagnostics', DiagnosticArray)

    def publish(self, score: float = 0.25) -> None:
        """Publish a frame of each camera: grey, its overlay in the colour of the road."""
        self.count += 1
        stamp = next(self.client.stamps)
        now = np.full((*SIZE, 3), 90, np.uint8)
        road = np.full((*SIZE, 3), CAMVID11.colors[CAMVID11.id_of('road')], np.uint8)
        told = [_status('car/night_perception: node', 'car/night_perception', state='active')]
        for camera, outputs in self.outputs.items():
            outputs['image'].publish(image_message(now, stamp))
            outputs['labels'].publish(image_message(now[..., 0], stamp, encoding='mono8'))
            outputs['overlay'].publish(image_message(road, stamp))
            status = _status(
                f'nightseg: {camera}', camera, score=f'{score}', state='night', route='night',
                reason='night since 4.0 s', switched='false', reliability='0.912',
                **{'latency_ms.total': '31.5'},
            )  # fmt: skip
            outputs['status'].publish(DiagnosticArray(status=[status]))
            told.append(_status(
                f'car/night_perception: {camera}', self.images[camera], input_hz='10.000',
                output_hz='9.900', received=str(self.count + 2), served=str(self.count),
                **{'dropped.superseded': '2', 'dropped.failed': '0', 'latency_ms.p95': '41.0'},
            ))  # fmt: skip
            # of a depth camera, which has the name of a camera
            depth = f'/car/{camera}/depth/image_raw'
            told.append(_status(f'car/semantic_cloud: {camera}', depth, received='9'))
        self.diagnostics.publish(DiagnosticArray(status=told))
        self.client.spin(0.1)

    def until(self, met: Callable[[], Any], what: str) -> Any:
        """Publish until it is so."""

        def fed() -> Any:
            self.publish()
            return met()

        return self.client.until(fed, what)


def _status(name: str, hardware: str, **values: str) -> DiagnosticStatus:
    found = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(
        name=name, hardware_id=hardware, level=b'\x00', message='all is well', values=found
    )


@pytest.fixture
def vehicle(client):
    return Vehicle(client)


def test_it_listens_to_this_machine_and_answers_its_own_page_alone(page):
    port = int(page.url.rpartition(':')[2])
    lines = [line.split() for line in Path('/proc/net/tcp').read_text().splitlines()[1:]]
    listening = {line[1] for line in lines if line[3] == '0A'}
    assert f'0100007F:{port:04X}' in listening and f'00000000:{port:04X}' not in listening
    assert page.get('/')[0] == 200
    assert "default-src 'none'" in page.get('/')[1]['Content-Security-Policy']
    for headers in ({'Host': 'evil.example'}, {'Sec-Fetch-Site': 'cross-site'}):
        assert page.get('/', **headers)[0] == page.get('/events', **headers)[0] == 403
    for path in ('/etc/passwd', '/picture/7/camera', '/picture/0/labels', '/../view.py'):
        assert page.get(path)[0] == 404


def test_a_host_is_known_by_its_name_in_lower_case_and_no_dns_is_asked(monkeypatch):
    monkeypatch.setattr(socket, 'getfqdn', None)
    with PageServer('127.0.0.1', 0) as server:
        server.host = 'MyVehicle'
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}/'
        assert [get(url, Host=name)[0] for name in ('myvehicle', 'another')] == [200, 403]
        server.shutdown()


def test_a_picture_is_computed_only_while_somebody_looks(page, vehicle):
    overlay = vehicle.outputs['front']['overlay']
    # a topic that is only read is no camera
    vehicle.client.listen('/ghost/nightseg/status', DiagnosticArray)
    vehicle.until(lambda: page.get('/picture/1/overlay')[0] != 404, 'the cameras')
    assert {c['name'] for c in _cameras(page)} == {'/car/front', '/car/rear'}
    # what is none of the node's is left out
    for text in ('{', '[' * 100_000, '{"classes": [{"id": Infinity}]}'):
        vehicle.outputs['rear']['names'].publish(String(data=text))
        vehicle.client.spin(0.2)
    vehicle.outputs['rear']['status'].publish(DiagnosticArray())
    number = _number(page, '/car/front')
    found = f'/picture/{number}/overlay'
    vehicle.client.until(lambda: overlay.get_subscription_count() == 0, 'that nobody looks')
    status, headers, content = vehicle.until(
        lambda: (answer := page.get(found))[0] == 200 and answer, 'a picture'
    )
    assert overlay.get_subscription_count() == 1
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape == (*SIZE, 3)
    assert 0 <= float(headers['X-Age']) < 30 and headers['Cache-Control'] == 'no-store'
    # the same one is not sent twice, a later one at once
    last = vehicle.client.until(
        lambda: page.get(f'{found}?after={(n := int(page.get(found)[1]["X-Number"]))}')[0] == 204
        and n, 'the same one',
    )  # fmt: skip
    vehicle.until(lambda: page.get(f'{found}?after={last}')[0] == 200, 'the next picture')
    vehicle.client.until(lambda: overlay.get_subscription_count() == 0, 'that nobody looks')


def test_a_camera_of_video_is_named_instead_of_waited_for(page, vehicle):
    vehicle.images['rear'] = topic = '/car/rear/image_raw/ffmpeg'
    vehicle.client.publisher(topic, String)

    def told() -> str:
        rear = next((c for c in _cameras(page) if c['name'] == '/car/rear'), None)
        return rear['pictures']['camera']['problem'] if rear else ''

    vehicle.until(lambda: told() == f'{topic} is not shown here; see the overlay', 'the reason')
    vehicle.images['rear'] = '/car/rear/image_raw'
    vehicle.until(
        lambda: page.get(f'/picture/{_number(page, "/car/rear")}/camera')[0] == 200, 'the camera'
    )


def _cameras(page: Page) -> list[dict[str, Any]]:
    with page.events() as connection:
        text = connection.makefile().readline
        line = next(line for line in iter(text, '') if line.startswith('data: '))
    return json.loads(line[6:])['cameras']


def _number(page: Page, name: str) -> int:
    return next(c['id'] for c in _cameras(page) if c['name'] == name)


def test_slow_and_gone_clients_hold_nobody_up(page, vehicle):
    vehicle.until(lambda: page.get('/picture/0/camera')[0] == 200, 'a picture')
    with contextlib.ExitStack() as stack:

        def opened() -> bool:
            # that a page of before is gone is noticed when its next event is sent
            connection = stack.enter_context(page.events())
            return b'200' in connection.recv(12)

        for _ in range(8):
            vehicle.until(opened, 'a place for a page')
        assert page.get('/events')[0] == 503
        # connections that say nothing take the other places, but one
        host, port = page.url.removeprefix('http://').split(':')
        for _ in range(54):
            stack.enter_context(socket.create_connection((host, int(port))))
        vehicle.until(lambda: page.get('/picture/0/camera')[0] == 200, 'a picture')
    with vehicle.client.until(lambda: _granted(page), 'that places are free again') as connection:
        assert b'event-stream' in connection.recv(4096)


def _granted(page: Page) -> socket.socket | None:
    connection = page.events()
    if b'200' in connection.recv(12):
        return connection
    connection.close()
    return None


@pytest.mark.slow
@pytest.mark.skipif(find_browser() is None, reason='no Chromium is installed')
def test_a_browser_shows_every_camera_and_tells_what_is_stale(page, vehicle):
    with Browser(find_browser()) as browser:
        for width, mode, shown in ((1280, 'both', 4), (390, 'overlay', 2)):
            browser.show(page.url, width=width)
            live = "document.querySelectorAll('figure:not([hidden]):not(.stale) .over:empty')"
            check = f'{live}.length === {shown}'
            vehicle.until(lambda c=check: browser.evaluate(c), f'{shown} pictures')
            pressed = "document.querySelector('[aria-pressed=true]').dataset.mode"
            assert browser.evaluate(pressed) == mode
            # the overlay's pixels are those that were published
            centre = """(() => {
                const c = document.querySelector('[data-kind=overlay] canvas');
                const at = c.getContext('2d').getImageData(c.width / 2, c.height / 2, 1, 1);
                return [...at.data]
            })()"""
            road = CAMVID11.colors[CAMVID11.id_of('road')]
            vehicle.until(
                lambda c=centre, r=road: (
                    np.abs(np.subtract(browser.evaluate(c)[:3], r)).max() <= 3
                ),
                'the overlay',
            )
            text = browser.evaluate('document.body.innerText')
            for words in ('/car/front', '/car/rear', 'night since 4.0 s', 'all is well', '0.25',
                          '0.91', '9.9 Hz', '41 ms', 'active', *CAMVID11.classes):  # fmt: skip
                assert words in text, (words, text)
            colours = "[...document.querySelectorAll('#legend i')].map(i => i.style.background)"
            wanted = [f'rgb({r}, {g}, {b})' for r, g, b in CAMVID11.colors]
            assert browser.evaluate(colours) == wanted
            assert browser.evaluate('document.documentElement.scrollWidth') <= width
        # nothing but its own server was asked, nothing went wrong
        assert all(url.startswith((page.url, 'data:')) for url in browser.requests)
        assert not browser.complaints and not browser.blocked
        # the last picture of a camera that has stopped does not look live
        stale = "document.querySelectorAll('figure.stale:not([hidden])').length"
        vehicle.client.until(lambda: browser.evaluate(stale) == 2, 'stale pictures')
        assert 'STALE' in browser.evaluate('document.body.innerText')
        vehicle.until(lambda: browser.evaluate(stale) == 0, 'pictures that are live again')
        # a picture of another view on this port is not drawn, also where no event has told of it
        browser.evaluate("server = 'the one before'; JSON.parse = () => { throw 0 }")
        again = "document.readyState === 'complete' && server !== 'the one before'"
        vehicle.until(lambda: browser.evaluate(again), 'that the page is loaded again')
        vehicle.until(lambda: browser.evaluate(f'{live}.length') == 2, 'pictures of the new page')
        page.process.send_signal(signal.SIGSTOP)
        lost = "document.querySelector('#link').innerText.startsWith('no connection')"
        vehicle.until(lambda: browser.evaluate(lost), 'that the view is gone')
        vehicle.until(lambda: browser.evaluate(stale) == 2, 'stale pictures of a dead view')
        page.process.send_signal(signal.SIGCONT)
        vehicle.until(lambda: not browser.evaluate(lost), 'that the view is back')
        # one page too many waits for its turn
        browser.show('about:blank', width=390)
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                place = vehicle.client.until(lambda: _granted(page), 'a place')
                stack.enter_context(place)
            browser.show(page.url, width=390)
            vehicle.client.until(lambda: browser.evaluate(lost), 'that there is no place')
        vehicle.until(lambda: not browser.evaluate(lost), 'that a place is free')


def test_a_port_that_is_taken_is_told_and_the_summary_counts(page, tmp_path, vehicle):
    place = page.url.removeprefix('http://')
    # the last is no address of this machine
    for where, flags in ((place, ('--port', place.rpartition(':')[2])),
                         ('192.0.2.1', ('--host', '192.0.2.1'))):  # fmt: skip
        with ended(Page(tmp_path, *flags)) as second:
            assert second.process.wait(30) == 2 and f'cannot listen on {where}: ' in second.text
    with ended(Page(tmp_path)) as third:
        assert third.url != page.url
        vehicle.until(lambda: third.get('/picture/1/camera')[0] != 404, 'the cameras')
        vehicle.until(
            lambda: all(c['frames'] >= 10 for c in _cameras(third)), 'the frames of a camera'
        )
        assert third.stop() == 0
    found = json.loads(third.summary.read_text())['/car/front']
    # it came late: how many frames there were is the node's to say
    assert found['frames_in'] == found['frames_out'] + 2 and found['dropped'] == {'superseded': 2}
    assert found['latency_ms'] == {'p50': 31.5, 'p95': 31.5, 'p99': 31.5}
    assert 10 <= found['routes']['night'] < found['frames_out'] and found['rate_hz'] > 0


def test_a_rerun_recording_needs_its_package_and_holds_what_was_seen(tmp_path, vehicle, capsys):
    recording = tmp_path / 'drive.rrd'
    if find_spec('rerun') is None:
        assert main(['view', '--rerun', str(recording)]) == 2
        assert "pip install 'nightseg[view]'" in capsys.readouterr().err
        return
    points = vehicle.client.publisher('/car/roof/nightseg/points', PointCloud2)
    given = cloud([(1.0, 2.0, 3.0)], extra={'rgb': (FLOAT32, np.float32([0.5]))})

    def recorded() -> bool:
        points.publish(cloud_message(given, next(vehicle.client.stamps)))
        return recording.exists() and recording.stat().st_size > 20_000

    with ended(Page(tmp_path, '--rerun', str(recording))) as page:
        vehicle.until(recorded, 'records')
        assert page.stop() == 0
    content = recording.read_bytes()
    for name in (b'/car/front/image', b'/car/rear/image/labels', b'illumination', b'pedestrian',
                 b'/car/roof/points'):  # fmt: skip
        assert name in content


def test_a_recording_tells_what_it_leaves_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'rerun', rerun := MagicMock())
    written = rerun.RecordingStream.return_value.log
    video, labels = '/car/front/image_raw/ffmpeg', '/car/front/nightseg/labels'
    topics = {video: ['a/msg/Packet'], labels: ['sensor_msgs/msg/Image']}
    with Client() as client:
        client.node.subscribed = set()
        publisher = client.publisher(labels, reliable=False)
        log = RerunLog(tmp_path / 'drive.rrd', client.node, None)
        for _ in range(2):
            log.look(topics, {'/car/front': video})
        client.connect(publisher)
        mask = image_message(np.zeros(SIZE, np.uint8), 1, encoding='mono8')
        publisher.publish(mask)
        client.until(lambda: written.called, 'the first mask')
        # more than may wait
        for _ in range(100):
            publisher.publish(mask)
        client.spin(1)
        log.close()
    assert capsys.readouterr().err.splitlines() == [
        f'view: {video} is a/msg/Packet, which is not recorded',
        f'view: {labels}: {101 - written.call_count} messages were published and are not recorded',
    ]


# -- nightseg run ----------------------------------------------------------------------------


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp('clip') / 'street.mp4'
    rng = np.random.default_rng(0)
    with VideoWriter(path, 10) as writer:
        for _ in range(30):
            writer.add(rng.integers(140, 170, (96, 160, 3), np.uint8))
    return path


@contextlib.contextmanager
def stream() -> Iterator[str]:
    """Send a grey video over the network, as a camera does, and yield its address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(('127.0.0.1', 0))
        address = f'udp://127.0.0.1:{probe.getsockname()[1]}'
    stop = threading.Event()

    def send() -> None:
        options = {'preset': 'ultrafast', 'tune': 'zerolatency', 'g': '5'}
        with av.open(address, 'w', format='mpegts') as container:
            video = container.add_stream('libx264', rate=10, options=options)
            video.width, video.height, video.pix_fmt = 160, 96, 'yuv420p'
            grey = np.full((96, 160, 3), 150, np.uint8)
            while not stop.wait(0.1):
                container.mux(video.encode(av.VideoFrame.from_ndarray(grey, format='rgb24')))

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield address
    finally:
        stop.set()
        sender.join()


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['clip', 'bag', 'loop', 'topic', 'stream', 'killed'])
def test_sources_are_segmented_watched_and_summed_up_at_their_end_or_by_ctrl_c(
    clip, tmp_path, client, kind, monkeypatch
):
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    camera = client.publisher('/front/image_raw', reliable=False)
    image = np.full((*SIZE, 3), 150, np.uint8)
    with contextlib.ExitStack() as stack:
        source = {'topic': 'topic:/front/image_raw'}.get(kind, str(clip))
        if kind == 'stream':
            source = stack.enter_context(stream())
        if kind == 'bag':
            source = str(tmp_path / 'drive')
            with BagWriter(tmp_path / 'drive') as bag:
                for n in range(30):
                    bag.write_frame('/rear/image', Frame(image=image, stamp_ns=10**18 + n * 10**8))
        flags = [*weight_flags(tmp_path), '--backend', 'torch', '--device', 'cpu']
        flags += ['--out', str(tmp_path / 'summary.json')]
        flags += ['--loop'] * (kind in ('loop', 'killed'))
        command = ['-m', 'nightseg_ros.cli.main', 'run', source, *flags]
        # as a script's `&` starts it
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process = Process(tmp_path / 'log', *command)
        finally:
            signal.signal(signal.SIGINT, before)
        run = stack.enter_context(ended(process))
        run.until('watch it on http://127.0.0.1:')
        url = re.search(r'watch it on (http://[\d.:]+)/', run.text)[1]
        links = [f'/proc/{pid}/exe' for pid in family(run.process.pid)]

        def seen() -> bool:
            camera.publish(image_message(image, next(client.stamps)))
            client.spin(0.1)
            return get(f'{url}/picture/0/overlay')[0] == 200

        if kind in ('clip', 'bag'):
            assert run.process.wait(120) == 0, run.text
        else:
            client.until(seen, 'an overlay', timeout=120)
            if kind == 'killed':
                # as by a terminal that is closed, or for want of memory: nothing goes on alone
                run.process.kill()
                client.until(lambda: not any(map(os.path.exists, links)), 'the end of all')
                return
            # sources without an end are ended this way, or with their terminal
            number = signal.SIGHUP if kind == 'loop' else signal.SIGINT
            assert run.stop(number, timeout=30) == 0
        assert 'frames in / out' in run.text
    (summary,) = json.loads((tmp_path / 'summary.json').read_text()).values()
    assert summary['frames_out'] > 0
    if kind in ('clip', 'bag'):
        # each frame has a mask or a reason why not
        assert summary['frames_in'] == summary['frames_out'] + sum(summary['dropped'].values())
        assert summary['frames_in'] == 30
        assert summary['routes'] == {'day': summary['frames_out']}
    # another run may have the port by now
    client.until(lambda: not any(map(os.path.exists, links)), 'the end of all')


@pytest.mark.slow
def test_a_node_that_cannot_be_configured_ends_the_run(clip, capsys):
    assert main(['run', str(clip), '--backend', 'tensorrt']) == 2
    assert 'configure failed: ' in capsys.readouterr().err
