# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
``nightseg demo``: a rendered drive through real ROS 2 processes, scored and drawn.

Player, night_perception and recorder are processes of their own in a ROS domain of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
import json
from pathlib import Path
import platform
import signal
import tempfile
from typing import Any

from nightseg_ros.cli.bags import check_ros
from nightseg_ros.cli.options import PipelineOptions, Progress
from nightseg_ros.cli.processes import node_parameters, print_run, ros_arguments, run_live


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoOptions(PipelineOptions):
    """
    Play a rendered drive to a real night_perception node, record what it publishes, and show it.

    The drive goes from day through dusk, night and a tunnel into glare; the weights were trained
    on such frames. `nightseg run` takes your own video. Writes summary.json, overlay.mp4 and
    contact_sheet.jpg into --out.
    """

    out: Path = Path('out/demo')
    """Folder to write; results of the same names are replaced."""
    seconds: float = 45.0
    """Length of the drive."""
    fps: float = 10.0
    """Its frames a second."""
    size: tuple[int, int] = (640, 360)
    """Its width and height."""
    seed: int = 0
    """Another seed, another street."""
    weights_day: str = 'rendered_day'
    weights_night: str = 'rendered_night'
    weights_illumination: str = 'rendered_illumination'
    clouds: bool = False
    """Label the points of a LiDAR, too, and show them from above."""
    view: bool = False
    """Serve a live page meanwhile, and print its address."""
    keep_bag: bool = False
    """Keep the bags of the run in OUT/bags."""


def demo(options: DemoOptions) -> int:
    """Play, record, score and draw, in a folder that is removed at the end."""
    from nightseg_ros.files import replace_file
    from nightseg_ros.outputs import check_output

    check_ros()
    # its processes must not outlive a demo that is told to end
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    check_output(options.out / 'summary.json', 'a summary', Path.is_file)
    options.out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=options.out, prefix='.work-') as folder,
        Progress('demo', None) as progress,
    ):
        summary = _run(options, Path(folder), progress)
    content = json.dumps(summary, indent=2) + '\n'
    replace_file(options.out / 'summary.json', content.encode('utf-8'))
    rows = []
    for name, scores in summary['miou'].items():
        lit, dark = ('–' if scores[k] is None else f'{scores[k]:.3f}' for k in ('day', 'night'))
        rows.append([f'mIoU, route {name}', f'lit {lit}, dark {dark}'])
    print_run('nightseg demo', summary, rows)
    for name in ('summary.json', 'overlay.mp4', 'contact_sheet.jpg'):
        print(options.out / name)
    return 0


def _run(options: DemoOptions, work: Path, progress: Progress) -> dict[str, Any]:
    """Return the summary; the bags lie in ``work`` or OUT/bags, the logs in ``work``."""
    from nightseg_ros.bags.writer import check_bag_output
    from nightseg_ros.clouds.geometry import as_text
    from nightseg_ros.evaluation.live import read_live_run, review_drive
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
    bags = options.out / 'bags' if options.keep_bag else work
    bag, recorded = bags / 'drive', bags / 'recorded'
    for output in (bag, recorded):
        check_bag_output(output, [], force=True)
    drive = Drive(seed=options.seed, size=options.size, fps=options.fps, seconds=options.seconds)
    progress.show(0, None, 'loading the networks')
    # an error in weights, backend or device ends the demo here; the node would wait for a better
    # configuration. It finds the exported networks in the cache.
    Pipeline.load(config, log=progress.note)
    lit = write_drive(
        bag, drive, lidar_every=2 if options.clouds else 0,
        progress=lambda done, total: progress.show(done, total, 'rendering the drive'),
    )  # fmt: skip
    sent, arrived = work / 'sent.jsonl', work / 'arrived.jsonl'
    play = [str(bag), '--topic', IMAGE_TOPIC, '--log', str(sent)]
    record = [str(recorded), '--force', '--cameras', 'camera', '--outputs', 'labels', 'status']
    record += ['--log', str(arrived)]
    commands = {'view': ['cli.main', 'view']} if options.view else {}
    commands['recorder'] = ['cli.main', 'record', *record]
    if options.clouds:
        play += ['--also', INFO_TOPIC, CLOUD_TOPIC]
        commands['recorder'] += ['--clouds', '/lidar/nightseg/points']
        # rendering, recording and both nodes share this machine
        clouds = {'use_tf': 'false', 'max_wait': '1.0'}
        clouds['transforms'] = json.dumps([as_text(*place) for place in PLACES])
        commands['semantic_cloud'] = ['node.semantic_cloud', *ros_arguments(clouds)]
    commands['night_perception'] = ['node.main', *ros_arguments(node_parameters(options))]
    run_live(commands, play, work, progress)
    run = read_live_run(recorded, sent, arrived)
    miou = review_drive(options.out, bag, lit, run, recorded, config, progress=progress.show)
    return {
        'input': 'rendered',
        **run.summary(),
        'miou': miou,
        'seconds': options.seconds,
        'seed': options.seed,
        'weights': [options.weights_day, options.weights_night],
        'machine': f'{platform.system()} {platform.machine()}',
    }
