# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Where frames are to each other: parameters first, then tf2 where it is installed."""

from __future__ import annotations

import importlib
from typing import Any

from rclpy.time import Time

from nightseg_ros.clouds.errors import CloudError
from nightseg_ros.clouds.messages import read_transform
from nightseg_ros.clouds.transform import FrameTree, Matrix


class Places:
    """Answers ``lookup`` from configure to cleanup."""

    def __init__(self, node: Any, transforms: tuple[str, ...], use_tf: bool) -> None:
        """Take the static transforms, and listen to tf where it may be asked."""
        self._static = FrameTree()
        for text in transforms:
            self._static.add_text(text)
        self._tf2: Any = None
        self._buffer: Any = None
        self._listener: Any = None
        self.hint = 'give their places in the parameter transforms'
        if not use_tf:
            return
        try:
            self._tf2 = importlib.import_module('tf2_ros')
        except ImportError:
            self.hint = f'tf2_ros is not installed: {self.hint}'
            return
        self._buffer = self._tf2.Buffer()
        self._listener = self._tf2.TransformListener(self._buffer, node)
        self.hint = f'publish their places on /tf_static, or {self.hint}'

    def lookup(self, target: str, source: str, stamp_ns: int) -> Matrix:
        """Return target_from_source at a stamp; ``CloudError`` says what to do about it."""
        try:
            return self._static.lookup(target, source)
        except CloudError as error:
            if self._buffer is None:
                raise CloudError(f'{error}; {self.hint}') from error
        try:
            # tf2 refuses the slash that ROS 1 had before frames
            found = self._buffer.lookup_transform(
                target.strip('/'), source.strip('/'), Time(nanoseconds=stamp_ns)
            )
        except self._tf2.TransformException as error:
            raise CloudError(f"tf: '{source}' to '{target}': {error}; {self.hint}") from error
        return read_transform(found)

    def clear(self) -> None:
        """Forget what moves, as when stamps start over: tf2 takes nothing older than it has."""
        if self._buffer is not None:
            self._buffer.clear()

    def close(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.unregister()
        self._listener = self._buffer = None
