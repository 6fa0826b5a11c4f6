# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""When a recorded frame is due again; every time is passed in."""

from __future__ import annotations


class Pacer:
    """
    Maps the stamps of a recording to a steady clock, ``rate`` times as fast.

    The first stamp is due at once. A stamp before the first one is due at once as well.
    """

    def __init__(self, rate: float) -> None:
        """Play at ``rate`` times the recorded speed."""
        if not 0 < rate < 1e6:
            raise ValueError(f'rate must be above 0, got {rate}')
        self.rate = rate
        self._first_ns: int | None = None
        self._started_ns = 0

    def due_ns(self, stamp_ns: int, now_ns: int) -> int:
        """Return the steady time (ns) at which ``stamp_ns`` is due; the first call starts it."""
        if self._first_ns is None:
            self._first_ns, self._started_ns = stamp_ns, now_ns
        return self._started_ns + round((stamp_ns - self._first_ns) / self.rate)

    def recorded_ns(self, now_ns: int) -> int:
        """Return the time of the recording (ns) at the steady time ``now_ns``."""
        if self._first_ns is None:
            raise ValueError('nothing is playing yet')
        return self._first_ns + round((now_ns - self._started_ns) * self.rate)

    def restart(self) -> None:
        """Let the next stamp start anew, for a recording that loops."""
        self._first_ns = None
