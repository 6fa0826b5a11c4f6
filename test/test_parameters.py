# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The parameter table against all that is made of it, and the settings that it leads to."""

import math
from pathlib import Path
from typing import Any

from nightseg_ros.config import ConfigError, to_mapping
from nightseg_ros.node.parameters import (
    BY_NAME,
    CLOUD_PARAMETERS,
    CloudSettings,
    PARAMETERS,
    Settings,
    settings_of,
)
from nightseg_ros.perception.pipeline import PipelineConfig
from node_tables import generate
import pytest
import yaml

ROOT = Path(__file__).parent.parent
NIGHT, CLOUD = 'night_perception', 'semantic_cloud'
KINDS: dict[str, Any] = {
    NIGHT: (PARAMETERS, Settings), CLOUD: (CLOUD_PARAMETERS, CloudSettings),
}  # fmt: skip


def values(node: str = 'night_perception', **changes: Any) -> dict[str, Any]:
    """Return the defaults as ROS has them, with some changed; '__' in a name stands for '.'."""
    defaults = {row.name: row.plain_default for row in KINDS[node][0]}
    return defaults | {name.replace('__', '.'): value for name, value in changes.items()}


def flat(nested: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in nested.items():
        inner = isinstance(value, dict)
        result |= flat(value, f'{prefix}{key}.') if inner else {prefix + key: value}
    return result


@pytest.mark.parametrize('node', KINDS)
def test_the_shipped_yaml_holds_the_defaults(node):
    text = (ROOT / 'config' / f'{node}.yaml').read_text()
    found = flat(yaml.safe_load(text)['/**']['ros__parameters'])
    assert found == values(node)
    assert [*map(type, found.values())] == [*map(type, values(node).values())]
    assert settings_of(KINDS[node][1], found)


@pytest.mark.parametrize(
    ('name', 'file', 'mark'),
    [
        ('night_perception.yaml', 'config/night_perception.yaml', ''),
        ('semantic_cloud.yaml', 'config/semantic_cloud.yaml', ''),
        ('night_perception.md', 'docs/node.md', 'parameters'),
        ('topics.md', 'docs/node.md', 'topics'),
        ('semantic_cloud.md', 'docs/clouds.md', 'parameters'),
    ],
)
def test_files_hold_what_the_tables_generate(name, file, mark):
    text = (ROOT / file).read_text()
    if mark:
        _, begin, rest = text.partition(f'<!-- {mark} -->\n')
        text, end, _ = rest.partition(f'<!-- /{mark} -->')
        assert begin and end, f'{file} lacks the lines <!-- {mark} --> and <!-- /{mark} -->'
    assert text.strip() == generate(name).strip(), f'python bench/node_tables.py {name} prints it'


def test_every_setting_of_the_pipeline_is_a_parameter():
    assert set(BY_NAME) >= set(flat(to_mapping(PipelineConfig())))
    assert settings_of(Settings, values()).pipeline == PipelineConfig() == Settings().pipeline


@pytest.mark.parametrize('parameter', [*PARAMETERS, *CLOUD_PARAMETERS], ids=lambda p: p.name)
def test_a_row_is_its_descriptor_and_refuses_what_is_out_of_bounds(parameter):
    numbers = {'bool': 1, 'integer': 2, 'double': 3, 'string': 4, 'string array': 9}
    found = parameter.descriptor()
    assert (found.name, found.type) == (parameter.name, numbers[parameter.kind])
    assert parameter.text in found.description
    ranges = [*found.integer_range, *found.floating_point_range]
    bounds = [] if parameter.bounds is None else [parameter.bounds]
    assert [(r.from_value, r.to_value) for r in ranges] == bounds
    assert all(choice in found.additional_constraints for choice in parameter.choices)

    assert parameter.problem(parameter.plain_default) is None
    wrong: list[Any] = [None, object()]
    if parameter.choices:
        wrong += ['', 'nonsense']
    for low, high in bounds:
        kind: Any = type(parameter.default)
        step = 1 if kind is int else 0.5
        wrong += [kind(low - step), kind(high + step), True]
        assert parameter.problem(kind(low)) is parameter.problem(kind(high)) is None
    if parameter.kind == 'double':
        wrong += [math.nan, math.inf]
    for value in wrong:
        assert parameter.name in (parameter.problem(value) or ''), value


#: Names of cameras and topics, transport, and of each camera its name, topics and output.
NAMES: list[tuple[list[str], list[str], str, list[str]]] = [
    (['camera'], [''], 'raw', ['camera camera/image_raw camera/camera_info camera/nightseg']),
    (['front', '/rear'], [''], 'raw',
     ['front front/image_raw front/camera_info front/nightseg',
      '/rear /rear/image_raw /rear/camera_info /rear/nightseg']),
    ([''], ['/usb/image', 'left/rgb/image_rect'], 'raw',
     ['usb /usb/image /usb/camera_info /usb/nightseg',
      'left/rgb left/rgb/image_rect left/rgb/camera_info left/rgb/nightseg']),
    ([''], ['stereo/left', 'stereo/right', 'image'], 'raw',
     ['stereo/left stereo/left stereo/camera_info stereo/left/nightseg',
      'stereo/right stereo/right stereo/camera_info stereo/right/nightseg',
      'image image camera_info image/nightseg']),
    (['roof'], ['/usb/image'], 'raw', ['roof /usb/image /usb/camera_info roof/nightseg']),
    (['roof'], [''], 'compressed',
     ['roof roof/image_raw/compressed roof/camera_info roof/nightseg']),
    (['camera'], ['/usb/image/compressed'], 'compressed',
     ['usb /usb/image/compressed /usb/camera_info /usb/nightseg']),
    ([], ['/isaac/image_compressed'], 'compressed',
     ['isaac /isaac/image_compressed /isaac/camera_info /isaac/nightseg']),
    ([''], ['/a/image_decompressed'], 'compressed',
     ['a /a/image_decompressed/compressed /a/camera_info /a/nightseg']),
    (['/front/'], [''], 'ffmpeg',
     ['/front /front/image_raw/ffmpeg /front/camera_info /front/nightseg']),
    (['camera'], ['/a/image_raw/foxglove', '/b/h264'], 'foxglove',
     ['a /a/image_raw/foxglove /a/camera_info /a/nightseg',
      'b /b/h264 /b/camera_info /b/nightseg']),
    (['camera'], ['/image_raw'], 'raw', ['image_raw /image_raw /camera_info /image_raw/nightseg']),
    (['/nightseg/front'], [''], 'raw',
     ['/nightseg/front /nightseg/front/image_raw /nightseg/front/camera_info '
      '/nightseg/front/nightseg']),
]  # fmt: skip


@pytest.mark.parametrize(('cameras', 'topics', 'transport', 'wanted'), NAMES)
def test_cameras_and_topics(cameras, topics, transport, wanted):
    given = values(cameras=cameras, image_topics=topics, transport=transport)
    found = settings_of(Settings, given).camera_names
    assert [f'{c.name} {c.image_topic} {c.info_topic} {c.output}' for c in found] == wanted


CONTRADICTIONS: list[tuple[str, dict[str, Any], str]] = [
    (NIGHT, {'cameras': [''], 'image_topics': ['']}, 'both empty'),
    (NIGHT, {'cameras': []}, 'both empty'),
    (NIGHT, {'cameras': ['front left']}, "names 'front left': Invalid topic name"),
    (NIGHT, {'cameras': ['/']}, "names '': Invalid topic name"),
    (NIGHT, {'image_topics': ['/a/image', 'a/image']}, "gives two cameras the name 'a'"),
    (NIGHT, {'image_topics': ['/a/']}, "names '/a/': Invalid topic name"),
    (NIGHT, {'image_topics': ['/a/nightseg/labels']}, "no camera's picture but a mask"),
    (NIGHT, {'image_topics': ['/d/image/compressedDepth']}, 'but a depth image'),
    (NIGHT, {'cameras': ['a', 'b'], 'image_topics': ['x']}, "'image_topics' has 1 topics"),
    (NIGHT, {'cameras': ['a', 'b'], 'ego_masks': ['m.png']}, '1 files for 2 cameras'),
    (NIGHT, {'router__dark': 0.7}, r"'router': 'dark' must be below 'bright' \(0.65\), got 0.7"),
    (NIGHT, {'long_side': 32}, "'long_side' must be 0 or 64 to 4096"),
    (NIGHT, {'cameras': ['front-left']}, "'cameras' names 'front-left': .* alphanumerics"),
    (NIGHT, {'cameras': ['a//b']}, "'cameras' names 'a//b': .* repeated '/'"),
    (NIGHT, {'image_topics': ['/{x}/image']}, "names '/{x}/image': .* unknown substitution"),
    (CLOUD, {'cameras': ['']}, "'cameras' is empty"),
    (CLOUD, {'sensors': ['']}, "'sensors' and 'depth_cameras' are both empty"),
    (CLOUD, {'depth_cameras': ['roof']}, "names roof, which is none of 'cameras'"),
    (CLOUD, {'sensor_topics': ['a', 'b']}, "'sensor_topics' has 2 topics for 1 names"),
    (CLOUD, {'info_topics': ['a', 'b']}, "'info_topics' has 2 topics for 1 names"),
    (CLOUD, {'transforms': ['base lidar 1 2']}, "'transforms': transform 'base lidar 1 2' mus"),
]


@pytest.mark.parametrize(('node', 'given', 'words'), CONTRADICTIONS)
def test_contradictions_are_named(node, given, words):
    with pytest.raises(ConfigError, match=words):
        settings_of(KINDS[node][1], values(node, **given))
