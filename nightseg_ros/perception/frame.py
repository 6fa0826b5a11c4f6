# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
One camera frame, and the one place that makes pixels of a message's bytes.

A few kilobytes can claim gigabytes of pixels, which OpenCV refuses (``MAX_PIXELS``); it would make
grey areas of a JPEG that was cut off.
"""

from __future__ import annotations

from dataclasses import dataclass
import os
import re
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Order = Literal['rgb', 'bgr']


class FrameError(ValueError):
    """A frame that cannot be read."""


#: FFmpeg's decoder by what the name of an encoding contains: libx264, hevc_nvenc, h264;yuv420p;…
VIDEO_CODECS = {'264': 'h264', '265': 'hevc', 'hevc': 'hevc', 'vp9': 'vp9', 'av1': 'av1'}
#: Encodings of depth, whose values are metres or millimetres.
DEPTH = ('16UC1', '32FC1')
_NO_CAMERA = "depth is no picture; name the camera's colour or infrared topic"


def video_codec(encoding: str) -> str | None:
    """Return FFmpeg's decoder of a message's ``encoding`` or ``format``, None for no video."""
    return next((codec for part, codec in VIDEO_CODECS.items() if part in encoding.lower()), None)


def is_depth(layout: str) -> bool:
    """Tell depth by an ``encoding``, or by the ``format`` of a CompressedImage."""
    return layout.partition(';')[0] in DEPTH or 'compressedDepth' in layout


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """A picture with the stamp and the names it came with; none of them is ever changed."""

    image: Image
    """uint8 [H, W, 3]; often a view of a message's bytes, so read only."""
    order: Order = 'rgb'
    stamp_ns: int = 0
    camera: str = 'camera'
    """Which router and which topics the frame belongs to."""
    frame_id: str = ''


@dataclass(frozen=True, slots=True)
class ImageEncoding:
    """How one encoding of sensor_msgs/Image is laid out."""

    pixel_bytes: int
    """Bytes of a pixel in the rows of the first plane."""
    order: Order = 'rgb'
    code: int | None = None
    """OpenCV's colour conversion; None where the pixels are colours already."""
    wide: bool = False
    """Whether a value has 16 bits, of which the upper 8 are kept: of 12 where more are empty."""
    mosaic: bool = False
    pairs: bool = False
    """Whether two pixels of a row share their colour."""
    planar: bool = False
    """Whether a plane of half-size colours follows."""

    def rows(self, height: int) -> int:
        """Return the rows of both planes."""
        return height * 3 // 2 if self.planar else height


_GRAY = ImageEncoding(1, 'rgb', cv2.COLOR_GRAY2RGB)
_UYVY = ImageEncoding(2, 'rgb', cv2.COLOR_YUV2RGB_UYVY, pairs=True)
_YUYV = ImageEncoding(2, 'rgb', cv2.COLOR_YUV2RGB_YUY2, pairs=True)
#: What is read. YUV is that of Rec. 601 in video range (16–235), as OpenCV and
#: the common drivers have it.
ENCODINGS = {
    'rgb8': ImageEncoding(3),
    'bgr8': ImageEncoding(3, 'bgr'),
    # dropping the fourth channel keeps the order of the other three
    'rgba8': ImageEncoding(4, 'rgb', cv2.COLOR_BGRA2BGR),
    'bgra8': ImageEncoding(4, 'bgr', cv2.COLOR_BGRA2BGR),
    'mono8': _GRAY,
    'mono16': ImageEncoding(2, 'rgb', cv2.COLOR_GRAY2RGB, wide=True),
    '8UC1': _GRAY,
    # as cv_bridge reads them
    '8UC3': ImageEncoding(3, 'bgr'),
    '8UC4': ImageEncoding(4, 'bgr', cv2.COLOR_BGRA2BGR),
    '16UC3': ImageEncoding(6, 'bgr', wide=True),
    'rgb16': ImageEncoding(6, wide=True),
    'bgr16': ImageEncoding(6, 'bgr', wide=True),
    'rgba16': ImageEncoding(8, 'rgb', cv2.COLOR_BGRA2BGR, wide=True),
    'bgra16': ImageEncoding(8, 'bgr', cv2.COLOR_BGRA2BGR, wide=True),
    'uyvy': _UYVY,
    'yuv422': _UYVY,
    'yuyv': _YUYV,
    'yuv422_yuy2': _YUYV,
    'nv12': ImageEncoding(1, 'rgb', cv2.COLOR_YUV2RGB_NV12, pairs=True, planar=True),
    'nv21': ImageEncoding(1, 'rgb', cv2.COLOR_YUV2RGB_NV21, pairs=True, planar=True),
}
# Bayer names say the colours of the first two pixels of the first two rows, OpenCV's those of the
# second ones
for _name, _code in (
    ('rggb', cv2.COLOR_BayerBG2RGB), ('bggr', cv2.COLOR_BayerRG2RGB),
    ('gbrg', cv2.COLOR_BayerGR2RGB), ('grbg', cv2.COLOR_BayerGB2RGB),
):  # fmt: skip
    ENCODINGS[f'bayer_{_name}8'] = ImageEncoding(1, 'rgb', _code, mosaic=True)
    ENCODINGS[f'bayer_{_name}16'] = ImageEncoding(2, 'rgb', _code, wide=True, mosaic=True)


#: Pictures in a row that show a camera's bits.
CONFIRMED = 3


class BitDepth:
    """
    What the pictures of a camera in 16 bits have shown so far.

    Sensors of 12 bits whose driver does not shift them up have no value from 4096 on. A camera
    that has shown some in ``CONFIRMED`` pictures in a row has 16 bits for good: a dark picture
    must not become a light one, nor a damaged one make all that follow black.
    """

    sixteen = twelve = False
    """Whether pictures are read as 16 bits for good; whether one was read as 12 bits."""
    _wide = 0

    def shift(self, largest: int) -> int:
        """Return by how many bits the values of a picture go down to 8."""
        self._wide = self._wide + 1 if largest >= 4096 else 0
        self.sixteen |= self._wide >= CONFIRMED
        if self._wide or self.sixteen:
            return 8
        self.twelve = True
        return 4


def decode_raw(
    data: bytes | bytearray | memoryview | npt.NDArray[np.uint8],
    *,
    encoding: str,
    width: int,
    height: int,
    step: int,
    is_bigendian: bool = False,
    depth: BitDepth | None = None,
) -> tuple[Image, Order]:
    """
    Return uint8 [H, W, 3] and its channel order, without a copy where the bytes allow it.

    ``step`` is the length of a row in bytes, padding included; ``depth`` is the camera's, without
    one the picture is judged alone. ``FrameError`` is raised for an
    unknown encoding, a zero size, one of more than ``MAX_PIXELS``, an odd one where the encoding
    has none, a step shorter than a row, and data of the wrong length.
    """
    layout = ENCODINGS.get(encoding)
    if layout is None:
        wanted = _NO_CAMERA if encoding in DEPTH else f'publish one of {", ".join(ENCODINGS)}'
        raise FrameError(f"encoding '{encoding}' is not supported; {wanted}")
    if width < 1 or height < 1:
        raise FrameError(f'the image is {width}×{height} pixels; it has no content')
    if (layout.pairs and width % 2) or (layout.planar and height % 2):
        raise FrameError(
            f'the image is {width}×{height} pixels, but {encoding} shares its colour between two'
        )
    row = width * layout.pixel_bytes
    if step < row:
        raise FrameError(f'step is {step} bytes, but a row of {width} {encoding} pixels has {row}')
    count = layout.rows(height)
    flat = np.frombuffer(data, np.uint8)
    if flat.size != step * count:
        raise FrameError(
            f'data holds {flat.size} bytes, but {count} rows of step {step} make {step * count}'
        )
    if width * height > MAX_PIXELS:
        raise FrameError(
            f'the image is {width}×{height} pixels, which is more than {MAX_PIXELS} in all'
        )
    rows = flat.reshape(count, step)[:, :row]
    if layout.wide:
        high, low = (0, 1) if is_bigendian else (1, 0)
        upper = np.ascontiguousarray(rows[:, high::2])
        if (depth or BitDepth()).shift(int(upper.max()) << 8) == 4:
            lower = rows[:, low::2]
            upper = np.asarray(upper << 4 | lower >> 4, np.uint8)
        rows = upper
    return _colors(rows, width, height, layout), layout.order


def _colors(rows: Image, width: int, height: int, layout: ImageEncoding) -> Image:
    """Return uint8 [H, W, 3] of uint8 [rows, bytes of a row], a view where they are colours."""
    channels = rows.shape[1] // width
    if channels > 1:
        # a view, also where the rows are padded
        shape, strides = (height, width, channels), (rows.strides[0], channels, 1)
        rows = np.lib.stride_tricks.as_strided(rows, shape, strides, writeable=False)
    if layout.code is None:
        return rows
    if layout.mosaic and (width < 3 or height < 3):
        # OpenCV leaves so small a picture black; two mirrored pixels keep the mosaic's phase
        mosaic = cv2.copyMakeBorder(rows, 2, 2, 2, 2, cv2.BORDER_REFLECT_101)
        return np.ascontiguousarray(cv2.cvtColor(mosaic, layout.code)[2:-2, 2:-2], np.uint8)
    return np.asarray(cv2.cvtColor(rows, layout.code), np.uint8)


def decode_file(
    data: bytes | bytearray | memoryview | npt.NDArray[np.uint8],
    layout: str = '',
    *,
    upright: bool = False,
    depth: BitDepth | None = None,
) -> tuple[Image, Order]:
    """
    Return uint8 [H, W, 3] and its channel order of a JPEG, PNG, BMP, WebP or TIFF.

    ``layout`` is the ``format`` of a CompressedImage, which tells a Bayer mosaic from a grey
    picture. ``FrameError`` is raised where the bytes are no whole picture of up to ``MAX_PIXELS``
    pixels. ``upright`` turns the picture as its EXIF orientation says, which is for files: a
    message's pixels have to fit the camera's calibration.
    """
    content = bytes(data)
    name, _, how = layout.partition(';')
    if is_depth(layout):
        raise FrameError(f"format '{layout}' is not supported; {_NO_CAMERA}")
    # 'bayer_rggb8; jpeg compressed bgr8' was put into colour before it was packed
    packed = how.strip().rpartition(' ')[2]
    mosaic = None
    if name.startswith('bayer_') and packed not in ('bgr8', 'rgb8'):
        mosaic = ENCODINGS.get(f'{name.rstrip("0123456789")}8')
    mode = cv2.IMREAD_ANYDEPTH | (cv2.IMREAD_GRAYSCALE if mosaic else cv2.IMREAD_COLOR)
    if not upright:
        mode |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        check_picture(content)
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), mode)
    except (ValueError, cv2.error) as error:
        large = 'MAX_IMAGE_PIXELS' in str(error)
        reason = f'the picture has more than {MAX_PIXELS} pixels' if large else error
        raise FrameError(f'{len(content)} bytes cannot be decoded: {reason}') from error
    if picture is None:
        raise FrameError(f'{len(content)} bytes cannot be decoded: the picture is damaged')
    if picture.dtype == np.uint16:
        shift = (depth or BitDepth()).shift(int(picture.max()))
        picture = np.right_shift(picture.astype(np.uint16), shift)
    elif picture.dtype != np.uint8:
        raise FrameError(f'its values are {picture.dtype}; 8 or 16 bits are wanted')
    image = np.asarray(picture, np.uint8)
    if mosaic:
        return _colors(image, image.shape[1], image.shape[0], mosaic), mosaic.order
    return image, 'bgr'


#: Pixels of the largest picture that OpenCV unpacks: 8192 × 8192, twice an 8K camera, unless the
#: user has set the variable, or OpenCV was imported before this package.
MAX_PIXELS = int(os.environ['OPENCV_IO_MAX_IMAGE_PIXELS'])
#: Pixels times scans of a progressive JPEG; each scan goes over all of them, in a few bytes.
MAX_SCANNED = 2**29
#: Segments of a JPEG; each takes a microsecond, in 4 bytes.
MAX_SEGMENTS = 10_000

_JPEG, PNG = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'
#: How what is read begins.
PICTURES = (_JPEG, PNG, b'BM', b'RIFF', b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
# start of frame: all of 0xC0–0xCF but DHT, JPG and DAC
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SOS, _EOI = 0xDA, 0xD9
# in coded pixels 0xFF stands before 0 and the markers of restarts; libjpeg skips fill bytes
_MARKER = re.compile(rb'\xff[^\x00-\x01\xd0-\xd7\xff]')


def check_picture(content: bytes) -> None:
    """Raise ``ValueError`` for what is no JPEG, PNG, BMP, WebP or TIFF, or a JPEG that is cut."""
    if content.startswith(_JPEG):
        _check_jpeg(content)
    elif not content:
        raise ValueError('there are no bytes')
    elif content[4:8] == b'ftyp':
        raise ValueError('they are HEIC, AVIF or MP4, whatever the name says; convert it to JPEG')
    elif not content.startswith(PICTURES):
        raise ValueError(
            f'they begin with {content[:4].hex(" ")}, as no JPEG, PNG, BMP, WebP or TIFF do'
        )


def _check_jpeg(content: bytes) -> None:
    """
    Refuse a JPEG without an end, or with more segments or scans than can be read in time.

    Phones put a second picture or a video behind it.
    """
    at, pixels, scans, segments = 2, 0, 0, 0
    while found := _MARKER.search(content, at):
        at, end, marker = found.end(), found.end() + 7, found[0][1]
        segments += 1
        if segments > MAX_SEGMENTS:
            raise ValueError(f'the JPEG has more than {MAX_SEGMENTS} segments')
        if marker == _EOI and scans:
            return
        head = content[at:end]
        if marker in _SOF:
            pixels = int.from_bytes(head[3:5], 'big') * int.from_bytes(head[5:7], 'big')
        scans += marker == _SOS
        if scans > 1 and scans * pixels > MAX_SCANNED:
            raise ValueError(
                f'the JPEG goes {scans} times or more over {pixels} pixels; {MAX_SCANNED} pixels '
                'in all are the most'
            )
        at += int.from_bytes(head[:2], 'big')
    raise ValueError('the JPEG is cut off')
