# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""sensor_msgs_py, where it is installed, and our own view give the same bytes."""

import array
import importlib
from types import SimpleNamespace
from typing import Any

from cloud_harness import cloud_message as message_of
from cloud_samples import cloud
from hypothesis import given, HealthCheck, settings
from hypothesis import strategies as st
from nightseg_ros.clouds.painter import SensorCloud
from nightseg_ros.clouds.point_cloud import Cloud, DATATYPES
from nightseg_ros.node import messages as point_cloud2
from nightseg_ros.taxonomy import CAMVID11
import numpy as np
import pytest
from sensor_msgs.msg import PointCloud2

pytestmark = pytest.mark.ros


def dtype_from_fields(fields: Any, point_step: int | None = None) -> np.dtype[Any]:
    names, formats, offsets = [], [], []
    for field in fields:
        kind = np.dtype(DATATYPES[field.datatype])
        assert field.count > 0
        for number in range(field.count):
            names.append(f'{field.name}_{number}' if field.count > 1 else field.name)
            formats.append(kind.str)
            offsets.append(field.offset + number * kind.itemsize)
    layout: Any = {'names': names, 'formats': formats, 'offsets': offsets}
    return np.dtype(layout if point_step is None else {**layout, 'itemsize': point_step})


def read_points(message: PointCloud2) -> Any:
    points = np.ndarray((message.width * message.height,),
                        dtype_from_fields(message.fields, message.point_step),
                        message.data)  # fmt: skip
    return points.byteswap(inplace=True) if message.is_bigendian else points


def create_cloud(header: Any, fields: Any, points: Any) -> PointCloud2:
    assert points.dtype == dtype_from_fields(fields)
    message = PointCloud2(header=header, height=1, width=len(points), fields=fields,
                          point_step=points.dtype.itemsize,
                          row_step=points.dtype.itemsize * len(points))  # fmt: skip
    message.data = array.array('B', memoryview(points).cast('B').tobytes())
    return message


#: What Jazzy's sensor_msgs_py does with a message, right or wrong.
STAND_IN = SimpleNamespace(
    read_points=read_points, create_cloud=create_cloud, dtype_from_fields=dtype_from_fields
)


def theirs() -> Any:
    try:
        return importlib.import_module('sensor_msgs_py.point_cloud2')
    except ImportError:
        return None


@pytest.fixture(
    params=[
        STAND_IN,
        pytest.param(theirs(), marks=pytest.mark.skipif(theirs() is None, reason='not installed')),
    ],
    ids=['stand-in', 'sensor_msgs_py'],
)
def module(request):
    used: list[str] = []

    def noted(name: str) -> Any:
        def call(*given: Any) -> Any:
            used.append(name)
            return getattr(request.param, name)(*given)

        return call

    names = ('read_points', 'create_cloud', 'dtype_from_fields')
    return SimpleNamespace(used=used, **{name: noted(name) for name in names})


def through(module: Any, message: PointCloud2, seed: int = 0) -> tuple[Any, PointCloud2]:
    """Return the places of a message's points, and the message with labels, by ``module``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(point_cloud2, 'sensor_msgs_py', module)
        read = point_cloud2.read_message(message)
        places = read.xyz()
        return places, point_cloud2.cloud_message(labelled(read, seed))


def labelled(read: Cloud, seed: int = 0) -> SensorCloud:
    rng = np.random.default_rng(seed)
    labels, sure = rng.integers(0, 256, (2, len(read)), np.uint8)
    return SensorCloud(
        sensor='lidar', stamp_ns=1_700_000_000_123_456_789, frame_id='lidar', received=0.0,
        cloud=read.with_labels(labels, sure, CAMVID11.palette()),
    )  # fmt: skip


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    big=st.booleans(), height=st.sampled_from([1, 3]), float_type=st.sampled_from([7, 8]),
    point_padding=st.integers(0, 7), row_padding=st.sampled_from([0, 0, 5]),
    extra=st.lists(st.sampled_from([*DATATYPES]), max_size=4),
    count=st.sampled_from([1, 1, 0, 2]), backwards=st.booleans(), empty=st.booleans(),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_both_ways_give_the_same_bytes(
    module,
    big,
    height,
    float_type,
    point_padding,
    row_padding,
    extra,
    count,
    backwards,
    empty,
    seed,
):
    rng = np.random.default_rng(seed)
    more = {f'f{i}': (kind, rng.integers(0, 100, 12)) for i, kind in enumerate(extra)}
    sent = cloud(
        rng.uniform(-100, 100, (12, 3)), extra=more, big=big, height=height,
        float_type=float_type, point_padding=point_padding, row_padding=row_padding,
    )  # fmt: skip
    message = message_of(sent, 1)
    if extra and (count != 2 or point_padding >= 7):
        # two values of one byte each fit into any field and the padding behind it
        message.fields[-1].count, message.fields[-1].datatype = count, 2
    if backwards:
        message.fields.reverse()
    if empty:
        message.width = 0
        message.row_step = 0
    before = bytes(message.data)
    places, ours = through(None, message, seed)
    found, written = through(module, message, seed)
    np.testing.assert_array_equal(found, places)
    assert bytes(message.data) == before, 'what came in is not to be written to'
    assert written == ours


@pytest.mark.parametrize(
    ('given_', 'by_them'),
    [
        (cloud(np.ones((4, 3)), point_padding=5), True),
        (cloud(np.ones((4, 3)), height=2), True),
        (cloud(np.ones((4, 3)), height=2, row_padding=4), False),
        (cloud(np.ones((4, 3)), big=True), False),
    ],
    ids=['padding', 'organised', 'padded rows', 'big-endian'],
)
def test_they_read_and_write_what_they_do_rightly(module, given_, by_them):
    through(module, message_of(given_, 1))
    assert ('read_points' in module.used) == by_them
    # the labelled cloud has no padded rows any more
    assert ('create_cloud' in module.used) == (not given_.is_bigendian)
