# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Which network segments the next frame: illumination in, route and its reason out.

The only clock is the frames' own stamps, so a bag gives the same routes live, slowed down and
offline. One ``Router`` follows one camera; a ``RouterBank`` holds those of a vehicle, either one
per camera or one decision for all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
import math
import statistics
from typing import Any, Literal

from nightseg_ros.config import check_rules, Limited, live
from nightseg_ros.perception.illumination import BRIGHT, DARK, Illumination, State, state_of

Route = Literal['day', 'night', 'translate']
ROUTES: tuple[Route, ...] = ('day', 'night', 'translate')

#: Brighter states rank higher; glare is as urgent as night.
_RANK: dict[State, int] = {'glare': 0, 'night': 0, 'dusk': 1, 'day': 2}


#: Stamps that are further apart than a day are those of a clock that was set, or of none.
CLOCK_SET_S = 86_400.0


def _route_of(state: State, route: Route) -> Any:
    return live(route, f'route when it is {state}', choices=ROUTES)


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteTable:
    """The route of each state; a light that is not known takes that of the night."""

    day: Route = _route_of('day', 'day')
    dusk: Route = _route_of('dusk', 'day')
    night: Route = _route_of('night', 'night')
    glare: Route = _route_of('glare', 'night')

    def routes(self) -> tuple[Route, ...]:
        """Return every route that the table can pick, each once, in the order of ``ROUTES``."""
        used = {getattr(self, item.name) for item in fields(self)}
        return tuple(route for route in ROUTES if route in used)


@dataclass(frozen=True, kw_only=True, slots=True)
class RouterConfig(Limited):
    """
    When the state may change, and what each state is routed to.

    At 30 m/s two seconds are 60 m of tunnel on the wrong network, so the dwell of the dark is
    short. In shared mode the score is the median of the cameras' scores.
    """

    # fmt: off
    dark: float = live(DARK, 'night below this score (0 dark, 1 daylight)', bounds=(0, 1))
    bright: float = live(BRIGHT, 'day above this score; dusk lies between', bounds=(0, 1))
    hysteresis: float = live(
        0.1, 'how far beyond its threshold a score must be to leave a state', bounds=(0, 1))
    dwell_dark_s: float = live(
        0.5, 'seconds that a darker state must last to count', bounds=(0, 600))
    dwell_bright_s: float = live(
        3.0, 'seconds that a brighter state must last to count', bounds=(0, 600))
    gap_s: float = live(
        10.0, 'seconds without a frame after which the next one decides at once',
        bounds=(0, 3600))
    shared: bool = live(False, 'one decision for all cameras of the vehicle')
    stale_s: float = live(
        1.0, 'with router.shared: seconds after which a score is ignored',
        bounds=(0.001, 60))
    table: RouteTable = field(default_factory=RouteTable)
    # fmt: on

    def __post_init__(self) -> None:
        """Name the key that is out of range or contradicts another."""
        Limited.__post_init__(self)
        longest = max(self.dwell_dark_s, self.dwell_bright_s)
        span = self.bright - self.dark
        check_rules(
            self,
            ('dark', span > 0, f"be below 'bright' ({self.bright})"),
            # 0.6 - 0.5 is less than 0.1
            ('hysteresis', self.hysteresis <= span + 1e-9,
             f'be from 0 to bright − dark ({span:g})'),
            ('gap_s', longest < self.gap_s,
             f'be longer than both dwells ({longest:g} s), or none could pass'),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """The route of one frame."""

    state: State
    route: Route
    reason: str
    """Why this route holds: what last set it, and what is pending against it."""
    switched: bool
    """True on the one frame whose route differs from the route of the frame before it."""


class Router:
    """
    A state machine over day, dusk, night and glare for one stream of frames.

    A new state must last for the dwell of its direction. The timer starts with the first frame on
    that side and is reset by any frame that agrees with the current state or lies on the other
    side. A frame without a usable score counts as dusk, and so does what is before the first
    score; such a dusk has the route of the night, which is the safe one in any light.
    """

    def __init__(self, config: RouterConfig | None = None, forced: Route | None = None) -> None:
        """Fix the route past the table with ``forced``; the state is followed all the same."""
        self.config = config or RouterConfig()
        self.state: State | None = None
        """None before the first usable score."""
        self.forced = forced
        """May be changed between frames; None gives the route back to the table."""
        self._last_ns: int | None = None
        self._since_ns: int | None = None
        self._brighter = False
        self._why = ''
        self._afresh = 'first frame'
        self._unknown = True
        self._decision: Decision | None = None

    @property
    def route(self) -> Route:
        """Return the forced route or the one of the table."""
        if self.forced:
            return self.forced
        route: Route = getattr(
            self.config.table, 'night' if self._unknown else self.state or 'dusk'
        )
        return route

    def reset(self, reason: str) -> None:
        """Forget state and time: the next frame decides at once and names ``reason``."""
        self.state = self._last_ns = self._since_ns = None
        self._afresh = reason

    def update(self, stamp_ns: int, illumination: Illumination) -> Decision:
        """
        Take the illumination of the frame of ``stamp_ns`` and return its route.

        A repeated stamp, or one up to 1 s back, changes nothing. A stamp further back (a bag
        that loops) and a gap of more than ``gap_s`` make this frame decide afresh. A jump of more
        than ``CLOCK_SET_S``, also of one wild stamp, tells nothing about the light: state and
        dwell go on as if no time had passed.
        """
        last = self._decision
        if last is not None and stamp_ns == self._last_ns and last.route == self.route:
            # also of a batch that is processed again, which must not hide a switch
            return last
        pending = self._advance(stamp_ns, illumination)
        state: State = self.state or 'dusk'
        self._unknown = state == 'dusk' and not _usable(illumination)
        route = self.route
        switched = last is not None and route != last.route
        why = self._why if self.state else f'no usable score since {self._afresh}: taken as dusk'
        if self.forced:
            why = f'route forced to {self.forced}; state {state}: {why}'
        reason = f'{why}; {pending}' if pending else why
        self._decision = Decision(state=state, route=route, reason=reason, switched=switched)
        return self._decision

    def _advance(self, stamp_ns: int, illumination: Illumination) -> str:
        """Move the state on and return what is pending, '' if nothing is."""
        if self._last_ns is not None:
            elapsed = (stamp_ns - self._last_ns) / 1e9
            if abs(elapsed) > CLOCK_SET_S:
                if self._since_ns is not None:
                    self._since_ns += stamp_ns - self._last_ns
            elif elapsed < -1:
                self.reset(f'time went back {-elapsed:.1f} s')
            elif elapsed <= 0:
                return '' if elapsed == 0 else f'frame {-1000 * elapsed:.0f} ms late, ignored'
            elif elapsed > self.config.gap_s:
                self.reset(f'no frame for {elapsed:.1f} s')
        self._last_ns = stamp_ns

        target, cause = self._target(illumination)
        if self.state is None:
            if not _usable(illumination):
                return cause
            self.state = target
            self._why = f'{target} at once ({self._afresh}): {cause}'
            return ''
        if target == self.state:
            self._since_ns = None
            return ''

        brighter = _RANK[target] > _RANK[self.state]
        if self._since_ns is None or brighter != self._brighter:
            self._since_ns, self._brighter = stamp_ns, brighter
        dwell = self.config.dwell_bright_s if brighter else self.config.dwell_dark_s
        lasted = (stamp_ns - self._since_ns) / 1e9
        # whole nanoseconds: float seconds of an epoch stamp would round differently offline
        if stamp_ns - self._since_ns < round(dwell * 1e9):
            return f'{target} for {lasted:.1f} of {dwell:g} s: {cause}'
        self._why = f'{self.state} to {target} after {lasted:.1f} s: {cause}'
        self.state, self._since_ns = target, None
        return ''

    def _target(self, illumination: Illumination) -> tuple[State, str]:
        """Return the state that this frame alone speaks for, and why."""
        config = self.config
        if not _usable(illumination):
            return 'dusk', 'no score from this frame'
        score = illumination.score
        if illumination.state == 'glare':
            return 'glare', f'a dazzling light (score {score:.2f})'
        # an ended state must be left by a margin; an entered one must be reached in full
        dark = config.dark + (config.hysteresis if self.state == 'night' else 0)
        bright = config.bright - (config.hysteresis if self.state == 'day' else 0)
        if score < dark:
            return 'night', f'score {score:.2f} below {dark:.2f}'
        if score > bright:
            return 'day', f'score {score:.2f} above {bright:.2f}'
        return 'dusk', f'score {score:.2f} between {dark:.2f} and {bright:.2f}'


def _usable(illumination: Illumination) -> bool:
    return math.isfinite(illumination.score)


class RouterBank:
    """
    The routers of a vehicle's cameras; with ``config.shared`` they have one decision.

    The stamps of one camera, the leader, are its clock. The score is the median of the latest
    scores of all cameras whose stamps lie within ``stale_s`` of the leader's, so that a foreign
    clock has no say; glare needs at least half of them. If the leader sends nothing while another
    camera goes on for ``stale_s`` of its own time, that one leads.
    """

    def __init__(self, config: RouterConfig | None = None, forced: Route | None = None) -> None:
        """Fix every camera's route past the table with ``forced``."""
        self.config = config or RouterConfig()
        self._routers: dict[str, Router] = {}
        self._shared = Router(self.config, forced)
        self._leader: str | None = None
        self._latest: dict[str, tuple[int, Illumination]] = {}
        self._waiting: dict[str, int] = {}
        self._decision: Decision | None = None

    def force(self, route: Route | None) -> None:
        """Fix every camera's route from its next frame on; None gives it back to the table."""
        for router in (self._shared, *self._routers.values()):
            router.forced = route

    def change(self, config: RouterConfig) -> None:
        """Follow another config from the next frame on; what the routers know stays."""
        if config.shared != self.config.shared:
            self._leader = self._decision = None
            self._waiting.clear()
        self.config = config
        for router in (self._shared, *self._routers.values()):
            router.config = config

    def reset(self, reason: str) -> None:
        """Make every router decide afresh."""
        for router in (self._shared, *self._routers.values()):
            router.reset(reason)
        self._leader = None
        self._latest.clear()
        self._waiting.clear()

    def update(self, camera: str, stamp_ns: int, illumination: Illumination) -> Decision:
        """Take one camera's frame and return the decision that holds for it."""
        if not self.config.shared:
            if camera not in self._routers:
                self._routers[camera] = Router(self.config, self._shared.forced)
            return self._routers[camera].update(stamp_ns, illumination)

        self._latest[camera] = (stamp_ns, illumination)
        if self._decision is not None and not self._leads(camera, stamp_ns):
            held = self._decision
            return replace(held, route=self._shared.route, switched=False)
        self._leader = camera
        self._waiting.clear()
        combined, cameras = self._combined(stamp_ns)
        decision = self._shared.update(stamp_ns, combined)
        reason = f'{decision.reason} (median of {cameras} cameras)'
        self._decision = replace(decision, reason=reason)
        return self._decision

    def _leads(self, camera: str, stamp_ns: int) -> bool:
        """Tell whether this camera's stamps are, or from now on shall be, the clock."""
        if self._leader is None or camera == self._leader:
            return True
        first = min(stamp_ns, self._waiting.get(camera, stamp_ns))
        if stamp_ns - first > CLOCK_SET_S * 1e9:
            first = stamp_ns
        self._waiting[camera] = first
        return stamp_ns - first >= round(self.config.stale_s * 1e9)

    def _combined(self, stamp_ns: int) -> tuple[Illumination, int]:
        """Return the median of the usable scores around ``stamp_ns``, or NaN, and their number."""
        stale_ns = round(self.config.stale_s * 1e9)
        usable = [
            light
            for stamp, light in self._latest.values()
            if _usable(light) and abs(stamp - stamp_ns) <= stale_ns
        ]
        if not usable:
            return Illumination(score=math.nan, state='dusk'), 0
        score = statistics.median(light.score for light in usable)
        dazzled = sum(light.state == 'glare' for light in usable)
        state: State = 'glare' if 2 * dazzled >= len(usable) else state_of(score)
        return Illumination(score=score, state=state), len(usable)
