# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
``nightseg demo``: a drive through real ROS 2 processes, and what came of it in pictures.

Player, night_perception and recorder are processes of their own in a ROS domain of their own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
import json
import os
from pathlib import Path
import platform
import shutil
import signal
import sys
import tempfile
from typing import Annotated, Any

from nightseg_ros.cli.bags import check_ros
from nightseg_ros.cli.options import PipelineOptions, print_table, Progress
from nightseg_ros.cli.processes import node_parameters, ProcessError, run_live
from nightseg_ros.config import ConfigError
from nightseg_ros.dds import private_domain, profile_environment
import tyro

#: Problems that are printed; the summary has all.
SHOWN = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoOptions(PipelineOptions):
    """
    Play a drive to a real night_perception node, record what it publishes, and show it.

    Without --input a drive from day through dusk, night and a tunnel into glare is rendered, and
    the weights are those trained on such pictures. With --input the weights for real cameras are
    used. Writes summary.json, overlay.mp4 and contact_sheet.jpg into --out. Frames of an
    input that cannot be read are named and left out.
    """

    out: Path = Path('out/demo')
    """Folder to write; results of the same names are replaced."""
    footage: Annotated[Path | None, tyro.conf.arg(name='input')] = None
    """Video, folder of images, or bag."""
    topic: str | None = None
    """Image topic of a bag; without it the only one there is."""
    rate: float | None = None
    """Frames a second of a folder; 10 if not given."""
    seconds: float = 45.0
    """Length of the rendered drive, and at most this much of an input is played."""
    fps: float = 10.0
    """Frames a second of the rendered drive."""
    size: tuple[int, int] = (640, 360)
    """Width and height of the rendered drive."""
    seed: int = 0
    """Another seed, another street."""
    weights_day: str = ''
    """'' takes 'day' for an input and 'rendered_day' for the rendered drive."""
    weights_night: str = ''
    """'' takes 'night', or 'rendered_night'."""
    weights_illumination: str = ''
    """'' takes 'illumination', or 'rendered_illumination'."""
    clouds: bool = False
    """Label the points of a LiDAR on the rendered drive, too, and show them from above."""
    view: bool = False
    """Serve a live page meanwhile, and print its address."""
    keep_bag: bool = False
    """Keep the bags of the run in OUT/bags."""


def demo(options: DemoOptions) -> int:
    """Play, record, score and draw, in a folder that is removed at the end."""
    if options.clouds and options.footage is not None:
        raise ConfigError('--clouds is for the rendered drive: an input has no LiDAR')
    if not options.seconds > 0:
        raise ConfigError(f'--seconds must be above 0, got {options.seconds}')
    kind = 'rendered_' if options.footage is None else ''
    options = dataclasses.replace(
        options,
        weights_day=options.weights_day or f'{kind}day',
        weights_night=options.weights_night or f'{kind}night',
        weights_illumination=options.weights_illumination or f'{kind}illumination',
    )
    bags = options.out / 'bags'
    if options.keep_bag:
        from nightseg_ros.outputs import check_output

        given = [] if options.footage is None else [options.footage]
        check_output(bags, "a demo's bags", _is_kept, inputs=given)
    check_ros()
    # its processes must not outlive a demo that is told to end
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.out, prefix='.work-') as folder:
        work = Path(folder)
        with Progress('demo', None) as progress:
            summary = _run(options, work, progress)
        if options.keep_bag:
            shutil.rmtree(bags, ignore_errors=True)
            bags.mkdir()
            for name in ('drive', 'recorded'):
                if (work / name).exists():
                    (work / name).rename(bags / name)
    _show(summary, options.out)
    return 0


def _is_kept(bags: Path) -> bool:
    """Tell a folder in which nothing lies but the bags of a demo."""
    from nightseg_ros.bags.writer import is_own_bag

    return all(path.name in ('drive', 'recorded') and is_own_bag(path) for path in bags.iterdir())


def _run(options: DemoOptions, work: Path, progress: Progress) -> dict[str, Any]:
    """Return the summary; the drive and the recorded bag are in ``work`` then."""
    from nightseg_ros.clouds.geometry import as_text
    from nightseg_ros.data.source import open_source
    from nightseg_ros.evaluation.live import read_live_run, score_drive, show_run
    from nightseg_ros.files import replace_file
    from nightseg_ros.perception.pipeline import Pipeline
    from nightseg_ros.simulation.drive import (
        CLOUD_TOPIC,
        Drive,
        IMAGE_TOPIC,
        INFO_TOPIC,
        PLACES,
        write_drive,
    )

    config = options.pipeline_config()
    footage = None if options.footage is None else _footage(options, options.footage)
    progress.show(0, None, 'loading the networks')
    # an error in weights, backend or device ends the demo here; the node would wait for a better
    # configuration. It finds the exported networks in the cache.
    Pipeline.load(config, log=progress.note)
    lit: dict[int, bool] = {}
    topic: str | None
    record = [str(work / 'recorded'), '--cameras', 'camera', '--outputs', 'labels', 'status']
    record += ['--log', str(work / 'arrived.jsonl')]
    parameters = node_parameters(options)
    clouds = None
    if footage is None or options.footage is None:
        drive = Drive(
            seed=options.seed, size=options.size, fps=options.fps, seconds=options.seconds
        )
        lit = write_drive(
            work / 'drive', drive, lidar_every=2 if options.clouds else 0,
            progress=lambda done, total: progress.show(done, total, 'rendering the drive'),
        )  # fmt: skip
        path, topic, offset = work / 'drive', IMAGE_TOPIC, 0
        play = ['--topic', IMAGE_TOPIC]
    else:
        path, (topic, compressed, offset) = options.footage, footage
        play = ['--topic', topic] if topic else []
        play += ['--seconds', str(options.seconds)]
        play += ['--fps', str(options.rate)] if options.rate else []
        parameters['transport'] = 'compressed' if compressed else 'raw'
        play += ['--remap-to', f'camera/image_raw{"/compressed" if compressed else ""}']
    if options.clouds:
        play += ['--also', INFO_TOPIC, CLOUD_TOPIC]
        record += ['--clouds', '/lidar/nightseg/points']
        # rendering, recording and both nodes share this machine
        clouds = {'use_tf': 'false', 'max_wait': '1.0'}
        clouds['transforms'] = json.dumps([as_text(*place) for place in PLACES])
    with private_domain() as domain:
        unread = run_live(
            [str(path), '--stamp-offset', str(offset), '--log', str(work / 'sent.jsonl'), *play],
            parameters, work, {**os.environ, **domain, **profile_environment()}, progress,
            announce=options.view, recorder=record, clouds=clouds,
        )  # fmt: skip
    for text in unread:
        progress.note(f'not played: {text}')
    recorded = work / 'recorded'
    run = read_live_run(recorded, work / 'sent.jsonl', work / 'arrived.jsonl')
    if not run.sent:
        raise ProcessError(f"nothing of '{path}' was played: {'; '.join(unread)}")
    rendered = options.footage is None
    summary: dict[str, Any] = {
        'input': 'rendered' if options.footage is None else options.footage.name,
        **run.summary(),
        'lost': list(unread),
    }
    if rendered:
        summary['miou'] = score_drive(path, recorded, lit, config, progress=progress.show)
    show_run(
        options.out, open_source(path, topic, rate=options.rate), run, recorded,
        options.weights_day, offset=offset, progress=progress.show,
    )  # fmt: skip
    summary |= {
        'seconds': options.seconds,
        **({'seed': options.seed} if rendered else {}),
        'weights': [options.weights_day, options.weights_night],
        'machine': f'{platform.system()} {platform.machine()}',
    }
    text = json.dumps(summary, indent=2) + '\n'
    replace_file(options.out / 'summary.json', text.encode('utf-8'))
    return summary


def _footage(options: DemoOptions, path: Path) -> tuple[str | None, bool, int]:
    """Return topic, whether its images are compressed, and stamp offset (ns)."""
    from nightseg_ros.bags.reader import BagReader, IMAGE_TYPES
    from nightseg_ros.data.source import open_source, STAMP_OFFSET

    source = open_source(path, options.topic, rate=options.rate)
    if source.kind != 'bag':
        return source.topic, False, STAMP_OFFSET
    with BagReader(path) as bag:
        # frames of ROS 1 bags are decoded and published raw
        compressed = bag.is_ros2 and bag.image_topic(options.topic).msgtype == IMAGE_TYPES[1]
    return source.topic, compressed, 0


def _show(summary: dict[str, Any], out: Path) -> None:
    frames = ' / '.join(str(summary[name]) for name in ('frames_in', 'frames_out', 'dropped'))
    rows = [['frames in / out / dropped', frames]]
    if lost := summary['lost']:
        more = [f'and {len(lost) - SHOWN} more: see summary.json'] if lost[SHOWN:] else []
        rows.append(['not played', '\n'.join([*lost[:SHOWN], *more])])
    latency = ' / '.join(map(str, summary['latency_ms'].values()))
    routes = ', '.join(f'{route} {count}' for route, count in summary['routes'].items())
    rows += [
        ['rate', f'{summary["rate_hz"]} Hz'],
        ['latency p50 / p95 / p99', f'{latency} ms'],
        ['frames by route', f'{routes}; {summary["switches"]} switches'],
    ]
    for name, scores in summary.get('miou', {}).items():
        lit, dark = ('–' if scores[k] is None else f'{scores[k]:.3f}' for k in ('day', 'night'))
        rows.append([f'mIoU on rendered frames, route {name}', f'lit {lit}, dark {dark}'])
    print_table(f'nightseg demo: {summary["input"]}', ('what', 'value'), rows)
    for name in ('summary.json', 'overlay.mp4', 'contact_sheet.jpg'):
        print(out / name)
