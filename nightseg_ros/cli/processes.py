# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The processes of ``nightseg run`` and ``demo``: a node, and what plays, records and shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, ExitStack, suppress
import ctypes
from dataclasses import fields
from http.client import HTTPConnection, HTTPException
import json
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
from textwrap import shorten
import time
from typing import Any
from urllib.parse import urlsplit

from nightseg_ros.cli.options import PipelineOptions, print_table, Progress
from nightseg_ros.dds import private_domain, profile_environment

#: Seconds that the node may take to load its networks; the first run exports them.
LOADING_S = 420.0
#: Seconds in which /diagnostics has counted every received frame.
DIAGNOSTICS_S = 1.5
#: Most seconds to wait for the last masks; seconds without a mask after which a recording ends.
LAST_MASKS_S, NO_MASK_S = 60.0, 2.0
#: Seconds that a process may take to end.
ENDING_S = 60.0
#: Bytes at the end of a log that are looked at.
TAIL_BYTES = 16384
#: Exit code of the player where some frames could not be read.
SOME_UNREAD = 1
#: From sys/prctl.h: which signal a process gets when its parent has died.
PR_SET_PDEATHSIG = 1
_prctl: Any = getattr(ctypes.CDLL(None), 'prctl', lambda *_: 0)
_LOST = re.compile('^lost: (.*)$', re.MULTILINE)


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
                # whatever ends this process, also a terminal that is closed or a kill
                preexec_fn=lambda: _prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        """End it: SIGINT, upon which it writes what it has, SIGTERM, SIGKILL."""
        steps = (signal.SIGINT, ENDING_S), (signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)
        interrupt: KeyboardInterrupt | None = None
        for number, timeout in steps:
            try:
                self.signal(number, timeout)
            except KeyboardInterrupt as error:
                # whoever presses Ctrl-C again does not want to wait so long
                interrupt = error
        if interrupt is not None:
            raise interrupt

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._process.poll()

    def check(self) -> None:
        """Raise ``ProcessError`` where it has ended."""
        if self.code is not None:
            raise ProcessError(f'{self.name} ended with {self.code}:\n{self.tail()}')

    def stop(self, timeout: float) -> None:
        """Ask it to end (SIGINT); ``ProcessError`` where it does not, or not with 0."""
        self.signal(signal.SIGINT, timeout)
        if self.code is None:
            raise ProcessError(
                f'{self.name} did not end within {timeout:g} s of SIGINT:\n{self.tail()}'
            )
        if self.code != 0:
            self.check()

    def tail(self, lines: int = 15) -> str:
        """Return the end of its output."""
        with self.log.open('rb') as file:
            # of a day it has megabytes
            file.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
            text = file.read().decode(errors='replace').splitlines()
        return '\n'.join(f'  | {line}' for line in text[-lines:]) or '  (no output)'

    def signal(self, number: int, timeout: float = 0.0) -> None:
        """Send a signal to it and to its children, if it runs, and wait so long for its end."""
        if self.code is None:
            os.killpg(self._process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)


def print_run(title: str, summary: Mapping[str, Any], more: Sequence[Sequence[str]] = ()) -> None:
    """Print counts, rate, latencies (ms) and routes of a run, and more rows."""
    latency = ' / '.join(f'{value:.1f}' for value in summary['latency_ms'].values() if value)
    dropped = summary['dropped']
    if isinstance(dropped, Mapping):
        dropped = ', '.join(f'{reason} {count}' for reason, count in dropped.items()) or 'none'
    routes = ', '.join(f'{route} {count}' for route, count in summary['routes'].items()) or 'none'
    rows = [
        ['frames in / out', f'{summary["frames_in"]} / {summary["frames_out"]}'],
        ['dropped', str(dropped)],
        ['rate', f'{summary["rate_hz"]} Hz' if summary['rate_hz'] else 'unknown'],
        ['latency p50 / p95 / p99', f'{latency} ms' if latency else 'unknown'],
        ['frames by route', f'{routes}; {summary["switches"]} switches'],
    ]
    print_table(title, ('what', 'value'), [*rows, *more])


def node_parameters(options: PipelineOptions) -> dict[str, str]:
    """Return the options as the node's parameters, in YAML; ``ConfigError`` as it would say."""
    options.pipeline_config()
    values = {field.name: getattr(options, field.name) for field in fields(PipelineOptions)}
    return {
        # JSON is YAML, also for no text and for one with quotes
        name.replace('weights_', 'weights.'): json.dumps(value, ensure_ascii=False)
        for name, value in values.items()
    }


def ros_arguments(parameters: Mapping[str, str]) -> list[str]:
    """Return the parameters as a node takes them on its command line."""
    pairs = (('-p', f'{name}:={value}') for name, value in parameters.items())
    return ['--ros-args', *(argument for pair in pairs for argument in pair)]


def run_live(
    commands: Mapping[str, Sequence[str]], play: Sequence[str] | None, folder: Path,
    progress: Progress, *, seconds: float = 0.0,
) -> list[str]:  # fmt: skip
    """
    Run a node until the player has ended, or for ``seconds``; return what could not be played.

    ``commands`` are module and arguments of 'night_perception' and what is beside it: 'view',
    'recorder', whose log is arrived.jsonl, 'semantic_cloud'. They end in this order. ``play`` are
    the player's arguments, and all is in a ROS domain of its own; None for topics of this shell's.
    Logs lie in ``folder``. ``ProcessError`` tells which process failed and how its output ended;
    no process outlives this call, and Ctrl-C lets them write what they have.
    """
    environ = {**os.environ, **profile_environment(), 'ROS_LOG_DIR': str(folder / 'ros_log')}
    with ExitStack() as stack:
        if play is not None:
            try:
                environ |= stack.enter_context(private_domain())
            except RuntimeError as error:
                raise ProcessError(str(error)) from error

        def start(name: str, module: str, *arguments: str) -> Child:
            log = folder / f'{name}.log'
            child = Child(name, f'nightseg_ros.{module}', arguments, log=log, environ=environ)
            return stack.enter_context(child)

        children = {name: start(name, *command) for name, command in commands.items()}
        player = None
        # masks that come before are not recorded
        while 'recorder' in children and 'recording' not in children['recorder'].tail():
            children['recorder'].check()
            time.sleep(0.1)
        if play is not None:
            waiting = ('--wait-subscribers', '1', '--patience', str(LOADING_S))
            player = start('bag_player', 'node.replay', *play, *waiting)
        _wait(children, player, seconds, progress, folder / 'arrived.jsonl')
        unread: list[str] = []
        if player is not None and player.code:
            if player.code == SOME_UNREAD:
                unread = _LOST.findall(player.log.read_text(encoding='utf-8', errors='replace'))
            if not unread:
                player.check()
        for child in children.values():
            child.stop(ENDING_S)
    return unread


def _wait(
    children: Mapping[str, Child], player: Child | None, seconds: float, progress: Progress,
    arrived: Path,
) -> None:  # fmt: skip
    """Wait for the end of the source; ``ProcessError`` where a process ends before."""
    started, address, node = time.monotonic(), '', children['night_perception']
    while player is None or player.code is None:
        for child in children.values():
            child.check()
        # without the logger's prefix
        text = node.tail(1).strip().removeprefix('| ').rpartition(']: ')[2]
        if failed := re.search('configure failed: .*', node.tail(60)):
            raise ProcessError(f'night_perception: {failed[0]}')
        shown = '' if address or 'view' not in children else children['view'].tail()
        if match := re.search(r'view: (http\S+)', shown):
            address = match[1]
            progress.note(f'watch it on {address}; Ctrl-C ends it')
        progress.show(0, None, shorten(text, 70, placeholder=' …'))
        if player is None and 0 < seconds < time.monotonic() - started:
            return
        time.sleep(0.2)
    # the node computes the last masks
    time.sleep(DIAGNOSTICS_S)
    end = time.monotonic() + LAST_MASKS_S
    while time.monotonic() < end and not _all_accounted(address):
        if arrived.exists() and time.time() - arrived.stat().st_mtime > NO_MASK_S:
            return
        node.check()
        time.sleep(0.2)


def _all_accounted(address: str) -> bool:
    """Tell whether a mask or a reason to drop it is known of every frame that was received."""
    if not address:
        return False
    try:
        with closing(HTTPConnection(urlsplit(address).netloc, timeout=5)) as connection:
            connection.request('GET', '/events')
            first = connection.getresponse().readline()
        cameras = json.loads(first.removeprefix(b'data: '))['cameras']
    except (OSError, HTTPException, ValueError):
        return False
    counts = [camera['health'] for camera in cameras if 'health' in camera]
    return all(
        int(n['received']) == int(n['served']) + sum(map(int, n['lost'].values())) for n in counts
    )
