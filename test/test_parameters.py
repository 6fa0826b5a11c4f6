# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The parameter table against all that is made of it, and the settings that it leads to."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip('rclpy', reason='rclpy is neither installed nor sourced')

from nightseg_ros.config import ConfigError, to_mapping
from nightseg_ros.node.parameters import (
    BY_NAME,
    CLOUD_PARAMETERS,
    PARAMETERS,
    CloudSettings,
    Parameter,
    Settings,
    settings_of,
)
from nightseg_ros.perception.pipeline import PipelineConfig

ROOT = Path(__file__).parent.parent
TABLES = ROOT / 'bench' / 'node_tables.py'
KINDS = {
    'night_perception': (PARAMETERS, Settings),
    'semantic_cloud': (CLOUD_PARAMETERS, CloudSettings),
}


def defaults(table: tuple[Parameter, ...] = PARAMETERS) -> dict[str, Any]:
    return {row.name: row.plain_default for row in table}


def flat(nested: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in nested.items():
        more = flat(value, f'{prefix}{key}.') if isinstance(value, dict) else {prefix + key: value}
        result.update(more)
    return result


def settings(**changes: Any) -> Settings:
    return settings_of(
        Settings, defaults() | {k.replace('__', '.'): v for k, v in changes.items()}
    )


@pytest.mark.parametrize('node', KINDS)
def test_the_shipped_yaml_holds_the_defaults(node: str) -> None:
    values = flat(
        yaml.safe_load((ROOT / 'config' / f'{node}.yaml').read_text())['/**']['ros__parameters']
    )
    table, build = KINDS[node]
    assert values == defaults(table)
    assert [type(value) for value in values.values()] == [
        type(value) for value in defaults(table).values()
    ]
    assert settings_of(build, values)


@pytest.mark.skipif(not TABLES.is_file(), reason='bench/ is not part of this copy')
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
def test_files_hold_what_the_tables_generate(name: str, file: str, mark: str) -> None:
    text = (ROOT / file).read_text()
    if mark:
        _, begin, rest = text.partition(f'<!-- {mark} -->\n')
        text, end, _ = rest.partition(f'<!-- /{mark} -->')
        assert begin and end, f'{file} lacks the lines <!-- {mark} --> and <!-- /{mark} -->'
    wanted = runpy.run_path(str(TABLES))['generate'](name)
    assert text.strip() == wanted.strip(), f'python bench/node_tables.py {name} prints it'


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        ({'cameras': ['']}, "'cameras' is empty"),
        ({'cameras': ['a', 'a']}, "'cameras' names a twice"),
        ({'sensors': ['']}, "'sensors' and 'depth_cameras' are both empty"),
        ({'depth_cameras': ['roof']}, "'depth_cameras' names roof, which is none of 'cameras'"),
        ({'sensors': ['camera'], 'depth_cameras': ['camera']}, 'both lead to camera/nightseg/po'),
        ({'sensor_topics': ['a', 'b']}, "'sensor_topics' has 2 topics for 1 names"),
        ({'info_topics': ['a', 'b']}, "'info_topics' has 2 topics for 1 names"),
        ({'transforms': ['base lidar 1 2']}, "'transforms': transform 'base lidar 1 2' must be"),
        ({'occlusion.cell': -1.0}, "'occlusion.cell' must be 0 to 200, got -1"),
        ({'odometry_type': 'x'}, "'odometry_type' must be one of nav_msgs/Odometry, geometry_m"),
    ],
)
def test_contradictions_of_clouds_are_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings_of(CloudSettings, defaults(CLOUD_PARAMETERS) | given)


def test_descriptors_are_the_table() -> None:
    numbers = {'bool': 1, 'integer': 2, 'double': 3, 'string': 4, 'string array': 9}
    for parameter in PARAMETERS:
        found = parameter.descriptor()
        assert (found.name, found.type) == (parameter.name, numbers[parameter.kind])
        assert parameter.text in found.description
        ranges = [*found.integer_range, *found.floating_point_range]
        assert [(r.from_value, r.to_value) for r in ranges] == (
            [] if parameter.bounds is None else [parameter.bounds]
        )
        assert all(choice in found.additional_constraints for choice in parameter.choices)


def test_every_setting_of_the_pipeline_is_a_parameter() -> None:
    assert set(BY_NAME) >= set(flat(to_mapping(PipelineConfig())))
    assert settings().pipeline == PipelineConfig()


def test_what_may_change_while_the_node_runs() -> None:
    wanted = {
        'route', 'overlay_alpha', 'max_rate', 'max_age', 'router.dark', 'router.bright',
        'router.dwell_dark_s', 'router.dwell_bright_s',
        *(f'router.table.{state}' for state in ('day', 'dusk', 'night', 'glare')),
    }  # fmt: skip
    dynamic = {parameter.name for parameter in PARAMETERS if parameter.dynamic}
    assert wanted <= dynamic
    assert not dynamic & {'weights.day', 'device', 'backend', 'cameras', 'image_topics'}


@pytest.mark.parametrize('parameter', [*PARAMETERS, *CLOUD_PARAMETERS], ids=lambda p: p.name)
def test_defaults_are_accepted_and_what_is_out_of_bounds_is_not(parameter: Parameter) -> None:
    assert parameter.problem(parameter.plain_default) is None
    wrong: list[Any] = [None, object()]
    if parameter.choices:
        wrong += ['', 'nonsense']
    if parameter.bounds is not None:
        step = 1 if parameter.kind == 'integer' else 0.5
        kind: Any = type(parameter.default)
        wrong += [kind(parameter.bounds[0] - step), kind(parameter.bounds[1] + step), True]
        for bound in parameter.bounds:
            assert parameter.problem(kind(bound)) is None
    if parameter.kind == 'double':
        wrong += [math.nan, math.inf]
    for value in wrong:
        assert parameter.name in (parameter.problem(value) or ''), value


@pytest.mark.parametrize(
    ('given', 'wanted'),
    [
        ({}, [('camera', 'camera/image_raw', 'camera/camera_info', 'camera/nightseg')]),
        (
            {'cameras': ['front', '/rear']},
            [
                ('front', 'front/image_raw', 'front/camera_info', 'front/nightseg'),
                ('/rear', '/rear/image_raw', '/rear/camera_info', '/rear/nightseg'),
            ],
        ),
        (
            {'image_topics': ['/usb/image', 'left/rgb/image_rect']},
            [
                ('usb', '/usb/image', '/usb/camera_info', '/usb/nightseg'),
                ('left/rgb', 'left/rgb/image_rect', 'left/rgb/camera_info', 'left/rgb/nightseg'),
            ],
        ),
        (
            {'image_topics': ['stereo/left', 'stereo/right', 'image']},
            [
                ('stereo/left', 'stereo/left', 'stereo/camera_info', 'stereo/left/nightseg'),
                ('stereo/right', 'stereo/right', 'stereo/camera_info', 'stereo/right/nightseg'),
                ('image', 'image', 'camera_info', 'image/nightseg'),
            ],
        ),
        (
            {'cameras': ['roof'], 'image_topics': ['/usb/image']},
            [('roof', '/usb/image', '/usb/camera_info', 'roof/nightseg')],
        ),
        (
            {'cameras': ['roof'], 'transport': 'compressed'},
            [('roof', 'roof/image_raw/compressed', 'roof/camera_info', 'roof/nightseg')],
        ),
        (
            {'image_topics': ['/usb/image/compressed'], 'transport': 'compressed'},
            [('usb', '/usb/image/compressed', '/usb/camera_info', '/usb/nightseg')],
        ),
    ],
)
def test_cameras_and_topics(given: dict[str, Any], wanted: list[tuple[str, ...]]) -> None:
    found = settings(**given).camera_names
    assert [(c.name, c.image_topic, c.info_topic, c.output) for c in found] == wanted


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        ({'cameras': [''], 'image_topics': ['']}, 'both empty'),
        ({'cameras': ['a', 'a']}, "'cameras' names a twice"),
        ({'cameras': ['a', 'b'], 'image_topics': ['x']}, "'cameras' names 2 and 'image_topics' 1"),
        ({'image_topics': ['x/i', 'x/i']}, 'twice'),
        ({'cameras': ['a', 'b'], 'ego_masks': ['m.png']}, '1 files for 2 cameras'),
        ({'router__dark': 0.7}, r"'router': 'dark' must be below 'bright' \(0.65\), got 0.7"),
        ({'router__gap_s': 1.0}, "'gap_s' must be longer than both dwells"),
        ({'long_side': 32}, 'long_side is 0 or 64 to 4096'),
        ({'max_rate': math.nan}, "'max_rate' must be 0 to 1000"),
        ({'route': 'noon'}, "'route' must be one of auto, day, night, translate; got 'noon'"),
    ],
)
def test_contradictions_are_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        settings(**given)
