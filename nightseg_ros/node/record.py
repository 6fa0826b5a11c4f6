# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Record what the node publishes into a bag, with the steady time at which each message arrived.

Messages are kept as they were serialised. The bag appears under its name when the recorder is
asked to stop (SIGINT, SIGTERM) and is complete then. After a full disk or a kill the folder
NAME.partial holds what was written.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from nightseg_ros.bags.reader import BagError
from nightseg_ros.bags.storage import Channel, Message
from nightseg_ros.bags.writer import BagWriter, reliable_qos
from nightseg_ros.files import user_path
from nightseg_ros.node.camera import TOPICS
from nightseg_ros.node.replay import StampLog, header_stamp
from nightseg_ros.perception.result import NAMESPACE
from nightseg_ros.shared_memory import remove_orphans

#: Type (``package/Name``) of each output by its name, and whether late subscribers get it.
KINDS = {topic.name: (topic.kind, topic.latched) for topic in TOPICS}
#: The one topic that belongs to no camera.
DIAGNOSTICS = 'diagnostics'
#: Seconds in which a stopping recorder still takes what has arrived.
DRAIN_S = 0.5
#: Seconds between two looks for cameras.
DISCOVER_S = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the recorder and return its exit code."""
    given = remove_ros_args(sys.argv if arguments is None else ['bag_recorder', *arguments])[1:]
    options = _parser().parse_args(given)
    try:
        writer = BagWriter(
            user_path(options.bag), storage=options.storage, force=options.force, keep=True
        )
    except (BagError, OSError) as error:
        print(f'bag_recorder: {error}', file=sys.stderr)
        return 2
    remove_orphans()
    # its own handlers: what has arrived shall still be written
    rclpy.init(
        args=None if arguments is None else ['bag_recorder', *arguments],
        signal_handler_options=SignalHandlerOptions.NO,
    )
    try:
        with writer, StampLog(options.log) as log:
            recorder = Recorder(writer, log, options)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: recorder.stop())
            recorder.run()
    except (BagError, OSError) as error:
        print(f"bag_recorder: {error}; '{writer.partial}' holds what was written", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    return 0


class Recorder:
    """Subscribes to the topics of some cameras, or of all that show up, and writes them."""

    def __init__(self, writer: BagWriter, log: StampLog, options: argparse.Namespace) -> None:
        """Subscribe to what has a name already."""
        self.writer, self.log, self.options = writer, log, options
        self.counts: Counter[str] = Counter()
        self.node: Any = rclpy.create_node('bag_recorder')
        self._stopping = False
        self._known: set[str] = set()
        for camera in () if options.discover else options.cameras:
            self._follow(f'/{camera.strip("/")}/{NAMESPACE}')
        for topic in options.images:
            compressed = topic.endswith('/compressed')
            kind = f'sensor_msgs/{"CompressedImage" if compressed else "Image"}'
            self._subscribe(f'/{topic.strip("/")}', kind, latched=False, output='')
        for topic in options.clouds:
            name = f'/{topic.strip("/")}'
            self._subscribe(name, 'sensor_msgs/PointCloud2', latched=False, output='points')
        if DIAGNOSTICS in options.outputs:
            self._subscribe(
                '/diagnostics', 'diagnostic_msgs/DiagnosticArray', latched=False, output=''
            )

    def stop(self) -> None:
        """Let ``run`` end."""
        self._stopping = True

    def run(self) -> None:
        """Write until told to stop, then what has arrived."""
        executor = SingleThreadedExecutor()
        executor.add_node(self.node)
        print('recording', flush=True)
        begun = look = time.monotonic()
        try:
            while not self._stopping and rclpy.ok():
                executor.spin_once(timeout_sec=0.2)
                now = time.monotonic()
                if self.options.discover and now >= look:
                    look = now + DISCOVER_S
                    self._discover()
                if self.options.seconds and now - begun >= self.options.seconds:
                    break
            end = time.monotonic() + DRAIN_S
            while rclpy.ok() and (left := end - time.monotonic()) > 0:
                executor.spin_once(timeout_sec=left)
        except (KeyboardInterrupt, ExternalShutdownException):
            pass
        finally:
            executor.shutdown()
            self.node.destroy_node()
        counts = ', '.join(f'{topic} {count}' for topic, count in sorted(self.counts.items()))
        print(counts or 'nothing recorded', flush=True)

    def _discover(self) -> None:
        """Follow the cameras whose labels somebody publishes now."""
        end = f'/{NAMESPACE}/labels'
        for topic, _ in self.node.get_topic_names_and_types():
            prefix = topic.removesuffix('/labels')
            new = topic.endswith(end) and prefix not in self._known
            if new and self.node.count_publishers(topic):
                print(f'recording {prefix}', flush=True)
                self._follow(prefix)

    def _follow(self, prefix: str) -> None:
        self._known.add(prefix)
        for output in self.options.outputs:
            if output in KINDS:
                kind, latched = KINDS[output]
                self._subscribe(f'{prefix}/{output}', kind, latched=latched, output=output)

    def _subscribe(self, topic: str, kind: str, *, latched: bool, output: str) -> None:
        package, _, name = kind.partition('/')
        try:
            message_type = getattr(importlib.import_module(f'{package}.msg'), name)
        except ImportError:
            print(f'{topic} is not recorded: {package} is not installed', flush=True)
            return
        # best effort also hears reliable publishers; the depth bridges a slow disk
        qos = QoSProfile(depth=50, reliability=ReliabilityPolicy.BEST_EFFORT)
        if latched:
            qos = QoSProfile(
                depth=1, reliability=ReliabilityPolicy.RELIABLE,
                durability=DurabilityPolicy.TRANSIENT_LOCAL,
            )  # fmt: skip
        elif self.options.reliable:
            qos.reliability = ReliabilityPolicy.RELIABLE
        recorded = f'{package}/msg/{name}'
        offered = (reliable_qos(latched=latched),) if output else ()
        channel = Channel(topic=topic, type=recorded, qos=offered)
        self.writer.add_topic(channel)
        stamped = name not in ('String', 'Float32')

        def keep(data: bytes) -> None:
            arrived = time.monotonic_ns()
            received = time.time_ns()
            self.writer.write(Message(channel=channel, received_ns=received, data=bytes(data)))
            self.counts[topic] += 1
            if stamped:
                self.log.add(topic=topic, stamp=header_stamp(data), arrived=arrived)

        self.node.create_subscription(message_type, topic, keep, qos, raw=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='bag_recorder', description=__doc__)
    add = parser.add_argument
    add('bag', help='bag to write')
    add('--cameras', nargs='+', default=['camera'], help='names of the cameras')
    add('--discover', action='store_true', help='every camera that shows up, instead')
    add('--outputs', nargs='+', default=['labels', 'overlay', 'status'],
        choices=[*KINDS, DIAGNOSTICS])  # fmt: skip
    add('--images', nargs='+', default=[], help='image topics to record as well')
    add('--clouds', nargs='+', default=[], help='topics of points to record as well')
    add('--seconds', type=float, default=0.0, help='end after so long; 0 waits for a signal')
    add('--reliable', action='store_true', help='ask for lost messages again')
    add('--storage', default='mcap', choices=['mcap', 'sqlite3'])
    add('--force', action='store_true', help='replace the bag if it exists')
    add('--log', help='write the steady time at which each stamp arrived, as JSON lines')
    return parser


if __name__ == '__main__':
    sys.exit(main())
