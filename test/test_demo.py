# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The demo and `nightseg run` through real ROS 2 processes, and what may go wrong."""

from __future__ import annotations

import json
from pathlib import Path
import time

from bag_samples import frames_of
import cv2
from nightseg_ros.bags.reader import BagReader
from nightseg_ros.cli import processes
from nightseg_ros.cli.main import main
from nightseg_ros.cli.processes import Child, ProcessError
from nightseg_ros.clouds.point_cloud import read_cloud
from nightseg_ros.evaluation.live import FrameStatus, LiveRun
import numpy as np
import pytest
from tiny_data import imwrite
from tiny_weights import weight_flags

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')


def tiny_pipeline(folder: Path) -> list[str]:
    return [*weight_flags(folder), '--backend', 'torch', '--device', 'cpu']


@pytest.mark.ros
@pytest.mark.slow
def test_a_rendered_drive_is_routed_by_its_light(tmp_path, capsys, monkeypatch):
    class Ordered(Child):
        """Sees that nothing is played before the recorder listens."""

        def __init__(self, name, *given, log, **more):
            assert name != 'bag_player' or 'recording' in (log.parent / 'recorder.log').read_text()
            super().__init__(name, *given, log=log, **more)

    monkeypatch.setattr(processes, 'Child', Ordered)
    out = tmp_path / 'demo'
    drive = ['--seconds', '16', '--fps', '2.5', '--size', '320', '180', '--backend', 'onnxruntime']
    assert main(['demo', '--out', str(out), *drive, '--keep-bag', '--clouds', '--view']) == 0
    assert 'watch it on http://127.0.0.1:' in capsys.readouterr().err

    summary = json.loads((out / 'summary.json').read_text())
    assert (summary['input'], summary['frames_in']) == ('rendered', 40)
    assert summary['frames_out'] + summary['dropped'] == 40
    assert set(summary['routes']) == {'day', 'night'} and summary['switches'] >= 1
    assert 0 < summary['latency_ms']['p50'] <= summary['latency_ms']['p99']
    assert summary['rate_hz'] > 0
    for name in ('auto', 'day'):
        assert set(summary['miou'][name]) == {'day', 'night'}
    # trained weights, so far above what chance gives (about 0.03)
    assert summary['miou']['auto']['day'] > 0.2 and summary['miou']['auto']['night'] > 0.2

    with BagReader(out / 'bags' / 'drive') as bag:
        sent = {m.stamp_ns for m in bag.messages(bag.image_topic('/camera/image_raw'))}
    with BagReader(out / 'bags' / 'recorded') as bag:
        masks = frames_of(bag, '/camera/nightseg/labels')
    assert len(masks) == summary['frames_out'] > 5
    assert {mask.stamp_ns for mask in masks} <= sent
    assert {mask.frame_id for mask in masks} == {'camera'}
    assert {mask.image.shape for mask in masks} == {(180, 320, 3)}

    with BagReader(out / 'bags' / 'recorded') as bag:
        (points,) = [topic for topic in bag.topics if topic.name == '/lidar/nightseg/points']
        clouds = [read_cloud(bag.read(message)) for message in bag.messages(points)]
    # every second frame has a sweep
    assert len(clouds) > 5
    known = [cloud.records['label'] != 255 for cloud in clouds]
    assert max(float(mask.mean()) for mask in known) > 0.5

    video = cv2.VideoCapture(str(out / 'overlay.mp4'))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 40
    assert cv2.imread(str(out / 'contact_sheet.jpg')) is not None
    assert not list(out.glob('.*')), 'a work folder was left behind'


@pytest.mark.ros
@pytest.mark.slow
def test_a_run_plays_at_the_rate_and_names_frames_that_cannot_be_read(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv('RCUTILS_COLORIZED_OUTPUT', '1')
    for index in range(20):
        imwrite(tmp_path / 'in' / f'{index:02d}.png', np.full((96, 160, 3), 150, np.uint8))
    (tmp_path / 'in' / '05.png').write_bytes(b'torn')
    file = tmp_path / 'new' / 'summary.json'
    flags = [*tiny_pipeline(tmp_path), '--fps', '10', '--seconds', '1.2', '--out', str(file)]
    assert main(['run', str(tmp_path / 'in'), *flags]) == 1
    (summary,) = json.loads(file.read_text()).values()
    assert (summary['frames_in'], summary['switches']) == (11, 0)
    assert summary['routes'] == {'day': summary['frames_out']}
    assert '05.png' in capsys.readouterr().err.partition('not played: ')[2]


def test_a_run_that_is_ended_before_a_camera_was_seen_is_interrupted(monkeypatch):
    def run_live(commands, *_, **__):
        Path(commands['view'][commands['view'].index('--summary') + 1]).write_text('{}')
        raise KeyboardInterrupt

    monkeypatch.setattr('nightseg_ros.cli.run.run_live', run_live)
    assert main(['run', 'topic:/front/image_raw']) == 130


def test_a_machine_without_a_free_domain_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('nightseg_ros.dds._DOMAINS', range(1, 1))
    imwrite(tmp_path / 'a.png', np.full((96, 160, 3), 150, np.uint8))
    assert main(['run', str(tmp_path / 'a.png')]) == 2
    assert 'nightseg run: no free ROS domain' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('flags', 'words'),
    [(['--weights-night', '{tmp}/torn.safetensors'], 'torn'), (['--seconds', '0'], 'seconds')],
)
def test_a_demo_that_cannot_work_ends_at_once(tmp_path, capsys, flags, words):
    (tmp_path / 'torn.safetensors').write_bytes(b'torn')
    given = [flag.replace('{tmp}', str(tmp_path)) for flag in flags]
    demo = ['demo', '--out', str(tmp_path / 'demo'), *tiny_pipeline(tmp_path)]
    assert main([*demo, *given, '--quiet']) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_child_that_fails_is_quoted_and_one_that_hangs_is_ended(tmp_path):
    log = tmp_path / 'child.log'
    # json.tool ends with 2 for a file that is not there
    with Child('tool', 'json.tool', [str(tmp_path / 'none.json')], log=log, environ={}) as child:
        deadline = time.monotonic() + 30
        while child.code is None and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(ProcessError, match=r'none\.json'):
            child.check()
    server = ['0', '--bind', '127.0.0.1']
    with Child('server', 'http.server', server, log=log, environ={}) as hanging:
        hanging.check()
    assert hanging.code is not None


def test_the_summary_counts_what_was_sent_and_what_came_back():
    statuses = {
        stamp: FrameStatus(score=0.5, state='day', route=route)
        for stamp, route in {0: 'day', 10: 'day', 20: 'night', 40: 'day'}.items()
    }
    run = LiveRun(
        sent={10 * i: i * 100_000_000 for i in range(5)},
        arrived={10 * i: i * 100_000_000 + 20_000_000 for i in (0, 1, 2, 4)} | {999: 1},
        statuses=statuses,
    )
    assert run.summary() == {
        'frames_in': 5, 'frames_out': 4, 'dropped': 1, 'rate_hz': 7.5,
        'latency_ms': {'p50': 20.0, 'p95': 20.0, 'p99': 20.0},
        'routes': {'day': 3, 'night': 1}, 'switches': 2,
    }  # fmt: skip
    nothing = LiveRun(sent={}, arrived={}, statuses={}).summary()
    assert nothing['latency_ms'] == {'p50': None, 'p95': None, 'p99': None}
    assert json.dumps(nothing) and nothing['rate_hz'] is None
