# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""One live run: player, night_perception and recorder as real ROS 2 processes, supervised."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from nightseg_ros.dds import private_domain, profile_environment

#: Seconds that the node may take to load its networks; the first run exports them.
LOADING_S = 420.0
#: After the last frame: seconds without a new mask that end the recording, and at most.
QUIET_S, LONGEST_QUIET_S = 2.0, 30.0
#: Exit code of the player where something of the input could not be read.
PLAYED_THE_REST = 1


class ProcessError(RuntimeError):
    """A child process that failed, with the end of its output."""


class Child:
    """
    One ``python -m MODULE`` process, its output in a file.

    It leads a process group of its own, so that Ctrl-C reaches this process first, which then
    ends its children in order. Leaving the ``with`` block ends it in any case.
    """

    def __init__(
        self, name: str, module: str, arguments: Sequence[str], *, log: Path,
        environ: Mapping[str, str],
    ) -> None:  # fmt: skip
        """Start it; ``name`` is for messages."""
        self.name = name
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
        """End it: SIGINT, SIGTERM, SIGKILL."""
        for number, timeout in ((signal.SIGINT, 5.0), (signal.SIGTERM, 2.0), (signal.SIGKILL, 5)):
            if self.code is not None:
                return
            self.signal(number)
            self._wait(timeout)

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
            raise ProcessError(f'{self.name} ended with {self.code}:\n{self.tail()}')

    def stop(self, timeout: float) -> None:
        """Ask it to end (SIGINT); ``ProcessError`` where it does not, or not with 0."""
        self.signal(signal.SIGINT)
        self._wait(timeout)
        if self.code is None:
            raise ProcessError(
                f'{self.name} did not end within {timeout:g} s of SIGINT:\n{self.tail()}'
            )
        if self.code != 0:
            self.check()

    def tail(self, lines: int = 15) -> str:
        """Return the end of its output."""
        text = self.log.read_text(encoding='utf-8', errors='replace').splitlines()
        return '\n'.join(f'  | {line}' for line in text[-lines:]) or '  (no output)'

    def signal(self, number: int) -> None:
        """Send a signal to it and to its children, if it runs."""
        if self.code is None:
            os.killpg(self._process.pid, number)

    def _wait(self, timeout: float) -> None:
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return


def run_live(
    play: Sequence[str],
    parameters: dict[str, str],
    folder: Path,
    *,
    compressed: bool = False,
    count: int | None = None,
    clouds: dict[str, str] | None = None,
    progress: Callable[[int, int | None, str], None],
) -> tuple[str, ...]:
    """
    Play an input in real time to a node with these parameters and record labels and status.

    ``play`` are the player's arguments, ``compressed`` tells whether they make it publish
    CompressedImage, ``count`` how many frames will come. With ``clouds`` semantic_cloud runs
    beside the node with those parameters, and the points of its sensor ``lidar`` are recorded.

    ``folder`` then holds the bag ``recorded`` and the stamp logs ``sent.jsonl`` of the player and
    ``arrived.jsonl`` of the recorder. Return the player's warnings about what it could not read.
    Everything lives in a ROS domain of its own. ``ProcessError`` tells which process failed and
    how its output ended; no process outlives this call.
    """
    sent, arrived = folder / 'sent.jsonl', folder / 'arrived.jsonl'
    transport = {'transport': 'compressed'} if compressed else {}
    waiting = ['--log', str(sent), '--wait-subscribers', '1', '--patience', str(LOADING_S)]
    record = ['record', str(folder / 'recorded'), '--cameras', 'camera']
    record += ['--outputs', 'labels', 'status', '--log', str(arrived)]
    record += ['--clouds', '/lidar/nightseg/points'] if clouds is not None else []

    with private_domain() as domain, ExitStack() as stack:
        environ = {**os.environ, **domain, **profile_environment()}
        environ['ROS_LOG_DIR'] = str(folder / 'ros_log')

        def start(name: str, module: str, arguments: list[str]) -> Child:
            log = folder / f'{name}.log'
            child = Child(name, f'nightseg_ros.{module}', arguments, log=log, environ=environ)
            return stack.enter_context(child)

        painters = []
        if clouds is not None:
            painters = [start('semantic_cloud', 'node.semantic_cloud', _ros_arguments(clouds))]
        recorder = start('recorder', 'cli.main', record)
        node = start('night_perception', 'node.main', _ros_arguments({**parameters, **transport}))
        player = start('bag_player', 'node.replay', [*play, *waiting])
        progress(0, count, 'the node loads its networks')
        while player.code is None:
            for child in (node, recorder, *painters):
                child.check()
            played = _lines(sent)
            text = 'playing in real time' if played else f'loading: {_last_message(node)}'
            progress(played, count, text)
            time.sleep(0.2)
        unread = _warnings(player.log) if player.code == PLAYED_THE_REST else ()
        if player.code != 0 and not (unread and _lines(sent)):
            raise ProcessError(
                f'bag_player ended with {player.code}:\n{player.tail()}\n'
                f'the output of night_perception ended with:\n{node.tail()}'
            )
        _wait_until_quiet(arrived, node, recorder)
        recorder.stop(60.0)
        for child in (node, *painters):
            child.stop(20.0)
    return unread


def _warnings(log: Path) -> tuple[str, ...]:
    """Return the warnings in the player's log."""
    lines = log.read_text(encoding='utf-8', errors='replace').splitlines()
    parts = [line.partition('[bag_player]: ') for line in lines if line.startswith('[WARN]')]
    return tuple(text for _, found, text in parts if found)


def _last_message(child: Child, width: int = 60) -> str:
    """Return the last line of a child's output, cut, without the logger's prefix."""
    return child.tail(1).strip().removeprefix('| ').rpartition(']: ')[2][:width]


def _wait_until_quiet(arrived: Path, *needed: Child) -> None:
    """Wait for the masks of the last frames, which may still be computed."""
    end = time.monotonic() + LONGEST_QUIET_S
    before, since = -1, time.monotonic()
    while time.monotonic() < end:
        for child in needed:
            child.check()
        count = _lines(arrived)
        if count != before:
            before, since = count, time.monotonic()
        elif time.monotonic() - since > QUIET_S:
            return
        time.sleep(0.2)


def _ros_arguments(parameters: dict[str, str]) -> list[str]:
    pairs = (('-p', f'{name}:={value}') for name, value in parameters.items())
    return ['--ros-args', *(argument for pair in pairs for argument in pair)]


def _lines(path: Path) -> int:
    return path.read_bytes().count(b'\n') if path.exists() else 0
