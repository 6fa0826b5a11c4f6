# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The shipped RViz and Foxglove layouts, and the deployment page: they name what there is."""

import json
from pathlib import Path
import re
from typing import Any

from nightseg_ros.data.convert import DEFAULT_OUTPUTS
from nightseg_ros.dds import profile_path, PROFILE_VARIABLES
from nightseg_ros.node.camera import TOPICS
from nightseg_ros.node.diagnostics import FRAME_DROPS, Health, Source
from nightseg_ros.node.parameters import CloudSettings, PARAMETERS, Settings
import numpy as np
import pytest
import yaml

ROOT = Path(__file__).parent.parent
FOXGLOVE = ROOT / 'config' / 'nightseg_foxglove.json'
DOCKERFILE = ROOT / 'docker' / 'Dockerfile'

IMAGE = 'sensor_msgs/Image'
IMAGES = {IMAGE, 'sensor_msgs/CompressedImage'}
DIAGNOSTICS = 'diagnostic_msgs/DiagnosticArray'


(CAMERA,) = Settings().camera_names
(SENSOR,) = CloudSettings().point_sources


def kinds() -> dict[str, str]:
    """Return the type of every topic that the default camera reads and gives."""
    outputs = {f'{CAMERA.output}/{topic.name}': topic.kind for topic in TOPICS}
    return {CAMERA.image_topic: IMAGE, **outputs}


def kind_of_absolute(topic: str) -> str:
    """Return the type of a topic that Foxglove names, the node being in no namespace."""
    assert topic.startswith('/'), f'{topic}: Foxglove knows full names only'
    known = {f'/{name}': kind for name, kind in kinds().items()} | {'/diagnostics': DIAGNOSTICS}
    assert topic in known, f'{topic} is no topic of the node'
    return known[topic]


def displays() -> list[dict[str, Any]]:
    layout = yaml.safe_load((ROOT / 'config' / 'nightseg.rviz').read_text())
    return list(layout['Visualization Manager']['Displays'])


def test_rviz_shows_topics_that_there_are():
    assert displays()
    shown = set()
    for display in displays():
        topic = display['Topic']['Value']
        assert not topic.startswith('/'), f'{topic} would not follow the namespace'
        if display['Class'] == 'rviz_default_plugins/PointCloud2':
            assert topic == f'{SENSOR.output}/points'
            assert display['Color Transformer'] == 'RGB8'
        else:
            assert display['Class'] == 'rviz_default_plugins/Image'
            # the raw transport cannot show a CompressedImage
            assert kinds().get(topic) == IMAGE, f'{topic} is no image of the node'
        shown.add(display['Class'])
    assert len(shown) == 2


def panels() -> dict[str, dict[str, Any]]:
    """Return each panel's settings under its id, which is ``<type>!<name>``."""
    return dict(json.loads(FOXGLOVE.read_text())['configById'])


def test_foxglove_places_each_panel_once():
    layout = json.loads(FOXGLOVE.read_text())
    assert set(layout) == {
        'configById', 'globalVariables', 'userNodes', 'playbackConfig', 'layout',
    }  # fmt: skip
    places = [layout['layout']]
    for place in places:
        if isinstance(place, dict):
            assert set(place) == {'direction', 'splitPercentage', 'first', 'second'}
            assert place['direction'] in ('row', 'column') and 0 < place['splitPercentage'] < 100
            places += [place['first'], place['second']]
    assert sorted(place for place in places if isinstance(place, str)) == sorted(panels())


@pytest.mark.parametrize('panel', sorted(panels()))
def test_foxglove_shows_topics_that_there_are(panel):
    settings = panels()[panel]
    kind = panel.partition('!')[0]
    if kind == 'Image':
        assert kind_of_absolute(settings['imageMode']['imageTopic']) in IMAGES
    elif kind == '3D':
        assert set(settings['topics']) == {f'/{SENSOR.output}/points'}
        (shown,) = settings['topics'].values()
        assert (shown['visible'], shown['colorField'], shown['colorMode']) == (True, 'rgb', 'rgb')
    elif kind in ('DiagnosticSummary', 'DiagnosticStatusPanel'):
        assert kind_of_absolute(settings['topicToRender']) == DIAGNOSTICS
    else:
        assert kind == 'Plot'
        assert settings['paths']
        for path in settings['paths']:
            topic, _, field = path['value'].partition('.')
            assert (kind_of_absolute(topic), field) == ('std_msgs/Float32', 'data')


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
        panel for name, panel in panels().items() if name.startswith('DiagnosticStatusPanel!')
    ]
    assert selected['selectedHardwareId'] == status.hardware_id
    assert selected['selectedName'] == status.name


def test_copies_of_bags_hold_what_the_layouts_show():
    held = {f'{CAMERA.output}/{output}' for output in DEFAULT_OUTPUTS} | {CAMERA.image_topic}
    # which `nightseg paint` adds
    held |= {f'{SENSOR.output}/points'}
    assert {display['Topic']['Value'] for display in displays()} <= held
    shown = set()
    for settings in panels().values():
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
    text = DOCKERFILE.read_text()
    place = f'/ws/install/nightseg/share/nightseg/config/{profile_path().name}'
    for name in PROFILE_VARIABLES:
        assert f'{name}={place}' in text


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
