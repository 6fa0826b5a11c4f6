# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""Child processes that are always ended, and whose last words are kept; and successors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from nightseg_ros.config import ConfigError
from nightseg_ros.dds import profile_environment


class ProcessError(RuntimeError):
    """A child process that failed, with what it said last."""


class Child:
    """
    One ``python -m MODULE`` process, its output in a file.

    It leads a process group of its own, so that Ctrl-C reaches this process first, which then
    ends its children in order. Leaving the ``with`` block ends it in any case.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], *, log: Path, environ: Mapping[str, str]
    ) -> None:
        """Start it."""
        self.name = module.rpartition('.')[2]
        self.log = log
        with log.open('wb') as output:
            self._process = subprocess.Popen(
                [sys.executable, '-m', module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environ, 'PYTHONUNBUFFERED': '1'},
                start_new_session=True,
            )

    def __enter__(self) -> Child:
        """Use it in a ``with`` block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it, gently first."""
        for number, patience in ((signal.SIGINT, 5.0), (signal.SIGTERM, 2.0), (signal.SIGKILL, 5)):
            if self.code is not None:
                return
            self.signal(number)
            self._wait(patience)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.poll()

    def check(self) -> None:
        """Raise ``ProcessError`` where it has ended."""
        if self.code is not None:
            raise ProcessError(f'{self.name} ended with {self.code}:\n{self.last_words()}')

    def stop(self, patience: float) -> None:
        """Ask it to end (SIGINT); ``ProcessError`` where it does not, or not with 0."""
        self.signal(signal.SIGINT)
        self._wait(patience)
        if self.code is None:
            raise ProcessError(
                f'{self.name} did not end within {patience:g} s of SIGINT:\n{self.last_words()}'
            )
        if self.code != 0:
            self.check()

    def last_words(self, lines: int = 15) -> str:
        """Return the end of its output."""
        text = self.log.read_text(encoding='utf-8', errors='replace').splitlines()
        return '\n'.join(f'  | {line}' for line in text[-lines:]) or '  (it said nothing)'

    def last_line(self, width: int = 60) -> str:
        """Return its last line, cut to ``width`` characters, without the logger's prefix."""
        words = self.last_words(1).strip().removeprefix('| ').rpartition(']: ')[2]
        return words[:width]

    def signal(self, number: int) -> None:
        """Send a signal to it and to its children, if it runs."""
        if self.code is None:
            os.killpg(self._process.pid, number)

    def _wait(self, patience: float) -> None:
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return


def become(module: str, arguments: Sequence[str]) -> NoReturn:
    """
    Run ``python -m MODULE`` in place of this process, with the DDS profile for large images.

    ``ConfigError`` where there is no ROS 2. It does not return.
    """
    if find_spec('rclpy') is None:
        raise ConfigError(
            'this needs ROS 2 (rclpy): source a ROS 2 setup file, or '
            '`pip install -r requirements/ros-jazzy.txt`'
        )
    # buffered words would be lost with this process
    sys.stdout.flush()
    sys.stderr.flush()
    environ = {**os.environ, **profile_environment(), 'PYTHONUNBUFFERED': '1'}
    os.execve(sys.executable, [sys.executable, '-m', module, *arguments], environ)  # noqa: S606  # nosec
