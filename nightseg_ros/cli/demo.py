# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
``nightseg demo``: a drive through real ROS 2 processes, and what came of it in pictures.

Player, night_perception and recorder are processes of their own in a ROS domain of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
import dataclasses
from dataclasses import dataclass
import json
import os
from pathlib import Path
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Annotated, Any

from nightseg_ros.cli.options import PipelineOptions, print_table, Progress
from nightseg_ros.config import ConfigError
from nightseg_ros.dds import private_domain, profile_environment
import tyro

#: Seconds that the node may take to load its networks; the first run exports them.
LOADING_S = 420.0
#: After the last frame: seconds without a new mask that end the recording, and at most.
QUIET_S, LONGEST_QUIET_S = 2.0, 30.0
#: Exit code of the player where something of the input could not be read.
PLAYED_THE_REST = 1
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
    """'' takes 'illumination' for both."""
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
        weights_illumination=options.weights_illumination or 'illumination',
    )
    bags = options.out / 'bags'
    if options.keep_bag:
        from nightseg_ros.outputs import check_output

        given = [] if options.footage is None else [options.footage]
        check_output(bags, "a demo's bags", _is_kept, inputs=given)
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
    count: int | None
    if footage is None or options.footage is None:
        drive = Drive(
            seed=options.seed, size=options.size, fps=options.fps, seconds=options.seconds
        )
        lit = write_drive(
            work / 'drive', drive, lidar_every=2 if options.clouds else 0,
            progress=lambda done, total: progress.show(done, total, 'rendering the drive'),
        )  # fmt: skip
        path, topic, compressed, count, offset = work / 'drive', IMAGE_TOPIC, False, len(lit), 0
    else:
        path = options.footage
        topic, compressed, count, offset = footage
    play = [str(path), '--stamp-offset', str(offset)]
    play += ['--topic', topic] if topic else []
    if options.clouds:
        play += ['--also', INFO_TOPIC, CLOUD_TOPIC]
    else:
        play += ['--remap-to', f'camera/image_raw{"/compressed" if compressed else ""}']
    if options.footage is not None:
        play += ['--seconds', str(options.seconds)]
        play += ['--fps', str(options.rate)] if options.rate else []
    parameters = {
        name: str(getattr(config, name)) for name in ('route', 'device', 'backend', 'long_side')
    }
    # an empty value would be no YAML string
    parameters |= {f'weights.{k}': f'"{v}"' for k, v in dataclasses.asdict(config.weights).items()}
    clouds = None
    if options.clouds:
        # rendering, recording and both nodes share this machine
        clouds = {'use_tf': 'false', 'max_wait': '1.0'}
        clouds['transforms'] = json.dumps([as_text(*place) for place in PLACES])
    unread = run_live(
        play, parameters, work, compressed=compressed, count=count, clouds=clouds,
        progress=progress.show, watch=progress.note if options.view else None,
    )  # fmt: skip
    for text in unread:
        progress.note(f'not played: {text}')
    recorded = work / 'recorded'
    run = read_live_run(recorded, work / 'sent.jsonl', work / 'arrived.jsonl')
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


def _footage(options: DemoOptions, path: Path) -> tuple[str | None, bool, int | None, int]:
    """Return topic, whether it is compressed, number of frames if known, and stamp offset (ns)."""
    from nightseg_ros.bags.reader import BagReader, IMAGE_TYPES
    from nightseg_ros.data.source import open_source, STAMP_OFFSET

    source = open_source(path, options.topic, rate=options.rate)
    if source.kind == 'bag':
        with BagReader(path) as bag:
            # frames of ROS 1 bags are decoded and published raw
            compressed = bag.is_ros2 and bag.image_topic(options.topic).msgtype == IMAGE_TYPES[1]
        return source.topic, compressed, None, 0
    count = source.count
    if source.rate is not None and count is not None:
        count = min(count, round(options.seconds * source.rate))
    return source.topic, False, count, STAMP_OFFSET


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


# -- the processes -------------------------------------------------------------------------------


class ProcessError(RuntimeError):
    """A child process that failed, with the end of its output."""


class Child:
    """
    One ``python -m MODULE`` process, its output in a file.

    It leads a process group of its own, so that Ctrl-C reaches this process first, which then
    ends its children in order. Leaving the ``with`` block ends it in any case.
    """

    def __init__(
        self, name: str, module: str, arguments: Sequence[str], *, log: Path,
        environ: Mapping[str, str],
    ) -> None:  # fmt: skip
        """Start it; ``name`` is for messages."""
        self.name = name
        self.log = log
        with log.open('wb') as output:
            self._process = subprocess.Popen(
                [sys.executable, '-m', module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environ, 'PYTHONUNBUFFERED': '1'},
                start_new_session=True,
            )

    def __enter__(self) -> Child:
        """Use it in a ``with`` block."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it: SIGINT, SIGTERM, SIGKILL."""
        for number, timeout in ((signal.SIGINT, 5.0), (signal.SIGTERM, 2.0), (signal.SIGKILL, 5)):
            if self.code is not None:
                return
            self.signal(number)
            self._wait(timeout)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._process.poll()

    def check(self) -> None:
        """Raise ``ProcessError`` where it has ended."""
        if self.code is not None:
            raise ProcessError(f'{self.name} ended with {self.code}:\n{self.tail()}')

    def stop(self, timeout: float) -> None:
        """Ask it to end (SIGINT); ``ProcessError`` where it does not, or not with 0."""
        self.signal(signal.SIGINT)
        self._wait(timeout)
        if self.code is None:
            raise ProcessError(
                f'{self.name} did not end within {timeout:g} s of SIGINT:\n{self.tail()}'
            )
        if self.code != 0:
            self.check()

    def tail(self, lines: int = 15) -> str:
        """Return the end of its output."""
        text = self.log.read_text(encoding='utf-8', errors='replace').splitlines()
        return '\n'.join(f'  | {line}' for line in text[-lines:]) or '  (no output)'

    def signal(self, number: int) -> None:
        """Send a signal to it and to its children, if it runs."""
        if self.code is None:
            os.killpg(self._process.pid, number)

    def _wait(self, timeout: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)


def run_live(
    play: Sequence[str],
    parameters: dict[str, str],
    folder: Path,
    *,
    compressed: bool = False,
    count: int | None = None,
    clouds: dict[str, str] | None = None,
    watch: Callable[[str], None] | None = None,
    progress: Callable[[int, int | None, str], None],
) -> tuple[str, ...]:
    """
    Play an input in real time to a node with these parameters and record labels and status.

    ``play`` are the player's arguments, ``compressed`` tells whether they make it publish
    CompressedImage, ``count`` how many frames will come. With ``clouds`` semantic_cloud runs
    beside the node with those parameters, and the points of its sensor ``lidar`` are recorded.
    With ``watch`` a live page is served, and it is told where.

    ``folder`` then holds the bag ``recorded`` and the stamp logs ``sent.jsonl`` of the player and
    ``arrived.jsonl`` of the recorder. Return the player's warnings about what it could not read.
    Everything lives in a ROS domain of its own. ``ProcessError`` tells which process failed and
    how its output ended; no process outlives this call.
    """
    sent, arrived = folder / 'sent.jsonl', folder / 'arrived.jsonl'
    transport = {'transport': 'compressed'} if compressed else {}
    waiting = ['--log', str(sent), '--wait-subscribers', '1', '--patience', str(LOADING_S)]
    record = ['record', str(folder / 'recorded'), '--cameras', 'camera']
    record += ['--outputs', 'labels', 'status', '--log', str(arrived)]
    record += ['--clouds', '/lidar/nightseg/points'] if clouds is not None else []

    with private_domain() as domain, ExitStack() as stack:
        environ = {**os.environ, **domain, **profile_environment()}
        environ['ROS_LOG_DIR'] = str(folder / 'ros_log')

        def start(name: str, module: str, arguments: list[str]) -> Child:
            log = folder / f'{name}.log'
            child = Child(name, f'nightseg_ros.{module}', arguments, log=log, environ=environ)
            return stack.enter_context(child)

        painters = []
        if clouds is not None:
            painters = [start('semantic_cloud', 'node.semantic_cloud', ros_arguments(clouds))]
        recorder = start('recorder', 'cli.main', record)
        node = start('night_perception', 'node.main', ros_arguments({**parameters, **transport}))
        player = start('bag_player', 'node.replay', [*play, *waiting])
        viewers = [start('view', 'cli.main', ['view'])] if watch is not None else []
        progress(0, count, 'the node loads its networks')
        while player.code is None:
            for child in (node, recorder, *painters, *viewers):
                child.check()
            if watch is not None and (address := page_address(*viewers)):
                watch(f'watch it on {address}')
                watch = None
            played = _lines(sent)
            text = 'playing in real time' if played else f'loading: {last_message(node)}'
            progress(played, count, text)
            time.sleep(0.2)
        unread = player_warnings(player.log) if player.code == PLAYED_THE_REST else ()
        if player.code != 0 and not (unread and _lines(sent)):
            raise ProcessError(
                f'bag_player ended with {player.code}:\n{player.tail()}\n'
                f'the output of night_perception ended with:\n{node.tail()}'
            )
        _wait_until_quiet(arrived, node, recorder)
        recorder.stop(60.0)
        for child in (node, *painters, *viewers):
            child.stop(20.0)
    return unread


def player_warnings(log: Path) -> tuple[str, ...]:
    """Return the warnings in the player's log."""
    lines = log.read_text(encoding='utf-8', errors='replace').splitlines()
    parts = [line.partition('[bag_player]: ') for line in lines if line.startswith('[WARN]')]
    return tuple(text for _, found, text in parts if found)


def last_message(child: Child, width: int = 60) -> str:
    """Return the last line of a child's output, cut, without the logger's prefix."""
    return child.tail(1).strip().removeprefix('| ').rpartition(']: ')[2][:width]


def page_address(viewer: Child) -> str:
    """Return where a view serves its page, '' until it does."""
    found = re.search(r'view: (http\S+)', viewer.tail())
    return found[1] if found else ''


def _wait_until_quiet(arrived: Path, *needed: Child) -> None:
    """Wait for the masks of the last frames, which may still be computed."""
    end = time.monotonic() + LONGEST_QUIET_S
    before, since = -1, time.monotonic()
    while time.monotonic() < end:
        for child in needed:
            child.check()
        count = _lines(arrived)
        if count != before:
            before, since = count, time.monotonic()
        elif time.monotonic() - since > QUIET_S:
            return
        time.sleep(0.2)


def ros_arguments(parameters: dict[str, str]) -> list[str]:
    """Return the parameters as a node takes them on its command line."""
    pairs = (('-p', f'{name}:={value}') for name, value in parameters.items())
    return ['--ros-args', *(argument for pair in pairs for argument in pair)]


def _lines(path: Path) -> int:
    return path.read_bytes().count(b'\n') if path.exists() else 0
