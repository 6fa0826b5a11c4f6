# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The demo and `nightseg run` through real ROS 2 processes, and what may go wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
import sys
import time
from typing import Any

from bag_samples import frames_of
import cv2
from nightseg_ros.bags.reader import BagReader
from nightseg_ros.bags.writer import BagWriter
from nightseg_ros.cli import processes
from nightseg_ros.cli.main import main
from nightseg_ros.cli.processes import Child, ProcessError
from nightseg_ros.cli.run import _inputs, RunOptions
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


def seen(masks: int, **dropped: int) -> dict[str, Any]:
    """Return the summary of a camera with so many masks."""
    counts = {'frames_in': masks + sum(dropped.values()), 'frames_out': masks, 'dropped': dropped}
    return {'/a': {**counts, 'rate_hz': None, 'latency_ms': {}, 'routes': {}, 'switches': 0}}


@pytest.mark.parametrize('end', [KeyboardInterrupt(), ProcessError('the watchdog'), None])
@pytest.mark.parametrize(
    ('summary', 'code', 'words'),
    [
        # ended before a camera was seen
        ({}, 130, 'no camera was seen'),
        (seen(0), 1, 'no mask came'),
        (seen(3, superseded=9, max_rate=1, duplicate_stamp=1, not_received=2), 0, ''),
        (seen(3, superseded=9, undecodable=1, failed=2, withheld=4), 1, '7 problems'),
    ],
)
def test_a_run_says_how_it_went_and_keeps_what_it_knows(
    tmp_path, monkeypatch, capsys, summary, code, words, end
):
    def run_live(commands, *_, **__):
        file = Path(commands['view'][commands['view'].index('--summary') + 1])
        file.write_text(json.dumps(summary))
        if end is not None:
            raise end
        return []

    monkeypatch.setattr('nightseg_ros.cli.run.run_live', run_live)
    out = tmp_path / 'summary.json'
    command = ['run', 'topic:/a/image_raw', '--out', str(out)]
    if isinstance(end, ProcessError):
        code, words = 2, 'the watchdog'
    assert main(command) == (1 if code == 130 and end is None else code)
    assert words in capsys.readouterr().err
    if summary:
        assert json.loads(out.read_text()) == summary
        # as in `nightseg run … | tee log`, whose Ctrl-C ends tee first
        out.unlink()
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, 'w') as pipe, monkeypatch.context() as patch:
            patch.setattr(sys, 'stdout', pipe)
            assert main(command) == (2 if code == 2 else 141)
        assert json.loads(out.read_text()) == summary


@pytest.mark.parametrize(
    ('topic', 'transport'),
    [('/a/image_raw', 'raw'), ('/a/image_raw/compressed', 'compressed'),
     ('/CAM_FRONT/image_rect_compressed', 'compressed'), ('/a/ffmpeg', 'ffmpeg'),
     ('/a/image_decompressed', 'raw')],
)  # fmt: skip
def test_a_topic_has_the_transport_that_its_name_ends_in(topic, transport):
    from nightseg_ros.node.parameters import Settings

    parameters, _ = _inputs(RunOptions(source=f'topic:{topic}'))
    assert parameters['transport'] == transport
    topics = tuple(json.loads(parameters['image_topics']))
    [camera] = Settings(transport=transport, image_topics=topics).camera_names
    assert camera.image_topic == topic


def test_compressed_images_that_no_node_reads_are_refused_at_once(tmp_path, capsys):
    jpeg = cv2.imencode('.jpg', np.zeros((9, 9, 3), np.uint8))[1].tobytes()
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write_compressed('/front/jpeg', jpeg, 'jpeg', stamp_ns=1)
    assert main(['run', str(tmp_path / 'bag')]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "'/front/jpeg' holds compressed images" in line and 'nightseg predict' in line


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
