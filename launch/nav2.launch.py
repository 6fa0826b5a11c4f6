# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Start night_perception on the topics of Nav2's semantic segmentation layer.

Every argument of night_perception.launch.py is taken. The layer's parameters for these topics are
in config/nav2_semantic_layer.yaml.
"""

from pathlib import Path
import re
from runpy import run_path

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetLaunchConfiguration,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
import yaml

NODE = Path(__file__).absolute().parent / 'night_perception.launch.py'
#: What a transport adds to the name of a topic.
TRANSPORT = re.compile('/(compressed|ffmpeg|foxglove)$')
#: Topic below the prefix, by output of the node.
TOPICS = {'labels': 'mask', 'confidence': 'confidence', 'label_info': 'label_info'}
node = run_path(str(NODE))
parameters, words = node['parameters'], node['words']


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
    file = given.get('params_file', '')
    text = Path(file).expanduser().read_text(encoding='utf-8') if file else ''
    held = parameters(yaml.safe_load(text))
    cameras = words(given.get('cameras', '')) or [c for c in held.get('cameras') or () if c]
    cameras = [camera.rstrip('/') for camera in cameras or ['camera']]
    topics = words(given.get('image_topics', '')) or held.get('image_topics') or []
    topics = [TRANSPORT.sub('', topic) for topic in topics if topic]
    if topics and cameras == ['camera']:
        # as the node calls them
        cameras = [topic.rpartition('/')[0] for topic in topics]
    if len(set(cameras)) < len(cameras) or not all(cameras):
        raise ValueError(f'give each camera a name of its own with cameras:=..., got {cameras}')
    pairs, prefix = words(given.get('remap', '')), given['prefix'].rstrip('/')
    for camera in cameras:
        below = f'/{camera.strip("/")}' if len(cameras) > 1 else ''
        for output, topic in TOPICS.items():
            pairs.append(f'{camera}/nightseg/{output}:={prefix}{below}/{topic}')
    return [SetLaunchConfiguration('remap', ','.join(pairs))]
