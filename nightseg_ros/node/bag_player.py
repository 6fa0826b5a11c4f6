# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Play a recording's images into ROS 2 topics at their own pace, for those without ``ros2 bag``.

Messages of a ROS 2 bag are published as they were recorded, byte for byte; frames of a video, a
folder or a ROS 1 bag become sensor_msgs/Image.
"""

from __future__ import annotations

import argparse
import array
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from rclpy.executors import ExternalShutdownException
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from nightseg_ros.bags.errors import BagError
from nightseg_ros.dds import profile_environment
from nightseg_ros.node.pacing import Pacer
from nightseg_ros.node.recording import Outgoing, Recording, open_recording
from nightseg_ros.node.stamp_log import StampLog
from nightseg_ros.perception.frame import Frame

TYPES = {'sensor_msgs/msg/Image': Image, 'sensor_msgs/msg/CompressedImage': CompressedImage}
#: Seconds between two messages on /clock: what ``ros2 bag play --clock`` sends by default.
CLOCK_PERIOD = 1 / 40
#: A subscription that has been matched may need this long until it gets everything.
SETTLE_S = 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the player and return its exit code."""
    given = remove_ros_args(sys.argv if arguments is None else ['bag_player', *arguments])[1:]
    options = _parser().parse_args(given)
    try:
        recording = open_recording(Path(options.bag).expanduser(), options.topic, options.fps)
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
            return 1
        except Exception:
            # publishing fails with many names once somebody has shut ROS down
            if rclpy.ok():
                raise
            return 0
        finally:
            player.close()
            rclpy.try_shutdown()


class Player:
    """Publishes a recording's messages when they are due."""

    def __init__(self, recording: Recording, options: argparse.Namespace, log: StampLog) -> None:
        """Create the publishers."""
        self.options = options
        self.recording = recording
        self.node: Any = rclpy.create_node('bag_player')
        reliability = (
            ReliabilityPolicy.RELIABLE if options.reliable else ReliabilityPolicy.BEST_EFFORT
        )
        qos = QoSProfile(depth=5, reliability=reliability)
        self.publishers: dict[str, Any] = {
            topic: self.node.create_publisher(TYPES[kind], options.remap_to or topic, qos)
            for topic, kind in recording.topics.items()
        }
        self.clock: Any = None
        if options.clock:
            # a late clock is worse than a lost one
            self.clock = self.node.create_publisher(Clock, '/clock', QoSProfile(depth=1))
        self.pacer = Pacer(options.rate)
        self.image = Image()
        self.log = log
        self._next_clock = 0.0

    def run(self) -> int:
        """Play until the end, or for ever; return the exit code."""
        if not self._wait_for_subscribers():
            return 1
        count = 0
        while rclpy.ok():
            self.pacer.restart()
            first: int | None = None
            for item in self.recording.play(self._say):
                first = item.stamp_ns if first is None else first
                if self.options.seconds and item.stamp_ns - first >= self.options.seconds * 1e9:
                    break
                if not self._wait_until(self.pacer.due_ns(item.stamp_ns, time.monotonic_ns())):
                    return 0
                self._publish(item)
                count += 1
            if not self.options.loop:
                break
            if not count:
                break
        # what was sent last must not die with this process
        time.sleep(SETTLE_S)
        self._say(f'{count} frames played')
        return 0

    def close(self) -> None:
        """Take the publishers down."""
        self.node.destroy_node()

    def _wait_for_subscribers(self) -> bool:
        wanted = self.options.wait_subscribers
        if not wanted:
            return True
        end = time.monotonic() + self.options.wait_seconds
        while rclpy.ok():
            counts = {t: p.get_subscription_count() for t, p in self.publishers.items()}
            if all(count >= wanted for count in counts.values()):
                time.sleep(SETTLE_S)
                return True
            if time.monotonic() > end:
                print(
                    f'bag_player: after {self.options.wait_seconds:g} s the subscribers are '
                    f'{counts}, {wanted} are wanted; is the other side up, in the same '
                    'ROS_DOMAIN_ID, and are the topics right?',
                    file=sys.stderr,
                )
                return False
            time.sleep(0.05)
        return False

    def _wait_until(self, due_ns: int) -> bool:
        """Sleep until then, keeping the clock going; False where ROS shut down."""
        while rclpy.ok():
            now = time.monotonic_ns()
            if self.clock is not None and now / 1e9 >= self._next_clock:
                self._next_clock = now / 1e9 + CLOCK_PERIOD
                self.clock.publish(Clock(clock=_time(self.pacer.recorded_ns(min(now, due_ns)))))
            left = (due_ns - now) / 1e9
            if left <= 0:
                return True
            time.sleep(min(left, CLOCK_PERIOD / 2) if self.clock is not None else min(left, 0.1))
        return False

    def _publish(self, item: Outgoing) -> None:
        stamp_ns = item.stamp_ns
        if isinstance(item.content, Frame):
            stamp_ns += self.options.stamp_offset
            message: Any = self._message(item.content, stamp_ns)
        else:
            message = item.content
        sent = time.monotonic_ns()
        self.publishers[item.topic].publish(message)
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

    def _say(self, text: str) -> None:
        self.node.get_logger().info(text)


def _time(stamp_ns: int) -> Any:
    seconds, nanoseconds = divmod(max(stamp_ns, 0), 1_000_000_000)
    return Time(sec=seconds, nanosec=nanoseconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='bag_player', description=__doc__)
    add = parser.add_argument
    add('bag', help='bag, video, or folder of images')
    add('--rate', type=float, default=1.0, help='times the recorded speed')
    add('--fps', type=float, help='frames a second of a folder, or of a video instead of its own')
    add('--seconds', type=float, default=0.0, help='play only this much of it; 0 plays all')
    add('--loop', action='store_true', help='start again at the end; stamps jump back')
    add('--clock', action='store_true', help='publish the time of the recording on /clock')
    add('--topic', help="image topic of the bag; without it all cameras' topics")
    add('--remap-to', help='publish under this name')
    add('--reliable', action='store_true', help='publish reliably; default is best effort')
    add('--wait-subscribers', type=int, default=0, metavar='N', help='wait for N before starting')
    add('--wait-seconds', type=float, default=60.0, help='give up waiting after this long')
    add('--stamp-offset', type=int, default=0, metavar='NS',
        help='added to the stamps of a video or folder, which start at 0')  # fmt: skip
    add('--log', help='write the steady time at which each stamp was sent, as JSON lines')
    return parser


if __name__ == '__main__':
    sys.exit(main())
