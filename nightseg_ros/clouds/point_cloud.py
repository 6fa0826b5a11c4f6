# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Messages in: point clouds as numpy records, and back with labels; images, calibrations, poses.

Messages are read by their attributes: they may be those of rclpy or those of a bag's reader, since
both have the names of the ROS 2 definitions. Nothing is copied to read a cloud.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
import json
from typing import Any

from nightseg_ros.clouds.camera_model import Calibration, CameraModel, pixel_rays
from nightseg_ros.clouds.geometry import CloudError, from_pose, Matrix
from nightseg_ros.taxonomy import UNLABELLED
import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

#: sensor_msgs/PointField's datatypes as numpy calls them.
DATATYPES = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 8: 'f8'}
_UINT8, _FLOAT32 = 2, 7
#: What labelling adds to a point; a field of these names in the input is replaced.
ADDED = ('label', 'confidence', 'rgb')


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One sensor_msgs/PointField."""

    name: str
    offset: int
    datatype: int
    """A key of ``DATATYPES``."""
    count: int = 1
    """Values; drivers that leave it at 0 mean 1."""

    @property
    def end(self) -> int:
        """Return the byte of a point that comes after this field."""
        return self.offset + max(self.count, 1) * int(DATATYPES[self.datatype][1])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Cloud:
    """What a PointCloud2 holds beside its header; ``CloudError`` where that is contradictory."""

    fields: tuple[Field, ...]
    height: int
    width: int
    point_step: int
    """Bytes from one point to the next."""
    row_step: int
    """Bytes from one row to the next; of a cloud of one row it may be anything."""
    data: Bytes
    """uint8 [bytes]."""
    is_bigendian: bool = False
    is_dense: bool = False

    def __post_init__(self) -> None:
        """Check that the bytes hold what the other values promise."""
        # numpy's types have less than 2 GiB
        if self.height < 0 or self.width < 0 or self.point_step > 2**30:
            raise CloudError(
                f'a cloud of {self.width}×{self.height} points of {self.point_step} bytes'
            )
        names = [field.name for field in self.fields]
        if len(set(names)) != len(names):
            raise CloudError(f'two fields of the cloud have one name: {names}')
        for field in self.fields:
            if field.datatype not in DATATYPES:
                raise CloudError(
                    f"field '{field.name}' has datatype {field.datatype}; 1 to 8 are known"
                )
            if field.name in ('x', 'y', 'z') and field.count > 1:
                raise CloudError(f"field '{field.name}' has several values a point")
            if field.offset < 0 or field.end > self.point_step:
                raise CloudError(
                    f"field '{field.name}' ends at byte {field.end} of points of "
                    f'{self.point_step} bytes'
                )
        missing = [name for name in 'xyz' if name not in names]
        if missing:
            raise CloudError(f'the cloud has no field {", ".join(missing)}; it has {names}')
        row = self.width * self.point_step
        if self.height > 1 and self.row_step < row:
            raise CloudError(f'row_step is {self.row_step}, {self.width} points take {row} bytes')
        wanted = (self.height - 1) * self.row_step + row if self.height > 1 else row * self.height
        if len(self.data) < wanted:
            raise CloudError(f'the cloud has {len(self.data)} bytes, its points take {wanted}')

    def __len__(self) -> int:
        """Count the points."""
        return self.height * self.width

    @property
    def records(self) -> npt.NDArray[Any]:
        """Return the points as a structured array [height, width] that looks into ``data``."""
        order = '>' if self.is_bigendian else '<'
        kinds = [np.dtype(order + DATATYPES[field.datatype]) for field in self.fields]
        return self._view(np.dtype({
            'names': [field.name for field in self.fields],
            'formats': [
                np.dtype((kind, (field.count,))) if field.count > 1 else kind
                for field, kind in zip(self.fields, kinds)
            ],
            'offsets': [field.offset for field in self.fields],
            'itemsize': self.point_step,
        }))  # fmt: skip

    def xyz(self) -> npt.NDArray[Any]:
        """
        Return [3, N] in row-major order; what is no number stays NaN.

        They are float32, or float64 where that does not hold all values of a field: far from the
        origin of a map it loses metres.
        """
        records = self.records
        kind = np.result_type(np.float32, *(records.dtype[name] for name in 'xyz'))
        result = np.empty((3, len(self)), kind)
        for row, name in zip(result, 'xyz'):
            row.reshape(records.shape)[:] = records[name]
        return result

    def with_labels(self, labels: Bytes, confidence: Bytes, palette: Bytes) -> Cloud:
        """
        Return a cloud with every field as it was, at its place, and three more behind them.

        ``labels`` and ``confidence`` are uint8 [N]; ``palette`` uint8 [256, 3] gives ``rgb``, a
        float32 whose bytes are 0, red, green and blue, as RViz and PCL have it. Padding of the
        rows is dropped, byte order and shape are kept.
        """
        colors = palette.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        at = self.point_step
        rgb_at = -(-(at + 2) // 4) * 4
        step = rgb_at + 4
        order = '>' if self.is_bigendian else '<'
        tails = np.zeros(256, {
            'names': ['label', 'rgb'], 'formats': ['u1', f'{order}u4'],
            'offsets': [0, rgb_at - at], 'itemsize': step - at,
        })  # fmt: skip
        tails['label'], tails['rgb'] = range(256), colors
        head, tail = f'V{at}', f'V{step - at}'
        data = np.empty(len(self) * step, np.uint8)
        records = data.view({
            'names': ['head', 'tail', 'confidence'], 'formats': [head, tail, 'u1'],
            'offsets': [0, at, at + 1], 'itemsize': step,
        }).reshape(self.height, self.width)  # fmt: skip
        records['head'] = self._view(np.dtype(head))
        # one look-up and one copy a point, padding and all
        records['tail'] = tails.view(tail).take(labels).reshape(records.shape)
        records['confidence'] = confidence.reshape(records.shape)
        kept = tuple(field for field in self.fields if field.name not in ADDED)
        added = (
            Field(name='label', offset=at, datatype=_UINT8),
            Field(name='confidence', offset=at + 1, datatype=_UINT8),
            Field(name='rgb', offset=rgb_at, datatype=_FLOAT32),
        )
        return replace(self, fields=(*kept, *added), point_step=step, row_step=self.width * step,
                       data=data)  # fmt: skip

    def _view(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        row = self.row_step if self.height > 1 else self.width * self.point_step
        if not len(self):
            return np.empty((self.height, self.width), dtype)
        return np.ndarray(
            (self.height, self.width), dtype, np.ascontiguousarray(self.data),
            strides=(row, self.point_step),
        )  # fmt: skip


def read_cloud(message: Any) -> Cloud:
    """Return a sensor_msgs/PointCloud2 without copying its bytes; see ``Cloud`` for the errors."""
    return Cloud(
        fields=tuple(
            # a field without a name gets its number, as sensor_msgs_py does it
            Field(
                name=field.name or f'unnamed_field_{number}', offset=int(field.offset),
                datatype=int(field.datatype), count=int(field.count),
            )
            for number, field in enumerate(message.fields)
        ),
        height=int(message.height), width=int(message.width),
        point_step=int(message.point_step), row_step=int(message.row_step),
        data=np.frombuffer(message.data, np.uint8), is_bigendian=bool(message.is_bigendian),
        is_dense=bool(message.is_dense),
    )  # fmt: skip


_DTYPES = {'mono8': 'u1', '8UC1': 'u1', '16UC1': 'u2', 'mono16': 'u2', '32FC1': 'f4'}
MASK_ENCODINGS = ('mono8', '8UC1')
#: REP-118: 32FC1 is metres, 16UC1 is millimetres with 0 for no measurement.
DEPTH_ENCODINGS = ('16UC1', '32FC1', 'mono16')


def read_plane(message: Any, encodings: tuple[str, ...] = MASK_ENCODINGS) -> npt.NDArray[Any]:
    """
    Return [H, W] of an image message, a view where its bytes lie as this machine has them.

    ``CloudError`` where the encoding is none of ``encodings`` or the bytes do not fill the image.
    """
    if message.encoding not in encodings:
        raise CloudError(f"encoding is '{message.encoding}'; wanted: {' or '.join(encodings)}")
    dtype = np.dtype(_DTYPES[message.encoding]).newbyteorder('>' if message.is_bigendian else '<')
    height, width, step = int(message.height), int(message.width), int(message.step)
    if step < width * dtype.itemsize or height < 1 or width < 1:
        raise CloudError(f'an image of {width}×{height} pixels with rows of {step} bytes')
    data = np.frombuffer(message.data, np.uint8)
    wanted = (height - 1) * step + width * dtype.itemsize
    if len(data) < wanted:
        raise CloudError(f'the image has {len(data)} bytes, its pixels take {wanted}')
    return np.ndarray((height, width), dtype, data, strides=(step, dtype.itemsize))


def read_depth(message: Any) -> npt.NDArray[np.float32]:
    """Return float32 [H, W] metres along the optical axis, NaN where nothing was measured."""
    stored = read_plane(message, DEPTH_ENCODINGS)
    depth = stored.astype(np.float32)
    if stored.dtype.kind == 'u':
        depth *= np.float32(0.001)
    # beyond the sensor's range it says infinity
    depth[~(depth > 0) | np.isinf(depth)] = np.nan
    return depth


def depth_cloud(depth: npt.NDArray[np.float32], model: CameraModel) -> Cloud:
    """Return the organised cloud of a depth image in the camera's optical frame; x, y and z."""
    points = np.concatenate([pixel_rays(model) * depth, depth[None]])
    fields = [Field(name=name, offset=4 * i, datatype=_FLOAT32) for i, name in enumerate('xyz')]
    data = np.ascontiguousarray(np.moveaxis(points, 0, 2), '<f4').view(np.uint8).reshape(-1)
    height, width = depth.shape
    return Cloud(fields=tuple(fields), height=height, width=width, point_step=12,
                 row_step=12 * width, data=data)  # fmt: skip


def stamp_of(message: Any) -> int:
    """Return the header's stamp in ns."""
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def read_calibration(message: Any) -> Calibration:
    """Return a sensor_msgs/CameraInfo; whether it can be used, ``CameraModel`` says."""
    roi = message.roi
    return Calibration(
        width=int(message.width), height=int(message.height),
        distortion_model=str(message.distortion_model),
        d=tuple(map(float, message.d)), k=tuple(map(float, message.k)),
        p=tuple(map(float, message.p)),
        binning=(int(message.binning_x), int(message.binning_y)),
        roi=(int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height)),
    )  # fmt: skip


def read_pose(message: Any) -> Matrix:
    """Return fixed_from_base of a nav_msgs/Odometry or a geometry_msgs/PoseStamped."""
    pose = getattr(message.pose, 'pose', message.pose)
    return _matrix(pose.position, pose.orientation)


def read_transform(message: Any) -> Matrix:
    """Return parent_from_child of a geometry_msgs/TransformStamped."""
    return _matrix(message.transform.translation, message.transform.rotation)


def _matrix(place: Any, turn: Any) -> Matrix:
    return from_pose((place.x, place.y, place.z), (turn.x, turn.y, turn.z, turn.w))


def read_legend(text: str) -> tuple[list[str], Bytes]:
    """
    Return the names of all 256 ids, '' for none, and their colours uint8 [256, 3].

    ``text`` is the JSON on ``label_info_json``; ``CloudError`` if it is none.
    """
    names, palette = [''] * 256, np.zeros((256, 3), np.uint8)
    try:
        for entry in json.loads(text)['classes']:
            number = int(entry['id'])
            if number == UNLABELLED:
                continue
            if not 0 <= number < UNLABELLED:
                raise ValueError(f'id {number} is not within 0 to 254')
            names[number], palette[number] = str(entry.get('name', '')), entry['color']
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
        raise CloudError(f'label_info_json cannot be read: {error!r}') from error
    return names, palette
