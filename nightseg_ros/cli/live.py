# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""One live run: player, night_perception and recorder as real ROS 2 processes, supervised."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from nightseg_ros.bags.reader import IMAGE_TYPES
from nightseg_ros.cli.processes import Child, ProcessError
from nightseg_ros.dds import private_domain, profile_environment

#: Seconds that the node may take to load its networks; the first run exports them.
LOADING_S = 420.0
#: After the last frame: seconds without a new mask that end the recording, and at most.
QUIET_S, LONGEST_QUIET_S = 2.0, 30.0
#: Exit code of the player where something of the input could not be read.
PLAYED_THE_REST = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveInput:
    """What the player gets."""

    path: Path
    topic: str | None = None
    type: str = IMAGE_TYPES[0]
    count: int | None = None
    """How many frames will come, for the progress bar."""
    seconds: float = 0.0
    """Play only this much of it; 0 plays all."""
    fps: float | None = None
    """Frames a second of a folder."""
    also: tuple[str, ...] = ()
    """Topics of a bag that are played beside the images, which then keep their name."""
    stamp_offset: int = 0
    """Nanoseconds added to the stamps of a video or folder, which start at 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveFiles:
    """What a live run leaves."""

    recorded: Path
    """Bag of the node's outputs."""
    sent: Path
    """Stamp log of the player."""
    arrived: Path
    """Stamp log of the recorder."""
    lost: tuple[str, ...] = ()
    """What the player could not read of the input, in its words; it played the rest."""

    @classmethod
    def within(cls, folder: Path) -> LiveFiles:
        """Return the names within a folder."""
        return cls(
            recorded=folder / 'recorded',
            sent=folder / 'sent.jsonl',
            arrived=folder / 'arrived.jsonl',
        )


def run_live(
    given: LiveInput,
    parameters: dict[str, str],
    folder: Path,
    *,
    clouds: dict[str, str] | None = None,
    progress: Callable[[int, int | None, str], None],
) -> LiveFiles:
    """
    Play the input in real time to a node with these parameters and record labels and status.

    With ``clouds`` semantic_cloud runs beside it with those parameters, and the labelled points
    of its sensor ``lidar`` are recorded, too.
    Everything lives in a ROS domain of its own. ``ProcessError`` tells which process failed and
    what it said last; no process outlives this call.
    """
    files = LiveFiles.within(folder)
    compressed = given.type == IMAGE_TYPES[1]
    node_arguments = _settings(
        {**parameters, **({'transport': 'compressed'} if compressed else {})}
    )
    play = [str(given.path), '--log', str(files.sent), '--stamp-offset', str(given.stamp_offset)]
    if given.also:
        play += ['--also', *given.also]
    else:
        play += ['--remap-to', f'camera/image_raw{"/compressed" if compressed else ""}']
    play += ['--wait-subscribers', '1', '--wait-seconds', str(LOADING_S)]
    play += ['--seconds', str(given.seconds)] if given.seconds else []
    play += ['--topic', given.topic] if given.topic else []
    play += ['--fps', str(given.fps)] if given.fps else []

    with private_domain() as domain, ExitStack() as stack:
        environ = {**os.environ, **domain, **profile_environment()}
        environ['ROS_LOG_DIR'] = str(folder / 'ros_log')

        def start(module: str, arguments: list[str]) -> Child:
            log = folder / f'{module}.log'
            child = Child(f'nightseg_ros.node.{module}', arguments, log=log, environ=environ)
            return stack.enter_context(child)

        record = ['--outputs', 'labels', 'status', '--log', str(files.arrived)]
        painter = None
        if clouds is not None:
            record += ['--clouds', '/lidar/nightseg/points']
            painter = start('clouds.main', ['--ros-args', *_settings(clouds)])
        recorder = start('bag_recorder', [str(files.recorded), *record])
        node = start('main', ['--ros-args', *node_arguments])
        player = start('bag_player', play)
        progress(0, given.count, 'the node loads its networks')
        while player.code is None:
            node.check()
            recorder.check()
            if painter is not None:
                painter.check()
            sent = _lines(files.sent)
            if sent:
                progress(sent, given.count, 'playing in real time')
            else:
                progress(0, given.count, f'loading: {node.last_line()}')
            time.sleep(0.2)
        lost = _lost(player.log) if player.code == PLAYED_THE_REST else []
        if player.code != 0 and not (lost and _lines(files.sent)):
            raise ProcessError(
                f'bag_player ended with {player.code}:\n{player.last_words()}\n'
                f'night_perception said last:\n{node.last_words()}'
            )
        _wait_until_quiet(files.arrived, node, recorder)
        recorder.stop(60.0)
        node.stop(20.0)
        if painter is not None:
            painter.stop(20.0)
    return replace(files, lost=tuple(lost))


def _lost(log: Path) -> list[str]:
    """Return the warnings in the player's log."""
    lines = log.read_text(encoding='utf-8', errors='replace').splitlines()
    said = [line.partition('[bag_player]: ') for line in lines if line.startswith('[WARN]')]
    return [text for _, found, text in said if found]


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


def _settings(parameters: dict[str, str]) -> list[str]:
    return [
        argument for name, value in parameters.items() for argument in ('-p', f'{name}:={value}')
    ]


def _lines(path: Path) -> int:
    return path.read_bytes().count(b'\n') if path.exists() else 0
