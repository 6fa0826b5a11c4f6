# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Small bags of every kind, whose frames are known."""

from pathlib import Path

from nightseg_ros.bags.reader import BagReader
from nightseg_ros.perception.frame import Frame, FrameError
import numpy as np
from rosbags.rosbag1 import Writer as Rosbag1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Rosbag2Writer
from rosbags.typesys import get_typestore, Stores

TOPIC = '/front/image_raw'
START = 1_700_000_000_123_456_789
STEP = 100_000_000
COUNT = 12
#: Storage and compression; the messages of a chunk are written out before the next one begins.
KINDS = (
    'mcap', 'mcap-chunks', 'mcap-messages', 'mcap-file', 'sqlite3', 'sqlite3-messages',
    'sqlite3-file', 'ros1', 'ros1-lz4',
)  # fmt: skip
_MODES = {
    'chunks': CompressionMode.STORAGE,
    'messages': CompressionMode.MESSAGE,
    'file': CompressionMode.FILE,
}


def frames_of(bag: BagReader, name: str | None = TOPIC) -> list[Frame | FrameError]:
    return list(bag.frames(bag.image_topic(name)))


def picture(seed: int, height: int = 24, width: int = 36) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write_bag(
    folder: Path,
    kind: str,
    frames: range = range(COUNT),
    name: str = 'drive',
    size: tuple[int, int] = (24, 36),
) -> Path:
    """Write some frames of one camera, two a chunk; return the storage file."""
    base, _, mode = kind.partition('-')
    ros1 = base == 'ros1'
    types = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_JAZZY)
    if ros1:
        writer = Rosbag1Writer(folder / f'{name}.bag')
        if mode:
            writer.set_compression(Rosbag1Writer.CompressionFormat[mode.upper()])
    else:
        writer = Rosbag2Writer(
            folder / name, version=9, storage_plugin=StoragePlugin[base.upper()]
        )
        if mode:
            writer.set_compression(_MODES[mode], CompressionFormat.ZSTD)
    writer.open()
    connection = writer.add_connection(TOPIC, 'sensor_msgs/msg/Image', typestore=types)
    for index in frames:
        data = serialized(types, index, ros1, *size)
        writer.write(connection, START + index * STEP + 5_000_000, data)
        if base == 'mcap' and index % 2:
            writer.storage.close_chunk()
    writer.close()
    if ros1:
        return folder / f'{name}.bag'
    [storage] = [path for path in (folder / name).iterdir() if path.name != 'metadata.yaml']
    return storage


def serialized(types: object, index: int, ros1: bool, height: int, width: int) -> bytes:
    stamp = START + index * STEP
    header = types.types['std_msgs/msg/Header'](
        stamp=types.types['builtin_interfaces/msg/Time'](
            sec=stamp // 10**9, nanosec=stamp % 10**9
        ),
        frame_id='optical',
        **({'seq': index} if ros1 else {}),
    )
    image = picture(index, height, width)
    message = types.types['sensor_msgs/msg/Image'](
        header=header, height=height, width=width, encoding='rgb8', is_bigendian=0,
        step=3 * width, data=image.reshape(-1),
    )  # fmt: skip
    serialize = types.serialize_ros1 if ros1 else types.serialize_cdr
    return bytes(serialize(message, message.__msgtype__))
