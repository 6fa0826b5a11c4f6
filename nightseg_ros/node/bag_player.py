# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Play a recording's images into ROS 2 topics at their own pace, for those without ``ros2 bag``.

Messages of a ROS 2 bag are published as they were recorded, byte for byte; frames of a video, a
folder or a ROS 1 bag become sensor_msgs/Image. It exits with 0 where all was played, 1 where it
came to the end but lost something on the way, and 2 where it could not play.
"""

from __future__ import annotations

import argparse
import array
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from rclpy.executors import ExternalShutdownException
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from nightseg_ros.bags.errors import BagError
from nightseg_ros.bags.reader import IMAGE_TYPES
from nightseg_ros.data.source import STAMP_OFFSET
from nightseg_ros.dds import profile_environment
from nightseg_ros.node.lockstep import Lockstep, header_stamp
from nightseg_ros.node.pacing import Pacer
from nightseg_ros.node.recording import Outgoing, Recording, open_recording
from nightseg_ros.node.stamp_log import StampLog
from nightseg_ros.perception.frame import Frame
from nightseg_ros.perception.naming import output_prefixes

#: Seconds between two messages on /clock: what ``ros2 bag play --clock`` sends by default.
CLOCK_PERIOD = 1 / 40
#: A subscription that has been matched may need this long until it gets everything.
SETTLE_S = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the player and return its exit code."""
    given = remove_ros_args(sys.argv if arguments is None else ['bag_player', *arguments])[1:]
    options = _parser().parse_args(given)
    try:
        recording = open_recording(
            Path(options.bag).expanduser(), options.topic, options.fps,
            stamps=Path(options.stamps) if options.stamps else None, everything=options.all,
            also=options.also,
        )  # fmt: skip
        if len(recording.topics) > 1 and (options.remap_to or options.labels):
            raise ValueError(
                f'--remap-to and --labels are for one topic, not for {list(recording.topics)}; '
                'name one with --topic'
            )
        if options.rate is not None:
            Pacer(options.rate)
    except (ValueError, OSError) as error:
        print(f'bag_player: {error}', file=sys.stderr)
        return 2
    # read by Fast DDS when the first node starts, in this process, which publishes the images
    os.environ.update(profile_environment())
    rclpy.init(args=None if arguments is None else ['bag_player', *arguments])
    signal.signal(signal.SIGTERM, lambda *_: rclpy.try_shutdown())
    with StampLog(options.log) as log:
        player = Player(recording, options, log)
        try:
            return player.run()
        except (KeyboardInterrupt, ExternalShutdownException):
            return 0
        except (BagError, OSError) as error:
            print(f'bag_player: {error}', file=sys.stderr)
            return 2
        except Exception:
            # publishing fails with many names once somebody has shut ROS down
            if not rclpy.ok():
                return 0
            # Python's own exit code for this is 1, which here means that the rest was played
            traceback.print_exc()
            return 2
        finally:
            player.close()
            rclpy.try_shutdown()


class Player:
    """Publishes a recording's messages when they are due, or in lockstep with their labels."""

    def __init__(self, recording: Recording, options: argparse.Namespace, log: StampLog) -> None:
        """Create the publishers."""
        self.options = options
        self.recording = recording
        self.node: Any = rclpy.create_node('bag_player')
        self.publishers: dict[str, Any] = {}
        for topic, kind in recording.topics.items():
            message_type = _message_type(kind)
            if message_type is None:
                self._say(f'{topic} is not played: {kind} is not installed here')
                continue
            self.publishers[topic] = self.node.create_publisher(
                message_type, options.remap_to or topic, self._qos(topic, kind)
            )
        self.clock: Any = None
        if options.clock:
            # a late clock is worse than a lost one
            self.clock = self.node.create_publisher(Clock, '/clock', QoSProfile(depth=1))
        self.lockstep: Lockstep | None = None
        if options.lockstep:
            names = [options.remap_to or topic for topic in recording.topics]
            labels = [options.labels or f'{prefix}/labels' for prefix in output_prefixes(names)]
            self.lockstep = Lockstep(
                self.node, dict(zip(recording.topics, labels)), options.patience
            )
        #: Without a pace an image follows the labels of the one before it at once.
        self.pacer = Pacer(options.rate or 1.0)
        self.paced = options.rate is not None or not options.lockstep
        self.offset = 0 if options.stamp_offset is None else options.stamp_offset
        if options.stamp_offset is None and recording.source is not None:
            # stamps of a rate begin at 0, which means to ROS that there is none
            undated = recording.source.kind != 'bag' and recording.source.stamps is None
            self.offset = STAMP_OFFSET if undated else 0
        self.image = Image()
        self.log = log
        self.problems = 0
        self._next_clock = 0.0

    def run(self) -> int:
        """Play until the end, or for ever; return the exit code."""
        if not self._wait_for_subscribers():
            return 2
        count = 0
        while rclpy.ok():
            self.pacer.restart()
            first: int | None = None
            for item in self.recording.play(self._lose):
                if item.topic not in self.publishers:
                    continue
                first = item.stamp_ns if first is None else first
                if self.options.seconds and item.stamp_ns - first >= self.options.seconds * 1e9:
                    break
                stamp = item.stamp_ns + (self.offset if isinstance(item.content, Frame) else 0)
                if not self._wait_until(stamp):
                    return 0
                self._publish(item, stamp)
                count += 1
            if not self.options.loop:
                break
            if not count:
                break
        # what was sent last must not die with this process
        time.sleep(SETTLE_S)
        self._say(f'{count} messages played')
        if self.problems:
            print(f'bag_player: {self.problems} problems, see above', file=sys.stderr)
        return 1 if self.problems else 0

    def close(self) -> None:
        """Take the publishers down."""
        self.node.destroy_node()

    def _qos(self, topic: str, kind: str) -> QoSProfile:
        # images as a camera publishes them, all else as the node does
        reliable = self.options.reliable or self.options.lockstep or kind not in IMAGE_TYPES
        reliable = reliable or '/nightseg/' in topic
        latched = topic in self.recording.latched
        return QoSProfile(
            depth=5,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )

    def _wait_for_subscribers(self) -> bool:
        wanted = self.options.wait_subscribers or int(self.lockstep is not None)
        if not wanted:
            return True
        end = time.monotonic() + self.options.patience
        while rclpy.ok():
            counts = {t: p.get_subscription_count() for t, p in self.publishers.items()}
            heard = self.lockstep is None or self.lockstep.ready()
            if heard and all(count >= wanted for count in counts.values()):
                time.sleep(SETTLE_S)
                return True
            if time.monotonic() > end:
                silent = '' if heard else f'; nobody publishes {sorted(self._answers())}'
                print(
                    f'bag_player: after {self.options.patience:g} s the subscribers are '
                    f'{counts}, {wanted} are wanted{silent}; is the other side up, in the same '
                    'ROS_DOMAIN_ID, and are the topics right?',
                    file=sys.stderr,
                )
                return False
            time.sleep(0.05)
        return False

    def _answers(self) -> list[str]:
        return list(self.lockstep.labels.values()) if self.lockstep is not None else []

    def _wait_until(self, stamp_ns: int) -> bool:
        """Sleep until a stamp is due, keeping the clock going; False where ROS shut down."""
        due_ns = self.pacer.due_ns(stamp_ns, time.monotonic_ns())
        while rclpy.ok():
            now = time.monotonic_ns()
            if self.clock is not None and (now / 1e9 >= self._next_clock or not self.paced):
                self._next_clock = now / 1e9 + CLOCK_PERIOD
                played = self.pacer.recorded_ns(min(now, due_ns)) if self.paced else stamp_ns
                self.clock.publish(Clock(clock=_time(played)))
            left = (due_ns - now) / 1e9
            if left <= 0 or not self.paced:
                return True
            time.sleep(min(left, CLOCK_PERIOD / 2) if self.clock is not None else min(left, 0.1))
        return False

    def _publish(self, item: Outgoing, stamp_ns: int) -> None:
        content = item.content
        message: Any = self._message(content, stamp_ns) if isinstance(content, Frame) else content
        publisher = self.publishers[item.topic]
        sent = time.monotonic_ns()
        if self.lockstep is None:
            publisher.publish(message)
        else:
            carried = header_stamp(content) if isinstance(content, bytes) else stamp_ns
            if not self.lockstep.wait(item.topic, carried, lambda: publisher.publish(message)):
                if not rclpy.ok():
                    return
                self._lose(
                    f'no labels came on {self.lockstep.labels[item.topic]} for the stamp '
                    f'{carried} within {self.options.patience:g} s'
                )
        if item.type in IMAGE_TYPES:
            self.log.add(stamp=stamp_ns, sent=sent)

    def _message(self, frame: Frame, stamp_ns: int) -> Any:
        """Fill the one message that is used again: new ones cost more than their content."""
        message = self.image
        height, width = frame.image.shape[:2]
        pixels = np.ascontiguousarray(frame.image)
        if len(message.data) != pixels.size:
            message.data = array.array('B', bytes(pixels.size))
        np.frombuffer(message.data, np.uint8)[:] = pixels.reshape(-1)
        message.height, message.width, message.step = height, width, 3 * width
        message.encoding = f'{frame.order}8'
        message.header.stamp = _time(stamp_ns)
        message.header.frame_id = frame.frame_id or 'camera'
        return message

    def _lose(self, text: str) -> None:
        self.problems += 1
        self.node.get_logger().warning(text)

    def _say(self, text: str) -> None:
        self.node.get_logger().info(text)


def _message_type(kind: str) -> Any | None:
    """Return the class of ``package/msg/Name``, None where the package is not installed."""
    package, _, name = kind.partition('/msg/')
    try:
        return getattr(importlib.import_module(f'{package}.msg'), name)
    except (ImportError, AttributeError):
        return None


def _time(stamp_ns: int) -> Any:
    seconds, nanoseconds = divmod(max(stamp_ns, 0), 1_000_000_000)
    return Time(sec=seconds, nanosec=nanoseconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='bag_player', description=__doc__)
    add = parser.add_argument
    add('bag', help='bag, video, or folder of images')
    add('--rate', type=float, help='times the recorded speed; 1, in lockstep without any pace')
    add('--fps', type=float, help='frames a second of a folder, or of a video instead of its own')
    add('--stamps', help='file of the stamps of a folder or video')
    add('--seconds', type=float, default=0.0, help='play only this much of it; 0 plays all')
    add('--loop', action='store_true', help='start again at the end; stamps jump back')
    add('--clock', action='store_true', help='publish the time of the recording on /clock')
    add('--lockstep', action='store_true', help='send an image after the labels of the last one')
    add('--labels', help='topic of the labels, with --lockstep')
    add('--topic', nargs='+', help="image topics of the bag; without it all cameras' topics")
    add('--all', action='store_true', help='play every topic of the bag')
    add('--also', nargs='+', default=[], help='topics of any type to play beside the images')
    add('--remap-to', help='publish the one topic under this name')
    add('--reliable', action='store_true', help='publish images reliably, not best effort')
    add('--wait-subscribers', type=int, default=0, metavar='N', help='wait for N before starting')
    add('--patience', '--wait-seconds', type=float, default=60.0,
        help='give up waiting for subscribers, or for labels, after this long')  # fmt: skip
    add('--stamp-offset', type=int, metavar='NS',
        help='added to the stamps of a video or folder; 10^18 where they begin at 0')  # fmt: skip
    add('--log', help='write the steady time at which each stamp was sent, as JSON lines')
    return parser


if __name__ == '__main__':
    sys.exit(main())
