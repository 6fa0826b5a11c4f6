# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The launch file: against a recorder everywhere, with a real LaunchService where there is one."""

from __future__ import annotations

import os
from pathlib import Path
import re
import signal
import sys
from typing import Any

from launch_recorder import expand, LogInfo, ProcessExited, Recording, TimerAction
from nightseg_ros.node.camera import TOPICS
from nightseg_ros.node.parameters import BY_NAME, CLOUD_PARAMETERS
from nightseg_ros.taxonomy import CAMVID11
import pytest
import yaml

ROOT = Path(__file__).parent.parent
LAUNCH_FILE = ROOT / 'launch' / 'night_perception.launch.py'
DEFAULTS = ROOT / 'config' / 'night_perception.yaml'
# every node has it without declaring it
BUILT_IN = {'use_sim_time'}

# argument as typed, parameter as the node gets it
SETTINGS = [
    ('cameras', 'front', ['front']),
    ('cameras', '[front, rear]', ['front', 'rear']),
    # a camera may be called 1, which YAML reads as a number
    ('cameras', '1, 2', ['1', '2']),
    ('image_topics', '/a/image_raw,b/image', ['/a/image_raw', 'b/image']),
    ('route', 'night', 'night'),
    ('device', 'cpu', 'cpu'),
    ('backend', 'onnxruntime', 'onnxruntime'),
    ('use_sim_time', 'true', True),
    ('use_sim_time', 'False', False),
    ('autostart', 'false', False),
]


@pytest.fixture
def launch_file(monkeypatch):
    # the executables are looked up on PATH, too: here they are to be named by package
    monkeypatch.setenv('PATH', '/usr/bin:/bin')
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    return Recording(LAUNCH_FILE)


def declared() -> dict[str, Any]:
    """Return the node's parameters with their defaults, as its table has them."""
    return {name: parameter.plain_default for name, parameter in BY_NAME.items()}


def console_scripts() -> set[str]:
    return set(re.findall(r"'(\w+) = nightseg_ros\.", (ROOT / 'setup.py').read_text()))


def test_arguments_are_the_documented_ones_and_described(launch_file):
    wanted = 'cameras image_topics route device backend params_file namespace use_sim_time clouds '
    wanted += 'clouds_params_file bag view remap rviz autostart log_level'
    assert set(launch_file.arguments) == set(wanted.split())
    assert all(argument.description for argument in launch_file.arguments.values())


def test_defaults_start_one_node_on_the_shipped_parameters(launch_file, tmp_path):
    nodes = launch_file.nodes()
    assert set(nodes) == {'night_perception'}
    node = nodes['night_perception']
    # the overrides are filed under the full name only where a namespace is given, be it ''
    assert (node.package, node.name, node.namespace) == ('nightseg', 'night_perception', '')
    assert node.parameter_files() == [DEFAULTS]
    assert node.overrides() == {}
    assert not node.ros_arguments
    # an argument that is not set overrides nothing
    mine = tmp_path / 'mine.yaml'
    mine.write_text('/**: {ros__parameters: {route: night}}')
    unset = dict.fromkeys(['cameras', 'image_topics', 'route', 'autostart', 'namespace'], '')
    node = launch_file.nodes(params_file=str(mine), **unset)['night_perception']
    assert (node.parameter_files(), node.overrides()) == ([mine], {})


@pytest.mark.parametrize(('name', 'typed', 'wanted'), SETTINGS)
def test_a_set_argument_becomes_one_typed_parameter_after_the_file(
    launch_file, name, typed, wanted
):
    node = launch_file.nodes(**{name: typed})['night_perception']
    assert node.overrides() == {name: wanted}
    assert isinstance(node.parameters[0], str), 'the file comes first, so that arguments win'
    if name not in BUILT_IN:
        assert type(wanted) is type(declared()[name])


def test_namespace_and_log_level_reach_node_player_and_page(launch_file, tmp_path):
    common = {'namespace': 'truck_7', 'log_level': 'debug'}
    nodes = launch_file.nodes(bag='drive.mcap', view='true', **common)
    assert set(nodes) == {'night_perception', 'bag_player', 'nightseg'} <= console_scripts()
    page = nodes.pop('nightseg')
    assert (page.package, page.arguments) == ('nightseg', ['view'])
    assert {node.namespace for node in nodes.values()} == {'truck_7'}
    for node in nodes.values():
        assert node.ros_arguments == ['--log-level', 'debug']
    # with a clock where simulated time is asked for
    assert nodes['bag_player'].arguments == ['drive.mcap']
    for sim_time, clock in (('false', []), ('true', ['--clock'])):
        player = launch_file.nodes(bag='drive.mcap', use_sim_time=sim_time)['bag_player']
        assert player.arguments == ['drive.mcap', *clock]
        file = tmp_path / 'parameters.yaml'
        file.write_text(f'night_perception: {{ros__parameters: {{use_sim_time: {sim_time}}}}}')
        given = {'bag': 'drive.mcap', 'params_file': str(file)}
        assert launch_file.nodes(**given)['bag_player'].arguments == player.arguments


def test_a_plain_pip_install_is_found_on_path(launch_file, tmp_path, monkeypatch):
    script = tmp_path / 'bin' / 'night_perception'
    script.parent.mkdir()
    script.touch(mode=0o755)
    monkeypatch.setenv('PATH', str(script.parent))
    node = launch_file.nodes()['night_perception']
    assert (node.package, node.executable) == (None, str(script))

    installed = tmp_path / 'prefix' / 'lib' / 'nightseg' / 'night_perception'
    installed.parent.mkdir(parents=True)
    installed.touch(mode=0o755)
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'/nowhere:{tmp_path / "prefix"}')
    node = launch_file.nodes()['night_perception']
    assert (node.package, node.executable) == ('nightseg', 'night_perception')


def test_rviz_shows_the_shipped_layout(launch_file):
    assert set(launch_file.nodes(rviz='false')) == {'night_perception'}
    rviz = launch_file.nodes(rviz='true', namespace='truck_7')['rviz2']
    assert (rviz.package, rviz.namespace) == ('rviz2', 'truck_7')
    layout = Path(rviz.arguments[rviz.arguments.index('-d') + 1])
    displays = yaml.safe_load(layout.read_text())['Visualization Manager']['Displays']
    topics = {display['Topic']['Value']: display['Topic'] for display in displays}
    # a camera driver publishes best-effort, and a reliable subscriber would see nothing
    assert topics['camera/image_raw']['Reliability Policy'] == 'Best Effort'


@pytest.mark.parametrize(
    ('given', 'renamed'),
    [
        ({}, {'camera': '/segmentation'}),
        ({'image_topics': '/rgbd/image', 'prefix': '/s'}, {'/rgbd': '/s'}),
        ({'image_topics': '/front/image_raw/ffmpeg'}, {'/front': '/segmentation'}),
        ({'params_file': {'cameras': ['rear']}}, {'rear': '/segmentation'}),
        ({'params_file': {'cameras': ['camera'], 'image_topics': ['/a/image', '/b/image']}},
         {'/a': '/segmentation/a', '/b': '/segmentation/b'}),
        ({'params_file': {'cameras': ['rear'], 'image_topics': ['']}, 'cameras': 'front'},
         {'front': '/segmentation'}),
        ({'cameras': 'front/'}, {'front': '/segmentation'}),
        ({'cameras': '["front", rear]', 'prefix': '/s/', 'remap': '[/a:=/b]'},
         {'front': '/s/front', 'rear': '/s/rear'}),
    ],
)  # fmt: skip
def test_nav2_reads_its_own_topics_also_of_a_node_that_came_back(
    launch_file, given, renamed, tmp_path
):
    if 'params_file' in given:
        file = tmp_path / 'parameters.yaml'
        content = {'/car': {'night_perception': {'ros__parameters': given['params_file']}}}
        file.write_text(yaml.safe_dump(content))
        given = given | {'params_file': str(file)}
    nav2 = Recording(LAUNCH_FILE.with_name('nav2.launch.py'))
    context = nav2.context()
    context.launch_configurations.update(given)
    remap, include = nav2.actions(context)
    assert (remap.name, include.source.path) == ('remap', str(LAUNCH_FILE))
    topics = {'labels': 'mask', 'confidence': 'confidence', 'label_info': 'label_info'}
    assert set(topics) <= {topic.name for topic in TOPICS}
    wanted = [('/a', '/b')] * ('remap' in given) + [
        (f'{camera}/nightseg/{ours}', f'{prefix}/{theirs}')
        for camera, prefix in renamed.items() for ours, theirs in topics.items()
    ]  # fmt: skip
    context = launch_file.context(remap=remap.value, clouds='true')
    node, clouds = launch_file.actions(context)
    assert node.remappings == clouds.remappings == wanted
    _, timer = node.on_exit(ProcessExited(1), context)
    (again,) = expand(timer.actions, context)
    assert again.remappings == wanted
    if not given:
        # the shipped parameters of the layer name these, and classes that there are
        layer = yaml.safe_load((ROOT / 'config' / 'nav2_semantic_layer.yaml').read_text())
        source = layer['semantic_segmentation_layer']['camera']
        read = {source[f'{kind}_topic'] for kind in ('segmentation', 'confidence', 'labels')}
        assert read == {theirs for _, theirs in wanted}
        for kind in source['class_types']:
            assert set(source[kind]['classes']) <= set(CAMVID11.classes)


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'params_file': '/no/such.yaml'}, r'params_file.*/no/such\.yaml'),
        ({'clouds': 'true', 'clouds_params_file': '/no/x'}, 'clouds_params_file.*/no/x'),
        ({'autostart': 'maybe'}, 'autostart.*maybe'),
        ({'use_sim_time': '2'}, 'use_sim_time.*2'),
        ({'rviz': 'y'}, 'rviz.*y'),
        ({'remap': '/a/labels'}, 'remap must be FROM:=TO'),
    ],
)
def test_a_wrong_argument_stops_the_launch_and_is_named(launch_file, given, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        launch_file.nodes(**given)


def test_a_failing_node_comes_back_later_and_later_and_a_stopped_one_does_not(launch_file):
    context = launch_file.context(route='night')
    (node,) = launch_file.actions(context)
    delays = []
    for _ in range(6):
        assert node.overrides() == {'route': 'night'}
        note, timer = node.on_exit(ProcessExited(-9), context)
        assert isinstance(note, LogInfo) and isinstance(timer, TimerAction)
        assert '-9' in note.msg
        delays.append(timer.period)
        (node,) = expand(timer.actions, context)
    assert delays == [1, 2, 4, 8, 10, 10]

    context.now += 3600
    _, timer = node.on_exit(ProcessExited(1), context)
    assert timer.period == 1, 'an hour of work clears the record'
    (node,) = expand(timer.actions, context)
    assert node.on_exit(ProcessExited(0), context) is None
    context.is_shutdown = True
    assert node.on_exit(ProcessExited(1), context) is None


def test_clouds_start_a_second_node_on_its_own_parameters(launch_file, tmp_path):
    assert 'semantic_cloud' not in launch_file.nodes(clouds='false')
    nodes = launch_file.nodes(
        clouds='roof,rear', cameras='front,left', route='night', namespace='truck_7',
        use_sim_time='true',
    )  # fmt: skip
    assert set(nodes) == {'night_perception', 'semantic_cloud'}
    node = nodes['semantic_cloud']
    assert (node.package, node.name, node.namespace) == ('nightseg', 'semantic_cloud', 'truck_7')
    assert node.parameter_files() == [DEFAULTS.with_name('semantic_cloud.yaml')]
    assert node.overrides() == {
        'cameras': ['front', 'left'], 'sensors': ['roof', 'rear'], 'use_sim_time': True,
    }  # fmt: skip
    assert set(node.overrides()) - BUILT_IN <= {parameter.name for parameter in CLOUD_PARAMETERS}
    assert 'semantic_cloud' in console_scripts()
    mine = tmp_path / 'mine.yaml'
    mine.write_text('/**: {ros__parameters: {sensors: [velodyne]}}')
    node = launch_file.nodes(clouds='true', clouds_params_file=str(mine))['semantic_cloud']
    assert (node.parameter_files(), node.overrides()) == ([mine], {})


# -- with the real thing ---------------------------------------------------------------------

LAUNCHER = """
import sys
from launch import LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
path, *pairs = sys.argv[1:]
service = LaunchService()
service.include_launch_description(
    IncludeLaunchDescription(
        PythonLaunchDescriptionSource(path),
        launch_arguments=[pair.split(':=') for pair in pairs],
    )
)
sys.exit(service.run())
"""


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize('given', ['arguments', 'namespace'])
def test_real_launch_brings_a_killed_node_back(monkeypatch, tmp_path, given):
    pytest.importorskip('launch_ros', reason='launch_ros has no wheel and is not installed')
    from ros_harness import Client, ended, Process

    (tmp_path / 'wild.yaml').write_text('/**: {ros__parameters: {route: night}}')
    (tmp_path / 'full_name.yaml').write_text(
        '/truck_7/night_perception: {ros__parameters: {route: night, cameras: [roof]}}'
    )
    # unconfigured is enough to see the parameters, and needs no weights
    arguments, namespace, wanted = {
        'arguments': (
            [f'params_file:={tmp_path}/wild.yaml', 'device:=cpu', 'cameras:=front,rear'], '',
            {'route': 'night', 'device': 'cpu', 'cameras': ['front', 'rear']},
        ),
        # an argument wins over a params_file with the full name
        'namespace': (
            [f'params_file:={tmp_path}/full_name.yaml', 'namespace:=truck_7', 'route:=day'],
            '/truck_7', {'route': 'day', 'cameras': ['roof']},
        ),
    }[given]  # fmt: skip
    wanted |= {'autostart': False, 'backend': declared()['backend']}
    monkeypatch.setenv('PATH', f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}')
    command = ['-c', LAUNCHER, str(LAUNCH_FILE), *arguments, 'autostart:=false']
    with (
        ended(Process(tmp_path / 'launch.txt', *command)) as launch,
        Client(f'{namespace}/night_perception') as client,
    ):
        assert dict(zip(wanted, client.get(*wanted))) == wanted
        os.kill(int(re.search(r'started with pid \[(\d+)\]', launch.text)[1]), signal.SIGKILL)
        launch.until('again in 1 s')
        client.until(lambda: launch.text.count('started with pid') == 2, 'another process')
        assert dict(zip(wanted, client.get(*wanted))) == wanted
        assert launch.stop(timeout=20) == 0, launch.text
