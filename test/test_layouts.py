# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The shipped RViz and Foxglove layouts, and the deployment page: they name what there is."""

import json
from pathlib import Path
import re
from typing import Any

from nightseg_ros.data.convert import DEFAULT_OUTPUTS
from nightseg_ros.dds import profile_environment
from nightseg_ros.node.camera import TOPICS
from nightseg_ros.node.diagnostics import FRAME_DROPS, Health, Source
from nightseg_ros.node.parameters import CloudSettings, PARAMETERS, Settings
import numpy as np
import pytest
import yaml

ROOT = Path(__file__).parent.parent
RVIZ = yaml.safe_load((ROOT / 'config' / 'nightseg.rviz').read_text())
DISPLAYS: list[dict[str, Any]] = RVIZ['Visualization Manager']['Displays']
FOXGLOVE = json.loads((ROOT / 'config' / 'nightseg_foxglove.json').read_text())
#: Each panel's settings under its id, which is ``<type>!<name>``.
PANELS: dict[str, dict[str, Any]] = FOXGLOVE['configById']

IMAGE = 'sensor_msgs/Image'
IMAGES = {IMAGE, 'sensor_msgs/CompressedImage'}
DIAGNOSTICS = 'diagnostic_msgs/DiagnosticArray'
(CAMERA,) = Settings().camera_names
(SENSOR,) = CloudSettings().point_sources
#: The type of every topic that the default camera reads and gives.
KINDS = {CAMERA.image_topic: IMAGE, **{f'{CAMERA.output}/{t.name}': t.kind for t in TOPICS}}
#: Those of a node in no namespace: Foxglove knows full names only.
ABSOLUTE = {f'/{name}': kind for name, kind in KINDS.items()} | {'/diagnostics': DIAGNOSTICS}


def test_rviz_shows_topics_that_there_are():
    shown = set()
    for display in DISPLAYS:
        topic = display['Topic']['Value']
        assert not topic.startswith('/'), f'{topic} would not follow the namespace'
        if display['Class'] == 'rviz_default_plugins/PointCloud2':
            assert topic == f'{SENSOR.output}/points'
            assert display['Color Transformer'] == 'RGB8'
        else:
            assert display['Class'] == 'rviz_default_plugins/Image'
            # the raw transport cannot show a CompressedImage
            assert KINDS.get(topic) == IMAGE, f'{topic} is no image of the node'
        shown.add(display['Class'])
    assert len(shown) == 2


def test_foxglove_places_each_panel_once():
    assert set(FOXGLOVE) == {
        'configById', 'globalVariables', 'userNodes', 'playbackConfig', 'layout',
    }  # fmt: skip
    places = [FOXGLOVE['layout']]
    for place in places:
        if isinstance(place, dict):
            assert set(place) == {'direction', 'splitPercentage', 'first', 'second'}
            assert place['direction'] in ('row', 'column') and 0 < place['splitPercentage'] < 100
            places += [place['first'], place['second']]
    assert sorted(place for place in places if isinstance(place, str)) == sorted(PANELS)


@pytest.mark.parametrize('panel', sorted(PANELS))
def test_foxglove_shows_topics_that_there_are(panel):
    settings, kind = PANELS[panel], panel.partition('!')[0]
    if kind == 'Image':
        assert ABSOLUTE[settings['imageMode']['imageTopic']] in IMAGES
    elif kind == '3D':
        assert set(settings['topics']) == {f'/{SENSOR.output}/points'}
        (shown,) = settings['topics'].values()
        assert (shown['visible'], shown['colorField'], shown['colorMode']) == (True, 'rgb', 'rgb')
    elif kind in ('DiagnosticSummary', 'DiagnosticStatusPanel'):
        assert ABSOLUTE[settings['topicToRender']] == DIAGNOSTICS
    else:
        assert kind == 'Plot'
        assert settings['paths']
        for path in settings['paths']:
            topic, _, field = path['value'].partition('.')
            assert (ABSOLUTE[topic], field) == ('std_msgs/Float32', 'data')


def test_foxglove_selects_the_status_that_the_node_writes():
    header = pytest.importorskip('std_msgs.msg').Header()
    from nightseg_ros.node.messages import frame_status
    from nightseg_ros.perception.frame import Frame
    from nightseg_ros.perception.illumination import Illumination
    from nightseg_ros.perception.result import Result
    from nightseg_ros.perception.router import Decision

    camera = CAMERA.name
    result = Result(
        frame=Frame(image=np.zeros((4, 4, 3), np.uint8), camera=camera),
        illumination=Illumination(score=0.1, state='night', features={}),
        decision=Decision(state='night', route='night', reason='', switched=False),
    )
    (status,) = frame_status(header, camera, result, {}, 0.1).status
    (selected,) = [
        panel for name, panel in PANELS.items() if name.startswith('DiagnosticStatusPanel!')
    ]
    assert selected['selectedHardwareId'] == status.hardware_id
    assert selected['selectedName'] == status.name


def test_copies_of_bags_hold_what_the_layouts_show():
    held = {f'{CAMERA.output}/{output}' for output in DEFAULT_OUTPUTS} | {CAMERA.image_topic}
    # which `nightseg paint` adds
    held |= {f'{SENSOR.output}/points'}
    assert {display['Topic']['Value'] for display in DISPLAYS} <= held
    shown = set()
    for settings in PANELS.values():
        shown |= {settings.get('imageMode', {}).get('imageTopic', settings.get('topicToRender'))}
        shown |= {path['value'].partition('.')[0] for path in settings.get('paths', ())}
    # the node's own health is no result of a frame
    assert shown - {None, '/diagnostics'} <= {f'/{name}' for name in held}


def test_the_page_names_only_what_there_is():
    text = (ROOT / 'docs' / 'deployment.md').read_text()
    (problem,) = Health(0.0).problems(1.4, Source(topic='/camera/image_raw'), 1.2)
    (quoted,) = re.findall('`(nobody publishes [^`]+)`', text)
    assert quoted in problem.text

    set_at_run_time = set(re.findall(r'param set \S+ ([\w.]+)', text))
    assert set_at_run_time
    assert set_at_run_time <= {p.name for p in PARAMETERS if p.dynamic}

    assert set(re.findall(r'`dropped\.(\w+)`', text)) <= set(FRAME_DROPS)
    outputs = {topic.name for topic in TOPICS}
    assert set(re.findall(r'\b(?:camera|front)/nightseg/([\w/]+)', text)) <= outputs


def test_the_image_sets_both_names_of_the_shipped_profile():
    text = (ROOT / 'docker' / 'Dockerfile').read_text()
    for name, path in profile_environment({}).items():
        assert f'{name}=/ws/install/nightseg/share/nightseg/config/{Path(path).name}' in text


def test_the_context_of_the_image_holds_what_setup_py_installs():
    lines = (ROOT / '.dockerignore').read_text().splitlines()
    assert '*' in lines, 'what is not named stays out: a virtual environment is gigabytes'
    allowed = {line[1:] for line in lines if line.startswith('!')}
    assert allowed >= {
        'config', 'launch', 'models', 'nightseg_ros', 'requirements', 'resource',
        'package.xml', 'setup.cfg', 'setup.py', 'docker/entrypoint.sh', 'README.md', 'LICENSE',
    }  # fmt: skip
    for name in allowed:
        assert (ROOT / name).exists(), name
