# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
What the page of ``nightseg view`` shows: pictures, light, route and health of every camera.

A picture is subscribed to, and encoded, only while somebody looks at it.
"""

from __future__ import annotations

from functools import partial
import json
import math
import os
from pathlib import Path
import re
import signal
import sys
import threading
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from nightseg_ros.cli.run import ViewOptions
from nightseg_ros.files import replace_file, use_log_folder
from nightseg_ros.node.view_camera import Camera, encode, number_of, told, values_of
from nightseg_ros.node.view_rerun import RerunLog
from nightseg_ros.node.view_server import PageServer
from nightseg_ros.perception.result import NAMESPACE
from nightseg_ros.shared_memory import remove_orphans
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

#: Seconds between two looks at the graph, and between two questions for the thresholds.
LOOK_S, ASK_S = 0.5, 5.0
#: Seconds after the last question for a picture in which its topic stays subscribed to.
WATCHED_S = 3.0
#: Parameters of the node that the page draws.
DRAWN = ('router.dark', 'router.bright', 'min_reliability')
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)


def run(options: ViewOptions) -> int:
    """Serve the page until a signal; return the exit code."""
    try:
        server = PageServer(options.host, options.port)
    except OSError as error:
        print(f'view: cannot listen on {options.host}:{options.port}: {error}', file=sys.stderr)
        return 2
    remove_orphans()
    use_log_folder()
    rclpy.init(args=['view'], signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
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
        self.cameras: dict[str, Camera] = {}
        self._nodes: dict[str, tuple[float, Any]] = {}
        self._drawn: dict[str, dict[str, float]] = {}
        """By node the parameters that are drawn."""
        self._clients: dict[str, Any] = {}
        self._labels = labels
        self._node: Any = rclpy.create_node('nightseg_view')
        self._node.create_subscription(
            DiagnosticArray, '/diagnostics', self._diagnose, QoSProfile(depth=10)
        )
        self._rerun = None
        if rerun is not None:
            self._rerun = RerunLog(rerun, self._node, partial(encode, long_side=math.inf))

    def spin(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set."""
        executor = SingleThreadedExecutor()
        executor.add_node(self._node)
        look = ask = -math.inf
        while rclpy.ok() and not stop.is_set():
            try:
                executor.spin_once(timeout_sec=0.1)
            except (ValueError, KeyError, IndexError, TypeError) as error:
                # what somebody else publishes must not end the view
                text = f'a message cannot be shown: {type(error).__name__}: {error}'
                self._node.get_logger().warning(text, throttle_duration_sec=10.0)
            now = time.monotonic()
            if now >= look:
                look = now + LOOK_S
                self._look(now)
            if now >= ask and self._nodes:
                ask = now + ASK_S
                self._ask()
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
            cameras = [
                {**camera.snapshot(now, since), 'drawn': self._drawn.get(camera.node, {})}
                for camera in self.cameras.values()
            ]
            nodes = [
                {'name': name, 'values': values_of(status), **told(when, status, now)}
                for name, (when, status) in self._nodes.items()
            ]
        return {'time': now, 'cameras': cameras, 'nodes': nodes,
                'domain': os.environ.get('ROS_DOMAIN_ID') or '0'}  # fmt: skip

    def _look(self, now: float) -> None:
        """Follow new cameras, subscribe to the pictures that are looked at and no others."""
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
                wanted = picture.topic in topics and now - picture.watched < WATCHED_S
                if wanted and picture.subscription is None:
                    compressed = 'sensor_msgs/msg/CompressedImage' in topics[picture.topic]
                    picture.subscription = self._node.create_subscription(
                        CompressedImage if compressed else Image, picture.topic, picture.keep,
                        BEST_EFFORT,
                    )  # fmt: skip
                elif not wanted and picture.subscription is not None:
                    self._node.destroy_subscription(picture.subscription)
                    picture.subscription = None
        if self._rerun is not None:
            images = {c.name: c.pictures['camera'].topic for c in self.cameras.values()}
            self._rerun.look(topics, images)

    def _follow(self, prefix: str) -> None:
        camera = Camera(len(self.cameras), prefix)
        subscribe = self._node.create_subscription

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

        subscribe(DiagnosticArray, f'{prefix}/status', status, QoSProfile(depth=10))
        subscribe(String, f'{prefix}/label_info_json', legend, LATCHED)
        if self._labels:
            subscribe(Image, f'{prefix}/labels', lambda data: None, BEST_EFFORT, raw=True)
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
                    if camera is not None:
                        camera.health = (now, f'/{node}', status)
                        camera.pictures['camera'].topic = status.hardware_id
                        break

    def _ask(self) -> None:
        """Ask the nodes for the parameters that are drawn; the answers come when they come."""
        for name in {camera.node for camera in self.cameras.values()} - {''}:
            if name not in self._clients:
                client = self._node.create_client(GetParameters, f'{name}/get_parameters')
                self._clients[name] = client, None
            client, asked = self._clients[name]
            if asked is not None:
                # what a dead node was asked would be kept for ever
                client.remove_pending_request(asked)

            def keep(future: Any, name: str = name) -> None:
                found = dict(zip(DRAWN, future.result().values))
                doubles = {
                    k: v.double_value
                    for k, v in found.items()
                    if v.type == ParameterType.PARAMETER_DOUBLE
                }
                self._drawn[name] = doubles

            if client.service_is_ready():
                asked = client.call_async(GetParameters.Request(names=list(DRAWN)))
                asked.add_done_callback(keep)
                self._clients[name] = client, asked
