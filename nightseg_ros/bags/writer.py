# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Write rosbag2 bags (MCAP or sqlite3) of images and masks, without ROS; whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import (
    CompressionFormat,
    CompressionMode,
    StoragePlugin,
    Writer,
    WriterError,
)
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from nightseg_ros.bags.reader import METADATA, BagError, Channel, StorageFile
from nightseg_ros.clouds.camera_model import Calibration
from nightseg_ros.clouds.geometry import Matrix, quaternion
from nightseg_ros.clouds.point_cloud import Cloud
from nightseg_ros.config import load_yaml
from nightseg_ros.files import uri_path
from nightseg_ros.outputs import check_output
from nightseg_ros.perception.frame import Frame

Storage = Literal['mcap', 'sqlite3']
_PLUGINS = {'mcap': StoragePlugin.MCAP, 'sqlite3': StoragePlugin.SQLITE3}
#: What lies beside a bag until it is finished.
PARTIAL = '.partial'
#: In a bag's ``custom_data``: a bag that somebody recorded is never replaced.
_MARK = {'written_by': 'nightseg'}
#: Where an old bag lies for the moment in which the new one gets its name.
_REPLACED = 'replaced'
_FAULTS = (OSError, WriterError, sqlite3.Error)


def reliable_qos(*, latched: bool = False) -> Qos:
    """Return what the node offers on its topics, for players that publish as was recorded."""
    never = QosTime(sec=9223372036, nsec=854775807)
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=1,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=never,
        lifespan=never,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=never,
        avoid_ros_namespace_conventions=False,
    )


class _DatabaseWriter(Sqlite3Writer):
    """A database by its path, which the class beneath puts into a URI as it is."""

    def __init__(self, path: Path, compression: CompressionMode) -> None:
        super().__init__(uri_path(path), compression)
        self.path = path / f'{path.name}.db3'


class _Writer(Writer):
    STORAGE_PLUGINS = {**Writer.STORAGE_PLUGINS, StoragePlugin.SQLITE3: _DatabaseWriter}


def check_bag(path: Path, inputs: Iterable[str | Path] = (), *, force: bool) -> None:
    """Raise ``BagError`` unless a bag may be written to ``path``, see ``check_output``."""
    check_output(path, 'a bag', is_own_bag, inputs=inputs, force=force, error=BagError)


class BagWriter:
    """
    Write a bag as a folder; it appears under its name only when the ``with`` block ends well.

    Until then everything lies in ``NAME.partial`` beside it, which an error removes, unless
    ``keep`` is set, and a killed process leaves behind; what is in there can be read like any
    damaged bag. ``BagError`` where the bag or such a rest of one exists and ``force`` is not set,
    and with it where that is not what this class wrote or touches one of ``inputs``.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        storage: Storage = 'mcap',
        compress: bool = False,
        force: bool = False,
        keep: bool = False,
        inputs: Iterable[str | Path] = (),
    ) -> None:
        """
        Check the name and begin.

        ``compress`` packs the chunks of an MCAP file with zstd, which makes masks small; the
        messages of a sqlite3 file it packs one by one. ``keep`` leaves after an error what there
        is.
        """
        self.path = Path(path)
        if self.path.name in ('', '..'):
            raise BagError(f"'{self.path}' is no name for a bag; give a folder of its own")
        self.partial = self.path.with_name(f'{self.path.name}{PARTIAL}')
        if storage not in _PLUGINS:
            raise BagError(f"storage must be one of {list(_PLUGINS)}, got '{storage}'")
        if _is_rest(self.partial):
            self._restore()
        check_bag(self.path, inputs, force=force)
        if os.path.lexists(self.partial):
            if not force:
                raise BagError(
                    f"'{self.partial}' holds what an interrupted write left, or another one is "
                    'writing; remove it, give another name or --force'
                )
            check_output(
                self.partial, 'what an interrupted write left', _is_rest, inputs=inputs,
                error=BagError,
            )  # fmt: skip
            shutil.rmtree(self.partial)
        self._keep = keep
        self._types = _ros2_types()
        self._connections: dict[tuple[str, str], Connection] = {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # the storage file is named after the folder that it lies in, so that one has its own name
        self._inner = self.partial / _file_stem(self.path.name)
        self._writer = _Writer(self._inner, version=9, storage_plugin=_PLUGINS[storage])
        for key, value in _MARK.items():
            self._writer.set_custom_data(key, value)
        if compress:
            mode = CompressionMode.STORAGE if storage == 'mcap' else CompressionMode.MESSAGE
            self._writer.set_compression(mode, CompressionFormat.ZSTD)
        try:
            self._writer.open()
        except _FAULTS as error:
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
            self._check_whole()
            if os.path.lexists(self.path):
                # the old bag goes only when the new one is there in full
                self.path.rename(self.partial / _REPLACED)
            self._inner.rename(self.path)
        except (*_FAULTS, BagError) as error:
            self.abort()
            raise BagError(f"bag '{self.path}' cannot be finished: {error}") from error
        shutil.rmtree(self.partial, ignore_errors=True)

    def abort(self) -> None:
        """Stop, and remove what was written unless it is to be kept."""
        # a full disk refuses the last bytes as well
        with contextlib.suppress(Exception):
            self._writer.abort()
        self._restore()
        if not self._keep:
            shutil.rmtree(self.partial, ignore_errors=True)

    def _restore(self) -> None:
        """Put an old bag back whose place the new one has not taken."""
        replaced = self.partial / _REPLACED
        if os.path.lexists(replaced) and not os.path.lexists(self.path):
            replaced.rename(self.path)

    def _check_whole(self) -> None:
        """Raise ``BagError`` unless the file is there and holds what was written."""
        wanted = sum(self._writer.counts.values())
        files = [path for path in self._inner.iterdir() if StorageFile.fits(path)]
        contents = [StorageFile(path).contents() for path in files]
        found = sum(sum(content.counts.values()) for content in contents)
        if len(files) != 1 or contents[0].damage or found != wanted:
            raise BagError(f'{wanted} messages were written, {found} are in its file')

    def add_topic(self, channel: Channel) -> None:
        """
        Announce a topic with its quality of service, as another bag or the node has it.

        ``BagError`` where its type is neither known here nor described by the channel.
        """
        key = (channel.topic, channel.type)
        if key in self._connections:
            return
        definition, digest = _described(self._types, channel)
        try:
            self._connections[key] = self._writer.add_connection(
                channel.topic, channel.type, msgdef=definition, rihs01=digest,
                offered_qos_profiles=channel.qos,
            )  # fmt: skip
        except _FAULTS as error:
            raise BagError(
                f"bag '{self.path}': topic '{channel.topic}' cannot be added: {error}"
            ) from error

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

    def write_status(
        self,
        topic: str,
        *,
        stamp_ns: int,
        frame_id: str,
        level: int,
        name: str,
        message: str,
        hardware_id: str,
        values: dict[str, str],
        received_ns: int,
    ) -> None:
        """Write a diagnostic_msgs/DiagnosticArray of one status; ``level`` is 0 OK, 1 WARN, …."""
        types = self._types.types
        status = types['diagnostic_msgs/msg/DiagnosticStatus'](
            level=level, name=name, message=message, hardware_id=hardware_id,
            values=[
                types['diagnostic_msgs/msg/KeyValue'](key=key, value=value)
                for key, value in values.items()
            ],
        )  # fmt: skip
        array = types['diagnostic_msgs/msg/DiagnosticArray'](
            header=self._header(stamp_ns, frame_id), status=[status]
        )
        self._write(topic, array, received_ns)

    def write_cloud(
        self, topic: str, cloud: Cloud, *, stamp_ns: int, frame_id: str,
        received_ns: int | None = None,
    ) -> None:  # fmt: skip
        """Write a sensor_msgs/PointCloud2."""
        field = self._types.types['sensor_msgs/msg/PointField']
        self.write_stamped(
            topic, 'sensor_msgs/msg/PointCloud2', stamp_ns=stamp_ns, frame_id=frame_id,
            received_ns=received_ns, height=cloud.height, width=cloud.width,
            fields=[
                field(name=f.name, offset=f.offset, datatype=f.datatype, count=f.count)
                for f in cloud.fields
            ],
            is_bigendian=cloud.is_bigendian, point_step=cloud.point_step,
            row_step=cloud.row_step, data=cloud.data, is_dense=cloud.is_dense,
        )  # fmt: skip

    def write_calibration(
        self, topic: str, calibration: Calibration, *, stamp_ns: int, frame_id: str
    ) -> None:
        """Write a sensor_msgs/CameraInfo."""
        x, y, width, height = calibration.roi
        roi = self._types.types['sensor_msgs/msg/RegionOfInterest'](
            x_offset=x, y_offset=y, width=width, height=height, do_rectify=False
        )
        self.write_stamped(
            topic, 'sensor_msgs/msg/CameraInfo', stamp_ns=stamp_ns, frame_id=frame_id,
            width=calibration.width, height=calibration.height,
            distortion_model=calibration.distortion_model, d=np.array(calibration.d, np.float64),
            k=np.array(calibration.k), r=np.eye(3).reshape(-1), p=np.array(calibration.p),
            binning_x=calibration.binning[0], binning_y=calibration.binning[1], roi=roi,
        )  # fmt: skip

    def write_depth(
        self, topic: str, depth: npt.NDArray[np.float32], *, stamp_ns: int, frame_id: str
    ) -> None:
        """Write float32 [H, W] metres as 32FC1 (REP-118)."""
        height, width = depth.shape
        data = np.ascontiguousarray(depth, '<f4').view(np.uint8).reshape(-1)
        self.write_stamped(
            topic, 'sensor_msgs/msg/Image', stamp_ns=stamp_ns, frame_id=frame_id, height=height,
            width=width, encoding='32FC1', is_bigendian=0, step=4 * width, data=data,
        )  # fmt: skip

    def write_transforms(
        self, topic: str, transforms: Sequence[tuple[str, str, Matrix]], *, stamp_ns: int
    ) -> None:
        """Write a tf2_msgs/TFMessage of parent, child and parent_from_child."""
        types = self._types.types
        items = []
        for parent, child, matrix in transforms:
            place, turn = matrix[:3, 3], quaternion(matrix)
            items.append(types['geometry_msgs/msg/TransformStamped'](
                header=self._header(stamp_ns, parent), child_frame_id=child,
                transform=types['geometry_msgs/msg/Transform'](
                    translation=types['geometry_msgs/msg/Vector3'](**dict(zip('xyz', place))),
                    rotation=types['geometry_msgs/msg/Quaternion'](**dict(zip('xyzw', turn))),
                ),
            ))  # fmt: skip
        self._write(topic, types['tf2_msgs/msg/TFMessage'](transforms=items), stamp_ns)

    def write_stamped(
        self, topic: str, kind: str, *, stamp_ns: int, frame_id: str,
        received_ns: int | None = None, **fields: Any,
    ) -> None:  # fmt: skip
        """Write a message of a type with a header, its other fields being given by name."""
        message = self._types.types[kind](header=self._header(stamp_ns, frame_id), **fields)
        self._write(topic, message, stamp_ns if received_ns is None else received_ns)

    def write_value(self, topic: str, value: float | str, received_ns: int) -> None:
        """Write a std_msgs/Float32 or std_msgs/String."""
        kind = 'std_msgs/msg/String' if isinstance(value, str) else 'std_msgs/msg/Float32'
        self._write(topic, self._types.types[kind](data=value), received_ns)

    def write_serialized(self, topic: str, type: str, data: bytes, received_ns: int) -> None:
        """Write a message as ROS 2 serialised it (CDR), such as a recorder has it."""
        connection = self._connections.get((topic, type))
        if connection is None:
            self.add_topic(Channel(topic=topic, type=type))
            connection = self._connections[topic, type]
        try:
            self._writer.write(connection, received_ns, data)
        except _FAULTS as error:
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


def _file_stem(name: str) -> str:
    """Return a bag's name as any reader takes it: UTF-8, and nothing that means more in a URI."""
    return re.sub(r'[#?%\x00-\x1f\ufffd]', '_', os.fsencode(name).decode('utf-8', 'replace'))


def is_own_bag(folder: Path) -> bool:
    """Tell a bag that this module wrote, without anything else in its folder."""
    try:
        text = (folder / METADATA).read_text(encoding='utf-8')
        information = load_yaml(text, aliases=True)['rosbag2_bagfile_information']
        names = {METADATA, *information['relative_file_paths']}
        marked = information['custom_data'].items() >= _MARK.items()
        return bool(marked) and {path.name for path in folder.iterdir()} <= names
    # somebody else's YAML may be of any shape
    except Exception:
        return False


def _is_rest(partial: Path) -> bool:
    """Tell what an interrupted write left: a bag's folder, maybe the one that it replaces."""
    if partial.is_symlink() or not partial.is_dir():
        return False
    inner = _file_stem(partial.name.removesuffix(PARTIAL))
    for folder in partial.iterdir():
        if folder.is_symlink() or folder.name not in (inner, _REPLACED) or not folder.is_dir():
            return False
        files = {f'{inner}.mcap', f'{inner}.db3', f'{inner}.db3-journal', METADATA}
        files.add(f'{METADATA}.tmp')
        left = {path.name for path in folder.iterdir()}
        if not (is_own_bag(folder) or (folder.name == inner and left <= files)):
            return False
    return True


@lru_cache
def _ros2_types() -> Typestore:
    return get_typestore(Stores.ROS2_JAZZY)


def _described(types: Typestore, channel: Channel) -> tuple[str, str]:
    """Return definition and hash of a topic's type."""
    try:
        if channel.type in types.fielddefs:
            definition, _ = types.generate_msgdef(channel.type, ros_version=2)
            return definition, types.hash_rihs01(channel.type)
        if not channel.definition:
            raise KeyError(channel.type)
        if channel.digest.startswith('RIHS01'):
            return channel.definition, channel.digest
        own = get_typestore(Stores.ROS2_JAZZY)
        own.register(get_types_from_msg(channel.definition, channel.type))
        return channel.definition, own.hash_rihs01(channel.type)
    # the parser beneath fails in many ways over a definition that it does not know
    except Exception as error:
        raise BagError(
            f"topic '{channel.topic}' is of type '{channel.type}', which is not known here"
        ) from error


__all__ = ['PARTIAL', 'BagWriter', 'Storage', 'check_bag', 'is_own_bag', 'reliable_qos']
