# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Ends a process that hangs.

A thread that does not come back cannot be killed, but a process can, and the launch file brings it
back. While it is late this says so, and at its limit it ends the process with exit code 1, after
the stacks of all threads.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from nightseg_ros.shared_memory import remove_own

#: Seconds after which something that has not come back is told.
LATE = 1.2
#: Seconds between two looks.
PERIOD = 0.5
#: Seconds beyond the limit after which the process ends although nothing of Python runs in it:
#: a library that hangs may hold the interpreter's lock.
GRACE = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """Seconds after which something is given up."""

    batch: float = 30.0
    """For a batch, or a callback."""
    load: float = 600.0
    """For networks that are loaded, or made ready for a size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stall:
    """Something that has not come back."""

    text: str
    seconds: float
    limit: float
    """Seconds after which there is no more hope."""

    def __str__(self) -> str:
        """Return what a log and a status say."""
        return f'{self.text} for {self.seconds:.1f} s' if self.seconds else self.text

    @property
    def hopeless(self) -> bool:
        """Whether the process has to end."""
        return self.seconds > self.limit


class Watch:
    """
    Knows since when a thread has been at one thing; every time is passed in.

    Times are seconds of one steady clock. Time in which the process was stopped (a debugger, a
    paused container) does not count; ``look`` tells it by the distance between its own calls.
    """

    def __init__(self, now: float) -> None:
        """Begin at ``now``, idle."""
        self._task: tuple[str, float, float] | None = None
        self._looked = self._forgiven = now

    def begin(self, text: str, limit: float, now: float) -> None:
        """Begin something that may take ``limit`` seconds; it replaces what was under way."""
        self._task = (text, limit, now)

    def end(self) -> None:
        """Become idle."""
        self._task = None

    @property
    def limit(self) -> float:
        """Seconds that what is under way may take, 0 when idle."""
        task = self._task
        return 0.0 if task is None else task[1]

    def look(self, now: float) -> Stall | None:
        """Return what has taken longer than ``LATE`` seconds at ``now``."""
        if now - self._looked > 4 * PERIOD:
            self._forgiven = now
        self._looked = now
        # the other thread may end it meanwhile
        task = self._task
        if task is None:
            return None
        text, limit, since = task
        seconds = now - max(since, self._forgiven)
        return Stall(text=text, seconds=seconds, limit=limit) if seconds > LATE else None


class Watchdog:
    """The thread that looks."""

    def __init__(
        self,
        look: Callable[[float], Stall | None],
        tell: Callable[[Stall], None],
        limit: Callable[[], float],
    ) -> None:
        """
        ``look`` says at a steady time what stalls, ``tell`` makes it known.

        ``limit`` is how many seconds this very thread may be kept from looking.
        """
        self._look, self._tell, self._limit = look, tell, limit
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name='nightseg watchdog', daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._closed.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _run(self) -> None:
        while not self._closed.is_set():
            # its timer needs no interpreter
            faulthandler.dump_traceback_later(self._limit() + GRACE, exit=True)
            self._closed.wait(PERIOD)
            stall = self._look(time.monotonic())
            if stall is None:
                continue
            self._tell(stall)
            if stall.hopeless:
                self._end()

    def _end(self) -> None:
        faulthandler.dump_traceback(all_threads=True)
        # what was told last has to leave the process
        time.sleep(PERIOD)
        sys.stdout.flush()
        sys.stderr.flush()
        remove_own()
        os._exit(1)
