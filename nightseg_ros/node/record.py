# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Record what the node publishes into a bag, with the steady time at which each message arrived.

Messages are kept as they were serialised. The bag appears under its name when the recorder is
asked to stop (SIGINT, SIGTERM) and is complete then. After a full disk or a kill the folder
NAME.partial holds what was written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
import json
import os
import sys
import time
from typing import Any, TextIO

from nightseg_ros.bags.reader import BagError
from nightseg_ros.bags.storage import Channel, Message
from nightseg_ros.bags.writer import BagWriter, reliable_qos
from nightseg_ros.cli.bags import RecordOptions
from nightseg_ros.cli.options import hear_signals
from nightseg_ros.config import ConfigError, did_you_mean
from nightseg_ros.files import use_log_folder, user_path
from nightseg_ros.node.camera import TOPICS
from nightseg_ros.node.messages import header_stamp, message_class
from nightseg_ros.node.subscription import Subscription
from nightseg_ros.perception.result import NAMESPACE, transport_of, TRANSPORTS
from nightseg_ros.shared_memory import remove_orphans
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

#: The one topic that belongs to no camera.
DIAGNOSTICS = 'diagnostics'
#: Seconds in which a stopping recorder still takes what has arrived.
DRAIN_S = 0.5
#: Seconds between two looks at who publishes.
DISCOVER_S = 0.5


def run(options: RecordOptions) -> int:
    """Record until a signal; return the exit code."""
    known = [topic.name for topic in TOPICS] + [DIAGNOSTICS]
    for output in options.outputs:
        if output not in known:
            near, listed = did_you_mean(output, known), ', '.join(known)
            raise ConfigError(f"there is no output '{output}'; outputs: {listed}{near}")
    out = user_path(options.out)
    if options.log is not None and not options.log.parent.is_dir():
        raise ConfigError(f"--log: there is no folder '{options.log.parent}'")
    writer = BagWriter(out, storage=options.storage, force=options.force, keep=True)
    try:
        with writer:
            remove_orphans()
            use_log_folder()
            # its own handlers: what has arrived shall still be written
            rclpy.init(args=['bag_recorder'], signal_handler_options=SignalHandlerOptions.NO)
            # by lines, so that a killed process leaves what it knew
            with open(options.log or os.devnull, 'w', encoding='utf-8', buffering=1) as log:
                recorder = Recorder(writer, log, options)
                hear_signals(lambda *_: recorder.stop())
                recorder.record()
    except (BagError, OSError) as error:
        kept = f"; '{writer.partial}' holds what was written" if writer.partial.exists() else ''
        _say(f'bag_recorder: {error}{kept}', sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    return 0


def _say(text: str, stream: TextIO | None = None) -> None:
    """Print a line; a terminal that is gone, or a pipe that nobody reads, costs no recording."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError:
        # Python would try again at its end, and fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Recorder:
    """Subscribes to the topics of some cameras, or of all that show up, and writes them."""

    def __init__(self, writer: BagWriter, log: TextIO, options: RecordOptions) -> None:
        """Subscribe to what has a name already."""
        self._writer, self._log, self._options = writer, log, options
        self._counts: Counter[str] = Counter()
        self._subscriptions: dict[str, Subscription] = {}
        self._node: Any = rclpy.create_node('bag_recorder')
        self._node.subscribed = set()
        self._stopping = False
        self._followed: set[str] = set()
        for camera in options.cameras:
            self._follow(f'/{camera.strip("/")}/{NAMESPACE}')
        for topic in options.images:
            topic = f'/{topic.strip("/")}'
            self._subscribe(topic, TRANSPORTS[transport_of(topic)])
        for topic in options.clouds:
            self._subscribe(f'/{topic.strip("/")}', 'sensor_msgs/PointCloud2', ours=True)
        if DIAGNOSTICS in options.outputs:
            self._subscribe('/diagnostics', 'diagnostic_msgs/DiagnosticArray')

    def stop(self) -> None:
        """Let ``record`` end."""
        self._stopping = True

    def record(self) -> None:
        """Write until told to stop, then what has arrived."""
        executor = SingleThreadedExecutor()
        executor.add_node(self._node)
        _say('recording')
        begun = discover = time.monotonic()
        try:
            while not self._stopping and rclpy.ok():
                executor.spin_once(timeout_sec=0.2)
                now = time.monotonic()
                if now >= discover:
                    discover = now + DISCOVER_S
                    if not self._options.cameras:
                        self._discover()
                    for subscription in self._node.subscribed:
                        subscription.match()
                if self._options.seconds and now - begun >= self._options.seconds:
                    break
            end = time.monotonic() + DRAIN_S
            while rclpy.ok() and (left := end - time.monotonic()) > 0:
                executor.spin_once(timeout_sec=left)
        except (KeyboardInterrupt, ExternalShutdownException):
            pass
        finally:
            executor.shutdown()
            lost = [*self._lost()] if rclpy.ok() else []
            self._node.destroy_node()
        counts = ', '.join(f'{topic} {count}' for topic, count in sorted(self._counts.items()))
        _say(counts or 'nothing recorded')
        for text in lost:
            _say(f'bag_recorder: {text}', sys.stderr)

    def _lost(self) -> Iterator[str]:
        """Yield in words what was published and is not in the bag."""
        for topic, subscription in sorted(self._subscriptions.items()):
            if subscription.missed:
                yield f'{topic}: {subscription.missed} messages were published and did not arrive'
            elif not self._counts[topic] and (others := subscription.source().other_types):
                yield f'{topic}: it is {", ".join(others)}, which was not asked for'

    def _discover(self) -> None:
        """Follow the cameras whose labels somebody publishes now."""
        end = f'/{NAMESPACE}/labels'
        for topic, _ in self._node.get_topic_names_and_types():
            prefix = topic.removesuffix('/labels')
            new = topic.endswith(end) and prefix not in self._followed
            if new and self._node.count_publishers(topic):
                _say(f'recording {prefix}')
                self._follow(prefix)

    def _follow(self, prefix: str) -> None:
        self._followed.add(prefix)
        topics = {topic.name: topic for topic in TOPICS}
        for output in self._options.outputs:
            if output in topics:
                topic = topics[output]
                self._subscribe(f'{prefix}/{output}', topic.kind, latched=topic.latched, ours=True)

    def _subscribe(
        self, topic: str, kind: str, *, latched: bool = False, ours: bool = False
    ) -> None:
        """Write the messages of a topic; ``ours`` is what a node of this package publishes."""
        if topic in self._subscriptions:
            return
        message_type = message_class(kind)
        package, _, name = kind.partition('/')
        if message_type is None:
            _say(f'{topic} is not recorded: {package} is not installed')
            return
        # best effort also hears reliable publishers, which wait for nobody then
        reliability = 'reliable' if self._options.reliable else 'best_effort'
        if latched or not ours:
            reliability = 'auto'
        offered = (reliable_qos(latched=latched),) if ours else ()
        channel = Channel(topic=topic, msgtype=f'{package}/msg/{name}', qos=offered)
        self._writer.add_topic(channel)
        stamped = name not in ('String', 'Float32')

        def keep(data: bytes) -> None:
            arrived, received = time.monotonic_ns(), time.time_ns()
            self._writer.write(Message(channel=channel, received_ns=received, data=bytes(data)))
            self._counts[topic] += 1
            if stamped:
                event = {'topic': topic, 'stamp': header_stamp(data), 'arrived': arrived}
                print(json.dumps(event), file=self._log)

        # the depth bridges a slow disk
        self._subscriptions[topic] = Subscription(
            self._node, message_type, topic, keep, reliability, depth=50, raw=True
        )
