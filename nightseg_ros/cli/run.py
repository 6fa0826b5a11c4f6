# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg view``, ``run`` and ``demo``: cameras of the graph, own footage, a rendered drive."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import takewhile
import json
from pathlib import Path
import platform
import sys
import tempfile
from typing import Annotated, Any

from nightseg_ros.cli.bags import check_ros, with_ros
from nightseg_ros.cli.options import (
    hear_signals,
    parse,
    PipelineOptions,
    Progress,
    refuse,
    tell_problems,
)
from nightseg_ros.cli.processes import node_parameters, print_run, ros_arguments, run_live
from nightseg_ros.config import ConfigError, Limited, Limits, NotNegative
from nightseg_ros.files import read_json, replace_file
from nightseg_ros.outputs import check_output
import tyro

#: Before the names of topics, where SOURCE is no file.
TOPIC = 'topic:'
#: Why a frame has no mask that should have one; others are speed, settings, stamps and losses.
FAULTS = ('undecodable', 'failed', 'withheld')


@dataclass(frozen=True, kw_only=True)
class PageOptions(Limited):
    """Flags of every verb that serves the page."""

    host: str = '127.0.0.1'
    """Address to listen on. Anybody who reaches another one sees the cameras."""
    port: Annotated[int | None, Limits(0, 65535)] = None
    """Port to listen on; 8740 if not given, or a free one where that is taken."""

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` for a host that would mean all interfaces."""
        super().__post_init__()
        if not self.host.strip():
            raise ConfigError('--host needs an address; 0.0.0.0 opens the page to everybody')


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewOptions(PageOptions):
    """
    Serve a page that shows every camera of this shell's ROS domain, until Ctrl-C.

    Overlay, camera, route, illumination, reliability, rates and diagnostics, for a browser on this
    machine. A picture is computed and sent only while somebody looks at it.
    """

    summary: Path | None = None
    """File for the counts, rates, latencies and routes of all frames, written at the end."""
    rerun: Path | None = None
    """Write a Rerun recording (.rrd) of images, masks, scores and clouds as well."""


def view(arguments: Sequence[str]) -> int:
    """Serve in this process, without what a launch file adds for ROS."""
    given = list(takewhile(lambda argument: argument != '--ros-args', arguments))
    options = parse(ViewOptions, 'view', given)
    if options.rerun is not None:
        check_output(options.rerun, 'a recording', _is_recording)
        if find_spec('rerun') is None:
            raise ConfigError("--rerun needs the package rerun-sdk: pip install 'nightseg[view]'")
    return with_ros('view', options)


def _is_recording(path: Path) -> bool:
    return path.suffix == '.rrd' and path.is_file()


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions(PageOptions, PipelineOptions):
    """
    Segment SOURCE with a real node, watch it on a page, and end with a summary.

    SOURCE is a video, a folder, a bag, rtsp://… or /dev/video0, in a ROS domain of its own, or
    topic:/front/image_raw,/rear/… for cameras of this shell's domain. Ctrl-C ends it. Exit code 1:
    a frame got no mask by a fault, or none did at all.
    """

    source: Annotated[str, tyro.conf.Positional]
    """What to segment."""
    topic: tuple[str, ...] = ()
    """Image topics of a bag; without them all cameras."""
    fps: Annotated[float | None, Limits(0.001, 9999)] = None
    """Frames a second of a folder, or of a video instead of its own."""
    rate: Annotated[float, Limits(0.001, 9999)] = 1.0
    """Times the recorded speed."""
    loop: bool = False
    """Start again at the end, until Ctrl-C."""
    seconds: NotNegative = 0.0
    """End after so much of SOURCE; 0 plays all."""
    out: Path | None = None
    """File for the summary as JSON."""


def run(options: RunOptions) -> int:
    from nightseg_ros.perception.video import stream_url

    parameters, play = _inputs(options)
    if options.out is not None:
        check_output(options.out, 'a summary', inputs=[options.source])
        options.out.parent.mkdir(parents=True, exist_ok=True)
    check_ros()
    parameters |= node_parameters(options)
    # its processes must not outlive a run that is told to end
    hear_signals()
    unread: list[str] | None = None
    with (
        tempfile.TemporaryDirectory(prefix='nightseg-run-') as folder,
        Progress('starting', None) as progress,
    ):
        file = Path(folder) / 'summary.json'
        view = ['cli.main', 'view', '--host', options.host, '--summary', str(file)]
        view += ['--port', str(options.port)] if options.port is not None else []
        commands = {'view': view, 'night_perception': ['node.main', *ros_arguments(parameters)]}
        try:
            with suppress(KeyboardInterrupt):
                unread = run_live(commands, play, Path(folder), progress, seconds=options.seconds)
        finally:
            # whatever failed, and before anything is printed, whose reader may have left
            summary = read_json(file)
            if options.out is not None and (summary or unread is not None):
                replace_file(options.out, (json.dumps(summary, indent=2) + '\n').encode('utf-8'))
    for camera, counts in summary.items():
        print_run(f'nightseg run: {options.source}, {camera}', counts)
    if not summary:
        print('nightseg run: no camera was seen', file=sys.stderr)
    for text in unread or []:
        print(f'not played: {text}', file=sys.stderr)
    endless = play is None or options.loop or stream_url(options.source) is not None
    if unread is None and not (endless and summary):
        raise KeyboardInterrupt
    cameras = summary.values()
    if not any(counts['frames_out'] for counts in cameras):
        return tell_problems('run', 'no', 'mask came')
    lost = sum(counts['dropped'].get(reason, 0) for counts in cameras for reason in FAULTS)
    return tell_problems('run', len(unread or []) + lost, 'problems')


def _inputs(options: RunOptions) -> tuple[dict[str, str], list[str] | None]:
    """Return the node's parameters and the player's arguments, None for topics that are there."""
    from nightseg_ros.perception.result import transport_of, TRANSPORTS
    from nightseg_ros.perception.video import stream_url

    if options.source.startswith(TOPIC):
        topics = [name for name in options.source.removeprefix(TOPIC).split(',') if name]
        if not topics:
            raise ConfigError(f'{TOPIC} needs names, such as {TOPIC}/front/image_raw,/rear/image')
        refuse(options, 'what is live', 'topic', 'fps', 'rate', 'loop')
        return _cameras(topics, [transport_of(name) for name in topics]), None
    from nightseg_ros.bags.reader import BagReader
    from nightseg_ros.data.source import open_source

    if stream_url(options.source) is not None:
        refuse(options, 'a URL or a camera, whose reader ends at Ctrl-C', 'loop')
        refuse(options, 'a URL or a camera', 'rate')
    topic = next(iter(options.topic), None)
    source = open_source(options.source, topic, rate=options.fps, every_camera=True)
    play = [options.source, '--rate', str(options.rate), '--seconds', str(options.seconds)]
    play += ['--fps', str(options.fps)] if options.fps else []
    play += ['--loop'] if options.loop else []
    if source.kind != 'bag':
        return {}, play
    refuse(options, 'a bag, whose speed is --rate', 'fps')
    topics = list(options.topic or source.topics)
    with BagReader(source.path) as bag:
        types = [bag.image_topic(topic).msgtype.replace('/msg/', '/') for topic in topics]
        # the player decodes images of ROS 1 and video of types that are not installed
        as_is = [bag.is_ros2 and find_spec(name.partition('/')[0]) is not None for name in types]
    names = {name: transport for transport, name in TRANSPORTS.items()}
    transports = [names[name] if played else 'raw' for name, played in zip(types, as_is)]
    for topic, transport in zip(topics, transports):
        if transport == 'compressed' != transport_of(topic):
            raise ConfigError(
                f"'{topic}' holds compressed images, which a node reads from topics that end in "
                "'compressed'; `nightseg predict` takes it"
            )
    return _cameras(topics, transports), [*play, '--topic', *topics]


def _cameras(topics: Sequence[str], transports: Sequence[str]) -> dict[str, str]:
    from nightseg_ros.perception.result import base_topic

    if len(set(transports)) > 1:
        raise ConfigError(
            f'{", ".join(topics)} come as {", ".join(sorted(set(transports)))}, and a node '
            'reads one transport; name the topics of one with --topic'
        )
    raw = transports[0] == 'raw'
    names = [base_topic(topic) if raw else topic for topic in topics]
    return {'image_topics': json.dumps(names), 'transport': transports[0]}


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
    check_ros()
    # its processes must not outlive a demo that is told to end
    hear_signals()
    names = ('summary.json', 'overlay.mp4', 'contact_sheet.jpg')
    for name in names:
        check_output(options.out / name, 'a result')
    options.out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=options.out, prefix='.work-') as folder,
        Progress('demo', None) as progress,
    ):
        summary = _drive(options, Path(folder), progress)
    replace_file(options.out / 'summary.json', (json.dumps(summary, indent=2) + '\n').encode())
    rows = []
    for name, scores in summary['miou'].items():
        lit, dark = ('–' if scores[k] is None else f'{scores[k]:.3f}' for k in ('day', 'night'))
        rows.append([f'mIoU, route {name}', f'lit {lit}, dark {dark}'])
    print_run('nightseg demo', summary, rows)
    for name in names:
        print(options.out / name)
    return tell_problems('demo', 'no' * (not summary['frames_out']), 'mask came')


def _drive(options: DemoOptions, work: Path, progress: Progress) -> dict[str, Any]:
    """Return the summary; the bags lie in ``work`` or OUT/bags, the logs in ``work``."""
    from nightseg_ros.bags.writer import check_bag_output
    from nightseg_ros.clouds.geometry import as_text
    from nightseg_ros.evaluation.live import read_live_run, review_drive
    from nightseg_ros.perception.pipeline import Pipeline
    from nightseg_ros.simulation import drive as simulation

    config = options.pipeline_config()
    bags = options.out / 'bags' if options.keep_bag else work
    bag, recorded = bags / 'drive', bags / 'recorded'
    for output in (bag, recorded):
        check_bag_output(output, [], force=True)
    drive = simulation.Drive(
        seed=options.seed, size=options.size, fps=options.fps, seconds=options.seconds
    )
    progress.show(0, None, 'loading the networks')
    # an error in weights, backend or device ends the demo here; the node would wait for a better
    # configuration. It finds the exported networks in the cache.
    Pipeline.load(config, log=progress.note)
    lit = simulation.write_drive(
        bag, drive, lidar_every=2 if options.clouds else 0,
        progress=lambda done, total: progress.show(done, total, 'rendering the drive'),
    )  # fmt: skip
    sent, arrived = work / 'sent.jsonl', work / 'arrived.jsonl'
    play = [str(bag), '--topic', simulation.IMAGE_TOPIC, '--log', str(sent)]
    record = [str(recorded), '--force', '--cameras', 'camera', '--outputs', 'labels', 'status']
    record += ['--log', str(arrived)]
    commands = {'view': ['cli.main', 'view']} if options.view else {}
    commands['recorder'] = ['cli.main', 'record', *record]
    if options.clouds:
        play += ['--also', simulation.INFO_TOPIC, simulation.CLOUD_TOPIC]
        commands['recorder'] += ['--clouds', '/lidar/nightseg/points']
        # rendering, recording and both nodes share this machine
        clouds = {'use_tf': 'false', 'max_wait': '1.0'}
        clouds['transforms'] = json.dumps([as_text(*place) for place in simulation.PLACES])
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
