# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""semantic_cloud beside night_perception."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

from cloud_harness import cloud_message, CloudProcess, info_message, OUT, PARAMETERS, SECOND, SIZE
from cloud_samples import calibration, cloud, looking
from nightseg_ros.clouds.point_cloud import read_cloud
import numpy as np
import pytest
from ros_harness import Client, image_message, picture, pixels_of, running, stamp, stamp_ns
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
import tiny_weights

pytestmark = [pytest.mark.ros, pytest.mark.slow]


@pytest.mark.parametrize('odometry', ['geometry_msgs/PoseStamped', 'nav_msgs/Odometry'])
def test_two_cameras_and_a_lidar_through_both_nodes(tmp_path: Path, odometry: str) -> None:
    """Images in, labelled points out, with motion made good and a registered depth beside it."""
    package, _, name = odometry.partition('/')
    pose_type = getattr(pytest.importorskip(f'{package}.msg'), name)
    files = tiny_weights.write_all(tmp_path)
    perception = {name: str(path) for name, path in files.items()} | {
        'cameras': ['front', 'left'], 'backend': 'torch', 'threads': 1,
    }  # fmt: skip
    given = PARAMETERS | {
        'confidence': True, 'max_wait': 5.0, 'depth_cameras': ['front'], 'odometry': 'pose',
        'odometry_type': odometry,
    }  # fmt: skip
    with (
        running(tmp_path / 'perception.txt', perception),
        running(tmp_path / 'clouds.txt', given, kind=CloudProcess),
    ):
        client = Client('/semantic_cloud', 'vehicle')
        client.watch_diagnostics()
        client.reach('active')
        cameras = {c: client.publisher(f'{c}/image_raw') for c in ('front', 'left')}
        infos = [client.publisher(f'{c}/camera_info', CameraInfo) for c in cameras]
        lidar = client.publisher('lidar/points', PointCloud2)
        depth = client.publisher('front/depth/image_raw', Image)
        pose = client.publisher('pose', pose_type)
        topics = {OUT: PointCloud2, 'front/nightseg/points': PointCloud2}
        topics |= {f'{c}/nightseg/{kind}': Image for c in cameras
                   for kind in ('labels', 'confidence')}  # fmt: skip
        for topic, kind in topics.items():
            client.listen(topic, kind)
        client.heard(*topics)
        client.connect(*cameras.values(), *infos, lidar, depth, pose)
        rng = np.random.default_rng(0)
        points = rng.uniform((3, -10, -1), (20, 20, 2), (500, 3))
        lens = calibration(width=160, height=90, focal=100.0)
        metres = np.full(SIZE, 6.0, np.float32)

        def drive(number: int) -> int:
            at = (1_800_000_000 + number) * SECOND
            for publisher in infos:
                publisher.publish(info_message(lens, at))
            pose.publish(stamp(pose_type(), at, 'odom'))
            lidar.publish(cloud_message(cloud(points), at))
            image = image_message(
                metres.view(np.uint8).reshape(90, -1), at, encoding='32FC1',
                frame_id='front_optical',
            )  # fmt: skip
            image.width = SIZE[1]
            depth.publish(image)
            for camera, publisher in cameras.items():
                publisher.publish(image_message(
                    picture(*SIZE, seed=number), at, frame_id=f'{camera}_optical'
                ))  # fmt: skip
            return at

        def came(topic: str, at: int) -> Any:
            return next((m for m in client.got[topic] if stamp_ns(m) == at), None)

        for number in range(20):
            at = drive(number)
            with contextlib.suppress(AssertionError):
                client.until(lambda a=at: all(came(topic, a) for topic in topics), 'all', 8.0)
                break
        found = {topic: came(topic, at) for topic in topics}
        assert all(found.values()), client.status('lidar')
        masks = {c: pixels_of(found[f'{c}/nightseg/labels']) for c in cameras}
        labels = read_cloud(found[OUT]).records['label'][0]
        k = np.array(lens.k).reshape(3, 3)
        seen = 0
        for camera, yaw in (('front', 0.0), ('left', math.pi / 2)):
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
        client.close()
