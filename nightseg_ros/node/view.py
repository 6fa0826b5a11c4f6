# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What the page of ``nightseg view`` shows: pictures, light, route and health of every camera.

A picture is subscribed to, and encoded, only while somebody looks at it.
"""

from __future__ import annotations

from collections import Counter, deque
import json
import math
import os
from pathlib import Path
import re
import sys
import threading
import time
from typing import Any

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from nightseg_ros.cli.options import hear_signals
from nightseg_ros.cli.run import ViewOptions
from nightseg_ros.files import replace_file, use_log_folder
from nightseg_ros.node.messages import decode
from nightseg_ros.node.subscription import Subscription
from nightseg_ros.node.view_rerun import RerunLog
from nightseg_ros.node.view_server import PageServer
from nightseg_ros.outputs import check_output
from nightseg_ros.perception.frame import BitDepth, FrameError
from nightseg_ros.perception.result import NAMESPACE
from nightseg_ros.shared_memory import remove_orphans
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

#: Seconds between two looks at the graph.
LOOK_S = 0.5
#: Seconds after the last question for a picture in which its topic stays subscribed to.
WATCHED_S = 3.0
#: Seconds of the plotted score that a new page gets, and between two points of it.
HISTORY_S, POINT_S = 120.0, 0.1
#: Frames whose latencies are kept: half an hour of 30 Hz, or the memory would grow for ever.
MOST_LATENCIES = 54_000
#: Long side of a picture in pixels, and its quality as JPEG.
LONG_SIDE, QUALITY = 960, 80
#: Values of a camera in /diagnostics that the page shows.
SHOWN = ('input_hz', 'output_hz', 'latency_ms.p50', 'latency_ms.p95', 'received', 'served')
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


def run(options: ViewOptions) -> int:
    """Serve the page until a signal; return the exit code."""
    if options.summary is not None:
        # rather now than when the session is over
        check_output(options.summary, 'a summary', Path.is_file)
        options.summary.parent.mkdir(parents=True, exist_ok=True)
    try:
        server = PageServer(options.host, options.port)
    except OSError as error:
        where = options.host if options.port is None else f'{options.host}:{options.port}'
        print(f'view: cannot listen on {where}: {error}', file=sys.stderr)
        return 2
    remove_orphans()
    use_log_folder()
    rclpy.init(args=['view'], signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    hear_signals(lambda *_: stop.set())
    viewer = server.viewer = Viewer(labels=options.summary is not None, rerun=options.rerun)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f'view: {server.url}', flush=True)
    try:
        viewer.spin(stop)
        if options.summary is not None:
            text = json.dumps(viewer.summary(), indent=2) + '\n'
            replace_file(options.summary, text.encode('utf-8'))
    finally:
        server.shutdown()
        server.server_close()
        rclpy.try_shutdown()
    return 0


class Viewer:
    """Follows the cameras of the graph; ``snapshot`` is called by the threads of the pages."""

    def __init__(self, *, labels: bool, rerun: Path | None) -> None:
        """
        With ``labels`` masks are subscribed to, so that the node computes them.

        ``rerun`` is a recording to write.
        """
        self.changed = threading.Condition()
        self.cameras: dict[str, LiveCamera] = {}
        self._nodes: dict[str, tuple[float, Any]] = {}
        self._labels = labels
        self._node: Any = rclpy.create_node('nightseg_view')
        self._node.subscribed = set()
        self._node.create_subscription(
            DiagnosticArray, '/diagnostics', self._diagnose, QoSProfile(depth=10)
        )
        self._rerun = None if rerun is None else RerunLog(rerun, self._node, encode)

    def spin(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set."""
        executor = SingleThreadedExecutor()
        executor.add_node(self._node)
        look = -math.inf
        while rclpy.ok() and not stop.is_set():
            try:
                executor.spin_once(timeout_sec=0.1)
                if (now := time.monotonic()) >= look:
                    look = now + LOOK_S
                    self._look(now)
            except Exception as error:
                # what somebody else publishes must not end the view
                text = f'a message cannot be shown: {type(error).__name__}: {error}'
                self._node.get_logger().warning(text, throttle_duration_sec=10.0)
        executor.shutdown()
        if self._rerun is not None:
            self._rerun.close()
        self._node.destroy_node()

    def summary(self) -> dict[str, Any]:
        """Return what became of each camera's frames."""
        return {camera.name: camera.summary() for camera in self.cameras.values()}

    def snapshot(self, since: float) -> dict[str, Any]:
        """Return all values as JSON types, and the points of the plot after ``since``."""
        now = time.monotonic()
        with self.changed:
            cameras = [camera.snapshot(now, since) for camera in self.cameras.values()]
            nodes = [
                {'name': name, 'values': values_of(status), **told(when, status, now)}
                for name, (when, status) in self._nodes.items()
            ]
        return {'time': now, 'cameras': cameras, 'nodes': nodes,
                'domain': os.environ.get('ROS_DOMAIN_ID') or '0'}  # fmt: skip

    def _look(self, now: float) -> None:
        """Follow new cameras, subscribe to the pictures that are looked at and no others."""
        for subscription in tuple(self._node.subscribed):
            subscription.match()
        topics = dict(self._node.get_topic_names_and_types())
        for topic in topics:
            prefix = topic.removesuffix('/status')
            new = topic.endswith(f'/{NAMESPACE}/status') and prefix not in self.cameras
            # another view may read it as well
            if new and self._node.count_publishers(topic):
                self._follow(prefix)
        for camera in self.cameras.values():
            source = camera.pictures['camera']
            if not source.topic:
                guesses = (f'{camera.name}/image_raw{end}' for end in ('', '/compressed'))
                source.topic = next((topic for topic in guesses if topic in topics), '')
            for picture in camera.pictures.values():
                kinds = topics.get(picture.topic, ())
                shown = [k for k in (CompressedImage, Image) if _full_name(k) in kinds]
                if kinds and not shown:
                    picture.problem = f'{picture.topic} is not shown here; see the overlay'
                feed = picture.topic, shown[0] if shown else Image
                wanted = bool(shown) and now - picture.watched < WATCHED_S
                other = not wanted or feed != picture.source
                if picture.subscription is not None and other:
                    self._node.destroy_subscription(picture.subscription)
                    picture.subscription = None
                if wanted and picture.subscription is None:
                    if feed != picture.source:
                        picture.source, picture.depth = feed, BitDepth()
                    picture.subscription = self._node.create_subscription(
                        feed[1], feed[0], picture.keep, BEST_EFFORT
                    )
        if self._rerun is not None:
            images = {c.name: c.pictures['camera'].topic for c in self.cameras.values()}
            self._rerun.look(topics, images)

    def _follow(self, prefix: str) -> None:
        camera = LiveCamera(len(self.cameras), prefix)

        def status(message: Any) -> None:
            with self.changed:
                camera.take(message.status[0], time.monotonic())
                self.changed.notify_all()
            if self._rerun is not None:
                score = number_of(camera.values.get('score'))
                self._rerun.score(camera.name, message.header.stamp, score)

        def legend(message: Any) -> None:
            found = json.loads(message.data)
            classes = [
                {'id': int(c['id']), 'name': str(c['name']), 'color': [int(v) for v in c['color']]}
                for c in found['classes']
            ]
            camera.legend = {'taxonomy': str(found['taxonomy']), 'classes': classes}
            if self._rerun is not None:
                self._rerun.legend(camera.name, camera.legend)

        Subscription(self._node, DiagnosticArray, f'{prefix}/status', status, depth=10)
        Subscription(self._node, String, f'{prefix}/label_info_json', legend)
        if self._labels:
            self._node.create_subscription(
                Image, f'{prefix}/labels', lambda data: None, BEST_EFFORT, raw=True
            )
        with self.changed:
            self.cameras[prefix] = camera

    def _diagnose(self, message: Any) -> None:
        now = time.monotonic()
        with self.changed:
            for status in message.status:
                node, _, name = status.name.partition(': ')
                if name == 'node' and status.hardware_id == node:
                    self._nodes[f'/{node}'] = (now, status)
                # a camera's name is relative to its node's namespace, or was absolute
                outer = node.rpartition('/')[0]
                for prefix in (f'/{outer}/{name}/{NAMESPACE}', f'/{name}/{NAMESPACE}'):
                    camera = self.cameras.get(re.sub('/+', '/', prefix))
                    # semantic_cloud tells of a depth camera under the name of the camera
                    if camera is not None and 'dropped.superseded' in values_of(status):
                        camera.health = (now, status)
                        camera.pictures['camera'].topic = status.hardware_id
                        break


def _full_name(kind: type) -> str:
    return f'sensor_msgs/msg/{kind.__name__}'


class LivePicture:
    """The newest picture of a topic; ``jpeg`` is called by the threads of the pages."""

    def __init__(self) -> None:
        """Wait for somebody who looks."""
        self.topic = ''
        self.subscription: Any = None
        self.source: tuple[str, Any] = ('', None)
        """Topic and type of the subscription."""
        self.depth = BitDepth()
        self.watched = -math.inf
        """When somebody asked for it last."""
        self.problem = ''
        """Why the newest message is no picture."""
        self._newest: tuple[int, float, Any] = (0, 0.0, None)
        self._jpeg = (0, b'')
        self._lock = threading.Lock()

    @property
    def number(self) -> int:
        """How many have come."""
        return self._newest[0]

    def keep(self, message: Any) -> None:
        """Take the newest message in place of the one before."""
        self._newest = (self.number + 1, time.monotonic(), message)

    def jpeg(self) -> tuple[int, float, bytes]:
        """Return number, arrival and JPEG of the newest picture, b'' where it is none."""
        with self._lock:
            number, arrived, message = self._newest
            if self._jpeg[0] != number:
                try:
                    self._jpeg, self.problem = (number, encode(message, depth=self.depth)), ''
                except FrameError as error:
                    self._jpeg, self.problem = (number, b''), str(error)
            return number, arrived, self._jpeg[1]


def encode(message: Any, long_side: float = LONG_SIDE, depth: BitDepth | None = None) -> bytes:
    """Return an Image or CompressedImage as a JPEG of at most that size, or ``FrameError``."""
    image, order = decode(message, depth)
    height, width = image.shape[:2]
    scale = long_side / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    bgr = image if order == 'bgr' else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, content = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return content.tobytes() if done else b''


class LiveCamera:
    """What is known of one camera, by the prefix of its outputs; times are ``time.monotonic``."""

    def __init__(self, number: int, prefix: str) -> None:
        """``prefix`` is such as /camera/nightseg."""
        self.number = number
        self.name = prefix.removesuffix(f'/{NAMESPACE}')
        self.frames, self.arrived = 0, -math.inf
        self.values: dict[str, str] = {}
        """Of the latest frame's status."""
        self.health: tuple[float, Any] | None = None
        """When /diagnostics told of it last, and what."""
        self.legend: Any = None
        self.points: deque[tuple[float, float | None, str]] = deque()
        """Time, score and state; the score is None where it is unknown."""
        self.routes: Counter[str] = Counter()
        self.switches, self.first = 0, math.inf
        self.latencies: deque[float] = deque(maxlen=MOST_LATENCIES)
        """Milliseconds from the arrival of each frame in the node to its labels."""
        self.pictures = {'camera': LivePicture(), 'overlay': LivePicture()}
        self.pictures['overlay'].topic = f'{prefix}/overlay'

    def take(self, status: Any, now: float) -> None:
        """Keep the status of a frame."""
        self.values = values_of(status)
        self.frames, self.arrived, self.first = self.frames + 1, now, min(now, self.first)
        self.routes[self.values.get('route', '')] += 1
        self.switches += self.values.get('switched') == 'true'
        self.latencies.append(number_of(self.values.get('latency_ms.total')) or 0.0)
        if not self.points or now - self.points[-1][0] >= POINT_S:
            state = self.values.get('state', '')
            self.points.append((now, number_of(self.values.get('score')), state))
        while now - self.points[0][0] > HISTORY_S:
            self.points.popleft()

    def summary(self) -> dict[str, Any]:
        """Return the counts, rates, latencies and routes of all frames as JSON types."""
        counts = {} if self.health is None else values_of(self.health[1])
        lost = {key[8:]: int(n) for key, n in counts.items() if key.startswith('dropped.')}
        lost['not_received'] = int(counts.get('not_received', 0))
        span = self.arrived - self.first
        return {
            # the node's own counts: the view may have come after the first frames
            # the node counts what came before this did, and reports twice a second
            'frames_in': max(int(counts.get('received', 0)), self.frames) + lost['not_received'],
            'frames_out': max(int(counts.get('served', 0)), self.frames),
            'dropped': {reason: count for reason, count in lost.items() if count},
            'rate_hz': round((self.frames - 1) / span, 2) if self.frames > 1 else None,
            'latency_ms': {
                f'p{share}': round(float(np.percentile(self.latencies, share)), 1)
                if self.frames else None for share in (50, 95, 99)
            },
            'routes': dict(self.routes.most_common()), 'switches': self.switches,
        }  # fmt: skip

    def snapshot(self, now: float, since: float) -> dict[str, Any]:
        """Return all values as JSON types, and the points of the plot after ``since``."""
        found: dict[str, Any] = {
            'id': self.number, 'name': self.name, 'frames': self.frames,
            'age': round(now - self.arrived, 3) if self.frames else None, 'values': self.values,
            'points': [
                (round(now - when, 2), score, state)
                for when, score, state in self.points if when > since
            ],
            'legend': self.legend,
            'pictures': {
                kind: {'number': one.number, 'topic': one.topic, 'problem': one.problem}
                for kind, one in self.pictures.items()
            },
        }  # fmt: skip
        if self.health is not None:
            when, status = self.health
            values = values_of(status)
            lost = {key: value for key, value in values.items() if key.startswith('dropped.')}
            found['health'] = told(when, status, now)
            found['health'] |= {key: values.get(key) for key in SHOWN} | {'lost': lost}
        return found


def values_of(status: Any) -> dict[str, str]:
    """Return the values of a status."""
    return {item.key: item.value for item in status.values}


def number_of(text: str | None) -> float | None:
    """Return a finite number, None for any other text."""
    try:
        value = float(text or '')
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def told(when: float, status: Any, now: float) -> dict[str, Any]:
    """Return what /diagnostics told as JSON types."""
    level = ('OK', 'WARN', 'ERROR', 'STALE')[min(status.level[0], 3)]
    return {'level': level, 'message': status.message, 'age': round(now - when, 3)}
