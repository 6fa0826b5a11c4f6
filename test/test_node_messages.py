# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Messages in and out, without a process: pixels, calibration, what ids mean, own vehicle."""

from __future__ import annotations

from contextlib import nullcontext
import types
from typing import Any

import cv2
from hypothesis import given
from hypothesis import strategies as st
from nightseg_ros.config import ConfigError
from nightseg_ros.node.camera import EgoMask, sampled
from nightseg_ros.node.messages import decode, scaled_info
from nightseg_ros.runtime.pixels import fit, HostPixels
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header


def test_data_that_lies_on_a_gpu_is_fetched_and_other_data_is_viewed():
    here = np.arange(6, dtype=np.uint8)
    message: Any = types.SimpleNamespace(
        encoding='rgb8', width=2, height=1, step=6, is_bigendian=0, data=here
    )
    pixels, _ = decode(message)
    assert np.shares_memory(pixels, here)
    for big, wanted in ((0, [1, 5]), (1, [0, 4])):
        # rows of two bytes and two of padding
        other = Image(encoding='mono16', width=1, height=2, step=4, is_bigendian=big)
        other.data.frombytes(bytes([0x00, 0x10, 9, 9, 0x40, 0x50, 9, 9]))
        assert decode(other)[0][:, 0, 0].tolist() == [other.data[i] for i in wanted]
    # as ROS 2 Lyrical's rosidl_buffer.Buffer
    message.data = types.SimpleNamespace(backend_type='cuda', to_bytes=here.tobytes)
    assert decode(message)[0].tolist() == pixels.tolist()


@given(
    height=st.integers(20, 400),
    width=st.integers(20, 400),
    long_side=st.sampled_from([64, 160, 480]),
)
def test_sampling_undoes_the_enlargement(height, width, long_side):
    size = fit(height, width, long_side)
    small = np.random.default_rng(0).integers(0, 11, size.labels, dtype=np.uint8)
    padded = np.zeros((size.padded[0] // 2, size.padded[1] // 2), np.uint8)
    padded[: size.labels[0], : size.labels[1]] = small
    enlarged = HostPixels().enlarge(padded, size)
    again = sampled(enlarged, size.labels)
    assert again.shape == size.labels
    if height >= size.labels[0] and width >= size.labels[1]:
        np.testing.assert_array_equal(again, small)


# -- calibration -----------------------------------------------------------------------------


def project(matrix: list[float], point: np.ndarray) -> np.ndarray:
    rows = np.reshape(matrix, (3, -1))
    u, v, w = rows @ point[: rows.shape[1]]
    return np.array([u / w, v / w])


@given(
    point=st.tuples(st.floats(-2, 2), st.floats(-2, 2), st.floats(1, 50)),
    labels=st.tuples(st.integers(10, 480), st.integers(10, 640)),
    binning=st.sampled_from([1, 2]),
    offset=st.sampled_from([(0, 0), (40, 20)]),
)
def test_a_point_keeps_its_place_in_the_labels(point, labels, binning, offset):
    info = CameraInfo(
        height=480, width=640, distortion_model='plumb_bob', d=[0.1, -0.05, 0.001, 0.002, 0.0],
        k=[500.0, 0.0, 320.5, 0.0, 510.0, 239.5, 0.0, 0.0, 1.0],
        p=[490.0, 0.0, 318.0, -60.0, 0.0, 495.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        binning_x=binning, binning_y=binning,
    )  # fmt: skip
    image = (480 // binning, 640 // binning)
    with pytest.raises(ValueError, match=f'is for {image[1]}×{image[0]} pixels, the images have'):
        # one that is for other images would be worse than none
        scaled_info(info, (image[0] // 2, image[1]), labels, Header())
    if offset != (0, 0):
        info.roi.x_offset, info.roi.y_offset = offset
        info.roi.width, info.roi.height = 320, 240
        image = (240 // binning, 320 // binning)
    scaled = scaled_info(info, image, labels, Header(frame_id='front'))
    if labels == image:
        assert list(scaled.k) == list(info.k)
        return
    assert (scaled.header.frame_id, scaled.height, scaled.width) == ('front', *labels)
    at = np.array([*point, 1.0])
    for before, after in ((info.k, scaled.k), (info.p, scaled.p)):
        # edges of pixels, measured from the image's corner, scale with its size
        seen = (project(before, at) + 0.5 - offset) / (image[1] * binning, image[0] * binning)
        found = (project(after, at) + 0.5) / (labels[1], labels[0])
        np.testing.assert_allclose(found, seen, rtol=1e-6, atol=1e-6)
    assert list(scaled.d) == list(info.d)
    assert (scaled.roi.width, scaled.binning_x) == (0, 0)


def test_an_ego_mask_is_read_by_any_value_above_zero(tmp_path):
    picture = np.zeros((4, 6), np.uint8)
    picture[3], picture[2] = 1, 255
    cv2.imwrite(str(tmp_path / 'mask.png'), picture)
    mask = EgoMask(tmp_path / 'mask.png')
    np.testing.assert_array_equal(mask.at(4, 6), np.where(picture, 255, 0))
    assert mask.at(8, 12)[4:].min() == 255
    assert mask.at(8, 12)[:4].max() == 0
    with pytest.raises(ValueError, match='the ego mask has 6×4 pixels, the image 50×100'):
        mask.at(100, 50)
    for size, image, fits in (
        # rounded, or padded by a codec
        ((24, 32), (6, 9), True), ((720, 1280), (1088, 1920), True),
        ((480, 640), (360, 640), False), ((480, 640), (480, 480), False),
    ):  # fmt: skip
        own = np.zeros(size, np.uint8)
        own[-1] = 1
        cv2.imwrite(str(tmp_path / 'other.png'), own)
        with nullcontext() if fits else pytest.raises(ValueError, match='of another shape'):
            assert EgoMask(tmp_path / 'other.png').at(*image).shape == image
    own = np.zeros((720, 1280), np.uint8)
    own[600:] = 1
    cv2.imwrite(str(tmp_path / 'other.png'), own)
    padded = EgoMask(tmp_path / 'other.png').at(1088, 1920)
    assert padded[900:].all() and not padded[:900].any(), 'what a codec pads is no part of it'
    (tmp_path / 'empty.png').touch()
    for name in ('empty.png', 'missing.png', '.'):
        with pytest.raises(ConfigError, match='is no image that can be read'):
            EgoMask(tmp_path / name)
    for value, share in ((0, 'none'), (255, 'all')):
        cv2.imwrite(str(tmp_path / 'mask.png'), np.full((4, 6), value, np.uint8))
        with pytest.raises(ConfigError, match=f'{share} of .* is non-zero'):
            EgoMask(tmp_path / 'mask.png')
