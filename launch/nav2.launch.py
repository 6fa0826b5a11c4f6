# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Start night_perception on the topics of Nav2's semantic segmentation layer.

Every argument of night_perception.launch.py is taken. The layer's parameters for these topics are
in config/nav2_semantic_layer.yaml.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetLaunchConfiguration,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource

NODE = Path(__file__).absolute().parent / 'night_perception.launch.py'
#: Topic below the prefix, by output of the node.
TOPICS = {'labels': 'mask', 'confidence': 'confidence', 'label_info': 'label_info'}


def generate_launch_description():
    """Return the launch file of the node with its outputs renamed."""
    text = 'where the layer reads mask, confidence and label_info; several cameras have theirs '
    text += 'below PREFIX/CAMERA'
    return LaunchDescription([
        DeclareLaunchArgument('prefix', default_value='/segmentation', description=text),
        OpaqueFunction(function=rename),
        IncludeLaunchDescription(PythonLaunchDescriptionSource(str(NODE))),
    ])  # fmt: skip


def rename(context):
    """Set the argument ``remap`` for the cameras that are asked for."""
    given = context.launch_configurations
    cameras = words(given.get('cameras', ''))
    if not cameras:
        # as the node calls them
        topics = words(given.get('image_topics', '')) or ['camera/image_raw']
        cameras = [topic.rpartition('/')[0] for topic in topics]
    if len(set(cameras)) < len(cameras) or not all(cameras):
        raise ValueError(f'give each camera a name of its own with cameras:=..., got {cameras}')
    pairs = [pair for pair in given.get('remap', '').split(',') if pair]
    for camera in cameras:
        below = f'/{camera.strip("/")}' if len(cameras) > 1 else ''
        for output, topic in TOPICS.items():
            pairs.append(f'{camera}/nightseg/{output}:={given["prefix"]}{below}/{topic}')
    return [SetLaunchConfiguration('remap', ','.join(pairs))]


def words(text):
    """Return the items of ``a,b`` or ``[a, b]``."""
    return [item.strip() for item in text.strip('[] ').split(',') if item.strip()]
