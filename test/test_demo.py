# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The demo through real ROS 2 processes: rendered drive, footage, and what may go wrong."""

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
from tiny_weights import weight_flags

pytest.importorskip('rclpy', reason='ROS 2 is not installed here')


def flags(folder: Path) -> list[str]:
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
    assert summary['input'] == 'rendered'
    assert summary['frames_in'] == 40
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
def test_footage_is_played_at_its_rate_and_frames_that_cannot_be_read_are_named(tmp_path, capsys):
    footage, out = tmp_path / 'in', tmp_path / 'demo'
    footage.mkdir()
    for index in range(20):
        image = np.full((96, 160, 3), 150, np.uint8)
        cv2.imwrite(str(footage / f'{index:02d}.png'), image)
    (footage / '05.png').write_bytes(b'torn')
    arguments = ['--input', str(footage), '--rate', '10', '--seconds', '1.2', *flags(tmp_path)]
    assert main(['demo', '--out', str(out), *arguments]) == 0
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['input'] == footage.name
    assert summary['routes'] == {'day': summary['frames_out']} and summary['frames_out'] > 0
    assert summary['switches'] == 0 and 'miou' not in summary
    assert {p.name for p in out.iterdir()} == {'summary.json', 'overlay.mp4', 'contact_sheet.jpg'}
    assert cv2.imread(str(out / 'contact_sheet.jpg')) is not None
    assert summary['frames_in'] == 11
    (lost,) = summary['lost']
    said = capsys.readouterr()
    assert '05.png' in lost and 'not played' in said.out and '05.png' in said.err


@pytest.mark.ros
def test_a_player_that_plays_nothing_ends_the_demo(tmp_path, capsys):
    torn = tmp_path / 'torn'
    torn.mkdir()
    (torn / '00.png').write_bytes(b'torn')
    demo = ['demo', '--input', str(torn), '--out', str(tmp_path / 'demo'), *flags(tmp_path)]
    assert main(demo) == 2
    assert '00.png' in capsys.readouterr().err


def test_what_cannot_be_played_ends_the_demo_at_once(tmp_path, capsys):
    demo = ['demo', '--out', str(tmp_path / 'demo'), *flags(tmp_path)]
    assert main([*demo, '--clouds', '--input', 'clip.mp4']) == 2
    assert '--clouds is for the rendered drive' in capsys.readouterr().err
    (tmp_path / 'torn.safetensors').write_bytes(b'torn')
    assert main([*demo, '--weights-night', str(tmp_path / 'torn.safetensors')]) == 2
    assert 'torn.safetensors' in capsys.readouterr().err


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
