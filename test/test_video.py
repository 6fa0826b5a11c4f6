# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Videos as people have them, cameras of the network, packets of topics."""

import contextlib
from dataclasses import replace
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import itertools
from pathlib import Path
import re
import signal
import socket
import struct
import threading
import time
import tracemalloc
from types import SimpleNamespace
from typing import Any, IO

import av
import cv2
from headless_browser import Browser, find_browser
from nightseg_ros.data.source import open_source, STAMP_OFFSET
from nightseg_ros.perception.video import (
    FrameNumbers,
    LIMITS,
    PacketDecoder,
    VideoError,
    VideoReader,
    VideoWriter,
)
import numpy as np
import pytest
from video_samples import grey, number_of, packets, SIZE


def write(path: Path, times_ms: list[int], *, codec: str = 'libx264', pix_fmt: str = 'yuv420p',
          gop: int = 8, b_frames: int = 2, options: Any = None) -> Path:  # fmt: skip
    """Write frames 0, 1, … with these presentation times."""
    with av.open(str(path), 'w', options=options or {}) as container:
        stream = container.add_stream(codec, rate=1000)
        stream.width, stream.height, stream.pix_fmt = *SIZE, pix_fmt
        stream.time_base = Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        if codec == 'libx264':
            params = f'keyint={gop}:min-keyint={gop}:scenecut=0:bframes={b_frames}'
            stream.options = {'crf': '10', 'x264-params': params}
        for number, when in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(grey(number), format='rgb24')
            frame.pts, frame.time_base = when, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read(path: Path) -> tuple[list[int], list[int]]:
    """Return the times in ms and the numbers of all frames."""
    with VideoReader(path) as video:
        frames = [(stamp, number_of(image)) for stamp, image in video]
    return [round(stamp / 1e6) for stamp, _ in frames], [number for _, number in frames]


UNEVEN = [0, 33, 66, 100, 300, 500, 533, 900, 1000, 2500]


@pytest.mark.parametrize(
    ('name', 'codec', 'pix_fmt'),
    [
        ('phone.mp4', 'libx264', 'yuv420p'),
        ('browser.webm', 'libvpx', 'yuv420p'),
        ('ten_bit.mkv', 'libx265', 'yuv420p10le'),
        ('drive #3 %20?.mp4', 'libx264', 'yuv420p'),
        ('-dash.mov', 'libx264', 'yuv420p'),
        ('motion.avi', 'mjpeg', 'yuvj420p'),
    ],
)
def test_every_frame_has_its_own_time(tmp_path, name, codec, pix_fmt):
    path = write(tmp_path / name, UNEVEN, codec=codec, pix_fmt=pix_fmt)
    times, numbers = read(path)
    assert numbers == list(range(len(UNEVEN)))
    assert times == pytest.approx(UNEVEN, abs=1)


def test_recordings_that_were_joined_go_on(tmp_path):
    content = write(tmp_path / 'a.ts', [40 * n for n in range(10)]).read_bytes()
    (tmp_path / 'b.ts').write_bytes(content * 2)
    times, numbers = read(tmp_path / 'b.ts')
    assert numbers == [*range(10), *range(10)]
    steps = np.diff(times)
    assert steps[:9] == pytest.approx(40, abs=1) and steps[10:] == pytest.approx(40, abs=1)
    assert 10 <= steps[9] <= 100


def test_a_webm_of_a_browser_does_not_become_1000_frames_a_second(tmp_path):
    path = write(tmp_path / 'a.webm', [40 * n for n in range(10)], codec='libvpx')
    with VideoReader(path) as video:
        assert video.rate == pytest.approx(30, abs=6)


def test_what_a_cut_trims_is_no_frame_and_no_damage(tmp_path):
    whole = write(tmp_path / 'whole.mp4', [40 * n for n in range(24)], gop=12)
    cut = tmp_path / 'cut.mp4'
    with av.open(str(whole)) as source, av.open(str(cut), 'w') as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is None or packet.pts < 12 * 40 * packet.time_base.denominator / 1000:
                continue
            # the edit list starts three frames behind the key frame
            shift = round(15 * 40 * packet.time_base.denominator / 1000)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = stream
            target.mux(packet)
    with VideoReader(cut) as video:
        count = video.count
    times, numbers = read(cut)
    assert numbers == list(range(15, 24))
    assert times == [40 * n for n in range(9)]
    assert count in (9, None)


@pytest.mark.parametrize('mirror', [1, -1])
@pytest.mark.parametrize('turn', [0, 90, 180, 270])
def test_a_frame_stands_upright(tmp_path, turn, mirror):
    """Of the camera that looks at its user as well, whose pictures some phones mirror."""
    path = write(tmp_path / 'a.mp4', [0, 40, 80])
    content = bytearray(path.read_bytes())
    # the display matrix of the track header: 16.16 numbers a b u c d v x y w
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[turn]
    at = content.index(b'tkhd') + 4 + 40
    for index, value in ((0, cos), (1, sin), (3, -sin * mirror), (4, cos * mirror)):
        struct.pack_into('>i', content, at + 4 * index, value << 16)
    path.write_bytes(content)
    with VideoReader(path) as video:
        _, image = next(iter(video))
    # players turn clockwise by the angle of the matrix
    wanted = np.rot90(grey(0)[::mirror], -turn // 90)
    assert image.shape == wanted.shape
    assert np.abs(image.astype(int) - wanted).mean() < 6


FIRST, PIECES = ({'options': {'movflags': flags}} for flags in ('faststart', 'frag_keyframe'))
MOTION_JPEG, GIF = {'codec': 'mjpeg', 'pix_fmt': 'yuvj420p'}, {'codec': 'gif', 'pix_fmt': 'gray'}


@pytest.mark.parametrize(
    ('name', 'more', 'words'),
    [
        ('a.mkv', {}, 'is cut off'),
        ('index_last.mp4', {}, 'cannot be read'),
        ('index_first.mp4', FIRST, r'breaks off after \d+ of 24 frames'),
        ('fragments.mp4', PIECES, 'is cut off'),
        ('dashcam.avi', MOTION_JPEG, 'is cut off'),
        ('a.gif', GIF, 'is cut off'),
    ],
)
def test_a_cut_file_gives_all_before_the_cut_and_says_so(tmp_path, name, more, words):
    path = write(tmp_path / name, [40 * n for n in range(24)], **more)
    assert read(path)[1] == [*range(24)]
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 9 // 10])
    frames = []
    with pytest.raises(VideoError, match=words), VideoReader(path) as video:
        for _, image in video:
            frames.append(number_of(image))
    # what is cut in the middle of a frame may spoil one beside it
    assert frames[:9] == ([] if name == 'index_last.mp4' else [*range(9)])


def test_an_empty_packet_repeats_a_frame_and_is_no_damage(tmp_path):
    whole = write(tmp_path / 'whole.nut', [40 * n for n in range(6)], **MOTION_JPEG)
    with av.open(str(whole)) as source, av.open(str(tmp_path / 'a.nut'), 'w') as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(source.streams.video[0])):
            if packet.dts is None:
                continue
            if number == 3:
                time = packet.pts, packet.dts, packet.time_base
                packet = av.Packet(b'')
                packet.pts, packet.dts, packet.time_base = time
            packet.stream = stream
            target.mux(packet)
    assert read(tmp_path / 'a.nut') == ([0, 40, 80, 160, 200], [0, 1, 2, 4, 5])


@pytest.mark.parametrize('content', [b'', b'no video', b'\0' * 5000])
def test_no_video_is_said(tmp_path, content):
    path = tmp_path / 'a.mp4'
    path.write_bytes(content)
    with pytest.raises(VideoError, match='cannot be read as a video'):
        VideoReader(path)


def test_frames_of_too_many_pixels_are_refused(tmp_path, monkeypatch):
    path = write(tmp_path / 'drive.mp4', [0, 40])
    monkeypatch.setitem(LIMITS, 'max_pixels', '1000')
    with pytest.raises(VideoError, match='0 frames were read'):
        read(path)
    [[_, first], *_] = packets('libx264')
    assert PacketDecoder().decode(message('h264', first, 0)) is None


@pytest.mark.parametrize('cover', [False, True])
def test_sound_is_no_video(tmp_path, cover):
    """A song may hold its cover as a stream of one picture."""
    path = tmp_path / 'song.mp4'
    with av.open(str(path), 'w') as file:
        sound = file.add_stream('aac', rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 4410), np.float32), 'fltp', 'stereo')
        frame.sample_rate = 44100
        if cover:
            picture = file.add_stream('mjpeg', rate=1)
            picture.width, picture.height, picture.pix_fmt = 60, 40, 'yuvj420p'
            picture.disposition = av.stream.Disposition.attached_pic
        file.mux([*sound.encode(frame), *sound.encode(None)])
        if cover:
            file.mux([*picture.encode(av.VideoFrame(60, 40, 'yuvj420p')), *picture.encode(None)])
    with pytest.raises(VideoError, match='no video stream'):
        VideoReader(path)


SDP = (
    'v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n'
    'a=rtpmap:96 H264/90000\r\na=control:track\r\n'
)
ANSWERS = {
    'DESCRIBE': f'Content-Type: application/sdp\r\nContent-Length: {len(SDP)}\r\n\r\n{SDP}',
    'SETUP': 'Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n',
}


def be_camera(server: socket.socket, sent: list[tuple[int, bytes]]) -> None:
    """Give an RTSP player after the other these packets as ten frames a second."""
    with contextlib.suppress(OSError):
        while True:
            peer, _ = server.accept()
            with peer, peer.makefile('rb') as lines, contextlib.suppress(ConnectionError):
                play(peer, lines, sent)


def play(peer: socket.socket, lines: IO[bytes], sent: list[tuple[int, bytes]]) -> None:
    verb, count = '', itertools.count()
    while verb != 'PLAY':
        request = b''.join(iter(lines.readline, b'\r\n')).decode()
        verb, url, *_ = request.split()
        if verb == 'DESCRIBE' and not url.endswith('//front/'):
            return
        sequence = re.findall(r'CSeq: (\d+)', request)[0]
        answer = f'RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\n' + ANSWERS.get(verb, '\r\n')
        peer.sendall(answer.encode())
    for number, data in sent:
        units = [unit for unit in re.split(rb'\x00?\x00\x00\x01', data) if unit]
        for unit in units:
            # the last of a picture is marked
            kind = 224 if unit is units[-1] else 96
            head = struct.pack('>BBHII', 128, kind, next(count), number * 9000, 1)
            peer.sendall(b'$\0' + struct.pack('>H', len(head + unit)) + head + unit)


def test_a_network_camera_is_shown_from_a_key_frame_on_until_ctrl_c():
    handler, found = signal.getsignal(signal.SIGINT), []
    with socket.create_server(('127.0.0.1', 0)) as server:
        sent = packets('libx264', 20)[2:]
        threading.Thread(target=be_camera, args=(server, sent), daemon=True).start()
        source = open_source(f'rtsp://127.0.0.1:{server.getsockname()[1]}//front/')
        begun = time.time_ns()
        for _, frame in source:
            found.append((number_of(frame.image), frame.stamp_ns))
            if len(found) == 8:
                signal.raise_signal(signal.SIGINT)
        server.shutdown(socket.SHUT_RDWR)
    assert (source.count, source.live, source.ros_offset_ns) == (None, True, 0)
    # with a rate the stamps begin at 0
    assert replace(source, rate=5.0).ros_offset_ns == STAMP_OFFSET
    numbers, stamps = zip(*found)
    assert numbers == tuple(range(5, 13))
    # this one sends faster than its pictures' times say: none lies ahead of the clock
    assert begun < stamps[0] and stamps[-1] < time.time_ns() and (np.diff(stamps) > 0).all()
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_camera_that_sends_no_times_has_those_of_its_frames_arrival():
    """Motion JPEG over HTTP, slower than the 25 Hz that FFmpeg takes it for."""
    sent: list[list[int]] = []
    found = []

    class Camera(BaseHTTPRequestHandler):
        """Ten pictures a second."""

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header('Content-Type', 'multipart/x-mixed-replace; boundary=frame')
            self.end_headers()
            times = list[int]()
            sent.append(times)
            with contextlib.suppress(ConnectionError):
                for number in range(20):
                    jpeg = cv2.imencode('.jpg', grey(number))[1].tobytes()
                    head = f'--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}'
                    times.append(time.time_ns())
                    self.wfile.write(f'{head}\r\n\r\n'.encode() + jpeg + b'\r\n')
                    time.sleep(0.1)

    with ThreadingHTTPServer(('127.0.0.1', 0), Camera) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for _, frame in open_source(f'http://127.0.0.1:{server.server_address[1]}/video.mjpg'):
            found.append((number_of(frame.image), frame.stamp_ns, time.time_ns()))
            if len(found) == 10:
                signal.raise_signal(signal.SIGINT)
        server.shutdown()
    assert [number for number, *_ in found] == list(range(10))
    # it is opened once before, to see what it is
    assert all(begun < stamp <= seen for begun, (_, stamp, seen) in zip(sent[-1], found))


def message(encoding: str, data: bytes, second: int) -> Any:
    """Return what a driver sends: an FFMPEGPacket, a CompressedVideo or a CompressedImage."""
    stamp, frame_id = SimpleNamespace(sec=second, nanosec=7), f'optical {second}'
    if encoding == 'h265':
        return SimpleNamespace(timestamp=stamp, frame_id=frame_id, format=encoding, data=data)
    name = 'format' if encoding == 'h264' else 'encoding'
    header = SimpleNamespace(stamp=stamp, frame_id=frame_id)
    return SimpleNamespace(header=header, data=np.frombuffer(data, np.uint8), **{name: encoding})


LATE = (0, 1, 2, 7)


@pytest.mark.parametrize(
    ('codec', 'more', 'encoding', 'lost', 'shown'),
    [
        ('libx264', '', 'h264', LATE, [5, 6, 10, 11, 12, 13, 14]),
        ('libx264', '', 'libx264;yuv420p;bgr8', LATE, [5, 6, 10, 11, 12, 13, 14]),
        ('libx265', '', 'h265', LATE, [5, 6, 10, 11, 12, 13, 14]),
        ('libx265', '', 'hevc_nvenc', LATE, [5, 6, 10, 11, 12, 13, 14]),
        # right behind the first key frame
        ('libx264', '', 'h264', (2,), [0, 1, *range(5, 15)]),
        # a reference that nobody refers to is missed by nobody
        ('libx264', ':bframes=1:b-adapt=0:open-gop=0', 'h264_vaapi', LATE, None),
        # no key frames, but each picture is whole again after so many
        ('libx264', ':intra-refresh=1', 'h264_v4l2m2m', LATE, None),
    ],
)
def test_packets_are_shown_from_a_key_frame_on_until_one_is_lost(
    codec, more, encoding, lost, shown
):
    decoder, found = PacketDecoder('front'), []
    sent = packets(codec, 24 if shown is None else 15, more=more)
    for number, data in sent:
        if number in lost:
            continue
        frame = decoder.decode(message(encoding, data, number))
        # whoever waits for an answer sends it again
        assert decoder.decode(message(encoding, data, number)) is None
        if frame is not None:
            second, rest = divmod(frame.stamp_ns, 1_000_000_000)
            assert (rest, frame.order, frame.camera) == (7, 'bgr', 'front')
            assert np.abs(frame.image.astype(int) - grey(second)).mean() < 4
            found.append(second)
    if shown is None:
        assert len(found) > 5 and found == sorted(found)
    else:
        assert found == shown


def test_a_loss_that_the_numbers_of_h264_hide_is_told_by_those_of_the_messages():
    decoder, found = PacketDecoder(), []
    # the numbers of pictures are counted modulo 16: 1 follows the 0 of picture 16 as well
    for number, data in packets('libx264', 40, gop=17, draw=lambda number: grey(number % 20)):
        if number != 17:
            frame = decoder.decode(message('h264', data, number), lost=number == 18)
            found += [] if frame is None else [number]
    assert found == [*range(17), *range(34, 40)]


def test_no_number_of_h264_is_longer_than_the_standard_allows():
    # a sequence parameter set: log2_max_frame_num is 2**24 + 3, then a picture
    bits = f'{66:08b}' + '0' * 16 + '1' + '0' * 24 + '1' + '0' * 24 + '1110' + '1' * 10
    units = b'\0\0\1\x67', int(bits, 2).to_bytes(len(bits) // 8, 'big'), b'\0\0\1\x65\xff\xff'
    tracemalloc.start()
    try:
        assert not FrameNumbers().gap(b''.join(units))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_packets_are_not_turned():
    """The camera's calibration is that of the picture as it was sent."""
    # display orientation (H.264, D.1.27): half a turn
    turned = b'\0\0\0\1\x06\x2f\x03\x10\0\x14\x80'
    [[_, data], *_] = packets('libx264', draw=lambda _: grey(20))
    frame = PacketDecoder().decode(message('h264', turned + data, 0))
    assert np.abs(frame.image.astype(int) - grey(20)).mean() < 4


def test_an_unknown_encoding_of_packets_names_those_that_are_known():
    with pytest.raises(VideoError, match="'mpeg7' is unknown; known are av1"):
        PacketDecoder().decode(message('mpeg7', b'', 0))


#: What a page says of its video once it has a picture.
SHOWN = """new Promise((done, failed) => {
  const video = document.querySelector('video');
  const tell = () => done([video.videoWidth, video.videoHeight, video.duration]);
  video.onerror = () => failed(video.error.message);
  video.readyState > 1 ? tell() : video.onloadeddata = tell;
})"""


def test_a_written_video_is_h264_that_browsers_play(tmp_path):
    path = tmp_path / 'overlay.mp4'
    with VideoWriter(path, 29.97) as video:
        for number in range(12):
            video.add(grey(number)[:47, :63])
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == 'h264'
        assert stream.codec_context.pix_fmt == 'yuv420p'
        assert (stream.width, stream.height) == (62, 46)
    content = path.read_bytes()
    assert content.index(b'moov') < content.index(b'mdat')
    assert read(path)[1] == list(range(12))
    executable = find_browser()
    if executable is not None:
        (tmp_path / 'page.html').write_text('<video src="overlay.mp4"></video>')
        with Browser(executable) as browser:
            browser.show(tmp_path / 'page.html', width=800)
            assert browser.evaluate(SHOWN) == [62, 46, pytest.approx(12 / 29.97, abs=0.01)]


def test_an_error_leaves_no_half_video(tmp_path):
    with pytest.raises(KeyError), VideoWriter(tmp_path / 'a.mp4', 10) as video:
        video.add(grey(0))
        raise KeyError
    assert not list(tmp_path.iterdir())
