# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Work before and after the networks, each in a thread of its own behind a short queue."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar('T')

#: Items that wait between two stages; more would only take memory.
DEPTH = 4


class _End:
    """What comes after the last item: nothing, or the error that ended it."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def read_ahead(items: Iterable[T], depth: int = DEPTH) -> Generator[T, None, None]:
    """
    Yield the items in their order while a thread fetches up to ``depth`` further ones.

    An error of the iterator is raised here. Closing the generator ends the thread.
    """
    waiting: queue.Queue[T | _End] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: T | _End) -> bool:
        while not stop.is_set():
            with suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                return True
        return False

    def fetch() -> None:
        end = _End()
        try:
            for item in items:
                if not put(item):
                    return
        except BaseException as error:  # whatever it was, it belongs to the thread that waits
            end.error = error
        put(end)

    thread = threading.Thread(target=fetch, name='read ahead', daemon=True)
    thread.start()
    try:
        while True:
            item = waiting.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        stop.set()
        thread.join()


class Sink(Generic[T]):
    """
    Hands items to ``work`` in a thread, in their order, and waits for it at the end of ``with``.

    An error of ``work`` is raised by the next ``put`` or at the end; what came after it is
    dropped. An error inside the ``with`` block drops what still waits.
    """

    def __init__(self, work: Callable[[T], None], depth: int = DEPTH) -> None:
        """Start the thread."""
        self._work = work
        self._waiting: queue.Queue[T | _End] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._drop = threading.Event()
        self._thread = threading.Thread(target=self._run, name='metrics', daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Queue an item; wait where the queue is full."""
        if self._error is not None:
            raise self._error
        self._waiting.put(item)

    def __enter__(self) -> Sink[T]:
        """Use it in a ``with`` block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let it finish, and raise its error if it had one."""
        if kind is not None:
            self._drop.set()
        self._waiting.put(_End())
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        while not isinstance(item := self._waiting.get(), _End):
            if self._error is not None or self._drop.is_set():
                continue
            try:
                self._work(item)
            except BaseException as error:  # raised again by put or at the end
                self._error = error
