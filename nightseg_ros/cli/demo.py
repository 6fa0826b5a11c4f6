# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg demo``: a drive through real ROS 2 processes, and what came of it in pictures."""

from __future__ import annotations

import json
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightseg_ros.cli.options import PipelineOptions, parse

if TYPE_CHECKING:
    from nightseg_ros.cli.live import LiveInput
    from nightseg_ros.cli.progress import Progress

#: Nanoseconds added to the stamps of videos and folders: a stamp of 0 means none to ROS.
STAMP_OFFSET = 1_000_000_000_000_000_000
#: Weights by place, for real footage and for the rendered drive.
REAL = {'day': 'day', 'night': 'night', 'illumination': 'illumination'}
RENDERED = {'day': 'rendered_day', 'night': 'rendered_night', 'illumination': 'illumination'}


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
    input: Path | None = None
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
    keep_bag: bool = False
    """Keep the bags of the run in OUT/bags."""


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    options = parse(DemoOptions, 'demo', arguments)
    from nightseg_ros.cli.progress import Progress
    from nightseg_ros.config import ConfigError
    from nightseg_ros.outputs import check_output

    if options.clouds and options.input is not None:
        raise ConfigError('--clouds is for the rendered drive: an input has no LiDAR')
    if not options.seconds > 0:
        raise ConfigError(f'--seconds must be above 0, got {options.seconds}')
    if options.keep_bag:
        given = [] if options.input is None else [options.input]
        check_output(options.out / 'bags', "a demo's bags", _is_kept, inputs=given)
    # its processes must not outlive a demo that is told to end
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    options.out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=options.out, prefix='.work-'))
    try:
        with Progress('demo', None) as progress:
            summary = _run(_with_weights(options), work, progress)
        if options.keep_bag:
            _keep(work, options.out / 'bags')
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _show(summary, options.out)
    return 0


def _with_weights(options: DemoOptions) -> DemoOptions:
    """Fill in the weights that were not named."""
    import dataclasses

    names = {f'weights_{k}': v for k, v in (REAL if options.input else RENDERED).items()}
    missing = {name: value for name, value in names.items() if not getattr(options, name)}
    return dataclasses.replace(options, **missing)  # type: ignore[arg-type]


def _run(options: DemoOptions, work: Path, progress: Progress) -> dict[str, Any]:
    from nightseg_ros.cli.live import run_live
    from nightseg_ros.evaluation.live import read_live_run
    from nightseg_ros.files import replace_file
    from nightseg_ros.perception.pipeline import Pipeline

    config = options.pipeline_config()
    progress.set(0, None, 'loading the networks')
    # whatever is wrong with weights, backend or device is said here and now; the node, which
    # would wait for a better configuration, finds the exported networks in the cache
    Pipeline.load(config, say=progress.say)
    lit: dict[int, bool] = {}
    if options.input is None:
        given, lit = _rendered(options, work, progress)
    else:
        given = _real(options, options.input)
    parameters = {
        'route': options.route,
        'device': options.device,
        'backend': options.backend,
        'long_side': str(options.long_side),
        # an empty value would be no YAML string
        **{
            f'weights.{name}': f'"{getattr(options, f"weights_{name}")}"'
            for name in ('day', 'night', 'translator', 'illumination')
        },
    }
    clouds = _cloud_parameters() if options.clouds else None
    files = run_live(given, parameters, work, clouds=clouds, progress=progress.set)
    for text in files.lost:
        progress.say(f'not played: {text}')
    run = read_live_run(files.recorded, files.sent, files.arrived)
    summary: dict[str, Any] = {
        'input': 'rendered' if options.input is None else options.input.name,
        **run.summary(),
        'lost': list(files.lost),
    }
    if lit:
        from nightseg_ros.evaluation.live import score_drive

        summary['miou'] = score_drive(
            given.path, files.recorded, lit, config, progress=progress.set
        )
    from nightseg_ros.evaluation.live import show_run

    show_run(
        options.out, _source(options, given), run, files.recorded, options.weights_day,
        offset=given.stamp_offset, progress=progress.set,
    )  # fmt: skip
    summary['seconds'] = options.seconds
    if options.input is None:
        summary['seed'] = options.seed
    summary['weights'] = [options.weights_day, options.weights_night]
    summary['machine'] = f'{platform.system()} {platform.machine()}'
    replace_file(
        options.out / 'summary.json', (json.dumps(summary, indent=2) + '\n').encode('utf-8')
    )
    return summary


def _rendered(
    options: DemoOptions, work: Path, progress: Progress
) -> tuple[LiveInput, dict[int, bool]]:
    from nightseg_ros.cli.live import LiveInput
    from nightseg_ros.simulation.drive import (
        CLOUD_TOPIC,
        IMAGE_TOPIC,
        INFO_TOPIC,
        DriveSettings,
        write_drive,
    )

    settings = DriveSettings(
        seed=options.seed, size=options.size, fps=options.fps, seconds=options.seconds,
        lidar_every=2 if options.clouds else 0,
    )  # fmt: skip
    lit = write_drive(
        work / 'drive', settings, progress=lambda done, total: progress.set(
            done, total, 'rendering the drive'
        ),
    )  # fmt: skip
    also = (INFO_TOPIC, CLOUD_TOPIC) if options.clouds else ()
    return LiveInput(path=work / 'drive', topic=IMAGE_TOPIC, count=len(lit), also=also), lit


def _cloud_parameters() -> dict[str, str]:
    """Return the parameters of semantic_cloud for the rendered drive."""
    from nightseg_ros.clouds.geometry import as_text
    from nightseg_ros.simulation.drive import PLACES

    return {
        'transforms': json.dumps([as_text(*place) for place in PLACES]),
        'use_tf': 'false',
        # rendering, recording and both nodes share this machine
        'max_wait': '1.0',
    }


def _real(options: DemoOptions, path: Path) -> LiveInput:
    from nightseg_ros.bags.reader import IMAGE_TYPES, BagReader
    from nightseg_ros.cli.live import LiveInput
    from nightseg_ros.data.source import open_source

    source = open_source(path, options.topic, rate=options.rate)
    kind = IMAGE_TYPES[0]
    count = source.count
    if source.kind == 'bag':
        with BagReader(path) as bag:
            topic = bag.image_topic(options.topic)
            # frames of ROS 1 bags are decoded and published raw
            kind = topic.type if bag.is_ros2 else kind
        count = None
    elif source.rate is not None and count is not None:
        count = min(count, round(options.seconds * source.rate))
    return LiveInput(
        path=path, topic=source.topic, type=kind, count=count, seconds=options.seconds,
        fps=options.rate, stamp_offset=0 if source.kind == 'bag' else STAMP_OFFSET,
    )  # fmt: skip


def _source(options: DemoOptions, given: LiveInput) -> Any:
    from nightseg_ros.data.source import open_source

    return open_source(given.path, given.topic, rate=options.rate)


def _is_kept(bags: Path) -> bool:
    """Tell a folder in which nothing lies but the bags of a demo."""
    from nightseg_ros.bags.writer import is_own_bag

    return all(path.name in ('drive', 'recorded') and is_own_bag(path) for path in bags.iterdir())


def _keep(work: Path, bags: Path) -> None:
    shutil.rmtree(bags, ignore_errors=True)
    bags.mkdir()
    for name in ('drive', 'recorded'):
        if (work / name).exists():
            (work / name).rename(bags / name)


def _few(texts: list[str], most: int = 3) -> list[str]:
    """Return at most so many, and how many more there are."""
    left = len(texts) - most
    return texts if left <= 0 else [*texts[:most], f'and {left} more: see summary.json']


def _show(summary: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    latency = summary['latency_ms']
    table = Table('what', 'value', title=f'nightseg demo: {summary["input"]}')
    table.add_row(
        'frames in / out / dropped',
        f'{summary["frames_in"]} / {summary["frames_out"]} / {summary["dropped"]}',
    )
    if summary['lost']:
        table.add_row('not played', escape('\n'.join(_few(summary['lost']))))
    table.add_row('rate', f'{summary["rate_hz"]} Hz')
    table.add_row('latency p50 / p95 / p99', ' / '.join(str(latency[p]) for p in latency) + ' ms')
    routes = ', '.join(f'{route} {count}' for route, count in summary['routes'].items())
    table.add_row('frames by route', f'{routes}; {summary["switches"]} switches')
    for name, scores in summary.get('miou', {}).items():
        parts = {'day': 'lit', 'night': 'dark'}
        shown = ', '.join(
            f'{parts[part]} {value:.3f}' if value is not None else f'{parts[part]} –'
            for part, value in scores.items()
        )
        table.add_row(f'mIoU on rendered frames, route {name}', shown)
    console = Console()
    console.print(table)
    for name in ('summary.json', 'overlay.mp4', 'contact_sheet.jpg'):
        console.print(str(out / name), markup=False, highlight=False, soft_wrap=True)
