# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
A subscription that is as reliable as whoever publishes.

Which of a camera's frames are taken, before anything is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import QoSProfile, ReliabilityPolicy

from nightseg_ros.node.diagnostics import Source


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


#: A stamp that goes back by more than this is a jump (a bag that loops), not a late frame.
JUMP_NS = 1_000_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What is to become of a frame."""

    drop: str = ''
    """The reason by its name in ``health.DROPS``, '' for a frame that is taken."""
    jump_s: float = 0.0
    """Seconds that the stamps went back, where this frame starts over."""


class Intake:
    """
    Keeps the order of one camera's stamps and its rate.

    Frames without a stamp (0) are taken in the order they come.
    """

    def __init__(self) -> None:
        """Start without a past."""
        self._last_ns = 0
        self._due = -float('inf')

    def check(self, stamp_ns: int, now: float, max_rate: float) -> Verdict:
        """
        Judge the frame of ``stamp_ns`` that came at ``now`` (seconds of a steady clock).

        ``max_rate`` in frames a second, 0 for no limit; on average it is met exactly.
        """
        jump = 0.0
        if stamp_ns and self._last_ns:
            ahead = stamp_ns - self._last_ns
            if ahead == 0:
                return Verdict(drop='duplicate_stamp')
            if ahead < -JUMP_NS:
                jump = -ahead / 1e9
            elif ahead < 0:
                return Verdict(drop='out_of_order')
        # also of a frame that the rate drops: one before it must not come after it
        self._last_ns = stamp_ns or self._last_ns
        if max_rate > 0 and not jump:
            period = 1 / max_rate
            if now < self._due:
                return Verdict(drop='max_rate')
            self._due = (self._due if now - self._due < period else now) + period
        return Verdict(jump_s=jump)
