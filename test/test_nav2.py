# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""What Nav2's semantic segmentation layer hears, with a real ``vision_msgs/LabelInfo``."""

from __future__ import annotations

from importlib.util import find_spec
import json
from pathlib import Path
import shutil

from launch_recorder import Recording
from message_packages import build
from nightseg_ros.taxonomy import CAMVID11
import numpy as np
import pytest
from ros_harness import Camera, ended, Process, served

LAUNCH_FILE = Path(__file__).parent.parent / 'launch' / 'nav2.launch.py'
#: Subscribes as the layer does, and prints what it heard once it has all of it.
LAYER = """
import json, rclpy, sys
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image
from vision_msgs.msg import LabelInfo
rclpy.init()
node, heard = rclpy.create_node('layer'), {}
latched = QoSProfile(depth=5, durability=DurabilityPolicy.TRANSIENT_LOCAL)
def image(name):
    def keep(m):
        at = m.header.stamp
        heard[name] = [m.encoding, m.height, m.width, at.sec, at.nanosec, m.header.frame_id]
    node.create_subscription(Image, f'/segmentation/{name}', keep, qos_profile_sensor_data)
image('mask')
image('confidence')
def names(m):
    heard['label_info'] = [[c.class_id, c.class_name] for c in m.class_map]
node.create_subscription(LabelInfo, '/segmentation/label_info', names, latched)
while len(heard) < 3 or heard['mask'] != heard['confidence']:
    rclpy.spin_once(node, timeout_sec=0.2)
print(json.dumps(heard), flush=True)
node.destroy_node()
rclpy.shutdown()
"""


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.skipif(
    find_spec('rosidl_generator_py') is None or shutil.which('c++') is None,
    reason='no generators of messages, or no compiler',
)
def test_the_layer_hears_mask_confidence_and_names_on_its_topics(
    tmp_path, parameters, monkeypatch
):
    for name, value in build(tmp_path / 'built', 'vision_msgs').items():
        monkeypatch.setenv(name, value)
    nav2 = Recording(LAUNCH_FILE)
    remap, _ = nav2.actions(nav2.context())
    renamed = [part for pair in remap.value.split(',') for part in ('-r', pair)]
    with (
        served(tmp_path, parameters, *renamed) as client,
        ended(Process(tmp_path / 'layer', '-c', LAYER)) as layer,
    ):
        camera = Camera(client)
        client.connect(camera.publisher)
        client.feed(
            lambda: camera.send(np.full((48, 64, 3), 150, np.uint8)),
            lambda: layer.process.poll() is not None, 'the end of the layer',
        )  # fmt: skip
        assert layer.process.returncode == 0, layer.text
        heard = json.loads(layer.text.splitlines()[-1])
    # equal stamps, which the layer pairs, in the size of the image and under its frame
    assert heard['mask'][:3] == ['mono8', 48, 64] and heard['mask'][-1] == 'optical'
    assert heard['label_info'] == [list(pair) for pair in enumerate(CAMVID11.classes)]
