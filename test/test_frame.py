# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Frame decoding against plain numpy, on random sizes and paddings; and what it refuses."""

import contextlib
import io
import struct
from typing import Any
import zlib

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
from nightseg_ros.perception.frame import (
    BitDepth,
    check_picture,
    decode_file,
    decode_raw,
    ENCODINGS,
    FrameError,
    MAX_PIXELS,
)
import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps
import pytest

Pixels = npt.NDArray[np.uint8]

#: Bytes of a pixel in the first plane.
BYTES = {
    'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, '8UC3': 3, '8UC4': 4, 'mono8': 1, '8UC1': 1,
    'rgb16': 6, 'bgr16': 6, 'rgba16': 8, 'bgra16': 8, '16UC3': 6, 'mono16': 2,
    'uyvy': 2, 'yuv422': 2, 'yuyv': 2, 'yuv422_yuy2': 2, 'nv12': 1, 'nv21': 1,
}  # fmt: skip
BAYER = {f'bayer_{name}{bits}': bits // 8
         for name in ('rggb', 'bggr', 'gbrg', 'grbg') for bits in (8, 16)}  # fmt: skip
assert ENCODINGS.keys() == BYTES.keys() | BAYER.keys(), 'one is neither documented nor tested'


def reference(rows: Pixels, encoding: str, width: int, height: int, big: bool) -> Pixels:
    """Return RGB uint8 [H, W, 3], the plain way."""
    if '16' in encoding:
        kind = '>u2' if big else '<u2'
        values = np.ascontiguousarray(rows).view(kind)
        # no value above 12 bits: a sensor's own that the driver does not shift up
        rows = (values >> (8 if values.max() >= 4096 else 4)).astype(np.uint8)
    if encoding.startswith('rgb'):
        return rows.reshape(height, width, -1)[:, :, :3]
    if encoding.startswith('bgr') or encoding.endswith(('C3', 'C4')):
        return rows.reshape(height, width, -1)[:, :, 2::-1]
    if encoding in ('mono8', '8UC1', 'mono16'):
        return np.repeat(rows.reshape(height, width, 1), 3, axis=2)
    if encoding in ('nv12', 'nv21'):
        chroma = rows[height:].reshape(height // 2, width // 2, 2).repeat(2, 0).repeat(2, 1)
        u, v = (chroma[..., 0], chroma[..., 1])[:: 1 if encoding == 'nv12' else -1]
        return yuv_to_rgb(rows[:height], u, v)
    pairs = rows.reshape(height, width // 2, 4)
    u, y0, v, y1 = np.moveaxis(pairs, 2, 0)
    if encoding in ('yuyv', 'yuv422_yuy2'):
        y0, u, y1, v = np.moveaxis(pairs, 2, 0)
    luma = np.stack((y0, y1), axis=2).reshape(height, width)
    return yuv_to_rgb(luma, u.repeat(2, 1), v.repeat(2, 1))


def yuv_to_rgb(y: Pixels, u: Pixels, v: Pixels) -> Pixels:
    """Rec. 601 in video range."""
    y, u, v = (plane.astype(float) for plane in (y, u, v))
    luma = 1.164 * np.maximum(y - 16, 0)
    rgb = (
        luma + 1.596 * (v - 128),
        luma - 0.813 * (v - 128) - 0.391 * (u - 128),
        luma + 2.018 * (u - 128),
    )
    return np.stack(rgb, axis=2).round().clip(0, 255).astype(np.uint8)


@st.composite
def images(draw: st.DrawFn) -> dict[str, Any]:
    encoding = draw(st.sampled_from([*BYTES]))
    width, height = draw(st.integers(1, 24)), draw(st.integers(1, 18))
    width += width % 2 if ENCODINGS[encoding].pairs else 0
    height += height % 2 if ENCODINGS[encoding].planar else 0
    count, row = height * 3 // 2 if encoding[:2] == 'nv' else height, width * BYTES[encoding]
    step = row + draw(st.integers(0, 9))
    seed = draw(st.integers(0, 2**32 - 1))
    padded = np.random.default_rng(seed).integers(0, 256, (count, step), dtype=np.uint8)
    big = draw(st.booleans())
    if '16' in encoding and draw(st.booleans()):
        # the 12 bits of a sensor whose driver does not shift them up
        high = 0 if big else 1
        padded[:, :row][:, high::2] &= 15
    return {
        'rows': padded[:, :row], 'data': padded.ravel(), 'encoding': encoding, 'width': width,
        'height': height, 'step': step, 'is_bigendian': big,
    }  # fmt: skip


def test_a_dark_picture_of_a_camera_of_16_bits_stays_dark():
    depth, of_files, found = BitDepth(), BitDepth(), []
    # one picture may be damaged, three in a row are not
    for largest in (3000, 4096, 3000, *[60_000] * 3, 3000):
        values = np.full((4, 6), largest, np.uint16)
        raw, _ = decode_raw(
            values.tobytes(), encoding='mono16', width=6, height=4, step=12, depth=depth
        )
        png = cv2.imencode('.png', values)[1].tobytes()
        file, _ = decode_file(png, 'mono16; png compressed mono16', depth=of_files)
        assert (raw == file).all()
        found.append(int(raw.max()))
    assert found == [3000 >> 4, 4096 >> 8, 3000 >> 4, *[60_000 >> 8] * 3, 3000 >> 8]


@settings(max_examples=300)
@given(images())
def test_decoding_equals_a_plain_reference(image):
    rows = image.pop('rows')
    encoding, width, height = image['encoding'], image['width'], image['height']
    pixels, order = decode_raw(**image)
    assert pixels.shape == (height, width, 3) and pixels.dtype == np.uint8
    assert order in ('rgb', 'bgr')
    if encoding in ('rgb8', 'bgr8', '8UC3'):
        # colours are looked at where they lie
        assert np.shares_memory(pixels, image['data']) and not pixels.flags.writeable
    rgb = pixels if order == 'rgb' else pixels[:, :, ::-1]
    wanted = reference(rows, encoding, width, height, image['is_bigendian'])
    # YUV is rounded once there, twice here
    tolerance = 2 if encoding[:3] in ('uyv', 'yuv', 'yuy', 'nv1', 'nv2') else 0
    assert np.abs(rgb.astype(int) - wanted).max() <= tolerance


@pytest.mark.parametrize('encoding', BAYER)
@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize(
    ('height', 'width', 'color'),
    [
        (6, 9, (200, 120, 30)), (3, 3, (9, 99, 250)), (2, 2, (200, 120, 30)),
        (2, 7, (200, 120, 30)), (5, 2, (200, 120, 30)),
        # one row knows two colours only
        (1, 1, (120,) * 3), (1, 7, (120,) * 3),
    ],
)  # fmt: skip
def test_a_mosaic_of_one_colour_has_that_colour(encoding, big, height, width, color):
    cells = np.reshape([color['rgb'.index(name)] for name in encoding[6:10]], (2, 2))
    mosaic = np.tile(cells, (3, 5))[:height, :width]
    stored = mosaic << 8 if encoding.endswith('16') else mosaic
    data = stored.astype(f'{">" if big else "<"}u{BAYER[encoding]}').tobytes()
    pixels, order = decode_raw(
        data, encoding=encoding, width=width, height=height, step=width * BAYER[encoding],
        is_bigendian=big,
    )  # fmt: skip
    assert order == 'rgb' and pixels.shape == (height, width, 3)
    assert (pixels == color).all()


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'encoding': '32FC1'}, r"'32FC1' is not supported; depth is no picture; name the"),
        ({'encoding': 'i420'}, r"'i420' is not supported; publish one of rgb8, bgr8"),
        ({'encoding': ''}, r"encoding '' is not supported"),
        ({'width': 0}, '0×2 pixels'),
        ({'height': 0}, '4×0 pixels'),
        ({'step': 11}, 'step is 11 bytes, but a row of 4 rgb8 pixels has 12'),
        ({'step': 13}, 'data holds 24 bytes, but 2 rows of step 13 make 26'),
        ({'data': bytes(23)}, 'data holds 23 bytes'),
        ({'data': bytes(25)}, 'data holds 25 bytes'),
        ({'data': b''}, 'data holds 0 bytes'),
        ({'width': 2**32 - 1, 'step': 2**32 - 1}, 'a row of 4294967295'),
        ({'encoding': 'uyvy', 'width': 3, 'step': 12}, '3×2 pixels, but uyvy shares'),
        ({'encoding': 'nv12', 'height': 3, 'step': 8}, '4×3 pixels, but nv12 shares'),
        ({'encoding': 'mono8', 'width': 8192, 'height': 8193, 'step': 8192,
          'data': bytes(8192 * 8193)}, '8192×8193 pixels, which is more than'),
    ],
)  # fmt: skip
def test_a_broken_image_is_refused_with_what_is_wrong(change, words):
    good = {'data': bytes(24), 'encoding': 'rgb8', 'width': 4, 'height': 2, 'step': 12}
    decode_raw(**good)
    with pytest.raises(FrameError, match=words):
        decode_raw(**(good | change))


# -- compressed ------------------------------------------------------------------------------


def photo(height: int = 40, width: int = 60, seed: int = 0) -> Pixels:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height)), np.uint8)


def packed(picture: Pixels, suffix: str) -> bytes:
    return cv2.imencode(suffix, picture)[1].tobytes()


@settings(max_examples=50)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    suffix=st.sampled_from(['.png', '.bmp', '.tiff', '.jpg', '.webp']),
    gray=st.booleans(),
)
def test_files_are_read_as_they_were_written(height, width, suffix, gray):
    picture = photo(height, width)
    sent = picture[:, :, 0] if gray else picture
    content = packed(sent, suffix)
    pixels, order = decode_file(content)
    assert (pixels.shape, order) == ((height, width, 3), 'bgr')
    if suffix in ('.png', '.bmp', '.tiff'):
        wanted = sent[:, :, None] if gray else sent
        np.testing.assert_array_equal(pixels, np.broadcast_to(wanted, pixels.shape))


def test_a_tiff_of_64_bits_is_read():
    stream = io.BytesIO()
    PIL.Image.fromarray(photo()).save(stream, 'TIFF', big_tiff=True)
    np.testing.assert_array_equal(decode_file(stream.getvalue())[0][..., ::-1], photo())


def test_a_mosaic_packed_as_such_is_put_into_colour():
    mosaic = photo()[:, :, 0]
    wanted, order = decode_raw(
        mosaic.tobytes(), encoding='bayer_grbg8', width=60, height=40, step=60
    )
    content = packed(mosaic, '.png')
    for how in ('bayer_grbg8; png compressed bayer_grbg8', 'bayer_grbg8; png compressed '):
        pixels, packed_order = decode_file(content, how)
        assert packed_order == order
        np.testing.assert_array_equal(pixels, wanted)
    gray, _ = decode_file(content, 'mono8; png compressed mono8')
    np.testing.assert_array_equal(gray[:, :, 0], mosaic)
    already, order = decode_file(packed(photo(), '.png'), 'bayer_grbg8; png compressed bgr8')
    assert order == 'bgr'
    np.testing.assert_array_equal(already, photo())


@pytest.mark.parametrize('top', [4095, 65535])
@pytest.mark.parametrize('how', ['mono16; png compressed ', '', 'bayer_grbg16; '])
def test_16_bits_are_read_alike_packed_and_raw(how, top):
    encoding = how.partition(';')[0] or 'mono16'
    values = (photo()[:, :, 0].astype(int) * top // 255).astype('<u2')
    wanted, _ = decode_raw(values.tobytes(), encoding=encoding, width=60, height=40, step=120)
    np.testing.assert_array_equal(decode_file(packed(values, '.png'), how)[0], wanted)


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_a_picture_that_was_cut_off_or_damaged_is_refused(suffix):
    content = packed(photo(), suffix)
    for share in (0.0, 0.02, 0.3, 0.9, 0.999):
        with pytest.raises(FrameError, match='cannot be decoded'):
            decode_file(content[: int(len(content) * share)])
    damaged = bytearray(content)
    # a JPEG has no checksums: without its tables nothing can be decoded
    damaged[len(content) // 2 if suffix == '.png' else content.find(b'\xff\xc4') + 4] ^= 0xF0
    with pytest.raises(FrameError, match='cannot be decoded: .*damaged'):
        decode_file(damaged)


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_a_picture_that_claims_too_many_pixels_is_never_unpacked(suffix):
    content = bytearray(packed(photo(), suffix))
    at, form = (16, '>II') if suffix == '.png' else (content.find(b'\xff\xc0') + 5, '>HH')
    struct.pack_into(form, content, at, 65000, 65000)
    if suffix == '.png':
        struct.pack_into('>I', content, 29, zlib.crc32(content[12:29]))
    with pytest.raises(FrameError, match=str(MAX_PIXELS)):
        decode_file(bytes(content))


# -- headers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'', 'there are no bytes'),
        (b'GIF89a', 'they begin with 47 49 46 38'),
        (bytes(4) + b'ftypheic', 'they are HEIC, AVIF or MP4'),
        (b'MM\0*', 'damaged'),
    ],
)
def test_what_is_no_picture_is_told(content, words):
    with pytest.raises(FrameError, match=f'cannot be decoded: .*{words}'):
        decode_file(content)


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack('>BBH', 0xFF, marker, 2 + len(body)) + body


def jpeg(*pieces: bytes, end: bytes = b'\xff\xd9') -> bytes:
    return b'\xff\xd8' + b''.join(pieces) + end


def frame_of(height: int, width: int, marker: int = 0xC0) -> bytes:
    return segment(marker, struct.pack('>BHH', 8, height, width))


SCAN = segment(0xDA, bytes(6)) + b'coded'


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        # markers without a length may stand anywhere
        *(
            (jpeg(a, segment(0xE0, b'JFIF'), a, frame_of(40, 60), a, SCAN, a), '')
            for a in (b'\xff', b'\xff\x01', b'\xff\xd0', b'\xff\xd7')
        ),
        (jpeg(frame_of(4, 6), SCAN, end=b''), 'cut off'),
        # the end of a thumbnail in front is none, and that of a comment between scans
        (jpeg(frame_of(4, 6), SCAN, segment(0xFE, b'\xff\xd9'), SCAN, end=b''), 'cut off'),
        (jpeg(segment(0xE1, b'\xff\xd9'), frame_of(4, 6), SCAN, end=b''), 'cut off'),
        (jpeg(frame_of(4, 6)), 'cut off'),
        (jpeg(segment(0xE0, bytes(99)))[:-50], 'cut off'),
        (jpeg(frame_of(4, 6))[:-3], 'cut off'),
        # 32 scans of 4096×4096 pixels are the most
        (jpeg(frame_of(8192, 8192), SCAN), ''),
        *((jpeg(frame_of(4096, 4096, m), *[SCAN] * 32), '') for m in (0xC1, 0xC2, 0xCF)),
        *((jpeg(frame_of(4096, 4096, m), *[SCAN] * 33), '33 times') for m in (0xC1, 0xC2, 0xCF)),
        # Huffman tables, an extension and arithmetic coding begin no frame
        *(
            (jpeg(frame_of(4, 4), frame_of(4096, 4096, m), *[SCAN] * 33), '')
            for m in (0xC4, 0xC8, 0xCC)
        ),
        (jpeg(*[segment(0xFE, b'')] * 10_001, frame_of(4, 6), SCAN), 'more than 10000 segments'),
        # a comment between scans hides none of them
        (jpeg(frame_of(4096, 4096), SCAN, segment(0xFE, b'\xff\xd9'), *[SCAN] * 32), '33 times'),
    ],
    ids=range(22),
)
def test_a_jpeg_needs_an_end_and_has_few_scans(content, words):
    with pytest.raises(ValueError, match=words) if words else contextlib.nullcontext():
        check_picture(content)


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp', '.bmp'])
def test_what_lies_behind_the_picture_does_not_count(suffix):
    """Phones append a video or a second picture."""
    content = packed(photo(), suffix)
    behind = jpeg(frame_of(8192, 8192), *[SCAN] * 99)
    np.testing.assert_array_equal(decode_file(content + behind)[0], decode_file(content)[0])
    check_picture(jpeg(frame_of(4096, 4096), SCAN) + behind)


@pytest.mark.parametrize('orientation', range(10))
@pytest.mark.parametrize('suffix', ['JPEG', 'PNG', 'WEBP'])
def test_a_file_is_upright_and_a_message_as_it_is(suffix, orientation):
    exif = PIL.Image.Exif()
    exif[0x112] = orientation
    blocks = np.kron(photo(4, 6), np.ones((16, 16, 1), np.uint8))
    stream = io.BytesIO()
    lossless: dict[str, Any] = {} if suffix == 'JPEG' else {'lossless': True}
    PIL.Image.fromarray(blocks).save(stream, suffix, exif=exif, quality=100, **lossless)
    upright = PIL.ImageOps.exif_transpose(PIL.Image.open(stream)).convert('RGB')
    for wanted, turned in ((np.asarray(upright), True), (blocks, False)):
        found, order = decode_file(stream.getvalue(), upright=turned)
        assert order == 'bgr' and found.shape == wanted.shape
        assert np.abs(found[..., ::-1].astype(int) - wanted).mean() < 8
