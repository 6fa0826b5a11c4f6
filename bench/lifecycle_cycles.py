# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Configure, activate, deactivate and clean a node up, again and again, and see whether it grows.

``python bench/lifecycle_cycles.py --cycles 1000 --flood 100`` does so while a camera sends 100
frames a second, whatever the node's state. It writes cycles.csv and exits with 1 where memory,
file descriptors or threads grew.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
import os
from pathlib import Path
import sys
import tempfile
import time

from nightseg_ros.cli.processes import Child, ProcessError
from nightseg_ros.dds import private_domain, profile_environment
from nightseg_ros.node.messages import ImageMessage
import numpy as np
from sensor_msgs.msg import Image
from watch import add_weights, growth, held, Observer, resources, ros_arguments


class Camera:
    """Sends one picture under new stamps."""

    def __init__(self, observer: Observer, rate: float) -> None:
        """Send ``rate`` frames a second on a timer; 0 sends only when asked."""
        self._publisher = observer.node.create_publisher(Image, 'front/image_raw', 5)
        self._message = ImageMessage('rgb8')
        self._picture = np.random.default_rng(0).integers(0, 256, (96, 160, 3), dtype=np.uint8)
        self._header = Image().header
        if rate:
            observer.node.create_timer(1 / rate, self.send)

    def send(self) -> None:
        """Send one."""
        now = time.time_ns()
        self._header.stamp.sec, self._header.stamp.nanosec = divmod(now, 1_000_000_000)
        self._publisher.publish(self._message.fill(self._header, self._picture))


def run(options: argparse.Namespace, work: Path) -> list[dict[str, float]]:
    """Return a row a cycle, of the node's resources when it is unconfigured again; write each."""
    parameters = {
        'autostart': 'false', 'cameras': '[front]', 'weights.day': options.day,
        'weights.night': options.night, 'threads': '1', 'backend': options.backend,
    }  # fmt: skip
    arguments = ros_arguments(parameters)
    environ = {**os.environ, 'ROS_LOG_DIR': str(work)}
    rows: list[dict[str, float]] = []
    with ExitStack() as stack:
        # line by line, so that it can be watched
        file = stack.enter_context(options.out.open('w', buffering=1, encoding='utf-8'))
        print('cycle,seconds,rss_mb,anon_mb,fds,threads,cpu_s,masks', file=file)
        node = stack.enter_context(
            Child('node', 'nightseg_ros.node.main', arguments, log=work / 'log', environ=environ)
        )
        observer = Observer({'front': Image}, lambda: node.code is None, ['night_perception'])
        stack.callback(observer.close)
        camera = Camera(observer, options.flood)
        begun = time.monotonic()
        try:
            for cycle in range(options.cycles):
                observer.arrivals.clear()
                for transition in ('configure', 'activate'):
                    observer.transition(transition)
                while not observer.arrivals:
                    if not options.flood:
                        camera.send()
                    observer.spin(0.05)
                for transition in ('deactivate', 'cleanup'):
                    observer.transition(transition)
                rows.append({
                    'cycle': cycle, 'seconds': round(time.monotonic() - begun, 2),
                    **resources(node.pid), 'masks': len(observer.arrivals),
                })  # fmt: skip
                print(*rows[-1].values(), sep=',', file=file)
            node.stop(20.0)
        except (RuntimeError, ProcessError) as error:
            print(f'FAIL in cycle {len(rows)}: {error}\n{node.tail()}')
    return rows


def main() -> int:
    """Run it and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('--cycles', type=int, default=2000)
    add('--flood', type=float, default=0.0, help='frames a second, whatever the state; 0: none')
    add('--warm-up', type=float, default=0.2, help='share of the cycles that is not judged')
    add('--out', type=Path, default=Path('out/cycles.csv'))
    add_weights(parser)
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with private_domain() as domain, tempfile.TemporaryDirectory(prefix='nightseg-') as work:
        os.environ.update({**domain, **profile_environment()})
        rows = run(options, Path(work))
    warm_up = options.cycles * options.warm_up
    found = [growth(rows, 'cycle', warm_up, limit) for limit in held(options.growth)]
    print('\n'.join(map(str, found)))
    passed = len(rows) == options.cycles and all(one.passed for one in found)
    print(f'{len(rows)} of {options.cycles} cycles: {"passed" if passed else "FAILED"}')
    return 0 if passed else 1


if __name__ == '__main__':
    sys.exit(main())
