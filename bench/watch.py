# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Watching a node for long: what its process holds, what it says, and whether anything grows."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
import os
from pathlib import Path
import time
from typing import Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nightseg_ros.node.messages import header_stamp
from nightseg_ros.shared_memory import remove_orphans
import numpy as np
from rcl_interfaces.srv import SetParametersAtomically
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

#: Seconds for an answer of a node on a machine that has other work, too.
ANSWER_S = 120.0

_TICKS = os.sysconf('SC_CLK_TCK')


def resources(pid: int) -> dict[str, float]:
    """
    Return what a process holds and has used; ``OSError`` where it is gone.

    'anon_mb' is the memory in MB (10^6 bytes) that is the process's own, 'rss_mb' that and what it
    has touched of files, 'shm_mb' what it has touched of the transport's segments: of each that is
    mapped more with every message until all of its 67 MB are, so that it says nothing of a leak.
    'fds' are its file descriptors, 'threads' those, 'cpu_s' the CPU seconds of all its threads
    since it started.
    """
    folder = Path('/proc') / str(pid)
    lines = (line.partition(':') for line in (folder / 'status').read_text().splitlines())
    status = {name: value.split() for name, _, value in lines}
    fields = (folder / 'stat').read_text().rpartition(')')[2].split()
    own, file, shared = (
        int(status[f'Rss{of}'][0]) * 1024 / 1e6 for of in ('Anon', 'File', 'Shmem')
    )
    return {
        'rss_mb': round(own + file, 2),
        'anon_mb': round(own, 2),
        'shm_mb': round(shared, 2),
        'fds': len(os.listdir(folder / 'fd')),
        'threads': int(status['Threads'][0]),
        'cpu_s': (int(fields[11]) + int(fields[12])) / _TICKS,
    }


class Limit(NamedTuple):
    """What one series may do."""

    name: str
    growth: float
    """Largest (last - first) / first."""
    floor: float = 0.0
    """Growth up to this much, in the series' own unit, is none: it is below the noise."""
    quantile: float = 0.5
    """Which quantile of a quarter speaks for it; a low one hears less of a busy machine."""


def held(memory: float, prefix: str = '') -> list[Limit]:
    """Return the limits of what a node holds, whatever else the machine does."""
    return [
        Limit(f'{prefix}rss_mb', memory),
        Limit(f'{prefix}anon_mb', memory),
        # one may be open for a moment
        Limit(f'{prefix}fds', 0.01, floor=1.0),
        Limit(f'{prefix}threads', 0.01, floor=1.0),
    ]


def growth(
    rows: Sequence[Mapping[str, Any]], clock: str, warm_up: float, limit: Limit
) -> tuple[bool, str]:
    """
    Compare the first and the last quarter of the rows whose ``clock`` is not below ``warm_up``.

    Return whether the series kept within its limit, and what it did. Values that are no number
    are left out; fewer than eight are no proof.
    """
    found = np.array([float(r[limit.name]) for r in rows if float(r[clock]) >= warm_up])
    found = found[np.isfinite(found)]
    if len(found) < 8:
        return False, f'{limit.name}: {len(found)} samples are too few'
    count = len(found) // 4
    first, last = (np.quantile(q, limit.quantile) for q in (found[:count], found[-count:]))
    text = f'{limit.name:18} {first:9.2f} → {last:9.2f}, at most {limit.growth:+.0%}'
    text += f' or {limit.floor:+g}' if limit.floor else ''
    return bool(last - first <= max(limit.growth * first, limit.floor)), text


def verdict(checks: Iterable[tuple[bool, str]]) -> bool:
    """Print each check and the verdict; return whether all passed."""
    checks = list(checks)
    for passed, text in checks:
        print('ok  ' if passed else 'FAIL', text)
    passed = all(passed for passed, _ in checks)
    print('verdict:', 'passed' if passed else 'FAILED')
    return passed


def ros_arguments(parameters: Mapping[str, str]) -> list[str]:
    """Return the arguments that set a node's parameters."""
    pairs = ('{}:={}'.format(*pair) for pair in parameters.items())
    return ['--ros-args', *(part for pair in pairs for part in ('-p', pair))]


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what the node runs."""
    parser.add_argument('--growth', type=float, default=0.01, help='largest growth of memory')
    parser.add_argument('--day', default='rendered_day', help='weights of the day')
    parser.add_argument('--night', default='rendered_night', help='weights of the night')
    parser.add_argument('--backend', default='auto')


class Observer:
    """Notes when each mask of each camera arrived, or each cloud, and the latest diagnostics."""

    def __init__(
        self, outputs: Mapping[str, Any], alive: Callable[[], bool], nodes: Sequence[str]
    ) -> None:
        """
        Subscribe to the output of each camera (``Image``) or LiDAR (``PointCloud2``).

        ``alive`` tells whether the observed processes, the ``nodes``, still run.
        """
        remove_orphans()
        rclpy.init()
        self.node: Any = rclpy.create_node('observer')
        self.arrivals: list[tuple[str, int, float]] = []
        """Source, stamp in ns and steady time in seconds of each message."""
        self.latest: dict[str, int] = {}
        """Stamp in ns of the latest message by source."""
        self.levels: dict[str, int] = {}
        """Latest level (0 OK, 1 WARN, 2 ERROR) by camera, and of a node as 'node'."""
        self.values: dict[str, dict[str, str]] = {}
        self._alive = alive
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        for source, kind in outputs.items():
            topic = 'labels' if kind is Image else 'points'
            self.node.create_subscription(
                kind, f'{source}/nightseg/{topic}', self._keeper(source), QoSProfile(depth=50),
                raw=True,
            )  # fmt: skip
        self.node.create_subscription(
            DiagnosticArray, '/diagnostics', self._diagnose, QoSProfile(depth=10)
        )
        self._change = {
            node: self.node.create_client(ChangeState, f'/{node}/change_state') for node in nodes
        }
        self._set = self.node.create_client(
            SetParametersAtomically, f'/{nodes[0]}/set_parameters_atomically'
        )

    def close(self) -> None:
        """Leave the graph."""
        self.node.destroy_node()
        rclpy.try_shutdown()

    def spin(self, seconds: float) -> None:
        """Listen for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._check()
            self._executor.spin_once(timeout_sec=left)

    def until(self, met: Callable[[], bool], what: str, timeout: float = ANSWER_S) -> float:
        """Listen until ``met``; return the seconds that it took."""
        begun = time.monotonic()
        while not met():
            self._check()
            if time.monotonic() - begun > timeout:
                raise RuntimeError(f'{what}: not within {timeout:g} s')
            self._executor.spin_once(timeout_sec=0.05)
        return time.monotonic() - begun

    def transition(self, name: str) -> None:
        """Ask every node for a transition; ``RuntimeError`` where one does not make it."""
        request = ChangeState.Request()
        request.transition.id = getattr(Transition, f'TRANSITION_{name.upper()}')
        for node, client in self._change.items():
            if not self._call(client, request, f'{name} {node}').success:
                raise RuntimeError(f'{node} refused to {name}')

    def set_parameter(self, name: str, value: Any) -> None:
        """Set a parameter of the first node; ``RuntimeError`` where it is refused."""
        request = SetParametersAtomically.Request()
        request.parameters = [Parameter(name, value=value).to_parameter_msg()]
        result = self._call(self._set, request, f'set {name}').result
        if not result.successful:
            raise RuntimeError(f'{name} was refused: {result.reason}')

    def _call(self, client: Any, request: Any, what: str) -> Any:
        self.until(client.service_is_ready, f'the service to {what}')
        future = client.call_async(request)
        self.until(future.done, what)
        return future.result()

    def _check(self) -> None:
        if not self._alive():
            raise RuntimeError('the process has ended')

    def _keeper(self, camera: str) -> Callable[[bytes], None]:
        def keep(data: bytes) -> None:
            self.latest[camera] = header_stamp(data)
            self.arrivals.append((camera, self.latest[camera], time.monotonic()))

        return keep

    def _diagnose(self, array: DiagnosticArray) -> None:
        for status in array.status:
            name = status.name.rpartition(': ')[2]
            self.levels[name] = status.level[0]
            self.values[name] = {item.key: item.value for item in status.values}
