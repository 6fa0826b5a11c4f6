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
import signal
import sys
import tempfile
from typing import Annotated, Any

from nightseg_ros.cli.bags import check_ros
from nightseg_ros.cli.options import PipelineOptions, Progress
from nightseg_ros.cli.processes import node_parameters, print_run, ProcessError, run_live
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
    check_ros()
    # its processes must not outlive a demo that is told to end
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    options.out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=options.out, prefix='.work-') as folder,
        Progress('demo', None) as progress,
    ):
        summary = _run(options, Path(folder), progress)
    rows = []
    if lost := summary['lost']:
        more = [f'and {len(lost) - SHOWN} more: see summary.json'] if lost[SHOWN:] else []
        rows.append(['not played', '\n'.join([*lost[:SHOWN], *more])])
    for name, scores in summary.get('miou', {}).items():
        lit, dark = ('–' if scores[k] is None else f'{scores[k]:.3f}' for k in ('day', 'night'))
        rows.append([f'mIoU on rendered frames, route {name}', f'lit {lit}, dark {dark}'])
    print_run(f'nightseg demo: {summary["input"]}', summary, rows)
    for name in ('summary.json', 'overlay.mp4', 'contact_sheet.jpg'):
        print(options.out / name)
    return 0


def _run(options: DemoOptions, work: Path, progress: Progress) -> dict[str, Any]:
    """Return the summary; the bags lie in ``work`` or OUT/bags, the logs in ``work``."""
    from nightseg_ros.bags.reader import BagReader, IMAGE_TYPES
    from nightseg_ros.bags.writer import check_bag_output
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
    rendered = options.footage is None
    bags = options.out / 'bags' if options.keep_bag else work
    path, recorded = options.footage or bags / 'drive', bags / 'recorded'
    for bag in (bags / 'drive', recorded):
        check_bag_output(bag, [] if rendered else [path], force=True)
    drive = Drive(seed=options.seed, size=options.size, fps=options.fps, seconds=options.seconds)
    source = None if rendered else open_source(path, options.topic, rate=options.rate)
    progress.show(0, None, 'loading the networks')
    # an error in weights, backend or device ends the demo here; the node would wait for a better
    # configuration. It finds the exported networks in the cache.
    Pipeline.load(config, log=progress.note)
    lit: dict[int, bool] = {}
    parameters = node_parameters(options)
    if source is None:
        lit = write_drive(
            path, drive, lidar_every=2 if options.clouds else 0,
            progress=lambda done, total: progress.show(done, total, 'rendering the drive'),
        )  # fmt: skip
        source = open_source(path, IMAGE_TOPIC)
        play = [str(path), '--topic', IMAGE_TOPIC]
    else:
        compressed = False
        if source.kind == 'bag':
            with BagReader(path) as reader:
                # frames of ROS 1 bags are decoded and published raw
                kind = reader.image_topic(source.topic).msgtype
                compressed = reader.is_ros2 and kind == IMAGE_TYPES[1]
        play = [str(path), '--seconds', str(options.seconds)]
        play += ['--topic', source.topic] if source.topic else []
        play += ['--fps', str(options.rate)] if options.rate else []
        parameters['transport'] = 'compressed' if compressed else 'raw'
        play += ['--remap-to', f'camera/image_raw{"/compressed" if compressed else ""}']
    sent, arrived = work / 'sent.jsonl', work / 'arrived.jsonl'
    play += ['--log', str(sent)]
    record = [str(recorded), '--force', '--cameras', 'camera', '--outputs', 'labels', 'status']
    record += ['--log', str(arrived)]
    clouds = None
    if options.clouds:
        play += ['--also', INFO_TOPIC, CLOUD_TOPIC]
        record += ['--clouds', '/lidar/nightseg/points']
        # rendering, recording and both nodes share this machine
        clouds = {'use_tf': 'false', 'max_wait': '1.0'}
        clouds['transforms'] = json.dumps([as_text(*place) for place in PLACES])
    with private_domain() as domain:
        unread = run_live(
            play, parameters, work, {**os.environ, **domain, **profile_environment()}, progress,
            announce=options.view, recorder=record, clouds=clouds,
        )  # fmt: skip
    for text in unread:
        progress.note(f'not played: {text}')
    run = read_live_run(recorded, sent, arrived)
    if not run.sent:
        raise ProcessError(f"nothing of '{path}' was played: {'; '.join(unread)}")
    summary: dict[str, Any] = {
        'input': 'rendered' if rendered else path.name,
        **run.summary(),
        'lost': list(unread),
    }
    if rendered:
        summary['miou'] = score_drive(path, recorded, lit, config, progress=progress.show)
    show_run(options.out, source, run, recorded, options.weights_day, progress=progress.show)
    summary |= {
        'seconds': options.seconds,
        **({'seed': options.seed} if rendered else {}),
        'weights': [options.weights_day, options.weights_night],
        'machine': f'{platform.system()} {platform.machine()}',
    }
    text = json.dumps(summary, indent=2) + '\n'
    replace_file(options.out / 'summary.json', text.encode('utf-8'))
    return summary
