# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What reads bytes from outside, as functions of bytes for fuzzers, with small whole samples.

A target returns where its bytes were read or refused with the error that its reader promises, and
raises anything else, an ``AssertionError`` where what was read contradicts itself.
"""

import atexit
from collections.abc import Callable
from contextlib import closing, suppress
from functools import cache, partial
import itertools
import json
from pathlib import Path
import sqlite3
import struct
import tempfile
import zlib

from bag_samples import write_bag
import cv2
from nightseg_ros.bags.reader import BagError, BagReader
from nightseg_ros.config import ConfigError, from_mapping, read_yaml, to_mapping
from nightseg_ros.data import SynthesisConfig
from nightseg_ros.perception.frame import decode_file, decode_raw, ENCODINGS, Frame, FrameError
from nightseg_ros.perception.pipeline import PipelineConfig
from nightseg_ros.training.segmenter import SegmenterConfig
from nightseg_ros.weights import load_weights, save_weights, WeightsError, WeightsMetadata
import numpy as np
import yaml

#: Messages that are read of a topic: none of the samples, cut and doubled as may be, has more.
MOST = 64

_RAW = struct.Struct('<BBHHI')
_NAMES = [*ENCODINGS, 'i420', '', '32FC1', 'bayer_rggb8 ']
_LAYOUTS = ('', 'jpeg', 'bgr8; jpeg compressed bgr8', 'bayer_rggb8; png compressed', ';', 'png')
_PNG = b'\x89PNG\r\n\x1a\n'
#: Height and width of the frames in the sampled bags: the smaller, the more is tried.
_SIZE = (4, 6)
_CONFIGS = (PipelineConfig, SegmenterConfig, SynthesisConfig)


def raw(data: bytes) -> None:
    """Read a head of encoding, flags, width, height and step, then the rows."""
    size = _RAW.size
    if len(data) < size:
        return
    name, flags, width, height, step = _RAW.unpack_from(data)
    encoding = _NAMES[name % len(_NAMES)]
    rows = data[size:]
    if flags & 2 and encoding in ENCODINGS:
        # sizes that fit each other, which a fuzzer hardly ever finds
        width, height = 1 + width % 40, 1 + height % 40
        step = width * ENCODINGS[encoding].pixel_bytes + step % 8
        wanted = step * ENCODINGS[encoding].rows(height)
        rows = (rows * (wanted // len(rows) + 1))[:wanted] if rows else bytes(wanted)
    try:
        image, order = decode_raw(
            rows, encoding=encoding, width=width, height=height, step=step,
            is_bigendian=bool(flags & 1),
        )  # fmt: skip
    except FrameError:
        return
    _check_image(image, height, width, order)


def packed(data: bytes) -> None:
    """Read a byte for the format that the message names, then the picture."""
    layout = _LAYOUTS[data[0] % len(_LAYOUTS)] if data else ''
    content = data[1:]
    if data and data[0] & 128 and content.startswith(_PNG):
        content = _mended(content)
    try:
        image, order = decode_file(content, layout)
    except FrameError:
        return
    _check_image(image, *image.shape[:2], order)


def bag_folder(data: bytes) -> None:
    """Read the metadata.yaml of a whole bag."""
    folder = _scratch() / 'bag'
    if not folder.exists():
        storage = write_bag(_scratch(), 'mcap', range(2), name='bag', size=_SIZE)
        storage.rename(folder / 'bag.mcap')
    (folder / 'metadata.yaml').write_bytes(data)
    _read_bag(folder)


def config(data: bytes) -> None:
    """Read a byte for the kind of config, then YAML."""
    kind = _CONFIGS[data[0] % len(_CONFIGS)] if data else PipelineConfig
    file = _scratch() / 'config.yaml'
    file.write_bytes(data[1:])
    try:
        built = from_mapping(kind, read_yaml(file))
    except ConfigError as error:
        assert len(str(error)) < 20_000, 'nobody reads so long a message'
        return
    # a NaN is not equal to itself
    assert repr(from_mapping(kind, to_mapping(built))) == repr(built)


def weights(data: bytes) -> None:
    """Read a weights file; with an odd first byte the rest is JSON that becomes its metadata."""
    content = data[1:]
    if data and data[0] & 1:
        header = {
            '__metadata__': {'nightseg': content.decode(errors='replace')},
            'weight': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]},
        }
        text = json.dumps(header).encode()
        content = struct.pack('<Q', len(text)) + text + bytes(8)
    file = _scratch() / 'weights.safetensors'
    file.write_bytes(content)
    try:
        found = load_weights(file)
    except WeightsError:
        return
    assert sum(tensor.nbytes for tensor in found.tensors.values()) <= 2 * len(content)


def bag(suffix: str, data: bytes) -> None:
    """Read a bag of one file: MCAP, the database of a rosbag2, or ROS 1."""
    file = _scratch() / f'bag{suffix}'
    file.write_bytes(data)
    _read_bag(file)


def _read_bag(path: Path) -> None:
    try:
        with BagReader(path) as reader:
            for topic in reader.topics:
                if topic in reader.image_topics:
                    for *_, frame in itertools.islice(reader.merged_frames([topic]), MOST):
                        if isinstance(frame, Frame):
                            _check_image(frame.image, *frame.image.shape[:2], frame.order)
                else:
                    for message in itertools.islice(reader.messages(topic), MOST):
                        with suppress(BagError):
                            reader.read(message)
                reader.read_error([topic])
            assert all(text and len(text) < 2000 for text in reader.read_errors())
    except BagError:
        return


def _check_image(image: np.ndarray, height: int, width: int, order: str) -> None:
    assert image.dtype == np.uint8 and image.shape == (height, width, 3), image.shape
    assert order in ('rgb', 'bgr')
    # every byte can be read: a view beyond its buffer would be found here
    assert int(image.max()) <= 255


def _mended(content: bytes) -> bytes:
    """Return a PNG with the checksums that its chunks should have."""
    result, at = content[:8], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack_from('>I', content, at)
        chunk = content[at:][: 8 + length]
        result += chunk + struct.pack('>I', zlib.crc32(chunk[4:]))
        at += 12 + length
    return result


@cache
def _scratch() -> Path:
    """Return a folder for the files that are read; it goes with the process."""
    folder = tempfile.TemporaryDirectory(prefix='nightseg-fuzz-')
    atexit.register(folder.cleanup)
    return Path(folder.name)


# -- samples ---------------------------------------------------------------------------------


def _raw_samples(folder: Path) -> list[bytes]:
    rows = bytes(range(256))
    return [
        _RAW.pack(number, flags, 6, 4, 2) + rows
        for number in range(len(_NAMES))
        for flags in (0, 2, 3)
    ]


def _packed_samples(folder: Path) -> list[bytes]:
    picture = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    found = []
    for suffix, options in (
        ('.jpg', [cv2.IMWRITE_JPEG_QUALITY, 60]),
        ('.jpg', [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        ('.png', []),
        ('.bmp', []),
        ('.webp', [cv2.IMWRITE_WEBP_QUALITY, 50]),
        ('.webp', [cv2.IMWRITE_WEBP_QUALITY, 101]),
    ):
        for pixels in (picture, picture[..., 0]):
            content = cv2.imencode(suffix, pixels, options)[1].tobytes()
            found += [bytes((first,)) + content for first in (0, 1, 3, 128)]
    return found


def _bag_samples(kinds: tuple[str, ...], folder: Path) -> list[bytes]:
    found = []
    for kind in kinds:
        storage = write_bag(folder, kind, range(2), name=kind, size=_SIZE)
        if kind.startswith('sqlite3'):
            with closing(sqlite3.connect(storage, isolation_level=None)) as database:
                # small pages make small files
                database.execute('PRAGMA page_size = 512')
                database.execute('VACUUM')
        found.append(storage.read_bytes())
    return found


def _folder_samples(folder: Path) -> list[bytes]:
    storage = write_bag(folder, 'mcap', range(2), name='bag', size=_SIZE)
    content = yaml.safe_load((storage.parent / 'metadata.yaml').read_text(encoding='utf-8'))
    return [yaml.safe_dump(content, default_flow_style=flow).encode() for flow in (False, True)]


def _config_samples(folder: Path) -> list[bytes]:
    found = []
    given = {'data': ['folder:a'], 'out': 'b'}
    for number, kind in enumerate(_CONFIGS):
        mapping = to_mapping(from_mapping(kind, given if number else {}))
        found += [
            bytes((number,)) + yaml.safe_dump(mapping, default_flow_style=flow).encode()
            for flow in (False, True)
        ]
    return found


def _weights_samples(folder: Path) -> list[bytes]:
    import torch

    file = folder / 'sample.safetensors'
    metadata = WeightsMetadata(network='patchgan', arch={'ndf': 1}, training={'seed': 1})
    tensors = {'a': torch.ones(2, 3), 'b': torch.zeros(4, dtype=torch.int64)}
    save_weights(file, tensors, metadata)
    text = json.dumps(to_mapping(metadata)).encode()
    half = folder / 'half.safetensors'
    save_weights(half, tensors, metadata, half=True)
    return [b'\0' + file.read_bytes(), b'\0' + half.read_bytes(), b'\1' + text]


#: Target and samples by name.
TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[Path], list[bytes]]]] = {
    'raw': (raw, _raw_samples),
    'packed': (packed, _packed_samples),
    'mcap': (
        partial(bag, '.mcap'),
        partial(_bag_samples, ('mcap', 'mcap-chunks', 'mcap-messages')),
    ),
    'sqlite3': (partial(bag, '.db3'), partial(_bag_samples, ('sqlite3', 'sqlite3-messages'))),
    'ros1': (partial(bag, '.bag'), partial(_bag_samples, ('ros1', 'ros1-lz4'))),
    'folder': (bag_folder, _folder_samples),
    'config': (config, _config_samples),
    'weights': (weights, _weights_samples),
}


def samples(name: str) -> list[bytes]:
    """Return small whole inputs of a target, made now."""
    with tempfile.TemporaryDirectory(prefix='nightseg-') as folder:
        return TARGETS[name][1](Path(folder))
