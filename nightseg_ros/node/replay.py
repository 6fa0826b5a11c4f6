# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Play a recording's images into ROS 2 topics at their own pace, for those without ``ros2 bag``.

Messages of a ROS 2 bag are published as they were recorded, byte for byte; frames of a video, a
folder, a ROS 1 bag or a video topic whose type is not installed become sensor_msgs/Image. The pace
of a bag is the time of its recording, not that of the stamps, which may be of several clocks, or
of one that was set on the way. It exits with 0 at the end or where it is interrupted, 1 where
something was lost on the way, and 2 where it could not play.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from functools import partial
import json
import math
import os
from pathlib import Path
import sys
import time
from typing import Any, TextIO

from nightseg_ros.bags.reader import (
    BagError,
    BagReader,
    IMAGE_TYPES,
    is_bag,
    is_video,
)
from nightseg_ros.bags.storage import Message, VIDEO_TYPES
from nightseg_ros.cli.bags import ReplayOptions
from nightseg_ros.config import ConfigError, did_you_mean
from nightseg_ros.data.source import FrameSource, open_source
from nightseg_ros.dds import profile_environment
from nightseg_ros.files import use_log_folder, user_path
from nightseg_ros.node.messages import (
    header_stamp,
    ImageMessage,
    message_class,
    stamped_header,
)
from nightseg_ros.outputs import check_output
from nightseg_ros.perception.frame import Frame, FrameError
from nightseg_ros.perception.result import base_topic, is_output, output_prefixes
from nightseg_ros.perception.video import PacketDecoder, SET_BACK_NS, VideoError
from nightseg_ros.shared_memory import remove_orphans
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
import tyro

#: Seconds after which an image is sent again: it may have been sent while its reader was about to
#: subscribe anew. A reader that has it already drops the repeated stamp.
RESEND_S = 2.0
#: Seconds between two messages on /clock: what ``ros2 bag play --clock`` sends by default.
CLOCK_PERIOD = 1 / 40
#: Times of recording further apart than this (ns) are a pause, or a clock that was set.
GAP_NS = 10_000_000_000
#: How long such a gap is played (ns).
SHORT_GAP_NS = 1_000_000_000
#: A subscription that has been matched may need this long until it gets everything.
SETTLE_S = 0.5


def main() -> int:
    """Run the executable ``bag_player`` and return its exit code."""
    given = remove_ros_args(sys.argv)[1:]
    try:
        return run(tyro.cli(ReplayOptions, prog='bag_player', args=given), sys.argv)
    except (ValueError, OSError) as error:
        print(f'bag_player: {error}', file=sys.stderr)
        return 2


def run(options: ReplayOptions, arguments: Sequence[str] = ('bag_player',)) -> int:
    """Play, with ``arguments`` for ROS; return the exit code."""
    if options.rate is not None and not 0 < options.rate < 1e6:
        raise ConfigError(f'--rate must be above 0, got {options.rate}')
    if options.log is not None:
        inputs = [path for path in (options.source, options.stamps) if path is not None]
        check_output(options.log, 'a log', lambda path: not path.is_dir(), inputs=inputs)
    source = ReplaySource(
        options.source, options.topic, rate=options.fps, stamps=options.stamps,
        everything=options.everything, also=options.also,
    )  # fmt: skip
    if source.live and options.rate not in (None, 1.0):
        raise ConfigError('--rate has no effect on what is live')
    if len(source.topics) > 1 and (options.remap_to or options.labels):
        raise ConfigError(
            f'--remap-to and --labels are for one topic, not for {list(source.topics)}; '
            'name one with --topic'
        )
    # read by Fast DDS when the first node starts, in this process, which publishes the images
    os.environ.update(profile_environment())
    remove_orphans()
    use_log_folder()
    rclpy.init(args=list(arguments))
    node = rclpy.create_node('bag_player')
    player: Player | None = None
    try:
        # by lines, so that a killed process leaves what it knew
        with open(options.log or os.devnull, 'w', encoding='utf-8', buffering=1) as log:
            player = Player(node, source, options, log)
            if not player.play():
                return 2
    except (KeyboardInterrupt, Exception) as error:
        # publishing fails with many names once somebody has shut ROS down
        if rclpy.ok() and isinstance(error, Exception):
            raise
        print('bag_player: interrupted', file=sys.stderr)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    problems = player.problems if player is not None else 0
    if problems:
        print(f'bag_player: {problems} problems, see above', file=sys.stderr)
    return 1 if problems else 0


def check_running() -> None:
    """Raise ``ExternalShutdownException`` where SIGINT or SIGTERM, or somebody, ended ROS."""
    if not rclpy.ok():
        raise ExternalShutdownException


class ReplaySource:
    """Topics of a bag with their types, or a video or folder as the topic camera/image_raw."""

    def __init__(
        self, source: str | Path, topics: Sequence[str] = (), *, rate: float | None = None,
        stamps: Path | None = None, everything: bool = False, also: Collection[str] = (),
    ) -> None:  # fmt: skip
        """
        Look at the path; errors are those of ``open_source`` and ``BagReader``.

        Without ``topics`` all of a bag's camera topics are played, without those of predictions
        and labels; with ``everything`` each topic of a ROS 2 bag. ``also`` are topics of any type
        beside them. ``rate`` are the frames a second of a video or folder, ``stamps`` is a file of
        them.
        """
        self.path = path = user_path(source)
        self.frames: FrameSource | None = None
        """The frames of a video or a folder."""
        self.live = False
        self.note = ''
        """Which topics of a bag are not played."""
        self.latched: dict[str, int] = {}
        """Messages of the topics that late subscribers get as well, as when they were recorded."""
        self.beside: frozenset[str] = frozenset()
        """What ``also`` named."""
        self._decoders: dict[str, PacketDecoder] = {}
        self._read: Callable[[Message], Any]
        if not path.exists() or not is_bag(path):
            if also:
                raise ConfigError(f"'{path}' is no bag, so it has no topic '{next(iter(also))}'")
            self.frames = open_source(source, next(iter(topics), None), rate=rate, stamps=stamps)
            self.live = self.frames.live
            self.topics = {'camera/image_raw': IMAGE_TYPES[0]}
            return
        with BagReader(path) as bag:
            if everything and bag.is_ros2:
                chosen = [topic for topic in bag.topics if '/msg/' in topic.msgtype]
                self.note = ', '.join(str(topic) for topic in bag.topics if topic not in chosen)
            elif topics:
                chosen = [bag.image_topic(name) for name in topics]
            else:
                chosen = bag.camera_topics or [bag.camera_topic()]
                self.note = bag.others_text()
            named = {topic.name.strip('/'): topic for topic in bag.topics}
            for name in also:
                if name.strip('/') not in named:
                    near = did_you_mean(name, [topic.name for topic in bag.topics])
                    raise BagError(f"bag '{path}' has no topic '{name}'{near}")
            more = [topic for topic in (named[n.strip('/')] for n in also) if topic not in chosen]
            chosen += more
            own = 'cdr' if bag.is_ros2 else 'ros1'
            foreign = [topic for topic in chosen if topic.encoding != own]
            self.note = ', '.join(filter(None, [self.note, *map(str, foreign)]))
            chosen = [topic for topic in chosen if topic not in foreign]
            if not chosen:
                raise BagError(f"bag '{path}' holds nothing that can be played: {self.note}")
            if not bag.is_ros2:
                others = [topic for topic in chosen if topic.msgtype not in IMAGE_TYPES]
                self.note = ', '.join(filter(None, [self.note, *map(str, others)]))
                chosen = [topic for topic in chosen if topic not in others]
            names = {topic.name for topic in chosen}
            # by the names of the topics, as those of what is decoded
            self._decoded = {
                topic.name: base if (base := base_topic(topic.name)) not in names else topic.name
                for topic in chosen
                if not bag.is_ros2
                or (topic.msgtype in VIDEO_TYPES and message_class(topic.msgtype) is None)
            }
            self.beside = frozenset(self._decoded.get(topic.name, topic.name) for topic in more)
            self._plain = names - self._decoded.keys()
            self.topics = {t.name: t.msgtype for t in chosen if t.name in self._plain}
            self.topics |= dict.fromkeys(self._decoded.values(), IMAGE_TYPES[0])
            latched = bag.latched_topics & self._plain
            self.latched = {topic.name: topic.count for topic in chosen if topic.name in latched}

    def messages(self, log: Callable[[str], None]) -> Iterator[tuple[int, str, Message | Frame]]:
        """
        Yield time of recording, topic and content in that order; ``log`` is told what is skipped.

        Frames of a video or a folder have no time but their stamp.
        """
        if self.frames is not None:
            [only] = self.topics
            for stem, frame in self.frames:
                if isinstance(frame, FrameError):
                    log(f'{stem} skipped: {frame}')
                else:
                    yield frame.stamp_ns, only, frame
            return
        with BagReader(self.path) as bag:
            self._decoders, self._read = {}, bag.read
            plain = [topic for topic in bag.topics if topic.name in self._plain]
            decoded = [topic for topic in bag.topics if topic.name in self._decoded]
            for topic, message, content in bag.merged_contents(decoded, plain=plain):
                if isinstance(content, FrameError):
                    log(f'{topic.name}, stamp {message.stamp_ns} skipped: {content}')
                else:
                    name = self._decoded.get(topic.name, topic.name)
                    yield message.received_ns, name, content
            unread = bag.read_error([*plain, *decoded])
            if unread is not None:
                log(str(unread))

    def picture_stamp(self, message: Message) -> int | None:
        """Return the stamp of the picture that a message brings, None for a packet without one."""
        if message.channel.msgtype == IMAGE_TYPES[0]:
            return header_stamp(message.data)
        try:
            content = self._read(message)
        except BagError:
            # it is published all the same, and no labels will come
            return header_stamp(message.data)
        if not is_video(message, content):
            return header_stamp(message.data)
        decoder = self._decoders.setdefault(message.channel.topic, PacketDecoder(''))
        with suppress(VideoError):
            if (frame := decoder.decode(content)) is not None:
                return frame.stamp_ns
        return None


class Pacer:
    """
    Maps the time of a recording to a steady clock, ``rate`` times as fast; both in ns.

    The first message is due at once. Time that goes back, or ahead by more than ``longest_ns``, is
    a clock that was set or a pause: what follows comes ``SHORT_GAP_NS`` later.
    """

    def __init__(self, rate: float, longest_ns: int = GAP_NS) -> None:
        """Wait for the first message."""
        self.rate, self.longest_ns = rate, longest_ns
        self.gap_ns = 0
        """What was cut before the last message, 0 for nothing."""
        self.elapsed_ns = 0
        """Time of the recording up to the last message, without what was cut."""
        self._first: tuple[int, int] | None = None
        self._last_ns = 0

    def due(self, time_ns: int, now_ns: int) -> int:
        """Return the steady time at which the message recorded at ``time_ns`` is due."""
        if self._first is None:
            self._first, self._last_ns = (time_ns, now_ns), time_ns
        step, self._last_ns = time_ns - self._last_ns, time_ns
        begin, started = self._first
        self.gap_ns = 0 if -SET_BACK_NS <= step <= self.longest_ns else step
        if self.gap_ns:
            begin += step - SHORT_GAP_NS
            self._first = begin, started
        self.elapsed_ns = time_ns - begin
        return started + round(self.elapsed_ns / self.rate)

    def played(self, now_ns: int) -> int:
        """Return the time of the recording at a steady time."""
        assert self._first is not None
        begin, started = self._first
        return begin + round((now_ns - started) * self.rate)


class Player:
    """Publishes a recording's messages when they are due, or in lockstep with their labels."""

    def __init__(
        self, node: Any, source: ReplaySource, options: ReplayOptions, log: TextIO
    ) -> None:
        """Create the publishers; ``log`` gets the steady time at which each stamp was sent."""
        self.node, self.source, self.options, self._log = node, source, options, log
        self.publishers: dict[str, Any] = {}
        for topic, kind in source.topics.items():
            message_type = message_class(kind)
            if message_type is None:
                node.get_logger().info(f'{topic} is not played: {kind} is not installed here')
                continue
            self.publishers[topic] = node.create_publisher(
                message_type, options.remap_to or topic, self._qos(topic, kind)
            )
        # a late clock is worse than a lost one
        self._clock = options.clock and node.create_publisher(Clock, '/clock', QoSProfile(depth=1))
        self._next_clock = 0.0
        #: In lockstep, the topic of the labels of each image topic, and their latest stamps.
        self._labels: dict[str, str] = {}
        self._labelled: dict[str, int] = {}
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        if options.lockstep:
            images = [topic for topic in source.topics if topic not in source.beside]
            names = [options.remap_to or topic for topic in images]
            labels = [options.labels or f'{prefix}/labels' for prefix in output_prefixes(names)]
            self._labels = dict(zip(images, labels))
            qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
            for topic, answer in self._labels.items():
                node.create_subscription(Image, answer, partial(self._keep, topic), qos, raw=True)
        #: Without a pace an image follows the labels of the one before it at once.
        self._paced = options.rate is not None or not options.lockstep
        if source.live:
            # it has a pace of its own, and what came while FFmpeg probed it is old already
            self._paced = False
        self._offset = 0 if source.frames is None else source.frames.ros_offset_ns
        self._longest_ns = max(GAP_NS, round(2e9 / options.fps) if options.fps else 0)
        self._images = {order: ImageMessage(f'{order}8') for order in ('rgb', 'bgr')}
        self.problems = 0
        """What could not be read, or got no labels."""
        if source.note:
            node.get_logger().info(f'not played: {source.note}')

    def _qos(self, topic: str, kind: str) -> QoSProfile:
        # images as a camera publishes them, all else as the node does
        reliable = self.options.reliable or self.options.lockstep or kind not in IMAGE_TYPES
        reliable = reliable or is_output(topic)
        latched = topic in self.source.latched
        return QoSProfile(
            # as many as there were publishers, each of whom kept its own
            depth=max(5, min(self.source.latched.get(topic, 0), 1000)),
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )

    def play(self) -> bool:
        """Play until the end, or for ever; False where nobody listened."""
        if not self._wait_for_subscribers():
            return False
        count, left_ns, again = 0, self.options.seconds * 1e9 or math.inf, True
        while again and rclpy.ok():
            pacer = Pacer(self.options.rate or 1.0, self._longest_ns)
            begun_ns = time.monotonic_ns()
            for recorded, topic, content in self.source.messages(self._lose):
                if topic not in self.publishers:
                    continue
                time_ns = recorded + self._offset
                due_ns = pacer.due(time_ns, time.monotonic_ns())
                if pacer.elapsed_ns >= left_ns:
                    break
                if pacer.gap_ns and self._paced:
                    self.node.get_logger().warning(
                        f'the recording jumps by {pacer.gap_ns / 1e9:.1f} s before message '
                        f'{count}; played as {SHORT_GAP_NS / 1e9:g} s'
                    )
                self._wait_until(time_ns, due_ns, pacer)
                self._publish(topic, content)
                count += 1
            # one message alone has no length
            left_ns -= pacer.elapsed_ns or time.monotonic_ns() - begun_ns
            again = self.options.loop and count > 0 and left_ns > 0
        # what was sent last must not die with this process
        time.sleep(SETTLE_S)
        self.node.get_logger().info(f'{count} messages played')
        return True

    def _wait_for_subscribers(self) -> bool:
        wanted = self.options.wait_subscribers or int(self.options.lockstep)
        end = time.monotonic() + self.options.patience
        while wanted:
            check_running()
            counts = {
                topic: publisher.get_subscription_count()
                for topic, publisher in self.publishers.items()
                if not self._labels or topic in self._labels
            }
            heard = all(map(self.node.count_publishers, self._labels.values()))
            if heard and all(count >= wanted for count in counts.values()):
                time.sleep(SETTLE_S)
                return True
            if time.monotonic() > end:
                silent = '' if heard else f'; nobody publishes {sorted(self._labels.values())}'
                print(
                    f'bag_player: after {self.options.patience:g} s the subscribers are '
                    f'{counts}, {wanted} are wanted{silent}; is the other side up, in the same '
                    'ROS_DOMAIN_ID, and are the topics right?',
                    file=sys.stderr,
                )
                return False
            time.sleep(0.05)
        return True

    def _wait_until(self, time_ns: int, due_ns: int, pacer: Pacer) -> None:
        """Sleep until a message is due, keeping the clock going."""
        while True:
            check_running()
            now = time.monotonic_ns()
            if self._clock and (now / 1e9 >= self._next_clock or not self._paced):
                self._next_clock = now / 1e9 + CLOCK_PERIOD
                played = pacer.played(min(now, due_ns)) if self._paced else time_ns
                self._clock.publish(Clock(clock=stamped_header('', max(played, 0)).stamp))
            left = (due_ns - now) / 1e9
            if left <= 0 or not self._paced:
                return
            time.sleep(min(left, CLOCK_PERIOD / 2 if self._clock else 0.1))

    def _publish(self, topic: str, content: Message | Frame) -> None:
        stamp_ns = content.stamp_ns + self._offset
        if isinstance(content, Frame):
            header = stamped_header(content.frame_id or 'camera', max(stamp_ns, 0))
            message = self._images[content.order].fill(header, content.image)
        else:
            message = content.data
        send = partial(self.publishers[topic].publish, message)
        due: int | None = None
        if topic in self._labels:
            due = (
                max(stamp_ns, 0) if isinstance(content, Frame)
                else self.source.picture_stamp(content)
            )  # fmt: skip
        sent = time.monotonic_ns()
        send()
        if due is not None and not self._wait_for_labels(topic, due, send):
            self._lose(
                f'no labels came on {self._labels[topic]} for the stamp '
                f'{due} within {self.options.patience:g} s'
            )
        if self.source.topics[topic] in IMAGE_TYPES:
            print(json.dumps({'stamp': stamp_ns, 'sent': sent}), file=self._log)

    def _wait_for_labels(self, topic: str, stamp_ns: int, send: Callable[[], None]) -> bool:
        """
        Return whether the labels of an image that was sent came in time.

        Labels of a stamp of 0 cannot be told apart, and such an image is sent once.
        """
        now = time.monotonic()
        end, again = now + self.options.patience, now + RESEND_S
        while self._labelled.pop(topic, None) != stamp_ns:
            check_running()
            if now > end:
                return False
            if now > again and stamp_ns:
                send()
                again = now + RESEND_S
            self._executor.spin_once(timeout_sec=0.1)
            now = time.monotonic()
        return True

    def _keep(self, topic: str, data: bytes) -> None:
        self._labelled[topic] = header_stamp(data)

    def _lose(self, text: str) -> None:
        self.problems += 1
        # as whoever started this process reads it
        print(f'lost: {text}', file=sys.stderr, flush=True)


if __name__ == '__main__':
    sys.exit(main())
