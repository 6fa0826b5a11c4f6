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
import os
from pathlib import Path
import sys
import time

from nightseg_ros.cli.processes import ros_arguments
from nightseg_ros.node.messages import stamped_header
from sensor_msgs.msg import Image
from watch import add_weights, growth, held, Observer, resources, verdict


def run(options: argparse.Namespace) -> list[dict[str, float]]:
    """Return a row a cycle, of the node's resources when it is unconfigured again; write each."""
    parameters = {
        'autostart': 'false', 'cameras': '[front]', 'weights.day': options.day,
        'weights.night': options.night, 'threads': '1', 'backend': options.backend,
    }  # fmt: skip
    rows: list[dict[str, float]] = []
    # line by line, so that it can be watched
    with (
        options.out.open('w', buffering=1, encoding='utf-8') as file,
        Observer({'front': Image}, ['night_perception']) as observer,
    ):
        node = observer.start('node', 'nightseg_ros.node.main', ros_arguments(parameters))
        camera = observer.node.create_publisher(Image, 'front/image_raw', 5)
        picture = Image(encoding='rgb8', height=96, width=160, step=480)
        picture.data.frombytes(os.urandom(96 * 480))

        def send() -> None:
            picture.header = stamped_header('', time.time_ns())
            camera.publish(picture)

        if options.flood:
            observer.node.create_timer(1 / options.flood, send)
        begun = time.monotonic()
        try:
            for cycle in range(options.cycles):
                observer.arrivals.clear()
                observer.transition('configure', 'activate')
                while not observer.arrivals:
                    if not options.flood:
                        send()
                    observer.spin(0.05)
                observer.transition('deactivate', 'cleanup')
                rows.append({
                    'cycle': cycle, 'seconds': round(time.monotonic() - begun, 2),
                    **resources(node.pid), 'masks': len(observer.arrivals),
                })  # fmt: skip
                if not cycle:
                    print(*rows[-1], sep=',', file=file)
                print(*rows[-1].values(), sep=',', file=file)
            node.stop(20.0)
        except RuntimeError as error:
            print(f'FAIL in cycle {len(rows)}: {error}\n{node.tail()}')
    return rows


def main() -> int:
    """Run it and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('--cycles', type=int, default=2000)
    add('--flood', type=float, default=0.0, help='frames a second, whatever the state; 0: none')
    add('--out', type=Path, default=Path('out/cycles.csv'))
    add_weights(parser)
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    rows = run(options)
    checks = [growth(rows, 'cycle', 0.2 * options.cycles, limit) for limit in held(options.growth)]
    done = f'{len(rows)} of {options.cycles} cycles'
    return 0 if verdict([*checks, (len(rows) == options.cycles, done)]) else 1


if __name__ == '__main__':
    sys.exit(main())
