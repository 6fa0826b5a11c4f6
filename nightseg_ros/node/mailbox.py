# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The latest frame of each camera, between the executor's thread and the worker's."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar('T')


class Mailbox(Generic[T]):
    """One slot a camera; the latest frame wins."""

    def __init__(self) -> None:
        """Open with every slot empty."""
        self._slots: dict[str, T] = {}
        self._condition = threading.Condition()
        self._closed = False

    def put(self, camera: str, item: T) -> T | None:
        """Fill the camera's slot; return the item that was never taken out of it, if any."""
        with self._condition:
            before = self._slots.pop(camera, None)
            if not self._closed:
                self._slots[camera] = item
                self._condition.notify()
            return before

    def take(self) -> list[T]:
        """Wait for an item, then empty every slot, the longest waiting first; [] once closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._slots or self._closed)
            items = [] if self._closed else list(self._slots.values())
            self._slots.clear()
            return items

    def close(self) -> None:
        """Drop what waits and let ``take`` return."""
        with self._condition:
            self._closed = True
            self._slots.clear()
            self._condition.notify_all()
