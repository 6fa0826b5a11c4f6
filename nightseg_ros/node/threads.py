# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Threads that outlive their work."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar('T')
Job = tuple[Callable[[], None], threading.Event]


class Threads:
    """
    Daemon threads that do one job after another.

    A thread for each job would be simpler, but for as long as the process lives, OpenCV keeps
    0.8 kB for each that ever called it, and OpenVINO 0.3 kB for each network that ran in another
    thread than the one that compiled it.
    """

    def __init__(self, name: str) -> None:
        """Call all of them ``name``."""
        self._name = name
        self._idle: deque[SimpleQueue[Job]] = deque()

    def begin(self, work: Callable[[], None]) -> threading.Event:
        """
        Run ``work`` in a thread that has nothing to do; return what is set once it has ended.

        A thread that is still busy is not waited for, and one that ended by an error is gone.
        """
        ended = threading.Event()
        try:
            jobs = self._idle.pop()
        except IndexError:
            jobs = SimpleQueue()
            threading.Thread(
                target=self._serve, args=(jobs,), name=self._name, daemon=True
            ).start()
        jobs.put((work, ended))
        return ended

    def run(self, work: Callable[[], T]) -> T:
        """Return what ``work`` returns in such a thread, or raise its error."""
        future: Future[T] = Future()

        def keep() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        self.begin(keep).wait()
        return future.result()

    def _serve(self, jobs: SimpleQueue[Job]) -> None:
        while True:
            work, ended = jobs.get()
            try:
                work()
                self._idle.append(jobs)
            finally:
                # whoever waits may free what the work held
                del work
                ended.set()
