# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Record what the node publishes into a bag, with the steady time at which each message arrived.

Messages are kept as they were serialised. The bag appears under its name when the recorder is
asked to stop (SIGINT, SIGTERM) and is complete then.
"""

from __future__ import annotations

import argparse
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image

from nightseg_ros.bags.errors import BagError
from nightseg_ros.bags.writer import BagWriter
from nightseg_ros.node.stamp_log import StampLog

#: Outputs of the node by the last part of their topic.
TYPES: dict[str, tuple[str, Any]] = {
    **dict.fromkeys(
        ('labels', 'color', 'overlay', 'confidence'), ('sensor_msgs/msg/Image', Image)
    ),
    'status': ('diagnostic_msgs/msg/DiagnosticArray', DiagnosticArray),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the recorder and return its exit code."""
    given = remove_ros_args(sys.argv if arguments is None else ['bag_recorder', *arguments])[1:]
    options = _parser().parse_args(given)
    try:
        writer = BagWriter(Path(options.bag), storage=options.storage, force=options.force)
    except (BagError, OSError) as error:
        print(f'bag_recorder: {error}', file=sys.stderr)
        return 2
    rclpy.init(args=None if arguments is None else ['bag_recorder', *arguments])
    signal.signal(signal.SIGTERM, lambda *_: rclpy.try_shutdown())
    try:
        with writer, StampLog(options.log) as log:
            _record(writer, log, options)
    except BagError as error:
        print(f'bag_recorder: {error}', file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    return 0


def _record(writer: BagWriter, log: StampLog, options: argparse.Namespace) -> None:
    node: Any = rclpy.create_node('bag_recorder')
    counts: Counter[str] = Counter()
    # best effort also hears reliable publishers; the depth bridges a slow disk
    qos = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)

    def keep(topic: str, kind: str, data: bytes) -> None:
        arrived = time.monotonic_ns()
        writer.write_serialized(topic, kind, bytes(data), time.time_ns())
        counts[topic] += 1
        log.add(topic=topic, stamp=stamp_of(data), arrived=arrived)

    def subscribe(camera: str, output: str) -> None:
        kind, message_type = TYPES[output]
        topic = f'{camera}/nightseg/{output}'
        node.create_subscription(
            message_type, topic, lambda data: keep(f'/{topic}', kind, data), qos, raw=True
        )

    try:
        for camera in options.cameras:
            for output in options.outputs:
                subscribe(camera.strip('/'), output)
        print('recording', flush=True)
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
    print(', '.join(f'{topic} {count}' for topic, count in counts.items()) or 'nothing recorded')


def stamp_of(data: bytes) -> int:
    """Return the header's stamp in ns of a serialised (CDR, little endian) stamped message."""
    seconds, nanoseconds = struct.unpack_from('<iI', data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='bag_recorder', description=__doc__)
    add = parser.add_argument
    add('bag', help='bag to write')
    add('--cameras', nargs='+', default=['camera'], help='names of the cameras')
    add('--outputs', nargs='+', default=['labels', 'overlay', 'status'], choices=list(TYPES))
    add('--storage', default='mcap', choices=['mcap', 'sqlite3'])
    add('--force', action='store_true', help='replace the bag if it exists')
    add('--log', help='write the steady time at which each stamp arrived, as JSON lines')
    return parser


if __name__ == '__main__':
    sys.exit(main())
