# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Write rosbag2 bags (MCAP or sqlite3) of images and masks, without ROS; whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError
from rosbags.typesys import Stores, get_typestore

from nightseg_ros.bags.errors import BagError
from nightseg_ros.perception.frame import Frame

Storage = Literal['mcap', 'sqlite3']
_PLUGINS = {'mcap': StoragePlugin.MCAP, 'sqlite3': StoragePlugin.SQLITE3}


class BagWriter:
    """
    Write a bag as a folder; it appears under its name only when the ``with`` block ends well.

    Until then everything lies in a hidden folder beside it, which an error removes and a killed
    process leaves behind. ``BagError`` where the bag exists and ``force`` is not set.
    """

    def __init__(
        self, path: str | Path, *, storage: Storage = 'mcap', force: bool = False
    ) -> None:
        """Check the name; nothing is written before the first message."""
        self.path = Path(path)
        if storage not in _PLUGINS:
            raise BagError(f"storage must be one of {list(_PLUGINS)}, got '{storage}'")
        if self.path.exists() and not force:
            raise BagError(f"bag '{self.path}' exists; give another name or --force")
        self._types = get_typestore(Stores.ROS2_JAZZY)
        self._connections: dict[tuple[str, str], Connection] = {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._hidden = Path(
            tempfile.mkdtemp(dir=self.path.parent, prefix=f'.{self.path.name}.partial-')
        )
        # the storage file is named after the folder that it lies in, so that one has its own name
        self._writer = Writer(
            self._hidden / self.path.name, version=9, storage_plugin=_PLUGINS[storage]
        )
        try:
            self._writer.open()
        except (OSError, WriterError) as error:
            self.abort()
            raise BagError(f"bag '{self.path}' cannot be written: {error}") from error

    def __enter__(self) -> BagWriter:
        """Use it in a ``with`` block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the bag, or after an error remove what there is."""
        if kind is None:
            self.close()
        else:
            self.abort()

    def close(self) -> None:
        """Finish the bag and give it its name."""
        try:
            self._writer.close()
            if self.path.is_dir():
                shutil.rmtree(self.path)
            elif self.path.exists():
                self.path.unlink()
            (self._hidden / self.path.name).rename(self.path)
        except (OSError, WriterError) as error:
            self.abort()
            raise BagError(f"bag '{self.path}' cannot be finished: {error}") from error
        shutil.rmtree(self._hidden, ignore_errors=True)

    def abort(self) -> None:
        """Remove what was written."""
        self._writer.abort()
        shutil.rmtree(self._hidden, ignore_errors=True)

    def write_frame(self, topic: str, frame: Frame, *, received_ns: int | None = None) -> None:
        """Write a frame as sensor_msgs/Image, rgb8 or bgr8 as it is."""
        self.write_image(
            topic, frame.image, f'{frame.order}8', stamp_ns=frame.stamp_ns,
            frame_id=frame.frame_id, received_ns=received_ns,
        )  # fmt: skip

    def write_labels(
        self,
        topic: str,
        labels: npt.NDArray[np.uint8],
        *,
        stamp_ns: int,
        frame_id: str = '',
        received_ns: int | None = None,
    ) -> None:
        """Write uint8 [H, W] ids as mono8."""
        self.write_image(
            topic, labels, 'mono8', stamp_ns=stamp_ns, frame_id=frame_id, received_ns=received_ns
        )

    def write_image(
        self,
        topic: str,
        image: npt.NDArray[np.uint8],
        encoding: str,
        *,
        stamp_ns: int,
        frame_id: str = '',
        received_ns: int | None = None,
    ) -> None:
        """Write uint8 [H, W] or [H, W, 3] as sensor_msgs/Image without row padding."""
        height, width = image.shape[:2]
        pixels = np.ascontiguousarray(image, np.uint8)
        message = self._types.types['sensor_msgs/msg/Image'](
            header=self._header(stamp_ns, frame_id),
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=pixels.size // height,
            data=pixels.reshape(-1),
        )
        self._write(topic, message, stamp_ns if received_ns is None else received_ns)

    def write_compressed(
        self,
        topic: str,
        content: bytes,
        format: str,
        *,
        stamp_ns: int,
        frame_id: str = '',
        received_ns: int | None = None,
    ) -> None:
        """Write an encoded picture as sensor_msgs/CompressedImage; masks only ever as PNG."""
        message = self._types.types['sensor_msgs/msg/CompressedImage'](
            header=self._header(stamp_ns, frame_id),
            format=format,
            data=np.frombuffer(content, np.uint8),
        )
        self._write(topic, message, stamp_ns if received_ns is None else received_ns)

    def write_serialized(self, topic: str, type: str, data: bytes, received_ns: int) -> None:
        """Write a message as ROS 2 serialised it (CDR), such as a recorder has it."""
        connection = self._connections.get((topic, type))
        if connection is None:
            try:
                connection = self._writer.add_connection(topic, type, typestore=self._types)
            except Exception as error:
                raise BagError(
                    f"bag '{self.path}': topic '{topic}' of type '{type}' cannot be added: {error}"
                ) from error
            self._connections[topic, type] = connection
        try:
            self._writer.write(connection, received_ns, data)
        except OSError as error:
            raise BagError(f"bag '{self.path}' cannot be written: {error}") from error

    def _write(self, topic: str, message: Any, received_ns: int) -> None:
        type_name = message.__msgtype__
        self.write_serialized(
            topic, type_name, bytes(self._types.serialize_cdr(message, type_name)), received_ns
        )

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
        stamp = self._types.types['builtin_interfaces/msg/Time'](sec=seconds, nanosec=nanoseconds)
        return self._types.types['std_msgs/msg/Header'](stamp=stamp, frame_id=frame_id)
