# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Watching a node for long: what its process holds, what it says, and whether anything grows."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
import os
from pathlib import Path
import tempfile
import time
from typing import Any, NamedTuple, TypeVar

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nightseg_ros.cli.processes import Child
from nightseg_ros.dds import private_domain, profile_environment
from nightseg_ros.node.messages import header_stamp
from nightseg_ros.shared_memory import remove_orphans
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from sensor_msgs.msg import Image

#: Seconds for an answer of a node on a machine that has other work, too.
ANSWER_S = 120.0

C = TypeVar('C', bound=Child)
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


def verdict(checks: Sequence[tuple[bool, str]]) -> bool:
    """Print each check and the verdict; return whether all passed."""
    for passed, text in checks:
        print('ok  ' if passed else 'FAIL', text)
    passed = all(passed for passed, _ in checks)
    print('verdict:', 'passed' if passed else 'FAILED')
    return passed


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what the node runs."""
    parser.add_argument('--growth', type=float, default=0.01, help='largest growth of memory')
    parser.add_argument('--day', default='rendered_day', help='weights of the day')
    parser.add_argument('--night', default='rendered_night', help='weights of the night')
    parser.add_argument('--backend', default='auto')


class Graph(ExitStack):
    """A private ROS domain: a node of this process, and the processes that it watches."""

    def __init__(self) -> None:
        """Create the node; what the processes write goes into ``folder``."""
        super().__init__()
        self.children: list[Child] = []
        self.folder = Path(self.enter_context(tempfile.TemporaryDirectory(prefix='nightseg-')))
        # read by Fast DDS when the first node starts
        os.environ.update(self.enter_context(private_domain()) | profile_environment())
        os.environ['ROS_LOG_DIR'] = str(self.folder)
        remove_orphans()
        rclpy.init(args=[])
        self.callback(rclpy.try_shutdown)
        self.node: Any = rclpy.create_node('observer')
        self.callback(self.node.destroy_node)
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)

    def start(self, name: str, module: str, arguments: Sequence[str]) -> Child:
        """Start a process."""
        log = self.folder / f'{name}.log'
        return self.add(Child(name, module, arguments, log=log, environ=os.environ))

    def add(self, child: C) -> C:
        """Watch a process, and end it where the block is left."""
        self.children.append(self.enter_context(child))
        return child

    def end(self, child: Child) -> None:
        """End a process, and watch it no longer."""
        self.children.remove(child)
        child.__exit__()

    def spin(self, seconds: float) -> None:
        """Listen for a while; ``RuntimeError`` where a process ends."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._check()
            self.executor.spin_once(timeout_sec=left)

    def until(self, met: Callable[[], bool], what: str, timeout: float = ANSWER_S) -> None:
        """Listen until ``met``."""
        end = time.monotonic() + timeout
        while not met():
            self._check()
            if time.monotonic() > end:
                raise RuntimeError(f'{what}: not within {timeout:g} s')
            self.executor.spin_once(timeout_sec=0.05)

    def _check(self) -> None:
        for child in self.children:
            child.check()


class Observer(Graph):
    """Notes when each mask of each camera arrived, or each cloud, and the latest diagnostics."""

    def __init__(self, outputs: Mapping[str, Any], nodes: Sequence[str]) -> None:
        """Subscribe to the output of each camera (``Image``) or LiDAR (``PointCloud2``)."""
        super().__init__()
        self.arrivals: list[tuple[str, int, float]] = []
        """Source, stamp in ns and steady time in seconds of each message."""
        self.latest: dict[str, int] = {}
        """Stamp in ns of the latest message by source."""
        self.levels: dict[str, int] = {}
        """Latest level (0 OK, 1 WARN, 2 ERROR) by camera, and of a node as 'node'."""
        self.values: dict[str, dict[str, str]] = {}
        for source, kind in outputs.items():
            topic = 'labels' if kind is Image else 'points'
            self.node.create_subscription(
                kind, f'{source}/nightseg/{topic}', partial(self._keep, source), 50, raw=True
            )
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._diagnose, 10)
        self._change = {
            node: self.node.create_client(ChangeState, f'/{node}/change_state') for node in nodes
        }
        self._parameters = AsyncParameterClient(self.node, nodes[0])

    def transition(self, *names: str) -> None:
        """Ask every node for transitions; ``RuntimeError`` where one does not make it."""
        request = ChangeState.Request()
        for name in names:
            request.transition.id = getattr(Transition, f'TRANSITION_{name.upper()}')
            for node, client in self._change.items():
                self.until(client.service_is_ready, f'the service to {name}')
                if not self._answer(client.call_async(request), f'{name} {node}').success:
                    raise RuntimeError(f'{node} refused to {name}')

    def set_parameter(self, name: str, value: Any) -> None:
        """Set a parameter of the first node; ``RuntimeError`` where it is refused."""
        self.until(self._parameters.services_are_ready, f'the services to set {name}')
        wanted = [Parameter(name, value=value)]
        answer = self._answer(self._parameters.set_parameters_atomically(wanted), f'set {name}')
        if not answer.result.successful:
            raise RuntimeError(f'{name} was refused: {answer.result.reason}')

    def _answer(self, future: Any, what: str) -> Any:
        self.until(future.done, what)
        return future.result()

    def _keep(self, source: str, data: bytes) -> None:
        self.latest[source] = header_stamp(data)
        self.arrivals.append((source, self.latest[source], time.monotonic()))

    def _diagnose(self, array: DiagnosticArray) -> None:
        for status in array.status:
            name = status.name.rpartition(': ')[2]
            self.levels[name] = status.level[0]
            self.values[name] = {item.key: item.value for item in status.values}
