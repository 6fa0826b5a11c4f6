# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The packets of a video topic (H.264, H.265, VP9, AV1), decoded as they come."""

from __future__ import annotations

import re
from typing import Any

import av
from nightseg_ros.perception.frame import Frame, video_codec, VIDEO_CODECS
from nightseg_ros.perception.video import to_bgr, VideoError


class PacketDecoder:
    """
    One camera's messages of video, decoded in the order in which they come.

    They are foxglove_msgs/CompressedVideo, ffmpeg_image_transport_msgs/FFMPEGPacket, or
    sensor_msgs/CompressedImage with such a format. No picture comes before the first key frame,
    nor after a lost packet of H.264 or H.265 before the next one. VP9 and AV1 do not tell a loss,
    and damage inside a packet cannot be told.
    """

    def __init__(self, camera: str = 'camera') -> None:
        """Wait for the first message, which names its encoding."""
        self._camera, self._codec = camera, ''
        self._context: Any = None
        self._numbers = FrameNumbers()

    def decode(self, message: Any) -> Frame | None:
        """
        Return the picture that is due, None while there is none; both under its own stamp.

        ``message`` is one of rclpy or of rosbags. ``VideoError`` where the encoding is unknown.
        """
        encoding = getattr(message, 'encoding', '') or getattr(message, 'format', '')
        codec, data = video_codec(encoding), bytes(message.data)
        if codec is None:
            known = ', '.join(sorted(set(VIDEO_CODECS.values())))
            raise VideoError(f"video encoding '{encoding}' is unknown; known are {known}")
        if codec != self._codec:
            self._codec, self._numbers = codec, FrameNumbers()
            self._context = av.CodecContext.create(codec, 'r')
            # a picture is wanted when its packet comes, not when threads have filled their queue
            self._context.thread_type = 'SLICE'
        elif codec == 'h264' and self._numbers.gap(data):
            # the decoder would go on with smeared pictures; the others' ones stop by themselves
            self._context.flush_buffers()
        header = getattr(message, 'header', message)
        stamp = header.stamp if header is not message else message.timestamp
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
        for found in re.finditer(rb'\x00\x00\x01', data):
            at, end = found.end(), found.end() + 65
            unit = data[at:end]
            kind, reference = unit[0] & 31 if unit else 0, unit[:1] > b'\x1f'
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
    return 0 if bits.take(1) else length


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
