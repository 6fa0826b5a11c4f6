# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""semantic_cloud beside night_perception."""

import contextlib
import itertools
import math
import signal
from typing import Any

from cloud_harness import cloud_message, CloudProcess, info_message, OUT, PARAMETERS
from cloud_samples import cloud, LENS, looking, SIZE
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from nightseg_ros.clouds.point_cloud import read_cloud
import numpy as np
import pytest
from ros_harness import Client, image_message, picture, pixels_of, running, served, stamp, stamp_ns
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

pytestmark = [pytest.mark.ros, pytest.mark.slow]

CAMERAS = {'front': 0.0, 'left': math.pi / 2}
MASKS = [f'{c}/nightseg/{kind}' for c in CAMERAS for kind in ('labels', 'confidence')]
TOPICS = dict.fromkeys(MASKS, Image) | {OUT: PointCloud2, 'front/nightseg/points': PointCloud2}
#: A second apart; they go on from one type of odometry to the next.
STAMPS = itertools.count(1_800_000_000 * 10**9, 10**9)


def test_two_cameras_and_a_lidar_through_both_nodes(parameters, tmp_path):
    """Images in, labelled points out, with motion made good and a registered depth beside it."""
    given = PARAMETERS | {
        'autostart': False, 'confidence': True, 'max_wait': 5.0, 'depth_cameras': ['front'],
        'odometry': 'pose',
    }  # fmt: skip
    with (
        running(tmp_path / 'perception.txt', {**parameters, 'cameras': [*CAMERAS]}),
        served(tmp_path, given, kind=CloudProcess, state='unconfigured') as client,
    ):
        for kind in (PoseStamped, Odometry):
            package = kind.__module__.partition('.')[0]
            client.start(odometry_type=f'{package}/{kind.__name__}')
            drive(client, kind)
            client.reset()
            client.unconfigure()
        client.process.ends(signal.SIGTERM)


def drive(client: Client, pose_type: Any) -> None:
    """Send images, sweeps, depth and poses until all comes back, and compare points and masks."""
    cameras = {c: client.publisher(f'{c}/image_raw') for c in CAMERAS}
    infos = [client.publisher(f'{c}/camera_info', CameraInfo) for c in CAMERAS]
    lidar = client.publisher('lidar/points', PointCloud2)
    depth = client.publisher('front/depth/image_raw', Image)
    pose = client.publisher('pose', pose_type)
    for topic, kind in TOPICS.items():
        client.listen(topic, kind)
    client.heard(*TOPICS)
    client.connect(*cameras.values(), *infos, lidar, depth, pose)
    points = np.random.default_rng(0).uniform((3, -10, -1), (20, 20, 2), (500, 3))
    metres = np.full(SIZE, 6.0, np.float32)

    def send(at: int) -> None:
        for publisher in infos:
            publisher.publish(info_message(LENS, at))
        pose.publish(stamp(pose_type(), at, 'odom'))
        lidar.publish(cloud_message(cloud(points), at))
        image = image_message(
            metres.view(np.uint8).reshape(90, -1), at, encoding='32FC1', frame_id='front_optical'
        )
        image.width = SIZE[1]
        depth.publish(image)
        for camera, publisher in cameras.items():
            frame = picture(*SIZE, seed=at)
            publisher.publish(image_message(frame, at, frame_id=f'{camera}_optical'))

    def came(at: int) -> dict[str, Any] | None:
        found = {t: next((m for m in client.got[t] if stamp_ns(m) == at), None) for t in TOPICS}
        return found if all(found.values()) else None

    found: Any = None
    for _ in range(20):
        send(at := next(STAMPS))
        with contextlib.suppress(AssertionError):
            found = client.until(lambda at=at: came(at), 'all', 8.0)
            break
    assert found, client.status('lidar')
    masks = {c: pixels_of(found[f'{c}/nightseg/labels']) for c in CAMERAS}
    labels = read_cloud(found[OUT]).records['label'][0]
    k = np.array(LENS.k).reshape(3, 3)
    seen = 0
    for camera, yaw in CAMERAS.items():
        optical = np.linalg.inv(looking(yaw))[:3, :3] @ points.T
        u, v = (k @ (optical / optical[2]))[:2]
        inside = (optical[2] > 0.1) & (np.abs(u - 79.5) < 79) & (np.abs(v - 44.5) < 44)
        seen += int(inside.sum())
        wanted = masks[camera][v[inside].round().astype(int), u[inside].round().astype(int)]
        assert (labels[inside] == wanted).mean() > 0.9
    assert seen > 100
    organised = read_cloud(found['front/nightseg/points'])
    assert (organised.height, organised.width) == SIZE
    assert (organised.records['label'] == masks['front']).mean() > 0.99
