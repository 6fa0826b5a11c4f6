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
import json
import os
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from nightseg_ros.bags.reader import IMAGE_TYPES, BagError, BagReader, is_bag
from nightseg_ros.data.source import STAMP_OFFSET, FrameSource, camera_names, open_source
from nightseg_ros.dds import profile_environment
from nightseg_ros.files import user_path
from nightseg_ros.perception.frame import Frame, FrameError
from nightseg_ros.perception.result import output_prefixes
from nightseg_ros.shared_memory import remove_orphans


@dataclass(frozen=True, kw_only=True, slots=True)
class Outgoing:
    """One message to publish: as it was serialised, or as a frame."""

    stamp_ns: int
    topic: str
    type: str
    content: bytes | Frame


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """Topics of a bag with their types, or a video or folder as one topic."""

    path: Path
    topics: dict[str, str]
    """Type by topic."""
    source: FrameSource | None
    """Where frames come from that are no serialised ROS 2 messages."""
    latched: frozenset[str] = frozenset()
    """Topics that late subscribers are to get as well, as when they were recorded."""

    def play(self, say: Callable[[str], None]) -> Iterator[Outgoing]:
        """Yield the messages in the order of their stamps; ``say`` hears what is skipped."""
        if self.source is None:
            yield from self._serialised(say)
            return
        names = {camera: topic for topic, camera in camera_names(self.source.topics).items()}
        [*_, only] = self.topics
        for stem, frame in self.source:
            if isinstance(frame, FrameError):
                say(f'{stem} skipped: {frame}')
                continue
            yield Outgoing(
                stamp_ns=frame.stamp_ns, topic=names.get(frame.camera, only),
                type=IMAGE_TYPES[0], content=frame,
            )  # fmt: skip

    def _serialised(self, say: Callable[[str], None]) -> Iterator[Outgoing]:
        with BagReader(self.path) as bag:
            topics = [topic for topic in bag.topics if topic.name in self.topics]
            for topic, message in bag.merged(topics):
                yield Outgoing(
                    stamp_ns=message.stamp_ns, topic=topic.name, type=message.channel.type,
                    content=message.data,
                )  # fmt: skip
            loss = bag.loss(topics)
            if loss is not None:
                say(str(loss))


def open_recording(
    path: Path,
    topics: str | Sequence[str] | None = None,
    rate: float | None = None,
    *,
    stamps: Path | None = None,
    everything: bool = False,
    also: Collection[str] = (),
) -> Recording:
    """
    Open a bag, video or folder for a player.

    Without ``topics`` all of a bag's camera topics are played, without those of predictions and
    labels; with ``everything`` each topic of a ROS 2 bag. ``also`` are topics of any type beside
    them. A video or folder becomes
    ``camera/image_raw``, ``rate`` being its frames a second and ``stamps`` a file of them.
    """
    wanted = [topics] if isinstance(topics, str) else list(topics or ())
    if not path.exists() or not is_bag(path):
        source = open_source(path, wanted[0] if wanted else None, rate=rate, stamps=stamps)
        return Recording(path=path, topics={'camera/image_raw': IMAGE_TYPES[0]}, source=source)
    with BagReader(path) as bag:
        if everything:
            chosen = [topic for topic in bag.topics if '/msg/' in topic.type]
        elif wanted:
            chosen = [bag.image_topic(name) for name in wanted]
        else:
            chosen = bag.camera_topics or [bag.image_topic(None)]
        chosen += [topic for topic in bag.topics if topic.name in also and topic not in chosen]
        if bag.is_ros2:
            names = {topic.name: topic.type for topic in chosen}
            latched = bag.latched_topics & names.keys()
            return Recording(path=path, topics=names, source=None, latched=frozenset(latched))
    source = open_source(path, wanted[0] if len(wanted) == 1 else None, every_camera=not wanted)
    return Recording(path=path, topics=dict.fromkeys(source.topics, IMAGE_TYPES[0]), source=source)


class Pacer:
    """
    Maps the stamps of a recording to a steady clock, ``rate`` times as fast.

    The first stamp is due at once. A stamp before the first one is due at once as well.
    """

    def __init__(self, rate: float) -> None:
        """Play at ``rate`` times the recorded speed."""
        if not 0 < rate < 1e6:
            raise ValueError(f'rate must be above 0, got {rate}')
        self.rate = rate
        self._first_ns: int | None = None
        self._started_ns = 0

    def due_ns(self, stamp_ns: int, now_ns: int) -> int:
        """Return the steady time (ns) at which ``stamp_ns`` is due; the first call starts it."""
        if self._first_ns is None:
            self._first_ns, self._started_ns = stamp_ns, now_ns
        return self._started_ns + round((stamp_ns - self._first_ns) / self.rate)

    def recorded_ns(self, now_ns: int) -> int:
        """Return the time of the recording (ns) at the steady time ``now_ns``."""
        if self._first_ns is None:
            raise ValueError('nothing is playing yet')
        return self._first_ns + round((now_ns - self._started_ns) * self.rate)

    def restart(self) -> None:
        """Let the next stamp start anew, for a recording that loops."""
        self._first_ns = None


#: Seconds after which an image is sent again: it may have been sent while its reader was about to
#: subscribe anew. A reader that has it already drops the repeated stamp.
RESEND_S = 2.0


class Lockstep:
    """Listens to the labels of some image topics and tells when those of a stamp have come."""

    def __init__(self, node: Any, labels: Mapping[str, str], patience: float) -> None:
        """``labels`` is the topic of the labels by image topic, ``patience`` is in seconds."""
        self.patience = patience
        self.labels = dict(labels)
        self._node = node
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        self._seen: dict[str, int] = {}
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        for topic, answer in self.labels.items():
            node.create_subscription(Image, answer, self._keeper(topic), qos, raw=True)

    def ready(self) -> bool:
        """Tell whether somebody publishes every topic of labels."""
        return all(self._node.count_publishers(answer) for answer in self.labels.values())

    def wait(self, topic: str, stamp_ns: int, send: Callable[[], None]) -> bool:
        """
        Send an image and return whether its labels came in time.

        Labels of a stamp of 0 cannot be told apart, and such an image is sent once.
        """
        self._seen.pop(topic, None)
        send()
        now = time.monotonic()
        end, again = now + self.patience, now + RESEND_S
        while self._seen.get(topic) != stamp_ns:
            if not self._node.context.ok() or now > end:
                return False
            if now > again and stamp_ns:
                send()
                again = now + RESEND_S
            self._executor.spin_once(timeout_sec=0.1)
            now = time.monotonic()
        return True

    def _keeper(self, topic: str) -> Callable[[bytes], None]:
        def keep(data: bytes) -> None:
            self._seen[topic] = header_stamp(data)

        return keep


def header_stamp(data: bytes) -> int:
    """Return the header's stamp in ns of a serialised (CDR) stamped message."""
    seconds, nanoseconds = struct.unpack_from('<iI' if data[1] else '>iI', data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


class StampLog:
    """Writes one line an event, at once, so that a killed process leaves what it knew."""

    def __init__(self, path: str | None) -> None:
        """Write to ``path``; without one nothing is written."""
        self._file = None
        if path:
            self._file = open(path, 'w', encoding='utf-8', buffering=1)  # noqa: SIM115

    def add(self, **event: int | str) -> None:
        """Write an event."""
        if self._file is not None:
            self._file.write(json.dumps(event) + '\n')

    def __enter__(self) -> StampLog:
        """Use it in a ``with`` block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


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
            user_path(options.bag), options.topic, options.fps,
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
    remove_orphans()
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
