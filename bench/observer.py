# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A ROS node that leads one of ours through its life and keeps what it says."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from nightseg_ros.node.replay import header_stamp
from nightseg_ros.shared_memory import remove_orphans

TRANSITIONS = {
    'configure': Transition.TRANSITION_CONFIGURE,
    'cleanup': Transition.TRANSITION_CLEANUP,
    'activate': Transition.TRANSITION_ACTIVATE,
    'deactivate': Transition.TRANSITION_DEACTIVATE,
}
#: Seconds for an answer of a node on a machine that has other work, too.
PATIENCE = 120.0


class Observer:
    """Notes when each mask of each camera arrived, or each cloud, and the latest diagnostics."""

    def __init__(
        self, sources: Sequence[str], alive: Callable[[], bool], *,
        node: str = 'night_perception', output: tuple[str, Any] = ('labels', Image),
    ) -> None:  # fmt: skip
        """
        Subscribe to the output of each camera or LiDAR.

        ``alive`` tells whether the observed process still runs.
        """
        remove_orphans()
        rclpy.init()
        self.node: Any = rclpy.create_node('observer')
        self.arrivals: list[tuple[str, int, float]] = []
        """Source, stamp in ns and steady time in seconds of each message."""
        self.levels: dict[str, int] = {}
        """Latest level (0 OK, 1 WARN, 2 ERROR) by camera, and of the node as 'node'."""
        self.values: dict[str, dict[str, str]] = {}
        self._alive = alive
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        for source in sources:
            self.node.create_subscription(
                output[1], f'{source}/nightseg/{output[0]}', self._keeper(source),
                QoSProfile(depth=50), raw=True,
            )  # fmt: skip
        self.node.create_subscription(
            DiagnosticArray, '/diagnostics', self._diagnose, QoSProfile(depth=10)
        )
        self._change = self.node.create_client(ChangeState, f'/{node}/change_state')
        self._set = self.node.create_client(
            SetParametersAtomically, f'/{node}/set_parameters_atomically'
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

    def until(self, met: Callable[[], bool], what: str, patience: float = PATIENCE) -> float:
        """Listen until ``met``; return the seconds that it took."""
        begun = time.monotonic()
        while not met():
            self._check()
            if time.monotonic() - begun > patience:
                raise RuntimeError(f'{what}: not within {patience:g} s')
            self._executor.spin_once(timeout_sec=0.05)
        return time.monotonic() - begun

    def transition(self, name: str) -> None:
        """Ask for a transition; ``RuntimeError`` where it is not made."""
        request = ChangeState.Request()
        request.transition.id = TRANSITIONS[name]
        if not self._call(self._change, request, name).success:
            raise RuntimeError(f'the node refused to {name}')

    def set(self, name: str, value: Any) -> None:
        """Set a parameter; ``RuntimeError`` where it is refused."""
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
            self.arrivals.append((camera, header_stamp(data), time.monotonic()))

        return keep

    def _diagnose(self, array: DiagnosticArray) -> None:
        for status in array.status:
            name = status.name.rpartition(': ')[2]
            self.levels[name] = status.level[0]
            self.values[name] = {item.key: item.value for item in status.values}
