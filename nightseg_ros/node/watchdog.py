# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Ends a process that hangs, so that the launch file restarts it.

A thread that hangs cannot be ended, but a process can. A hang is reported after ``LATE`` seconds;
at the limit of its task the stacks of all threads are dumped and the process exits with code 1.
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

#: Seconds after which a task that has not ended is reported.
LATE = 1.2
#: Seconds between two checks.
PERIOD = 0.5
#: Seconds beyond the limit after which the process ends although no Python code runs in it:
#: a library that hangs may hold the interpreter's lock.
GRACE = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """Seconds after which the process ends."""

    batch: float = 30.0
    """For a batch of frames, or a callback."""
    load: float = 600.0
    """For networks that are loaded, or made ready for a size of image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hang:
    """A task that has not ended in time."""

    text: str
    seconds: float
    limit: float
    """Seconds after which the process ends."""

    def __str__(self) -> str:
        """Return what the log and the diagnostics show."""
        return f'{self.text} for {self.seconds:.1f} s' if self.seconds else self.text

    @property
    def fatal(self) -> bool:
        """Whether the process has to end."""
        return self.seconds > self.limit


@dataclass(frozen=True, slots=True)
class Task:
    """What a thread works on."""

    text: str
    limit: float
    """Seconds that it may take."""
    since: float
    """``time.monotonic`` at its start."""


class Activity:
    """
    The task of one thread: that thread sets ``task``, the watchdog's calls ``check``.

    Time in which the process was stopped (a debugger, a paused container) does not count; long
    gaps between two checks tell it.
    """

    def __init__(self, now: float) -> None:
        """Begin at ``now`` (seconds of ``time.monotonic``), idle."""
        self.task: Task | None = None
        self._checked = self._resumed = now

    @property
    def limit(self) -> float:
        """Seconds that the task may take, 0 when idle."""
        task = self.task
        return 0.0 if task is None else task.limit

    def check(self, now: float) -> Hang | None:
        """Return a task that has taken longer than ``LATE`` seconds at ``now``."""
        if now - self._checked > 4 * PERIOD:
            self._resumed = now
        self._checked = now
        # the other thread may end it meanwhile
        task = self.task
        if task is None:
            return None
        seconds = now - max(task.since, self._resumed)
        return Hang(text=task.text, seconds=seconds, limit=task.limit) if seconds > LATE else None


class Watchdog:
    """The thread that checks."""

    def __init__(
        self,
        check: Callable[[float], Hang | None],
        report: Callable[[Hang], None],
        limit: Callable[[], float],
    ) -> None:
        """
        Call ``check`` twice a second with ``time.monotonic``, and ``report`` with what it returns.

        ``limit`` returns how many seconds this thread itself may be kept from running.
        """
        self._check, self._report, self._limit = check, report, limit
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name='nightseg watchdog', daemon=True)

    def start(self) -> None:
        """Begin to check."""
        self._thread.start()

    def close(self) -> None:
        """Stop checking."""
        self._closed.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _run(self) -> None:
        while not self._closed.is_set():
            # its timer runs without the interpreter
            faulthandler.dump_traceback_later(self._limit() + GRACE, exit=True)
            self._closed.wait(PERIOD)
            hang = self._check(time.monotonic())
            if hang is None:
                continue
            self._report(hang)
            if hang.fatal:
                _end()


def _end() -> None:
    """Dump all stacks and exit with code 1; ``sys.exit`` would wait for the thread that hangs."""
    faulthandler.dump_traceback(all_threads=True)
    # the last report has to leave the process
    time.sleep(PERIOD)
    sys.stdout.flush()
    sys.stderr.flush()
    remove_own()
    os._exit(1)
