# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Size and wholeness of a compressed picture, before anything of it is unpacked.

A few kilobytes can claim gigabytes of pixels, and OpenCV makes grey areas of a JPEG that was cut
off instead of refusing it.
"""

from __future__ import annotations

import struct
import zlib

#: Pixels of the largest picture that is unpacked: 8192 × 8192, twice an 8K camera.
MAX_PIXELS = 2**26
#: Pixels times scans of a progressive JPEG; each scan goes over all of them, in a few bytes.
MAX_SCANNED = 2**29

_PNG = b'\x89PNG\r\n\x1a\n'
_JPEG = b'\xff\xd8\xff'
# start of frame: all of 0xC0–0xCF but DHT, JPG and DAC
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD8)))
_SOS = 0xDA
_SCAN = bytes((0xFF, _SOS))
_END = b'\xff\xd9'


def picture_size(content: bytes) -> tuple[int, int]:
    """
    Return (height, width) of a JPEG, PNG, BMP or WebP; ``ValueError`` says what is wrong with it.

    A JPEG or PNG that is cut off is refused, a PNG with a wrong checksum as well.
    """
    if content.startswith(_PNG):
        size = _png_size(content)
    elif content.startswith(_JPEG):
        size = _jpeg_size(content)
    elif content.startswith(b'BM') and len(content) >= 26:
        width, height = struct.unpack_from('<ii', content, 18)
        size = (abs(height), abs(width))
    elif content[:4] + content[8:12] == b'RIFFWEBP':
        size = _webp_size(content)
    elif not content:
        raise ValueError('there are no bytes')
    else:
        raise ValueError(
            f'they begin with {content[:4].hex(" ")}, as no JPEG, PNG, BMP or WebP do'
        )
    height, width = size
    if not height or not width:
        raise ValueError(f'the picture is {width}×{height} pixels; it has no content')
    if height * width > MAX_PIXELS:
        raise ValueError(f'the picture is {width}×{height} pixels; {MAX_PIXELS} are the most')
    return size


def _png_size(content: bytes) -> tuple[int, int]:
    size = None
    at = len(_PNG)
    while at + 12 <= len(content):
        length, kind = struct.unpack_from('>I4s', content, at)
        end = at + 12 + length
        if end > len(content):
            break
        (checksum,) = struct.unpack_from('>I', content, end - 4)
        if zlib.crc32(memoryview(content)[at + 4 : end - 4]) != checksum:
            raise ValueError(f'the PNG is damaged in its {kind!r} chunk')
        if size is None:
            if kind != b'IHDR' or length < 8:
                raise ValueError('the PNG does not begin with a header')
            width, height = struct.unpack_from('>II', content, at + 8)
            size = (height, width)
        if kind == b'IEND':
            return size
        at = end
    raise ValueError('the PNG is cut off')


def _webp_size(content: bytes) -> tuple[int, int]:
    kind = content[12:16]
    if len(content) >= 30 and kind == b'VP8X':
        width, height = (int.from_bytes(content[i : i + 3], 'little') + 1 for i in (24, 27))
    elif len(content) >= 30 and kind == b'VP8 ':
        width, height = (side & 0x3FFF for side in struct.unpack_from('<HH', content, 26))
    elif len(content) >= 25 and kind == b'VP8L':
        (bits,) = struct.unpack_from('<I', content, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        raise ValueError('the WebP has no frame header')
    return height, width


def _jpeg_size(content: bytes) -> tuple[int, int]:
    size = None
    at = 2
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            raise ValueError('the JPEG is damaged: a marker is missing')
        marker = content[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _STANDALONE:
            at += 2
            continue
        (length,) = struct.unpack_from('>H', content, at + 2)
        if marker in _SOF and length >= 7 and at + 9 <= len(content):
            size = struct.unpack_from('>HH', content, at + 5)
        if marker == _SOS:
            if size is None:
                raise ValueError('the JPEG has no frame header')
            # in what follows 0xFF stands alone only in markers
            if content.rfind(_END) <= at:
                break
            scans = content.count(_SCAN, at)
            if scans > 1 and scans * size[0] * size[1] > MAX_SCANNED:
                raise ValueError(
                    f'the JPEG goes {scans} times over {size[1]}×{size[0]} pixels; '
                    f'{MAX_SCANNED} pixels in all are the most'
                )
            return size
        at += 2 + length
    raise ValueError('the JPEG is cut off')
