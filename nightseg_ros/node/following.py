# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""A subscription that is as reliable as whoever publishes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import QoSProfile, ReliabilityPolicy

from nightseg_ros.node.health import Source


class Following:
    """Takes messages of a topic, best effort or reliably; by 'auto' as its publishers do."""

    def __init__(
        self, node: Any, kind: Any, topic: str, receive: Callable[[Any], None],
        reliability: str,
    ) -> None:  # fmt: skip
        """Subscribe; ``reliability`` is 'auto', 'reliable' or 'best_effort'."""
        self._node, self._kind, self._topic = node, kind, topic
        self._receive, self._reliability = receive, reliability
        self._reliable = False
        self._subscription: Any = None
        # an event's own handler is no place to replace what the event came from
        self._guard = node.create_guard_condition(self.match, MutuallyExclusiveCallbackGroup())
        self._subscribe(self._wanted(self.source()))

    def source(self) -> Source:
        """Return who publishes now."""
        found = self._node.get_publishers_info_by_topic(self._topic)
        reliable = [p.qos_profile.reliability == ReliabilityPolicy.RELIABLE for p in found]
        return Source(
            topic=self._node.resolve_topic_name(self._topic),
            publishers=len(reliable),
            reliable=sum(reliable),
            subscribed_reliable=self._reliable,
        )

    def match(self) -> None:
        """Subscribe anew where the publishers' reliability asks for the other one."""
        if self._subscription is None:
            return
        wanted = self._wanted(self.source())
        if wanted != self._reliable:
            self._node.destroy_subscription(self._subscription)
            self._subscribe(wanted)

    def close(self) -> None:
        """Take the subscription out of the graph."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._node.destroy_guard_condition(self._guard)
        self._subscription = None

    def _wanted(self, source: Source) -> bool:
        if self._reliability != 'auto':
            return self._reliability == 'reliable'
        if not source.publishers:
            # best effort understands either, until there is somebody to go by
            return self._reliable
        return source.reliable == source.publishers

    def _subscribe(self, reliable: bool) -> None:
        self._reliable = reliable
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        look = SubscriptionEventCallbacks(matched=self._look, incompatible_qos=self._look)
        self._subscription = self._node.create_subscription(
            self._kind, self._topic, self._receive,
            QoSProfile(depth=1, reliability=policy), event_callbacks=look,
            # a group never forgets what it held, and the node's own lives as long as the node
            callback_group=MutuallyExclusiveCallbackGroup(),
        )  # fmt: skip

    def _look(self, event: Any) -> None:
        if self._subscription is not None:
            self._guard.trigger()
