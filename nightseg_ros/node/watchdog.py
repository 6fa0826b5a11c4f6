# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
Ends a process that hangs, so that the launch file restarts it.

A thread that hangs cannot be ended, but a process can. A hang is reported after ``LATE`` seconds;
at the limit of its task the stacks of all threads are dumped and the process exits with code 1.
"""

from __future__ import annotations

from contextlib import suppress
import faulthandler
import fcntl
import os
import subprocess
import sys
import threading
import time
from typing import Any, NamedTuple

from nightseg_ros.node import guard
from nightseg_ros.shared_memory import remove_own

#: Seconds after which a task that has not ended is reported.
LATE = 1.2
#: Seconds between two checks.
PERIOD = 0.5
#: Seconds beyond the limit after which the guard ends the process.
GRACE = 5.0


class Task(NamedTuple):
    """What a thread works on."""

    text: str
    limit: float
    """Seconds that it may take; below 0 it has failed, and nothing will end it."""
    since: float
    """``time.monotonic`` at its start."""


class Hang(NamedTuple):
    """A task that has not ended in time."""

    task: Task
    seconds: float

    def __str__(self) -> str:
        """Return what the log and the diagnostics show."""
        return f'{self.task.text} for {self.seconds:.1f} s' if self.seconds else self.task.text

    @property
    def fatal(self) -> bool:
        """Whether the process has to end."""
        return self.seconds > self.task.limit


class Activity:
    """
    What the threads of the process work on: each sets its own task, the watchdog's checks them.

    Time in which the process was stopped (a debugger, a paused container) does not count; long
    gaps between two checks tell it.
    """

    def __init__(self, now: float) -> None:
        """Begin at ``now`` (seconds of ``time.monotonic``), idle."""
        self.tasks: dict[object, Task] = {}
        """By whatever names a thread."""
        self.hang: Hang | None = None
        """What the last check returned."""
        self._checked = self._resumed = now

    def check(self, now: float) -> Hang | None:
        """Return the worst task that has failed, or taken longer than ``LATE`` s at ``now``."""
        if now - self._checked > 4 * PERIOD:
            self._resumed = now
        self._checked = now
        hangs = []
        for task in self.tasks.copy().values():
            seconds = 0.0 if task.limit < 0 else now - max(task.since, self._resumed)
            if task.limit < 0 or seconds > LATE:
                hangs.append(Hang(task, seconds))
        self.hang = max(hangs, key=lambda hang: (hang.fatal, hang.seconds), default=None)
        return self.hang


class Watchdog:
    """The thread that checks a ``ManagedNode``, and itself has a guard."""

    def __init__(self, node: Any) -> None:
        """Begin to check twice a second."""
        self._node = node
        self._closed = threading.Event()
        # kept open: where the guard is killed, faulthandler's thread must wait for the next one
        self._pipe, full = os.pipe()
        os.write(full, bytes(fcntl.fcntl(full, fcntl.F_SETPIPE_SZ, 4096)))
        faulthandler.dump_traceback_later(0.001, exit=True, file=full)
        self._guard = self._new_guard()
        self._thread = threading.Thread(target=self._run, name='nightseg watchdog', daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop checking; the process has to end by ``exit_now`` then."""
        self._closed.set()
        self._thread.join()
        self._guard.kill()
        self._guard.wait()

    def _new_guard(self) -> subprocess.Popen[bytes]:
        """Start the process that ends this one where no Python code runs in it."""
        command = [sys.executable, '-I', '-S', guard.__file__, str(os.getpid()), str(self._pipe)]
        process = subprocess.Popen(
            command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            pass_fds=(self._pipe,), start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        self._beats = process.stdin.fileno()
        os.set_blocking(self._beats, False)
        return process

    def _run(self) -> None:
        while not self._closed.is_set():
            if self._guard.poll() is not None:
                # where no process or descriptor is free now, it is tried again
                with suppress(OSError):
                    self._guard = self._new_guard()
            # where it was stopped its pipe is full at last
            with suppress(OSError):
                os.write(self._beats, b'%f\n' % (self._node.longest() + GRACE))
            self._closed.wait(PERIOD)
            hang = self._node.activity.check(time.monotonic())
            if hang is None:
                continue
            # a node that is being destroyed cannot report; the limits hold all the same
            with suppress(Exception):
                self._node.report_hang(hang)
            if hang.fatal:
                # also where Python has no sys.stderr
                faulthandler.dump_traceback(2, all_threads=True)
                # the last report has to leave the process
                time.sleep(PERIOD)
                exit_now(1)


def exit_now(code: int) -> None:
    """
    Exit without taking the interpreter apart.

    ``sys.exit`` would do so with the networks' libraries in it: that takes seconds in which no
    thread can watch a deadline, and never ends while a thread computes or hangs
    (test_node_lifecycle.py has a signal during inference, test_faults_process.py a hang).
    """
    for stream in (sys.stdout, sys.stderr):
        # None where it was closed, and full where its reader has stopped
        with suppress(AttributeError, OSError):
            stream.flush()
    # where the node could not be destroyed
    remove_own()
    os._exit(code)
