# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg demo``: a drive through real ROS 2 processes, and what came of it in pictures."""

from __future__ import annotations

import dataclasses
import json
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightseg_ros.cli.options import PipelineOptions, Progress, parse
from nightseg_ros.config import ConfigError

#: Nanoseconds added to the stamps of videos and folders: a stamp of 0 means none to ROS.
STAMP_OFFSET = 1_000_000_000_000_000_000
#: Weights by place, for real footage and for the rendered drive.
REAL = {'day': 'day', 'night': 'night', 'illumination': 'illumination'}
RENDERED = {'day': 'rendered_day', 'night': 'rendered_night', 'illumination': 'illumination'}
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


def demo(arguments: Sequence[str]) -> int:
    """Play, record, score and draw, in a folder that is removed at the end."""
    options = parse(DemoOptions, 'demo', arguments)
    if options.clouds and options.input is not None:
        raise ConfigError('--clouds is for the rendered drive: an input has no LiDAR')
    if not options.seconds > 0:
        raise ConfigError(f'--seconds must be above 0, got {options.seconds}')
    names = {f'weights_{k}': v for k, v in (REAL if options.input else RENDERED).items()}
    missing = {name: value for name, value in names.items() if not getattr(options, name)}
    options = dataclasses.replace(options, **missing)  # type: ignore[arg-type]
    if options.keep_bag:
        from nightseg_ros.outputs import check_output

        given = [] if options.input is None else [options.input]
        check_output(options.out / 'bags', "a demo's bags", _is_kept, inputs=given)
    # its processes must not outlive a demo that is told to end
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    options.out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=options.out, prefix='.work-'))
    try:
        with Progress('demo', None) as progress:
            summary = _run(options, work, progress)
        if options.keep_bag:
            bags = options.out / 'bags'
            shutil.rmtree(bags, ignore_errors=True)
            bags.mkdir()
            for name in ('drive', 'recorded'):
                if (work / name).exists():
                    (work / name).rename(bags / name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _show(summary, options.out)
    return 0


def _run(options: DemoOptions, work: Path, progress: Progress) -> dict[str, Any]:
    """Return the summary; the drive and the recorded bag are in ``work`` then."""
    from nightseg_ros.cli.live import run_live
    from nightseg_ros.data.source import open_source
    from nightseg_ros.evaluation.live import read_live_run, score_drive, show_run
    from nightseg_ros.files import replace_file
    from nightseg_ros.perception.pipeline import Pipeline
    from nightseg_ros.simulation.drive import (
        CLOUD_TOPIC,
        IMAGE_TOPIC,
        INFO_TOPIC,
        Drive,
        write_drive,
    )

    config = options.pipeline_config()
    progress.set(0, None, 'loading the networks')
    # an error in weights, backend or device ends the demo here; the node would wait for a better
    # configuration. It finds the exported networks in the cache.
    Pipeline.load(config, say=progress.note)
    lit: dict[int, bool] = {}
    topic: str | None
    count: int | None
    if options.input is None:
        drive = Drive(
            seed=options.seed, size=options.size, fps=options.fps, seconds=options.seconds
        )
        lit = write_drive(
            work / 'drive', drive, lidar_every=2 if options.clouds else 0,
            progress=lambda done, total: progress.set(done, total, 'rendering the drive'),
        )  # fmt: skip
        path, topic, compressed, count, offset = work / 'drive', IMAGE_TOPIC, False, len(lit), 0
    else:
        path = options.input
        topic, compressed, count, offset = _footage(options, path)
    play = [str(path), '--stamp-offset', str(offset)]
    play += ['--topic', topic] if topic else []
    if options.clouds:
        play += ['--also', INFO_TOPIC, CLOUD_TOPIC]
    else:
        play += ['--remap-to', f'camera/image_raw{"/compressed" if compressed else ""}']
    if options.input is not None:
        play += ['--seconds', str(options.seconds)]
        play += ['--fps', str(options.rate)] if options.rate else []
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
    unread = run_live(
        play, parameters, work, compressed=compressed, count=count, clouds=clouds,
        progress=progress.set,
    )  # fmt: skip
    for text in unread:
        progress.note(f'not played: {text}')
    recorded = work / 'recorded'
    run = read_live_run(recorded, work / 'sent.jsonl', work / 'arrived.jsonl')
    summary: dict[str, Any] = {
        'input': 'rendered' if options.input is None else options.input.name,
        **run.summary(),
        'lost': list(unread),
    }
    if lit:
        summary['miou'] = score_drive(path, recorded, lit, config, progress=progress.set)
    show_run(
        options.out, open_source(path, topic, rate=options.rate), run, recorded,
        options.weights_day, offset=offset, progress=progress.set,
    )  # fmt: skip
    summary['seconds'] = options.seconds
    if options.input is None:
        summary['seed'] = options.seed
    summary['weights'] = [options.weights_day, options.weights_night]
    summary['machine'] = f'{platform.system()} {platform.machine()}'
    text = json.dumps(summary, indent=2) + '\n'
    replace_file(options.out / 'summary.json', text.encode('utf-8'))
    return summary


def _is_kept(bags: Path) -> bool:
    """Tell a folder in which nothing lies but the bags of a demo."""
    from nightseg_ros.bags.writer import is_own_bag

    return all(path.name in ('drive', 'recorded') and is_own_bag(path) for path in bags.iterdir())


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


def _footage(options: DemoOptions, path: Path) -> tuple[str | None, bool, int | None, int]:
    """Return topic, whether it is compressed, number of frames if known, and stamp offset (ns)."""
    from nightseg_ros.bags.reader import IMAGE_TYPES, BagReader
    from nightseg_ros.data.source import open_source

    source = open_source(path, options.topic, rate=options.rate)
    if source.kind == 'bag':
        with BagReader(path) as bag:
            # frames of ROS 1 bags are decoded and published raw
            compressed = bag.is_ros2 and bag.image_topic(options.topic).type == IMAGE_TYPES[1]
        return source.topic, compressed, None, 0
    count = source.count
    if source.rate is not None and count is not None:
        count = min(count, round(options.seconds * source.rate))
    return source.topic, False, count, STAMP_OFFSET


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
        lines = summary['lost'][:SHOWN]
        if len(summary['lost']) > SHOWN:
            lines.append(f'and {len(summary["lost"]) - SHOWN} more: see summary.json')
        table.add_row('not played', escape('\n'.join(lines)))
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
