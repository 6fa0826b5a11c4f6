# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""``nightseg bench``: how fast the node is on this machine, where the time goes, and peers."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightseg_ros.cli.options import parse

if TYPE_CHECKING:
    from nightseg_ros.benchmark.pipelines import Times
    from nightseg_ros.benchmark.sessions import Session
    from nightseg_ros.cli.progress import Progress

#: Raised when what a key of ``bench.json`` means changes.
FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchOptions:
    """
    Measure the node as real ROS 2 processes, the pipeline without ROS, and peers, all in turns.

    Writes bench.json and bench.md into --out and prints the latter. docs/performance.md tells
    what each figure means. Let nothing else run meanwhile. Exit code 0 also where a goal is
    missed.
    """

    out: Path = Path('out/bench')
    """Folder to write; results of the same names are replaced."""
    short: bool = False
    """End in two minutes, with fewer rounds."""
    backend: str = 'auto'
    """What runs our networks; the node's parameter of that name."""
    peers: bool = True
    """Compare with the nodes in bench/peers; SegFormer needs transformers."""
    only: tuple[str, ...] = ()
    """Sessions to run, by name; without them all, then the pipeline and the roofline."""
    soak: int = 1000
    """Frames over which memory must not grow; small ones, with small networks' inputs."""
    weights_day: str = 'day'
    """Weights of the route 'day': a file, or the name of a shipped one."""
    weights_night: str = 'night'
    """Weights of the route 'night'."""
    weights_translator: str = 'translator'
    """Night-to-day generator of the route 'translate'."""


def main(arguments: Sequence[str]) -> int:
    """Run the verb."""
    options = parse(BenchOptions, 'bench', arguments)

    from nightseg_ros.benchmark.document import markdown
    from nightseg_ros.cli.progress import Progress
    from nightseg_ros.files import replace_file

    # its processes must not outlive a benchmark that is told to end
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    options.out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=options.out, prefix='.work-') as work,
        Progress('bench', None) as progress,
    ):
        for bench in run(options, Path(work), progress):
            # a benchmark that is interrupted leaves what it has measured
            text = markdown(bench)
            replace_file(options.out / 'bench.json', json.dumps(bench, indent=1).encode())
            replace_file(options.out / 'bench.md', text.encode())
    print(text)
    return 0


def run(options: BenchOptions, work: Path, progress: Progress) -> Iterator[dict[str, Any]]:
    """Measure one part after the other; yield after each what ``bench.json`` holds by then."""
    import numpy as np

    from nightseg_ros.benchmark.machine import machine
    from nightseg_ros.cli.bench_live import run_session
    from nightseg_ros.cli.info import versions

    planned = _planned(options)
    settings = {**asdict(options), 'out': str(options.out), 'only': list(options.only)}
    facts = {
        'format': FORMAT,
        'created': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'settings': settings,
        'machine': machine(),
        'versions': versions(),
    }
    scenes = _scenes()
    raw: dict[str, Any] = {}
    for number, session in enumerate(planned):
        progress.set(number, len(planned) + 1, f'{session.name}, {session.size[0]} wide')
        frames = work / f'{session.size[0]}.npy'
        if not frames.exists():
            np.save(frames, _scaled(scenes, session.size))
        raw[session.name] = run_session(session, frames, work)
        yield _bench(facts, planned, raw, [], None)
    if not options.only:
        progress.set(len(planned), len(planned) + 1, 'the pipeline without ROS')
        pipelines = _pipelines(options, scenes, progress.say)
        yield _bench(facts, planned, raw, pipelines, _roofline(options, pipelines))


def _bench(
    facts: dict[str, Any],
    planned: Sequence[Session],
    raw: dict[str, Any],
    pipelines: list[Times],
    roof: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return what ``bench.json`` holds."""
    from nightseg_ros.benchmark.figures import figures
    from nightseg_ros.benchmark.goals import judged
    from nightseg_ros.benchmark.phases import summary
    from nightseg_ros.benchmark.ratios import ratios

    measured, units = ratios(raw, pipelines), figures(raw)
    return {
        **facts,
        'description': pipelines[0].description if pipelines else None,
        'goals': judged({**{name: found['value'] for name, found in measured.items()}, **units}),
        'ratios': measured,
        'figures': units,
        'sessions': {
            session.name: {
                'size': list(session.size),
                'phases': {
                    name: summary(phase) for name, phase in raw[session.name]['phases'].items()
                },
            }
            for session in planned
            if session.name in raw
        },
        'pipelines': [times.summary() for times in pipelines],
        'roofline': roof,
    }


def _planned(options: BenchOptions) -> list[Session]:
    from nightseg_ros.benchmark.sessions import PEERS, sessions
    from nightseg_ros.config import ConfigError
    from nightseg_ros.files import share_dir

    peers = tuple(
        name
        for name in PEERS
        if options.peers
        and (share_dir() / 'bench' / 'peers' / f'{name}.py').is_file()
        and (name != 'segformer_node' or find_spec('transformers') is not None)
    )
    weights = {
        f'weights.{name}': getattr(options, f'weights_{name}')
        for name in ('day', 'night', 'translator')
    }
    planned = sessions(
        short=options.short, backend=options.backend, weights=weights, peers=peers,
        soak=options.soak,
    )  # fmt: skip
    unknown = set(options.only) - {session.name for session in planned}
    if unknown:
        raise ConfigError(
            f'--only names {sorted(unknown)}; there are {[session.name for session in planned]}'
        )
    if find_spec('rclpy') is None:
        raise ConfigError(
            'this needs ROS 2 (rclpy): source a ROS 2 setup file, or '
            '`pip install -r requirements/ros-jazzy.txt`'
        )
    return [s for s in planned if not options.only or s.name in options.only]


def _scenes() -> Any:
    """Return a few rendered night scenes, uint8 [N, 360, 640, 3] RGB."""
    import numpy as np

    from nightseg_ros.simulation import Street, render

    street = Street(1, 'demo')
    return np.stack([render(street, 9.0 * index, 'night', seed=index).image for index in range(3)])


def _scaled(scenes: Any, size: tuple[int, int]) -> Any:
    import cv2
    import numpy as np

    return np.stack([cv2.resize(scene, size) for scene in scenes])


def _pipelines(options: BenchOptions, scenes: Any, say: Callable[[str], None]) -> list[Times]:
    from nightseg_ros.benchmark.pipelines import measure, setups
    from nightseg_ros.perception.pipeline import WeightsConfig
    from nightseg_ros.runtime.backends import available_backends

    backends = [name for name, present in available_backends().items() if present]
    weights = WeightsConfig(
        day=options.weights_day, night=options.weights_night, translator=options.weights_translator
    )
    return measure(
        setups(options.backend, backends), scenes, 5 if options.short else 15, say, weights=weights
    )


def _roofline(options: BenchOptions, pipelines: Sequence[Times]) -> dict[str, Any]:
    import numpy as np

    from nightseg_ros.benchmark.roofline import machine_peaks, network_work, shares
    from nightseg_ros.runtime.pixels import fit
    from nightseg_ros.weights import load_weights

    weights = load_weights(options.weights_night)
    base = pipelines[0]
    height, width = fit(*base.setup.size[::-1], weights.metadata.long_side).padded
    work, peaks = network_work(weights, height, width), machine_peaks()
    measured = float(np.median(base.stages_ms['network']))
    return {
        'machine': peaks,
        'networks': {weights.path.stem: {**work, **shares(work, peaks, measured)}},
    }
