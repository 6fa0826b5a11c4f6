# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Which of a camera's frames are taken, before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass

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
