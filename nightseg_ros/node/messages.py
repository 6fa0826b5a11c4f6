# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Messages in and out: images, calibrations, legends, the status of a frame, point clouds."""

from __future__ import annotations

import array
from collections.abc import Mapping
from dataclasses import asdict
import importlib
import struct
from typing import Any, NamedTuple

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from nightseg_ros.clouds.painter import SensorCloud
from nightseg_ros.node.diagnostics import diagnostic_status
from nightseg_ros.perception.frame import BitDepth, decode_file, decode_raw, Order, video_codec
from nightseg_ros.perception.result import report, Result
from nightseg_ros.taxonomy import Taxonomy
import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import (
    CameraInfo,
    CompressedImage,
    Image,
    PointCloud2,
    PointField,
    RegionOfInterest,
)
from std_msgs.msg import Header

Pixels = npt.NDArray[np.uint8]


class Picture(NamedTuple):
    """A picture of a video topic, in the place of an Image."""

    header: Any
    image: Pixels
    """uint8 [H, W, 3] BGR."""


class VideoUnpacker:
    """Makes pictures of a camera's packets; every other message passes as it is."""

    def __init__(self) -> None:
        """Wait for the first packet, which loads FFmpeg."""
        self._decoder: Any = None

    def __call__(self, message: Any, lost: bool) -> Any:
        """Return the picture that is due, None while there is none; see ``PacketDecoder``."""
        if isinstance(message, Image) or (
            isinstance(message, CompressedImage) and not video_codec(message.format)
        ):
            return message
        if self._decoder is None:
            video = importlib.import_module('nightseg_ros.perception.video')
            self._decoder = video.PacketDecoder()
        frame = self._decoder.decode(message, lost=lost)
        if frame is None:
            return None
        return Picture(stamped_header(frame.frame_id, frame.stamp_ns), frame.image)


def host_data(data: Any) -> Any:
    """
    Return the ``data`` of a message in the host's memory, without a copy where it lies there.

    From ROS 2 Lyrical on a driver may leave it on a GPU, as a ``rosidl_buffer.Buffer``. Those who
    do not ask for that (``acceptable_buffer_backends``) get bytes, as here: rclpy has no view of
    an image's buffer yet; where it has one, it is to become a tensor. Untried: there are no wheels
    of Lyrical.
    """
    return data.to_bytes() if hasattr(data, 'to_bytes') else data


def decode(message: Any, depth: BitDepth | None = None) -> tuple[Pixels, Order]:
    """
    Return uint8 [H, W, 3] and its channel order of an Image, a CompressedImage or a Picture.

    ``depth`` is the camera's. ``FrameError`` says what is wrong with the message.
    """
    if isinstance(message, Picture):
        return message.image, 'bgr'
    if isinstance(message, CompressedImage):
        return decode_file(host_data(message.data), message.format, depth=depth)
    return decode_raw(
        host_data(message.data), encoding=message.encoding, width=message.width,
        height=message.height, step=message.step, is_bigendian=bool(message.is_bigendian),
        depth=depth,
    )  # fmt: skip


def stamped_header(frame_id: str, stamp_ns: int) -> Header:
    """Return a header."""
    header = Header(frame_id=frame_id)
    header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    return header


class ImageMessage:
    """
    One outgoing message, used for every frame.

    Assigning an array to ``msg.data`` takes 70 to 265 ms for a 1080p image; a message that is kept
    and written into through ``np.frombuffer`` takes less than half a millisecond.
    """

    def __init__(self, encoding: str) -> None:
        """``mono8`` takes [H, W], ``rgb8`` and ``bgr8`` take [H, W, 3]."""
        self._message = Image(encoding=encoding)
        self._pixels: Pixels = np.empty(0, np.uint8)

    def fill(self, header: Any, pixels: Pixels) -> Image:
        """Copy ``pixels`` in and return the message; it holds until the next call."""
        message = self._message
        if self._pixels.shape != pixels.shape:
            # an array cannot be resized while numpy looks into it, so that it is a new one
            message.data = array.array('B', bytes(pixels.size))
            self._pixels = np.frombuffer(message.data, np.uint8).reshape(pixels.shape)
            message.height, message.width = pixels.shape[:2]
            message.step = pixels.size // pixels.shape[0]
        np.copyto(self._pixels, pixels)
        message.header = header
        return message


def png_message(header: Any, labels: Pixels) -> CompressedImage:
    """Compress uint8 [H, W] without loss; JPEG would change ids."""
    # level 1: a tenth of the default's time for a fifth more bytes
    return _compressed(
        header, 'mono8; png compressed mono8', '.png', labels, [cv2.IMWRITE_PNG_COMPRESSION, 1]
    )


def jpeg_message(header: Any, picture: Pixels, quality: int) -> CompressedImage:
    """Compress RGB uint8 [H, W, 3] for the eye; ``quality`` from 1 to 100."""
    bgr = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), np.uint8)
    return _compressed(
        header, 'rgb8; jpeg compressed bgr8', '.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, quality]
    )


def _compressed(
    header: Any, layout: str, suffix: str, pixels: Pixels, options: list[int]
) -> CompressedImage:
    done, content = cv2.imencode(suffix, pixels, options)
    if not done:
        raise RuntimeError(f'OpenCV could not encode {pixels.shape} as {suffix}')
    message = CompressedImage(header=header, format=layout)
    message.data.frombytes(memoryview(content.reshape(-1)))
    return message


def scaled_info(
    info: Any, image: tuple[int, int], labels: tuple[int, int], header: Any
) -> CameraInfo:
    """
    Return the calibration of the labels of an image; both sizes are (height, width).

    Pixel centres lie at whole numbers, as image_geometry and OpenCV have it. Binning and region
    of interest are worked in where the size changes. ``ValueError`` says where the calibration
    is for another image.
    """
    binning_x, binning_y = max(info.binning_x, 1), max(info.binning_y, 1)
    roi = info.roi
    width, height = roi.width or info.width, roi.height or info.height
    if (height // binning_y, width // binning_x) != image:
        raise ValueError(
            f'camera_info is for {width // binning_x}×{height // binning_y} pixels, the images '
            f'have {image[1]}×{image[0]}: it is not passed on'
        )
    result = CameraInfo(header=header)
    for name in ('height', 'width', 'distortion_model', 'd', 'k', 'r', 'p', 'roi'):
        setattr(result, name, getattr(info, name))
    result.binning_x, result.binning_y = info.binning_x, info.binning_y
    if labels == image:
        return result
    sx = labels[1] / (image[1] * binning_x)
    sy = labels[0] / (image[0] * binning_y)
    # from pixels of the sensor to those of the labels
    move = np.array([
        [sx, 0.0, (0.5 - roi.x_offset) * sx - 0.5],
        [0.0, sy, (0.5 - roi.y_offset) * sy - 0.5],
        [0.0, 0.0, 1.0],
    ])  # fmt: skip
    result.k = (move @ np.reshape(info.k, (3, 3))).ravel()
    result.p = (move @ np.reshape(info.p, (3, 4))).ravel()
    result.height, result.width = labels
    result.binning_x = result.binning_y = 0
    result.roi = RegionOfInterest()
    return result


def frame_status(
    header: Any, camera: str, result: Result, latency_ms: Mapping[str, float], age_s: float | None
) -> DiagnosticArray:
    """Return the status of one frame under its own header; see ``perception.result.report``."""
    status = diagnostic_status(f'nightseg: {camera}', camera, *report(result, latency_ms, age_s))
    return DiagnosticArray(header=header, status=[status])


def message_class(kind: str) -> Any | None:
    """Return the class of ``package/Name`` or ``package/msg/Name``, None where it is missing."""
    package, name = kind.split('/')[0], kind.rpartition('/')[2]
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name)
    except (ImportError, AttributeError):
        return None


def header_stamp(data: bytes) -> int:
    """Return the header's stamp in ns of a serialised (CDR) stamped message; 0 of a torn one."""
    if len(data) < 12:
        return 0
    seconds, nanoseconds = struct.unpack_from('<iI' if data[1] else '>iI', data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def label_info(taxonomy: Taxonomy, stamp: Any) -> Any:
    """Return ``vision_msgs/LabelInfo``; ``ImportError`` where vision_msgs is not installed."""
    vision = importlib.import_module('vision_msgs.msg')
    message = vision.LabelInfo()
    message.header.stamp = stamp
    message.class_map = [
        vision.VisionClass(class_id=index, class_name=name)
        for index, name in enumerate(taxonomy.classes)
    ]
    return message


def cloud_message(labelled: SensorCloud) -> PointCloud2:
    """Return the message of a labelled cloud, under the input's stamp and frame."""
    cloud = labelled.cloud
    message = PointCloud2(
        header=stamped_header(labelled.frame_id, labelled.stamp_ns), height=cloud.height,
        width=cloud.width, point_step=cloud.point_step, row_step=cloud.row_step,
        is_bigendian=cloud.is_bigendian, is_dense=cloud.is_dense,
        fields=[PointField(**asdict(field)) for field in cloud.fields],
    )  # fmt: skip
    message.data.frombytes(memoryview(cloud.data))
    return message
