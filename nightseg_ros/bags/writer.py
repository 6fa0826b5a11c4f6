# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Write rosbag2 bags (MCAP or sqlite3) of images and masks, without ROS; whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
import contextlib
from dataclasses import asdict
from functools import lru_cache
from io import BytesIO
import itertools
import os
from pathlib import Path
import re
import shutil
import sqlite3
import sys
from typing import Any, cast, Literal

from nightseg_ros.bags.reader import BagError, METADATA
from nightseg_ros.bags.storage import Channel, count_file, Message, storage_kind, typestore
from nightseg_ros.clouds.camera_model import Calibration
from nightseg_ros.clouds.geometry import Matrix, quaternion
from nightseg_ros.clouds.point_cloud import Cloud
from nightseg_ros.config import load_yaml
from nightseg_ros.files import LOG, uri_path
from nightseg_ros.outputs import check_output, locked
from nightseg_ros.perception.frame import Frame
import numpy as np
import numpy.typing as npt
from rosbags.interfaces import Connection, ConnectionExtRosbag2, Nodetype, Qos, QosTime
from rosbags.interfaces import QosDurability as Durability
from rosbags.interfaces import QosHistory as History
from rosbags.interfaces import QosLiveliness as Liveliness
from rosbags.interfaces import QosReliability as Reliability
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer, WriterError
from rosbags.rosbag2.storage_mcap import Channel as McapChannel
from rosbags.rosbag2.storage_mcap import (
    McapWriter,
    Schema,
    write_channel,
    write_schema,
    write_string,
)
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer
from rosbags.typesys import get_types_from_msg, get_typestore, Stores

Storage = Literal['mcap', 'sqlite3']
#: What lies beside a bag until it is finished.
PARTIAL = '.partial'
#: In a bag's ``custom_data``: a bag that somebody recorded is never replaced.
_MARK = {'written_by': 'nightseg'}
#: Where an old bag lies for the moment in which the new one gets its name.
_REPLACED = 'replaced'
#: Stands for the hash of a type that nobody knows; the library asks for one.
_NO_HASH = 'RIHS01_' + 64 * '0'


def reliable_qos(*, latched: bool = False) -> Qos:
    """Return what the node offers on its topics, for players that publish as was recorded."""
    never = QosTime(sec=9223372036, nsec=854775807)
    durability = Durability.TRANSIENT_LOCAL if latched else Durability.VOLATILE
    return Qos(
        history=History.KEEP_LAST, depth=1, reliability=Reliability.RELIABLE,
        durability=durability, deadline=never, lifespan=never, liveliness=Liveliness.AUTOMATIC,
        liveliness_lease_duration=never, avoid_ros_namespace_conventions=False,
    )  # fmt: skip


# -- the folder of a bag ---------------------------------------------------------------------


def check_bag_output(path: Path, inputs: Iterable[str | Path] = (), *, force: bool) -> None:
    """Raise ``BagError`` unless a bag may be written to ``path``, see ``check_output``."""
    if os.path.ismount(path):
        raise BagError(f"'{path}' is a mount point, which cannot be replaced; give a folder in it")
    check_output(
        path, 'a bag', is_own_bag, folder=True, inputs=inputs, force=force, error=BagError
    )


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
    stem = _file_stem(partial.name.removesuffix(PARTIAL))
    names = (f'{stem}.mcap', f'{stem}.db3', f'{stem}.db3-journal', METADATA, f'{METADATA}.tmp')
    for folder in partial.iterdir():
        ours = folder.name == stem and {path.name for path in folder.glob('*')} <= {*names}
        ours = ours or (folder.name in (stem, _REPLACED) and is_own_bag(folder))
        if folder.is_symlink() or not folder.is_dir() or not ours:
            return False
    return True


def _file_stem(name: str) -> str:
    """Return a bag's name as any reader takes it: UTF-8, and nothing that means more in a URI."""
    text = os.fsencode(name).decode('utf-8', 'replace')
    if sys.getfilesystemencoding() != 'utf-8':
        # metadata.yaml is UTF-8 and would give the file a name of other bytes
        text = text.encode('ascii', 'replace').decode()
    return re.sub(r'[#?%\x00-\x1f\ufffd]', '_', text)


class _DatabaseWriter(Sqlite3Writer):
    """A database by its path, which the class beneath puts into a URI as it is."""

    def __init__(self, path: Path, compression: CompressionMode) -> None:
        super().__init__(uri_path(path), compression)
        self.path = path / f'{path.name}.db3'
        self._pending = 0

    def write(self, connection: Connection, timestamp: int, data: bytes | memoryview) -> None:
        """Write a message; a full disk or a kill costs the last MB, as an open chunk of MCAP."""
        super().write(connection, timestamp, data)
        self._pending += len(data)
        if self._pending > 1 << 20:
            self.conn.commit()
            self._pending = 0


class _Definition(str):
    """A definition that is written byte for byte, with what it is written in."""

    language = ''

    def encode(self, encoding: str = 'utf-8', errors: str = 'surrogateescape') -> bytes:
        """Return the bytes that it was read from."""
        return super().encode(encoding, errors)


class _Name(str):
    """The name of one schema, which the library finds by it; others may be called the same."""

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = str.__hash__


class _McapWriter(McapWriter):
    """An MCAP file whose topics keep their own definition, its language and the type's hash."""

    def add_msgtype(self, connection: Connection) -> None:
        """Leave it to ``add_connection``."""

    def add_connection(self, connection: Connection, offered_qos_profiles: str) -> None:
        name, definition = _Name(connection.msgtype), connection.msgdef.data
        language = getattr(definition, 'language', '') or 'ros2msg'
        self.schemas.append(Schema(connection.id, name, language, definition))
        write_schema(self.chunk.bio, self.schemas[-1])
        metadata = BytesIO()
        pairs = {'offered_qos_profiles': offered_qos_profiles}
        if connection.digest != _NO_HASH:
            pairs['topic_type_hash'] = connection.digest
        for text in itertools.chain.from_iterable(pairs.items()):
            write_string(metadata, text)
        encoding = cast('ConnectionExtRosbag2', connection.ext).serialization_format
        channel = McapChannel(connection.id, name, connection.topic, encoding, metadata.getvalue())
        self.channels.append(channel)
        self.channel_stats[connection.id] = 0
        write_channel(self.chunk.bio, channel, self.schemas)


class _Writer(Writer):
    STORAGE_PLUGINS = {StoragePlugin.SQLITE3: _DatabaseWriter, StoragePlugin.MCAP: _McapWriter}


class BagWriter:
    """
    Write a bag as a folder; it appears under its name only when the ``with`` block ends well.

    Until then everything lies in ``NAME.partial`` beside it, which no other process may replace,
    which an error removes, unless ``keep`` is set, and which a killed process leaves behind; what
    is in there can be read like any damaged bag. ``BagError`` where the bag or such a rest of one
    exists and ``force`` is not set, and with it where that is not what this class wrote or touches
    one of ``inputs``.
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
        messages of a sqlite3 file it packs one by one. ``keep`` leaves after an error the messages
        that there are.
        """
        self.path = Path(path)
        self.partial = self.path.parent / f'{self.path.name}{PARTIAL}'
        if _is_rest(self.partial):
            with locked(self.partial, BagError):
                self._restore()
        check_bag_output(self.path, inputs, force=force)
        if os.path.lexists(self.partial):
            if not force:
                raise BagError(
                    f"'{self.partial}' holds what an interrupted write left; remove it, give "
                    'another name or --force'
                )
            check_output(
                self.partial, 'what an interrupted write left', _is_rest, folder=True,
                inputs=inputs, error=BagError,
            )  # fmt: skip
        self._lock = contextlib.ExitStack()
        with self._named_faults('be written'):
            self._lock.enter_context(locked(self.partial, BagError))
            for left in self.partial.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        self._keep, self._force, self._inputs = keep, force, tuple(inputs)
        self._whole = False
        #: By name and type.
        self._topics: dict[tuple[str, str], tuple[Channel, Connection]] = {}
        # the storage file is named after the folder that it lies in, so that one has its own name
        self._inner = self.partial / _file_stem(self.path.name)
        plugin = StoragePlugin[storage.upper()]
        self._writer = _Writer(self._inner, version=9, storage_plugin=plugin)
        self._writer.custom_data.update(_MARK)
        if compress:
            mode = CompressionMode.STORAGE if storage == 'mcap' else CompressionMode.MESSAGE
            self._writer.set_compression(mode, CompressionFormat.ZSTD)
        with self._named_faults('be written', abort=True):
            self._writer.open()

    def __enter__(self) -> BagWriter:
        """Use it in a ``with`` block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Finish the bag, or after an error remove what there is."""
        if kind is None:
            self.close()
        else:
            self.abort()

    def close(self) -> None:
        """Finish the bag and give it its name."""
        with self._named_faults('be finished', abort=True):
            self._writer.close()
            self._check_whole()
        # from here on both are whole, and an error must lose neither
        self._whole = True
        with self._named_faults(f"have its name; the new one is in '{self._inner}'", abort=True):
            if os.path.lexists(self.path):
                # somebody may have taken the name meanwhile
                check_bag_output(self.path, self._inputs, force=self._force)
                # the old bag goes only when the new one is there in full
                self.path.rename(self.partial / _REPLACED)
            self._inner.rename(self.path)
        shutil.rmtree(self.partial, ignore_errors=True)
        self._lock.close()

    def abort(self) -> None:
        """Stop, and remove what was written unless it is to be kept."""
        # a full disk refuses the last bytes as well
        with contextlib.suppress(Exception):
            self._writer.abort()
        self._restore()
        written = sum(self._writer.counts.values())
        if not self._whole and not (self._keep and written):
            shutil.rmtree(self.partial, ignore_errors=True)
        self._lock.close()

    @contextlib.contextmanager
    def _named_faults(self, action: str, *, abort: bool = False) -> Iterator[None]:
        """Raise ``BagError`` for what the library and the disk raise."""
        try:
            yield
        except BaseException as error:
            if abort:
                self.abort()
            if not isinstance(error, (OSError, WriterError, sqlite3.Error, BagError)):
                raise
            raise BagError(f"bag '{self.path}' cannot {action}: {error}") from error

    def _restore(self) -> None:
        """Put an old bag back whose place the new one has not taken."""
        replaced = self.partial / _REPLACED
        if os.path.lexists(replaced) and not os.path.lexists(self.path):
            replaced.rename(self.path)

    def _check_whole(self) -> None:
        """Raise ``BagError`` unless the file is there and holds what was written."""
        wanted = sum(self._writer.counts.values())
        files = [count_file(path) for path in self._inner.iterdir() if storage_kind(path)]
        found = sum(sum(counts.values()) for counts, _ in files)
        if len(files) != 1 or files[0][1] or found != wanted:
            raise BagError(f'{wanted} messages were written, {found} are in its file')

    def add_topic(self, channel: Channel) -> None:
        """
        Announce a topic as another bag or the node has it.

        Its own definition, hash, encoding and quality of service go along untouched.
        """
        key = (channel.topic, channel.msgtype)
        if key in self._topics:
            known, _ = self._topics[key]
            texts = known.definition, channel.definition
            if known.encoding != channel.encoding or (all(texts) and texts[0] != texts[1]):
                _warn_of_other(channel.topic, channel.msgtype)
            return
        text, digest = _described(channel)
        if self._writer.storage_plugin is StoragePlugin.SQLITE3:
            # a database holds text
            text = text.encode('utf-8', 'surrogateescape').decode('utf-8', 'replace')
        definition = _Definition(text)
        definition.language = channel.language
        with self._named_faults(f"hold the topic '{channel.topic}'"):
            self._topics[key] = channel, self._writer.add_connection(
                channel.topic, channel.msgtype, msgdef=definition, rihs01=digest,
                serialization_format=channel.encoding, offered_qos_profiles=channel.qos,
            )  # fmt: skip

    def write(self, message: Message) -> None:
        """Write a message as it is, and announce its topic where that was not done."""
        channel = message.channel
        self.add_topic(channel)
        _, connection = self._topics[channel.topic, channel.msgtype]
        with self._named_faults('be written'):
            self._writer.write(connection, message.received_ns, message.data)

    def write_fields(self, topic: str, kind: str, received_ns: int, **fields: Any) -> None:
        """Write a message by its fields; nested messages are dicts."""
        content = typestore().serialize_cdr(_built(kind, fields), kind)
        channel = Channel(topic=topic, msgtype=kind)
        self.write(Message(channel=channel, received_ns=received_ns, data=bytes(content)))

    def write_stamped(
        self, topic: str, kind: str, *, stamp_ns: int, frame_id: str = '',
        received_ns: int | None = None, **fields: Any,
    ) -> None:  # fmt: skip
        """
        Write a message of a type with a header, its other fields being given by name.

        Without ``received_ns`` it was received at its stamp.
        """
        received = stamp_ns if received_ns is None else received_ns
        self.write_fields(topic, kind, received, header=_header(stamp_ns, frame_id), **fields)

    def write_value(self, topic: str, value: float | str, received_ns: int) -> None:
        """Write a std_msgs/Float32 or std_msgs/String."""
        kind = 'std_msgs/msg/String' if isinstance(value, str) else 'std_msgs/msg/Float32'
        self.write_fields(topic, kind, received_ns, data=value)

    # -- messages of the node and of drives; ``place`` is stamp_ns, frame_id and received_ns ---

    def write_image(
        self,
        topic: str,
        image: npt.NDArray[np.uint8] | npt.NDArray[np.float32],
        encoding: str,
        **place: Any,
    ) -> None:
        """
        Write [H, W] or [H, W, 3] as sensor_msgs/Image without padding of its rows.

        Depth in metres is 32FC1 (REP-118).
        """
        height, width = image.shape[:2]
        data = np.ascontiguousarray(image).view(np.uint8).reshape(-1)
        self.write_stamped(
            topic, 'sensor_msgs/msg/Image', height=height, width=width, encoding=encoding,
            is_bigendian=0, step=data.size // height, data=data, **place,
        )  # fmt: skip

    def write_frame(self, topic: str, frame: Frame, *, received_ns: int | None = None) -> None:
        """Write a frame as sensor_msgs/Image, rgb8 or bgr8 as it is."""
        self.write_image(
            topic, frame.image, f'{frame.order}8', stamp_ns=frame.stamp_ns,
            frame_id=frame.frame_id, received_ns=received_ns,
        )  # fmt: skip

    def write_labels(self, topic: str, labels: npt.NDArray[np.uint8], **place: Any) -> None:
        """Write uint8 [H, W] ids as mono8."""
        self.write_image(topic, labels, 'mono8', **place)

    def write_compressed(self, topic: str, content: bytes, layout: str, **place: Any) -> None:
        """Write an encoded picture as sensor_msgs/CompressedImage; masks only ever as PNG."""
        data = np.frombuffer(content, np.uint8)
        kind = 'sensor_msgs/msg/CompressedImage'
        self.write_stamped(topic, kind, format=layout, data=data, **place)

    def write_cloud(self, topic: str, cloud: Cloud, **place: Any) -> None:
        """Write a sensor_msgs/PointCloud2."""
        fields = [asdict(field) for field in cloud.fields]
        self.write_stamped(
            topic, 'sensor_msgs/msg/PointCloud2', height=cloud.height, width=cloud.width,
            fields=fields, is_bigendian=cloud.is_bigendian, point_step=cloud.point_step,
            row_step=cloud.row_step, data=cloud.data, is_dense=cloud.is_dense, **place,
        )  # fmt: skip

    def write_calibration(self, topic: str, calibration: Calibration, **place: Any) -> None:
        """Write a sensor_msgs/CameraInfo."""
        names = ('x_offset', 'y_offset', 'width', 'height')
        binning_x, binning_y = calibration.binning
        self.write_stamped(
            topic, 'sensor_msgs/msg/CameraInfo',
            width=calibration.width, height=calibration.height,
            distortion_model=calibration.distortion_model, d=np.array(calibration.d, np.float64),
            k=np.array(calibration.k), r=np.eye(3).reshape(-1), p=np.array(calibration.p),
            binning_x=binning_x, binning_y=binning_y,
            roi={**dict(zip(names, calibration.roi)), 'do_rectify': False}, **place,
        )  # fmt: skip

    def write_transforms(
        self, topic: str, transforms: Sequence[tuple[str, str, Matrix]], *, stamp_ns: int
    ) -> None:
        """Write a tf2_msgs/TFMessage of parent, child and parent_from_child."""
        items = [
            {
                'header': _header(stamp_ns, parent),
                'child_frame_id': child,
                'transform': {
                    'translation': dict(zip('xyz', matrix[:3, 3])),
                    'rotation': dict(zip('xyzw', quaternion(matrix))),
                },
            }
            for parent, child, matrix in transforms
        ]
        self.write_fields(topic, 'tf2_msgs/msg/TFMessage', stamp_ns, transforms=items)


def _built(kind: str, content: dict[str, Any]) -> Any:
    """Make a message of its fields, and those in it of dicts."""
    fields = {}
    for name, (node, detail) in typestore().fielddefs[kind][1]:
        value: Any = content[name]
        if node == Nodetype.NAME:
            value = _built(str(detail), value)
        elif node == Nodetype.SEQUENCE and detail[0][0] == Nodetype.NAME:
            value = [_built(str(detail[0][1]), item) for item in value]
        fields[name] = value
    return typestore().types[kind](**fields)


def _header(stamp_ns: int, frame_id: str) -> dict[str, Any]:
    seconds, nanoseconds = divmod(stamp_ns, 1_000_000_000)
    return {'stamp': {'sec': seconds, 'nanosec': nanoseconds}, 'frame_id': frame_id}


@lru_cache
def _warn_of_other(topic: str, kind: str) -> None:
    LOG.warning("'%s': later files describe its %s otherwise; the copy has the first", topic, kind)


def _described(channel: Channel) -> tuple[str, str]:
    """
    Return definition and hash of a topic's type.

    They are the channel's own; without a definition those that are known here, if the hash does
    not speak against them; else an empty definition.
    """
    digest = channel.digest if channel.digest.startswith('RIHS01_') else ''
    known = typestore()
    if channel.definition:
        if not digest:
            own = get_typestore(Stores.EMPTY)
            # the parser beneath fails in many ways over a definition that it does not know
            with contextlib.suppress(Exception):
                own.register(get_types_from_msg(channel.definition, channel.msgtype))
                digest = own.hash_rihs01(channel.msgtype)
        return channel.definition, digest or _NO_HASH
    if channel.msgtype in known.fielddefs and digest in ('', known.hash_rihs01(channel.msgtype)):
        definition, _ = known.generate_msgdef(channel.msgtype, ros_version=2)
        return definition, known.hash_rihs01(channel.msgtype)
    return '', digest or _NO_HASH
