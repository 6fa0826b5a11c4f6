# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Video files, cameras, network streams and the packets of ROS topics in, mp4 out.

A frame's time is its own presentation time, never its number over a rate: phones and browsers
record at variable rates. What a container marks as trimmed is no frame of the video.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from contextlib import ExitStack
from fractions import Fraction
from itertools import islice
import os
from pathlib import Path
import re
import signal
import struct
import threading
import time
from typing import Any

import av
import cv2
from nightseg_ros.files import partial_file, plain_name
from nightseg_ros.perception.frame import Frame, MAX_PIXELS, video_codec, VIDEO_CODECS
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

VIDEO_SUFFIXES = (
    '.mp4', '.avi', '.mkv', '.mov', '.m4v', '.webm', '.ts', '.mts', '.m2ts', '.mpg', '.mpeg',
    '.wmv', '.flv', '.3gp', '.ogv', '.gif', '.mjpg', '.mjpeg', '.h264', '.264', '.h265', '.265',
    '.hevc',
)  # fmt: skip
#: Of the decoders: a few kilobytes can claim gigabytes of pixels here as well.
LIMITS = {'max_pixels': str(MAX_PIXELS)}
_PICTURE = av.stream.Disposition.attached_pic
#: Frames a second of a video that tells neither times nor a rate.
DEFAULT_RATE = 30.0
#: Seconds without a packet after which a network stream counts as lost.
STREAM_TIMEOUT = 10.0
_SCHEMES = 'rtsps?|rtmps?|https?|udp|tcp|srt'
#: Where presentation times go back by more than this (ns), recordings were joined.
JOINED_NS = 100_000_000
#: Where a stamp or a time of recording is further (ns) before the last one, a clock was set.
SET_BACK_NS = 1_000_000_000
#: FFmpeg's AVFMT_NOTIMESTAMPS, as of Motion JPEG over HTTP: its times are counted frames.
_NO_TIMES = 0x80


class VideoError(ValueError):
    """A video that cannot be opened, read on or written; the text says how far it went."""


def stream_url(source: str | Path) -> str | None:
    """Return the URL of a network stream or a camera device; None for what is a file."""
    text = re.sub(rf'^({_SCHEMES}):/(?!/)', r'\1://', str(source))  # a Path loses a slash
    live = re.match(rf'({_SCHEMES})://|/dev/video\d+$', text)
    return text if live else None


class VideoReader:
    """
    The frames of a video file, a network stream (rtsp://…) or a camera (/dev/video0).

    Use it in a ``with`` block; it is read once. A file's stamps begin at 0, those of a stream are
    this machine's time, and Ctrl-C is its end.
    """

    def __init__(self, source: str | Path) -> None:
        """Open it; ``VideoError`` where it is no video, or not there."""
        url = stream_url(source)
        self.name, self.live = url or str(source), url is not None
        self._ended = False
        with ExitStack() as stack:
            try:
                name = self.name if self.live else stack.enter_context(plain_name(Path(source)))
                container = stack.enter_context(contextlib.closing(self._open(name)))
                # a cover or a thumbnail is a stream as well
                videos = [s for s in container.streams.video if not s.disposition & _PICTURE]
            except (av.FFmpegError, OSError) as error:
                reason = _reason(error)
                raise VideoError(f"'{self.name}' cannot be read as a video: {reason}") from error
            if not videos:
                raise VideoError(f"'{self.name}' holds no video stream")
            self._context = stack.pop_all()
        self._container, self._stream = container, videos[0]
        # threads that share out frames give each of them late
        self._stream.thread_type = 'SLICE' if self.live else 'AUTO'
        self._stream.codec_context.options = LIMITS

    def _open(self, name: str) -> Any:
        if not self.live:
            return av.open(name)
        if name.startswith('/dev/'):
            return av.open(name, format='v4l2')
        options = {'rtsp_transport': 'tcp'} if name.startswith('rtsp') else {}
        return av.open(name, options=options, timeout=STREAM_TIMEOUT)

    @property
    def count(self) -> int | None:
        """Frames that will come, where the container lists each one; else None."""
        entries = getattr(self._stream, 'index_entries', ())  # from PyAV 16 on
        if self.live or not self._stream.frames or len(entries) != self._stream.frames:
            return None
        return sum(not entry.is_discard for entry in entries)

    @property
    def duration(self) -> int:
        """Length in µs as the container tells it; 0 where it does not, as of what is live."""
        return self._container.duration or 0

    @property
    def rate(self) -> float:
        """Frames a second: the mean where frames have times, of use for a player only."""
        for rate in (self._stream.average_rate, self._stream.guessed_rate):
            # a browser's WebM without a rate claims its time base, 1000
            if rate is not None and 0 < rate <= 480:
                return float(rate)
        return DEFAULT_RATE

    def __iter__(self) -> Iterator[tuple[int, Image]]:
        """
        Yield stamp in ns and uint8 BGR [H, W, 3], upright as the file says it is to be shown.

        ``VideoError`` at the end of what can be read where the container or the decoder finds
        damage; all frames before it have come.
        """
        done, last, before, given = 0, -1, 0, -1
        shift: int | None = None
        # where steady time is when the stamps begin
        started = time.monotonic_ns() if self.live else 0
        broken = ''
        for frame in self._frames():
            if isinstance(frame, str):
                broken = broken or frame
                continue
            if frame.is_corrupt:
                broken = broken or 'the decoder met damaged data'
            base = frame.time_base or self._stream.time_base
            if frame.pts is not None and base is not None:
                shown = round(frame.pts * Fraction(base) * 1_000_000_000)
                if shift is None or shown < before - JOINED_NS:
                    # of a network stream the first ones may have no time
                    shift = (last + round(1e9 / self.rate) if done else 0) - shown
                stamp, before = shown + shift, shown
            else:
                stamp = round(done * 1e9 / self.rate)
            if self.live and self._container.format.flags & _NO_TIMES:
                stamp = time.monotonic_ns() - started
            # equal or falling times would be taken for a recording that starts anew
            stamp = max(stamp, last + 1)
            if self.live and not self.duration:
                # what waited while FFmpeg probed comes at once: no stamp lies ahead of the clock.
                # A camera whose own clock is slow may catch up half a millisecond a second
                started = min(started + (stamp - last) // 2000, time.monotonic_ns() - stamp)
            # somebody may set this machine's clock
            clock = time.time_ns() - time.monotonic_ns() if self.live else 0
            now = started + stamp + clock
            # a clock that is set back is a jump, as of any camera
            given = now if now < given - SET_BACK_NS else max(now, given + 1)
            yield given, upright(frame)
            last, done = stamp, done + 1
        if broken:
            raise VideoError(f"'{self.name}' is damaged: {broken}; {done} frames were read")
        if self.count is not None and done < self.count:
            raise VideoError(f"'{self.name}' breaks off after {done} of {self.count} frames")
        if not self.live and _is_cut(Path(self.name)):
            raise VideoError(f"'{self.name}' is cut off; {done} frames were read")

    def _frames(self) -> Iterator[Any]:
        """Yield frames, and a text for each place where demuxer or decoder gave up."""
        packets = self._container.demux(self._stream)
        packet: Any = ''
        while packet is not None and not self._ended:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except (av.FFmpegError, OSError) as error:
                yield _reason(error)
                # what the decoder still has
                packet = None
            # an empty one with a time repeats the frame before it
            if packet is not None and packet.dts is not None and not packet.size:
                continue
            try:
                yield from self._stream.codec_context.decode(packet)
            except av.FFmpegError as error:
                yield _reason(error)

    def __enter__(self) -> VideoReader:
        """Use it in a ``with`` block."""
        if self.live and threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)

            def end(*_: Any) -> None:
                self._ended = True
                # who asks again does not want to wait
                signal.signal(signal.SIGINT, before)

            signal.signal(signal.SIGINT, end)
            self._context.callback(signal.signal, signal.SIGINT, before)
        return self

    def __exit__(self, *error: Any) -> None:
        """Close the file or stream."""
        self._context.close()


def _is_cut(file: Path) -> bool:
    """Tell by an MP4's boxes, a Matroska's segment, the length of an AVI, the end of a GIF."""
    with file.open('rb') as content:
        size, at, head = file.stat().st_size, 0, content.read(4096)
        if head[4:8] == b'ftyp':
            while at <= size - 16:
                content.seek(at)
                length, kind, large = struct.unpack('>I4sQ', content.read(16))
                length = large if length == 1 else length
                # one of length 0 goes to the end, and anything may lie behind the last
                if length < 8 or not kind.isalnum():
                    return False
                at += length
            return at > size
        if head.startswith(b'GIF8'):
            content.seek(-min(size, 64), os.SEEK_END)
            return not content.read().rstrip(b'\0').endswith(b';')
        if head.startswith(b'RIFF'):
            length = int.from_bytes(head[4:8], 'little')
            return size < length < 2**32 - 1
        at = head.find(b'\x18\x53\x80\x67') + 4
        if not head.startswith(b'\x1a\x45\xdf\xa3') or at < 4 or not any(head[at:][:1]):
            return False
        # the zeros before the first bit count the bytes that follow it; all ones are unknown
        width = 9 - head[at].bit_length()
        length = int.from_bytes(head[at:][:width], 'big') - (1 << 7 * width)
        return length != (1 << 7 * width) - 1 and at + width + length > size


def to_bgr(frame: av.VideoFrame) -> Image:
    """Return a decoded frame as uint8 BGR [H, W, 3]."""
    return np.asarray(frame.to_ndarray(format='bgr24'), np.uint8)


def upright(frame: av.VideoFrame) -> Image:
    """Return a decoded frame as uint8 BGR [H, W, 3], turned as its display matrix says."""
    image = to_bgr(frame)
    # none, or one beside it of a kind that PyAV does not know
    with contextlib.suppress(KeyError, ValueError):
        side_data: Any = frame.side_data
        a, b, _, c, d = np.frombuffer(side_data['DISPLAYMATRIX'], np.int32)[:5].tolist()
        # that of a selfie mirrors as well
        image = np.asarray(cv2.flip(image, 0), np.uint8) if a * d < b * c else image
    turn = {
        90: cv2.ROTATE_90_COUNTERCLOCKWISE,
        180: cv2.ROTATE_180,
        270: cv2.ROTATE_90_CLOCKWISE,
    }.get(round(frame.rotation) % 360)
    return image if turn is None else np.asarray(cv2.rotate(image, turn), np.uint8)


class PacketDecoder:
    """
    One camera's messages of video, decoded in the order in which they come.

    They are foxglove_msgs/CompressedVideo, ffmpeg_image_transport_msgs/FFMPEGPacket, or
    sensor_msgs/CompressedImage with such a format. No picture comes before the first key frame,
    nor after a lost packet before the next one. Only H.264 and H.265 tell a loss themselves, H.264
    not where its numbers go on as they would have. Damage inside a packet cannot be told. Pictures
    are not turned: a message fits the camera's calibration as it is.
    """

    def __init__(self, camera: str = 'camera') -> None:
        """Wait for the first message, which names its encoding."""
        self._camera, self._codec = camera, ''
        self._latest: tuple[int, int, bytes] | None = None
        self._context: Any = None
        self._numbers = FrameNumbers()

    def decode(self, message: Any, *, lost: bool = False) -> Frame | None:
        """
        Return the picture that is due, None while there is none; both under its own stamp.

        ``message`` is one of rclpy or of rosbags; ``lost`` where one before it may not have come.
        ``VideoError`` where the encoding is unknown.
        """
        encoding = getattr(message, 'encoding', '') or getattr(message, 'format', '')
        codec, data = video_codec(encoding), bytes(message.data)
        header = getattr(message, 'header', message)
        stamp = header.stamp if header is not message else message.timestamp
        if codec is None:
            known = ', '.join(sorted(set(VIDEO_CODECS.values())))
            raise VideoError(f"video encoding '{encoding}' is unknown; known are {known}")
        latest = stamp.sec, stamp.nanosec, data
        if latest == self._latest:
            # sent again: the decoder would take it for a change
            return None
        self._latest = latest
        if codec != self._codec:
            self._codec, self._numbers = codec, FrameNumbers()
            self._context = av.CodecContext.create(codec, 'r')
            # a picture is wanted when its packet comes, not when threads have filled their queue
            self._context.thread_type = 'SLICE'
            self._context.options = LIMITS
        # also of the first packet: a stream may tell only there how its frames are numbered
        gap = codec == 'h264' and self._numbers.gap(data)
        if gap or lost:
            # the decoder would go on with smeared pictures
            self._context.flush_buffers()
        packet = av.Packet(data)
        packet.pts = stamp.sec * 1_000_000_000 + stamp.nanosec
        try:
            frames = self._context.decode(packet)
        except av.FFmpegError:
            # before the first key frame as well, so that this is no error
            self._context.flush_buffers()
            return None
        if not frames:
            return None
        stamp_ns = packet.pts if frames[-1].pts is None else frames[-1].pts
        return Frame(
            image=to_bgr(frames[-1]), order='bgr', stamp_ns=stamp_ns, camera=self._camera,
            frame_id=header.frame_id,
        )  # fmt: skip


class FrameNumbers:
    """
    Tells by ``frame_num`` (H.264, 7.4.3) whether a picture that others refer to was lost.

    Streams with scaling matrices or with gaps of purpose are not judged.
    """

    def __init__(self) -> None:
        """Wait for a sequence parameter set."""
        self._bits = 0
        """Length of ``frame_num``; 0 where nothing is known."""
        self._last = -1

    def gap(self, data: bytes) -> bool:
        """Take the next packet; return whether a reference is missing before it."""
        for found in islice(re.finditer(rb'\x00\x00\x01', data), 1000):
            at, end = found.end(), found.end() + 65
            unit = data[at:end]
            kind, reference = unit[0] & 31 if unit else 0, unit[:1] > b'\x1f'
            if kind not in (1, 5, 7):
                continue
            # behind two zeros a 3 is no part of the content
            bits = _Bits(unit[1:].replace(b'\0\0\3', b'\0\0'))
            try:
                if kind == 7:
                    self._bits = _frame_number_bits(bits)
                elif kind in (1, 5) and self._bits:
                    _ = bits.golomb(), bits.golomb(), bits.golomb()
                    number, before = bits.take(self._bits), self._last
                    if reference:
                        self._last = number
                    following = (before + 1) % (1 << self._bits)
                    return kind == 1 and before >= 0 and number not in (before, following)
            except ValueError:
                return False
        return False


def _frame_number_bits(bits: _Bits) -> int:
    """Return the length of ``frame_num`` by a sequence parameter set, 0 for gaps of purpose."""
    profile = bits.take(8)
    bits.take(16)
    bits.golomb()
    if profile in (44, 83, 86, 100, 110, 118, 122, 128, 244):
        if bits.golomb() == 3 and bits.take(1):
            return 0
        _ = bits.golomb(), bits.golomb(), bits.take(1)
        if bits.take(1):
            return 0
    length, order = bits.golomb() + 4, bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        return 0
    bits.golomb()
    # 16 are the most
    return 0 if bits.take(1) or length > 16 else length


class _Bits:
    """Reads bits from the highest one on; ``ValueError`` at the end."""

    def __init__(self, data: bytes) -> None:
        self._bits, self._at = bin(int.from_bytes(b'\1' + data, 'big'))[3:], 0

    def take(self, count: int) -> int:
        """Return the next ``count`` bits as a number."""
        start, end = self._at, self._at + count
        self._at = end
        return int(self._bits[start:end], 2)

    def golomb(self) -> int:
        """Return the next Exp-Golomb number."""
        zeros = self._bits.index('1', self._at) - self._at
        self._at += zeros
        return self.take(zeros + 1) - 1


class VideoWriter:
    """
    An mp4 in H.264 that browsers play.

    It appears under its name only when the ``with`` block ends well.
    """

    def __init__(self, path: Path, rate: float) -> None:
        """Wait for the first picture, which gives the size."""
        self.path, self.rate = path, rate
        self._context = ExitStack()
        self._partial = self._context.enter_context(partial_file(path))
        self._container: Any = None
        self._stream: Any = None

    def __enter__(self) -> VideoWriter:
        """Use it in a ``with`` block."""
        return self

    def add(self, picture: Image) -> None:
        """Add uint8 RGB [H, W, 3]; another size than the first one's is scaled to it."""
        height, width = picture.shape[:2]
        with self._errors():
            if self._container is None:
                name = self._context.enter_context(plain_name(self._partial))
                self._container = av.open(
                    name, 'w', format='mp4', options={'movflags': 'faststart'}
                )
                self._context.push(self._finish)
                rate = Fraction(self.rate).limit_denominator(1001)
                self._stream = self._container.add_stream('libx264', rate=rate)
                # 4:2:0 wants even sides
                self._stream.width = max(2, width // 2 * 2)
                self._stream.height = max(2, height // 2 * 2)
                self._stream.pix_fmt = 'yuv420p'
                self._stream.options = {'preset': 'veryfast', 'crf': '21'}
            size = self._stream.width, self._stream.height
            if (width, height) != size:
                resized = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
                picture = np.asarray(resized, np.uint8)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format='rgb24')
            self._container.mux(self._stream.encode(frame))

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Name the file in errors."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"'{self.path}' cannot be written: {_reason(error)}") from error

    def _finish(self, kind: type[BaseException] | None, *_: Any) -> None:
        """Write what waits, unless an error ends it, and close the file."""
        with self._errors(), contextlib.closing(self._container):
            if kind is None:
                self._container.mux(self._stream.encode(None))

    def __exit__(self, *error: Any) -> None:
        """Finish the file, or remove it after an error."""
        self._context.__exit__(*error)


def _reason(error: BaseException) -> str:
    """Return FFmpeg's or the system's own words, without the path that is named anyway."""
    return str(getattr(error, 'strerror', '') or error)
