# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Subscriptions: as the publishers offer it, and in the order of the stamps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
import time
from typing import Any

from nightseg_ros.config import did_you_mean
from nightseg_ros.node.diagnostics import Health, Source
from nightseg_ros.perception.result import base_topic, is_output, TRANSPORTS
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

#: A stamp that goes back by more than this is a jump (a bag that loops), not a late message.
JUMP_NS = 1_000_000_000
#: Seconds by which a stamp may run ahead of its arrival, compared with those before it.
AHEAD_S = 0.1


class Subscription:
    """
    Takes messages of a topic as its publishers offer them.

    What they publish once for late subscribers (transient local) arrives as well, and what is
    published reliably is asked for reliably, or as ``reliability`` says. ``missed`` counts the
    messages that one publisher sent and that never came, where the middleware numbers them: lost
    on the way, or overwritten by newer ones before they were taken.
    """

    def __init__(
        self, node: Any, kind: Any, topic: str, receive: Callable[[Any], None],
        reliability: str = 'auto', depth: int = 1, raw: bool = False,
    ) -> None:  # fmt: skip
        """
        Subscribe; ``reliability`` is 'auto', 'reliable' or 'best_effort'.

        With ``raw`` messages come as they were serialised.
        """
        self._node, self._kind, self._topic = node, kind, topic
        # sensor_msgs.msg._image and Image make sensor_msgs/Image
        self._type = f'{kind.__module__.split(".")[0]}/{kind.__name__}'
        self._receive, self._reliability, self._depth = receive, reliability, depth
        self._raw = raw
        self.missed = 0
        self.gap = False
        """Whether a message before the latest may not have come, where they are numbered."""
        self._number: int | None = None
        """The publisher's own number of the latest message."""
        self._same = True
        """Whether none has come or gone since that message."""
        self._policies = ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE
        self._subscription: Any = None
        # an event's own handler must not replace the subscription that the event came from
        self._guard: Any = node.create_guard_condition(
            self.match, MutuallyExclusiveCallbackGroup()
        )
        node.subscribed.add(self)
        self.match()

    def source(self) -> Source:
        """Return who publishes now."""
        (offers, others), topic = self._offers(), self._node.resolve_topic_name(self._topic)
        return Source(
            topic=topic,
            publishers=len(offers),
            reliable=sum(offer.reliability == ReliabilityPolicy.RELIABLE for offer in offers),
            subscribed_reliable=self._policies[0] == ReliabilityPolicy.RELIABLE,
            other_types=tuple(sorted(others)),
            near='' if offers or others else self._near(topic),
        )

    def _offers(self) -> tuple[list[QoSProfile], set[str]]:
        """Return what each publisher of the type offers, and the other types on the topic."""
        offers, others = [], set()
        for publisher in self._node.get_publishers_info_by_topic(self._topic):
            kind = publisher.topic_type.replace('/msg/', '/')
            if kind == self._type:
                offers.append(publisher.qos_profile)
            else:
                others.add(kind)
        return offers, others

    def _near(self, topic: str) -> str:
        """Return in words which published topic may have been meant, of a camera by transport."""
        transports = {kind: name for name, kind in TRANSPORTS.items()}
        wanted = transports if self._type in transports else {self._type: ''}
        found = {
            name: wanted[kind]
            for name, kinds in self._node.get_topic_names_and_types()
            for kind in (kinds[0].replace('/msg/', '/'),)
            if kind in wanted and not is_output(name)
            if self._node.count_publishers(name)
        }
        for name, transport in found.items():
            if transport and base_topic(name) == base_topic(topic):
                return f"; there is {name}: set 'transport' to {transport}"
        return did_you_mean(topic, found)

    def match(self) -> None:
        """Subscribe, and again where what the publishers offer asks for another QoS."""
        if self._guard is None:
            return
        offers, _ = self._offers()
        reliability, durability = self._policies
        if offers:
            # what is asked for must be offered by all
            reliable = all(o.reliability == ReliabilityPolicy.RELIABLE for o in offers)
            latched = all(o.durability == DurabilityPolicy.TRANSIENT_LOCAL for o in offers)
            reliability = ReliabilityPolicy['RELIABLE' if reliable else 'BEST_EFFORT']
            durability = DurabilityPolicy['TRANSIENT_LOCAL' if latched else 'VOLATILE']
        if self._reliability != 'auto':
            reliability = ReliabilityPolicy[self._reliability.upper()]
        if self._subscription is not None:
            if (reliability, durability) == self._policies:
                return
            self._node.destroy_subscription(self._subscription)
            # should the next one fail, it is tried again
            self._subscription = None
        self._policies = reliability, durability
        events = SubscriptionEventCallbacks(matched=self._changed, incompatible_qos=self._changed)
        self._subscription = self._node.create_subscription(
            self._kind, self._topic, self._arrived,
            QoSProfile(depth=self._depth, reliability=reliability, durability=durability),
            event_callbacks=events, raw=self._raw,
        )  # fmt: skip

    def close(self) -> None:
        """Take the subscription out of the graph."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
        self._node.destroy_guard_condition(self._guard)
        self._node.subscribed.discard(self)
        self._guard = None

    def _arrived(self, message: Any, info: Mapping[str, Any]) -> None:
        last, number = self._number, info.get('publication_sequence_number')
        same, self._same, self._number = self._same, True, number
        missing = 0 if number is None or last is None else number - last - 1
        if missing and same and self._subscription.get_publisher_count() != 1:
            # each has numbers of its own
            missing = 0
        if same:
            self.missed += max(missing, 0)
        self.gap = bool(missing) or (number is not None and last is None)
        self._receive(message)

    def _changed(self, event: Any) -> None:
        # another publisher has numbers of its own
        self._same = False
        if self._guard is not None:
            self._guard.trigger()


class OrderedSubscription(Subscription):
    """
    Takes the messages of one sensor in the order of their stamps and at most at ``max_rate``.

    It counts every message in ``health``, and drops what is late, doubled or too many there.
    """

    def __init__(
        self, node: Any, kind: Any, topic: str, take: Callable[[Any, int, float], None],
        reliability: str, health: Health, restart: Callable[[], None] = lambda: None,
        unpack: Callable[[Any, bool], Any] = lambda message, lost: message, depth: int = 1,
    ) -> None:  # fmt: skip
        """
        Call ``take`` with message, stamp (ns) and arrival (``time.monotonic``).

        ``unpack`` gets every message and whether one before it may not have come, and what it
        returns is taken, None being a packet without a picture. ``restart`` is called where the
        stamps jump back by more than 1 s. ``node.settings.max_rate`` is read for every message.
        """
        self._order = StampOrder()
        self._ordered, self._health, self._restart = take, health, restart
        self._unpack = unpack
        super().__init__(node, kind, topic, self._in_order, reliability, depth)

    def _in_order(self, message: Any) -> None:
        now, health = time.monotonic(), self._health
        health.counts['received'] += 1
        health.counts['not_received'] = self.missed
        health.received.append(now)
        try:
            message = self._unpack(message, self.gap)
            if message is None:
                health.drop(now, 'no_picture')
                return
            stamp = message.header.stamp
            stamp_ns = int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
            health.unstamped = not stamp_ns
            drop, jump = self._order.check(stamp_ns, now, self._node.settings.max_rate)
            if drop:
                health.drop(now, drop)
                return
            if jump:
                health.counts['time_jumps'] += 1
                text = f'stamps jumped back by {jump:.2f} s'
                health.warn(now, 'jump', text, log=text)
                if jump * 1e9 > JUMP_NS:
                    self._restart()
            self._ordered(message, stamp_ns, now)
        except Exception as error:
            # nothing that is received may end the node
            text = f'a message cannot be used: {type(error).__name__}: {error}'
            health.drop(now, health.unreadable, text)


class StampOrder:
    """
    Keeps the order of one sensor's stamps and its rate.

    Messages without a stamp (0) are taken in the order they come. One that is behind the last is
    late, unless that one was stamped in the future: farther ahead of its arrival than those
    before it, which this one confirms.
    """

    def __init__(self) -> None:
        """Start without a past."""
        self._last_ns = 0
        self._leads: deque[float] = deque(maxlen=8)
        """Seconds from arrival to stamp of the latest messages that were not from the future."""
        self._late_ns = 0
        self._doubted = False
        self._due = -float('inf')

    def check(self, stamp_ns: int, now: float, max_rate: float) -> tuple[str, float]:
        """
        Judge the message of ``stamp_ns`` that came at ``now`` (seconds of a steady clock).

        ``max_rate`` in messages a second, 0 for no limit; on average it is met exactly. Return the
        reason to drop it, '' for none, and the seconds that the stamps went back before this
        message, which is taken all the same.
        """
        jump, lead = 0.0, stamp_ns / 1e9 - now
        early = lead > max(self._leads, default=lead) + AHEAD_S
        if stamp_ns and self._last_ns:
            ahead = stamp_ns - self._last_ns
            if ahead == 0:
                return 'duplicate_stamp', 0.0
            if ahead < -JUMP_NS or (ahead < 0 and self._doubted and not early):
                jump = -ahead / 1e9
            elif ahead < 0 and len(self._leads) == 1 and 0 < self._late_ns < stamp_ns:
                # two in a row say that the first of all was stamped in the future
                jump = -ahead / 1e9
                self._leads.clear()
            elif ahead < 0:
                self._late_ns = stamp_ns
                return 'out_of_order', 0.0
        if stamp_ns:
            if jump * 1e9 > JUMP_NS or (early and self._doubted):
                # a clock was set: two in a row say so
                self._leads.clear()
                early = False
            self._doubted, self._late_ns = early, 0
            if not early:
                self._leads.append(lead)
        # also of a message that the rate drops: one before it must not come after it
        self._last_ns = stamp_ns or self._last_ns
        if max_rate > 0 and not jump:
            period = 1 / max_rate
            # the rate may have been raised
            self._due = min(self._due, now + period)
            if now < self._due:
                return 'max_rate', 0.0
            self._due = (self._due if now - self._due < period else now) + period
        return '', jump
