# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Start night_perception, and on request semantic_cloud beside it, a bag, a live page and RViz.

An argument that is left unset changes nothing: the value of ``params_file`` holds.
"""

import os
from pathlib import Path
import shutil

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, TimerAction
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
import yaml

CONFIG = Path(__file__).absolute().parent.parent / 'config'

ARGUMENTS = {
    'cameras': 'camera names, comma-separated; each is read from <camera>/image_raw',
    'image_topics': 'image topics, comma-separated, one a camera, where they are named otherwise',
    'route': 'auto, day, night or translate',
    'device': 'auto, cpu or cuda',
    'backend': 'auto, torch, onnxruntime, openvino, openvino-bf16 or tensorrt',
    'params_file': 'YAML file of parameters; unset: config/night_perception.yaml of this package',
    'namespace': 'namespace of the node and of its relative topics',
    'use_sim_time': 'true: take the time from /clock; a bag then publishes it',
    'clouds': 'LiDARs whose points get labels, comma-separated, each read from <name>/points; '
    'true for what clouds_params_file says',
    'clouds_params_file': 'YAML file of parameters of semantic_cloud; unset: '
    'config/semantic_cloud.yaml of this package',
    'bag': 'bag whose images are played into their own topics (`nightseg replay --all` plays '
    'clouds, too); a video or folder plays into camera/image_raw',
    'view': 'true: serve a live page of all cameras on 127.0.0.1, as `nightseg view` does',
    'remap': 'topics of night_perception and semantic_cloud to rename, comma-separated FROM:=TO',
    'rviz': 'true: show camera, overlay and colour mask in RViz',
    'autostart': 'false: stay unconfigured until a lifecycle manager asks',
    'log_level': 'debug, info, warn, error or fatal',
}
LISTS = ('cameras', 'image_topics')
SWITCHES = ('use_sim_time', 'autostart')
TEXTS = ('route', 'device', 'backend')


def generate_launch_description():
    """Return the arguments with their descriptions, and what they start."""
    arguments = [
        DeclareLaunchArgument(name, default_value='', description=text)
        for name, text in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])


def start(context):
    """Return the processes that the arguments ask for."""
    given = {name: context.launch_configurations.get(name, '').strip() for name in ARGUMENTS}
    params_file = Path(given['params_file'] or CONFIG / 'night_perception.yaml').expanduser()
    if not params_file.is_file():
        # launch itself would only warn and run on defaults
        raise FileNotFoundError(f'params_file: there is no file {params_file}')
    held = parameters(yaml.safe_load(params_file.read_text(encoding='utf-8')))
    simulated = switch(
        'use_sim_time', given['use_sim_time'] or str(held.get('use_sim_time') or '')
    )
    common = {'output': 'screen'}
    if given['log_level']:
        common['ros_arguments'] = ['--log-level', given['log_level']]
    settings = [str(params_file), *filter(None, [overrides(given)])]
    run = [given, 'night_perception', settings, common, 0]
    processes = [OpaqueFunction(function=respawning, args=run)]
    if given['clouds'] and given['clouds'].lower() not in ('false', '0'):
        run = [given, 'semantic_cloud', cloud_parameters(given), common, 0]
        processes.append(OpaqueFunction(function=respawning, args=run))
    if given['bag']:
        clock = ['--clock'] if simulated else []
        processes.append(
            Node(
                **executable('bag_player'),
                # absolute topics of a bag stay as they are; those of a video follow
                namespace=given['namespace'],
                arguments=[str(Path(given['bag']).expanduser()), *clock],
                **common,
            )
        )
    if switch('view', given['view']):
        processes.append(Node(**executable('nightseg'), arguments=['view'], output='screen'))
    if switch('rviz', given['rviz']):
        processes.append(
            Node(
                package='rviz2',
                executable='rviz2',
                # relative topics of the RViz file follow the namespace
                namespace=given['namespace'],
                arguments=['-d', str(CONFIG / 'nightseg.rviz')],
                parameters=[{'use_sim_time': simulated}],
            )
        )
    return processes


def respawning(context, given, name, parameters, common, failures):
    """Return a node; when it fails it comes back, after 1, 2, 4 ... at most 10 seconds."""
    started = context.asyncio_loop.time()

    def respawn(event, context):
        if context.is_shutdown or event.returncode == 0:
            return None
        # one failure a day is no reason to stay blind for long
        lasted = context.asyncio_loop.time() - started
        in_a_row = 1 if lasted > 60 else failures + 1
        delay = min(2.0 ** (in_a_row - 1), 10.0)
        # launch_ros will warn of a second node of this name: it never forgets the one that is gone
        run = [given, name, parameters, common, in_a_row]
        again = OpaqueFunction(function=respawning, args=run)
        return [
            LogInfo(msg=f'{name} ended with {event.returncode}: again in {delay:g} s'),
            TimerAction(period=delay, actions=[again]),
        ]

    # namespace '' rather than none: launch_ros then files the overrides under the node's full
    # name, and they hold even where params_file uses that name, too
    node = Node(
        **executable(name),
        name=name,
        namespace=given['namespace'],
        parameters=parameters,
        # semantic_cloud reads what night_perception publishes
        remappings=remaps(given['remap']),
        on_exit=respawn,
        **common,
    )
    return [node]


def parameters(tree):
    """Return the parameters of night_perception in a file's content."""
    found = {}
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if not isinstance(value, dict) or 'ros__parameters' not in value:
            found |= parameters(value)
        elif str(key).rpartition('/')[2] in ('night_perception', '*', '**'):
            found |= value['ros__parameters'] or {}
    return found


def cloud_parameters(given):
    """Return what semantic_cloud gets: its file, and the cameras and switches of all nodes."""
    params_file = Path(given['clouds_params_file'] or CONFIG / 'semantic_cloud.yaml').expanduser()
    if not params_file.is_file():
        raise FileNotFoundError(f'clouds_params_file: there is no file {params_file}')
    # topics that are no camera's name say nothing of it
    shared = overrides({name: given[name] for name in ('cameras', *SWITCHES)})
    if given['clouds'].lower() not in ('true', '1'):
        shared['sensors'] = ParameterValue(words(given['clouds']), value_type=list[str])
    return [str(params_file), *filter(None, [shared])]


def executable(name):
    """Return where the executable is: in the ROS package, or on PATH after a plain pip install."""
    on_path = shutil.which(name)
    prefixes = filter(None, os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep))
    in_package = any((Path(prefix) / 'lib' / 'nightseg' / name).exists() for prefix in prefixes)
    if on_path and not in_package:
        return {'executable': on_path}
    return {'package': 'nightseg', 'executable': name}


def overrides(given):
    """Return the parameters of the arguments that are set, each with its type."""
    parameters = {}
    for name in (n for n in LISTS if given.get(n)):
        parameters[name] = ParameterValue(words(given[name]), value_type=list[str])
    for name in (n for n in TEXTS if given.get(n)):
        parameters[name] = ParameterValue(given[name], value_type=str)
    for name in (n for n in SWITCHES if given.get(n)):
        parameters[name] = switch(name, given[name])
    return parameters


def words(text):
    """Return the items of ``a,b`` or ``[a, b]``."""
    items = yaml.safe_load(text) if text.startswith('[') else text.split(',')
    return [str(item).strip() for item in items if str(item).strip()]


def remaps(text):
    """Return the pairs of ``a:=b,c:=d``."""
    pairs = [tuple(part.strip() for part in item.split(':=')) for item in words(text)]
    if not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise ValueError(f'remap must be FROM:=TO, comma-separated, got {text!r}')
    return pairs


def switch(name, text):
    """Return whether ``text`` says yes; '' says no."""
    if text.lower() not in ('', 'true', 'false', '1', '0'):
        raise ValueError(f'{name} must be true or false, got {text!r}')
    return text.lower() in ('true', '1')
