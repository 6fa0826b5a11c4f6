# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""
A long drive through real processes, and whether anything grew.

``python bench/soak.py --minutes 60 --out out/soak`` plays a rendered drive in a loop as two
cameras into night_perception. Again and again a camera falls silent or is started anew, the node
is deactivated or configured anew, or another route is forced. Memory, file descriptors, threads,
CPU time, latency and lost frames are sampled all the while. It writes soak.csv and
soak.json, and exits with 1 where something grew beyond its limit.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from watch import (
    HELD,
    Limit,
    Observer,
    add_weights,
    cpu_seconds,
    judged,
    resources,
    ros_arguments,
)  # fmt: skip

from nightseg_ros.cli.demo import Child, ProcessError
from nightseg_ros.dds import private_domain, profile_environment
from nightseg_ros.simulation.drive import Drive, write_drive

CAMERAS = ('front', 'rear')
#: Times hear of other work on the machine: the fastest tenth of a quarter is compared.
LIMITS = (
    *HELD,
    Limit(name='cpu_ms_per_frame', growth=0.1, floor=5.0, quantile=0.1),
    Limit(name='latency_ms', growth=0.25, floor=10.0, quantile=0.1),
)
#: Seconds after an event in which frames may be lost: who publishes has to be found first.
SETTLE = 3.0
#: Seconds for the mask of a frame, at most.
ANSWER = 2.0
FIELDS = (
    'seconds', 'event', *(limit.name for limit in LIMITS), 'sent', 'masks', 'level',
    *(f'route_{camera}' for camera in CAMERAS),
)  # fmt: skip


class LoopPlayer:
    """Plays a bag into ``<camera>/image_raw`` for ever, and tells which frame was sent when."""

    def __init__(self, camera: str, bag: Path, folder: Path) -> None:
        """Prepare; ``start`` starts the process, whose files go into ``folder``."""
        self.camera = camera
        self._bag, self._folder = bag, folder
        self._starts = 0
        self._child: Child | None = None
        self._stack = ExitStack()
        self._read = 0

    def start(self) -> None:
        """Start the process."""
        self._starts += 1
        self._read = 0
        self._child = self._stack.enter_context(
            Child(
                self.camera, 'nightseg_ros.node.replay',
                [
                    str(self._bag), '--loop', '--remap-to', f'{self.camera}/image_raw',
                    '--log', str(self._log),
                ],
                log=self._folder / f'{self.camera}.log',
                environ=dict(os.environ),
            )
        )  # fmt: skip

    def stop(self) -> None:
        """End the process."""
        self._stack.close()
        self._log.unlink(missing_ok=True)
        self._child = None

    def freeze(self) -> None:
        """Let it fall silent while it still stands in the graph."""
        assert self._child is not None
        self._child.check()
        self._child.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on; what it missed comes at once."""
        assert self._child is not None
        self._child.signal(signal.SIGCONT)

    def sent(self) -> list[tuple[int, float]]:
        """Return stamp (ns) and steady time (s) of what was sent since the last call."""
        if self._child is None or not self._log.exists():
            return []
        self._child.check()
        with self._log.open('rb') as file:
            file.seek(self._read)
            content = file.read()
        whole = content[: content.rfind(b'\n') + 1]
        self._read += len(whole)
        events = [json.loads(line) for line in whole.splitlines()]
        return [(event['stamp'], event['sent'] / 1e9) for event in events]

    @property
    def _log(self) -> Path:
        return self._folder / f'{self.camera}-{self._starts}.jsonl'


class Soak:
    """One run: events in turn, between them samples."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        """Render the drive and prepare the processes; files go into ``work``."""
        self.options = options
        self.rows: list[dict[str, Any]] = []
        self.lost = self.uncounted = self.sent = self.masks = 0
        self.silence_s: list[float] = []
        self.events = 0
        bag = work / 'drive'
        write_drive(
            bag,
            Drive(size=options.size, fps=options.fps, seconds=options.loop),
            processes=1,
        )
        environ = {**os.environ, 'ROS_LOG_DIR': str(work / 'ros_log')}
        self._players = [LoopPlayer(camera, bag, work) for camera in CAMERAS]
        parameters = {
            'cameras': json.dumps(CAMERAS), 'weights.day': options.day,
            'weights.night': options.night, 'threads': '1', 'backend': options.backend,
        }  # fmt: skip
        self._stack = ExitStack()
        self.node = self._stack.enter_context(
            Child(
                'night_perception', 'nightseg_ros.node.main', ros_arguments(parameters),
                log=work / 'night_perception.log', environ=environ,
            )
        )  # fmt: skip
        self.observer = Observer(CAMERAS, lambda: self.node.code is None)
        self._stack.callback(self.observer.close)
        for player in self._players:
            self._stack.callback(player.stop)
        self._begun = time.monotonic()

    def close(self) -> None:
        """End every process."""
        self._stack.close()

    def run(self) -> None:
        """Go through the events until the time is over."""
        for player in self._players:
            player.start()
            # the cameras must not see the same light at the same time
            self.observer.spin(self.options.every / 3)
        self._until_masks()
        # a machine's first start compiles the networks; later ones hold the cache's files open
        self.configure()
        self._until_masks()
        # loading is no part of it
        self._begun = time.monotonic()
        end = self._begun + 60 * self.options.minutes
        events = itertools.cycle(
            (self.silence, self.restart, self.deactivate, self.force_route, self.configure)
        )
        event = 'start'
        while time.monotonic() < end:
            self._steady(event, min(self.options.every, end - time.monotonic()))
            happening = next(events)
            event = happening.__name__
            self.events += 1
            happening()
        self.node.stop(20.0)

    def _until_masks(self) -> None:
        """Wait for new masks of both cameras."""
        self.observer.arrivals.clear()
        self.observer.until(
            lambda: {camera for camera, _, _ in self.observer.arrivals} == set(CAMERAS),
            'masks of both cameras',
        )

    # -- events -------------------------------------------------------------------------------

    def silence(self) -> None:
        """Let the front camera fall silent and come back with all that it held back."""
        player, camera = self._players[0], CAMERAS[0]
        player.freeze()
        try:
            took = self.observer.until(
                lambda: self.observer.levels.get(camera) == 2, 'a word about the silence'
            )
        finally:
            player.thaw()
        self.silence_s.append(took)
        self.observer.until(lambda: self.observer.levels.get(camera) != 2, 'the camera again')

    def restart(self) -> None:
        """End the rear camera's process and start another one."""
        self._players[1].stop()
        self.observer.spin(1.0)
        self._players[1].start()
        self.observer.until(lambda: self.observer.levels.get(CAMERAS[1]) == 2, 'silence')
        self.observer.until(lambda: self.observer.levels.get(CAMERAS[1]) != 2, 'the camera')

    def deactivate(self) -> None:
        """Deactivate and activate the node."""
        for transition in ('deactivate', 'activate'):
            self.observer.transition(transition)

    def configure(self) -> None:
        """Free everything and load it anew."""
        for transition in ('deactivate', 'cleanup', 'configure', 'activate'):
            self.observer.transition(transition)

    def force_route(self) -> None:
        """Take one network for every light, then the other, then let the light decide again."""
        for route in ('night', 'day', 'auto'):
            self.observer.set('route', route)
            self.observer.spin(self.options.every / 10)

    # -- samples ------------------------------------------------------------------------------

    def _steady(self, event: str, seconds: float) -> None:
        """Settle, then sample and count until ``seconds`` have passed."""
        self.observer.spin(SETTLE)
        for player in self._players:
            player.sent()
        self.observer.arrivals.clear()
        dropped = self._dropped()
        waiting: dict[tuple[str, int], float] = {}
        end = time.monotonic() + seconds - SETTLE
        before = cpu_seconds(self.node.pid)
        while time.monotonic() < end:
            self.observer.spin(self.options.sample)
            sent, latencies = self._match(waiting)
            now = cpu_seconds(self.node.pid)
            frames = len(latencies)
            cpu = (now - before) * 1e3 / frames if frames else float('nan')
            before = now
            self.sent += sent
            self.masks += frames
            self.rows.append({
                'seconds': round(time.monotonic() - self._begun, 2), 'event': event,
                **resources(self.node.pid), 'cpu_ms_per_frame': round(cpu, 2),
                'latency_ms': round(statistics.median(latencies), 2) if latencies else 'nan',
                'sent': sent, 'masks': frames,
                'level': max(self.observer.levels.values(), default=0),
                **{f'route_{camera}': self._route(camera) for camera in CAMERAS},
            })  # fmt: skip
            event = ''
        self.observer.spin(ANSWER)
        _, latencies = self._match(waiting, last=end)
        self.masks += len(latencies)
        lost = len(waiting)
        self.lost += lost
        self.uncounted += max(0, lost - max(0, self._dropped() - dropped))

    def _match(
        self, waiting: dict[tuple[str, int], float], last: float = float('inf')
    ) -> tuple[int, list[float]]:
        """
        Give each mask to its frame; return how many were sent and the latencies in ms.

        ``waiting`` holds the steady time at which each frame without a mask was sent, ``last`` is
        that of the last frame that counts.
        """
        count = 0
        for player in self._players:
            for stamp, sent in player.sent():
                if sent <= last:
                    waiting[player.camera, stamp] = sent
                    count += 1
        latencies = []
        for camera, stamp, arrived in self.observer.arrivals:
            sent = waiting.pop((camera, stamp), None)
            if sent is not None:
                latencies.append((arrived - sent) * 1e3)
        self.observer.arrivals.clear()
        return count, latencies

    def _dropped(self) -> int:
        """Return how many frames the node counts as dropped, for whatever reason."""
        return sum(
            int(value)
            for camera in CAMERAS
            for key, value in self.observer.values.get(camera, {}).items()
            if key.startswith('dropped.')
        )

    def _route(self, camera: str) -> str:
        now = self.observer.values.get(camera, {}).get('now', '')
        return now.removeprefix('route ').partition(',')[0]


def main() -> int:
    """Run it and return the exit code."""
    options = _parser().parse_args()
    seconds = 60 * options.minutes
    # every event has to happen before what it costs once is held against it
    options.every = min(40.0, seconds / 25) if options.every is None else options.every
    options.warm_up = min(600.0, seconds / 2) if options.warm_up is None else options.warm_up
    options.out.mkdir(parents=True, exist_ok=True)
    with private_domain() as domain, tempfile.TemporaryDirectory(prefix='nightseg-soak-') as work:
        os.environ.update({**domain, **profile_environment()})
        soak = Soak(options, Path(work))
        problem = ''
        try:
            soak.run()
        except (RuntimeError, ProcessError, OSError) as error:
            problem = f'{error}\n{soak.node.tail()}'
        finally:
            soak.close()
            with (options.out / 'soak.csv').open('w', newline='', encoding='utf-8') as file:
                writer = csv.DictWriter(file, FIELDS)
                writer.writeheader()
                writer.writerows(soak.rows)
    return _judge(options, soak, problem)


def _judge(options: argparse.Namespace, soak: Soak, problem: str) -> int:
    warm_up = options.warm_up
    found = judged(soak.rows, 'seconds', warm_up, LIMITS, options.growth)
    share = soak.lost / soak.sent if soak.sent else 1.0
    lines = [str(one) for one in found]
    lines.append(
        f'{"ok  " if share <= options.lost else "FAIL"} lost frames        {soak.lost} of '
        f'{soak.sent} ({share:.2%}, at most {options.lost:.0%}), {soak.uncounted} of them not '
        'counted by the node'
    )
    silence = [round(value, 2) for value in soak.silence_s]
    lines.append(
        f'     silent camera told after {statistics.median(silence):.1f} s, {max(silence):.1f} s '
        f'at most ({len(silence)} times)' if silence else '     no camera was silent'
    )  # fmt: skip
    passed = not problem and share <= options.lost and all(one.passed for one in found)
    if problem:
        lines.append(f'FAIL {problem}')
    lines.append(f'verdict: {"passed" if passed else "FAILED"}')
    print('\n'.join(lines))
    verdict = {
        'minutes': options.minutes, 'warm_up_s': warm_up, 'events': soak.events,
        'sent': soak.sent, 'masks': soak.masks, 'lost': soak.lost, 'uncounted': soak.uncounted,
        'silence_s': silence, 'problem': problem, 'passed': passed,
        'growth': {
            one.limit.name: {'first': one.first, 'last': one.last, 'share': one.share}
            for one in found
        },
    }  # fmt: skip
    (options.out / 'soak.json').write_text(json.dumps(verdict, indent=2) + '\n')
    return 0 if passed else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('--minutes', type=float, default=60.0)
    add('--out', type=Path, default=Path('out/soak'))
    add('--every', type=float, help='seconds between two events; 40, less in a short run')
    add('--sample', type=float, default=2.0, help='seconds between two samples')
    add('--warm-up', type=float, help='seconds that are not judged; 600, half of a short run')
    add('--lost', type=float, default=0.02, help='largest share of lost frames')
    add('--fps', type=float, default=4.0, help='frames a second of each camera')
    add('--loop', type=float, default=45.0, help='seconds until the drive starts again')
    add('--size', type=int, nargs=2, default=(320, 180), help='width and height of the images')
    add_weights(parser)
    return parser


if __name__ == '__main__':
    sys.exit(main())
